/**
 * The SQL of columns beside json columns: which keys are in some rows, and what a row has at a key. Pure text.
 *
 * Keys are followed by `->` with a text, which an array has none of: so arrays stay whole. A `json` value is read as jsonb, which refuses what json takes (`\u0000`, half
 * a surrogate pair, numbers without bounds): such a value has no keys here, and stays what it is in its own column.
 * https://www.postgresql.org/docs/current/functions-json.html
 */
import type { FlattenedColumn } from '../shape.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';
import { FLATTENED_COLUMNS_MAX, type FoundKey, type JsonColumn, type SeenKind } from './flatten.ts';
import type { Row } from './session.ts';
import type { Landed } from './sql.ts';

const id = quoteIdentifier;

/** Temporary, so that it needs no place of its own; made by each transaction that uses it, and gone with the session. */
const READ_FUNCTION = 'pg_temp._sluice_jsonb';

/** Classes 22 and 54: data_exception, program_limit_exceeded. */
const MAKE_READ_FUNCTION_SQL = `CREATE OR REPLACE FUNCTION ${READ_FUNCTION} (pg_catalog.text) RETURNS pg_catalog.jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS
  'BEGIN RETURN $1::pg_catalog.jsonb; EXCEPTION WHEN data_exception OR program_limit_exceeded THEN RETURN NULL; END'`;

/** Kinds of values at one key, at most. */
const KINDS_MAX = 5;
/** What one look answers with: all of the keys that have columns, and more new ones than can get any. */
const FOUND_MAX = 2 * FLATTENED_COLUMNS_MAX * KINDS_MAX + 1;

/** What must be run, in the transaction or before, where `readSql` is used for these columns. */
export function readFunctionSql(columns: readonly JsonColumn[]): string[] {
  return columns.some(({ type }) => type === 'json') ? [MAKE_READ_FUNCTION_SQL] : [];
}

/** To be run before `foundKeysSql`, in its transaction: remembering what each value holds (14+) costs more than to look again, for hardly two are the same. */
export const FIND_PLAINLY_SQL = `SELECT set_config(name, 'off', true) FROM pg_settings WHERE name = 'enable_memoize'`;

/** The value as jsonb; NULL where it cannot be. */
export function readSql({ type }: Pick<JsonColumn, 'type'>, value: string): string {
  return type === 'jsonb' ? `${value}::jsonb` : `${READ_FUNCTION}(${value}::text)`;
}

/** What a column has for a row whose json column is `json`, a jsonb. */
export function valueSql({ path, kind, objects }: FlattenedColumn, json: string): string {
  const steps = path.map((key) => `${quoteLiteral(key)}::text`);
  const value = [json, ...steps].join(' -> ');
  const text = `${[json, ...steps.slice(0, -1)].join(' -> ')} ->> ${steps.at(-1)}`;
  const type = `jsonb_typeof(${value})`;
  switch (kind) {
    case 'text':
      return objects ? `(${text})` : `CASE WHEN ${type} <> 'object' THEN ${text} END`;
    case 'numeric':
      return `CASE WHEN ${type} = 'number' THEN (${text})::numeric END`;
    case 'boolean':
      return `CASE WHEN ${type} = 'boolean' THEN (${text})::boolean END`;
    case 'jsonb':
      return `CASE WHEN ${type} IN ('array'${objects ? `, 'object'` : ''}) THEN ${value} END`;
    default:
      return kind satisfies never;
  }
}

/** Json columns read once for each row, as `j.j0`, `j.j1`, …: to stand behind a FROM. `at`: the value of a column, by its name. */
export interface ReadRow {
  readonly from: string;
  /** Of the column, beside which json column it stands. */
  valueOf(column: FlattenedColumn): string;
}

export function readRow(json: readonly JsonColumn[], at: (name: string) => string): ReadRow {
  const places = new Map(json.map(({ name }, i) => [name, `j.j${i}`]));
  const values = json.map((column, i) => `${readSql(column, at(column.name))} AS j${i}`);
  return {
    // OFFSET keeps it apart: otherwise each column would read the json again.
    from: `LATERAL (SELECT ${values.join(', ')} OFFSET 0) j`,
    valueOf: (column) => {
      const place = places.get(column.of);
      if (place === undefined) throw new RangeError(`a column beside ${column.of}, which is not read`);
      return valueSql(column, place);
    },
  };
}

/** Landed rows with the columns beside their json: what statements see in place of the temporary table. */
export function withFlattened(
  landed: Landed,
  json: readonly JsonColumn[],
  columns: readonly FlattenedColumn[],
): Landed {
  const row = readRow(json, (name) => `s.c${landed.columns.indexOf(name)}`);
  const values = columns.map((column, i) => `${row.valueOf(column)} AS c${landed.columns.length + i}`);
  return {
    ...landed,
    temp: `(SELECT s.*, ${values.join(', ')} FROM ${landed.temp} s CROSS JOIN ${row.from})`,
    columns: [...landed.columns, ...columns.map(({ name }) => name)],
  };
}

/**
 * → n (which of `json`), path (a JSON array), kinds (a JSON array of SeenKind) of each key in the rows of `from`, down to `level`: those of `known` first, then those that most
 * rows have. Null has no kind, and an object only at the last level.
 */
export function foundKeysSql(
  from: string,
  json: readonly JsonColumn[],
  at: (name: string) => string,
  level: number,
  known: readonly FlattenedColumn[],
): string {
  const place = new Map(json.map(({ name }, n) => [name, n]));
  const first = known.flatMap(({ of, path }) => (place.has(of) ? [[place.get(of), path]] : []));
  const looks = json.map((column, n) => keysOfColumnSql(from, n, readSql(column, at(column.name)), level));
  return `SELECT n, to_jsonb(path)::text AS path, jsonb_agg(kind)::text AS kinds
      FROM (SELECT n, path, kind, count(*) AS rows FROM (${looks.join(' UNION ALL ')}) AS seen GROUP BY n, path, kind) AS counted
     GROUP BY n, path
     ORDER BY jsonb_build_array(n, path) IN (SELECT jsonb_array_elements(${quoteLiteral(JSON.stringify(first))}::jsonb)) DESC, sum(rows) DESC, n, path
     LIMIT ${FOUND_MAX}`;
}

/** One row for each leaf: a step down is a join with the keys of what is an object there. */
function keysOfColumnSql(from: string, n: number, json: string, level: number): string {
  const object = (value: string): string => `CASE WHEN jsonb_typeof(${value}) = 'object' THEN ${value} END`;
  const depths = Array.from({ length: level }, (_, i) => i + 1);
  const joins = depths.slice(1).map((depth) => {
    const above = `k${depth - 1}.value`;
    // OFFSET keeps it apart: the server calls the function for objects alone, which are few among the values.
    const inner = `SELECT key, value FROM jsonb_each(${object(above)}) AS each WHERE jsonb_typeof(${above}) = 'object' OFFSET 0`;
    return `LEFT JOIN LATERAL (${inner}) AS k${depth} ON true`;
  });
  const keys = depths.map((depth) => `k${depth}.key`);
  const value = `COALESCE(${depths
    .toReversed()
    .map((depth) => `k${depth}.value`)
    .join(', ')})`;
  return `SELECT ${n} AS n, array_remove(ARRAY[${keys.join(', ')}], NULL) COLLATE "C" AS path, jsonb_typeof(${value}) AS kind
      FROM (SELECT ${json} AS j FROM ${from} OFFSET 0) AS read
      CROSS JOIN LATERAL jsonb_each(${object('read.j')}) AS k1 ${joins.join(' ')}
     WHERE jsonb_typeof(${value}) <> 'null' AND (jsonb_typeof(${value}) <> 'object' OR k${level}.key IS NOT NULL)`;
}

/** What `foundKeysSql` answers with. */
export function foundKeysOf(rows: readonly Row[], json: readonly JsonColumn[]): FoundKey[] {
  return rows.map(({ n, path, kinds }) => {
    const column = json[Number(n)];
    if (column === undefined) throw new RangeError(`keys of json column ${String(n)} of ${json.length}`);
    return {
      of: column.name,
      path: JSON.parse(String(path)) as string[],
      kinds: JSON.parse(String(kinds)) as SeenKind[],
    };
  });
}

/** ADD COLUMN and ALTER COLUMN of one ALTER TABLE. */
export function alterFlattenedSql(added: readonly FlattenedColumn[], retyped: readonly FlattenedColumn[]): string[] {
  return [
    ...added.map(({ name, kind }) => `ADD COLUMN ${id(name)} ${kind}`),
    ...retyped.map(({ name, kind }) => `ALTER COLUMN ${id(name)} TYPE ${kind} USING ${id(name)}::${kind}`),
  ];
}

/** Fills the columns in rows that are there. */
export function fillSql(table: string, json: readonly JsonColumn[], columns: readonly FlattenedColumn[]): string {
  const row = readRow(json, (name) => `t.${id(name)}`);
  const there = json.map(({ name }) => `t.${id(name)} IS NOT NULL`);
  return `UPDATE ${table} AS t SET (${columns.map(({ name }) => id(name)).join(', ')}) = (SELECT ${columns.map((column) => row.valueOf(column)).join(', ')} FROM ${row.from})
    WHERE ${there.join(' OR ')}`;
}
