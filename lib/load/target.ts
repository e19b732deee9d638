/**
 * The `Target` port over PostgreSQL: every method is one connection, opened for it and closed with it.
 *
 * On the path it is the end: what a load applies and what it says is applied lie in one transaction of the target (I4), under the lock of the
 * stream's row (I5). Epochs are in prepare.ts, chunk.ts and finish.ts.
 */
import { courseOf } from '../epoch/kinds.ts';
import { SluiceError } from '../errors.ts';
import type {
  Advance,
  Aside,
  Clock,
  DoubtfulKeys,
  Log,
  SegmentSource,
  Target,
  TargetStream,
  TargetTransaction,
  TransactionOf,
} from '../ports.ts';
import { displayName, type Shape } from '../shape.ts';
import { Applier } from './apply.ts';
import { cancel } from './cancel.ts';
import { loadChunk, markHeldChunk } from './chunk.ts';
import { keyNames } from './columns.ts';
import {
  advanceSql,
  beginIfMade,
  markedChunksSql,
  noteHaltSql,
  type Owner,
  placeSql,
  type StreamRow,
  saveForm,
  streamRowOf,
  streamRowSql,
  streamRowsSql,
  streamsThereSql,
  upgradeControl,
} from './control.ts';
import { Diverter } from './divert.ts';
import { forgetDoubtsSql, unknownKeysSql } from './doubts.ts';
import { finish, SWAP_PATIENCE, type SwapPatience } from './finish.ts';
import { addIndices, type IndexOption, indexName, indicesOf, missingIndices } from './indices.ts';
import { inCopy } from './multiset.ts';
import { type LoadOptions, wantsMetadata } from './options.ts';
import { prepare, sameTable, tableMoved } from './prepare.ts';
import { ReaderGrants } from './readers.ts';
import { type Connect, LOAD_LIMITS, type Session, type Subject, withSession } from './session.ts';
import type { TableForm } from './sql.ts';
import { lostAttribute, renamedLabels } from './type-history.ts';
import type { Moment } from './type-steps.ts';
import { ensureTypes } from './types.ts';

/** Keys that are read again one by one: more, and the table is copied anew. */
const DOUBTFUL_KEYS_MAX = 10_000;

export interface PostgresTarget {
  /** Gives a connected client; each is used for one call and closed. */
  readonly connect: Connect;
  /** Name of the pipeline: its streams on the target are its own. */
  readonly pipeline: string;
  readonly options: LoadOptions;
  readonly clock: Clock;
  readonly log: Log;
  /** Left out: SWAP_PATIENCE. */
  readonly patience?: SwapPatience;
}

export function postgresTarget(given: PostgresTarget): Target {
  const { connect, pipeline, options, clock, log, patience = SWAP_PATIENCE } = given;
  const on = async <T>(stream: TargetStream, work: (session: Session, owner: Owner) => Promise<T>): Promise<T> => {
    return await onTarget(subjectOf(stream), (session) => work(session, { pipeline, stream }));
  };
  /** Looked at once: what an older version has made is brought up to this one's. */
  let isCurrent = false;
  const onTarget = <T>(subject: Subject, work: (session: Session) => Promise<T>): Promise<T> =>
    withSession(connect, subject, async (session) => {
      if (!isCurrent) await upgradeControl(session);
      isCurrent = true;
      return await work(session);
    });

  const { custom_types } = options;
  const readers = new ReaderGrants(pipeline, options.default_target_schema_select_permissions ?? [], clock, log);
  /** Names of indexes that could not be made: not tried again by this process. */
  const unmade = new Set<string>();
  const ensure: Ensure = (session, { stream, target }, shape, moment) =>
    ensureTypes(connect, session, { stream, table: displayName(target) }, shape, { custom_types, moment });

  /** What comes after the commit. */
  const after = async (session: Session, live: readonly LiveTable[]): Promise<void> => {
    for (const { owner, missing, shape } of live) {
      const name = (index: IndexOption): string => indexName(owner.stream.target, index);
      const indices = missing.filter((index) => !unmade.has(name(index)));
      const failed = await addIndices({ session, owner, indices, log }, shape);
      for (const index of failed) unmade.add(name(index));
    }
    await readers.give(session);
  };

  return {
    transaction: (stream, work) =>
      on(stream, async (session, owner) => {
        const { result, live } = await load(session, owner, { options, clock, log }, ensure, work);
        await after(session, live);
        return result;
      }),

    transactionOver: (streams, work) =>
      onTarget({ stream: `${streams.length} streams`, table: 'their tables' }, async (session) => {
        const owners = streams.map((stream) => ({ pipeline, stream }));
        const { result, live } = await loadOver(session, pipeline, owners, { options, clock, log }, ensure, work);
        await after(session, live);
        return result;
      }),

    noteHalts: (halts) =>
      onTarget({ stream: `${halts.length} streams`, table: '_sluice.streams' }, async (session) => {
        const [first, ...more] = halts.map(({ stream, code }) => noteHaltSql(pipeline, stream, code));
        if (first === undefined) return;
        try {
          if ((await beginIfMade(session, first)) !== null) await session.commit(more.join('; '));
        } finally {
          await session.rollback();
        }
      }),

    prepareEpoch: (stream, epoch, plan, shape, incarnation, overlapping) =>
      on(stream, async (session, owner) => {
        const row = await beginIfMade(session, streamRowSql(owner, ''));
        const table = row && streamRowOf(row)?.shape;
        await session.rollback();
        const renamed = table ? renamedLabels(table, shape) : [];
        await session.transaction(LOAD_LIMITS, () => ensure(session, stream, shape, { at: 'copy', renamed }));
        const metadata = wantsMetadata(options);
        const indices = indicesOf(options.indices, stream.stream);
        const what = { epoch, plan, shape, incarnation, overlapping, metadata, custom_types, indices, log };
        await prepare(session, owner, what);
      }),

    loadChunk: (stream, epoch, chunk, segment, aside) =>
      on(stream, async (session, owner) => {
        if (chunk.epoch !== epoch.number || chunk.plan !== epoch.plan) return false;
        if (segment === null) return await markHeldChunk(session, owner, chunk);
        await session.transaction(LOAD_LIMITS, () => ensure(session, stream, segment.header.shape, UNKNOWN_HISTORY));
        const what = { session, owner, options, clock, log, kind: epoch.kind, chunk, segment, aside: aside ?? null };
        return await loadChunk(what);
      }),

    loadedChunks: (stream, epoch, plan) =>
      on(stream, async (session, owner) => {
        const marks = await beginIfMade(session, markedChunksSql(owner, epoch.number, plan));
        await session.rollback();
        return new Set(marks?.rows.map(({ chunk }) => Number(chunk)));
      }),

    finishEpoch: (stream, epoch, plan, lsn, held_lsn, aside) =>
      on(stream, async (session, owner) => {
        const { on_type_change, on_drop_column } = options;
        const gone_at_ms = courseOf(epoch.kind).keeps_deleted && !options.hard_delete ? epoch.opened_at_ms : null;
        const keeping = { on_type_change, on_drop_column, now_ms: clock.now(), gone_at_ms };
        const indices = indicesOf(options.indices, stream.stream);
        const flattening_level = options.data_flattening_max_level ?? 0;
        const what = { epoch, plan, lsn, held_lsn, keeping, indices, flattening_level, patience, aside: aside ?? null };
        await finish(session, owner, what, clock, log);
        await readers.give(session, 'now');
      }),

    cancelEpoch: (stream, epoch, lsnOf) => on(stream, (session, owner) => cancel(session, owner, epoch, lsnOf)),
  };
}

type Settings = Pick<PostgresTarget, 'options' | 'clock' | 'log'>;

/** Makes the types that a shape needs and the target lacks. */
type Ensure = (session: Session, stream: TargetStream, shape: Shape, moment: Moment) => Promise<void>;

const UNKNOWN_HISTORY: Moment = { at: 'change', renamed: [] };

/** One transaction with the stream's row locked from its first statement to its last. */
async function load<T>(
  session: Session,
  owner: Owner,
  settings: Settings,
  ensure: Ensure,
  work: (tx: TargetTransaction) => Promise<T>,
): Promise<{ readonly result: T; readonly live: readonly LiveTable[] }> {
  const answer = await beginIfMade(session, streamRowSql(owner, 'FOR UPDATE'));
  try {
    const tx = new Load(session, owner, settings, ensure, inPlace(owner, answer && streamRowOf(answer)));
    const result = await work(tx);
    const live = await liveTables(session, [tx], settings);
    await tx.keepAside();
    if (answer !== null) await session.commit(tx.lastSql);
    return { result, live };
  } finally {
    // After a commit there is nothing to give up.
    await session.rollback();
  }
}

/** The same over several streams. */
async function loadOver<T>(
  session: Session,
  pipeline: string,
  owners: readonly Owner[],
  settings: Settings,
  ensure: Ensure,
  work: (of: TransactionOf) => Promise<T>,
): Promise<{ readonly result: T; readonly live: readonly LiveTable[] }> {
  const names = owners.map(({ stream }) => stream.stream);
  const answer = await beginIfMade(session, streamRowsSql(pipeline, names));
  try {
    const rows = new Map((answer?.rows ?? []).map((row) => [String(row.stream), streamRowOf({ rows: [row] })]));
    const left = names.filter((name) => !rows.has(name));
    const there = left.length > 0 && answer ? (await session.run(streamsThereSql(pipeline, left))).rows : [];
    const aside = new Set(there.map(({ stream }) => String(stream)));
    const loads = new Map<string, Load>();
    const of = (name: string): Load | null => {
      if (aside.has(name)) return null;
      const known = loads.get(name);
      if (known) return known;
      const number = names.indexOf(name);
      const owner = owners[number];
      if (!owner) throw new RangeError(`${name} is not in this transaction`);
      const row = inPlace(owner, rows.get(name) ?? null);
      const tx = new Load(session.as(subjectOf(owner.stream)), owner, settings, ensure, row, number);
      loads.set(name, tx);
      return tx;
    };
    const result = await work(of);
    const done = [...loads.values()];
    const live = await liveTables(session, done, settings);
    for (const tx of done) await tx.keepAside();
    const statements = done.flatMap(({ lastSql }) => (lastSql === '' ? [] : [lastSql]));
    if (answer !== null) await session.commit(statements.join('; '));
    return { result, live };
  } finally {
    await session.rollback();
  }
}

/** Throws TARGET_TABLE_MOVED. */
function inPlace({ stream }: Owner, row: StreamRow | null): StreamRow | null {
  if (row !== null && !sameTable(row.target, stream.target)) throw tableMoved(stream.stream, row.target, stream.target);
  return row;
}

/** Of these, the tables that have caught up and lack indexes. */
async function liveTables(session: Session, loads: readonly Load[], { options }: Settings): Promise<LiveTable[]> {
  const tables: LiveTable[] = [];
  for (const { isLive, owner, shape } of loads) {
    const indices = isLive ? indicesOf(options.indices, owner.stream.stream) : [];
    const missing = await missingIndices(session, owner.stream.target, indices);
    if (missing.length > 0 && shape) tables.push({ owner, missing, shape });
  }
  return tables;
}

function subjectOf({ stream, target }: TargetStream): Subject {
  return { stream, table: displayName(target) };
}

/** A table that has caught up, and lacks indexes. */
interface LiveTable {
  readonly owner: Owner;
  readonly missing: readonly IndexOption[];
  readonly shape: Shape;
}

class Load implements TargetTransaction {
  readonly row: StreamRow | null;
  /** What is applied, as SQL: sent with the commit. */
  lastSql = '';
  readonly owner: Owner;
  #session: Session;
  #ensure: Ensure;
  #applier: Applier | null = null;
  #hasCaughtUp = false;
  #diverter: Diverter | null = null;

  /** `number`: which of several it is. */
  constructor(
    session: Session,
    owner: Owner,
    settings: Settings,
    ensure: Ensure,
    row: StreamRow | null,
    number?: number,
  ) {
    this.#session = session;
    this.owner = owner;
    this.#ensure = ensure;
    this.row = row;
    if (row === null || row.hold !== null) return;
    const form = { name: row.target, shape: row.shape, metadata: row.metadata };
    const catchingUp = row.catching_up_to !== null;
    const which = number === undefined ? {} : { number };
    const save = (changed: TableForm): Promise<void> => saveForm(session, owner, changed);
    this.#applier = new Applier({ session, owner, ...settings, form, catchingUp, saveForm: save, ...which });
  }

  /** Rows of one moment, when this is committed: nothing holds the stream, and it does not catch up. */
  get isLive(): boolean {
    return this.#applier !== null && (this.row?.catching_up_to === null || this.#hasCaughtUp);
  }

  get shape(): Shape | null {
    return this.#applier?.shape ?? null;
  }

  async apply(segment: SegmentSource): Promise<void> {
    if (this.#applier === null) throw this.#mayNot('apply a segment to');
    const { shape } = segment.header;
    await this.#ensure(this.#session, this.owner.stream, shape, this.#historyOf(this.#applier.shape, shape));
    if (this.#isCopied(segment.header)) return;
    await this.#applier.apply(segment);
  }

  /** What has become of its types. While it catches up, a segment may be older than the table. Throws TABLE_REWRITTEN. */
  #historyOf(table: Shape, segment: Shape): Moment {
    if (this.row?.catching_up_to != null) return UNKNOWN_HISTORY;
    const lost = lostAttribute(table, segment);
    if (lost === null) return { at: 'change', renamed: renamedLabels(table, segment) };
    throw new SluiceError('TABLE_REWRITTEN', { stream: this.owner.stream.stream, what: `${lost} was dropped.` });
  }

  /** Of a table without a key: the copy that it catches up with has this segment. Throws TABLE_REWRITTEN where it has a part of it. */
  #isCopied({ commits }: SegmentSource['header']): boolean {
    const copied = this.row?.catching_up_to ?? null;
    if (commits === undefined || copied === null) return false;
    const share = inCopy(commits, copied);
    if (share !== 'some') return share === 'all';
    const what = 'its copy has some of the changes that were staged together.';
    throw new SluiceError('TABLE_REWRITTEN', { stream: this.owner.stream.stream, what });
  }

  async place(): Promise<number | null> {
    if (this.row === null) throw this.#mayNot('place');
    const { rows } = await this.#session.run(placeSql(this.owner, this.row.incarnation));
    const place = rows[0]?.place;
    return typeof place === 'string' ? Number(place) : null;
  }

  async divert(aside: Aside, checks: boolean): Promise<void> {
    if (this.#applier === null) throw this.#mayNot('divert rows of');
    this.#diverter = await Diverter.open(this.#session, this.owner, aside, checks);
    this.#applier.divert(this.#diverter);
  }

  async keepAside(): Promise<void> {
    await this.#diverter?.keep();
  }

  async advance(applied: Advance): Promise<DoubtfulKeys | null> {
    if (this.row === null || this.#applier === null) throw this.#mayNot('advance');
    if (applied.cut < this.row.applied_cut)
      throw this.#mayNot(`go back from cut ${this.row.applied_cut} to ${applied.cut} with`);
    // Also where nothing was to be applied: a quiet table is given its columns as well.
    await this.#applier.deepen([]);
    const catchesUp = applied.caught_up && this.row.catching_up_to !== null;
    const doubtful = catchesUp ? await this.#doubtful(this.#applier.shape) : null;
    const caught_up = applied.caught_up && doubtful === null;
    this.#hasCaughtUp = caught_up;
    this.lastSql = [
      advanceSql(this.owner, { ...applied, caught_up }),
      ...(catchesUp && caught_up ? [forgetDoubtsSql(this.owner)] : []),
    ].join('; ');
    return doubtful;
  }

  async #doubtful(shape: Shape): Promise<DoubtfulKeys | null> {
    const { rows } = await this.#session.query<{ key: string }>(unknownKeysSql(this.owner, DOUBTFUL_KEYS_MAX + 1), []);
    if (rows.length === 0) return null;
    const keys = rows.length > DOUBTFUL_KEYS_MAX ? null : rows.map(({ key }) => JSON.parse(key) as string[]);
    return { columns: keyNames(shape), keys };
  }

  #mayNot(action: string): SluiceError {
    const state = this.row === null ? 'which no epoch has prepared' : `held by ${this.row.hold ?? 'nothing'}`;
    return new SluiceError('UNEXPECTED', {
      reason: `asked to ${action} stream ${this.owner.stream.stream}, ${state}`,
    });
  }
}
