/**
 * How a table is cut into chunks that are read in parallel (design §3, Epochs 3). Pure; `sample.ts` looks at the table, `plan-table.ts` puts both
 * together.
 *
 * The chunks cover every row that the table has or will have while they are read: the first and the last are open, and where one ends the next
 * begins, as the source itself compares. Each chunk has a snapshot of its own, so a row that moves from one to another between two snapshots can be
 * read twice, or not at all; the log repairs both, if it holds the whole row:
 * - by key, a row moves only when its key changes, and then the log says so;
 * - by ctid, every update may move a row. The log has the new row but for values that are unchanged and lie outside it (TOAST, I7), so a table that
 *   has such values is not cut by ctid, unless it is REPLICA IDENTITY FULL, where the log has the old ones; and none is that no log is read of.
 */
import type { ChunkRange, SourceColumn, SourceTable, TableSample } from '../ports.ts';
import { OWN_TYPE_OID_END, type TypeUse } from '../shape.ts';

/** Conditions on ctid read only the pages they name since 14 (TID Range Scan); before, each chunk would read the whole table. */
const TID_RANGE_SINCE = 140_000;
/** Below this, the rows of a range of keys lie all over the table, and each chunk would read most of its pages. */
const CORRELATION_MIN = 0.5;
/**
 * Types (pg_type.dat) whose text, as a literal without a type beside a column, is compared as ORDER BY sorts: by operators of pg_catalog, which is
 * all that is on the search path. Not reg*, whose literals would be read as numbers, nor "char", whose bytes above 127 are no text.
 */
const RANGE_OIDS: ReadonlySet<number> = new Set([
  16, 17, 19, 20, 21, 23, 25, 26, 650, 700, 701, 774, 790, 829, 869, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266,
  1560, 1562, 1700, 2950, 3220, 3802, 5069,
]);

export interface PlanRequest {
  readonly table: SourceTable;
  /** Null: the table is not looked into, and read as one chunk. */
  readonly sample: TableSample | null;
  readonly ways: PlanWays;
}

/** What the ranges are for. */
export interface PlanWays {
  /** What happens to the table's rows while they are read comes by the log. */
  readonly is_logged: boolean;
  /** Only ranges of keys: whoever compares two sides has no other in common. */
  readonly only_keys?: boolean;
}

export interface ChunkPlan {
  readonly ranges: readonly ChunkRange[];
  /** Two chunks may hold the same row (ctid): whoever loads them keeps one of each key. */
  readonly may_overlap: boolean;
}

const WHOLE: ChunkPlan = { ranges: [{ by: 'whole' }], may_overlap: false };

/**
 * The columns that ranges of keys are made of: the key's first ones, in its order (of the replica identity index, or the primary key), as many as can
 * be compared. Empty: the table cannot be cut by key.
 */
export function rangeColumns(table: SourceTable): string[] {
  const columns: string[] = [];
  for (const name of table.key) {
    const column = table.columns.find((known) => known.name === name);
    if (!column || column.mask !== undefined || !isRangeable(column)) break;
    columns.push(name);
  }
  return columns;
}

/** Without NOT NULL a row could be in no range at all. */
function isRangeable(column: SourceColumn): boolean {
  return column.not_null && hasOwnOrder(column);
}

/** Its text, as a literal beside a column of the type, is compared as the column is sorted. */
export function hasOwnOrder({ type_oid, type }: TypeUse): boolean {
  if (type_oid < OWN_TYPE_OID_END) return RANGE_OIDS.has(type_oid);
  if (type?.kind === 'domain') return hasOwnOrder(type.base);
  return type?.kind === 'enum';
}

/** A chunk that is the whole table needs no look at it: what no log tells of without a key, and what has no pages to look at. */
export function mayBeCut({ table, ways }: Pick<PlanRequest, 'table' | 'ways'>): boolean {
  if (table.key.length === 0 || (table.kind !== 'r' && table.kind !== 'p')) return false;
  return rangeColumns(table).length > 0 || rowsMayMove(table, ways);
}

export function planChunks({ table, sample, ways }: PlanRequest): ChunkPlan {
  if (sample === null || sample.chunks < 2 || !mayBeCut({ table, ways })) return WHOLE;
  const byCtid = sample.version >= TID_RANGE_SINCE && rowsMayMove(table, ways) ? ctidRanges(sample) : null;
  const byKey = keyRanges(rangeColumns(table), sample.edges);
  const lies = Math.abs(sample.correlation ?? 1);
  return (lies < CORRELATION_MIN ? (byCtid ?? byKey) : (byKey ?? byCtid)) ?? WHOLE;
}

/** A row that moves is in the log as a whole. */
function rowsMayMove(table: SourceTable, { is_logged, only_keys = false }: PlanWays): boolean {
  if (!is_logged || only_keys) return false;
  return table.kind === 'r' && (table.toasted === false || table.replica_identity === 'f');
}

function keyRanges(columns: readonly string[], edges: TableSample['edges']): ChunkPlan | null {
  if (columns.length === 0 || edges.length === 0) return null;
  return {
    ranges: between(edges, (from, to) => ({ by: 'key', columns, from, to })),
    may_overlap: false,
  };
}

function ctidRanges({ pages, chunks }: TableSample): ChunkPlan | null {
  const count = Math.min(chunks, pages);
  if (count < 2) return null;
  const edges: string[] = [];
  for (let i = 1; i < count; i++) edges.push(`(${Math.floor((pages * i) / count)},0)`);
  return { ranges: between(edges, (from, to) => ({ by: 'ctid', from, to })), may_overlap: true };
}

/** Ranges from edge to edge, open at both ends. */
function between<E>(edges: readonly E[], range: (from: E | null, to: E | null) => ChunkRange): ChunkRange[] {
  return [null, ...edges].map((from, i) => range(from, edges[i] ?? null));
}
