/** Databases that are not in UTF8: as a source they are converted by the server that sends them, or refused; as a target they are refused. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { duringWindow } from '../support/during-window.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

/** A table, a column and values with characters that the encoding has, and what else is in it. */
const CASES = [
  { encoding: 'LATIN1', name: 'Größe', column: 'façade', values: ['äöüß', 'ÿ\u00a0§', '', 'plain'] },
  { encoding: 'EUC_JP', name: '商品', column: '名前', values: ['日本語テキスト', 'ｶﾀｶﾅ', '', 'plain'] },
  { encoding: 'WIN1251', name: 'Товар', column: 'имя', values: ['привет', 'Ёж', '', 'plain'] },
] as const;
const LONG = 2_000;

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});

afterAll(async () => {
  await Promise.all([source, target].map((server) => server.stop()));
});

async function makeDatabase(server: TestPostgres, encoding: string): Promise<TestPostgres> {
  const database = `in_${encoding.toLowerCase()}`;
  const client = await server.connect();
  await client.query(
    `CREATE DATABASE ${database} TEMPLATE template0 ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C'`,
  );
  await client.end();
  return { ...server, database };
}

describe.each(CASES)('a source in $encoding', ({ encoding, name, column, values }) => {
  test('arrives in UTF8 to the letter, by the first sync and by the log', async () => {
    const from = await makeDatabase(source, encoding);
    const here = await source.connect(from.database);
    const there = await target.connect();
    // A type of one's own has names and labels in the encoding as well; the long value lies outside its row.
    await here.query(`
      CREATE TABLE "${name}" (id int PRIMARY KEY, "${column}" text, doc jsonb, "list ${column}" text[], big text);
      ALTER TABLE "${name}" ALTER COLUMN big SET STORAGE EXTERNAL`);
    const insert = async (offset: number): Promise<void> => {
      for (const [i, value] of values.entries()) {
        await here.query(`INSERT INTO "${name}" VALUES ($1, $2, $3, $4, $5)`, [
          offset + i,
          value,
          JSON.stringify({ [value]: value }),
          [value, null, 'x'],
          value.repeat(LONG),
        ]);
      }
    };
    await insert(0);
    await using line = await openLine({ source: from, target });
    const compare = async (): Promise<void> => {
      await line.settle();
      expect([...line.durable.bookmarks.values()].map(({ halt }) => halt)).toEqual([null]);
      const { rows } = await there.query(`SELECT * FROM "${name}" ORDER BY id`);
      const expected = await here.query(`SELECT * FROM "${name}" ORDER BY id`);
      expect(rows).toMatchObject(expected.rows);
      expect(rows.length).toBe(expected.rows.length);
    };
    await compare();
    await insert(100);
    await here.query(`UPDATE "${name}" SET "${column}" = "${column}" || $1 WHERE id % 2 = 0`, [values[0]]);
    await here.query(`UPDATE "${name}" SET id = id + 1000 WHERE id = 100`);
    await here.query(`DELETE FROM "${name}" WHERE id = 1`);
    await compare();
    await Promise.all([here.end(), there.end()]);
  });
});

test.each(['SQL_ASCII', 'MULE_INTERNAL'])('a source in %s is refused with the reason', async (encoding) => {
  const from = await makeDatabase(source, encoding);
  const refused = async (): Promise<void> => {
    await using line = await openLine({ source: from, target });
    await line.window();
  };
  await expect(refused()).rejects.toThrow(`The source database is encoded in ${encoding}: PostgreSQL `);
});

test.skipIf(skipDebian)(
  suiteName('a source in LATIN1 that is read by wal2json is refused with the reason'),
  async () => {
    await using debian = await startDebianPostgres();
    const from = await makeDatabase(debian, 'LATIN1');
    const here = await debian.connect(from.database);
    await here.query('CREATE TABLE t (id int PRIMARY KEY)');
    await here.end();
    await using line = await openLine({ source: from, target, config: { source: 'plugin: wal2json' } });
    await expect(line.window()).rejects.toThrow('LATIN1: the server does not convert what wal2json writes');
  },
);

test('a name that is too long in UTF-8 is refused, for the target would cut it', async () => {
  const from = await makeDatabase(source, 'LATIN2');
  const here = await source.connect(from.database);
  await here.query(`CREATE TABLE short (id int PRIMARY KEY, "${'é'.repeat(40)}" text)`);
  await here.end();
  await using line = await openLine({ source: from, target, pipeline: 'names' });
  await expect(line.window()).rejects.toThrow(`public.short: the name ${'é'.repeat(40)} has 80 bytes`);
});

describe('a column whose name is too long in UTF-8 and that comes later', () => {
  const long = 'é'.repeat(40);
  let databases = 0;

  /** A live stream on a source in LATIN2. */
  async function live() {
    const name = `late_${++databases}`;
    const [here, there] = [await source.connect(), await target.connect()];
    await here.query(`CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'LATIN2' LC_COLLATE 'C' LC_CTYPE 'C'`);
    await there.query(`CREATE DATABASE ${name}`);
    await Promise.all([here.end(), there.end()]);
    const on = await source.connect(name);
    await on.query('CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1)');
    const places = { source: { ...source, database: name }, target: { ...target, database: name } };
    const line = await openLine({ ...places, pipeline: name.replace('_', '-') });
    await line.settle();
    return { on, line };
  }

  test('between windows halts the stream, which is copied anew when it has another name', async () => {
    const { on, line } = await live();
    await using _ = line;
    await on.query(`INSERT INTO t VALUES (2); ALTER TABLE t ADD COLUMN "${long}" text DEFAULT 'x'`);
    await on.query(`INSERT INTO t VALUES (3, 'y')`);
    await on.query('CREATE TABLE other (id int PRIMARY KEY)');
    await line.settle();
    expect(line.bookmark('public.t').halt).toMatchObject({ code: 'TABLE_NAME_LONG' });
    expect(await line.columns('target', 'public.t')).toEqual(['id integer', 'v text']);
    await on.query(`ALTER TABLE t RENAME COLUMN "${long}" TO short`);
    await line.settle();
    expect(line.bookmark('public.t')).toMatchObject({ halt: null, state: 'live' });
    expect(await line.equal('public.t')).toBe(true);
    await on.end();
  });

  test('in the middle of a window halts it there', async () => {
    const { on, line } = await live();
    await using _ = line;
    await duringWindow(
      line,
      { server: source, on },
      `ALTER TABLE t ADD COLUMN "${long}" text; INSERT INTO t VALUES (2, 'v', 'x')`,
    );
    expect(line.bookmark('public.t').halt).toMatchObject({ code: 'TABLE_NAME_LONG', must_reset: true });
    expect(await line.columns('target', 'public.t')).toEqual(['id integer', 'v text']);
    await on.query(`ALTER TABLE t RENAME COLUMN "${long}" TO short`);
    await line.settle();
    expect(line.bookmark('public.t').halt).toBeNull();
    expect(await line.equal('public.t')).toBe(true);
    await on.end();
  });
});

test('a target that is not in UTF8 is refused before anything is made there', async () => {
  const to = await makeDatabase(target, 'LATIN9');
  const here = await source.connect();
  await here.query('CREATE TABLE t (id int PRIMARY KEY)');
  await using line = await openLine({ source, target: to });
  await line.window();
  await expect(line.pump()).rejects.toMatchObject({ code: 'ENCODING_UNSUPPORTED', facts: { encoding: 'LATIN9' } });
  const there = await target.connect(to.database);
  const { rows } = await there.query("SELECT FROM pg_namespace WHERE nspname = '_sluice'");
  expect(rows).toEqual([]);
  await Promise.all([here.end(), there.end()]);
});
