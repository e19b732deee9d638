/**
 * The `Target` port over PostgreSQL: every method is one connection, opened for it and closed with it.
 *
 * On the path it is the end: what a load applies and what it says is applied lie in one transaction of the target (I4), under the lock of the
 * stream's row (I5). Epochs are in prepare.ts, chunk.ts and finish.ts.
 */
import { courseOf } from '../epoch/kinds.ts';
import { SluiceError } from '../errors.ts';
import type { Clock, DoubtfulKeys, Log, SegmentSource, Target, TargetStream, TargetTransaction } from '../ports.ts';
import { displayName, type Shape } from '../shape.ts';
import { Applier, type LoadOptions, wantsMetadata } from './apply.ts';
import { cancel } from './cancel.ts';
import { loadChunk, markHeldChunk } from './chunk.ts';
import { keyNames } from './columns.ts';
import {
  advanceSql,
  beginIfMade,
  markedChunksSql,
  type Owner,
  type StreamRow,
  saveForm,
  streamRowOf,
  streamRowSql,
} from './control.ts';
import { forgetDoubtsSql, unknownKeysSql } from './doubts.ts';
import { finish, SWAP_PATIENCE, type SwapPatience } from './finish.ts';
import { addIndices, type IndexOption, indexName, indicesOf, missingIndices } from './indices.ts';
import { inCopy } from './multiset.ts';
import { prepare, sameTable, tableMoved } from './prepare.ts';
import { type Connect, LOAD_LIMITS, type Session, withSession } from './session.ts';
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
    const subject = { stream: stream.stream, table: displayName(stream.target) };
    return await withSession(connect, subject, (session) => work(session, { pipeline, stream }));
  };

  const { custom_types } = options;
  /** Names of indexes that could not be made: not tried again by this process. */
  const unmade = new Set<string>();
  const ensure: Ensure = (session, { stream, target }, shape, moment) =>
    ensureTypes(connect, session, { stream, table: displayName(target) }, shape, { custom_types, moment });

  return {
    transaction: (stream, work) =>
      on(stream, async (session, owner) => {
        const { result, live } = await load(session, owner, { options, clock }, ensure, work);
        if (live) {
          const name = (index: IndexOption): string => indexName(stream.target, index);
          const indices = live.missing.filter((index) => !unmade.has(name(index)));
          const failed = await addIndices({ session, owner, indices, log }, live.shape);
          for (const index of failed) unmade.add(name(index));
        }
        return result;
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

    loadChunk: (stream, epoch, chunk, segment) =>
      on(stream, async (session, owner) => {
        if (chunk.epoch !== epoch.number || chunk.plan !== epoch.plan) return false;
        if (segment === null) return await markHeldChunk(session, owner, chunk);
        await session.transaction(LOAD_LIMITS, () => ensure(session, stream, segment.header.shape, UNKNOWN_HISTORY));
        return await loadChunk({ session, owner, options, clock, kind: epoch.kind, chunk, segment });
      }),

    loadedChunks: (stream, epoch, plan) =>
      on(stream, async (session, owner) => {
        const marks = await beginIfMade(session, markedChunksSql(owner, epoch.number, plan));
        await session.rollback();
        return new Set(marks?.rows.map(({ chunk }) => Number(chunk)));
      }),

    finishEpoch: (stream, epoch, plan, lsn, held_lsn) =>
      on(stream, (session, owner) => {
        const { on_type_change, on_drop_column } = options;
        const gone_at_ms = courseOf(epoch.kind).keeps_deleted && !options.hard_delete ? epoch.opened_at_ms : null;
        const keeping = { on_type_change, on_drop_column, now_ms: clock.now(), gone_at_ms };
        const indices = indicesOf(options.indices, stream.stream);
        return finish(session, owner, { epoch, plan, lsn, held_lsn, keeping, indices, patience }, clock, log);
      }),

    cancelEpoch: (stream, epoch, lsnOf) => on(stream, (session, owner) => cancel(session, owner, epoch, lsnOf)),
  };
}

type Settings = Pick<PostgresTarget, 'options' | 'clock'>;

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
): Promise<{ readonly result: T; readonly live: LiveTable | null }> {
  const answer = await beginIfMade(session, streamRowSql(owner, 'FOR UPDATE'));
  try {
    const row = answer && streamRowOf(answer);
    if (row !== null && !sameTable(row.target, owner.stream.target)) {
      throw tableMoved(owner.stream.stream, row.target, owner.stream.target);
    }
    const tx = new Load(session, owner, settings, ensure, row);
    const result = await work(tx);
    const indices = tx.isLive ? indicesOf(settings.options.indices, owner.stream.stream) : [];
    const missing = await missingIndices(session, owner.stream.target, indices);
    if (answer !== null) await session.commit(tx.lastSql);
    return { result, live: missing.length > 0 && tx.shape ? { missing, shape: tx.shape } : null };
  } finally {
    // After a commit there is nothing to give up.
    await session.rollback();
  }
}

/** A table that has caught up, and lacks indexes. */
interface LiveTable {
  readonly missing: readonly IndexOption[];
  readonly shape: Shape;
}

class Load implements TargetTransaction {
  readonly row: StreamRow | null;
  /** What is applied, as SQL: sent with the commit. */
  lastSql = '';
  #session: Session;
  #owner: Owner;
  #ensure: Ensure;
  #applier: Applier | null = null;
  #hasCaughtUp = false;

  constructor(session: Session, owner: Owner, settings: Settings, ensure: Ensure, row: StreamRow | null) {
    this.#session = session;
    this.#owner = owner;
    this.#ensure = ensure;
    this.row = row;
    if (row === null || row.hold !== null) return;
    const form = { name: row.target, shape: row.shape, metadata: row.metadata };
    const catchingUp = row.catching_up_to !== null;
    const save = (changed: TableForm): Promise<void> => saveForm(session, owner, changed);
    this.#applier = new Applier({ session, owner, ...settings, form, catchingUp, saveForm: save });
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
    await this.#ensure(this.#session, this.#owner.stream, shape, this.#historyOf(this.#applier.shape, shape));
    if (this.#isCopied(segment.header)) return;
    await this.#applier.apply(segment);
  }

  /** What has become of its types. While it catches up, a segment may be older than the table. Throws TABLE_REWRITTEN. */
  #historyOf(table: Shape, segment: Shape): Moment {
    if (this.row?.catching_up_to != null) return UNKNOWN_HISTORY;
    const lost = lostAttribute(table, segment);
    if (lost === null) return { at: 'change', renamed: renamedLabels(table, segment) };
    throw new SluiceError('TABLE_REWRITTEN', { stream: this.#owner.stream.stream, what: `${lost} was dropped.` });
  }

  /** Of a table without a key: the copy that it catches up with has this segment. Throws TABLE_REWRITTEN where it has a part of it. */
  #isCopied({ commits }: SegmentSource['header']): boolean {
    const copied = this.row?.catching_up_to ?? null;
    if (commits === undefined || copied === null) return false;
    const share = inCopy(commits, copied);
    if (share !== 'some') return share === 'all';
    const what = 'its copy has some of the changes that were staged together.';
    throw new SluiceError('TABLE_REWRITTEN', { stream: this.#owner.stream.stream, what });
  }

  async advance(applied: Parameters<TargetTransaction['advance']>[0]): Promise<DoubtfulKeys | null> {
    if (this.row === null || this.#applier === null) throw this.#mayNot('advance');
    if (applied.cut < this.row.applied_cut)
      throw this.#mayNot(`go back from cut ${this.row.applied_cut} to ${applied.cut} with`);
    const catchesUp = applied.caught_up && this.row.catching_up_to !== null;
    const doubtful = catchesUp ? await this.#doubtful(this.#applier.shape) : null;
    const caught_up = applied.caught_up && doubtful === null;
    this.#hasCaughtUp = caught_up;
    this.lastSql = [
      advanceSql(this.#owner, { ...applied, caught_up }),
      ...(catchesUp && caught_up ? [forgetDoubtsSql(this.#owner)] : []),
    ].join('; ');
    return doubtful;
  }

  async #doubtful(shape: Shape): Promise<DoubtfulKeys | null> {
    const { rows } = await this.#session.query<{ key: string }>(unknownKeysSql(this.#owner, DOUBTFUL_KEYS_MAX + 1), []);
    if (rows.length === 0) return null;
    const keys = rows.length > DOUBTFUL_KEYS_MAX ? null : rows.map(({ key }) => JSON.parse(key) as string[]);
    return { columns: keyNames(shape), keys };
  }

  #mayNot(action: string): SluiceError {
    const state = this.row === null ? 'which no epoch has prepared' : `held by ${this.row.hold ?? 'nothing'}`;
    return new SluiceError('UNEXPECTED', {
      reason: `asked to ${action} stream ${this.#owner.stream.stream}, ${state}`,
    });
  }
}
