/**
 * Tables that are awkward by their names, their columns, or where they stand, between two real servers: copied, then inserted into, updated, moved to
 * another key and deleted from. Whatever the catalog takes as a name arrives as that name.
 */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import { formatTableName } from '../../lib/config/table-pattern.ts';
import { quoteIdentifier, quoteTable } from '../../lib/sql-text.ts';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
let on: pg.Client;
let there: pg.Client;
let line: Line | null = null;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  [on, there] = await Promise.all([source.connect(), target.connect()]);
});
afterAll(async () => {
  await Promise.all([on.end(), there.end()]);
  await Promise.all([source.stop(), target.stop()]);
});
afterEach(async () => {
  await line?.[Symbol.asyncDispose]();
  line = null;
  for (const client of [on, there]) {
    const { rows } = await client.query<{ name: string }>(
      "SELECT nspname AS name FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
    );
    for (const { name } of rows) await client.query(`DROP SCHEMA ${quoteIdentifier(name)} CASCADE`);
    await client.query('CREATE SCHEMA public');
  }
});

async function live(to = 'hard_delete: true'): Promise<Line> {
  line = await openLine({ source, target, config: { tables: "['*.*']", target: to }, pipeline: 'awkward' });
  await line.settle();
  return line;
}

/** Every row of either side, without what Sluice notes beside it. */
async function rowsOf(client: pg.Client, table: string): Promise<string[]> {
  const { rows } = await client.query<{ row: string }>(
    `SELECT (to_jsonb(t) - ARRAY['_sdc_extracted_at', '_sdc_batched_at', '_sdc_deleted_at'])::text AS row FROM ONLY ${table} t ORDER BY 1`,
  );
  return rows.map(({ row }) => row);
}

const LONG = 'ä'.repeat(31);
const NAMES = [
  'plain',
  'Plain',
  'PLAIN',
  'with space',
  ' leading and trailing ',
  'with.dot',
  'with"quote',
  "with'apostrophe",
  '"',
  'back\\slash\\n',
  'per%cent *star ?mark',
  '[brackets] {braces} $1 :colon',
  'dash-and-dash',
  'select',
  'user',
  'table',
  'tab\tand\nnewline',
  'été-Größe',
  '订单',
  'заказы',
  'طلبات',
  '🦥',
  'e\u0301 is not é',
  '_sdc_like',
  '1st',
  '__proto__',
  'constructor',
  `${LONG}a`,
  `${LONG}b`,
  'x'.repeat(63),
  'X'.repeat(63),
];

test('names of schemas, tables and columns: case, 63 bytes, reserved words, any script, dots and quotes', async () => {
  const schemas = ['public', 'Public', 'sche.ma "q"', '订单'];
  const tables = NAMES.map((table, i) => ({ schema: schemas[i % schemas.length] ?? 'public', table }));
  // Twice under one name, in two schemas; and a column of every name in one table.
  tables.push({ schema: 'Public', table: 'plain' });
  for (const schema of schemas) await on.query(`CREATE SCHEMA IF NOT EXISTS ${quoteIdentifier(schema)}`);
  for (const { schema, table } of tables) {
    const [key, value] = [quoteIdentifier(table), quoteIdentifier(table === 'select' ? 'from' : 'select')];
    await on.query(`
      CREATE TABLE ${quoteTable({ schema, table })} (${key} int PRIMARY KEY, ${value} text);
      INSERT INTO ${quoteTable({ schema, table })} VALUES (1, 'copied'), (2, 'copied'), (3, 'copied')`);
  }
  const columns = NAMES.map((name) => `${quoteIdentifier(name)} text`).join(', ');
  await on.query(`
    CREATE TABLE public."every name" (${columns}, PRIMARY KEY ("Plain", "with""quote"));
    INSERT INTO public."every name" ("Plain", "with""quote", plain) VALUES ('a', 'b', 'c'), ('d', 'e', 'f')`);
  const opened = await live();
  expect(opened.durable.bookmarks.size).toBe(tables.length + 1);

  for (const name of tables) {
    const [at, key] = [quoteTable(name), quoteIdentifier(name.table)];
    const value = quoteIdentifier(name.table === 'select' ? 'from' : 'select');
    await on.query(`
      INSERT INTO ${at} VALUES (4, 'new'); UPDATE ${at} SET ${value} = 'changed' WHERE ${key} = 1;
      UPDATE ${at} SET ${key} = 20 WHERE ${key} = 2; DELETE FROM ${at} WHERE ${key} = 3`);
  }
  await on.query(`
    UPDATE public."every name" SET "with.dot" = 'dot', "🦥" = 'sloth', "__proto__" = 'p' WHERE "Plain" = 'a';
    UPDATE public."every name" SET "with""quote" = 'moved' WHERE "Plain" = 'd'`);
  await opened.settle();
  for (const name of [...tables, { schema: 'public', table: 'every name' }]) {
    const rows = await rowsOf(there, quoteTable(name));
    expect(rows, formatTableName(name)).toEqual(await rowsOf(on, quoteTable(name)));
    expect(rows.length).toBeGreaterThan(1);
  }
  const names = await there.query<{ column: string }>(
    `SELECT attname AS column FROM pg_attribute WHERE attrelid = 'public."every name"'::regclass AND attnum > 0 AND attname <> '_sdc_deleted_at'`,
  );
  expect(names.rows.map(({ column }) => column).filter((column) => NAMES.includes(column))).toEqual(NAMES);
});

describe('as many columns as a table can have', () => {
  const makeWide = async (columns: number): Promise<void> => {
    const more = Array.from({ length: columns - 1 }, (_, i) => `c${i} int2`).join(', ');
    await on.query(
      `CREATE TABLE wide (id int PRIMARY KEY, ${more}); INSERT INTO wide (id, c0) VALUES (1, 1), (2, 2), (3, 3)`,
    );
  };

  // Deletions are not carried out without metadata columns.
  test.each([
    ['1,600', 1_600, 'hard_delete: false', ''],
    [
      '1,597 and three of metadata',
      1_597,
      'hard_delete: true',
      'DELETE FROM wide WHERE id = 3; UPDATE wide SET id = 20 WHERE id = 2',
    ],
  ])('%s', async (_, columns, to, more) => {
    await makeWide(columns);
    const opened = await live(to);
    await on.query(`INSERT INTO wide (id, c1500) VALUES (4, 4); UPDATE wide SET c800 = 800 WHERE id = 1; ${more}`);
    await opened.settle();
    expect(opened.bookmark('public.wide').halt).toBeNull();
    expect(await rowsOf(there, 'wide')).toEqual(await rowsOf(on, 'wide'));
  });

  test('more than the target can have with metadata: the stream halts with the reason', async () => {
    await makeWide(1_598);
    const opened = await live();
    expect(opened.bookmark('public.wide').halt?.message).toContain('too_many_columns');
  });
});

test('identity columns are plain ones on the target, which takes the values of the source', async () => {
  await on.query(`
    CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int GENERATED BY DEFAULT AS IDENTITY, s serial, v text DEFAULT 'd');
    INSERT INTO numbered (v) VALUES ('a'), ('b')`);
  const opened = await live();
  await on.query(
    "INSERT INTO numbered (v) VALUES ('c'); UPDATE numbered SET v = 'x' WHERE id = 1; DELETE FROM numbered WHERE id = 2",
  );
  await opened.settle();
  expect(await rowsOf(there, 'numbered')).toEqual(await rowsOf(on, 'numbered'));
  const { rows } = await there.query(
    `SELECT attidentity::text AS identity, atthasdef AS has_default FROM pg_attribute
      WHERE attrelid = 'numbered'::regclass AND attname IN ('id', 'n', 's', 'v')`,
  );
  expect(rows).toEqual(Array.from({ length: 4 }, () => ({ identity: '', has_default: false })));
});

test('a table and one that inherits from it are two streams: each has its own rows, also of a TRUNCATE', async () => {
  await on.query(`
    CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (more int, PRIMARY KEY (id)) INHERITS (parent);
    INSERT INTO parent VALUES (1, 'parent'), (2, 'parent'); INSERT INTO child VALUES (1, 'child', 7), (3, 'child', 7)`);
  const opened = await live();
  const expectEqual = async (): Promise<void> => {
    await opened.settle();
    for (const table of ['parent', 'child']) expect(await rowsOf(there, table)).toEqual(await rowsOf(on, table));
  };
  await expectEqual();
  expect(await rowsOf(there, 'parent')).toHaveLength(2);
  await on.query("UPDATE parent SET v = 'both'; DELETE FROM parent WHERE id = 1; INSERT INTO child VALUES (4, 'x', 1)");
  await expectEqual();
  await on.query('TRUNCATE ONLY parent');
  await expectEqual();
  expect(await rowsOf(there, 'child')).toHaveLength(2);
  await on.query("INSERT INTO parent VALUES (9, 'p'); TRUNCATE parent");
  await expectEqual();
  expect(await rowsOf(there, 'child')).toEqual([]);
});

describe('what LOG_BASED cannot follow', () => {
  test('is left out with what it is, and what to do instead; what can be is followed beside it', async () => {
    await on.query(`
      CREATE TABLE plain (id int PRIMARY KEY); CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
      CREATE VIEW a_view AS SELECT * FROM plain; CREATE MATERIALIZED VIEW stored AS SELECT * FROM plain;
      CREATE FOREIGN DATA WRAPPER w; CREATE SERVER f FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE remote (id int) SERVER f;
      CREATE TEMP TABLE session_only (id int PRIMARY KEY)`);
    const opened = await live();
    await on.query('DROP FOREIGN DATA WRAPPER w CASCADE; DROP TABLE session_only');
    expect([...opened.durable.bookmarks.keys()]).toEqual([streamId({ schema: 'public', table: 'plain' })]);
    const left = opened.log.lines.filter(({ event }) => event === 'table_skipped').map(({ facts }) => facts['reason']);
    expect(left).toEqual([
      expect.stringContaining('public.a_view is a view'),
      expect.stringContaining('public.remote is a foreign table'),
      expect.stringContaining('public.stored is a materialized view'),
      expect.stringContaining('public.unlogged is an unlogged table'),
    ]);
  });

  test('a table that is made unlogged while it is followed is copied anew when it is logged again', async () => {
    await on.query("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')");
    const opened = await live();
    // PostgreSQL does not let a published table become unlogged.
    await on.query('ALTER PUBLICATION sluice_postgres DROP TABLE t; ALTER TABLE t SET UNLOGGED');
    await on.query("INSERT INTO t VALUES (2, 'unseen')");
    await opened.window().catch(() => undefined); // Nothing is selected: the window says so.
    await on.query('ALTER TABLE t SET LOGGED');
    await opened.settle();
    expect(await rowsOf(there, 't')).toEqual(await rowsOf(on, 't'));
    expect(opened.bookmark('public.t').epoch).toBe(2);
  });
});
