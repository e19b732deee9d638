/**
 * The oracle: both servers print every row as text, in one order, and the texts are the same.
 */
import type { Client } from 'pg';
import { pinSettingsSql } from '../../lib/postgres/connection.ts';
import type { TableName } from '../../lib/shape.ts';
import { quoteIdentifier, quoteTable } from '../../lib/sql-text.ts';

export interface TableText {
  readonly rows: number;
  /** Of all rows as text, ordered by that text. */
  readonly md5: string;
}

/** Columns of the table in their order, without Sluice's own. */
export async function columnsOf(client: Client, table: TableName): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE '\\_sdc\\_%' ORDER BY attnum`,
    [quoteTable(table)],
  );
  return rows.map(({ name }) => name);
}

/** `live`: leaves out rows that are marked as deleted. */
export async function tableText(
  client: Client,
  table: TableName,
  columns: readonly string[],
  live = false,
): Promise<TableText> {
  await client.query(pinSettingsSql('SESSION'));
  const row = columns.length > 0 ? `ROW(${columns.map(quoteIdentifier).join(', ')})::text` : `''`;
  const where = live ? 'WHERE _sdc_deleted_at IS NULL' : '';
  const { rows } = await client.query<{ rows: number; md5: string }>(
    `SELECT count(*)::int AS rows, md5(COALESCE(string_agg(row_md5, '' ORDER BY row_md5), '')) AS md5
       FROM (SELECT md5(${row}) AS row_md5 FROM ${quoteTable(table)} ${where}) AS r`,
  );
  return rows[0] as TableText;
}
