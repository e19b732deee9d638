/**
 * The `Target` port over PostgreSQL: every method is one connection, opened for it and closed with it.
 *
 * On the path it is the end: what a load applies and what it says is applied lie in one transaction of the target (I4), under the lock of the
 * stream's row (I5). Epochs are in prepare.ts, chunk.ts and finish.ts.
 */
import { SluiceError } from '../errors.ts';
import type { Clock, Log, SegmentSource, Target, TargetStream, TargetTransaction } from '../ports.ts';
import { displayName } from '../shape.ts';
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
import { prepare, sameTable, tableMoved } from './prepare.ts';
import { type Connect, type Session, withSession } from './session.ts';
import type { TableForm } from './sql.ts';

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

  return {
    transaction: (stream, work) => on(stream, (session, owner) => load(session, owner, options, work)),

    prepareEpoch: (stream, epoch, plan, shape, incarnation, overlapping) =>
      on(stream, (session, owner) => {
        const metadata = wantsMetadata(options);
        return prepare(session, owner, { epoch, plan, shape, incarnation, overlapping, metadata });
      }),

    loadChunk: (stream, epoch, chunk, segment) =>
      on(stream, (session, owner) => {
        if (chunk.epoch !== epoch.number || chunk.plan !== epoch.plan) return Promise.resolve(false);
        return loadChunk({ session, owner, options, chunk, segment });
      }),

    loadedChunks: (stream, epoch, plan) =>
      on(stream, async (session, owner) => {
        const marks = await beginIfMade(session, markedChunksSql(owner, epoch.number, plan));
        await session.rollback();
        return new Set(marks?.rows.map(({ chunk }) => Number(chunk)));
      }),

    finishEpoch: (stream, epoch, plan, lsn, held_lsn) =>
      on(stream, (session, owner) => finish(session, owner, { epoch, plan, lsn, held_lsn }, clock, log)),
  };
}

/** One transaction with the stream's row locked from its first statement to its last. */
async function load<T>(
  session: Session,
  owner: Owner,
  options: LoadOptions,
  work: (tx: TargetTransaction) => Promise<T>,
): Promise<T> {
  const answer = await beginIfMade(session, streamRowSql(owner, 'FOR UPDATE'));
  try {
    const row = answer && streamRowOf(answer);
    if (row !== null && !sameTable(row.target, owner.stream.target)) {
      throw tableMoved(owner.stream.stream, row.target, owner.stream.target);
    }
    const tx = new Load(session, owner, options, row);
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
  #applier: Applier | null = null;

  constructor(session: Session, owner: Owner, options: LoadOptions, row: StreamRow | null) {
    this.#session = session;
    this.#owner = owner;
    this.row = row;
    if (row === null || row.hold !== null) return;
    const form = { name: row.target, shape: row.shape, metadata: row.metadata };
    const catchingUp = row.catching_up_to !== null;
    const save = (grown: TableForm): Promise<void> => saveForm(session, owner, grown);
    this.#applier = new Applier({ session, owner, options, form, catchingUp, saveForm: save });
  }

  async apply(segment: SegmentSource): Promise<void> {
    if (this.#applier === null) throw this.#mayNot('apply a segment to');
    await this.#applier.apply(segment);
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
