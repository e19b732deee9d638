/**
 * Chunks by query: their lines are PostgreSQL's own, together they are the table, their position lies past every commit that their snapshot saw,
 * and no failure leaves a connection behind. Read by a plain role.
 */
import { text } from 'node:stream/consumers';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { chunkSql, postgresExtractor } from '../../lib/epoch/extractor.ts';
import { planTable } from '../../lib/epoch/plan-table.ts';
import { parseLsn } from '../../lib/lsn.ts';
import type { ChunkRange, ChunkRequest, SourceTable } from '../../lib/ports.ts';
import { quoteIdentifier } from '../../lib/sql-text.ts';
import { FRAME_TEXT_BYTES_MAX } from '../../lib/stage/segment.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';
import { connectTo, makeRole, ROLE, ROLE_SQL, replicationTo } from '../support/source-role.ts';

const WHOLE: ChunkRange = { by: 'whole' };

let server: TestPostgres;
let admin: pg.Client;
beforeAll(async () => {
  server = await startPostgres();
  admin = await server.connect();
  await makeRole(server);
});
afterAll(async () => {
  await admin.end();
  await server.stop();
});
afterEach(async () => {
  const left = 'SELECT count(*)::int AS connections FROM pg_stat_activity WHERE usename = $1';
  await expect.poll(async () => (await admin.query(left, [ROLE])).rows).toEqual([{ connections: 0 }]);
});

const extractor = () =>
  postgresExtractor({ connect: connectTo(server), connectReplication: replicationTo(server), publications: [] });

async function tableOf(table: string, schema = 'public'): Promise<SourceTable> {
  const sql = quoteIdentifier(schema);
  await admin.query(
    `GRANT USAGE ON SCHEMA ${sql} TO ${ROLE_SQL}; GRANT SELECT ON ALL TABLES IN SCHEMA ${sql} TO ${ROLE_SQL}`,
  );
  const found = await extractor().table({ schema, table });
  if (!found) throw new Error(`no table ${table}`);
  return found;
}

const request = (where: string | null = null): ChunkRequest => ({ where, is_logged: true, from_lsn: null });

async function linesOf(table: SourceTable, range: ChunkRange, where: string | null = null): Promise<string[]> {
  const read = await extractor().readChunk(table, range, request(where));
  const lines = (await text(read.lines)).split('\n').slice(0, -1);
  expect((await read.result()).rows).toBe(lines.length);
  return lines;
}

describe('the lines', () => {
  test('are COPY text in the order of the shape, values as PostgreSQL writes them', async () => {
    await admin.query(`
      CREATE SCHEMA "Odd ""schema"""; CREATE TABLE "Odd ""schema"""."ta.ble" ("Z" int, id int PRIMARY KEY, gone int,
        g int GENERATED ALWAYS AS (id * 2) STORED, t text, d timestamptz, i interval, b bytea, f float8, r regclass);
      ALTER TABLE "Odd ""schema"""."ta.ble" DROP COLUMN gone;
      INSERT INTO "Odd ""schema"""."ta.ble" ("Z", id, t, d, i, b, f, r) VALUES
        (NULL, 1, E'a\\tb\\nc\\\\d', '2024-03-01 12:00+09', '1 year -3 hours', '\\x00ff', 0.1, '"Odd ""schema"""."ta.ble"'),
        (0, 2, '', 'infinity', '0', '', 'NaN', 'pg_class');
      ALTER ROLE ${ROLE_SQL} SET search_path = "Odd ""schema"""; ALTER ROLE ${ROLE_SQL} SET TimeZone = 'Asia/Tokyo'`);
    expect(await linesOf(await tableOf('ta.ble', 'Odd "schema"'), WHOLE)).toEqual([
      '\\N\t1\ta\\tb\\nc\\\\d\t2024-03-01 03:00:00+00\t1 year -03:00:00\t\\\\x00ff\t0.1\t"Odd ""schema"""."ta.ble"',
      '0\t2\t\tinfinity\t00:00:00\t\\\\x\tNaN\tpg_class',
    ]);
    await admin.query(`ALTER ROLE ${ROLE_SQL} RESET ALL`);
  });

  test('are those of the table alone, and of its where', async () => {
    await admin.query(`CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
      INSERT INTO parent SELECT generate_series(1, 10); INSERT INTO child VALUES (99)`);
    const table = await tableOf('parent');
    expect(await linesOf(table, WHOLE)).toHaveLength(10);
    expect(await linesOf(table, WHOLE, 'id > 8 OR id = 1 -- and so on')).toEqual(['1', '9', '10']);
    expect(await linesOf(table, { by: 'key', columns: ['id'], from: ['2'], to: ['5'] }, 'id > 8 OR id = 3')).toEqual([
      '3',
    ]);
  });

  test('cannot change anything', async () => {
    const table = await tableOf('parent');
    await admin.query(`CREATE SEQUENCE s; GRANT ALL ON SEQUENCE s TO ${ROLE_SQL}`);
    const read = await extractor().readChunk(table, WHOLE, request("nextval('public.s') > 0"));
    await expect(text(read.lines)).rejects.toMatchObject({ code: 'SOURCE_REFUSES', facts: { sqlstate: '25006' } });
    await expect(read.result()).rejects.toMatchObject({ code: 'SOURCE_REFUSES' });
  });
});

describe('the chunks of a plan are the table', () => {
  const ids = (lines: string[]): number[] => lines.map((line) => Number(line.split('\t')[0])).sort((a, b) => a - b);
  const expected = Array.from({ length: 5000 }, (_, i) => i + 1);

  test.each([
    ['int8', 'id int8 PRIMARY KEY', 'key'],
    ['int4', 'id int4 PRIMARY KEY', 'key'],
    ['int2', 'id int2 PRIMARY KEY', 'key'],
    ['text key, by ctid', 'id int8, k text PRIMARY KEY DEFAULT gen_random_uuid()', 'ctid'],
  ])('%s', async (_, columns, by) => {
    await admin.query(
      `DROP TABLE IF EXISTS planned; CREATE TABLE planned (${columns}); INSERT INTO planned (id) SELECT generate_series(1, 5000)`,
    );
    await admin.query('ANALYZE planned');
    const table = await tableOf('planned');
    const size = { chunk_rows: 700, chunk_bytes: 2 ** 30, chunks_max: 100 };
    const { ranges, rows_estimate } = await planTable(
      extractor(),
      table,
      { is_logged: true },
      { from_lsn: null, size },
    );
    expect(rows_estimate).toBe(5000);
    expect(ranges).toHaveLength(8);
    expect(new Set(ranges.map((range) => range.by))).toEqual(new Set([by]));
    const chunks = await Promise.all(ranges.map((range) => linesOf(table, range)));
    expect(Math.max(...chunks.map((chunk) => chunk.length))).toBeLessThan(1500);
    expect(ids(chunks.flat())).toEqual(expected);
  });

  test.each([
    ['a key', { by: 'key', columns: ['id'], from: ['100'], to: ['200'] }, 'Index'],
    ['ctid', { by: 'ctid', from: '(2,0)', to: '(4,0)' }, 'Tid Range Scan'],
  ] as const)('a chunk by %s reads its own pages only', async (_, range, scan) => {
    await admin.query('DROP TABLE IF EXISTS planned; CREATE TABLE planned (id int4 PRIMARY KEY, t text)');
    await admin.query("INSERT INTO planned SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i");
    await admin.query('ANALYZE planned');
    const select = /\((.*)\) TO STDOUT/.exec(chunkSql(await tableOf('planned'), range, { where: null }))?.[1];
    const { rows } = await admin.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${select}`);
    expect(rows.map((row) => row['QUERY PLAN']).join()).toContain(scan);
  });

  test('an empty table is one chunk without rows', async () => {
    await admin.query('CREATE TABLE empty (id int PRIMARY KEY)');
    const table = await tableOf('empty');
    const plan = await planTable(extractor(), table, { is_logged: true }, { from_lsn: null });
    expect(plan).toMatchObject({ ranges: [{ by: 'whole' }], rows_estimate: 0 });
    expect(await linesOf(table, WHOLE)).toEqual([]);
  });

  test.each([
    { by: 'ctid', from: null, to: '(1)' },
    { by: 'ctid', from: '(0,0)::text', to: null },
  ] as const)('a bound that is none is refused: %j', async (range) => {
    await expect(extractor().readChunk(await tableOf('empty'), range, request())).rejects.toThrow(RangeError);
  });

  test('a bound of a key is a literal, whatever it says', async () => {
    const table = await tableOf('empty');
    const range = { by: 'key', columns: ['id'], from: ["1'; DROP TABLE empty; --"], to: null } as const;
    const read = await extractor().readChunk(table, range, request());
    await expect(text(read.lines)).rejects.toMatchObject({ code: 'SOURCE_REFUSES', facts: { sqlstate: '22P02' } });
    expect(await linesOf(table, WHOLE)).toEqual([]);
  });
});

describe('the position', () => {
  test('lies past every commit that the snapshot saw, and the snapshot is the one of the rows', async () => {
    await admin.query('CREATE TABLE counted (id int PRIMARY KEY)');
    const table = await tableOf('counted');
    const writer = await server.connect();
    const stop = new AbortController();
    /** Ends of the commits, in order: row i is seen only by a snapshot that saw commit i. */
    const ends: bigint[] = [];
    const writing = (async () => {
      while (!stop.signal.aborted) {
        await writer.query('INSERT INTO counted VALUES ($1)', [ends.length]);
        // Read after the commit: at or past its end, so a chunk that saw row i has a position past the commit of row i - 1.
        ends.push(parseLsn((await writer.query('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0].lsn));
      }
    })();
    let seen = 0;
    for (let i = 0; i < 20; i++) {
      const read = await extractor().readChunk(table, WHOLE, request());
      // Rows that come now are not in the chunk: its snapshot has been taken.
      const rows = (await text(read.lines)).split('\n').slice(0, -1).map(Number);
      const result = await read.result();
      expect(rows).toEqual([...rows.keys()]);
      if (rows.length > 1) expect(result.lsn).toBeGreaterThanOrEqual(ends[rows.length - 2] as bigint);
      expect(rows.length).toBeGreaterThanOrEqual(seen);
      seen = rows.length;
    }
    stop.abort();
    await writing;
    await writer.end();
    expect(seen).toBeGreaterThan(5);
  });
});

describe('failures', () => {
  test('a reader that gives up frees the connection, and the result says so', async () => {
    await admin.query("CREATE TABLE big AS SELECT i AS id, repeat('x', 1000) AS t FROM generate_series(1, 50000) i");
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, request());
    await new Promise((resolve) => read.lines.once('data', resolve));
    read.lines.destroy();
    await expect(read.result()).rejects.toMatchObject({ code: 'SOURCE_TRANSIENT' });
  });

  test('a chunk that nobody reads holds no more than a little of it', async () => {
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, request());
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(read.lines.readableLength).toBeLessThanOrEqual(FRAME_TEXT_BYTES_MAX);
    read.lines.destroy();
  });

  test('a server that ends the session in the middle is a transient fault of the lines and of the result', async () => {
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, request());
    await new Promise((resolve) => read.lines.once('data', resolve));
    read.lines.pause();
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [ROLE]);
    await expect(text(read.lines)).rejects.toMatchObject({ disposition: 'retry' });
    await expect(read.result()).rejects.toMatchObject({ disposition: 'retry' });
  });

  test('an error among the rows is one of the lines, without the values', async () => {
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, request('(t || id)::int > 0 AND id > 10'));
    const failure = await text(read.lines).then(
      () => null,
      (error: unknown) => error,
    );
    // Its condition is to blame.
    expect(failure).toMatchObject({ code: 'BACKFILL_WHERE' });
    expect((failure as Error).message).not.toContain('xxx');
  });

  test('rows that a policy hides are an error', async () => {
    await admin.query(`CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
      CREATE POLICY odd ON hidden USING (id % 2 = 1); INSERT INTO hidden SELECT generate_series(1, 10)`);
    const table = await tableOf('hidden');
    expect(table.row_security).toBe(true);
    const read = await extractor().readChunk(table, WHOLE, request());
    await expect(text(read.lines)).rejects.toMatchObject({ code: 'TABLE_ROW_SECURITY', facts: { user: ROLE } });
    const sample = { columns: ['id'], chunk_rows: 1, chunk_bytes: 1000, chunks_max: 10, from_lsn: null };
    await expect(extractor().sample(table, sample)).rejects.toMatchObject({ code: 'TABLE_ROW_SECURITY' });
  });

  test('a table that may not be read: the SQL that grants it', async () => {
    const table = await tableOf('big');
    await admin.query(`REVOKE SELECT ON big FROM ${ROLE_SQL}`);
    const failure = await extractor()
      .readChunk(table, WHOLE, request())
      .then(
        () => null,
        (error: unknown) => error as { code: string; facts: { sql: string } },
      );
    expect(failure?.code).toBe('TABLE_UNREADABLE');
    await admin.query(failure?.facts.sql ?? '');
    expect(await linesOf(table, WHOLE)).toHaveLength(50_000);
  });

  test('a table or a column that is gone', async () => {
    const big = await tableOf('big');
    await expect(extractor().readChunk({ ...big, table: 'nowhere' }, WHOLE, request())).rejects.toMatchObject({
      code: 'TABLE_MISSING',
    });
    // What is read, and told, is what the table is by then.
    const columns = [...big.columns, { name: 'gone', type_oid: 23, type_modifier: -1, not_null: false }];
    const other = await extractor().readChunk({ ...big, columns }, WHOLE, request('id < 3'));
    expect(other.table.columns.map(({ name }) => name)).toEqual(big.columns.map(({ name }) => name));
    other.lines.resume();
    await other.result();
    await expect(
      extractor()
        .readChunk(big, WHOLE, request('gone = 1'))
        .then(({ lines }) => text(lines)),
    ).rejects.toMatchObject({
      code: 'BACKFILL_WHERE',
    });
  });
});

describe.each(MAJORS_HERE)('PostgreSQL %i: read as one chunk is', { timeout: 120_000 }, (version) => {
  test('a view, a materialized view, a foreign table, a partitioned one, and one that is unlogged', async () => {
    await using old = await startPostgres({ version });
    const client = await old.connect();
    const { port, password } = old;
    await client.query(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 1000) i;
      CREATE VIEW v AS SELECT id, v FROM t WHERE id > 10; CREATE MATERIALIZED VIEW m AS SELECT * FROM v;
      CREATE UNLOGGED TABLE u (id int PRIMARY KEY, v text); INSERT INTO u SELECT * FROM t;
      CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (2000); INSERT INTO p SELECT * FROM t;
      CREATE EXTENSION postgres_fdw; CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '${port}', dbname 'postgres');
      CREATE USER MAPPING FOR postgres SERVER self OPTIONS (user 'postgres', password '${password}');
      CREATE FOREIGN TABLE f (id int, v text) SERVER self OPTIONS (table_name 't')`);
    const asOwner = () => old.connect();
    const reading = postgresExtractor({ connect: asOwner, connectReplication: asOwner, publications: [] });
    for (const [name, rows] of Object.entries({ v: 990, m: 990, u: 1000, p: 1000, f: 1000 })) {
      const table = await reading.table({ schema: 'public', table: name });
      if (!table) throw new Error(`no ${name}`);
      const { ranges, bytes_estimate } = await planTable(reading, table, { is_logged: false }, { from_lsn: null });
      expect([name, ranges]).toEqual([name, [{ by: 'whole' }]]);
      expect(bytes_estimate > 0).toBe(name !== 'v' && name !== 'f');
      const before = await reading.insertLsn();
      const read = await reading.readChunk(table, WHOLE, { ...request('id <> 500'), is_logged: false });
      const lines = (await text(read.lines)).split('\n').slice(0, -1);
      const result = await read.result();
      expect([name, lines.length, result.rows]).toEqual([name, rows - 1, rows - 1]);
      expect(lines.toSorted()[0]).toMatch(/^\d+\tv\d+$/);
      expect(result.lsn).toBeGreaterThanOrEqual(before);
    }
    await client.end();
  });
});

test('a view that is altered beside its reading waits for it, and is read as it was', async () => {
  await admin.query(
    "CREATE TABLE under (id int PRIMARY KEY, t text); INSERT INTO under SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i; CREATE VIEW over AS SELECT * FROM under",
  );
  const table = await tableOf('over');
  const read = await extractor().readChunk(table, WHOLE, { ...request(), is_logged: false });
  const other = await server.connect();
  const altering = other.query('DROP VIEW over');
  const lines = (await text(read.lines)).split('\n').slice(0, -1);
  expect(lines).toHaveLength(20_000);
  await read.result();
  await altering;
  await other.end();
});
