/**
 * The `Target` port over PostgreSQL: every method is one connection, opened for it and closed with it.
 *
 * On the path it is the end: what a load applies and what it says is applied lie in one transaction of the target (I4), under the lock of the
 * stream's row (I5). Epochs are in prepare.ts, chunk.ts and finish.ts.
 */
import { SluiceError } from '../errors.ts';
import type { Clock, Log, SegmentSource, Target, TargetStream, TargetTransaction } from '../ports.ts';
import { displayName, type Shape } from '../shape.ts';
import { Applier, type LoadOptions, wantsMetadata } from './apply.ts';
import { loadChunk } from './chunk.ts';
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
import { countUnknownSql, forgetDoubtsSql } from './doubts.ts';
import { finish } from './finish.ts';
import { inCopy } from './multiset.ts';
import { prepare, sameTable, tableMoved } from './prepare.ts';
import { type Connect, LOAD_LIMITS, type Session, withSession } from './session.ts';
import type { TableForm } from './sql.ts';
import { lostAttribute, renamedLabels } from './type-history.ts';
import type { Moment } from './type-steps.ts';
import { ensureTypes } from './types.ts';

export interface PostgresTarget {
  /** Gives a connected client; each is used for one call and closed. */
  readonly connect: Connect;
  /** Name of the pipeline: its streams on the target are its own. */
  readonly pipeline: string;
  readonly options: LoadOptions;
  readonly clock: Clock;
  readonly log: Log;
}

export function postgresTarget({ connect, pipeline, options, clock, log }: PostgresTarget): Target {
  const on = async <T>(stream: TargetStream, work: (session: Session, owner: Owner) => Promise<T>): Promise<T> => {
    const subject = { stream: stream.stream, table: displayName(stream.target) };
    return await withSession(connect, subject, (session) => work(session, { pipeline, stream }));
  };

  const { custom_types } = options;
  const ensure: Ensure = (session, { stream, target }, shape, moment) =>
    ensureTypes(connect, session, { stream, table: displayName(target) }, shape, { custom_types, moment });

  return {
    transaction: (stream, work) =>
      on(stream, (session, owner) => load(session, owner, { options, clock }, ensure, work)),

    prepareEpoch: (stream, epoch, plan, shape, incarnation, overlapping) =>
      on(stream, async (session, owner) => {
        const row = await beginIfMade(session, streamRowSql(owner, ''));
        const table = row && streamRowOf(row)?.shape;
        await session.rollback();
        const renamed = table ? renamedLabels(table, shape) : [];
        await session.transaction(LOAD_LIMITS, () => ensure(session, stream, shape, { at: 'copy', renamed }));
        const metadata = wantsMetadata(options);
        const what = { epoch, plan, shape, incarnation, overlapping, metadata, custom_types, log };
        await prepare(session, owner, what);
      }),

    loadChunk: (stream, epoch, chunk, segment) =>
      on(stream, async (session, owner) => {
        if (chunk.epoch !== epoch.number || chunk.plan !== epoch.plan) return false;
        await session.transaction(LOAD_LIMITS, () => ensure(session, stream, segment.header.shape, UNKNOWN_HISTORY));
        return await loadChunk({ session, owner, options, clock, chunk, segment });
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
        const keeping = { on_type_change, on_drop_column, now_ms: clock.now() };
        return finish(session, owner, { epoch, plan, lsn, held_lsn, keeping }, clock, log);
      }),
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
): Promise<T> {
  const answer = await beginIfMade(session, streamRowSql(owner, 'FOR UPDATE'));
  try {
    const row = answer && streamRowOf(answer);
    if (row !== null && !sameTable(row.target, owner.stream.target)) {
      throw tableMoved(owner.stream.stream, row.target, owner.stream.target);
    }
    const tx = new Load(session, owner, settings, ensure, row);
    const result = await work(tx);
    if (answer !== null) await session.commit(tx.lastSql);
    return result;
  } finally {
    // After a commit there is nothing to give up.
    await session.rollback();
  }
}

class Load implements TargetTransaction {
  readonly row: StreamRow | null;
  /** What is applied, as SQL: sent with the commit. */
  lastSql = '';
  #session: Session;
  #owner: Owner;
  #ensure: Ensure;
  #applier: Applier | null = null;

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

  async advance(applied: Parameters<TargetTransaction['advance']>[0]): Promise<void> {
    if (this.row === null || this.#applier === null) throw this.#mayNot('advance');
    if (applied.cut < this.row.applied_cut)
      throw this.#mayNot(`go back from cut ${this.row.applied_cut} to ${applied.cut} with`);
    const catchesUp = applied.caught_up && this.row.catching_up_to !== null;
    if (catchesUp) await this.#assertNoneUnknown();
    this.lastSql = [advanceSql(this.#owner, applied), ...(catchesUp ? [forgetDoubtsSql(this.#owner)] : [])].join('; ');
  }

  /** Throws ROWS_UNKNOWN: the stream has caught up, and the values of some rows are not sure. */
  async #assertNoneUnknown(): Promise<void> {
    const { rows } = await this.#session.query<{ rows: number }>(countUnknownSql(this.#owner), []);
    const unknown = rows[0]?.rows ?? 0;
    if (unknown > 0) throw new SluiceError('ROWS_UNKNOWN', { stream: this.#owner.stream.stream, rows: unknown });
  }

  #mayNot(action: string): SluiceError {
    const state = this.row === null ? 'which no epoch has prepared' : `held by ${this.row.hold ?? 'nothing'}`;
    return new SluiceError('UNEXPECTED', {
      reason: `asked to ${action} stream ${this.#owner.stream.stream}, ${state}`,
    });
  }
}
