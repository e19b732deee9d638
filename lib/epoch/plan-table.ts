/**
 * One table's chunks, planned: the look at it (port Extractor) and the decision (`plan.ts`) in one call, for whoever cuts a table — a copy, a
 * comparison.
 */
import type { Lsn } from '../lsn.ts';
import type { Extractor, SourceTable } from '../ports.ts';
import { type ChunkPlan, mayBeCut, type PlanWays, planChunks, rangeColumns } from './plan.ts';

/** What a chunk has at most. Only sizes: how many there are follows, up to `chunks_max`, from which on they are larger. */
export interface ChunkSize {
  readonly chunk_rows: number;
  readonly chunk_bytes: number;
  readonly chunks_max: number;
}

/** Some seconds of copying, so that a chunk that breaks costs little and parallel readers share evenly. */
export const CHUNK_SIZE: ChunkSize = { chunk_rows: 250_000, chunk_bytes: 128 * 1024 * 1024, chunks_max: 5_000 };

export interface TablePlan extends ChunkPlan {
  /** -1: not known. */
  readonly rows_estimate: number;
  /** Of the table and its TOAST; -1: not known. */
  readonly bytes_estimate: number;
}

/** Throws as `Extractor.sample`. `from_lsn`: where the plan may be made on a replica, it must have come to this. */
export async function planTable(
  extractor: Extractor,
  table: SourceTable,
  ways: PlanWays,
  { from_lsn, size = CHUNK_SIZE }: { readonly from_lsn: Lsn | null; readonly size?: ChunkSize },
): Promise<TablePlan> {
  const columns = mayBeCut({ table, ways }) ? rangeColumns(table) : [];
  // What has no files of its own (views, foreign tables) cannot be looked into.
  const hasFiles = table.kind === 'r' || table.kind === 'p' || table.kind === 'm';
  const sample = hasFiles ? await extractor.sample(table, { ...size, columns, from_lsn }) : null;
  const plan = planChunks({ table, sample, ways });
  return {
    ...plan,
    rows_estimate: sample?.rows ?? table.rows_estimate,
    bytes_estimate: sample?.bytes ?? -1,
  };
}
