/**
 * Row filters (`where`), by the whole line: the same rows in copies and in the log, updates that move a row in and out, a filter that changes, publications that are
 * not ours, and what is refused.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { columnsOf } from '../support/compare.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);

afterAll(async () => {
  await source?.stop();
  await target?.stop();
});

const open = (sql: string, tables: string, more = ''): Promise<FreshLine> =>
  freshLine({ source, target }, sql, { tables, target: more });

/** Replicates, and compares the target's whole table with the source's rows under `where`. */
async function filtered(fresh: FreshLine, table: string, where: string): Promise<string[]> {
  await fresh.settle();
  const columns = await columnsOf(fresh.from, { schema: 'public', table });
  const list = columns.map((name) => `left(${name}::text, 40)`).join(', ');
  const textOf = async (side: 'from' | 'to', condition: string): Promise<string[]> => {
    const { rows } = await fresh[side].query<{ row: string }>(
      `SELECT concat_ws('|', ${list}) AS row FROM ${table} WHERE ${condition} ORDER BY 1`,
    );
    return rows.map(({ row }) => row);
  };
  const there = await textOf('to', 'true');
  expect(there).toEqual(await textOf('from', where));
  return there;
}

const EU = '[{ table: public.t, where: "region = \'eu\' -- of Europe" }]';
const TABLE = `CREATE TABLE t (id int, region text, v text, big text, PRIMARY KEY (id)); ALTER TABLE t REPLICA IDENTITY FULL;
  ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
  INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, 'v' || i, repeat('b', 3000) FROM generate_series(1, 20) i`;

test('tables.where: rows come and go with the filter, by copies and by the log', async () => {
  await using fresh = await open(TABLE, EU);
  expect(await filtered(fresh, 't', "region = 'eu'")).toHaveLength(10);
  await fresh.from.query(`
    INSERT INTO t VALUES (100, 'eu', 'new'), (101, 'us', 'new'), (102, NULL, 'new');
    UPDATE t SET v = 'x' WHERE id < 5; UPDATE t SET region = 'eu' WHERE id IN (1, 102); UPDATE t SET region = 'us' WHERE id = 2;
    UPDATE t SET id = id + 1000 WHERE id IN (6, 7); DELETE FROM t WHERE id IN (8, 9)`);
  expect(await filtered(fresh, 't', "region = 'eu'")).toHaveLength(11);
  await fresh.from.query("TRUNCATE t; INSERT INTO t VALUES (1, 'eu'), (2, 'us')");
  expect(await filtered(fresh, 't', "region = 'eu'")).toHaveLength(1);
});

test('a filter over the key: a row that comes in by a change of its key brings the values that the log leaves out', async () => {
  await using fresh = await open(
    `CREATE TABLE t (id int PRIMARY KEY, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
     INSERT INTO t SELECT i, repeat('b', 3000) || i FROM generate_series(1, 20) i`,
    '[{ table: public.t, where: id > 10 }]',
  );
  await filtered(fresh, 't', 'id > 10');
  await fresh.from.query(
    'UPDATE t SET id = 100 WHERE id = 1; UPDATE t SET id = 2000 WHERE id = 20; UPDATE t SET id = 0 WHERE id = 15',
  );
  expect(await filtered(fresh, 't', 'id > 10')).toHaveLength(10);
});

test('another filter, and none: the stream is captured anew, and that is said', async () => {
  await using fresh = await open(TABLE, EU);
  await filtered(fresh, 't', "region = 'eu'");
  fresh.line.configure({ tables: '[{ table: public.t, where: "region = \'us\'" }]' });
  await fresh.from.query("UPDATE t SET v = 'while it changed'");
  await filtered(fresh, 't', "region = 'us'");
  expect(JSON.stringify(fresh.line.log.lines)).toContain('row filter');
  await fresh.from.query("UPDATE t SET region = 'us' WHERE id = 2; UPDATE t SET region = 'eu' WHERE id = 3");
  await filtered(fresh, 't', "region = 'us'");
  fresh.line.configure({ tables: '[public.t]' });
  expect(await filtered(fresh, 't', 'true')).toHaveLength(20);
  await fresh.from.query("INSERT INTO t VALUES (300, 'asia'); UPDATE t SET region = 'none' WHERE id < 10");
  expect(await filtered(fresh, 't', 'true')).toHaveLength(21);
  // What was captured so is not captured again.
  const { captured_cut } = fresh.line.bookmark('public.t');
  await fresh.settle();
  expect(fresh.line.bookmark('public.t').captured_cut).toBe(captured_cut);
});

test('another filter that differs by the blanks in a string is another filter', async () => {
  await using fresh = await open(
    `${TABLE}; UPDATE t SET region = 'a  b' WHERE id < 5; UPDATE t SET region = 'a b' WHERE id > 15`,
    '[{ table: public.t, where: "region = \'a  b\'" }]',
  );
  expect(await filtered(fresh, 't', "region = 'a  b'")).toHaveLength(4);
  fresh.line.configure({ tables: '[{ table: public.t, where: "region = \'a b\'" }]' });
  expect(await filtered(fresh, 't', "region = 'a b'")).toHaveLength(5);
  await fresh.from.query("INSERT INTO t VALUES (100, 'a b'), (101, 'a  b')");
  expect(await filtered(fresh, 't', "region = 'a b'")).toHaveLength(6);
});

test('somebody else changes the filter: it is set again, and the stream captured anew', async () => {
  await using fresh = await open(TABLE, EU);
  await filtered(fresh, 't', "region = 'eu'");
  const { publication_name } = fresh.line.pipeline.source;
  await fresh.from.query(`ALTER PUBLICATION ${publication_name} SET TABLE ONLY t WHERE (region = 'us')`);
  await fresh.from.query("INSERT INTO t VALUES (100, 'eu'), (101, 'us')");
  await filtered(fresh, 't', "region = 'eu'");
});

test('partitions, bags of rows, and tables that are only appended to', async () => {
  await using fresh = await open(
    `CREATE TABLE p (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
     CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu'); CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('us');
     CREATE TABLE bag (a int, region text); ALTER TABLE bag REPLICA IDENTITY FULL;
     CREATE TABLE app (a int, region text);
     INSERT INTO p SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, 6) i;
     INSERT INTO bag SELECT i % 2, CASE WHEN i % 3 = 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, 9) i;
     INSERT INTO app SELECT * FROM bag`,
    `[${['p', 'bag', 'app'].map((name) => `{ table: public.${name}, where: "region = 'eu'" }`).join(', ')}]`,
    'primary_key_required: false',
  );
  const check = async (): Promise<void> => {
    for (const table of ['p', 'bag']) await filtered(fresh, table, "region = 'eu'");
  };
  await check();
  await filtered(fresh, 'app', "region = 'eu'");
  await fresh.from.query(`
    UPDATE p SET region = 'eu' WHERE id = 1; UPDATE p SET region = 'us' WHERE id = 2; INSERT INTO p VALUES (10, 'eu'), (11, 'us');
    UPDATE bag SET region = 'eu' WHERE a = 1; UPDATE bag SET a = 5 WHERE region = 'eu'; DELETE FROM bag WHERE a = 0;
    INSERT INTO app VALUES (7, 'eu'), (8, 'us')`);
  await check();
  await filtered(fresh, 'app', "region = 'eu'");
});

describe('a publication that is not ours', () => {
  const HOLDER = 'CREATE ROLE holder; GRANT CREATE ON DATABASE postgres TO holder';

  test('without the filter, or with another: its owner is told what to run, and then it is used as it is', async () => {
    await using fresh = await open(
      `DO $$ BEGIN ${HOLDER}; EXCEPTION WHEN duplicate_object THEN NULL; END $$; ${TABLE}`,
      EU,
    );
    const { publication_name } = fresh.line.pipeline.source;
    await fresh.from
      .query(
        `CREATE PUBLICATION ${publication_name} FOR TABLE ONLY t; ALTER PUBLICATION ${publication_name} OWNER TO holder`,
      )
      .catch(async (error: unknown) => {
        // The new owner needs the right to make publications in this database.
        await fresh.from.query(
          `ROLLBACK; DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO holder', current_database()); END $$`,
        );
        if (!(error instanceof Error)) throw error;
        await fresh.from.query(
          `CREATE PUBLICATION ${publication_name} FOR TABLE ONLY t; ALTER PUBLICATION ${publication_name} OWNER TO holder`,
        );
      });
    const failed = await fresh.line.window().catch((error: unknown) => String(error));
    expect(failed).toContain('PUBLICATION_INCOMPLETE');
    const { rows } = await fresh.from.query<{ rows: number }>(
      'SELECT count(*)::int AS rows FROM pg_publication_rel WHERE prqual IS NULL',
    );
    expect(rows).toEqual([{ rows: 1 }]);
    await fresh.from.query(`ALTER PUBLICATION ${publication_name} SET TABLE ONLY t WHERE (region = 'eu')`);
    await filtered(fresh, 't', "region = 'eu'");
  });

  test('of all tables, which takes no filter: refused', async () => {
    await using fresh = await open(TABLE, EU);
    await fresh.from.query(`CREATE PUBLICATION ${fresh.line.pipeline.source.publication_name} FOR ALL TABLES`);
    await expect(fresh.line.window()).rejects.toThrow(/ROW_FILTER.*without a filter/u);
  });
});

describe('what cannot be followed is refused', () => {
  test('columns that the replica identity does not have, before anything is published', async () => {
    await using fresh = await open(
      "CREATE TABLE t (id int PRIMARY KEY, region text); INSERT INTO t VALUES (1, 'eu')",
      EU,
    );
    await expect(fresh.line.window()).rejects.toThrow(/ROW_FILTER.*looks at region/u);
    await fresh.from.query(
      "UPDATE t SET region = 'us'; ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET region = 'eu'",
    );
    expect(await filtered(fresh, 't', "region = 'eu'")).toHaveLength(1);
    // And when it is lost later: the source is not made to refuse updates for longer than it takes to see it.
    await fresh.from.query('ALTER TABLE t REPLICA IDENTITY DEFAULT');
    await fresh.line.window();
    expect(fresh.line.bookmark('public.t').halt).toMatchObject({ code: 'ROW_FILTER' });
    await fresh.from.query("ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (2, 'eu'), (3, 'us')");
    expect(await filtered(fresh, 't', "region = 'eu'")).toHaveLength(2);
  });

  test('what is no condition', async () => {
    await using fresh = await open(TABLE, '[{ table: public.t, where: "regio = 1" }]');
    await expect(fresh.line.window()).rejects.toThrow(/ROW_FILTER/u);
  });

  test('a source before 15', async () => {
    const old = await startPostgres({ version: 14 });
    try {
      await using fresh = await freshLine({ source: old, target }, TABLE, { tables: EU });
      await expect(fresh.line.window()).rejects.toThrow(/ROW_FILTER.*PostgreSQL 14/u);
    } finally {
      await old.stop();
    }
  });
});
