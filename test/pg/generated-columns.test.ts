/**
 * Goal: a column that the source computes is computed on the target where it can be, plain where the log carries it, and left out with a word
 * otherwise. Method: the whole line between two servers; rows, columns and what computes them are compared.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const fresh = (sql: string, options: Parameters<typeof freshLine>[2] = {}): Promise<FreshLine> =>
  freshLine({ source, target }, sql, { target: 'hard_delete: true', ...options });

async function same(pair: FreshLine): Promise<void> {
  const { line } = pair;
  await pair.settle();
  const { source: want, target: got } = await line.both('public.t');
  expect(got).toEqual(want);
  expect(await line.columns('target', 'public.t')).toEqual(await line.columns('source', 'public.t'));
}

/** Names of the target's columns, and what computes them, in the table's order. */
const computed = async ({ to }: FreshLine): Promise<string[]> => {
  const { rows } = await to.query<{ column: string }>(
    `SELECT a.attname || CASE a.attgenerated WHEN '' THEN '' ELSE ' ' || a.attgenerated::text END AS column FROM pg_attribute a
     WHERE a.attrelid = 't'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname !~ '^_sdc' ORDER BY a.attnum`,
  );
  return rows.map(({ column }) => column);
};

const warnings = ({ line }: FreshLine): unknown[] =>
  line.log.lines
    .filter(({ event }) => event.startsWith('generated_'))
    .map(({ event, facts }) => [event, facts?.column]);

/** A function that the target does not have: what is computed by it cannot be computed there. */
const OWN_FUNCTION = `CREATE FUNCTION own(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3'`;

describe('computed on the target', () => {
  test('stored and virtual, in the order of the source, of types of its own', async () => {
    await using pair = await fresh(`
      CREATE TYPE mood AS ENUM ('low', 'high');
      CREATE TABLE t (a int GENERATED ALWAYS AS (id * 2) STORED, id int PRIMARY KEY, v int GENERATED ALWAYS AS (id + n) VIRTUAL, n int,
        "M o" mood GENERATED ALWAYS AS (CASE WHEN n > 5 THEN 'high'::mood ELSE 'low'::mood END) STORED);
      INSERT INTO t (id, n) SELECT i, i FROM generate_series(1, 10) i`);
    await same(pair);
    expect(await computed(pair)).toEqual(['a s', 'id', 'v v', 'n', 'M o s']);
    await pair.from.query(
      `INSERT INTO t (id, n) VALUES (20, NULL); UPDATE t SET n = 100 - n; UPDATE t SET id = 30 WHERE id = 1; DELETE FROM t WHERE id = 2`,
    );
    await same(pair);
    expect(warnings(pair)).toEqual([]);
  });

  test('a table that others have built on keeps its columns computed when it is copied anew', async () => {
    await using pair = await fresh(`
      CREATE TABLE t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n * 2) STORED); INSERT INTO t VALUES (1, 1)`);
    await same(pair);
    await pair.to.query('CREATE VIEW seen AS SELECT id FROM t');
    await pair.from.query(
      'ALTER TABLE t ADD COLUMN h int GENERATED ALWAYS AS (n + 1) STORED; INSERT INTO t VALUES (2, 2)',
    );
    await same(pair);
    expect(await computed(pair)).toEqual(['id', 'n', 'g s', 'h s']);
    expect((await pair.to.query('SELECT * FROM seen')).rowCount).toBe(2);
    await pair.from.query('ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (n * 5); INSERT INTO t VALUES (3, 3)');
    await same(pair);
  });

  test('replaced by rename, not refilled, when nobody has built on it', async () => {
    await using pair = await fresh(
      `CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO t VALUES (1)`,
    );
    await same(pair);
    const oid = async (): Promise<unknown> => (await pair.to.query(`SELECT 't'::regclass::oid`)).rows[0];
    const before = await oid();
    await pair.from.query(`ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (id * 5); INSERT INTO t VALUES (2)`);
    await same(pair);
    expect(await oid()).not.toEqual(before);
  });

  test('no longer computed on the source: an ordinary column from there on', async () => {
    await using pair = await fresh(
      `CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO t VALUES (1)`,
    );
    await same(pair);
    await pair.from.query(
      `ALTER TABLE t ALTER COLUMN g DROP EXPRESSION; INSERT INTO t VALUES (2, 77); UPDATE t SET g = 5 WHERE id = 1`,
    );
    await same(pair);
    expect(await computed(pair)).toEqual(['id', 'g']);
  });
});

describe('not computed on the target', () => {
  test('left out with a warning, and all else is there', async () => {
    await using pair = await fresh(`${OWN_FUNCTION};
      CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (own(id)) STORED, h int GENERATED ALWAYS AS (id + 1) STORED, n text);
      INSERT INTO t VALUES (1, DEFAULT, DEFAULT, 'x')`);
    await pair.settle();
    await pair.from.query(`INSERT INTO t VALUES (2, DEFAULT, DEFAULT, 'y'); UPDATE t SET n = 'z' WHERE id = 1`);
    await pair.settle();
    expect(await computed(pair)).toEqual(['id', 'n', 'h s']);
    expect(await pair.line.rows('target', 'public.t')).toEqual([
      ['2', '1', 'z'],
      ['3', '2', 'y'],
    ]);
    expect(warnings(pair)).toEqual([['generated_column_left_out', 'g']]);
  });

  test('plain where the log carries it (publish_generated_columns): in the copy, and in changes', async () => {
    await using pair = await fresh(`${OWN_FUNCTION};
      CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (own(n)) STORED, h int GENERATED ALWAYS AS (id + 1) STORED, n int);
      ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t (id, n) VALUES (1, 1), (2, 2), (3, 3)`);
    await same(pair);
    expect(warnings(pair)).toEqual([['generated_column_plain', 'g']]);
    await pair.from.query(
      `INSERT INTO t (id, n) VALUES (4, 4); UPDATE t SET n = 9 WHERE id = 1; UPDATE t SET id = 20 WHERE id = 2; DELETE FROM t WHERE id = 3`,
    );
    await same(pair);
    expect((await computed(pair)).toSorted()).toEqual(['g', 'h s', 'id', 'n']);
  });

  test('without a key, as a multiset: what the table computes is not compared, nor written', async () => {
    await using pair = await fresh(
      `CREATE TABLE t (a int, g int GENERATED ALWAYS AS (a * 2) STORED, b text); ALTER TABLE t REPLICA IDENTITY FULL;
       INSERT INTO t VALUES (1, DEFAULT, 'x'), (1, DEFAULT, 'x'), (2, DEFAULT, NULL)`,
      { target: 'hard_delete: true, primary_key_required: false' },
    );
    await same(pair);
    await pair.from.query(`INSERT INTO t VALUES (3, DEFAULT, 'y'), (1, DEFAULT, 'x'); UPDATE t SET a = 7 WHERE a = 2`);
    await pair.from.query(`DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 1)`);
    await same(pair);
    expect((await computed(pair)).toSorted()).toEqual(['a', 'b', 'g s']);
  });
});
