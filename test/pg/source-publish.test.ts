/** Capturing a stream, by a plain role: publication, slot, and the writers that a copy must wait for (I11). */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { SluiceError } from '../../lib/errors.ts';
import { parseLsn } from '../../lib/lsn.ts';
import type { Source, SourceTable } from '../../lib/ports.ts';
import type { Connection } from '../../lib/postgres/connection.ts';
import { postgresSource } from '../../lib/slot/source.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { connectTo, makeRole, ROLE_SQL } from '../support/source-role.ts';
import { sourceTable } from '../support/source-tables.ts';

const PUBLICATION = 'Sluice "pub"';
const PUBLICATION_SQL = '"Sluice ""pub"""';
const SLOT = 'sluice_test';
const ODD = sourceTable('Sché-ma.ta"ble.1');

let server: TestPostgres;
let admin: pg.Client;
beforeAll(async () => {
  server = await startPostgres({ settings: { max_prepared_transactions: '4', max_replication_slots: '2' } });
  admin = await server.connect();
  await makeRole(server);
  await admin.query(`
    GRANT CREATE ON DATABASE postgres TO ${ROLE_SQL}; CREATE SCHEMA "Sché-ma" AUTHORIZATION ${ROLE_SQL};
    CREATE TABLE a (id int PRIMARY KEY, t text); ALTER TABLE a OWNER TO ${ROLE_SQL};
    CREATE TABLE b (id int PRIMARY KEY, t text); ALTER TABLE b OWNER TO ${ROLE_SQL};
    CREATE TABLE "Sché-ma"."ta""ble.1" (id int PRIMARY KEY); ALTER TABLE "Sché-ma"."ta""ble.1" OWNER TO ${ROLE_SQL};
    CREATE TABLE foreign_owned (id int PRIMARY KEY)`);
});
afterAll(async () => {
  await admin.end();
  await server.stop();
});
afterEach(async () => {
  await admin.query(`DROP PUBLICATION IF EXISTS ${PUBLICATION_SQL}`);
  await admin.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
});

const source = (wait_ms = 60_000, overrides: Partial<Connection> = {}, failover = false): Source =>
  postgresSource({
    connect: connectTo(server, overrides),
    openSlot: () => Promise.reject(new Error('not read here')),
    config: { database: 'postgres', replication_slot: SLOT, publication_name: PUBLICATION, failover },
    create_slot_wait_ms: wait_ms,
  });
const name = (table: string): SourceTable => sourceTable(`public.${table}`);
const faultOf = async (failing: Promise<unknown>): Promise<SluiceError> =>
  await failing.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: SluiceError) => error,
  );

describe('publish', () => {
  const published = async () =>
    (
      await admin.query<{ table: string }>('SELECT tablename AS table FROM pg_publication_tables WHERE pubname = $1', [
        PUBLICATION,
      ])
    ).rows
      .map(({ table }) => table)
      .sort();

  test('makes it for exactly the tables, adds what is missing, and changes nothing the second time', async () => {
    await admin.query('CREATE TABLE child () INHERITS (a)');
    await source().publish([name('a'), ODD]);
    expect(await published()).toEqual(['a', 'ta"ble.1']);
    await source().publish([name('b'), name('a')]);
    expect(await published()).toEqual(['a', 'b', 'ta"ble.1']);
    const xmin = async () => (await admin.query('SELECT xmin FROM pg_publication')).rows;
    const before = await xmin();
    await source().publish([name('a'), name('b')]);
    expect(await xmin()).toEqual(before);
    await admin.query('DROP TABLE child');
  });

  test('two at once agree', async () => {
    await Promise.all([
      source().publish([name('a')]),
      source().publish([name('a'), name('b')]),
      source().publish([ODD]),
    ]);
    expect(await published()).toEqual(['a', 'b', 'ta"ble.1']);
  });

  test('one FOR ALL TABLES is fine as it is', async () => {
    await admin.query(`CREATE PUBLICATION ${PUBLICATION_SQL} FOR ALL TABLES`);
    await source().publish([name('a'), name('foreign_owned')]);
    await expect(source().publish([name('nowhere')])).rejects.toMatchObject({ code: 'TABLE_MISSING' });
  });

  test('a table of another owner: the SQL for its owner', async () => {
    await source().publish([name('a')]);
    const fault = await faultOf(source().publish([name('a'), name('foreign_owned')]));
    expect(fault).toMatchObject({ code: 'PUBLICATION_NOT_ALLOWED', facts: { publication: PUBLICATION } });
    const sql = `ALTER PUBLICATION ${PUBLICATION_SQL} ADD TABLE ONLY "public"."foreign_owned"`;
    expect(fault.remedy).toContain(sql);
    // What the error tells an owner to run is what was missing.
    await admin.query(fault.facts['sql'] as string);
    await source().publish([name('a'), name('foreign_owned')]);
  });

  test('no right to make one: the SQL that makes it', async () => {
    await admin.query("CREATE ROLE plain LOGIN REPLICATION PASSWORD 'x'");
    const fault = await faultOf(source(0, { user: 'plain', password: 'x' }).publish([name('a')]));
    expect(fault).toMatchObject({ code: 'PUBLICATION_NOT_ALLOWED', facts: { user: 'plain' } });
    await admin.query(fault.facts['sql'] as string);
    await source(0, { user: 'plain', password: 'x' }).publish([name('a')]);
    await admin.query('DROP ROLE plain');
  });

  test.each([
    ['operations', "FOR TABLE a WITH (publish = 'insert, update')", 'delete, truncate'],
    ['rows', 'FOR TABLE a WHERE (id > 5)', 'public.a'],
    ['columns', 'FOR TABLE a (id)', 'public.a'],
  ])('one that leaves out %s: the SQL that mends it', async (_, ddl, what) => {
    await admin.query(`CREATE PUBLICATION ${PUBLICATION_SQL} ${ddl}`);
    const fault = await faultOf(source().publish([name('a')]));
    expect(fault.code).toBe('PUBLICATION_INCOMPLETE');
    expect(fault.message).toContain(what);
    await admin.query(fault.facts['sql'] as string);
    await source().publish([name('a')]);
  });

  test('one that publishes a partition under its root: the SQL that mends it', async () => {
    await admin.query(`
      CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10);
      CREATE PUBLICATION ${PUBLICATION_SQL} FOR TABLE root WITH (publish_via_partition_root);
      ALTER TABLE leaf OWNER TO ${ROLE_SQL}; ALTER PUBLICATION ${PUBLICATION_SQL} OWNER TO ${ROLE_SQL}`);
    const leaf = { ...name('leaf'), partition_of: [1] };
    const fault = await faultOf(source().publish([leaf]));
    expect(fault).toMatchObject({ code: 'PUBLICATION_INCOMPLETE', message: expect.stringContaining('public.leaf') });
    await admin.query(fault.facts['sql'] as string);
    await source().publish([leaf]);
    await admin.query('DROP TABLE root');
  });

  test('a table that is gone', async () => {
    await expect(source().publish([name('a'), name('nowhere')])).rejects.toMatchObject({
      code: 'TABLE_MISSING',
      facts: { table: 'public.nowhere' },
    });
  });

  test('is not held up by a writer', async () => {
    const writer = await server.connect();
    await writer.query('BEGIN; INSERT INTO a VALUES (1)');
    await source().publish([name('a')]);
    await writer.query('ROLLBACK');
    await writer.end();
  });
});

describe('the slot', () => {
  test('is made, stands where it was made, and can be advanced while unread', async () => {
    const begin = await source().createSlot();
    expect((await source().look()).slot).toMatchObject({ plugin: 'pgoutput', confirmed_lsn: begin });
    await admin.query('INSERT INTO a SELECT generate_series(1000, 2000)');
    const { rows } = await admin.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    const end = parseLsn(rows[0]?.lsn ?? '');
    await source().advanceSlot(end);
    expect((await source().look()).slot?.confirmed_lsn).toBe(end);
    await source().advanceSlot(begin);
    expect((await source().look()).slot?.confirmed_lsn).toBe(end);
    expect(await source().insertLsn()).toBeGreaterThanOrEqual(end);
  });

  test('that is there already is foreign', async () => {
    await source().createSlot();
    await expect(source().createSlot()).rejects.toMatchObject({ code: 'SLOT_FOREIGN' });
  });

  test('for which there is no room', async () => {
    await admin.query("SELECT pg_create_physical_replication_slot('x'), pg_create_physical_replication_slot('y')");
    await expect(source().createSlot()).rejects.toMatchObject({ code: 'SLOTS_EXHAUSTED' });
  });

  test('that the role may not make', async () => {
    await admin.query("CREATE ROLE plain LOGIN PASSWORD 'x'");
    await expect(source(0, { user: 'plain', password: 'x' }).createSlot()).rejects.toMatchObject({
      code: 'REPLICATION_NOT_ALLOWED',
      facts: { user: 'plain' },
    });
    await admin.query('DROP ROLE plain');
  });

  test('that works is never dropped for a lost one, and one that is missing need not be', async () => {
    const begin = await source().createSlot();
    await source().dropLostSlot();
    expect((await source().look()).slot?.confirmed_lsn).toBe(begin);
    await admin.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
    await source().dropLostSlot();
    expect((await source().look()).slot).toBeNull();
  });

  test('that is missing cannot be advanced', async () => {
    await expect(source().advanceSlot(await source().insertLsn())).rejects.toMatchObject({ code: 'SLOT_MISSING' });
  });

  test('waits for open transactions no longer than it may, and names them', async () => {
    const open = await server.connect();
    const { rows } = await open.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    await open.query('BEGIN; INSERT INTO a VALUES (1)');
    await admin.query("BEGIN; INSERT INTO b VALUES (1); PREPARE TRANSACTION 'pre''pared'");
    const fault = await faultOf(source(500).createSlot());
    expect(fault).toMatchObject({ code: 'SLOT_BLOCKED', disposition: 'retry' });
    expect(fault.message).toContain(`process ${rows[0]?.pid}`);
    expect(fault.message).toContain("prepared transaction pre'pared");
    expect((await source().look()).slot).toBeNull();
    await open.query('ROLLBACK');
    await open.end();
    await admin.query("ROLLBACK PREPARED 'pre''pared'");
    await source(5_000).createSlot();
  });

  test('can be kept on standbys', async () => {
    await source(60_000, {}, true).createSlot();
    expect((await admin.query('SELECT failover FROM pg_replication_slots')).rows).toEqual([{ failover: true }]);
  });
});

describe('writers', () => {
  const tables = async (...names: string[]): Promise<SourceTable[]> =>
    (await source().tables()).filter((table) => names.includes(table.table));
  const writers = async (...names: string[]) => await source().writers(await tables(...names));
  const pidOf = async (client: pg.Client) =>
    (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid;

  test.each([
    ['insert', 'INSERT INTO a VALUES (1)'],
    ['update', "INSERT INTO a VALUES (1); UPDATE a SET t = 'x'"],
    ['truncate', 'TRUNCATE a'],
    ['lock after another write', 'INSERT INTO b VALUES (1); LOCK TABLE a IN SHARE ROW EXCLUSIVE MODE'],
    ['write in a savepoint', 'SAVEPOINT s; INSERT INTO a VALUES (1); RELEASE s'],
  ])('%s', async (_, sql) => {
    await using writer = await session();
    await writer.client.query(`BEGIN; ${sql}`);
    expect(await writers('a', 'foreign_owned')).toEqual([
      {
        transaction: expect.stringMatching(/^\d+$/),
        pid: await pidOf(writer.client),
        tables: (await tables('a')).map(({ oid }) => oid),
      },
    ]);
    expect(await writers('foreign_owned')).toEqual([]);
    await writer.client.query('ROLLBACK');
    expect(await writers('a')).toEqual([]);
  });

  test.each([
    ['a reader', 'SELECT * FROM a'],
    ['one who locks rows', 'SELECT * FROM a FOR UPDATE'],
    ['a writer of another table', 'INSERT INTO foreign_owned VALUES (1)'],
    ['a lock without a write yet', 'LOCK TABLE a IN ROW EXCLUSIVE MODE'],
  ])('not %s', async (_, sql) => {
    await using other = await session();
    await other.client.query(`BEGIN; ${sql}`);
    expect(await writers('a')).toEqual([]);
  });

  test('a transaction keeps its name when it is prepared, and after a restart of the server', async () => {
    const writer = await server.connect();
    await writer.query('BEGIN; SAVEPOINT s; INSERT INTO a VALUES (1)');
    const [before] = await writers('a');
    expect(before?.pid).toBe(await pidOf(writer));
    await writer.query("PREPARE TRANSACTION 'long'");
    expect(await writers('a')).toEqual([{ transaction: before?.transaction, pid: null, tables: before?.tables }]);
    // The session goes on with another transaction, which is another writer.
    await writer.query('BEGIN; INSERT INTO a VALUES (2)');
    expect(await writers('a')).toHaveLength(2);
    await writer.end();
    await admin.end();
    await server.restart();
    admin = await server.connect();
    expect(await writers('a')).toEqual([{ transaction: before?.transaction, pid: null, tables: before?.tables }]);
    await admin.query("ROLLBACK PREPARED 'long'");
    expect(await writers('a')).toEqual([]);
  });

  test('a write through a partitioned table is one to its partition', async () => {
    await admin.query(`CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10); CREATE TABLE leaf2 PARTITION OF root FOR VALUES FROM (10) TO (20)`);
    {
      await using writer = await session();
      await writer.client.query('BEGIN; INSERT INTO root VALUES (1)');
      expect(await writers('leaf')).toHaveLength(1);
      expect(await writers('leaf2')).toEqual([]);
    }
    await admin.query('DROP TABLE root');
  });

  test('a table of the same oid in another database is not ours', async () => {
    await admin.query('CREATE DATABASE other');
    const there = await server.connect('other');
    await there.query('CREATE TABLE x (id int); BEGIN; INSERT INTO x VALUES (1)');
    const { rows } = await there.query<{ oid: number }>("SELECT 'x'::regclass::oid::int8::int AS oid");
    const [a] = await tables('a');
    expect(await source().writers([{ ...(a as SourceTable), oid: rows[0]?.oid ?? 0 }])).toEqual([]);
    await there.end();
  });

  async function session(): Promise<{ client: pg.Client } & AsyncDisposable> {
    const client = await server.connect();
    return { client, [Symbol.asyncDispose]: () => client.end() };
  }
});
