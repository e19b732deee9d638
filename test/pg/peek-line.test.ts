/** A whole pipeline with source.slot_reader: peek: no walsender can be had, or the reader is another one from window to window; wal2json, and a backlog of many calls. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { doctor } from '../../lib/doctor/doctor.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import {
  connectionTo,
  connectTo,
  makeRole,
  ROLE,
  ROLE_PASSWORD,
  ROLE_SQL,
  replicationTo,
} from '../support/source-role.ts';

const PEEK = 'slot_reader: peek';
const TABLES = `CREATE TABLE t (id int PRIMARY KEY, v text, n numeric); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
  CREATE TABLE "Odd ""name""" (a int, b text, v jsonb, PRIMARY KEY (a, b));
  INSERT INTO t SELECT i, md5(i::text), i / 7.0 FROM generate_series(1, 500) i;`;
const CHANGES = [
  "INSERT INTO t SELECT i, repeat(md5(i::text), 100), 'NaN' FROM generate_series(1001, 1100) i",
  'UPDATE t SET n = n + 1 WHERE id > 1000',
  'UPDATE t SET id = -id WHERE id % 50 = 0',
  'DELETE FROM t WHERE id % 7 = 0',
  `INSERT INTO "Odd ""name""" VALUES (1, '', '{"a": 1.10}'), (2, E'x\\ty', NULL)`,
  "UPDATE t SET v = repeat('giant', 400000) WHERE id = 1",
  'UPDATE t SET n = 0 WHERE id = 1',
  "ALTER TABLE t ADD late date DEFAULT '2001-02-03'",
  'UPDATE t SET late = NULL WHERE id % 3 = 0',
  `TRUNCATE "Odd ""name"""`,
  `INSERT INTO "Odd ""name""" VALUES (3, 'c', '[]')`,
];

describe('slot_reader: peek', () => {
  let source: TestPostgres;
  let target: TestPostgres;
  beforeAll(async () => {
    [source, target] = await Promise.all([startPostgres({ settings: { max_wal_senders: '0' } }), startPostgres()]);
    await makeRole(source);
  });
  afterAll(async () => {
    await Promise.all([source?.stop(), target?.stop()]);
  });

  test('a pipeline whose source has no walsender to give', async () => {
    await expect(replicationTo(source)()).rejects.toThrow();
    const owned = `${TABLES} ALTER TABLE t OWNER TO ${ROLE_SQL}; ALTER TABLE "Odd ""name""" OWNER TO ${ROLE_SQL};
      DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO ${ROLE_SQL.replaceAll("'", "''")}', current_database()); END $$`;
    const role = { user: ROLE, password: ROLE_PASSWORD };
    await using made = await freshLine({ source, target }, owned, { role, source: PEEK });
    await made.equal();
    for (const sql of CHANGES) await made.from.query(sql);
    await made.equal();
    for (const sql of CHANGES.slice(1, 4)) {
      await made.from.query(sql);
      await made.line.window();
    }
    await made.equal();
    const { rows } = await made.from.query<{ held: string; active: boolean }>(
      'SELECT pg_current_wal_flush_lsn() - confirmed_flush_lsn AS held, active FROM pg_replication_slots WHERE slot_name = current_database()',
    );
    // The slot was moved: nothing but what the comparing wrote is behind it.
    expect(Number(rows[0]?.held)).toBeLessThan(1024 * 1024);
    expect(rows[0]?.active).toBe(false);
  });

  test('sluice doctor asks for a walsender only where one is needed', async () => {
    const sql = await source.connect();
    await sql.query(`CREATE SCHEMA shop AUTHORIZATION ${ROLE_SQL}; CREATE TABLE shop.t (id int PRIMARY KEY);
      ALTER TABLE shop.t OWNER TO ${ROLE_SQL}; GRANT CREATE ON DATABASE postgres TO ${ROLE_SQL}`);
    const checks = async (reader: string): Promise<string[]> => {
      const { host, port } = source;
      const user = JSON.stringify(ROLE);
      const pipeline = readPipeline(
        `{ pipeline: line, source: { host: ${host}, port: ${port}, user: ${user}, database: postgres, slot_reader: ${reader} },
           tables: [shop.*], target: { host: ${target.host}, port: ${target.port}, user: postgres, database: postgres, primary_key_required: false } }`,
        'pipeline.yaml',
      );
      const findings = await doctor({
        pipeline,
        connect: {
          source: connectTo(source),
          replication: replicationTo(source),
          target: connectTo(target, { user: target.user, password: target.password }, 'target'),
        },
      });
      return findings.filter(({ severity }) => severity === 'error').map(({ check }) => check);
    };
    expect(connectionTo(source).user).toBe(ROLE);
    expect(await checks('peek')).toEqual([]);
    expect(await checks('stream')).toEqual(['source_replication', 'slot_room']);
    // The copy of a table without a key has its snapshot from a walsender.
    await sql.query(`CREATE TABLE shop.keyless (a int); ALTER TABLE shop.keyless REPLICA IDENTITY FULL;
      ALTER TABLE shop.keyless OWNER TO ${ROLE_SQL}`);
    expect(await checks('peek')).toEqual(['source_replication', 'slot_room']);
    await sql.end();
  });
});

test('slot_reader is another one from window to window', async () => {
  await using source = await startPostgres();
  await using target = await startPostgres();
  await using made = await freshLine({ source, target }, TABLES, { source: PEEK });
  await made.equal();
  for (const [i, sql] of CHANGES.entries()) {
    await made.from.query(sql);
    made.line.configure({ source: `slot_reader: ${i % 2 === 0 ? 'stream' : 'peek'}` });
    await made.line.window();
  }
  await made.equal();
});

test('slot_reader: peek goes through a backlog of many transactions, of which most are of others', async () => {
  await using source = await startPostgres();
  await using target = await startPostgres();
  await using made = await freshLine({ source, target }, `${TABLES} CREATE SCHEMA x; CREATE TABLE x.y (v text)`, {
    source: PEEK,
  });
  await made.equal();
  const before = made.line.durable.chain.length;
  await made.from.query(`DO $$ BEGIN FOR i IN 1..2000 LOOP
      INSERT INTO t VALUES (i + 100000, 'v', i); UPDATE t SET n = -i WHERE id = i + 100000;
      INSERT INTO x.y SELECT repeat('x', 100) FROM generate_series(1, 20); COMMIT;
    END LOOP; END $$`);
  await made.equal();
  expect(made.line.durable.chain.length).toBeGreaterThan(before);
});

describe.skipIf(skipDebian)(suiteName('by wal2json'), () => {
  test.each([
    ['format 2', false, 'peek'],
    ['format 1', true, 'peek'],
    ['format 2', false, 'stream'],
  ])('%s (old: %s), slot_reader: %s', async (_, old_wal2json, slot_reader) => {
    await using source = await startDebianPostgres();
    await using target = await startPostgres();
    await using made = await freshLine({ source, target }, TABLES, {
      source: `plugin: wal2json, slot_reader: ${slot_reader}`,
      ...(old_wal2json ? { old_wal2json } : {}),
    });
    await made.equal();
    // Format 1 has no TRUNCATE. Where this version prints NaN as null, it is looked up.
    for (const sql of CHANGES) if (!old_wal2json || !sql.startsWith('TRUNCATE')) await made.from.query(sql);
    await made.equal();
    for (const { epoch } of made.line.durable.bookmarks.values()) expect(epoch).toBe(1);
  });
});
