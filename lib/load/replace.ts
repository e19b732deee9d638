/**
 * In place, an epoch that replaces (lib/epoch/kinds.ts) also takes away what its chunk did not bring: rows of the target in the chunk's range that the source
 * no longer has. And what was not sure of the keys that it read again is known now (doubts.ts). Pure text, applied beside the chunk's rows.
 *
 * A range is compared as the target compares it. That is the source's way for keys without collation, and for keys that are named one by one: whoever plans
 * such an epoch makes no other ranges.
 */
import { rangeConditions } from '../epoch/range-sql.ts';
import type { ChunkRange } from '../ports.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { DELETED_AT } from './columns.ts';
import { columnIn, deletedMarkSql, type Landed, sameKey, type TableForm } from './sql.ts';

/** What becomes of a row that the source no longer has. */
export type Deletions = 'delete' | 'mark' | 'ignore';

/** `nameOf`: what a column of the range is called on the target. Throws RangeError for a range that says nothing about rows of the target. */
export function replaceSql(
  table: TableForm,
  landed: Landed,
  range: ChunkRange,
  nameOf: (column: string) => string,
  { deletions, extracted_at }: { readonly deletions: Deletions; readonly extracted_at: string },
): string[] {
  if (deletions === 'ignore') return [];
  if (table.shape.key.length === 0) throw new RangeError('rows without a key cannot be replaced');
  if (range.by !== 'key' && range.by !== 'keys' && range.by !== 'whole') {
    throw new RangeError(`a range by ${range.by} says nothing about the target's rows`);
  }
  const inRange = rangeConditions(range, (column) => `t.${quoteIdentifier(nameOf(column))}`);
  const missing = `NOT EXISTS (SELECT FROM ${landed.temp} s WHERE ${sameKey(table, 't', columnIn(landed))})`;
  const target = `${quoteTable(table.name)} AS t`;
  if (deletions === 'delete') return [`DELETE FROM ${target} WHERE ${[...inRange, missing].join(' AND ')}`];
  const alive = `t.${quoteIdentifier(DELETED_AT)} IS NULL`;
  return [`UPDATE ${target} SET ${deletedMarkSql(extracted_at)} WHERE ${[...inRange, alive, missing].join(' AND ')}`];
}
