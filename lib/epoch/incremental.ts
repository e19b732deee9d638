/**
 * INCREMENTAL, the planning of a run: what is new by the replication key, as pages in order; and how far the rows are in the target when it is done.
 *
 * The bookmark moves only with the end of an epoch, when all of its rows are in (lib/load/epoch-steps.ts): a run that is broken off anywhere is gone on with, or read again
 * from where it began.
 */
import { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import type { Bookmark, Epoch, Extractor, SourceTable } from '../ports.ts';
import { displayName } from '../shape.ts';
import { pageRanges } from './pages.ts';
import type { TablePlan } from './plan-table.ts';

/** Pages of one run: an item of the ledger each. What is left over is the next run's. */
const PAGES_MAX = 5_000;

export interface PageOptions {
  /** Rows. */
  readonly itersize: number;
  /** Rows of a chunk where the whole table is copied; null: CHUNK_SIZE has it. */
  readonly chunk_rows: number | null;
  readonly lookback: string | null;
}

export interface RunPlan extends TablePlan {
  /** The bookmark when the run is done. */
  readonly replication_value: string | null;
}

/** `from_lsn`: as ChunkRequest.from_lsn. Throws REPLICATION_KEY, and as `Extractor.pages`. */
export async function planRun(
  extractor: Extractor,
  bookmark: Bookmark,
  table: SourceTable,
  { itersize, lookback }: Omit<PageOptions, 'chunk_rows'>,
  from_lsn: Lsn,
): Promise<RunPlan> {
  const { key: column, value } = replicationOf(bookmark);
  const pages = await extractor.pages(table, {
    column,
    from: value,
    lookback,
    rows: itersize,
    pages_max: PAGES_MAX,
    from_lsn,
  });
  return {
    ranges: pageRanges(column, pages),
    may_overlap: false,
    rows_estimate: pages.ends.length === 0 ? -1 : (pages.ends.length + 1) * itersize,
    bytes_estimate: -1,
    replication_value: pages.to ?? value,
  };
}

/** Where runs go on from when the whole table has been copied: the greatest value before the first row of the copy is read. */
export async function valueBefore(
  extractor: Extractor,
  bookmark: Bookmark,
  table: SourceTable,
  from_lsn: Lsn,
): Promise<string | null> {
  const { key: column } = replicationOf(bookmark);
  const asked = { column, from: null, lookback: null, rows: null, pages_max: 1, from_lsn };
  return (await extractor.pages(table, asked)).to;
}

/** What the bookmark says when the epoch's rows are in. */
export function replicationAfter(
  { method, replication }: Bookmark,
  { kind, replication_value }: Epoch,
): Pick<Bookmark, 'replication'> | Record<string, never> {
  // A backfill or a repair reads what it was asked for, wherever the runs are.
  if (method !== 'INCREMENTAL' || !replication || kind === 'backfill' || kind === 'repair') return {};
  return { replication: { ...replication, value: replication_value ?? null } };
}

function replicationOf({ table, replication }: Bookmark): NonNullable<Bookmark['replication']> {
  if (replication) return replication;
  throw new SluiceError('UNEXPECTED', { reason: `${displayName(table)} is INCREMENTAL and has no replication key` });
}
