/**
 * The contracts between the straight line (`pipeline.ts`) and the world. Each is the least that the line needs; adapters are thin and hold no
 * decisions. Every method may throw a SluiceError whose disposition says whether trying again can help; a port never retries without limit
 * and never swallows.
 *
 * "Durable" means: survives the death of this process and of the machine it runs on.
 */
import type { Readable } from 'node:stream';
import type { Lsn } from './lsn.ts';
import type { Column, GeneratedColumn, Shape, SourceType, TableDescription, TableName } from './shape.ts';
import type { ByteRange, SegmentHeader } from './stage/segment.ts';

export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  sleep(ms: number): Promise<void>;
}

/** Structured log: an event's name (`snake_case`), and facts that hold no secret and no row value. */
export interface Log {
  info(event: string, facts?: Record<string, unknown>): void;
  warn(event: string, facts?: Record<string, unknown>): void;
  error(event: string, facts?: Record<string, unknown>): void;
}

// ── Slot ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Receives what a slot sends, synchronously and in order. `bytes` is valid only during the call: copy what must outlive it. */
export interface SlotSink {
  /** One message of the output plugin: `bytes[start, end)`. False: no more in this read; what follows waits for the next. */
  change(bytes: Buffer, start: number, end: number): boolean;
  /** One message of a megabyte or more, in the pieces in which it arrived; they may be kept. As `change` otherwise. */
  giantChange(pieces: readonly Buffer[]): boolean;
  /** The server has sent everything up to `walEnd` that concerns this slot, and has nothing more at this moment. */
  keepalive(walEnd: Lsn): void;
}

/** What was agreed on with the output plugin when the slot was opened. `numbers_as_text`: NaN and the infinities are told apart from NULL. */
export type SlotDialect =
  | { readonly plugin: 'pgoutput' }
  | { readonly plugin: 'wal2json'; readonly format: 1 | 2; readonly numbers_as_text: boolean };

/**
 * One open reading of the slot. Changes of committed transactions come in the order of their commits, from the first commit after the
 * position it was opened at. Nothing is confirmed but by `confirm`.
 */
export interface SlotReader {
  /** In which words the plugin speaks. Not given: pgoutput's. */
  readonly dialect?: SlotDialect;
  /**
   * Waits up to `wait_ms` for bytes, then hands every complete message that has arrived to `sink`, until the sink stops it, and
   * says whether there were any bytes. Between calls nothing is read from the socket: a caller that is slow slows the server down (I8).
   * Keepalives are answered by the adapter at once, with the confirmed position; they reach the sink as well.
   */
  read(sink: SlotSink, wait_ms: number): Promise<'data' | 'nothing'>;
  /** Asks the server for a keepalive, so that `nothing` can be told from a server that is busy decoding what is not for us. */
  askKeepalive(): void;
  /** Tells the server that everything up to `lsn` is durable here (I1). Sent at once; never goes back. */
  confirm(lsn: Lsn): void;
  /** Ends the reading cleanly (CopyDone), so that the slot is free when this resolves. Safe to call twice, and after an error. */
  close(): Promise<void>;
}

// ── Source ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `pg_replication_slots` for our slot; null where the server's version does not have the column. */
export interface SlotRow {
  readonly plugin: string;
  readonly database: string;
  readonly active_pid: number | null;
  readonly active_application: string | null;
  readonly active_client: string | null;
  readonly confirmed_lsn: Lsn;
  /** 13+: reserved, extended, unreserved, lost. */
  readonly wal_status: string | null;
  /** 13+: bytes that can still be written before the slot is in danger of being lost; null: no limit. */
  readonly safe_wal_bytes: number | null;
  /** 17+: why the slot was invalidated. */
  readonly invalidation_reason: string | null;
}

/** What a window must know of the source before it reads. One look, taken at one time. */
export interface Ground {
  readonly version: number;
  readonly system_identifier: string;
  readonly timeline: number;
  readonly in_recovery: boolean;
  readonly wal_level: string;
  readonly encoding: string;
  readonly user: string;
  readonly may_replicate: boolean;
  readonly flush_lsn: Lsn;
  readonly slot: SlotRow | null;
}

export interface SourceTable extends TableName {
  readonly oid: number;
  /** pg_class.relkind: r ordinary, p partitioned, v view, m materialized view, f foreign. */
  readonly kind: string;
  /** pg_class.relpersistence: p permanent, u unlogged, t temporary. */
  readonly persistence: string;
  /** pg_class.relreplident: d default, n nothing, f full, i index. */
  readonly replica_identity: string;
  /** Columns in the order of attnum, without dropped ones and those that the log does not carry (generated ones). */
  readonly columns: readonly SourceColumn[];
  readonly generated?: readonly GeneratedColumn[];
  /** TableDescription.filenode. */
  readonly filenode?: string;
  readonly definition?: string;
  /** Shape.greatest. */
  readonly greatest?: number;
  /** Names of the key's columns: of the replica identity index where one is used, else of the primary key. Empty: no key. */
  readonly key: readonly string[];
  readonly may_select: boolean;
  /** Row-level security would filter what this role reads. */
  readonly row_security: boolean;
  /** Estimates from pg_class, for planning and progress; -1: never analysed. */
  readonly rows_estimate: number;
  readonly pages: number;
  /** Some value may lie outside its row (TOAST), so that an update may leave it out of the log (I7). Not given: it may. */
  readonly toasted?: boolean;
  /** 13+, of a partition: OIDs of the partitioned tables that it belongs to, nearest first. Absent: it is no partition. */
  readonly partition_of?: readonly number[];
  /** 13+, of a partitioned table: what is below it, at any depth, in the order of OIDs. Absent: of any other table, and where it cannot be folded (below 13). */
  readonly partitions?: readonly Partition[];
}

/** A partition: a table that holds rows, or one that is partitioned itself. */
export interface Partition {
  readonly oid: number;
  /** Changes when its rows were written anew or thrown away without a word in its root's log, and when it was taken out of the tree and put back. */
  readonly mark: string;
}

/** How tables are published at one moment, by `tableKey`: a text that changes whenever changes of the table may have been passed over. A table that is not there is not published. */
export type Published = ReadonlyMap<string, string>;

export interface SourceColumn extends Column {
  readonly not_null: boolean;
}

/** What the catalog says now of tables and types that the log names. */
export interface Described {
  readonly tables: ReadonlyMap<number, TableDescription>;
  /** By OID; of the types that were asked for, those that are not PostgreSQL's own. */
  readonly types: ReadonlyMap<number, SourceType>;
}

/** Rows of one table, by the text of their key. */
export interface SpecialNumbersQuery {
  /** Must be seen: transactions (xid) of the log, which has a commit a moment before others see it. */
  readonly transactions: readonly number[];
  /** OID. */
  readonly table: number;
  /** pg_attribute.attnum of each. */
  readonly key: readonly number[];
  readonly columns: readonly number[];
  readonly rows: readonly (readonly string[])[];
}

/** `row`: index into the query's rows. `values`: by column, NaN, Infinity or -Infinity; null: none of them. */
export interface SpecialNumbers {
  readonly row: number;
  readonly values: readonly (string | null)[];
}

/** A transaction that holds a write lock on a table: it may have written before the table was captured. */
export interface Writer {
  /** Its oldest xid: names the transaction as long as it lives, also when it is prepared, and when the server is started anew. */
  readonly transaction: string;
  readonly pid: number | null;
}

/** Queries on the source's primary. Each call is a transaction of its own. */
export interface Source {
  look(): Promise<Ground>;
  /** Every table, view and partition that the role can see outside the system's schemas, with what planning needs. */
  tables(): Promise<SourceTable[]>;
  /**
   * How each of the tables is published now. Throws PUBLICATION_INCOMPLETE where the publication holds one of them and leaves out some of its
   * changes: somebody has altered it.
   */
  published(tables: readonly SourceTable[]): Promise<Published>;
  /**
   * Makes the publication, or adds the tables and the settings that it lacks. PUBLICATION_NOT_ALLOWED carries the SQL for an owner to run.
   * `altered`: its settings were changed by this call, so that every table's text is another one, though none has been passed over.
   */
  publish(tables: readonly SourceTable[]): Promise<{ readonly published: Published; readonly altered: boolean }>;
  /** Of these partitions (OIDs), those that may have had rows before they became partitions: rows that their root's log does not have. */
  filledBefore(partitions: readonly number[]): Promise<number[]>;
  /** Makes the slot; its changes begin after the returned position. */
  createSlot(): Promise<Lsn>;
  /** Moves an unread slot to `lsn`; only while the chain has captured nothing. */
  advanceSlot(lsn: Lsn): Promise<void>;
  /** Transactions that hold a lock of ROW EXCLUSIVE or stronger on one of the tables now, prepared ones included (I11). */
  writers(tables: readonly SourceTable[]): Promise<Writer[]>;
  /** pg_current_wal_insert_lsn: past every commit that any snapshot taken before this call can see. */
  insertLsn(): Promise<Lsn>;
  /** Describes tables and types, by OID, in one look. One that is gone is not in the answer. */
  describe(tables: readonly number[], types: readonly number[]): Promise<Described>;
  /** Ends one backend of ours that outlived its window. */
  terminate(pid: number): Promise<void>;
  /**
   * Opens the slot for changes after `from`, of `tables` at least (left out: of all). `appends`: also by the publication of tables that are only
   * appended to, which was there at `from`. `session` ends the connection's application_name: by it a later window knows its own zombie.
   */
  openSlot(from: Lsn, session: string, appends: boolean, tables?: readonly TableName[]): Promise<SlotReader>;
  /** Which of these rows have NaN or an infinity now, in these columns (lib/decode/number-doubts.ts). Asked for with wal2json only. */
  specialNumbers?(query: SpecialNumbersQuery): Promise<readonly SpecialNumbers[]>;
}

// ── Stage ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** One object that is being written. It exists when `complete` has resolved, and not before. */
export interface StageWriter {
  readonly object: string;
  /** Bytes appended so far: the offset of what is appended next. */
  readonly bytes: number;
  /** Appends; resolves when there is room for more (bounded: a part or two in flight). The buffer must not change afterwards. */
  append(bytes: Buffer): Promise<void>;
  /** Makes the object durable. */
  complete(): Promise<void>;
  /** Gives the object up; nothing is left that costs anything. Never throws. */
  abandon(): Promise<void>;
}

export interface Stage {
  /** Begins an object. Names are never used twice, so a late writer overwrites nothing. */
  begin(object: string): StageWriter;
  /** The bytes of one range. STAGE_MISSING when there is no such object. */
  read(object: string, range: ByteRange): Promise<Readable>;
}

// ── Ledger ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface CutStream {
  /** Where the stream's segments lie in the object; absent where there are too many for an item: then the object's index has them. */
  readonly ranges?: readonly ByteRange[];
  /** Changes as they came from the slot, before folding. */
  readonly changes: number;
  /** Bytes of COPY text. */
  readonly text_bytes: number;
}

/**
 * One link of the chain. `begin_lsn` is the `end_lsn` of the cut before it: the chain has no holes (I2).
 * - genesis: number 0; made before the slot is, so that a slot found later is known to be ours; its position is 0
 * - slot: the slot was made or taken over, and stands at `end_lsn`
 * - changes: what was drained; `object` is null when nothing in between was for us
 * - captures: takes streams in (I11); moves no position
 */
export interface Cut {
  readonly number: number;
  readonly kind: 'genesis' | 'slot' | 'changes' | 'captures';
  readonly begin_lsn: Lsn;
  readonly end_lsn: Lsn;
  /** Commit time of the last transaction in it, ms since the Unix epoch; null where there was none. */
  readonly committed_at_ms: number | null;
  readonly recorded_at_ms: number;
  readonly object: string | null;
  readonly object_bytes: number;
  /** Range of the object's index, where streams have no ranges of their own here. */
  readonly index: ByteRange | null;
  readonly streams: Readonly<Record<string, CutStream>>;
  readonly captures: readonly string[];
  /** The chain's id (I12) and the cluster it follows; the same in every cut. */
  readonly incarnation: string;
  readonly system_identifier: string;
  readonly timeline: number;
}

export interface Lease {
  readonly name: string;
  readonly owner: string;
  /** Grows with each holder: a fencing token, and part of the replication connection's application_name. */
  readonly token: number;
  readonly until_ms: number;
}

export interface LeaseHeld {
  readonly held_by: string;
  readonly until_ms: number;
}

/** What a person must see to. Set by whoever met the fault; cleared by `resume`. */
export interface Halt {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
  readonly cut: number | null;
  readonly at_ms: number;
  /** Changes of the stream have been passed over since: only a reset can go on, not a resume. */
  readonly must_reset: boolean;
}

export const STREAM_STATES = ['captured', 'syncing', 'catching_up', 'live', 'halted'] as const;
export type StreamState = (typeof STREAM_STATES)[number];

/**
 * What is known of a stream without asking the target. `halt` and `epoch` are decisions and have their authority here; the `applied_*`
 * fields mirror the target's row (I4) after each load and may lag: good for ringing and for showing, never for skipping.
 */
export interface Bookmark {
  readonly stream: string;
  readonly table: TableName;
  readonly target: TableName;
  /** Cut that captured it. */
  readonly captured_cut: number;
  /** Number of the newest epoch; 0: none yet. */
  readonly epoch: number;
  readonly state: Exclude<StreamState, 'halted'>;
  readonly halt: Halt | null;
  /** Somebody asked for a reset; the next window captures the stream anew, opens the epoch and clears this. */
  readonly reset_requested: boolean;
  /** The chain's (I12): a target row of another incarnation is not this ledger's. */
  readonly incarnation: string;
  readonly applied_cut: number;
  readonly applied_lsn: Lsn;
  readonly applied_at_ms: number;
  /** Rows loaded, over all time: by chunks, and changes by cuts. */
  readonly rows_copied: number;
  readonly changes_applied: number;
  /** What of the source it follows, as the last window found it. Absent or null: nobody has looked yet, or it is gone. */
  readonly followed?: Followed | null;
  /** TableDescription.definition that the chain has told of: at its capture, or by news of the table's shape since. */
  readonly definition?: string | null;
}

/** What a stream is on the source, beyond its name: told apart from another table that goes by the name (design: identity of streams). */
export interface Followed {
  readonly table_oid: number;
  /** Published. */
  readonly published: string;
  /** Of a partitioned table: its partitions, in short. */
  readonly partitions: string | null;
}

/** One synchronisation of a stream (design §3, Epochs). */
export interface Epoch {
  readonly stream: string;
  readonly number: number;
  readonly kind: 'first_sync' | 'reset' | 'backfill';
  readonly where: string | null;
  /** `opened` → `planned` (chunks are known) → `done`. `cancelled` ends it from any of them. */
  readonly state: 'opened' | 'planned' | 'done' | 'cancelled';
  /** The plan that won, and its number of chunks; null until planned. */
  readonly plan: string | null;
  readonly chunks: number | null;
  readonly rows_estimate: number;
  /** The chain is applied from the cut after this one when the epoch is done. */
  readonly held_cut: number;
  readonly opened_at_ms: number;
  /** When its outstanding work was last rung for. */
  readonly rung_at_ms: number;
  readonly done_at_ms: number | null;
}

/** Bounds as PostgreSQL's text of the key or of a ctid; null: open. `from` is inclusive, `to` exclusive. */
export type ChunkRange =
  | { readonly by: 'whole' }
  | { readonly by: 'key'; readonly column: string; readonly from: string | null; readonly to: string | null }
  | { readonly by: 'ctid'; readonly from: string | null; readonly to: string | null };

export interface Chunk {
  readonly stream: string;
  readonly epoch: number;
  readonly plan: string;
  readonly number: number;
  readonly range: ChunkRange;
  /** Set when it is staged; a chunk is staged once: who comes second keeps what is there. */
  readonly staged: {
    readonly object: string;
    readonly object_bytes: number;
    readonly rows: number;
    readonly text_bytes: number;
    /** Past every commit that the chunk's snapshot saw. */
    readonly lsn: Lsn;
  } | null;
  /** Mirror of the target's mark; may lag. */
  readonly loaded: boolean;
}

export interface Ledger {
  /** Takes the lease when it is free, has expired, or is this owner's own; one conditional write. */
  takeLease(name: string, owner: string, duration_ms: number): Promise<Lease | LeaseHeld>;
  /** False: it has been taken by another, and the holder must stop. */
  renewLease(lease: Lease, duration_ms: number): Promise<boolean>;
  releaseLease(lease: Lease): Promise<void>;

  /** The newest cut; null: there is no chain. Strongly consistent. */
  head(): Promise<Cut | null>;
  /** The commit point (I2): false when the number is taken. When the answer was lost and the same cut stands there already, true. */
  append(cut: Cut): Promise<boolean>;
  /** Cuts with a greater number, in order, at most `limit`. Strongly consistent. */
  cutsAfter(number: number, limit: number): Promise<Cut[]>;
  /** Removes cuts up to and including `number` recorded before `before_ms`, oldest first, a bounded count a call; never the newest. */
  prune(number: number, before_ms: number): Promise<number>;

  bookmarks(): Promise<Bookmark[]>;
  bookmark(stream: string): Promise<Bookmark | null>;
  /** Makes it; false when there is one. */
  addBookmark(bookmark: Bookmark): Promise<boolean>;
  /**
   * Changes the named fields of an existing bookmark, in one write. `expected`: only while these fields still have these values. False: they
   * have others by now (the stream was captured anew, or a later epoch has begun), so what the caller knows is out of date; nothing was changed.
   */
  updateBookmark(
    stream: string,
    change: Partial<Omit<Bookmark, 'stream'>>,
    expected?: Partial<Pick<Bookmark, 'captured_cut' | 'epoch'>>,
  ): Promise<boolean>;

  /** Opens the epoch if the bookmark's epoch is the one before it; false: another was opened meanwhile. */
  openEpoch(epoch: Epoch): Promise<boolean>;
  epoch(stream: string, number: number): Promise<Epoch | null>;
  /** Changes the epoch if it is still in state `from`; false: somebody else did. */
  updateEpoch(epoch: Epoch, from: Epoch['state']): Promise<boolean>;
  saveChunks(chunks: readonly Chunk[]): Promise<void>;
  chunks(stream: string, epoch: number, plan: string): Promise<Chunk[]>;
  chunk(stream: string, epoch: number, plan: string, number: number): Promise<Chunk | null>;
  /** Records a chunk as staged unless it is; false: it was. */
  stageChunk(chunk: Chunk): Promise<boolean>;
  markChunkLoaded(chunk: Chunk): Promise<void>;

  saveReport(report: RunReport): Promise<void>;
  /** The newest first. */
  reports(limit: number): Promise<RunReport[]>;
}

/** What one window did. Times in ms; `seconds` by stage add up to where the window's time went. */
export interface RunReport {
  readonly run: string;
  readonly started_at_ms: number;
  readonly ended_at_ms: number;
  readonly stopped_by: StopReason;
  readonly error: { readonly code: string; readonly message: string; readonly remedy: string } | null;
  readonly begin_lsn: Lsn | null;
  readonly end_lsn: Lsn | null;
  /** The source's flush position when the window began: the end that `break_at_end_lsn` stops at. */
  readonly source_lsn: Lsn | null;
  readonly cuts: number;
  readonly transactions: number;
  readonly changes: number;
  readonly text_bytes: number;
  readonly object_bytes: number;
  readonly streams: Readonly<Record<string, { readonly changes: number; readonly text_bytes: number }>>;
  readonly seconds: Readonly<Record<'ground' | 'read' | 'stage' | 'record', number>>;
}

export const STOP_REASONS = [
  'end_lsn',
  'no_data',
  'max_run',
  'deadline',
  'lease_lost',
  'asked',
  'skipped',
  'failed',
] as const;
export type StopReason = (typeof STOP_REASONS)[number];

// ── Doorbell ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What a message may say. It says where to look, never what is there (I9). */
export type LoadBell =
  | { readonly kind: 'cuts'; readonly stream: string; readonly cut: number }
  | {
      readonly kind: 'chunk';
      readonly stream: string;
      readonly epoch: number;
      readonly plan: string;
      readonly chunk: number;
    }
  | { readonly kind: 'finish'; readonly stream: string; readonly epoch: number };

export type ExtractBell =
  | { readonly kind: 'plan'; readonly stream: string; readonly epoch: number }
  | {
      readonly kind: 'chunk';
      readonly stream: string;
      readonly epoch: number;
      readonly plan: string;
      readonly chunk: number;
    };

/** At least once, or not at all: whoever rings does not rely on it. */
export interface Doorbell {
  ringLoad(bells: readonly LoadBell[]): Promise<void>;
  ringExtract(bells: readonly ExtractBell[]): Promise<void>;
}

// ── Extraction (query reads) ────────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface ChunkRead {
  /** The table as the chunk's own transaction sees it: what the lines are made of. */
  readonly table: SourceTable;
  /** COPY text lines of the chunk's rows, columns in the order of the shape. */
  readonly lines: Readable;
  /** After the lines have ended: rows read, and a position past every commit that the snapshot saw. */
  result(): Promise<{ readonly rows: number; readonly lsn: Lsn }>;
}

export interface Extractor {
  /** One table as it is now; null: there is none. */
  table(name: TableName): Promise<SourceTable | null>;
  version(): Promise<number>;
  /** Least and greatest value of an integer key, as text; null for an empty table. From the index, without a scan. */
  keyBounds(table: SourceTable, column: string): Promise<{ readonly min: string; readonly max: string } | null>;
  insertLsn(): Promise<Lsn>;
  /** Opens the chunk in a transaction of its own (repeatable read, read only). */
  readChunk(table: SourceTable, range: ChunkRange, where: string | null): Promise<ChunkRead>;
}

// ── Target ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The stream's row in `_sluice.streams`: the truth about what is applied (I4). */
export interface TargetRow {
  readonly incarnation: string;
  readonly applied_cut: number;
  readonly applied_lsn: Lsn;
  /** Number of the epoch that holds the stream: cuts are not applied while it is set. */
  readonly hold: number | null;
  /** Until the chain has been applied up to here, the table may show rows older than a chunk did. */
  readonly catching_up_to: Lsn | null;
  /** The shape that the table was made or last altered for. */
  readonly shape: Shape;
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
  /** Applies one segment to the table (or marks, or truncates), altering the table first where its shape has grown. */
  apply(segment: SegmentSource): Promise<void>;
  /** Writes what is applied now, in this transaction. */
  advance(applied: { readonly cut: number; readonly lsn: Lsn; readonly caught_up: boolean }): Promise<void>;
}

export interface Target {
  /** Runs `work` in one transaction with the stream's row locked. Throws what `work` throws, after rolling back. */
  transaction<T>(stream: TargetStream, work: (tx: TargetTransaction) => Promise<T>): Promise<T>;

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
  /** Loads one chunk's segment and marks it, in one transaction; false when the mark is there already, or the epoch is over. */
  loadChunk(stream: TargetStream, epoch: Epoch, chunk: Chunk, segment: SegmentSource): Promise<boolean>;
  /** Numbers of the chunks that are marked as loaded. */
  loadedChunks(stream: TargetStream, epoch: Epoch, plan: string): Promise<Set<number>>;
  /**
   * When every chunk is marked (EPOCH_INCOMPLETE otherwise): gives the shadow its key; then, all in one transaction, swaps it in by rename, sets
   * `applied_cut` to `epoch.held_cut` and `catching_up_to` to `lsn`, and releases the hold. Done already: changes nothing.
   */
  finishEpoch(stream: TargetStream, epoch: Epoch, plan: string, lsn: Lsn, held_lsn: Lsn): Promise<void>;
}
