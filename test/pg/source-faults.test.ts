/**
 * Goal: whatever befalls the source's server, nothing is lost, doubled or stale when it is over, nobody waits for ever, no stream halts for what passes by itself, and what is
 * said tells what to do. What is wrong with one table holds the slot for none of the others (I10).
 * Method: a line between real servers; the fault is made, a window and its bells are tried, the fault ends, and everything must be equal without anybody's help.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { answer, attempt, confirmedLsn, crash, demote, restore, useUpConnections } from '../support/server-faults.ts';

let source: TestPostgres;
let target: TestPostgres;

const REP = { user: 'rep', password: 'x' };

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ settings: { max_connections: '60', max_wal_senders: '4' } }),
    startPostgres(),
  ]);
  await query(source, `CREATE ROLE rep LOGIN SUPERUSER REPLICATION PASSWORD 'x'`);
}, 60_000);
afterAll(() => Promise.all([source.stop(), target.stop()]));

const TABLES = `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 50) i`;

async function followed(sql = TABLES, options: Parameters<typeof freshLine>[2] = {}): Promise<FreshLine> {
  const fresh = await freshLine({ source, target }, sql, { role: REP, ...options });
  await fresh.settle();
  return fresh;
}

const slotOf = ({ line }: FreshLine): string => line.pipeline.source.replication_slot;

/** The window has read the log to its end, although it could not do everything. */
async function slotMoved(fresh: FreshLine, from: bigint): Promise<boolean> {
  return (await confirmedLsn(source, slotOf(fresh))) > from;
}

describe('one table that is locked', () => {
  // All wait for a lock's own limit, and at the same time.
  test.concurrent('by a vacuum that freezes, or an index that is built: a new table waits, the others do not', async () => {
    await using fresh = await followed();
    const { from, line } = fresh;
    const before = await confirmedLsn(source, slotOf(fresh));
    const other = await source.connect(line.pipeline.source.database);
    await from.query(
      `CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1); UPDATE a SET v = 'new' WHERE id = 1`,
    );
    await other.query('BEGIN; LOCK TABLE b IN SHARE UPDATE EXCLUSIVE MODE');
    const { window, bells, halts } = await attempt(line);
    expect(window).toMatchObject({ code: 'SOURCE_TRANSIENT', remedy: expect.stringContaining('pg_locks') });
    expect([bells, halts]).toEqual([[], {}]);
    expect(await line.equal('public.a')).toBe(true);
    expect(await slotMoved(fresh, before)).toBe(true);
    await other.query('COMMIT');
    await other.end();
    await fresh.equal();
  }, 60_000);

  test.concurrent('by VACUUM FULL or an ALTER that is not committed: its catalog is read all the same', async () => {
    await using fresh = await followed(
      `${TABLES}; CREATE TABLE g (id int PRIMARY KEY, n int GENERATED ALWAYS AS (id + 1) STORED); INSERT INTO g VALUES (1)`,
    );
    const { from, line } = fresh;
    const before = await confirmedLsn(source, slotOf(fresh));
    const other = await source.connect(line.pipeline.source.database);
    await from.query(`UPDATE a SET v = 'new' WHERE id = 1; INSERT INTO g VALUES (2)`);
    await other.query('BEGIN; LOCK TABLE g IN ACCESS EXCLUSIVE MODE');
    expect(await attempt(line)).toEqual({ window: null, bells: [], halts: {} });
    expect(await slotMoved(fresh, before)).toBe(true);
    expect(await line.equal('public.a')).toBe(true);
    await other.query('COMMIT');
    await other.end();
    await fresh.equal();
  }, 60_000);

  test.concurrent('by a prepared transaction that was left: the other new tables are captured', async () => {
    await using fresh = await followed();
    const { from, line } = fresh;
    await from.query(
      'CREATE TABLE left_behind (id int PRIMARY KEY); CREATE TABLE free (id int PRIMARY KEY); INSERT INTO free VALUES (1)',
    );
    const gid = `left_${line.pipeline.source.database}`;
    await from.query(`BEGIN; INSERT INTO left_behind VALUES (1); PREPARE TRANSACTION '${gid}'`);
    const window = attempt(line);
    const passing = setInterval(() => line.passTime(20_000), 1_000);
    expect(await window).toEqual({ window: null, bells: [], halts: {} });
    clearInterval(passing);
    expect(line.bookmark('public.free').captured_cut).toBeGreaterThan(0);
    expect(() => line.bookmark('public.left_behind')).toThrow('no stream');
    expect(line.log.lines).toContainEqual(
      expect.objectContaining({
        event: 'capture_waits_for_writers',
        facts: expect.objectContaining({ tables: ['public.left_behind'] }),
      }),
    );
    await from.query(`COMMIT PREPARED '${gid}'`);
    await fresh.equal();
  }, 60_000);
});

test('read-only (25006): what is captured is followed, and a new table waits', async () => {
  await using fresh = await followed();
  const { from, line } = fresh;
  const before = await confirmedLsn(source, slotOf(fresh));
  await from.query(`CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1); DELETE FROM a WHERE id = 1`);
  await query(source, 'ALTER ROLE rep SET default_transaction_read_only = on');
  const { window, bells, halts } = await attempt(line);
  await query(source, 'ALTER ROLE rep RESET default_transaction_read_only');
  expect(window).toMatchObject({ code: 'SOURCE_READ_ONLY' });
  expect([bells, halts]).toEqual([[], {}]);
  expect(await line.equal('public.a')).toBe(true);
  expect(await slotMoved(fresh, before)).toBe(true);
  await fresh.equal();
});

test('no connection, and no WAL sender, is left (53300): tried again, with the setting to raise', async () => {
  await using fresh = await followed();
  const { from, line } = fresh;
  await from.query('DELETE FROM a WHERE id = 1');
  await query(source, 'ALTER ROLE rep CONNECTION LIMIT 0; ALTER ROLE rep NOSUPERUSER');
  expect((await attempt(line)).window).toMatchObject({
    code: 'CONNECTION_FAILED',
    remedy: expect.stringContaining('ALTER ROLE "rep" CONNECTION LIMIT'),
  });
  await query(source, 'ALTER ROLE rep CONNECTION LIMIT -1; ALTER ROLE rep SUPERUSER');
  const letGo = await useUpConnections(source, REP, 'database');
  expect((await attempt(line)).window).toMatchObject({
    code: 'CONNECTION_FAILED',
    remedy: expect.stringContaining('max_wal_senders'),
  });
  await letGo();
  await fresh.equal();
});

test('a right that is taken away in the middle, and given back', async () => {
  await using fresh = await followed();
  const { from, line } = fresh;
  await from.query('INSERT INTO a VALUES (1000)');
  await query(source, 'ALTER ROLE rep NOSUPERUSER NOREPLICATION');
  expect((await attempt(line)).window).toMatchObject({ code: 'REPLICATION_NOT_ALLOWED' });
  await query(source, 'ALTER ROLE rep SUPERUSER REPLICATION');
  await query(source, `ALTER ROLE rep PASSWORD 'other'`);
  expect((await attempt(line)).window).toMatchObject({ code: 'AUTHENTICATION_FAILED' });
  await query(source, `ALTER ROLE rep PASSWORD 'x'`);
  await query(source, 'ALTER ROLE rep NOSUPERUSER REPLICATION');
  const { database } = line.pipeline.source;
  await query(source, `REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
  expect((await attempt(line)).window).toMatchObject({
    code: 'AUTHENTICATION_FAILED',
    remedy: `Run: GRANT CONNECT ON DATABASE "${database}" TO "rep"`,
  });
  await query(source, `GRANT CONNECT ON DATABASE ${database} TO PUBLIC`);
  await query(source, 'ALTER ROLE rep SUPERUSER');
  expect(Object.values((await attempt(line)).halts)).toEqual([]);
  await fresh.equal();
});

describe('a server of its own', () => {
  test.each(['stream', 'peek'] as const)(
    'crashes while its log and a table are read (slot_reader: %s)',
    async (reader) => {
      await using primary = await startPostgres({ settings: { logical_decoding_work_mem: '64kB' } });
      await using fresh = await freshLine(
        { source: primary, target },
        `${TABLES}; CREATE TABLE bag (v text); ALTER TABLE bag REPLICA IDENTITY FULL`,
        { source: `slot_reader: ${reader}`, target: 'primary_key_required: false' },
      );
      const { line } = fresh;
      await fresh.settle();
      const { database } = line.pipeline.source;
      const write = async (sql: string): Promise<void> => {
        const client = await primary.connect(database);
        await client.query(sql);
        await client.end();
      };
      // A transaction that is being read.
      await write(
        `INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(100, 12000) i; INSERT INTO bag SELECT i % 10 FROM generate_series(1, 1000) i`,
      );
      const state = { over: false };
      const reading = attempt(line).finally(() => {
        state.over = true;
      });
      const readers = `SELECT FROM pg_replication_slots WHERE slot_name = '${slotOf(fresh)}' AND active_pid IS NOT NULL`;
      while (!state.over && (await query(primary, readers)).length === 0) await sleep(5);
      await crash(primary);
      const { window, halts } = await reading;
      if (window !== null) expect(window.code).toMatch(/^(SLOT_STREAM_FAILED|SOURCE_TRANSIENT|CONNECTION_FAILED)$/);
      expect(halts).toEqual({});
      // A copy that is being read.
      await write(
        `CREATE TABLE copied (id int PRIMARY KEY, v text); INSERT INTO copied SELECT i, repeat('y', 100) FROM generate_series(1, 25000) i`,
      );
      await line.window().catch(() => undefined);
      const copying = answer(line);
      const copies = `SELECT FROM pg_stat_activity WHERE datname = '${database}' AND query LIKE 'COPY%'`;
      for (let looks = 0; looks < 100 && (await query(primary, copies)).length === 0; looks++) await sleep(5);
      await crash(primary);
      for (const { code } of await copying) expect(code).toMatch(/^(SOURCE_TRANSIENT|CONNECTION_FAILED)$/);
      await line.settle();
      for (const table of ['public.a', 'public.bag', 'public.copied'])
        expect([table, await line.equal(table)]).toEqual([table, true]);
    },
    60_000,
  );

  test('forgets in a crash what a copy has seen, for nobody had waited for it (synchronous_commit = off)', async () => {
    await using primary = await startPostgres({ settings: { wal_writer_delay: '10s', checkpoint_timeout: '1h' } });
    await using fresh = await freshLine({ source: primary, target }, TABLES);
    const { line } = fresh;
    await fresh.settle();
    const writer = await primary.connect(line.pipeline.source.database);
    await writer.query(`CREATE TABLE ghosts (id int PRIMARY KEY, v text); INSERT INTO ghosts VALUES (1, 'old')`);
    await line.window();
    // Nothing of the log is written to the disk while its writer stands still.
    const [row] = await query(primary, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
    process.kill(Number(row?.pid), 'SIGSTOP');
    await writer.query(
      `SET synchronous_commit = off; UPDATE ghosts SET v = 'ghost'; INSERT INTO ghosts VALUES (2, 'ghost')`,
    );
    const copying = answer(line);
    await sleep(1_500);
    await crash(primary);
    expect(await copying).not.toEqual([]);
    expect(await query(primary, 'SELECT 1 AS up')).toEqual([{ up: 1 }]);
    await line.settle();
    expect(await line.rows('source', 'public.ghosts')).toEqual([['1', 'old']]);
    expect(await line.rows('target', 'public.ghosts')).toEqual([['1', 'old']]);
  }, 60_000);

  test('is demoted in the middle of a copy, and promoted again: nobody halts', async () => {
    await using primary = await startPostgres();
    await using fresh = await freshLine({ source: primary, target }, TABLES);
    const { line } = fresh;
    await fresh.settle();
    const writer = await primary.connect(line.pipeline.source.database);
    await writer.query('CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late SELECT generate_series(1, 1000)');
    await line.window();
    await demote(primary);
    expect(await answer(line)).toMatchObject([{ code: 'SOURCE_IS_STANDBY' }]);
    expect(await attempt(line)).toMatchObject({ window: { code: 'SOURCE_IS_STANDBY' }, halts: {} });
    await restore(primary);
    await line.settle();
    expect(await line.equal('public.late')).toBe(true);
  }, 60_000);
});
