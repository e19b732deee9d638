/**
 * The staged format: what one S3 object of the stage holds, byte for byte.
 *
 *     object  = segment*
 *     segment = uint32 header length · header (JSON, zstd) · block*        (the length counts the compressed header; big-endian)
 *     block   = one zstd frame of COPY text lines                         (https://www.postgresql.org/docs/current/sql-copy.html, Text Format)
 *
 * A segment is one stream's share of a cut, or of a part of one; it explains itself, so that the loader needs no catalog and parses no row.
 * Its operations are sets over disjoint keys and are applied in this order, which is the order of `BLOCK_KINDS`:
 *
 * - `rekey`:  the key of a row changed while some column's value is not in the log (I7). Each line: the old key's columns, then `columns`
 *             (which include the new key). The row of the new key gets `columns`; if the target has no such row yet, it is made, with every
 *             absent column taken from the row of the old key. The old key is among the deletes of the same segment.
 * - `delete`: each line: the key's columns, then the commit time (timestamptz) of the deletion.
 * - `upsert`: whole rows: `columns` is every column of the shape.
 * - `update`: rows that lack some columns: `columns` is what they have, the key included; the others keep the target's value.
 *             One block for each set of columns. A key that the target does not have is left alone.
 *
 * A key has at most one of upsert and update. Where rows are kept after deletion (soft delete), a key may have a delete beside its
 * upsert or update: the row was written, then deleted; there the loader marks deletions last. Otherwise a deleted key has nothing else.
 *
 * `operation: 'truncate'` has no blocks: the stream's table was truncated at this place in the order.
 */
import type { Shape } from '../shape.ts';

export const SEGMENT_VERSION = 1;

export const BLOCK_KINDS = ['rekey', 'delete', 'upsert', 'update'] as const;
export type BlockKind = (typeof BLOCK_KINDS)[number];

export interface Block {
  readonly kind: BlockKind;
  /** Indexes into the shape's columns, in the order in which a line has them (for `delete`: the key). */
  readonly columns: readonly number[];
  readonly rows: number;
  /** Bytes of COPY text before compression. */
  readonly text_bytes: number;
  /** Bytes of the zstd frame in the object. */
  readonly frame_bytes: number;
  /** CRC-32 (zlib) of the frame: tells a damaged object from a damaged server. */
  readonly crc32: number;
}

export interface SegmentHeader {
  readonly version: typeof SEGMENT_VERSION;
  /** Stream id. */
  readonly stream: string;
  readonly operation: 'changes' | 'truncate';
  readonly shape: Shape;
  /** When the changes were read from the source (ISO 8601, UTC): `_sdc_extracted_at`. */
  readonly extracted_at: string;
  readonly blocks: readonly Block[];
}

/** Where one stream's segments lie in an object: `[offset, bytes]` pairs in order; neighbours are joined. */
export type ByteRange = readonly [offset: number, bytes: number];
