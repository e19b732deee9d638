/**
 * Streams that are read by query beside streams of the log, in one pipeline: they do not touch one another, and a table can go over from one to the other.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const line = (sql: string, tables: string): Promise<FreshLine> => freshLine({ source, target }, sql, { tables });

async function expectEqual(run: FreshLine, ...tables: readonly string[]): Promise<void> {
  await run.settle();
  for (const table of tables) {
    const { source: wanted, target: found } = await run.line.both(table);
    expect({ table, rows: found }).toEqual({ table, rows: wanted });
  }
}

test('tables.replication_method, tables.replication_key: three methods in one pipeline', async () => {
  await using run = await line(
    `CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, k int); CREATE TABLE c (id int PRIMARY KEY);
     INSERT INTO a VALUES (1, 'a'); INSERT INTO b VALUES (1, 1); INSERT INTO c VALUES (1);
     CREATE VIEW d AS SELECT count(*) AS n FROM a`,
    `[public.*, { table: public.b, replication_method: INCREMENTAL, replication_key: k }, { table: public.c, replication_method: FULL_TABLE },
      { table: public.d, replication_method: FULL_TABLE }]`,
  );
  const tables = ['public.a', 'public.b', 'public.c', 'public.d'];
  await expectEqual(run, ...tables);
  for (let i = 2; i < 5; i++) {
    await run.from.query(
      `INSERT INTO a VALUES (${i}, 'a'); INSERT INTO b VALUES (${i}, ${i}); DELETE FROM c; INSERT INTO c VALUES (${i})`,
    );
    await expectEqual(run, ...tables);
  }
  const { rows } = await run.from.query<{ tablename: string }>('SELECT tablename FROM pg_publication_tables');
  expect(rows.map(({ tablename }) => tablename)).toEqual(['a']);
  // No cut has anything of the others.
  const streams = new Set(run.line.durable.chain.flatMap((cut) => [...Object.keys(cut.streams), ...cut.captures]));
  expect([...streams]).toEqual([run.line.bookmark('public.a').stream]);
});

test('a table goes over from the log to queries and back, and is copied anew each time', async () => {
  const BY_LOG = '[public.t, public.other]';
  const BY_QUERY = '[{ table: public.t, replication_method: FULL_TABLE }, public.other]';
  await using run = await line(
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE TABLE other (id int PRIMARY KEY)",
    BY_LOG,
  );
  await expectEqual(run, 'public.t');
  run.line.configure({ tables: BY_QUERY });
  await run.from.query("UPDATE t SET v = 'q' WHERE id = 1; DELETE FROM t WHERE id = 2");
  await expectEqual(run, 'public.t');
  expect(run.line.bookmark('public.t')).toMatchObject({ method: 'FULL_TABLE', state: 'live' });
  await run.from.query("INSERT INTO t VALUES (3, 'c'); INSERT INTO other VALUES (1)");
  await expectEqual(run, 'public.t', 'public.other');
  run.line.configure({ tables: BY_LOG });
  await run.from.query("INSERT INTO t VALUES (4, 'd')");
  await expectEqual(run, 'public.t');
  expect(run.line.bookmark('public.t')).toMatchObject({ method: 'LOG_BASED', state: 'live', replication: null });
  const copies = run.line.durable.epochs.size;
  await run.from.query("INSERT INTO t VALUES (5, 'e')");
  await expectEqual(run, 'public.t');
  expect(run.line.durable.epochs.size).toBe(copies);
});

test('a pipeline that only reads by query gets its slot when a table of the log comes', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (7)',
    '[{ table: public.t, replication_method: FULL_TABLE }]',
  );
  await expectEqual(run, 'public.t');
  expect(run.line.durable.chain).toHaveLength(1);
  run.line.configure({ tables: '[{ table: public.t, replication_method: FULL_TABLE }, public.n]' });
  await expectEqual(run, 'public.t', 'public.n');
  await run.from.query('INSERT INTO n VALUES (8); INSERT INTO t VALUES (2)');
  await expectEqual(run, 'public.t', 'public.n');
});

test('a table that is dropped halts its stream; the next of its name is copied anew', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE TABLE o (id int PRIMARY KEY)',
    "[{ table: 'public.*', replication_method: FULL_TABLE }]",
  );
  await expectEqual(run, 'public.t');
  await run.from.query('DROP TABLE t');
  await expect(run.settle()).rejects.toThrow('TABLE_DROPPED');
  await run.from.query('CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (2, $$x$$)');
  await expectEqual(run, 'public.t');
});
