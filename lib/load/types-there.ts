/**
 * The types of a table's columns as the table has them, for somebody may have changed them; read from the catalog, and so without a lock on the table.
 */
import type { TableName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import type { Row, Session } from './session.ts';

/** SQL of each column's type, by its name. */
export async function typesThere(session: Session, table: TableName): Promise<ReadonlyMap<string, string>> {
  const { rows } = await session.query<Row & { name: string; type: string }>(
    `SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [quoteTable(table)],
  );
  return new Map(rows.map(({ name, type }) => [name, type]));
}
