/**
 * Rows that the source no longer has, where a whole copy takes a table's place again and again (FULL_TABLE) and deletions are marked: they are carried into the shadow,
 * with their last values and the time at which they were first seen to be gone.
 *
 * On the path just before the swap (swap.ts), in its transaction, while readers go on. Rows are told apart by the key; a table without one, or with another
 * than before, has no such way, and keeps only what the source has.
 */
import { type Column, displayName, type Shape, sameType, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { type Carried, keyPairs } from './carry.ts';
import { BATCHED_AT, DELETED_AT, EXTRACTED_AT } from './columns.ts';
import { jsonColumnsOf } from './flatten.ts';
import { readFunctionSql, readRow } from './flatten-sql.ts';
import { generatedNames } from './generated.ts';
import type { Session } from './session.ts';
import { isWidening } from './widening.ts';

const id = quoteIdentifier;

interface Table {
  readonly name: TableName;
  readonly shape: Shape;
}

/** `kept`: columns of the old table that the shadow has under these names. `gone_at_ms`: when the copy began, ms since the Unix epoch. */
export async function carryDeletedRows(
  session: Session,
  from: Table,
  shadow: Table,
  kept: readonly Carried[],
  gone_at_ms: number,
): Promise<void> {
  const sql = deletedRowsSql(from, shadow, kept, gone_at_ms);
  if (sql !== null) await session.run(sql, { action: `keep deleted rows of ${displayName(from.name)}` });
}

/** Null: the rows cannot be told apart. Pure. */
function deletedRowsSql(from: Table, shadow: Table, kept: readonly Carried[], gone_at_ms: number): string | null {
  const key = keyPairs(from.shape, shadow.shape);
  if (key === null) return null;
  const computed = generatedNames(shadow.shape);
  const names = new Map(kept.map(({ column, as }) => [as, column.name]));
  const columns = shadow.shape.columns
    .filter(({ name }) => !computed.has(name))
    .flatMap((column): [string, string][] => {
      const source = names.get(column.name) ?? before(from.shape, column)?.name;
      return source === undefined ? [] : [[id(column.name), `o.${id(source)}`]];
    });
  const gone_at = `to_timestamp(${gone_at_ms} / 1000.0)`;
  const first = (now: string, then: string): string =>
    `CASE WHEN o.${id(DELETED_AT)} IS NULL THEN ${now} ELSE o.${id(then)} END`;
  columns.push(
    [id(EXTRACTED_AT), first(gone_at, EXTRACTED_AT)],
    [id(BATCHED_AT), first('now()', BATCHED_AT)],
    [id(DELETED_AT), `COALESCE(o.${id(DELETED_AT)}, ${gone_at})`],
  );
  const places = new Map(columns);
  const json = jsonColumnsOf(shadow.shape).filter(({ name }) => places.has(id(name)));
  const beside = (shadow.shape.flattened?.columns ?? []).filter(({ of }) => places.has(id(of)));
  const row = readRow(json, (name) => places.get(id(name)) ?? 'NULL');
  columns.push(...beside.map((column): [string, string] => [id(column.name), row.valueOf(column)]));
  const same = key.map(({ old, now, bySight }) =>
    bySight ? `o.${id(old)}::text = s.${id(now)}::text` : `o.${id(old)} = s.${id(now)}`,
  );
  const into = quoteTable(shadow.name);
  const read = beside.length === 0 ? '' : ` CROSS JOIN ${row.from}`;
  const insert = `INSERT INTO ${into} (${columns.map(([name]) => name).join(', ')})
    SELECT ${columns.map(([, value]) => value).join(', ')} FROM ${quoteTable(from.name)} AS o${read}
    WHERE NOT EXISTS (SELECT FROM ${into} AS s WHERE ${same.join(' AND ')})`;
  return [...(beside.length === 0 ? [] : readFunctionSql(json)), insert].join('; ');
}

/**
 * The column of the old table whose values the column takes: of its name, for a view that was made anew has other numbers; or else of its number, for it may have
 * been renamed. None where its type cannot hold them: those are in a column of their own, if at all.
 */
function before({ columns }: Shape, column: Column): Column | null {
  const old =
    columns.find(({ name }) => name === column.name) ??
    columns.find(({ number }) => number !== undefined && number === column.number);
  return old && (sameType(old, column) || isWidening(old, column)) ? old : null;
}
