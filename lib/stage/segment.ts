/**
 * The staged format: what one S3 object of the stage holds, byte for byte.
 *
 *     object  = segment*
 *     segment = uint32 header length · header (JSON, zstd) · block*       (the length counts the compressed header; big-endian)
 *     block   = frame* · uint32 0
 *     frame   = uint32 length · uint32 CRC-32 · zstd frame                (length and CRC are those of the zstd frame)
 *
 * The text of a block is the text of its frames, joined: COPY lines (https://www.postgresql.org/docs/current/sql-copy.html, Text Format).
 * A frame holds at most FRAME_TEXT_BYTES_MAX of it and may end in the middle of a line, so that neither writer nor reader ever holds
 * more than a frame: not of a big block, and not of one row of 100 MB (I8).
 *
 * A segment is one stream's share of a cut, or of a part of one; it explains itself, so that the loader needs no catalog and parses no row.
 * Its operations are sets over disjoint keys and are applied in this order, which is the order of `BLOCK_KINDS`:
 *
 * - `rekey`:  the key of a row changed while some column's value is not in the log (I7). Each line: the old key's columns, then `columns`
 *             (which include the new key). The row of the new key gets `columns`; if the target has no such row yet, it is made, with every
 *             absent column taken from the row of the old key. The old key is among the deletes of the same segment, and nothing else in it
 *             has that key: who comes to it later comes in a later segment.
 * - `delete`: each line: the key's columns, `_sdc_lsn` where the shape has it (lib/lsn-column.ts), then the commit time (timestamptz) of the deletion.
 * - `insert`: whole rows of keys that the source did not have when the segment begins: `columns` is every column of the shape. A target that is at the same place
 *             does not have them either; one that is copied, or that keeps deleted rows, may: there it is what `upsert` is.
 * - `upsert`: whole rows: `columns` is every column of the shape.
 * - `update`: rows that lack some columns: `columns` is what they have, the key included; the others keep the target's value.
 *             One block for each set of columns. A key that the target does not have is left alone.
 *
 * A table without a key (`shape.key` is empty) is a multiset: rows are known by all their values, and how many copies of each there are. Its lines begin
 * with the whole row, every column of the shape, and end with the number of copies; a row stands once in a block:
 *
 * - `remove`: copies that an update has replaced: they go, whatever the target does with deletions.
 * - `add`:    copies that came, by an insert or an update.
 * - `erase`:  copies that were deleted: the row, the commit time of the last deletion, the number. Where rows are kept after deletion they may be among
 *             those that the same segment adds.
 *
 * A chunk of such a table is an `upsert` of whole rows, as they come.
 *
 * A key has at most one of insert, upsert and update. Where rows are kept after deletion (soft delete), a key may have a delete beside its
 * upsert or update: the row was written, then deleted; there the loader marks deletions last. Otherwise a deleted key has nothing else, whether the target has it or not.
 *
 * `operation: 'truncate'` has no blocks: the stream's table was truncated at this place in the order.
 */
import type { Shape, TableDescription } from '../shape.ts';

export const SEGMENT_VERSION = 1;

export const FRAME_TEXT_BYTES_MAX = 4 * 1024 * 1024;

export const BLOCK_KINDS = ['rekey', 'delete', 'insert', 'upsert', 'update', 'remove', 'add', 'erase'] as const;
export type BlockKind = (typeof BLOCK_KINDS)[number];

export interface Block {
  readonly kind: BlockKind;
  /** Indexes into the shape's columns, in the order in which a line has them (for `delete`: the key). */
  readonly columns: readonly number[];
  /** Rows of the block; null where they were streamed (a chunk) and the header was written first. */
  readonly rows: number | null;
}

export interface SegmentHeader {
  readonly version: typeof SEGMENT_VERSION;
  /** Stream id. */
  readonly stream: string;
  /** Name of the object that it was written into: the bytes of another one, whole as they may be, are not this one's. */
  readonly object?: string;
  readonly operation: 'changes' | 'truncate';
  /** As the log (or, of a chunk, the catalog) has it; types that are not PostgreSQL's own are described in it. */
  readonly shape: Shape;
  /**
   * The catalog's view of the table when the segment was staged: later than its changes. `current`: no other description of the table came after
   * theirs in the log so far, so that what agrees with the shape is the same. Absent in a chunk, whose shape is the catalog's.
   */
  readonly described?: TableDescription & { readonly current: boolean };
  /**
   * Of a table without a key: positions of the commit records of its first and its last transaction. A copy has a transaction whose record begins before
   * the copy's consistent point, and no other (SnapBuildXactNeedsSkip): such a table cannot have a change twice.
   */
  readonly commits?: CommitSpan;
  /** When the changes were read from the source (ISO 8601, UTC): `_sdc_extracted_at`. */
  readonly extracted_at: string;
  readonly blocks: readonly Block[];
}

/** Log positions as PostgreSQL prints them. */
export interface CommitSpan {
  readonly first: string;
  readonly last: string;
}

/** Where one stream's segments lie in an object: `[offset, bytes]` pairs in order; neighbours are joined. */
export type ByteRange = readonly [offset: number, bytes: number];
