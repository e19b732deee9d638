/**
 * A target database in memory (port Target): tables that segments are applied to as lib/stage/segment.ts says, the rows of `_sluice`, and epochs with
 * shadow tables. A transaction is there as a whole or not at all.
 */
import { buffer } from 'node:stream/consumers';
import { courseOf } from '../../lib/epoch/kinds.ts';
import { SluiceError } from '../../lib/errors.ts';
import { lsnMax } from '../../lib/lsn.ts';
import type {
  Chunk,
  Comparer,
  SegmentSource,
  Target,
  TargetRow,
  TargetStream,
  TargetTransaction,
} from '../../lib/ports.ts';
import { displayName } from '../../lib/shape.ts';
import type { World } from './memory-ports.ts';
import { isIn, type MemoryDatabase } from './memory-source.ts';
import { applySegment, type SegmentText, type TargetRows } from './shares.ts';

interface StreamState {
  readonly row: TargetRow;
  readonly rows: TargetRows;
  /** Number of the newest epoch that is over. */
  readonly epoch: number;
}

interface Plan {
  readonly shadow: TargetRows;
  readonly loaded: ReadonlySet<number>;
}

/** What the target's server holds. */
export class MemoryWarehouse {
  readonly streams = new Map<string, StreamState>();
  /** By stream, epoch and plan. */
  readonly plans = new Map<string, Plan>();
  /** Streams whose rows a transaction holds. */
  readonly locked = new Set<string>();
  readonly hard_delete: boolean;

  constructor(hard_delete = true) {
    this.hard_delete = hard_delete;
  }

  rows(stream: string): TargetRows {
    return this.streams.get(stream)?.rows ?? new Map();
  }
}

async function textOf(segment: SegmentSource): Promise<SegmentText> {
  const { operation, shape, blocks } = segment.header;
  const texts: SegmentText['blocks'][number][] = [];
  for (const [i, { kind, columns }] of blocks.entries())
    texts.push({ kind, columns, text: await buffer(segment.block(i)) });
  return { operation, shape, blocks: texts };
}

export function memoryTarget(world: World, warehouse: MemoryWarehouse): Target {
  const { life } = world;
  const { streams, plans, hard_delete } = warehouse;
  const planKey = ({ stream }: TargetStream, epoch: number, plan: string): string => `${stream}/${epoch}/${plan}`;
  const change = async <T>(call: string, about: unknown, effect: () => T): Promise<T> => {
    await world.turn();
    return world.change(life, `target.${call}`, about, effect);
  };
  /** With the rows of these streams locked, in one order for all. A connection that is gone lets go of them. */
  const locking = async <T>(names: readonly string[], work: () => Promise<T>): Promise<T> => {
    const held: string[] = [];
    try {
      for (const name of names.toSorted()) {
        while (warehouse.locked.has(name)) {
          await world.turn();
          world.look(life);
        }
        warehouse.locked.add(name);
        held.push(name);
      }
      return await work();
    } finally {
      for (const name of held) warehouse.locked.delete(name);
    }
  };
  const alone = <T>(stream: string, call: string, about: unknown, effect: () => T): Promise<T> =>
    locking([stream], () => change(call, about, effect));
  /** One stream of a transaction: what it does is there when it is kept. */
  const begin = (
    stream: string,
  ): { readonly tx: TargetTransaction; readonly row: () => TargetRow | null; readonly keep: () => void } => {
    const fault = world.faults.get(`target.apply ${stream}`) ?? world.faults.get('target.apply');
    const state = streams.get(stream);
    const rows: TargetRows = new Map(state?.rows);
    let row: TargetRow | null = state ? { ...state.row, epoch: state.epoch } : null;
    const tx: TargetTransaction = {
      row,
      apply: async (segment) => {
        if (fault) throw fault;
        if (!row || row.hold !== null) throw new RangeError('a segment for a stream that is held');
        applySegment(rows, await textOf(segment), hard_delete, segment.header.extracted_at);
      },
      // It refuses whole loads (world.faults), and no rows.
      divert: async () => {
        await world.turn();
      },
      advance: async ({ cut, lsn, caught_up, together = false }) => {
        await world.turn();
        if (!row || cut < row.applied_cut) throw new RangeError('an advance backwards');
        const catching_up_to = caught_up ? null : row.catching_up_to;
        row = { ...row, applied_cut: cut, applied_lsn: lsn, catching_up_to, together, halt: null };
        return null;
      },
      place: async () => {
        await world.turn();
        const others = [...streams].filter(([name, { row: its }]) => name !== stream && its.together && isFree(its));
        return others.length === 0 ? null : Math.max(...others.map(([, { row: its }]) => its.applied_cut));
      },
    };
    const keep = (): void => {
      if (state && row) streams.set(stream, { ...state, row, rows });
    };
    return { tx, row: () => row, keep };
  };
  const isFree = ({ hold, catching_up_to, halt }: TargetRow): boolean =>
    hold === null && catching_up_to === null && halt == null;
  return {
    transaction: async ({ stream }, work) => {
      await world.turn();
      world.look(life);
      return await locking([stream], async () => {
        const { tx, row, keep } = begin(stream);
        const result = await work(tx);
        await change('commit', { stream, cut: row()?.applied_cut }, keep);
        return result;
      });
    },

    transactionOver: async (over, work) => {
      await world.turn();
      world.look(life);
      const names = over.map(({ stream }) => stream);
      return await locking(names, async () => {
        const begun = new Map(names.map((stream) => [stream, begin(stream)]));
        const result = await work((stream) => {
          const found = begun.get(stream);
          if (!found) throw new RangeError(`${stream} is not in this transaction`);
          return found.tx;
        });
        const cuts = Object.fromEntries([...begun].map(([stream, { row }]) => [stream, row()?.applied_cut]));
        await change('commit', { cuts }, () => begun.forEach(({ keep }) => keep()));
        return result;
      });
    },

    noteHalts: (halts) =>
      locking(
        halts.map(({ stream }) => stream),
        () =>
          change('noteHalts', halts, () => {
            for (const { stream, code } of halts) {
              const state = streams.get(stream);
              if (state) streams.set(stream, { ...state, row: { ...state.row, halt: code } });
            }
          }),
      ),

    prepareEpoch: (stream, epoch, plan, shape, incarnation) =>
      alone(stream.stream, 'prepareEpoch', { stream: stream.stream, epoch: epoch.number, plan }, () => {
        const state = streams.get(stream.stream);
        if (state && state.row.incarnation !== incarnation && epoch.kind !== 'reset') {
          throw new SluiceError('LEDGER_INCARNATION', {
            stream: displayName(stream.target),
            found: state.row.incarnation,
            expected: incarnation,
          });
        }
        if (state && state.row.incarnation === incarnation && epoch.number <= state.epoch) return;
        const none = {
          incarnation,
          applied_cut: epoch.held_cut,
          applied_lsn: 0n as TargetRow['applied_lsn'],
          catching_up_to: null,
          shape,
        };
        const row: TargetRow = { ...(state?.row ?? none), incarnation, hold: epoch.number, together: false };
        streams.set(stream.stream, { row, rows: state?.rows ?? new Map(), epoch: state?.epoch ?? 0 });
        const key = planKey(stream, epoch.number, plan);
        if (!plans.has(key)) plans.set(key, { shadow: new Map(), loaded: new Set() });
      }),

    loadChunk: async (stream, epoch, chunk, segment) => {
      const text = segment === null ? null : await textOf(segment);
      return await alone(stream.stream, 'loadChunk', { stream: stream.stream, chunk: chunk.number }, () => {
        const key = planKey(stream, epoch.number, chunk.plan);
        const plan = plans.get(key);
        if (!plan || plan.loaded.has(chunk.number) || streams.get(stream.stream)?.row.hold !== epoch.number)
          return false;
        const loaded = new Set([...plan.loaded, chunk.number]);
        const { into, replaces } = courseOf(epoch.kind);
        const state = streams.get(stream.stream);
        const rows: TargetRows = new Map(into === 'shadow' ? plan.shadow : state?.rows);
        if (replaces && text) for (const gone of keysIn(rows, chunk)) rows.delete(gone);
        if (text && segment) applySegment(rows, text, hard_delete, segment.header.extracted_at);
        plans.set(key, { shadow: into === 'shadow' ? rows : plan.shadow, loaded });
        if (into === 'table' && state) streams.set(stream.stream, { ...state, rows });
        return true;
      });
    },

    loadedChunks: async (stream, epoch, plan) => {
      await world.turn();
      world.look(life);
      return new Set(plans.get(planKey(stream, epoch.number, plan))?.loaded);
    },

    finishEpoch: (stream, epoch, plan, lsn, held_lsn) =>
      alone(stream.stream, 'finishEpoch', { stream: stream.stream, epoch: epoch.number }, () => {
        const state = streams.get(stream.stream);
        const finished = plans.get(planKey(stream, epoch.number, plan));
        if (!state || state.epoch >= epoch.number) return;
        if (finished?.loaded.size !== epoch.chunks) {
          throw new SluiceError('EPOCH_INCOMPLETE', {
            stream: stream.stream,
            epoch: epoch.number,
            loaded: finished?.loaded.size ?? 0,
            chunks: epoch.chunks,
          });
        }
        const { into, goes_on_from } = courseOf(epoch.kind);
        const row: TargetRow = {
          ...state.row,
          hold: null,
          ...(goes_on_from === 'applied' ? {} : { applied_cut: epoch.held_cut, applied_lsn: held_lsn }),
          catching_up_to:
            lsn === null || goes_on_from !== 'applied' ? lsn : lsnMax(lsn, state.row.catching_up_to ?? lsn),
        };
        const rows = into === 'shadow' ? new Map(finished?.shadow) : state.rows;
        streams.set(stream.stream, { row, rows, epoch: epoch.number });
      }),

    cancelEpoch: async (stream, epoch, lsnOf) => {
      const loaded = plans.get(planKey(stream, epoch.number, epoch.plan ?? ''))?.loaded ?? new Set<number>();
      const lsn = loaded.size > 0 ? await lsnOf(loaded) : null;
      await alone(stream.stream, 'cancelEpoch', { stream: stream.stream, epoch: epoch.number }, () => {
        const state = streams.get(stream.stream);
        if (!state || state.epoch >= epoch.number) return;
        plans.delete(planKey(stream, epoch.number, epoch.plan ?? ''));
        const { catching_up_to: before } = state.row;
        const catching_up_to = lsn === null ? before : lsnMax(lsn, before ?? lsn);
        const hold = state.row.hold === epoch.number ? null : state.row.hold;
        streams.set(stream.stream, { ...state, row: { ...state.row, hold, catching_up_to }, epoch: epoch.number });
      });
    },
  };
}

/** Compares the rows themselves. */
export function memoryComparer(world: World, database: MemoryDatabase, warehouse: MemoryWarehouse): Comparer {
  const { life } = world;
  const look = async <T>(read: () => T): Promise<T> => {
    await world.turn();
    world.look(life);
    return read();
  };
  return {
    obstacle: ({ stream }, { key }) =>
      look(() => {
        if (key.length === 0) return 'it has no key';
        return (warehouse.streams.get(stream)?.epoch ?? 0) > 0 ? null : 'it was never copied';
      }),
    equalRows: ({ stream }, table, range) =>
      look(() => {
        const textOf = (rows: TargetRows): string =>
          JSON.stringify(
            [...rows.values()]
              .filter(({ values, deleted_at }) => deleted_at === null && isIn(range, values.id ?? ''))
              .map(({ values }) => [values.id, values.v])
              .sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1)),
          );
        const source = database.table(displayName(table)).snapshot();
        const text = textOf(source);
        world.events.push({ call: 'comparer.equalRows', about: range });
        if (text !== textOf(warehouse.rows(stream))) return null;
        return { rows: (JSON.parse(text) as unknown[]).length, lsn: database.lsn };
      }),
  };
}

/** Keys of the rows that a chunk tells of, whether it brings them or not. Rows are known by their key's text (shares.ts). */
function keysIn(rows: TargetRows, { range }: Chunk): string[] {
  if (range.by === 'whole') return [...rows.keys()];
  if (range.by === 'key') return [...rows].flatMap(([key, { values }]) => (isIn(range, values.id ?? '') ? [key] : []));
  if (range.by !== 'keys') throw new RangeError(`a range by ${range.by} in memory`);
  const asked = new Set(range.keys.map((key) => JSON.stringify(key)));
  return [...rows.keys()].filter((key) => asked.has(key));
}
