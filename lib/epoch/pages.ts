/**
 * INCREMENTAL: which pages of rows lie after the bookmark (design §3: `key >= bookmark ORDER BY key` in pages that cannot stall on ties).
 *
 * One query, over the rows that are new, gives the last value of each page; a page is all rows after the last value of the one before, up to and including its
 * own, so that rows with equal values are never parted, however many there are. Everything is compared by the source, in the column's own order
 * and collation; values travel as PostgreSQL's text.
 *
 * The greatest value is read before any page is. What is committed later with a lesser value is not seen by later runs: `lookback` reads that far back again.
 * Rows without a value are a page of their own, and the first: a row that gets a value meanwhile is in one that is read later, and one that loses it has its turn in the
 * next run. So are rows whose value has nothing above it (`infinity`, `NaN`): as the greatest that was seen, it would hide every row to come, so it never is. `-infinity` is
 * a value like others.
 * https://www.postgresql.org/docs/current/functions-window.html
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import type { ChunkRange, Pages, PagesRequest, SourceColumn, SourceTable } from '../ports.ts';
import { beginReadOnlySql } from '../postgres/read-only.ts';
import { one, serverVersion } from '../postgres/session.ts';
import { INTERVAL_INFINITY_SINCE, NUMERIC_INFINITY_SINCE } from '../postgres/versions.ts';
import { displayName, OWN_TYPE_OID_END, type TableName, type TypeUse } from '../shape.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';
import { hasOwnOrder } from './plan.ts';
import { fromSql } from './sample.ts';

/** Each time that a run's pages do not reach past the bookmark. With more than there are rows, there is no page, so that this ends. */
const PAGE_GROWTH = 4;

/** pg_type.dat: what a lookback is taken from, and how. */
const TIMES: ReadonlySet<number> = new Set([1082, 1114, 1184]);
const INTEGERS: Readonly<Record<number, string>> = { 21: '-32768', 23: '-2147483648', 20: '-9223372036854775808' };
const FLOATS: ReadonlySet<number> = new Set([700, 701]);
const NUMERIC_OID = 1700;
const INTERVAL_OID = 1186;
const IS_NUMBER = /^[\d.]+$/;

/** Over a connection with the pinned settings. Throws REPLICATION_KEY, and what the server says. */
export async function readPages(client: Client, table: SourceTable, request: PagesRequest): Promise<Pages> {
  const column = columnOf(table, request.column);
  const fault = replicationKeyFault(table, column);
  if (fault) throw fault;
  const lookback = request.from === null ? null : lookbackSql(table, column, request.from, request.lookback);
  // As for a chunk: values are compared and read again as they are printed here.
  await client.query(beginReadOnlySql('REPEATABLE READ', table.kind === 'v' ? 'on' : 'off'));
  const name = quoteIdentifier(column.name);
  const from =
    lookback === null ? null : one((await client.query<{ from: string }>(`SELECT ${lookback} AS "from"`)).rows).from;
  const filter = request.filter == null ? [] : [`(${request.filter}\n)`];
  const least = leastEndless(column, await serverVersion(client));
  const after = [
    from === null ? `${name} IS NOT NULL` : `${name} >= ${quoteLiteral(from)}`,
    ...(least === null ? [] : [`${name} < ${quoteLiteral(least)}`]),
    ...filter,
  ];
  const rowsSql = `FROM ${fromSql(table)} WHERE ${after.join(' AND ')}`;
  const ends = await readEnds(client, name, rowsSql, request, lookback === null ? null : request.from);
  // A run that is too long for one plan ends where its last page does; the next one goes on there.
  const isWhole = ends.length < request.pages_max;
  const greatest = await client.query<{ value: string }>(
    `SELECT format('%s', ${name}) AS value ${rowsSql} ORDER BY ${name} DESC LIMIT 1`,
  );
  const to = isWhole ? (greatest.rows[0]?.value ?? null) : (ends.at(-1) ?? null);
  const hasRows = async (condition: string): Promise<boolean> => {
    const { rows } = await client.query<{ found: boolean }>(
      `SELECT EXISTS (SELECT FROM ${fromSql(table)} WHERE ${[condition, ...filter].join(' AND ')}) AS found`,
    );
    return one(rows).found;
  };
  const nulls = !column.not_null && (await hasRows(`${name} IS NULL`));
  const endless = least !== null && (await hasRows(`${name} >= ${quoteLiteral(least)}`)) ? least : null;
  await client.query('COMMIT');
  // The last page ends with the greatest value: one that ends there as well would leave it nothing.
  return { from, ends: ends.at(-1) === to ? ends.slice(0, -1) : ends, to, nulls, endless };
}

/**
 * The value at the end of each page. A run that has not room for all comes past the bookmark (`past`) at least, by larger pages: one that ended within the lookback
 * would take the bookmark back, and so would each after it. The last value is that of a row, which the same snapshot finds again.
 */
async function readEnds(
  client: Client,
  name: string,
  rowsSql: string,
  { rows, pages_max }: PagesRequest,
  past: string | null,
): Promise<string[]> {
  if (rows === null) return [];
  for (let page_rows = rows; ; page_rows *= PAGE_GROWTH) {
    const ends = await endsOf(client, name, rowsSql, page_rows, pages_max);
    const last = ends.at(-1);
    if (past === null || last === undefined || ends.length < pages_max) return ends;
    const { rows: found } = await client.query<{ found: boolean }>(
      `SELECT EXISTS (SELECT ${rowsSql} AND ${name} = ${quoteLiteral(last)} AND ${name} > ${quoteLiteral(past)}) AS found`,
    );
    if (one(found).found) return ends;
  }
}

/** Of pages of `rows` rows. Pages that would end with the same value are one. */
async function endsOf(
  client: Client,
  name: string,
  rowsSql: string,
  rows: number,
  pages_max: number,
): Promise<string[]> {
  const { rows: found } = await client.query<{ value: string }>(
    `SELECT format('%s', value) AS value FROM (
       SELECT value, place, lag(value) OVER (ORDER BY place) AS before
         FROM (SELECT ${name} AS value, row_number() OVER (ORDER BY ${name}) AS place ${rowsSql}) AS placed
        WHERE place % ${rows} = 0
     ) AS ends
     WHERE before IS NULL OR value > before
     ORDER BY place LIMIT ${pages_max}`,
  );
  return found.map(({ value }) => value);
}

/** The least value of the column's type above which there is no other but its like; null: it has none, and any value can be surpassed. Pure. */
function leastEndless(column: TypeUse, version: number): string | null {
  const oid = baseOid(column);
  if (TIMES.has(oid)) return 'infinity';
  if (FLOATS.has(oid)) return 'Infinity'; // Sorted before NaN.
  if (oid === NUMERIC_OID) return version >= NUMERIC_INFINITY_SINCE ? 'Infinity' : 'NaN';
  return oid === INTERVAL_OID && version >= INTERVAL_INFINITY_SINCE ? 'infinity' : null;
}

/** Chunks of a run: rows without a value first, and those with one that has no end; then the pages in order. None: there is nothing new. Pure. */
export function pageRanges(column: string, { from, ends, to, nulls, endless }: Pages): ChunkRange[] {
  const ranges: ChunkRange[] = nulls ? [{ by: 'nulls', column }] : [];
  if (endless !== null) ranges.push({ by: 'page', column, from: endless, inclusive: true, to: null });
  if (to === null) return ranges;
  let before = from;
  for (const end of [...ends, to]) {
    ranges.push({ by: 'page', column, from: before, inclusive: before === from, to: end });
    before = end;
  }
  return ranges;
}

function columnOf(table: SourceTable, name: string): SourceColumn {
  const column = table.columns.find((known) => known.name === name);
  if (column) return column;
  throw new SluiceError('TABLE_COLUMN_MISSING', {
    table: displayName(table),
    column: name,
    option: 'replication_key',
    columns: table.columns.map((known) => known.name).join(', '),
  });
}

/** Why rows cannot be told apart as new by this column; null: they can, or its type is not known yet. Pure. */
export function replicationKeyFault(table: TableName, column: TypeUse & { readonly name: string }): SluiceError | null {
  if (hasOwnOrder(column) || (column.type_oid >= OWN_TYPE_OID_END && column.type === undefined)) return null;
  return new SluiceError('REPLICATION_KEY', {
    table: displayName(table),
    column: column.name,
    reason: "values of its type have no order of PostgreSQL's own that they could be compared by.",
    remedy:
      'Name a number, a date, a timestamp, a text or a uuid in replication_key; or set replication_method: FULL_TABLE.',
  });
}

/** Text of the value that lies `lookback` before `value`; null: as it is. Throws REPLICATION_KEY where the column's type and the lookback do not fit. */
function lookbackSql(table: SourceTable, column: SourceColumn, value: string, lookback: string | null): string {
  const fault = lookbackFault(table, column, lookback);
  if (fault) throw fault;
  const literal = quoteLiteral(value);
  if (lookback === null) return literal;
  const oid = baseOid(column);
  const less = quoteLiteral(lookback);
  if (TIMES.has(oid)) {
    const type = oid === 1082 ? 'date' : oid === 1114 ? 'timestamp' : 'timestamptz';
    return `(${literal}::${type} - ${less}::interval)::${type}::text`;
  }
  const least = INTEGERS[oid];
  if (least !== undefined) return `GREATEST(floor(${literal}::numeric - ${less}::numeric), ${least})::text`;
  const type = FLOATS.has(oid) ? 'float8' : 'numeric';
  return `(${literal}::${type} - ${less}::${type})::text`;
}

/** Why `lookback` cannot be taken from values of the column; null: it can, or there is none. Pure. */
export function lookbackFault(
  table: TableName,
  column: TypeUse & { readonly name: string },
  lookback: string | null,
): SluiceError | null {
  if (lookback === null) return null;
  const oid = baseOid(column);
  const isNumber = INTEGERS[oid] !== undefined || FLOATS.has(oid) || oid === NUMERIC_OID;
  const isTime = TIMES.has(oid);
  if (isTime && !IS_NUMBER.test(lookback)) return null;
  if (isNumber && IS_NUMBER.test(lookback)) return null;
  const facts = { table: displayName(table), column: column.name };
  const reason = isTime
    ? `a lookback of ${lookback} says no unit, and it is a time.`
    : isNumber
      ? `a lookback of ${lookback} is a time, and it is a number.`
      : 'a lookback can only be taken from dates, timestamps and numbers.';
  const remedy = isTime
    ? `Write lookback: ${lookback} seconds, or another unit.`
    : isNumber
      ? 'Write lookback as a number.'
      : 'Remove lookback.';
  return new SluiceError('REPLICATION_KEY', { ...facts, reason, remedy });
}

function baseOid({ type_oid, type }: TypeUse): number {
  return type?.kind === 'domain' ? baseOid(type.base) : type_oid;
}
