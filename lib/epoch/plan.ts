/**
 * How a table is cut into chunks that are read in parallel (design §3, Epochs 3). Pure.
 *
 * The chunks cover every row that the table has or will have while they are read: the first and the last are open, and where one ends the next
 * begins. Each chunk has a snapshot of its own, so a row that moves from one to another between two snapshots can be read twice, or not at
 * all; the log repairs both, if it holds the whole row:
 * - by key, a row moves only when its key changes, and then the log says so;
 * - by ctid, every update may move a row. The log has the new row but for values that are unchanged and lie outside it (TOAST, I7), so a table that
 *   has such values is not cut by ctid, unless it is REPLICA IDENTITY FULL, where the log has the old ones.
 */
import type { ChunkRange, SourceTable } from '../ports.ts';

/** Conditions on ctid read only the pages they name since 14 (TID Range Scan); before, each chunk would read the whole table. */
const TID_RANGE_SINCE = 140_000;
/** int2, int4, int8: pg_type.dat. */
const INTEGER_OIDS = new Set([21, 23, 20]);
/** Rows that a page of a table that was never analysed is taken to hold: about 80 bytes a row. */
const ROWS_PER_PAGE_GUESS = 100;

export interface PlanRequest {
  readonly table: SourceTable;
  /** server_version_num of the source. */
  readonly version: number;
  /** Of `rangeColumn(table)`, as text; null: the table is empty, or there is no such column. */
  readonly bounds: { readonly min: string; readonly max: string } | null;
  /** Rows that a chunk should have. */
  readonly chunk_rows: number;
  readonly chunks_max: number;
}

export interface ChunkPlan {
  readonly ranges: readonly ChunkRange[];
  /** Two chunks may hold the same row (ctid): whoever loads them keeps one of each key. */
  readonly may_overlap: boolean;
}

const WHOLE: ChunkPlan = { ranges: [{ by: 'whole' }], may_overlap: false };

/** The column whose least and greatest value the plan needs: the key's first, where it is an integer. */
export function rangeColumn(table: SourceTable): string | null {
  const first = table.columns.find((column) => column.name === table.key[0]);
  return first && INTEGER_OIDS.has(first.type_oid) ? first.name : null;
}

export function planChunks({ table, version, bounds, chunk_rows, chunks_max }: PlanRequest): ChunkPlan {
  // Of a table without a key the log repairs nothing that two snapshots have in common, or that falls between them.
  if (table.key.length === 0) return WHOLE;
  const rows = table.rows_estimate >= 0 ? table.rows_estimate : table.pages * ROWS_PER_PAGE_GUESS;
  const chunks = Math.min(Math.ceil(rows / chunk_rows), chunks_max);
  if (chunks < 2) return WHOLE;

  const column = rangeColumn(table);
  const byKey = (): ChunkPlan | null => (column && bounds ? keyRanges(column, bounds, chunks) : null);
  const byCtid = (): ChunkPlan | null =>
    version >= TID_RANGE_SINCE && rowsMayMove(table) ? ctidRanges(table.pages, chunks) : null;
  // The first column of several may have few values, and then makes few chunks.
  const plan = table.key.length === 1 ? (byKey() ?? byCtid()) : (byCtid() ?? byKey());
  return plan ?? WHOLE;
}

/** A row that moves is in the log as a whole. */
function rowsMayMove(table: SourceTable): boolean {
  return table.kind === 'r' && (table.toasted === false || table.replica_identity === 'f');
}

function keyRanges(column: string, bounds: { min: string; max: string }, chunks: number): ChunkPlan | null {
  const min = BigInt(bounds.min);
  const span = BigInt(bounds.max) - min + 1n;
  // No more chunks than there are values: each boundary is greater than the one before.
  const count = span < BigInt(chunks) ? span : BigInt(chunks);
  if (count < 2n) return null;
  const edges: (string | null)[] = [null];
  for (let i = 1n; i < count; i++) edges.push(String(min + (span * i) / count));
  edges.push(null);
  return {
    ranges: between(edges, (from, to) => ({
      by: 'key',
      columns: [column],
      from: from === null ? null : [from],
      to: to === null ? null : [to],
    })),
    may_overlap: false,
  };
}

function ctidRanges(pages: number, chunks: number): ChunkPlan | null {
  const count = Math.min(chunks, pages);
  if (count < 2) return null;
  const edges: (string | null)[] = [null];
  for (let i = 1; i < count; i++) edges.push(`(${Math.floor((pages * i) / count)},0)`);
  edges.push(null);
  return { ranges: between(edges, (from, to) => ({ by: 'ctid', from, to })), may_overlap: true };
}

function between<T>(edges: readonly (string | null)[], range: (from: string | null, to: string | null) => T): T[] {
  return edges.slice(1).map((to, i) => range(edges[i] ?? null, to));
}
