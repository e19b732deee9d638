/**
 * Tables as CREATE and ALTER PUBLICATION name them. Pure text, for publication.ts and row-filter.ts.
 */
import type { SourceTable } from '../ports.ts';
import { quoteTable } from '../sql-text.ts';

type Member = Pick<SourceTable, 'schema' | 'table' | 'kind'> & Partial<Pick<SourceTable, 'filter'>>;

/** A partitioned table, whose partitions come with it. */
export function isFolded({ kind }: Pick<SourceTable, 'kind'>): boolean {
  return kind === 'p';
}

/** ONLY: the table that was selected, and no tables that inherit from it. Of a partitioned table, all that is below it is meant. */
export function tableList(tables: readonly Member[]): string {
  return tables.map((table) => (isFolded(table) ? quoteTable(table) : `ONLY ${quoteTable(table)}`)).join(', ');
}

/** The same, each with its row filter. */
export function memberList(tables: readonly Member[]): string {
  return tables.map((table) => `${tableList([table])}${whereSql(table.filter ?? null)}`).join(', ');
}

function whereSql(where: string | null): string {
  // A line of its own, so that a comment at its end does not swallow the rest.
  return where === null ? '' : ` WHERE (${where}\n)`;
}
