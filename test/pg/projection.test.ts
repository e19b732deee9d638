/**
 * Columns that are left out and masked, by the whole line: the same for copies and for the log, with both plugins, of every type, of giant values, of values that
 * the log leaves out, and while the table changes. The target is compared with what the source has, projected by SQL on the source.
 */
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { skipDebian, startDebianPostgres } from '../support/debian-postgres.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { MASK_SALT } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const PLUGINS = ['pgoutput', 'wal2json'] as const;

let source: TestPostgres;
let debian: TestPostgres | null = null;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  if (!skipDebian) debian = await startDebianPostgres();
}, 60_000);

afterAll(async () => {
  await source?.stop();
  await debian?.stop();
  await target?.stop();
});

const open = (sql: string, tables: string, plugin: string, more = ''): Promise<FreshLine> =>
  freshLine({ source: plugin === 'wal2json' && debian ? debian : source, target }, sql, {
    tables,
    source: `plugin: ${plugin}`,
    target: more,
  });

/** What a column's text is hashed to. */
const hashOf = (text: string | null): string | null =>
  text === null ? null : createHash('sha256').update(MASK_SALT).update(text).digest('hex');

/** Rows of a query, as text. */
async function rowsOf(fresh: FreshLine, side: 'from' | 'to', sql: string): Promise<Record<string, string | null>[]> {
  const { rows } = await fresh[side].query<Record<string, string | null>>(sql);
  return rows;
}

const columnsOf = async (fresh: FreshLine, table: string): Promise<string[]> =>
  (
    await rowsOf(
      fresh,
      'to',
      `SELECT attname || ' ' || format_type(atttypid, atttypmod) AS c FROM pg_attribute
        WHERE attrelid = '${table}'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE '\\_sdc%' ORDER BY attname`,
    )
  ).map(({ c }) => String(c));

const TYPES: Readonly<Record<string, readonly string[]>> = {
  bool: ['true', 'false'],
  bytea: [`'\\x00ff5c0a'`, `'\\x'`],
  '"char"': [`'a'`, `'\\303'`],
  'char(7)': [`'ab'`, `''`],
  'varchar(20)': [`'a b '`, `E'tab\\tnl\\ncr\\rbs\\\\'`],
  text: [`''`, `E'\\\\N'`, `'ä😀'`],
  int2: ['-3', '7'],
  int8: ['9007199254740993', '0'],
  float4: ['0.1', `'NaN'`],
  float8: ['0.1', `'-Infinity'`, '1e300'],
  'numeric(12,3)': ['1.5', '0'],
  numeric: ['1.50', '123456789012345678901234567890.1'],
  date: [`'2020-02-29'`, `'infinity'`],
  timestamptz: [`'2020-02-29 12:34:56.789+02'`],
  interval: [`'1 year 2 months 3 days 04:05:06'`],
  uuid: [`'6f9619ff-8b86-d011-b42d-00cf4fc964ff'`],
  json: [`'{ "a" : 1 }'`],
  jsonb: [`'{ "a" : 1 }'`],
  'int4[]': [`'{1,NULL,3}'`, `'{}'`],
  'text[]': [`ARRAY['a,b', 'c"d', NULL]`],
  inet: [`'10.0.0.0/8'`],
  int4range: [`'[1,5)'`],
  money: [`'12.34'`],
  mood: [`'sad'`],
  pair: [`ROW(1, 'x')`, `ROW(NULL, NULL)`],
  'mood[]': [`ARRAY['sad', 'glad']::mood[]`],
};

describe.each(PLUGINS.filter((plugin) => plugin === 'pgoutput' || !skipDebian))('with %s', (plugin) => {
  test('tables.mask, mask_salt: a hash is that of the text that PostgreSQL prints, of each type, in copies and in the log', async () => {
    const names = Object.keys(TYPES);
    const depth = Math.max(...Object.values(TYPES).map((values) => values.length));
    const rows = Array.from({ length: depth + 1 }, (_, i) =>
      names.map((name) => TYPES[name]?.[i] ?? 'NULL').join(', '),
    );
    const insert = (id: number): string => rows.map((row, i) => `INSERT INTO t VALUES (${id + i}, ${row});`).join('\n');
    await using fresh = await open(
      `CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);
       CREATE TABLE t (id int PRIMARY KEY, ${names.map((name, i) => `c${i} ${name}`).join(', ')});
       ${insert(100)}`,
      `[{ table: public.t, mask: { ${names.map((_, i) => `c${i}: hash`).join(', ')} } }]`,
      plugin,
    );
    await fresh.settle();
    await fresh.from.query(insert(200));
    await fresh.settle();

    await fresh.from.query(
      "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET lc_monetary = 'C'",
    );
    const list = names.map((_, i) => `CASE WHEN c${i} IS DISTINCT FROM NULL THEN format('%s', c${i}) END AS c${i}`);
    const there = await rowsOf(fresh, 'from', `SELECT id::text, ${list.join(', ')} FROM t ORDER BY t.id`);
    const expected = there.map(({ id, ...values }) => ({
      id,
      ...Object.fromEntries(Object.entries(values).map(([name, text]) => [name, hashOf(text ?? null)])),
    }));
    const got = await rowsOf(
      fresh,
      'to',
      `SELECT id::text, ${names.map((_, i) => `c${i}`).join(', ')} FROM t ORDER BY t.id`,
    );
    expect(got).toEqual(expected);
    expect(got).toHaveLength(2 * rows.length);
    // Neither type was made, for no column has it.
    const types = await rowsOf(fresh, 'to', "SELECT typname FROM pg_type WHERE typname IN ('mood', 'pair')");
    expect(types).toEqual([]);
  });

  test('tables.columns, tables.mask: excluded, redacted and NULL: in copies and in the log, with unchanged, giant and deleted values', async () => {
    await using fresh = await open(
      `CREATE TYPE mood AS ENUM ('sad', 'glad');
       CREATE TABLE t (id int PRIMARY KEY, secret text, mood mood, note text, plain text, big text);
       ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER note SET STORAGE EXTERNAL;
       INSERT INTO t SELECT i, 's' || i, 'sad', repeat('n', 3000), 'p' || i, repeat('b', 3000) FROM generate_series(1, 20) i;
       INSERT INTO t VALUES (50, NULL, NULL, NULL, NULL, NULL)`,
      '[{ table: public.t, columns: { exclude: [secret] }, mask: { mood: redact, note: null, big: hash } }]',
      plugin,
    );
    const check = async (): Promise<void> => {
      await fresh.settle();
      const there = await rowsOf(
        fresh,
        'from',
        "SELECT id::text, CASE WHEN mood IS NOT NULL THEN '[redacted]' END AS mood, NULL AS note, plain, big FROM t ORDER BY t.id",
      );
      const got = await rowsOf(fresh, 'to', 'SELECT id::text, mood, note, plain, big FROM t ORDER BY t.id');
      expect(got).toEqual(there.map((row) => ({ ...row, big: hashOf(row.big ?? null) })));
    };
    await check();
    expect(await columnsOf(fresh, 't')).toEqual(['big text', 'id integer', 'mood text', 'note text', 'plain text']);
    expect(await rowsOf(fresh, 'to', "SELECT typname FROM pg_type WHERE typname = 'mood'")).toEqual([]);

    await fresh.from.query(`
      UPDATE t SET plain = 'changed' WHERE id < 10; -- all that lies outside of the row stays as it is
      UPDATE t SET secret = 'other', mood = 'glad' WHERE id = 11;
      UPDATE t SET big = repeat('B', 2000000), note = repeat('N', 2000000), secret = repeat('S', 2000000) WHERE id = 12;
      INSERT INTO t VALUES (100, repeat('S', 3000000), 'glad', repeat('N', 3000000), 'x', repeat(E'b\\t\\n\\\\ä', 1000000));
      UPDATE t SET id = 200 WHERE id = 13; DELETE FROM t WHERE id = 14; UPDATE t SET big = NULL WHERE id = 15`);
    await check();
    await fresh.from.query("TRUNCATE t; INSERT INTO t VALUES (1, 's', 'sad', 'n', 'p', 'b')");
    await check();
  });

  test('REPLICA IDENTITY FULL, and tables without a key, which are bags of projected rows', async () => {
    await using fresh = await open(
      `CREATE TABLE k (id int PRIMARY KEY, secret text, big text); ALTER TABLE k REPLICA IDENTITY FULL;
       CREATE TABLE bag (a int, secret text, h text); ALTER TABLE bag REPLICA IDENTITY FULL;
       ALTER TABLE k ALTER secret SET STORAGE EXTERNAL, ALTER big SET STORAGE EXTERNAL;
       INSERT INTO k SELECT i, repeat('s', 3000), repeat('b', 3000) FROM generate_series(1, 5) i;
       INSERT INTO bag SELECT i % 2, 's' || i, 'h' || i % 2 FROM generate_series(1, 8) i`,
      `[{ table: public.k, mask: { secret: redact, big: hash } }, { table: public.bag, columns: { include: [a, h] }, mask: { h: hash } }]`,
      plugin,
      'primary_key_required: false',
    );
    const check = async (): Promise<void> => {
      await fresh.settle();
      const k = await rowsOf(fresh, 'from', "SELECT id::text, '[redacted]' AS secret, big FROM k ORDER BY k.id");
      expect(await rowsOf(fresh, 'to', 'SELECT id::text, secret, big FROM k ORDER BY k.id')).toEqual(
        k.map((row) => ({ ...row, big: hashOf(row.big ?? null) })),
      );
      const bag = await rowsOf(fresh, 'from', 'SELECT a::text, h FROM bag');
      const got = await rowsOf(fresh, 'to', 'SELECT a::text, h FROM bag');
      const text = (rows: typeof bag): string[] => rows.map(({ a, h }) => `${a} ${h}`).toSorted();
      expect(text(got)).toEqual(text(bag.map(({ a = null, h = null }) => ({ a, h: hashOf(h) }))));
    };
    await check();
    await fresh.from.query(`
      UPDATE k SET id = id + 10 WHERE id < 3; UPDATE k SET secret = 'x' WHERE id = 4; DELETE FROM k WHERE id = 5;
      UPDATE bag SET secret = 'other'; DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag); UPDATE bag SET a = 7 WHERE a = 1;
      INSERT INTO bag VALUES (0, repeat('s', 2000000), repeat('h', 2000000))`);
    await check();
  });

  test('a key that is hashed: changes of key, deletes, copies in several chunks', async () => {
    await using fresh = await open(
      `CREATE TABLE t (email text, n int, v text, PRIMARY KEY (email, n));
       INSERT INTO t SELECT 'user' || i || '@example.com', i, 'v' || i FROM generate_series(1, 50) i`,
      '[{ table: public.t, mask: { email: hash } }]',
      plugin,
    );
    const check = async (): Promise<void> => {
      await fresh.settle();
      const there = await rowsOf(fresh, 'from', 'SELECT email, n::text, v FROM t ORDER BY t.n');
      expect(await rowsOf(fresh, 'to', 'SELECT email, n::text, v FROM t ORDER BY t.n')).toEqual(
        there.map((row) => ({ ...row, email: hashOf(row.email ?? null) })),
      );
    };
    await check();
    await fresh.from.query(`
      UPDATE t SET email = 'new' || n WHERE n < 5; DELETE FROM t WHERE n = 6; UPDATE t SET v = 'x' WHERE n = 7;
      INSERT INTO t VALUES ('last', 1000, 'y')`);
    await check();
  });
});
