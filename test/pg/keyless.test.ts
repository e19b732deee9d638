/**
 * Tables without a key, between two real servers: as many copies of each row as the source has, also where others write while the table is copied; and
 * tables to which the source only adds, as far as the log can tell.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { doctor } from '../../lib/doctor/doctor.ts';
import { SluiceError } from '../../lib/errors.ts';
import { duringWindow } from '../support/during-window.ts';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

let source: TestPostgres;
let target: TestPostgres;
let admin: pg.Client;
let there: pg.Client;
let databases = 0;
/** More versions, kinds of publication and copies: SLUICE_KEYLESS=full. */
const FULL = process.env.SLUICE_KEYLESS === 'full';
const COPIES = FULL ? 4 : 2;
/** Of a writer between two transactions. */
const PAUSE_MS = 15;
beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ settings: { max_replication_slots: '8', max_wal_senders: '12' } }),
    startPostgres(),
  ]);
});
afterAll(async () => {
  await source.stop();
  await target.stop();
});

/** A line between two fresh databases, with `primary_key_required: false` unless told otherwise. */
async function lineFor(ddl: string, options = 'primary_key_required: false', tables = '[public.*]'): Promise<Line> {
  const database = `d${++databases}`;
  for (const server of [source, target]) {
    const client = await server.connect();
    await client.query(`CREATE DATABASE ${database}`);
    await client.end();
  }
  admin = await source.connect(database);
  there = await target.connect(database);
  await admin.query(ddl);
  return await openLine({
    source: { ...source, database },
    target: { ...target, database },
    pipeline: database,
    config: { tables, target: options },
  });
}

/** `row text → copies`, of what is not marked as deleted. */
async function copies(client: pg.Client, table: string, columns = '*'): Promise<unknown[]> {
  const alive = await client.query<{ marks: boolean }>(
    "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::regclass AND attname = '_sdc_deleted_at') AS marks",
    [table],
  );
  const where = alive.rows[0]?.marks ? 'WHERE _sdc_deleted_at IS NULL' : '';
  const { rows } = await client.query(
    `SELECT t::text AS row, count(*)::int AS copies FROM (SELECT ${columns} FROM ${table} ${where}) t GROUP BY 1 ORDER BY 1`,
  );
  return rows;
}

async function same(table: string, columns: string): Promise<void> {
  expect(await copies(there, table, columns)).toEqual(await copies(admin, table, columns));
}

describe('with REPLICA IDENTITY FULL', () => {
  test('primary_key_required: false keeps every copy of every row, through copy, changes, truncate and reset', async () => {
    await using line = await lineFor(`
      CREATE TABLE t (a int, b text, j json, x xml, p point, n numeric, f float8, c char(5), d bpchar);
      ALTER TABLE t REPLICA IDENTITY FULL;
      INSERT INTO t SELECT 1, 'x', '{"a":  1}', '<a/>', '(1,2)', 1.0, '-0', 'c', 'c ' FROM generate_series(1, 3);
      INSERT INTO t SELECT 1, 'x', '{"a": 1}', '<a/>', '(1,2)', 1.00, '0', 'c', 'c';
      INSERT INTO t (b) VALUES (''), (NULL), ('');
      INSERT INTO t DEFAULT VALUES;`);
    const columns = 'a, b, j, x, p, n, f, c, d';
    await line.settle();
    await same('t', columns);

    await admin.query("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE n::text = '1.0')");
    await admin.query(`UPDATE t SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM t WHERE n::text = '1.0')`);
    await admin.query("UPDATE t SET b = NULL WHERE b = ''; INSERT INTO t (b) VALUES ('y'), ('y'), (E'a\\tb\\\\\\n')");
    await line.settle();
    await same('t', columns);

    await admin.query("TRUNCATE t; INSERT INTO t (b) VALUES ('after'), ('after')");
    await line.settle();
    await same('t', columns);

    await admin.query('UPDATE t SET a = 7; DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)');
    line.durable.bookmarks.set(line.bookmark('public.t').stream, {
      ...line.bookmark('public.t'),
      reset_requested: true,
    });
    await admin.query("INSERT INTO t (b) VALUES ('again')");
    await line.settle();
    await same('t', columns);
    expect(line.bookmark('public.t')).toMatchObject({ halt: null, state: 'live', epoch: 2 });
  });

  test('a value outside its row that an update leaves alone, and one of megabytes', async () => {
    await using line = await lineFor(`
      CREATE TABLE t (a int, big text);
      ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
      ALTER TABLE t REPLICA IDENTITY FULL;
      INSERT INTO t VALUES (1, repeat('x', 100000)), (1, repeat('x', 100000)), (2, repeat('y', 2000000));`);
    await line.settle();
    await admin.query('UPDATE t SET a = a + 10 WHERE a = 2');
    await admin.query('UPDATE t SET a = 5 WHERE ctid = (SELECT min(ctid) FROM t WHERE a = 1)');
    await admin.query("INSERT INTO t VALUES (9, repeat('z', 3000000)); DELETE FROM t WHERE a = 9");
    await line.settle();
    await same('t', 'a, md5(big) AS big');
  });

  test('a table without columns, and one that gets its first', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t DEFAULT VALUES',
    );
    await line.settle();
    const count = async (client: pg.Client) => (await client.query('SELECT count(*)::int AS n FROM t')).rows;
    expect(await count(there)).toEqual([{ n: 1 }]);
    await admin.query('INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES');
    await line.settle();
    expect(await count(there)).toEqual([{ n: 3 }]);
    await admin.query(
      'ALTER TABLE t ADD COLUMN a int; INSERT INTO t VALUES (4), (4); UPDATE t SET a = 4 WHERE ctid = (SELECT min(ctid) FROM t)',
    );
    await line.settle();
    await same('t', 'a');
  });

  test('exactly so where others write while it is copied', async () => {
    await using line = await lineFor(`
      CREATE TABLE t (a int, b text);
      ALTER TABLE t REPLICA IDENTITY FULL;
      INSERT INTO t SELECT i % 10, 'x' FROM generate_series(1, 500) i;`);
    const state = { open: true, transactions: 0 };
    const write = async (seed: number): Promise<void> => {
      const client = await source.connect(admin.database ?? '');
      for (let i = seed; state.open; i += 3) {
        await client.query('BEGIN');
        await client.query('INSERT INTO t VALUES ($1, $2), ($1, $2)', [i % 10, 'x']);
        await client.query(
          'DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE a = $1 LIMIT 1 FOR UPDATE SKIP LOCKED)',
          [(i + 1) % 10],
        );
        await client.query(
          'UPDATE t SET a = (a + 1) % 10 WHERE ctid = (SELECT ctid FROM t WHERE a = $1 LIMIT 1 FOR UPDATE SKIP LOCKED)',
          [(i + 2) % 10],
        );
        await client.query(i % 4 === 0 ? 'ROLLBACK' : 'COMMIT');
        state.transactions++;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
      await client.end();
    };
    const writers = [write(0), write(1), write(2)];
    try {
      for (let copy = 0; copy < COPIES; copy++) {
        for (let windows = 0; windows < 4; windows++) {
          await line.window();
          await line.pump();
        }
        const bookmark = line.bookmark('public.t');
        expect(bookmark.halt).toBeNull();
        line.durable.bookmarks.set(bookmark.stream, { ...bookmark, reset_requested: true });
      }
    } finally {
      state.open = false;
      await Promise.all(writers);
    }
    await line.settle();
    await same('t', 'a, b');
    expect(line.bookmark('public.t').epoch).toBe(COPIES + 1);
    expect(state.transactions).toBeGreaterThan(20);
  });

  test('a loader that is rung again, and one that dies, change nothing twice', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (1), (1)',
    );
    await line.settle();
    await admin.query('DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t); INSERT INTO t VALUES (2), (2)');
    await line.window();
    const bells = [...line.durable.loadBells];
    await line.pump();
    const bookmark = line.bookmark('public.t');
    // As a loader leaves it that died after its commit: the mirror is behind, and the bells come again.
    line.durable.bookmarks.set(bookmark.stream, { ...bookmark, applied_cut: bookmark.applied_cut - 1 });
    line.durable.loadBells.push(...bells, ...bells);
    await line.pump();
    await same('t', 'a');
  });

  test('whatever fails between two writes, no copy comes twice and none is lost', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (1), (1)',
    );
    const failures: string[] = [];
    for (const call of [
      'append',
      'openEpoch',
      'updateEpoch',
      'stageChunk',
      'markChunkLoaded',
      'updateBookmark',
      'append',
      'updateBookmark',
    ]) {
      await admin.query(
        'INSERT INTO t VALUES (2), (2), (1); DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t); UPDATE t SET a = a + 1 WHERE a = 2',
      );
      line.world.faults.set(
        `ledger.${call}`,
        new SluiceError('AWS_TRANSIENT', { service: 'a test', operation: call, reason: 'told to' }),
      );
      for (let round = 0; round < 2; round++) {
        await line.window().catch(() => failures.push(call));
        await line.pump().catch(() => failures.push(call));
      }
      line.world.faults.delete(`ledger.${call}`);
    }
    await line.settle();
    await same('t', 'a');
    expect(line.bookmark('public.t').halt).toBeNull();
    // Each was met at least once.
    expect(new Set(failures)).toEqual(
      new Set(['append', 'openEpoch', 'updateEpoch', 'stageChunk', 'markChunkLoaded', 'updateBookmark']),
    );
  });

  test('soft deletes mark as many copies as were deleted, and updates replace', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (1), (1)',
      'primary_key_required: false, hard_delete: false, add_metadata_columns: true',
    );
    await line.settle();
    await admin.query('DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)');
    await admin.query('UPDATE t SET a = 2 WHERE ctid = (SELECT min(ctid) FROM t); INSERT INTO t VALUES (3)');
    await admin.query('DELETE FROM t WHERE a = 3');
    await line.settle();
    await same('t', 'a');
    const marked =
      'SELECT a, _sdc_extracted_at IS NOT NULL AS told FROM t WHERE _sdc_deleted_at IS NOT NULL ORDER BY a';
    expect((await there.query(marked)).rows).toEqual([
      { a: 1, told: true },
      { a: 3, told: true },
    ]);
  });

  test('a copy that is missing on the target is seen', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (1)',
    );
    await line.settle();
    await there.query('DELETE FROM t');
    await admin.query('DELETE FROM t');
    await line.settle();
    expect(line.bookmark('public.t').halt).toMatchObject({
      code: 'ROWS_UNKNOWN',
      message: expect.stringContaining('2 rows'),
    });
  });

  test('a key that it gets later, and loses again', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (2)',
    );
    await line.settle();
    await admin.query('ALTER TABLE t ADD PRIMARY KEY (a); INSERT INTO t VALUES (3); UPDATE t SET a = 4 WHERE a = 1');
    await line.settle();
    await same('t', 'a');
    const keys = "SELECT count(*)::int AS n FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'p'";
    expect((await there.query(keys)).rows).toEqual([{ n: 1 }]);
    await admin.query('ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (4), (4)');
    await line.settle();
    await same('t', 'a');
    expect((await there.query(keys)).rows).toEqual([{ n: 0 }]);
  });

  test('a source without a free slot for the copy says so, halts nobody, and is asked again', async () => {
    await using line = await lineFor(
      'CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1), (1)',
    );
    await line.window();
    const { rows } = await admin.query<{ free: number }>(
      "SELECT current_setting('max_replication_slots')::int - count(*)::int AS free FROM pg_replication_slots",
    );
    const names = Array.from({ length: rows[0]?.free ?? 0 }, (_, i) => `taken_${i}`);
    for (const name of names) await admin.query('SELECT pg_create_physical_replication_slot($1)', [name]);
    try {
      await expect(line.pump()).rejects.toMatchObject({ code: 'SLOTS_EXHAUSTED' });
      expect(line.bookmark('public.t').halt).toBeNull();
    } finally {
      for (const name of names) await admin.query('SELECT pg_drop_replication_slot($1)', [name]);
    }
    await line.settle();
    await same('t', 'a');
  });
});

describe('a key that is dropped in the middle of a window', () => {
  test.each([
    ['with REPLICA IDENTITY FULL', 'ALTER TABLE t REPLICA IDENTITY FULL;'],
    ['without it', ''],
  ])('%s: the table is copied anew, and nobody need ask for it', async (_, identity) => {
    await using line = await lineFor('CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1)');
    await line.settle();
    await duringWindow(
      line,
      { server: source, on: admin },
      `ALTER TABLE t DROP CONSTRAINT t_pkey; ${identity} INSERT INTO t VALUES (1, 1), (2, 2)`,
    );
    expect(line.bookmark('public.t').halt).toBeNull();
    await line.settle();
    await same('t', 'a, b');
    await admin.query('INSERT INTO t VALUES (2, 2)');
    await line.settle();
    await same('t', 'a, b');
    expect(line.bookmark('public.t')).toMatchObject({ halt: null, epoch: 2 });
  });

  test('where a key is required it halts', async () => {
    await using line = await lineFor('CREATE TABLE t (a int PRIMARY KEY)', 'primary_key_required: true');
    await line.settle();
    await duringWindow(
      line,
      { server: source, on: admin },
      'ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (1)',
    );
    expect(line.bookmark('public.t').halt).toMatchObject({ code: 'SHAPE_CHANGED' });
  });
});

const PUBLICATIONS = [
  ['FOR ALL TABLES', 'FOR ALL TABLES'],
  ['by schema', 'FOR TABLES IN SCHEMA public'],
] as const;

describe('without it', () => {
  test('what is added comes, updates and deletes of the source go on and are not followed', async () => {
    await using line = await lineFor(`
      CREATE TABLE log (a int, b text);
      INSERT INTO log VALUES (1, 'x'), (1, 'x');
      CREATE TABLE nothing (a int PRIMARY KEY);
      ALTER TABLE nothing REPLICA IDENTITY NOTHING;
      INSERT INTO nothing VALUES (1);
      CREATE TABLE keyed (a int PRIMARY KEY);
      INSERT INTO keyed VALUES (1);`);
    await line.settle();
    await same('log', 'a, b');
    await admin.query("UPDATE log SET b = 'y'; DELETE FROM log; INSERT INTO log VALUES (2, NULL), (2, NULL)");
    await admin.query(
      'UPDATE nothing SET a = 2; INSERT INTO nothing VALUES (3); DELETE FROM nothing; INSERT INTO nothing VALUES (3)',
    );
    await admin.query('UPDATE keyed SET a = 2');
    await line.settle();
    expect(await copies(there, 'log', 'a, b')).toEqual([
      { row: '(1,x)', copies: 2 },
      { row: '(2,)', copies: 2 },
    ]);
    expect(await copies(there, 'nothing', 'a')).toEqual([
      { row: '(1)', copies: 1 },
      { row: '(3)', copies: 2 },
    ]);
    await same('keyed', 'a');
    await admin.query('TRUNCATE log; INSERT INTO log VALUES (9)');
    await line.settle();
    expect(await copies(there, 'log', 'a')).toEqual([{ row: '(9)', copies: 1 }]);
    const names = 'SELECT pubname, pubupdate, pubtruncate FROM pg_publication ORDER BY 1';
    const { publication_name } = line.pipeline.source;
    expect((await admin.query(names)).rows).toEqual([
      { pubname: publication_name, pubupdate: true, pubtruncate: true },
      { pubname: `${publication_name}_append`, pubupdate: false, pubtruncate: true },
    ]);
    const warned = line.log.lines.filter(({ event }) => event === 'append_only').map(({ facts }) => facts?.table);
    expect(warned.map(String).toSorted((a, b) => (a < b ? -1 : 1))).toEqual(['public.log', 'public.nothing']);
  });

  test('a first one that comes to a pipeline that runs, and one that is FULL from then on', async () => {
    await using line = await lineFor('CREATE TABLE keyed (a int PRIMARY KEY); INSERT INTO keyed VALUES (1)');
    await line.settle();
    // The slot stands before the second publication is made.
    await admin.query(
      'INSERT INTO keyed VALUES (2); CREATE TABLE log (a int); INSERT INTO log VALUES (1); INSERT INTO keyed VALUES (3)',
    );
    await line.settle();
    await same('log', 'a');
    await same('keyed', 'a');
    await admin.query('CREATE TABLE more (a int); INSERT INTO more VALUES (1); INSERT INTO log VALUES (2)');
    await line.settle();
    await same('log', 'a');
    await same('more', 'a');
    await admin.query('UPDATE log SET a = 5; ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log VALUES (6)');
    await line.settle();
    await admin.query('UPDATE log SET a = a + 1');
    await line.settle();
    await same('log', 'a');
  });

  test.each(FULL ? PUBLICATIONS : PUBLICATIONS.slice(0, 1))(
    'a publication that was made %s keeps its updates refused, and window and doctor say so',
    async (_, tables) => {
      await using line = await lineFor(`
      CREATE TABLE log (a int); INSERT INTO log VALUES (1); CREATE TABLE keyed (a int PRIMARY KEY);
      CREATE PUBLICATION sluice_d${databases + 1} ${tables}`);
      const { publication_name } = line.pipeline.source;
      const finding = {
        problem: `Publication ${publication_name} holds public.log, which has neither a key nor REPLICA IDENTITY FULL: the source refuses every update and delete of it.`,
        remedy: expect.stringContaining('Run: ALTER TABLE "public"."log" REPLICA IDENTITY FULL') as string,
      };
      const told = () => line.log.lines.filter(({ event }) => event === 'updates_refused');
      const connect = async () => await source.connect(line.pipeline.source.database);
      const found = async () =>
        (
          await doctor({ pipeline: line.pipeline, connect: { source: connect, replication: connect, target: connect } })
        ).filter(({ subject, check }) => subject === 'table public.log' && check === 'publication');
      await line.settle();
      await expect(admin.query('UPDATE log SET a = 2')).rejects.toMatchObject({ code: '55000' });
      expect(told()[0]).toMatchObject({ facts: { table: 'public.log', ...finding } });
      expect(await found()).toContainEqual(
        expect.objectContaining({ check: 'publication', severity: 'warning', ...finding }),
      );
      await admin.query('ALTER TABLE log REPLICA IDENTITY FULL');
      const before = told().length;
      await line.settle();
      await admin.query('UPDATE log SET a = 2; UPDATE keyed SET a = 2');
      await line.settle();
      await same('log', 'a');
      expect(told()).toHaveLength(before);
      expect(await found()).toEqual([]);
    },
  );

  test('a table that loses its key goes over, and the source takes its updates again', async () => {
    await using line = await lineFor('CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1)');
    await line.settle();
    await admin.query('ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (1, 2)');
    await expect(admin.query('UPDATE t SET b = 3')).rejects.toMatchObject({ code: '55000' });
    await line.settle();
    await admin.query('UPDATE t SET b = 3; INSERT INTO t VALUES (4, 4)');
    await line.settle();
    expect(await copies(there, 't', 'a, b')).toEqual([
      { row: '(1,1)', copies: 1 },
      { row: '(1,2)', copies: 1 },
      { row: '(4,4)', copies: 1 },
    ]);
    expect(line.bookmark('public.t').halt).toBeNull();
  });
});

test('partitioned tables are one stream, whole or appended to', async () => {
  await using line = await lineFor(`
    CREATE TABLE bag (a int) PARTITION BY RANGE (a);
    CREATE TABLE bag_1 PARTITION OF bag FOR VALUES FROM (0) TO (10);
    CREATE TABLE bag_2 PARTITION OF bag FOR VALUES FROM (10) TO (20);
    ALTER TABLE bag REPLICA IDENTITY FULL; ALTER TABLE bag_1 REPLICA IDENTITY FULL; ALTER TABLE bag_2 REPLICA IDENTITY FULL;
    CREATE TABLE log (a int) PARTITION BY RANGE (a);
    CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
    INSERT INTO bag VALUES (1), (1), (15); INSERT INTO log VALUES (1), (1);`);
  await line.settle();
  await same('bag', 'a');
  await same('log', 'a');
  await admin.query(
    'UPDATE bag SET a = 16 WHERE ctid = (SELECT min(ctid) FROM bag_1) AND a = 1; DELETE FROM bag WHERE a = 15',
  );
  await admin.query('INSERT INTO bag VALUES (1), (16); INSERT INTO log VALUES (2); UPDATE log SET a = 3 WHERE a = 2');
  await line.settle();
  await same('bag', 'a');
  expect(await copies(there, 'log', 'a')).toEqual([
    { row: '(1)', copies: 2 },
    { row: '(2)', copies: 1 },
  ]);
  expect([...line.durable.bookmarks.values()].map(({ table }) => table.table)).toEqual(['bag', 'log']);
});

const VERSIONS = [
  [10, 18],
  [14, 18],
  [18, 10],
] as const;

describe.each(FULL ? VERSIONS : VERSIONS.slice(0, 1))('PostgreSQL %i to %i', (from, to) => {
  test.skipIf(!MAJORS_HERE.includes(from) || !MAJORS_HERE.includes(to))(
    'copy and changes',
    { timeout: 120_000 },
    async () => {
      await using older = await startPostgres({ version: from });
      await using newer = await startPostgres({ version: to });
      const [here, over] = [await older.connect(), await newer.connect()];
      await here.query(`
      CREATE TABLE bag (a int, b json); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES (1, '{}'), (1, '{}'), (NULL, NULL);
      CREATE TABLE log (a int); INSERT INTO log VALUES (1);`);
      await using line = await openLine({
        source: older,
        target: newer,
        config: { target: 'primary_key_required: false' },
      });
      await line.settle();
      await here.query(`
      UPDATE bag SET a = 2 WHERE ctid = (SELECT min(ctid) FROM bag); DELETE FROM bag WHERE a IS NULL; INSERT INTO bag VALUES (1, '{}'), (3, '[]');
      UPDATE log SET a = 9; INSERT INTO log VALUES (2);`);
      await line.settle();
      expect(await copies(over, 'bag', 'a, b')).toEqual(await copies(here, 'bag', 'a, b'));
      expect(await copies(over, 'log', 'a')).toEqual([
        { row: '(1)', copies: 1 },
        { row: '(2)', copies: 1 },
      ]);
    },
  );
});

test('target.primary_key_required: are refused where a key is required, and the refusal names the option', async () => {
  await using line = await lineFor('CREATE TABLE t (a int)', '', '[public.t]');
  await expect(line.window()).rejects.toThrow('TABLE_WITHOUT_KEY');
});
