/**
 * Contract of the comparison between a stream's two tables (see ports.ts): what a resync asks before it copies.
 */
import type { Lsn } from '../lsn.ts';
import type { ChunkRange } from './ledger.ts';
import type { SourceTable } from './source.ts';
import type { TargetStream } from './target.ts';

export interface Comparer {
  /**
   * Why the stream's table on the target cannot be compared with `table` chunk by chunk, and mended where it is; null: it can. `table` is as the stream has
   * it, without what the file hides, and `incarnation` the chain's.
   */
  obstacle(stream: TargetStream, table: SourceTable, incarnation: string): Promise<string | null>;
  /**
   * Compares the rows of a range of keys by their checksums, on the source's primary in one snapshot, and on the target, which an epoch holds still. How many there
   * are, and a position past every commit that the snapshot saw; null: they differ, or cannot be compared any more.
   */
  equalRows(
    stream: TargetStream,
    table: SourceTable,
    range: ChunkRange,
  ): Promise<{ readonly rows: number; readonly lsn: Lsn } | null>;
}
