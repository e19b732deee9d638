/**
 * Tables of every type of a server with its edge values (type-values.ts), what a source does with them, and what both sides have of them then.
 *
 * For each family there are two tables: `v_…` has the values and arrays of them beside an ordinary key; `k_…` has them in its key. The rows come
 * from the schema `edges`, which is not replicated, so that every step is SQL of the server itself.
 */
import type { Client, CustomTypesConfig } from 'pg';
import { pinSettingsSql } from '../../lib/postgres/connection.ts';
import { quoteIdentifier, quoteLiteral } from '../../lib/sql-text.ts';
import { EDGE_TYPES, type EdgeType, type EdgeValue } from './type-values.ts';

/** INDEX_MAX_KEYS is 32, and one is the row's number. */
const KEY_COLUMNS_MAX = 31;
/** An index takes rows of up to 2,704 bytes. */
const KEY_VALUE_CHARACTERS_MAX = 40;
const BATCH = 10_000;

export interface EdgeColumn {
  readonly type: EdgeType;
  /** The column's name: the type as it is declared, `[]` for the array. */
  readonly name: string;
  readonly spelling: string;
  /** Values, each an expression of the type; null: NULL. */
  readonly expressions: readonly (string | null)[];
}

export interface EdgeTable {
  /** Of both tables, after `v_` and `k_`. */
  readonly family: string;
  readonly columns: readonly EdgeColumn[];
  /** Names of those that can be part of a key. */
  readonly key: readonly string[];
  readonly rows: number;
  /** Keys have no NaN and no infinity. */
  readonly finite_keys: boolean;
}

/** What happens to the tables, in this order. */
export const METHODS = ['first sync', 'insert', 'update', 'key change', 'delete'] as const;
export type Method = (typeof METHODS)[number];

const id = quoteIdentifier;

/** Every type that a column of this server can have, but for arrays, composites, enums and domains. */
const TYPES_SQL = `
  SELECT t.typname AS name, t.typarray <> 0 AS has_array FROM pg_type t
   WHERE t.typtype IN ('b', 'r', 'm') AND t.typnamespace = 'pg_catalog'::regnamespace
     AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) ORDER BY 1`;

/**
 * Makes the tables, empty but for `edges`, for values that both `major` and `reader` (the target's major) have. Throws for a type of the server
 * that has no values in the list.
 */
export async function makeEdgeTables(
  client: Client,
  major: number,
  reader: number,
  finite_keys: boolean,
): Promise<EdgeTable[]> {
  await client.query(pinSettingsSql('SESSION'));
  const { rows } = await client.query<{ name: string; has_array: boolean }>(TYPES_SQL);
  const forgotten = rows.filter(({ name }) => EDGE_TYPES.every((type) => type.name !== name));
  if (forgotten.length > 0) throw new Error(`no edge values of ${forgotten.map(({ name }) => name).join(', ')}`);
  await client.query(`
    CREATE SCHEMA edges;
    CREATE TABLE edges.statistics (a int DEFAULT 7, b int);
    INSERT INTO edges.statistics SELECT i % 2, i % 2 FROM generate_series(1, 20) i;
    CREATE STATISTICS edges.kinds ON a, b FROM edges.statistics;
    ANALYZE edges.statistics;
    CREATE TABLE public."a Table" (id int PRIMARY KEY);`);
  const there = new Map(rows.map((row) => [row.name, row.has_array]));
  const families = [...new Set(EDGE_TYPES.map(({ family }) => family))];
  const tables: EdgeTable[] = [];
  for (const family of families) {
    const types = EDGE_TYPES.filter(
      (type) => type.family === family && there.has(type.name) && (type.since ?? 0) <= major,
    );
    const columns = types.flatMap((type) =>
      columnsOf(type, there.get(type.name) ?? false, Math.min(major, reader), major),
    );
    const key: string[] = [];
    for (const { name, spelling, expressions } of columns) {
      if (expressions.length === 1) continue; // There is no value of it.
      if (key.length < KEY_COLUMNS_MAX && !name.endsWith('[]') && (await isKeyable(client, spelling))) key.push(name);
    }
    const table = {
      family,
      columns,
      key,
      finite_keys,
      rows: Math.max(...columns.map(({ expressions }) => expressions.length)),
    };
    await makeTables(client, table);
    tables.push(table);
  }
  return tables;
}

function columnsOf(type: EdgeType, has_array: boolean, known: number, major: number): EdgeColumn[] {
  const spelling = type.spelling ?? `pg_catalog.${id(type.name)}`;
  const name = type.spelling ?? type.name;
  const values = type.values.flatMap((value) => expressionOf(value, spelling, known, major));
  const column = { type, name, spelling, expressions: [null, ...values] };
  if (!has_array) return [column];
  const short = type.values.filter((value) => typeof value === 'string' && value.length < 2_000);
  const elements = short.flatMap((value) => expressionOf(value, spelling, known, major));
  const [one = 'NULL', two = one] = elements;
  const array = `${spelling}[]`;
  const arrays = [`'{}'::${array}`, arrayOf(type, array, [...elements, 'NULL']), squareOf(type, array, [one, two])];
  return [column, { type, name: `${name}[]`, spelling: array, expressions: [null, ...arrays] }];
}

/** Two by two, with bounds of its own. Through text, because a server's constructor gives every array the bounds from 1. */
function squareOf(type: EdgeType, array: string, [one, two]: readonly [string, string]): string {
  const bounds = "'[0:1][-1:0]=' ||";
  if (type.name === 'box') return `(${bounds} (ARRAY[ARRAY[${one}, NULL], ARRAY[${two}, ${one}]])::text)::${array}`; // Its delimiter is a semicolon.
  return `(${bounds} (ARRAY[ARRAY[(${one})::text, NULL], ARRAY[(${two})::text, (${one})::text]])::text)::${array}`;
}

/** Before 14, an array of these vectors cannot be constructed from them, only read. */
function arrayOf({ name }: EdgeType, array: string, elements: readonly string[]): string {
  if (!['int2vector', 'oidvector'].includes(name)) return `ARRAY[${elements.join(', ')}]::${array}`;
  return `(ARRAY[${elements.map((element) => `(${element})::text`).join(', ')}])::text::${array}`;
}

function expressionOf(value: EdgeValue, spelling: string, known: number, major: number): string[] {
  if (typeof value === 'string') return [`${quoteLiteral(value)}::${spelling}`];
  if ((value.since ?? 0) > known || (value.until ?? major) < major) return [];
  return ['text' in value ? `${quoteLiteral(value.text)}::${spelling}` : `${value.sql}::${spelling}`];
}

async function isKeyable(client: Client, spelling: string): Promise<boolean> {
  await client.query('BEGIN');
  try {
    await client.query(`CREATE TABLE edges.keyable (k ${spelling} PRIMARY KEY)`);
    return true;
  } catch (error) {
    // undefined_object: no default operator class
    if ((error as { code?: string }).code === '42704') return false;
    throw error;
  } finally {
    await client.query('ROLLBACK');
  }
}

async function makeTables(client: Client, { family, columns, key, rows }: EdgeTable): Promise<void> {
  const definitions = columns.map(({ name, spelling }) => `${id(name)} ${spelling}`).join(', ');
  const keyDefinitions = columns
    .filter(({ name }) => key.includes(name))
    .map(({ name, spelling }) => `${id(name)} ${spelling}, `);
  await client.query(`
    CREATE TABLE edges.${family} (id int PRIMARY KEY, ${definitions});
    CREATE TABLE public.v_${family} (id int PRIMARY KEY, ${definitions});
    CREATE TABLE public.k_${family} (id int, ${keyDefinitions.join('')} n int, PRIMARY KEY (${['id', ...key].map(id).join(', ')}))`);
  for (let row = 0; row < rows; row++) {
    const given = columns.flatMap(({ name, expressions }) => {
      const expression = expressions[row];
      return expression == null ? [] : [[name, expression] as const];
    });
    const names = ['id', ...given.map(([name]) => name)].map(id).join(', ');
    await client.query(
      `INSERT INTO edges.${family} (${names}) VALUES (${[row, ...given.map(([, expression]) => expression)].join(', ')})`,
    );
  }
}

/** Does on the source what `method` says. Rows of the first sync have ids from 0, those that are inserted from BATCH. */
export async function perform(client: Client, table: EdgeTable, method: Method): Promise<void> {
  const { family, columns, rows } = table;
  const names = columns.map(({ name }) => id(name)).join(', ');
  const [v, k, edges] = [`public.v_${family}`, `public.k_${family}`, `edges.${family}`];
  const keys = keysSql(table);
  const keyNames = table.key.map(id).join(', ');
  const more = keyNames === '' ? '' : `, ${keyNames}`;
  const statements: Record<Method, string> = {
    'first sync': `INSERT INTO ${v} SELECT * FROM ${edges}; INSERT INTO ${k} (id${more}) SELECT * FROM (${keys}) e`,
    insert: `INSERT INTO ${v} SELECT id + ${BATCH}, ${names} FROM ${edges};
      INSERT INTO ${k} (id${more}) SELECT id + ${BATCH}${more} FROM (${keys}) e`,
    // Every row gets the values of the next one.
    update: `UPDATE ${v} t SET (${names}) = (SELECT ${names} FROM ${edges} e WHERE e.id = (t.id + 1) % ${rows}) WHERE t.id < ${BATCH};
      UPDATE ${k} SET n = id`,
    'key change': `UPDATE ${v} SET id = id + ${2 * BATCH} WHERE id >= ${BATCH};
      ${keyNames === '' ? '' : `UPDATE ${k} t SET (${keyNames}) = (SELECT ${keyNames} FROM (${keys}) e WHERE e.id = (t.id + 1) % ${rows}) WHERE t.id < ${BATCH}`}`,
    delete: `DELETE FROM ${v} WHERE id % 2 = 0; DELETE FROM ${k} WHERE id % 2 = 0`,
  };
  await client.query(statements[method]);
}

const NUMBERS = /^(float[48]|numeric)/;

/** A whole key for every row: where a value is NULL or too long for an index, the first of its column's. */
function keysSql({ family, key, finite_keys }: EdgeTable): string {
  const columns = key.map((name) => {
    const column = id(name);
    const finite = finite_keys && NUMBERS.test(name) ? ` AND ${column}::text !~ 'NaN|Infinity'` : '';
    return `COALESCE(CASE WHEN length(${column}::text) <= ${KEY_VALUE_CHARACTERS_MAX}${finite} THEN ${column} END, (SELECT ${column} FROM edges.${family} WHERE id = 1)) AS ${column}`;
  });
  return `SELECT ${['id', ...columns].join(', ')} FROM edges.${family}`;
}

/** One column as a server has it. */
export interface Printed {
  readonly type: string;
  /** Of all rows in the order of `id`; null: NULL. */
  readonly values: readonly (string | null)[];
}

/** What PostgreSQL prints, and not what `pg` makes of it. */
const AS_TEXT = { getTypeParser: () => (value: unknown) => value } as unknown as CustomTypesConfig;
const FLOATS = /^_?(float[48]|point|line|lseg|box|path|polygon|circle)$/;

/**
 * One table as a server prints it, by column. `to_the_bit`: floats as their bytes, for servers before 12 print more digits of them than later ones do.
 */
export async function printed(client: Client, table: string, to_the_bit: boolean): Promise<Map<string, Printed>> {
  await client.query(pinSettingsSql('SESSION'));
  const { rows: columns } = await client.query<{ name: string; type: string; typname: string; send: string }>(
    `SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, t.typname, t.typsend::text AS send
       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
    [`public.${id(table)}`],
  );
  const values = columns.map(({ name, typname, send }) =>
    to_the_bit && FLOATS.test(typname) ? `${send}(${id(name)})` : id(name),
  );
  const { rows } = await client.query<(string | null)[]>({
    text: `SELECT ${values.join(', ')} FROM public.${id(table)} ORDER BY id`,
    rowMode: 'array',
    types: AS_TEXT,
  });
  return new Map(
    columns.map(({ name, type }, i) => [name, { type, values: rows.map((row) => row[i] ?? null) }] as const),
  );
}
