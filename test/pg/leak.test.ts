/**
 * Goal: what the pipeline file hides is nowhere. Method: a source with marked values in columns that are left out or masked and in rows that are filtered out; the whole
 * line over it, with copies, live changes, giants, changes of shape, halts and errors that are provoked; then every byte that was left anywhere is searched for the
 * marks. What is not hidden carries another mark, which must be found: the search itself works.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { projectedExtractor } from '../../lib/projection/projected-extractor.ts';
import { projectionOf } from '../../lib/projection/projection.ts';
import { skipDebian, startDebianPostgres } from '../support/debian-postgres.ts';
import { everything } from '../support/everything.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

/** In hidden values; nothing of the line's own may look like it. The second: its bytes as bytea prints them. */
const MARK = 'ZQhiddenXJ';
const MARK_HEX = Buffer.from(MARK).toString('hex');
/** In values that are replicated. */
const SEEN = 'ZQvisibleXJ';

const PLUGINS = ['pgoutput', 'wal2json'] as const;

let embedded: TestPostgres;
let debian: TestPostgres | null = null;
let target: TestPostgres;

beforeAll(async () => {
  [embedded, target] = await Promise.all([startPostgres(), startPostgres()]);
  if (!skipDebian) debian = await startDebianPostgres();
}, 60_000);

afterAll(async () => {
  await embedded?.stop();
  await debian?.stop();
  await target?.stop();
});

/** Where the marks were found; and whether the search finds anything at all. */
async function found(
  fresh: FreshLine,
  texts: readonly string[] = [],
): Promise<{ readonly hidden: string[]; readonly seen: boolean }> {
  const all = await everything(fresh.line, fresh.to);
  for (const [i, text] of texts.entries()) all.set(`error ${i}`, text);
  const has = (text: string): boolean => text.toLowerCase().includes(MARK.toLowerCase()) || text.includes(MARK_HEX);
  return {
    hidden: [...all].filter(([, text]) => has(text)).map(([name]) => name),
    seen: [...all.values()].some((text) => text.includes(SEEN)),
  };
}

const SCHEMA = `
  CREATE TYPE mood AS ENUM ('${MARK}_sad', '${MARK}_glad');
  CREATE TYPE pair AS (a int, b text);
  CREATE TABLE people (
    id int PRIMARY KEY, email text, ssn text, notes text, raw bytea, mood mood, pair pair, tags text[], name text,
    shout text GENERATED ALWAYS AS (upper(ssn)) STORED);
  ALTER TABLE people ALTER ssn SET STORAGE EXTERNAL, ALTER notes SET STORAGE EXTERNAL, ALTER email SET STORAGE EXTERNAL;
  CREATE TABLE whole (LIKE people INCLUDING ALL); ALTER TABLE whole REPLICA IDENTITY FULL;
  CREATE TABLE bag (a int, secret text, name text); ALTER TABLE bag REPLICA IDENTITY FULL;
  CREATE TABLE keyed (email text PRIMARY KEY, name text);
  CREATE TABLE few (id int PRIMARY KEY, name text, other text);`;

const row = (id: number, size = 1): string =>
  `(${id}, repeat('${MARK}m', ${size}), repeat('${MARK}s', ${size}), repeat('${MARK}n', ${size}), repeat('${MARK}', ${size})::bytea,
    '${MARK}_sad', ROW(1, '${MARK}'), ARRAY['${MARK}', 'x'], '${SEEN}')`;
const COLUMNS = '(id, email, ssn, notes, raw, mood, pair, tags, name)';

const HIDDEN =
  'columns: { exclude: [ssn, tags, later_excluded] }, mask: { email: hash, notes: redact, raw: null, mood: redact, pair: hash, later: redact, hashed: hash }';
const FILE = `[{ table: public.people, ${HIDDEN} }, { table: public.whole, ${HIDDEN} },
  { table: public.bag, columns: { exclude: [secret] } }, { table: public.keyed, mask: { email: hash } },
  { table: public.few, columns: { include: [id, name] } }]`;

describe.each(PLUGINS.filter((plugin) => plugin === 'pgoutput' || !skipDebian))('with %s', (plugin) => {
  const open = async (sql: string, tables: string, more = ''): Promise<FreshLine> => {
    const source = plugin === 'wal2json' && debian ? debian : embedded;
    return await freshLine({ source, target }, sql, {
      tables,
      source: `plugin: ${plugin}`,
      target: `primary_key_required: false${more}`,
    });
  };

  test('copies, changes, giants, deletions, changes of shape', async () => {
    await using fresh = await open(
      `${SCHEMA}
       INSERT INTO people ${COLUMNS} VALUES ${row(1)}, ${row(2, 500)}, ${row(3, 200_000)};
       INSERT INTO whole ${COLUMNS} SELECT ${COLUMNS.slice(1, -1)} FROM people;
       INSERT INTO bag VALUES (1, '${MARK}', '${SEEN}'), (1, '${MARK}2', '${SEEN}'); INSERT INTO keyed VALUES ('${MARK}', 'a'), ('${MARK}2', 'b');
       INSERT INTO few VALUES (1, 'a', '${MARK}')`,
      FILE,
    );
    await fresh.settle();
    for (const table of ['people', 'whole']) {
      await fresh.from.query(`
        INSERT INTO ${table} ${COLUMNS} VALUES ${row(10)}, ${row(11, 500)}, ${row(12, 200_000)};
        UPDATE ${table} SET name = '${SEEN}2' WHERE id < 5; UPDATE ${table} SET email = email || '!', notes = '${MARK}' WHERE id = 2;
        UPDATE ${table} SET id = id + 100 WHERE id IN (2, 10); DELETE FROM ${table} WHERE id = 1;
        UPDATE ${table} SET mood = '${MARK}_glad', raw = '${MARK}' WHERE id = 11`);
    }
    await fresh.from.query(`
      UPDATE bag SET secret = '${MARK}3' WHERE secret = '${MARK}'; DELETE FROM bag WHERE secret = '${MARK}2'; INSERT INTO bag VALUES (2, '${MARK}', 'x');
      UPDATE keyed SET email = '${MARK}3' WHERE email = '${MARK}'; DELETE FROM keyed WHERE email = '${MARK}2';
      UPDATE few SET other = '${MARK}4'`);
    await fresh.settle();
    // Columns that come: default values of old rows, of which nobody writes one.
    for (const table of ['people', 'whole']) {
      await fresh.from.query(`
        ALTER TABLE ${table} ADD later text DEFAULT '${MARK}'; ALTER TABLE ${table} ADD later_excluded text DEFAULT '${MARK}';
        ALTER TABLE ${table} ADD hashed text DEFAULT '${MARK}'; ALTER TABLE ${table} ADD shown text DEFAULT '${SEEN}'`);
    }
    await fresh.from.query(`ALTER TABLE few ADD newer text DEFAULT '${MARK}'`);
    await fresh.settle();
    await fresh.from.query(`
      INSERT INTO people ${COLUMNS} VALUES ${row(20)}; INSERT INTO whole ${COLUMNS} VALUES ${row(20)}; INSERT INTO few VALUES (2, 'b', '${MARK}', '${MARK}');
      ALTER TYPE mood ADD VALUE '${MARK}_new'; ALTER TABLE people ALTER email TYPE varchar(4000000); ALTER TABLE people DROP COLUMN pair`);
    await fresh.from.query(
      `UPDATE people SET mood = '${MARK}_new', email = '${MARK}' WHERE id = 20; ALTER TABLE people DROP COLUMN notes`,
    );
    await fresh.from.query(`INSERT INTO people (id, email, mood) VALUES (30, '${MARK}', '${MARK}_new')`);
    await fresh.settle();

    expect(await found(fresh)).toEqual({ hidden: [], seen: true });
    const { rows } = await fresh.to.query<Record<string, string>>(
      "SELECT id::text, later, hashed ~ '^[0-9a-f]{64}$' AS hashed, shown FROM people WHERE id IN (3, 20) ORDER BY people.id",
    );
    expect(rows).toEqual([
      { id: '3', later: '[redacted]', hashed: true, shown: SEEN },
      { id: '20', later: '[redacted]', hashed: true, shown: SEEN },
    ]);
    const count = await fresh.to.query<{ n: number }>('SELECT count(*)::int AS n FROM people');
    expect(count.rows[0]?.n).toBe(
      (await fresh.from.query<{ n: number }>('SELECT count(*)::int AS n FROM people')).rows[0]?.n,
    );
    // Under `include` a new column stays out; what is computed from a hidden one as well.
    const columns = await fresh.to.query<{ name: string }>(
      "SELECT attname AS name FROM pg_attribute WHERE attrelid = 'few'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE '\\_sdc%' ORDER BY 1",
    );
    expect(columns.rows.map(({ name }) => name)).toEqual(['id', 'name']);
  });

  test('tables.columns, tables.mask, mask_salt: a column that is hidden later: the target has none of its values after the next copy', async () => {
    await using fresh = await open(
      `CREATE TABLE t (id int PRIMARY KEY, secret text, n int, name text); INSERT INTO t VALUES (1, '${MARK}', 4711, '${SEEN}'), (2, '${MARK}2', 4712, 'x')`,
      '[public.t]',
    );
    await fresh.settle();
    fresh.line.configure({ tables: '[{ table: public.t, columns: { exclude: [secret] }, mask: { n: hash } }]' });
    await fresh.from.query(`INSERT INTO t VALUES (3, '${MARK}', 4713, 'y')`);
    await fresh.settle();
    const all = await everything(fresh.line, fresh.to);
    const tables = [...all].filter(([name]) => !name.includes('/') && name !== 'pg_attribute').map(([, text]) => text);
    expect(tables.filter((text) => text.includes(MARK))).toEqual([]);
    const { rows } = await fresh.to.query<{ name: string; type: string }>(
      "SELECT attname AS name, format_type(atttypid, -1) AS type FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT LIKE '\\_sdc%' ORDER BY 1",
    );
    expect(rows).toEqual([
      { name: 'id', type: 'integer' },
      { name: 'n', type: 'text' },
      { name: 'name', type: 'text' },
    ]);
    expect(JSON.stringify(fresh.line.log.lines)).toContain('captured_anew');
    // Another salt makes other hashes.
    const before = await fresh.to.query('SELECT n FROM t ORDER BY id');
    fresh.line.configure({ mask_salt: 'another' });
    await fresh.settle();
    expect((await fresh.to.query('SELECT n FROM t ORDER BY id')).rows).not.toEqual(before.rows);
  });

  test('a hidden column that gets another name: the stream halts, and nothing of it is read', async () => {
    await using fresh = await open(
      `CREATE TABLE t (id int PRIMARY KEY, secret text, name text); INSERT INTO t VALUES (1, '${MARK}', '${SEEN}')`,
      '[{ table: public.t, columns: { exclude: [secret] } }]',
    );
    await fresh.settle();
    await fresh.from.query(`ALTER TABLE t RENAME secret TO open; INSERT INTO t VALUES (2, '${MARK}', 'x')`);
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.t').halt).toMatchObject({ code: 'COLUMN_EXPOSED' });
    await fresh.from.query(`INSERT INTO t VALUES (3, '${MARK}', 'x')`);
    await fresh.line.window();
    expect((await found(fresh)).hidden).toEqual([]);
    fresh.line.configure({ tables: '[{ table: public.t, columns: { exclude: [open] } }]' });
    await fresh.settle();
    expect(await found(fresh)).toEqual({ hidden: [], seen: true });
    expect((await fresh.to.query('SELECT id FROM t ORDER BY id')).rows).toHaveLength(3);
    // Dropped, it is just gone; and another of its name is hidden as it was.
    await fresh.from.query(`ALTER TABLE t DROP open; INSERT INTO t VALUES (4, 'x')`);
    await fresh.settle();
    await fresh.from.query(`ALTER TABLE t ADD open text DEFAULT '${MARK}'; INSERT INTO t VALUES (5, 'x', '${MARK}')`);
    await fresh.settle();
    expect(await found(fresh)).toEqual({ hidden: [], seen: true });
    expect((await fresh.to.query('SELECT id FROM t ORDER BY id')).rows).toHaveLength(5);
  });

  test.each(['LOG_BASED', 'FULL_TABLE'])(
    'a hidden column that gets another name before its copy is planned, and before it is read: %s',
    async (method) => {
      const tables = (column: string): string =>
        `[{ table: public.t, replication_method: ${method}, columns: { exclude: [${column}] } }]`;
      await using fresh = await open(
        `CREATE TABLE t (id int PRIMARY KEY, secret text, name text); INSERT INTO t VALUES (1, '${MARK}', '${SEEN}')`,
        tables('secret'),
      );
      await fresh.line.window();
      const { followed } = fresh.line.bookmark('public.t');
      const projection = projectionOf({ table: 't', columns: { include: null, exclude: ['secret'] }, mask: {} }, null);
      const extractor = projectedExtractor(fresh.line.ports().extractor, projection, null, followed?.hidden);
      const table = await extractor.table({ schema: 'public', table: 't' });
      if (!table) throw new Error('no table t');
      await fresh.from.query('ALTER TABLE t RENAME secret TO open');
      await expect(fresh.line.pump()).rejects.toThrow(/column open .* has come up/u);
      const request = { where: null, is_logged: true, from_lsn: null };
      await expect(extractor.readChunk(table, { by: 'whole' }, request)).rejects.toThrow(/column open .* has come up/u);
      expect((await found(fresh)).hidden).toEqual([]);
      await fresh.line.window();
      expect(fresh.line.bookmark('public.t').halt).toMatchObject({ code: 'COLUMN_EXPOSED' });
      fresh.line.configure({ tables: tables('open') });
      await fresh.settle();
      expect(await found(fresh)).toEqual({ hidden: [], seen: true });
    },
  );

  test('errors of the target, of the log and of the source', async () => {
    await using fresh = await open(
      `CREATE TABLE t (id int PRIMARY KEY, secret text, email text, name text); INSERT INTO t VALUES (1, '${MARK}', '${MARK}', '${SEEN}')`,
      '[{ table: public.t, columns: { exclude: [secret] }, mask: { email: hash } }]',
    );
    await fresh.settle();
    const texts: string[] = [];
    const told = async (work: Promise<unknown>): Promise<void> => {
      await work.catch((error: unknown) => {
        texts.push(error instanceof Error ? `${error.message} ${error.stack}` : String(error));
      });
    };
    // The target refuses rows, and quotes them.
    await fresh.to.query("ALTER TABLE t ADD CONSTRAINT refuses CHECK (id < 100 OR name <> 'refused')");
    await fresh.from.query(`INSERT INTO t VALUES (200, '${MARK}', '${MARK}', 'refused')`);
    await told(fresh.settle());
    expect(fresh.line.bookmark('public.t').halt).not.toBeNull();
    // The key goes, and the table is made anew; then its rows cannot be read.
    await fresh.from.query(
      `ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (201, '${MARK}', '${MARK}', 'x')`,
    );
    await told(fresh.line.settle());
    await fresh.from.query(
      `DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, secret int, email text, name text); INSERT INTO t VALUES (1, 5, '${MARK}', 'x')`,
    );
    await told(fresh.line.settle());
    expect(texts.length).toBeGreaterThan(0);
    expect(await found(fresh, texts)).toEqual({ hidden: [], seen: true });
  });
});

describe('rows that are filtered out', () => {
  const open = (sql: string, tables: string): Promise<FreshLine> =>
    freshLine({ source: embedded, target }, sql, { tables });

  test('are nowhere, whatever moves in and out', async () => {
    await using fresh = await open(
      `CREATE TABLE t (id int PRIMARY KEY, region text, v text); ALTER TABLE t REPLICA IDENTITY FULL;
       INSERT INTO t VALUES (1, 'eu', '${SEEN}'), (2, 'us', '${MARK}'), (3, 'us', '${MARK}3')`,
      `[{ table: public.t, where: "region = 'eu'" }]`,
    );
    await fresh.settle();
    await fresh.from.query(`
      INSERT INTO t VALUES (4, 'us', repeat('${MARK}', 200000)), (5, 'eu', '${SEEN}'); UPDATE t SET v = '${MARK}5' WHERE region = 'us';
      UPDATE t SET region = 'eu', v = 'shown now' WHERE id = 2; UPDATE t SET region = 'us', v = '${MARK}6' WHERE id = 1; DELETE FROM t WHERE id = 3`);
    await fresh.settle();
    expect(await found(fresh)).toEqual({ hidden: [], seen: true });
    expect((await fresh.to.query<{ id: number }>('SELECT id FROM t ORDER BY id')).rows.map(({ id }) => id)).toEqual([
      2, 5,
    ]);
  });

  test('a condition that fails on a value, in a copy and in the log: the value is not told', async () => {
    await using fresh = await open(
      `CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, '1')`,
      '[{ table: public.t, where: "int4in(textout(v)) > 0", columns: { include: [id] } }]',
    );
    await fresh.settle();
    const texts: string[] = [];
    await fresh.from.query(`INSERT INTO t VALUES (2, '${MARK}')`);
    await fresh.line
      .window()
      .catch((error: unknown) => texts.push(`${String(error)} ${error instanceof Error ? error.stack : ''}`));
    expect(texts).toHaveLength(1);
    expect((await found(fresh, texts)).hidden).toEqual([]);

    await using copied = await open(
      `CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, '${MARK}')`,
      '[{ table: public.t, where: "int4in(textout(v)) > 0", columns: { include: [id] } }]',
    );
    await copied.line.settle().catch((error: unknown) => texts.push(String(error)));
    expect((await found(copied, texts)).hidden).toEqual([]);
  });
});
