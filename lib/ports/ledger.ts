/**
 * Contracts of the ledger (see ports.ts): the chain of cuts, and what is decided and remembered of streams and epochs.
 */
import type { Lsn } from '../lsn.ts';
import type { TableName } from '../shape.ts';
import type { ByteRange } from '../stage/segment.ts';
import type { RunReport } from './report.ts';

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
 * - genesis: made before the slot is, so that a slot found later is known to be ours. Number 0, at position 0; and again where the slot was lost and a new one
 *   is about to be made (window/lost-slot.ts): what comes after it is another log, and no stream applies cuts past it
 * - slot: after a genesis; the slot was made or taken over, and stands at `end_lsn`, which may lie before `begin_lsn` on another cluster
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
  /** The last of its objects; null: it has none. */
  readonly object: string | null;
  /** Of all of them. */
  readonly object_bytes: number;
  /** Objects before `object`, of windows that did not come to its end: ranges are of the bytes of all of them, joined (lib/stage/cut-ranges.ts). Absent: none. */
  readonly earlier?: readonly CutPart[];
  /** Range of the object's index, where streams have no ranges of their own here. */
  readonly index: ByteRange | null;
  readonly streams: Readonly<Record<string, CutStream>>;
  readonly captures: readonly string[];
  /** The chain's id (I12), the same in every cut, and the cluster it follows: another one only at a genesis or a slot. */
  readonly incarnation: string;
  readonly system_identifier: string;
  readonly timeline: number;
}

/** One of a cut's objects. */
export interface CutPart {
  readonly object: string;
  readonly object_bytes: number;
}

/**
 * A transaction that no window has come to the end of: what is staged of the cut that it is in, up to a change of it, and how the next window goes on behind that
 * (lib/window/unfinished.ts). It counts while the chain ends with `after_cut`; what is left of an older one is passed over.
 */
export interface Unfinished {
  /** Another after each window. */
  readonly id: string;
  readonly incarnation: string;
  /** The chain's newest cut: the unfinished one follows it. */
  readonly after_cut: number;
  readonly begin_lsn: Lsn;
  /** One of each window; their bytes, joined, are the cut's so far. */
  readonly objects: readonly CutPart[];
  /** The rest of what the next window needs to know, as JSON: where it lies in the cut's bytes, and its CRC-32. */
  readonly state: ByteRange;
  readonly state_crc32: number;
  readonly xid: number;
  /** Where its commit record begins. */
  readonly commit_lsn: Lsn;
  /** Changes and their bytes as the plugin sent them, of the whole cut so far. */
  readonly messages: number;
  readonly message_bytes: number;
  /** Changes of captured streams, and their COPY text. */
  readonly changes: number;
  readonly text_bytes: number;
  /** Those with the most changes; `table_count`: all of them. */
  readonly tables: readonly string[];
  readonly table_count: number;
  readonly windows: number;
  /** When its first window ended, and its last, ms since the Unix epoch. */
  readonly began_at_ms: number;
  readonly at_ms: number;
  /** The last window came to nothing new: all its time went into passing over what is staged. */
  readonly stalled: boolean;
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

export const REPLICATION_METHODS = ['LOG_BASED', 'INCREMENTAL', 'FULL_TABLE'] as const;
export type ReplicationMethod = (typeof REPLICATION_METHODS)[number];

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
  /** How it is followed; absent: LOG_BASED. The two others are read by query alone: no window reads the slot for them, and no cut has anything of theirs. */
  readonly method?: ReplicationMethod;
  /** Commits before it are in the stream's copy, and are passed over: what the log has of them may have gaps, or other names of what is hidden (lib/window/capture.ts). Null: there are none. */
  readonly log_from?: Lsn | null;
  /** Digest of what the file says of its rows (lib/config/stream-options.ts): method, replication key, columns, masks, filter. Another one starts it anew. */
  readonly selection?: string | null;
  /** INCREMENTAL: up to where the rows are in the target, as PostgreSQL's text of the replication key; null: nothing yet. Moved when an epoch's rows are in. */
  readonly replication?: { readonly key: string; readonly value: string | null } | null;
  /** Read by query: when the run was opened whose rows the target has, ms since the Unix epoch; what had been committed then is there. Absent: not yet. */
  readonly as_of_ms?: number;
  /** The newest epoch, where it ended before it was done: what it was and why. */
  readonly given_up?: {
    readonly epoch: number;
    readonly kind: EpochKind;
    readonly reason: string;
    readonly at_ms: number;
  } | null;
  /** Somebody asked for a resync: the next window makes a new slot where the old one is lost, and captures the stream anew (epoch `resync`). */
  readonly resync_requested?: boolean;
  /** Of a table with a schedule of its own, as the last window had it; absent or null: it goes by the pipeline's. */
  readonly schedule?: BookmarkSchedule | null;
}

/** What a table's own schedule has come to. Times in ms since the Unix epoch. */
export interface BookmarkSchedule {
  /** What was committed until then its last bell was for; or when its run was opened; while the table is copied, now. */
  readonly served_ms: number;
  /** Its next time; null: paused, or never. */
  readonly next_ms: number | null;
  readonly paused: boolean;
  /** Followed by the log: the newest cut that it was rung for, and is to be loaded up to; null: read by query. */
  readonly cut: number | null;
}

/** What a stream is on the source, beyond its name: told apart from another table that goes by the name (design: identity of streams). */
export interface Followed {
  readonly table_oid: number;
  /** Published. */
  readonly published: string;
  /** Of a partitioned table: its partitions, in short. */
  readonly partitions: string | null;
  /** Numbers of the key's columns, which the log does not tell of a table with REPLICA IDENTITY FULL. */
  readonly key?: string | null;
  /** Numbers of the columns of which no value must be seen; of a table that has such (lib/projection). */
  readonly hidden?: readonly number[];
  /** TableDescription.filenode that the copy is of; compared where the log has no TRUNCATE (lib/window/truncated.ts). */
  readonly file?: string | null;
}

/**
 * What an epoch is for (lib/epoch/kinds.ts says what follows from it):
 * - first_sync, reset: the whole table into a shadow, which is swapped in
 * - full_table: the same, of a stream that no log is read for
 * - incremental: rows at and after the replication key's bookmark, in place, page after page
 * - backfill: rows that match `where`, in place
 * - repair: the rows of `ranges`, in place; what the source does not have there goes
 * - resync: all ranges of the table, in place, of which only those are copied that differ
 */
export const EPOCH_KINDS = [
  'first_sync',
  'reset',
  'full_table',
  'incremental',
  'backfill',
  'repair',
  'resync',
] as const;
export type EpochKind = (typeof EPOCH_KINDS)[number];

/** One synchronisation of a stream (design §3, Epochs). */
export interface Epoch {
  readonly stream: string;
  readonly number: number;
  readonly kind: EpochKind;
  readonly where: string | null;
  /** Instead of a plan of the whole table, where somebody knows what is to be read (repair). Bounded: RANGES_BYTES_MAX of lib/epoch/request.ts. */
  readonly ranges?: readonly ChunkRange[] | null;
  /** The request that it answers (`EpochRequest.id`). */
  readonly request?: string | null;
  /** Position of the source's primary when it was planned, after the hold: no chunk is read from a replica that has not come to it (I11). */
  readonly from_lsn?: Lsn | null;
  /** Bytes of the source's table (heap and TOAST), for progress; absent or -1: not known. */
  readonly bytes_estimate?: number;
  /** INCREMENTAL: the bookmark's next value, when the epoch is done. */
  readonly replication_value?: string | null;
  /** `opened` → `planned` (chunks are known) → `done`. `cancelled` ends it from any of them. */
  readonly state: 'opened' | 'planned' | 'done' | 'cancelled';
  /** Why it was cancelled. */
  readonly reason?: string | null;
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

/** Somebody wants an epoch; it is opened when the stream is free for it. Kept as an item of its own until then, so that several may wait. */
export interface EpochRequest {
  readonly stream: string;
  /** Unique, and sorted by age. */
  readonly id: string;
  readonly kind: 'backfill' | 'repair';
  readonly where: string | null;
  readonly ranges: readonly ChunkRange[] | null;
  readonly requested_at_ms: number;
}

/**
 * Which rows a chunk has. Values are PostgreSQL's text of them; null: open.
 * - key:   `from` inclusive, `to` exclusive, of the row (columns…), compared as the source compares it
 * - ctid:  likewise
 * - keys:  exactly these keys
 * - page:  values of one column after `from` (at it too where `inclusive`) up to and including `to`, in order (INCREMENTAL)
 * - nulls: rows without a value in the column (INCREMENTAL)
 */
export type ChunkRange =
  | { readonly by: 'whole' }
  | {
      readonly by: 'key';
      readonly columns: readonly string[];
      readonly from: readonly string[] | null;
      readonly to: readonly string[] | null;
    }
  | { readonly by: 'ctid'; readonly from: string | null; readonly to: string | null }
  | { readonly by: 'keys'; readonly columns: readonly string[]; readonly keys: readonly (readonly string[])[] }
  | {
      readonly by: 'page';
      readonly column: string;
      readonly from: string | null;
      readonly inclusive: boolean;
      readonly to: string | null;
    }
  | { readonly by: 'nulls'; readonly column: string };

/**
 * Rows of one stream that were left out of a cut or a chunk, because they are not valid (target.on_invalid), or because the target refused them (target.on_error):
 * where they lie in the stage.
 */
export interface Reject {
  readonly stream: string;
  /** Unique; sorted by age. The same cut, or the same chunk, read once more has the same. */
  readonly id: string;
  /** Lines of JSON (lib/validation/rejected.ts), of other streams as well. */
  readonly object: string;
  readonly object_bytes: number;
  readonly rows: number;
  /** That they were left out of; null: they were copied. */
  readonly cut: number | null;
  /** Whose chunk they were left out of; null: they are of the log. */
  readonly epoch: number | null;
  readonly rejected_at_ms: number;
  /** The target refused them, and its `_sluice.quarantine` says which of them wait. Left out: false. */
  readonly refused?: boolean;
}

export interface Chunk {
  readonly stream: string;
  readonly epoch: number;
  readonly plan: string;
  readonly number: number;
  readonly range: ChunkRange;
  /** Set when it is staged; a chunk is staged once: who comes second keeps what is there. */
  readonly staged: {
    /** Null: nothing is to be loaded, the target has these rows already (resync). */
    readonly object: string | null;
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

  /** The last transaction that a window did not come to the end of, be it over by now or not. Strongly consistent. */
  unfinished(): Promise<Unfinished | null>;
  /** Keeps it in the place of the one of this id (null: of none); false: another stands there. */
  saveUnfinished(unfinished: Unfinished, instead_of: string | null): Promise<boolean>;
  removeUnfinished(): Promise<void>;

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

  /** Keeps a request until its epoch is open. */
  addEpochRequest(request: EpochRequest): Promise<void>;
  /** The oldest first; of one stream, or of all. */
  epochRequests(stream: string | null): Promise<EpochRequest[]>;
  removeEpochRequest(request: Pick<EpochRequest, 'stream' | 'id'>): Promise<void>;

  /** Keeps it, in the place of one of the same id. */
  addReject(reject: Reject): Promise<void>;
  /** In the order of their ids; of one stream, or of all. */
  rejects(stream: string | null): Promise<Reject[]>;
  removeRejects(rejects: readonly Pick<Reject, 'stream' | 'id'>[]): Promise<void>;

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
