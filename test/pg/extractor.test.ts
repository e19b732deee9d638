/**
 * Chunks by query: their lines are PostgreSQL's own, together they are the table, their position lies past every commit that their snapshot saw,
 * and no failure leaves a connection behind. Read by a plain role.
 */
import { text } from 'node:stream/consumers';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { chunkSql, postgresExtractor } from '../../lib/epoch/extractor.ts';
import { planChunks, rangeColumn } from '../../lib/epoch/plan.ts';
import { parseLsn } from '../../lib/lsn.ts';
import type { ChunkRange, SourceTable } from '../../lib/ports.ts';
import { quoteIdentifier } from '../../lib/sql-text.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
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

async function linesOf(table: SourceTable, range: ChunkRange, where: string | null = null): Promise<string[]> {
  const read = await extractor().readChunk(table, range, where);
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
    const read = await extractor().readChunk(table, WHOLE, "nextval('public.s') > 0");
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
    const column = rangeColumn(table);
    const bounds = column === null ? null : await extractor().keyBounds(table, column);
    expect(bounds).toEqual(by === 'key' ? { min: '1', max: '5000' } : null);
    const version = await extractor().version();
    const { ranges } = planChunks({ table, version, bounds, chunk_rows: 700, chunks_max: 100 });
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
    const select = /\((.*)\) TO STDOUT/.exec(chunkSql(await tableOf('planned'), range, null))?.[1];
    const { rows } = await admin.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${select}`);
    expect(rows.map((row) => row['QUERY PLAN']).join()).toContain(scan);
  });

  test('an empty table has no bounds, and one chunk without rows', async () => {
    await admin.query('CREATE TABLE empty (id int PRIMARY KEY)');
    const table = await tableOf('empty');
    expect(await extractor().keyBounds(table, 'id')).toBeNull();
    expect(await linesOf(table, WHOLE)).toEqual([]);
  });

  test.each([
    { by: 'key', columns: ['id'], from: ['1; DROP TABLE x'], to: null },
    { by: 'key', columns: ['id'], from: null, to: ['1e5'] },
    { by: 'ctid', from: '(0,0)::text', to: null },
  ] as const)('a bound that is none is refused: %j', async (range) => {
    await expect(extractor().readChunk(await tableOf('empty'), range, null)).rejects.toThrow(RangeError);
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
      const read = await extractor().readChunk(table, WHOLE, null);
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
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, null);
    await new Promise((resolve) => read.lines.once('data', resolve));
    read.lines.destroy();
    await expect(read.result()).rejects.toMatchObject({ code: 'SOURCE_TRANSIENT' });
  });

  test('a chunk that nobody reads holds no more than a little of it', async () => {
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, null);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(read.lines.readableLength).toBeLessThan(4 * 1024 * 1024);
    read.lines.destroy();
  });

  test('a server that ends the session in the middle is a transient fault of the lines and of the result', async () => {
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, null);
    await new Promise((resolve) => read.lines.once('data', resolve));
    read.lines.pause();
    await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [ROLE]);
    await expect(text(read.lines)).rejects.toMatchObject({ disposition: 'retry' });
    await expect(read.result()).rejects.toMatchObject({ disposition: 'retry' });
  });

  test('an error among the rows is one of the lines, without the values', async () => {
    const read = await extractor().readChunk(await tableOf('big'), WHOLE, '(t || id)::int > 0 AND id > 10');
    const failure = await text(read.lines).then(
      () => null,
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: 'SOURCE_REFUSES', facts: { sqlstate: '22P02' } });
    expect((failure as Error).message).not.toContain('xxx');
  });

  test('rows that a policy hides are an error', async () => {
    await admin.query(`CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
      CREATE POLICY odd ON hidden USING (id % 2 = 1); INSERT INTO hidden SELECT generate_series(1, 10)`);
    const table = await tableOf('hidden');
    expect(table.row_security).toBe(true);
    const read = await extractor().readChunk(table, WHOLE, null);
    await expect(text(read.lines)).rejects.toMatchObject({ code: 'TABLE_ROW_SECURITY', facts: { user: ROLE } });
    await expect(extractor().keyBounds(table, 'id')).rejects.toMatchObject({ code: 'TABLE_ROW_SECURITY' });
  });

  test('a table that may not be read: the SQL that grants it', async () => {
    const table = await tableOf('big');
    await admin.query(`REVOKE SELECT ON big FROM ${ROLE_SQL}`);
    const failure = await extractor()
      .readChunk(table, WHOLE, null)
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
    await expect(extractor().readChunk({ ...big, table: 'nowhere' }, WHOLE, null)).rejects.toMatchObject({
      code: 'TABLE_MISSING',
    });
    // What is read, and told, is what the table is by then.
    const columns = [...big.columns, { name: 'gone', type_oid: 23, type_modifier: -1, not_null: false }];
    const other = await extractor().readChunk({ ...big, columns }, WHOLE, 'id < 3');
    expect(other.table.columns.map(({ name }) => name)).toEqual(big.columns.map(({ name }) => name));
    other.lines.resume();
    await other.result();
    await expect(
      extractor()
        .readChunk(big, WHOLE, 'gone = 1')
        .then(({ lines }) => text(lines)),
    ).rejects.toMatchObject({
      code: 'TABLE_REWRITTEN',
    });
  });
});
