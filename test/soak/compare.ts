/** The end of a soak: every table on both sides, row by row, as text. */
import type { Client } from 'pg';
import { pinSettingsSql } from '../../lib/postgres/connection.ts';
import { displayName, type TableName } from '../../lib/shape.ts';
import { quoteIdentifier, quoteTable } from '../../lib/sql-text.ts';
import { columnsOf, tableText } from '../support/compare.ts';

export interface Difference {
  readonly table: string;
  readonly problem: string;
  /** Rows, as many as of one value, that only one side has. */
  readonly rows: number;
  readonly only_source: readonly string[];
  readonly only_target: readonly string[];
}

const SHOWN_MAX = 5;
const SHOWN_CHARACTERS = 300;

/** Rows that were compared, and what differs. */
export async function compareTables(
  source: Client,
  target: Client,
  tables: readonly TableName[],
): Promise<{ readonly rows: number; readonly differences: readonly Difference[] }> {
  const differences: Difference[] = [];
  let rows = 0;
  for (const table of tables) {
    const columns = await columnsOf(source, table);
    const there = new Set(await columnsOf(target, table));
    const missing = columns.filter((column) => !there.has(column));
    if (missing.length > 0) {
      const problem = `the target lacks ${missing.join(', ')}`;
      differences.push({ table: displayName(table), problem, rows: 0, only_source: [], only_target: [] });
      continue;
    }
    const [left, right] = [await tableText(source, table, columns), await tableText(target, table, columns)];
    rows += left.rows;
    if (left.md5 !== right.md5) differences.push(await differenceOf(source, target, table, columns));
  }
  return { rows, differences };
}

async function differenceOf(
  source: Client,
  target: Client,
  table: TableName,
  columns: readonly string[],
): Promise<Difference> {
  const [left, right] = [await rowsOf(source, table, columns), await rowsOf(target, table, columns)];
  const only = (of: ReadonlyMap<string, number>, than: ReadonlyMap<string, number>): string[] =>
    [...of].flatMap(([row, count]) => Array.from({ length: Math.max(0, count - (than.get(row) ?? 0)) }, () => row));
  const [only_source, only_target] = [only(left, right), only(right, left)];
  const shown = (rows: readonly string[]): string[] =>
    rows.slice(0, SHOWN_MAX).map((row) => row.slice(0, SHOWN_CHARACTERS));
  return {
    table: displayName(table),
    problem: `${only_source.length} rows only on the source, ${only_target.length} only on the target`,
    rows: only_source.length + only_target.length,
    only_source: shown(only_source),
    only_target: shown(only_target),
  };
}

/** How often there is each row. */
async function rowsOf(client: Client, table: TableName, columns: readonly string[]): Promise<Map<string, number>> {
  await client.query(pinSettingsSql('SESSION'));
  const row = `ROW(${columns.map(quoteIdentifier).join(', ')})::text`;
  const { rows } = await client.query<{ row: string; count: number }>(
    `SELECT ${row} AS row, count(*)::int AS count FROM ${quoteTable(table)} GROUP BY 1 ORDER BY 1`,
  );
  return new Map(rows.map(({ row: text, count }) => [text, count]));
}
