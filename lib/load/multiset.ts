/**
 * The statements that apply a segment of a table without a key, as text: a multiset, in which rows are known by all their values (segment.ts, `remove`, `add`,
 * `erase`). Pure.
 *
 * Values are compared as the text that the target prints of the row (`ROW(…)::text`): every type has one, also those without an equality (json, xml, point), and
 * no two values that differ have the same. Nothing finds a row by it but a scan: one of the table for each block that takes rows away. That is the price
 * of a table without a key.
 *
 * A row that is to go and is not there is counted, and seen (I4): the statements answer with the number of copies that they did not find.
 */
import { type Lsn, parseLsn } from '../lsn.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import type { CommitSpan } from '../stage/segment.ts';
import { BATCHED_AT, DELETED_AT, EXTRACTED_AT } from './columns.ts';
import type { Landed, TableForm } from './sql.ts';

const id = quoteIdentifier;

/** Column of a landed line that says how many copies of its row it means. */
export const COPIES = 'n';

/** As bytes, whatever the database's collation takes for equal. */
function image(values: readonly string[]): string {
  return `ROW(${values.join(', ')})::pg_catalog.text COLLATE "C"`;
}

/** `add`: as many copies as the line says. */
export function addCopiesSql(table: TableForm, { temp, columns: all }: Landed, extracted_at: string): string {
  const columns = all.flatMap((name, i) => (name === null ? [] : [{ name, at: `s.c${i}` }]));
  const metadata = table.metadata
    ? [
        [EXTRACTED_AT, `${quoteLiteral(extracted_at)}::timestamptz`],
        [BATCHED_AT, 'now()'],
      ]
    : [];
  const into = [...columns.map(({ name }) => name), ...metadata.map(([column]) => String(column))].map(id);
  const values = [...columns.map(({ at }) => at), ...metadata.map(([, value]) => value)];
  // A table without columns is inserted into without a list of them.
  const list = into.length === 0 ? '' : ` (${into.join(', ')})`;
  return `INSERT INTO ${quoteTable(table.name)}${list} SELECT ${values.join(', ')} FROM ${temp} s CROSS JOIN LATERAL generate_series(1, s.${COPIES})`;
}

/**
 * Takes exactly as many copies of each landed row as its line says, whichever they are, and answers with `missing`, the copies that were not there.
 * `marked`: they stay, and get the time of their deletion; rows that are marked already count as gone.
 */
export function takeCopiesSql(
  table: TableForm,
  { temp, columns: all }: Landed,
  marked: { readonly extracted_at: string } | null,
): string {
  const columns = all.flatMap((name, i) => (name === null ? [] : [{ name, at: `s.c${i}` }]));
  const target = quoteTable(table.name);
  const alive = table.metadata ? ` WHERE t.${id(DELETED_AT)} IS NULL` : '';
  const at = marked === null ? '' : ', max(s.at) AS at';
  const kept = marked === null ? '' : ', w.at';
  const found = 't.tableoid = f.tableoid AND t.ctid = f.ctid AND f.place <= f.copies';
  const take =
    marked === null
      ? `DELETE FROM ${target} AS t USING found f WHERE ${found}`
      : `UPDATE ${target} AS t SET ${id(EXTRACTED_AT)} = ${quoteLiteral(marked.extracted_at)}::timestamptz, ${id(BATCHED_AT)} = now(), ${id(DELETED_AT)} = f.at FROM found f WHERE ${found}`;
  return `
    WITH wanted AS (
      SELECT ${image(columns.map(({ at }) => at))} AS image, row_number() OVER () AS id, sum(s.${COPIES}) AS copies${at} FROM ${temp} s GROUP BY 1
    ), found AS (
      SELECT t.tableoid, t.ctid, w.copies${kept}, row_number() OVER (PARTITION BY w.id) AS place
        FROM ${target} AS t JOIN wanted w ON w.image = ${image(columns.map(({ name }) => `t.${id(name)}`))}${alive}
    ), taken AS (
      ${take} RETURNING 1
    )
    SELECT (COALESCE((SELECT sum(copies) FROM wanted), 0) - (SELECT count(*) FROM taken))::int8::text AS missing`;
}

/** Rows without columns, one for each empty line, where the table has none but the metadata columns: COPY must name one. */
export function copyEmptyRowsSql(table: string): string {
  return `COPY ${table} (${id(DELETED_AT)}) FROM STDIN WITH (NULL '')`;
}

/** Whether a copy whose snapshot has what was committed before `copied` has a segment's transactions: all of them, none, or some. */
export function inCopy({ first, last }: CommitSpan, copied: Lsn): 'all' | 'none' | 'some' {
  if (parseLsn(last) < copied) return 'all';
  return parseLsn(first) >= copied ? 'none' : 'some';
}
