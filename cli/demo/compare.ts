/**
 * The proof: PostgreSQL on both sides prints every row of a table as text, and the texts are the same. It is done on the servers; only counts and
 * checksums travel.
 */
import type { Client } from 'pg';
import { closeClient } from '../../lib/postgres/connection.ts';
import type { Connect } from '../../lib/postgres/session.ts';
import type { TableName } from '../../lib/shape.ts';
import { quoteIdentifier, quoteTable } from '../../lib/sql-text.ts';

interface TableText {
  readonly rows: number;
  readonly md5: string;
}

export interface Comparison {
  readonly table: TableName;
  readonly source_rows: number;
  readonly target_rows: number;
  readonly equal: boolean;
}

/** Compares the columns that the source has. A table that the target lacks has no rows there. */
export async function compareTables(
  connect: { readonly source: Connect; readonly target: Connect },
  tables: readonly TableName[],
): Promise<Comparison[]> {
  const source = await connect.source();
  const target = await connect.target();
  try {
    const comparisons: Comparison[] = [];
    for (const table of tables) {
      const columns = await columnsOf(source, table);
      const [here, there] = await Promise.all([textOf(source, table, columns), textOf(target, table, columns)]);
      const equal = here.rows === there.rows && here.md5 === there.md5;
      comparisons.push({ table, source_rows: here.rows, target_rows: there.rows, equal });
    }
    return comparisons;
  } finally {
    await closeClient(source);
    await closeClient(target);
  }
}

async function columnsOf(client: Client, table: TableName): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    'SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum',
    [quoteTable(table)],
  );
  return rows.map(({ name }) => name);
}

/** The checksum of all rows' checksums, in their order: the same rows give the same text in whatever order they lie. */
async function textOf(client: Client, table: TableName, columns: readonly string[]): Promise<TableText> {
  const { rows: found } = await client.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [
    quoteTable(table),
  ]);
  if (!found[0]?.there) return { rows: 0, md5: 'no table' };
  const { rows } = await client.query<{ rows: string; md5: string }>(
    `SELECT count(*) AS rows, md5(COALESCE(string_agg(row_md5, '' ORDER BY row_md5), '')) AS md5
       FROM (SELECT md5(ROW(${columns.map(quoteIdentifier).join(', ')})::text) AS row_md5 FROM ${quoteTable(table)}) AS r`,
  );
  return { rows: Number(rows[0]?.rows ?? 0), md5: rows[0]?.md5 ?? '' };
}
