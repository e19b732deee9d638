/**
 * How a table is cut, on real servers (design §3, Epochs 3).
 *
 * Theorem: for each kind of key, the chunks of a plan cover every row once, whatever is inserted, changed and deleted while they are read, each in a
 * snapshot of its own. By ctid that is so but for rows that are changed meanwhile, which move: these the log repairs (lib/epoch/plan.ts).
 */
import { text } from 'node:stream/consumers';
import * as fc from 'fast-check';
import type pg from 'pg';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { postgresExtractor } from '../../lib/epoch/extractor.ts';
import { CHUNK_SIZE, type ChunkSize, planTable, type TablePlan } from '../../lib/epoch/plan-table.ts';
import type { ChunkRange, SourceTable } from '../../lib/ports.ts';
import { clientConfig, connectClient } from '../../lib/postgres/connection.ts';
import { projectedExtractor } from '../../lib/projection/projected-extractor.ts';
import { insertSql, KEY_KINDS, KEY_TYPES_SQL, type KeyKind, tableSql } from '../support/keys.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { property } from '../support/property.ts';
import { MAJORS_HERE } from '../support/servers.ts';
import { connectTo, makeRole, ROLE_SQL, replicationTo } from '../support/source-role.ts';

let server: TestPostgres;
let admin: pg.Client;
beforeAll(async () => {
  server = await startPostgres();
  admin = await server.connect();
  await makeRole(server);
  withRole.add(server);
  await admin.query(`GRANT pg_read_all_data TO ${ROLE_SQL}; ${KEY_TYPES_SQL}`);
});
afterAll(async () => {
  await admin.end();
  await server.stop();
});

/** Servers on which there is the plain role; on the others it is their superuser that reads. */
const withRole = new Set<TestPostgres>();

function extractorOf(at: TestPostgres) {
  const connect = withRole.has(at) ? connectTo(at) : superuserOf(at);
  return postgresExtractor({ connect, connectReplication: replicationTo(at), publications: [] });
}

const superuserOf =
  ({ host, port, user, password, database }: TestPostgres) =>
  (): Promise<Client> => {
    const connection = { host, port, user, password, database, application_name: 'test', connect_timeout_seconds: 10 };
    const endpoint = { side: 'source' as const, connection };
    return connectClient(() => new Client(clientConfig(endpoint)), endpoint);
  };

async function tableOf(at: TestPostgres, table: string): Promise<SourceTable> {
  const found = await extractorOf(at).table({ schema: 'public', table });
  if (!found) throw new Error(`no table ${table}`);
  return found;
}

/** The numbers (column n, the last but one) of a chunk's rows. */
async function numbersIn(at: TestPostgres, table: SourceTable, range: ChunkRange): Promise<number[]> {
  const request = { where: null, is_logged: true, from_lsn: null };
  const read = await extractorOf(at).readChunk(table, range, request);
  const lines = (await text(read.lines)).split('\n').slice(0, -1);
  await read.result();
  const place = table.columns.findIndex(({ name }) => name === 'n');
  return lines.map((line) => Number(line.split('\t')[place]));
}

const sizeOf = (chunk_rows: number): ChunkSize => ({ chunk_rows, chunk_bytes: 2 ** 30, chunks_max: 64 });

async function plan(table: SourceTable, size: ChunkSize, is_logged = true): Promise<TablePlan> {
  return await planTable(extractorOf(server), table, { is_logged }, { from_lsn: null, size });
}

interface Drawn {
  readonly kind: KeyKind;
  readonly rows: number;
  readonly chunks: number;
  readonly is_logged: boolean;
  readonly partitioned: boolean;
  readonly seed: number;
}

const FIRST_LATER = 1_000_000;
const LATER_A_ROUND = 40;
let tables = 0;

/** Reads the chunks one after another, in the order of `seed`, and changes the table in between. What must be there once, and what may be. */
async function readBesideWrites(name: string, table: SourceTable, { ranges, may_overlap }: TablePlan, drawn: Drawn) {
  const { kind, seed } = drawn;
  const seen = new Map<number, number>();
  const deleted = new Set<number>();
  let later = FIRST_LATER;
  const order = ranges.map((range, i) => ({ range, by: (i * 7919 + seed) % 101 })).toSorted((a, b) => a.by - b.by);
  for (const { range } of order) {
    await admin.query(insertSql(name, kind, later, later + LATER_A_ROUND - 1, `later${seed}`));
    later += LATER_A_ROUND;
    const { rows } = await admin.query<{ n: number }>(
      `DELETE FROM ${name} WHERE n IN (SELECT n FROM ${name} WHERE n < ${FIRST_LATER} ORDER BY md5(n::text || '${later}') LIMIT 5) RETURNING n`,
    );
    for (const { n } of rows) deleted.add(n);
    // A row that is changed moves to another place, and not to another key.
    if (!may_overlap) await admin.query(`UPDATE ${name} SET pad = repeat('y', n % 90) WHERE n % 13 = ${seed % 13}`);
    for (const n of await numbersIn(server, table, range)) seen.set(n, (seen.get(n) ?? 0) + 1);
  }
  return { seen, deleted };
}

describe('each kind of key', () => {
  const drawn = fc.record<Drawn>({
    kind: fc.constantFrom(...KEY_KINDS),
    rows: fc.integer({ min: 0, max: 1200 }),
    chunks: fc.integer({ min: 1, max: 7 }),
    is_logged: fc.boolean(),
    partitioned: fc.boolean(),
    seed: fc.nat({ max: 2 ** 31 - 1 }),
  });

  property('the chunks of a plan cover every row once, whatever is inserted meanwhile', drawn, async (it) => {
    const name = `p${++tables}`;
    // There is no hash of these to partition by, or nothing to cut.
    const partitioned =
      it.partitioned && !['money', 'bit', 'regclass, whose literals are names'].includes(it.kind.name);
    await admin.query(tableSql(name, it.kind, partitioned));
    try {
      await admin.query(insertSql(name, it.kind, 0, it.rows - 1, String(it.seed)));
      const before = (await admin.query<{ n: number }>(`SELECT n FROM ${name}`)).rows.map(({ n }) => n);
      const table = await tableOf(server, name);
      const size = sizeOf(Math.max(1, Math.ceil(before.length / it.chunks)));
      const planned = await plan(table, size, it.is_logged);
      if (it.kind.ranged === 0 && !it.is_logged) expect(planned.ranges).toEqual([{ by: 'whole' }]);
      const { seen, deleted } = await readBesideWrites(name, table, planned, { ...it, partitioned });
      const missing = before.filter((n) => !seen.has(n) && !deleted.has(n));
      const twice = [...seen].filter(([, times]) => times > 1).map(([n]) => n);
      expect({ kind: it.kind.name, missing, twice }).toEqual({ kind: it.kind.name, missing: [], twice: [] });
    } finally {
      await admin.query(`DROP TABLE ${name}`);
    }
  });

  test.each(KEY_KINDS)('$name: the parts are even, on a table that was never analysed', async (kind) => {
    const name = `e${++tables}`;
    await admin.query(tableSql(name, kind, false));
    await admin.query(insertSql(name, kind, 0, 2999, 'even'));
    const table = await tableOf(server, name);
    const rows = Number((await admin.query<{ n: string }>(`SELECT count(*) AS n FROM ${name}`)).rows[0]?.n);
    // Not to be cut by ctid: no log is read of it.
    const { ranges, rows_estimate, may_overlap } = await plan(table, sizeOf(500), false);
    expect(may_overlap).toBe(false);
    if (kind.ranged === 0) expect(ranges).toEqual([{ by: 'whole' }]);
    if (!kind.even || kind.ranged === 0) return;
    expect(rows_estimate).toBe(rows);
    expect(new Set(ranges.map((range) => (range.by === 'key' ? range.columns.length : 0)))).toEqual(
      new Set([kind.ranged]),
    );
    // Bytes weigh a little as well.
    expect(ranges.length - Math.ceil(rows / 500)).toBeOneOf([0, 1]);
    const chunks = await Promise.all(ranges.map((range) => numbersIn(server, table, range)));
    // No more than it should have, but for the row that a part begins with.
    expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThanOrEqual(502);
    expect(chunks.flat()).toHaveLength(rows);
  });
});

describe('a plan', () => {
  test('reads a bounded number of pages, whatever the size, and needs no ANALYZE', async () => {
    await admin.query(`CREATE TABLE long (k uuid PRIMARY KEY, n int) WITH (autovacuum_enabled = false);
      INSERT INTO long SELECT md5(n::text)::uuid, n FROM generate_series(1, 300000) n`);
    const pages = (await tableOf(server, 'long')).pages;
    const read = async () => {
      await admin.query('SELECT pg_stat_clear_snapshot()');
      const { rows } = await admin.query<{ blocks: string; scans: string }>(
        `SELECT heap_blks_read + heap_blks_hit AS blocks, seq_tup_read AS scans
           FROM pg_statio_user_tables io JOIN pg_stat_user_tables t USING (relid) WHERE io.relname = 'long'`,
      );
      return Number(rows[0]?.blocks);
    };
    const before = await read();
    const table = await tableOf(server, 'long');
    const { ranges, rows_estimate } = await plan(table, sizeOf(100_000), false);
    // What a session has done is known when it has ended.
    await expect.poll(read).toBeGreaterThan(before);
    expect((await read()) - before).toBeLessThan(pages / 2);
    expect(Math.abs(rows_estimate - 300_000)).toBeLessThan(60_000);
    expect(ranges.length).toBeGreaterThanOrEqual(3);
    const chunks = await Promise.all(ranges.map((range) => numbersIn(server, table, range)));
    expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThan(130_000);
    expect(new Set(chunks.flat()).size).toBe(300_000);
  });

  test('cuts by bytes where rows are large, and smaller where the large ones lie', async () => {
    // 3000 small rows, and 60 of 100 kB among their last keys: not compressed, so outside of the row.
    await admin.query(`CREATE TABLE fat (k int PRIMARY KEY, n int, t text); ALTER TABLE fat ALTER t SET STORAGE EXTERNAL;
      INSERT INTO fat SELECT n, n, CASE WHEN n >= 2940 THEN repeat('x', 100000) END FROM generate_series(0, 2999) n`);
    const table = await tableOf(server, 'fat');
    const size = { chunk_rows: 100_000, chunk_bytes: 1_000_000, chunks_max: 64 };
    const { ranges, bytes_estimate } = await plan(table, size, true);
    expect(bytes_estimate).toBeGreaterThan(6_000_000);
    const chunks = await Promise.all(ranges.map((range) => numbersIn(server, table, range)));
    expect(chunks.flat()).toHaveLength(3000);
    // Six or seven megabytes: ten large rows in each.
    const large = chunks.map((chunk) => chunk.filter((n) => n >= 2940).length);
    expect(Math.max(...large)).toBeLessThanOrEqual(11);
    expect(chunks[0]?.length).toBeGreaterThan(2900);
  });

  test('is by ctid where keys come by chance and the log has whole rows, else by key', async () => {
    await admin.query(`CREATE TABLE chance (k uuid PRIMARY KEY, n int); INSERT INTO chance SELECT md5(n::text)::uuid, n FROM generate_series(1, 3000) n;
      CREATE TABLE inorder (k int PRIMARY KEY, n int); INSERT INTO inorder SELECT n, n FROM generate_series(1, 3000) n;
      CREATE TABLE backwards (k int PRIMARY KEY, n int); INSERT INTO backwards SELECT -n, n FROM generate_series(1, 3000) n`);
    const by = async (name: string, is_logged: boolean) =>
      (await plan(await tableOf(server, name), sizeOf(500), is_logged)).ranges[1]?.by;
    expect(await by('chance', true)).toBe('ctid');
    expect(await by('chance', false)).toBe('key');
    expect(await by('inorder', true)).toBe('key');
    expect(await by('backwards', true)).toBe('key');
  });

  test('is one chunk for what is empty: no rows, no pages, or pages without rows', async () => {
    await admin.query(`CREATE TABLE none (k int PRIMARY KEY, n int);
      CREATE TABLE emptied (k int PRIMARY KEY, n int) WITH (autovacuum_enabled = false); INSERT INTO emptied SELECT n, n FROM generate_series(1, 5000) n; DELETE FROM emptied;
      CREATE TABLE root (k int PRIMARY KEY, n int) PARTITION BY RANGE (k)`);
    for (const name of ['none', 'emptied', 'root']) {
      const table = await tableOf(server, name);
      expect(await plan(table, sizeOf(100))).toMatchObject({ ranges: [{ by: 'whole' }], rows_estimate: 0 });
      expect(await numbersIn(server, table, { by: 'whole' })).toEqual([]);
    }
  });

  test('waits for nobody who writes, and a bound time for who alters', async () => {
    const table = await tableOf(server, 'inorder');
    const writer = await server.connect();
    await writer.query('BEGIN; UPDATE inorder SET n = n');
    expect((await plan(table, sizeOf(500))).ranges.length).toBeGreaterThan(3);
    await writer.query('ROLLBACK');
    await writer.end();
  });
});

test('several tables are read at once, chunk by chunk', async () => {
  const names = ['together_a', 'together_b', 'together_c'];
  for (const name of names) {
    await admin.query(
      `CREATE TABLE ${name} (k int PRIMARY KEY, n int); INSERT INTO ${name} SELECT n, n FROM generate_series(1, 2000) n`,
    );
  }
  const all = names.map(async (name) => {
    const table = await tableOf(server, name);
    const { ranges } = await plan(table, sizeOf(400));
    return (await Promise.all(ranges.map((range) => numbersIn(server, table, range)))).flat();
  });
  for (const numbers of await Promise.all(all)) expect(new Set(numbers).size).toBe(2000);
});

test('the sizes of a copy: a small table is one chunk that nobody looks into', async () => {
  const table = await tableOf(server, 'inorder');
  expect((await plan(table, CHUNK_SIZE)).ranges).toEqual([{ by: 'whole' }]);
});

test('no bound is the key of a row that a filter leaves out, and every other row is in one chunk', async () => {
  await admin.query(`
    CREATE TABLE sieved (k text COLLATE "C" PRIMARY KEY, region text, n int, pad text);
    INSERT INTO sieved SELECT CASE WHEN n % 4 = 0 THEN 'shown' ELSE 'hidden' END || md5(n::text), CASE WHEN n % 4 = 0 THEN 'eu' ELSE 'us' END, n, ''
      FROM generate_series(0, 7999) n`);
  const filtered = projectedExtractor(extractorOf(server), null, "region = 'eu' -- of Europe");
  const table = await tableOf(server, 'sieved');
  const cut = await planTable(filtered, table, { is_logged: false }, { from_lsn: null, size: sizeOf(400) });
  expect(cut.ranges.length).toBeGreaterThan(10);
  const bounds = cut.ranges.flatMap((range) =>
    range.by === 'key' ? [...(range.from ?? []), ...(range.to ?? [])] : [],
  );
  expect(bounds.length).toBeGreaterThan(10);
  expect(bounds.filter((bound) => !bound.startsWith('shown'))).toEqual([]);
  expect(cut.rows_estimate).toBe(2000);
  const numbers: number[] = [];
  for (const range of cut.ranges) numbers.push(...(await numbersIn(server, table, range)));
  expect([numbers.length, new Set(numbers).size]).toEqual([8000, 8000]);
  // Of none that is shown, none is told.
  const none = projectedExtractor(extractorOf(server), null, "region = 'asia'");
  const whole = await planTable(none, table, { is_logged: false }, { from_lsn: null, size: sizeOf(400) });
  expect(whole.ranges).toEqual([{ by: 'whole' }]);
});

test.each(MAJORS_HERE)('PostgreSQL %i: tables are cut and covered', { timeout: 120_000 }, async (version) => {
  await using old = await startPostgres({ version });
  const client = await old.connect();
  const kinds = KEY_KINDS.filter(({ name }) => ['int4 in order', 'uuid', 'text', 'text and uuid'].includes(name));
  for (const [i, kind] of kinds.entries()) {
    await client.query(`${tableSql(`t${i}`, kind, false)}; ${insertSql(`t${i}`, kind, 0, 2999, 'old')}`);
    const table = await tableOf(old, `t${i}`);
    for (const is_logged of [true, false]) {
      const planned = await planTable(extractorOf(old), table, { is_logged }, { from_lsn: null, size: sizeOf(700) });
      expect(planned.ranges.length).toBeGreaterThan(3);
      const isChance = kind.name !== 'int4 in order';
      expect(planned.may_overlap).toBe(is_logged && version >= 14 && isChance);
      const numbers: number[] = [];
      for (const range of planned.ranges) numbers.push(...(await numbersIn(old, table, range)));
      expect([numbers.length, new Set(numbers).size]).toEqual([3000, 3000]);
    }
  }
  await client.end();
});
