/**
 * Contracts of the target (see ports.ts): what is applied there, and the truth about it (I4).
 */

import type { Readable } from 'node:stream';
import type { Lsn } from '../lsn.ts';
import type { Shape, TableName } from '../shape.ts';
import type { SegmentHeader } from '../stage/segment.ts';
import type { RejectedRow } from '../validation/rejected.ts';
import type { Chunk, Epoch } from './ledger.ts';

/** The stream's row in `_sluice.streams`: the truth about what is applied (I4). */
export interface TargetRow {
  readonly incarnation: string;
  readonly applied_cut: number;
  readonly applied_lsn: Lsn;
  /** Number of the epoch that holds the stream: cuts are not applied while it is set. */
  readonly hold: number | null;
  /** Number of the newest epoch that is over; 0: none. */
  readonly epoch?: number;
  /** Until the chain has been applied up to here, the table may show rows older than a chunk did. */
  readonly catching_up_to: Lsn | null;
  /** The shape that the table was made or last altered for. */
  readonly shape: Shape;
  /** The last load moved it in one transaction with others (`Target.transactionOver`). */
  readonly together?: boolean;
  /** Code of the error that it waits with, as far as has been noted here (`Target.noteHalts`). */
  readonly halt?: string | null;
  /** Rows of it were refused and wait in quarantine: none of them may be mixed with what comes later. Left out: none. */
  readonly quarantined?: boolean;
}

/**
 * Where rows go that the target refuses, for one transaction of one stream. Who has one applies with care: what is refused is found by bisection, and the rest is
 * applied. A row that leaves out a value which was in a row that waits (I7) is put aside as well.
 */
export interface Aside {
  /** Names what this transaction puts aside; whoever does the same work once more has the same. */
  readonly id: string;
  /** Whose chunk, and of which plan; null: of the log. */
  readonly epoch: number | null;
  readonly plan: string | null;
  /** What was put aside before and waits: the target forgets the keys of any other. */
  readonly kept: ReadonlySet<string>;
  /** False: the first row that is refused is thrown (TARGET_REJECTS, with its key), and only rows that rest on those that wait are put aside. */
  readonly refuses: boolean;
  /** Rows of the stream that may wait. */
  readonly rows_max: number;
  add(row: RejectedRow): Promise<void>;
  /** Called last before the commit: all that was added is durable, and known to the ledger. What waited before, and what waits by now. */
  keep(before: Quarantined, now: Quarantined): Promise<void>;
}

/** Keys of rows that wait (lib/validation/rejected.ts, `keyText`), by the `Aside.id` that they were put aside under. */
export type Quarantined = ReadonlyMap<string, ReadonlySet<string>>;

/** What a load has applied. */
export interface Advance {
  readonly cut: number;
  readonly lsn: Lsn;
  readonly caught_up: boolean;
  /** Of the newest commit that was applied, ms since the Unix epoch; null or left out: there was none. */
  readonly committed_at_ms?: number | null;
  /** Left out: false. */
  readonly together?: boolean;
}

/** One stream as the target sees it. */
export interface TargetStream {
  readonly stream: string;
  readonly target: TableName;
}

/** A segment that is ready to be applied: its header, and for each block, in the header's order, its decompressed COPY text. */
export interface SegmentSource {
  readonly header: SegmentHeader;
  /** Must be called for each block in order, and each must be read to its end. Checks the CRC: STAGE_CORRUPT. */
  block(index: number): Readable;
}

/** A transaction on the target that holds the lock of one stream's row. What it did is there when the callback has resolved, or not at all. */
export interface TargetTransaction {
  /** Null: no epoch has prepared this stream. */
  readonly row: TargetRow | null;
  /** Applies one segment to the table (or marks, or truncates), altering the table first where its shape has changed. */
  apply(segment: SegmentSource): Promise<void>;
  /**
   * Writes what is applied now, in this transaction. Where the stream would have caught up with rows that are not sure (lib/load/doubts.ts), it has not, goes on
   * catching up, and their keys are the answer: they have to be read again. Null: there are none.
   */
  advance(applied: Advance): Promise<DoubtfulKeys | null>;
  /** Cut that the pipeline's other streams have come to that move together; null: there are none. */
  place(): Promise<number | null>;
  /** From now on what is refused goes there. `checks`: constraints that are deferred are looked at with each row, not at the commit. */
  divert(aside: Aside, checks: boolean): Promise<void>;
}

/**
 * Several streams in one transaction, each with its row locked. Null: it stands aside, for something holds it, it catches up, or somebody works on it who is
 * not waited for. Throws TARGET_TABLE_MOVED of the stream that it is asked for.
 */
export type TransactionOf = (stream: string) => TargetTransaction | null;

/** Keys of rows that nobody can be sure of. */
export interface DoubtfulKeys {
  /** Of the key, by the names that they have on the target. */
  readonly columns: readonly string[];
  /** PostgreSQL's text of each; null: there are more than can be read again one by one. */
  readonly keys: readonly (readonly string[])[] | null;
}

export interface Target {
  /** Runs `work` in one transaction with the stream's row locked. Throws what `work` throws, after rolling back. */
  transaction<T>(stream: TargetStream, work: (tx: TargetTransaction) => Promise<T>): Promise<T>;
  /**
   * The same over several streams: all of it is there when the callback has resolved, for every reader at once, or nothing. Of streams that move together it
   * waits for whoever else moves them; of the others it takes those that are free. TRUNCATE deletes row by row here: readers of a snapshot from before would find the table empty.
   */
  transactionOver<T>(streams: readonly TargetStream[], work: (of: TransactionOf) => Promise<T>): Promise<T>;
  /** Notes for readers (`_sluice.positions`) what these streams wait with. Of one that is worked on meanwhile it is not noted; a load that is done takes it away. */
  noteHalts(halts: readonly { readonly stream: string; readonly code: string }[]): Promise<void>;

  /**
   * Prepares an epoch: makes `_sluice` and the stream's row where needed (TARGET_TABLE_TAKEN if the table is another pipeline's, or is there and not
   * made by Sluice), sets the hold, makes an empty shadow table (for first_sync and reset). Doing it twice for the same epoch and plan changes nothing; for
   * another plan of the same epoch it begins anew, beside the first: the plan that is finished wins. An epoch that is over is left alone.
   * `overlapping`: two chunks of the plan may hold the same key (several ctid ranges: a row that moved is read twice).
   */
  prepareEpoch(
    stream: TargetStream,
    epoch: Epoch,
    plan: string,
    shape: Shape,
    incarnation: string,
    overlapping: boolean,
  ): Promise<void>;
  /**
   * Loads one chunk's segment and marks it, in one transaction; false when the mark is there already, or the epoch is over. Null: the table has the chunk's
   * rows, and it is only marked. `aside`: for rows that are refused; left out: the first of them is thrown.
   */
  loadChunk(
    stream: TargetStream,
    epoch: Epoch,
    chunk: Chunk,
    segment: SegmentSource | null,
    aside?: Aside,
  ): Promise<boolean>;
  /** Numbers of the chunks that are marked as loaded. */
  loadedChunks(stream: TargetStream, epoch: Epoch, plan: string): Promise<Set<number>>;
  /**
   * When every chunk is marked (EPOCH_INCOMPLETE otherwise): gives the shadow its key; then, all in one transaction, swaps it in by rename, sets
   * `applied_cut` to `epoch.held_cut` and `catching_up_to` to `lsn` (null: no log is read for it, and there is nothing to catch up with), and releases the hold. In place there is nothing to swap; where the stream goes on from, and
   * whether it has to catch up, `courseOf(epoch.kind)` says. Done already: changes nothing. `aside`: for rows that a table which stays refuses; left out: the first of them is thrown.
   */
  finishEpoch(
    stream: TargetStream,
    epoch: Epoch,
    plan: string,
    lsn: Lsn | null,
    held_lsn: Lsn,
    aside?: Aside,
  ): Promise<void>;
  /**
   * Ends an epoch in place as it is: what has been loaded stays, nothing more is, and the hold is released. `lsnOf`: past what these chunks saw, which the
   * stream catches up to; null: none was loaded. An epoch that is not prepared will not be. Done already: changes nothing.
   */
  cancelEpoch(
    stream: TargetStream,
    epoch: Epoch,
    lsnOf: (chunks: ReadonlySet<number>) => Promise<Lsn | null>,
  ): Promise<void>;
}
