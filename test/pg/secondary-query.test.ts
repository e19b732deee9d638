/**
 * INCREMENTAL and FULL_TABLE from a physical replica that lags on purpose (source.use_secondary): a run reads what the replica has, its bookmark never comes past that, and what
 * the replica gets later comes with a later run.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { writingOn } from '../support/verifying.ts';

const DELAY_SECONDS = 3;

let primary: TestPostgres;
let replica: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [primary, target] = await Promise.all([startPostgres({ settings: { wal_level: 'replica' } }), startPostgres()]);
  replica = await startStandby(primary, { hot_standby: 'on', recovery_min_apply_delay: `${DELAY_SECONDS}s` });
}, 60_000);
afterAll(async () => {
  await replica?.stop();
  await Promise.all([primary?.stop(), target?.stop()]);
});

const open = (sql: string): Promise<FreshLine> =>
  freshLine({ source: primary, target }, sql, {
    source: `itersize: 500, use_secondary: true, secondary_host: ${replica.host}, secondary_port: ${replica.port}`,
    tables:
      '[{ table: public.log, replication_method: INCREMENTAL, replication_key: k }, { table: public.whole, replication_method: FULL_TABLE }]',
  });

const MADE = `CREATE TABLE log (id int PRIMARY KEY, k int, v text); INSERT INTO log SELECT i, i, 'old' FROM generate_series(1, 200) i;
  CREATE TABLE whole (id int PRIMARY KEY, v text); INSERT INTO whole SELECT i, 'old' FROM generate_series(1, 200) i`;

/** Of the server, in the line's database. Null: it is not there yet. */
async function lastOn(server: TestPostgres, { from }: FreshLine): Promise<number | null> {
  const client = await server.connect(from.database).catch(() => null);
  if (client === null) return null;
  try {
    return (await client.query<{ k: number | null }>('SELECT max(k) AS k FROM log')).rows[0]?.k ?? null;
  } catch (error) {
    if ((error as { code?: unknown }).code === '42P01') return null;
    throw error;
  } finally {
    await client.end();
  }
}

const idsIn = async (client: pg.Client, condition: string): Promise<number[]> =>
  (await client.query<{ id: number }>(`SELECT id FROM log WHERE ${condition} ORDER BY id`)).rows.map(({ id }) => id);

/** A window with its bells, until the run it has opened is done. How often the replica was too far behind. */
async function run({ line }: FreshLine, epoch: number): Promise<number> {
  const until_ms = Date.now() + 60_000;
  for (let waits = 0; ; ) {
    try {
      await line.window();
      await line.pump();
    } catch (error) {
      const { code, disposition } = error as { code?: unknown; disposition?: unknown };
      // A query in the way of replaying is broken off, and read again.
      if (disposition !== 'retry') throw error;
      if (code === 'REPLICA_BEHIND') waits++;
    }
    const bookmarks = [...line.durable.bookmarks.values()];
    if (bookmarks.length === 2 && bookmarks.every((one) => one.state === 'live' && one.epoch >= epoch)) return waits;
    if (Date.now() > until_ms) throw new Error('the run does not end');
  }
}

test('the bookmark never comes past what the replica has, and no row is lost', { timeout: 180_000 }, async () => {
  await using fresh = await open(MADE);
  await expect.poll(() => lastOn(replica, fresh), { timeout: 30_000 }).toBe(200);
  // One writer: what it commits later has the greater value.
  await using writer = writingOn(
    fresh.from,
    (n) =>
      `INSERT INTO log SELECT i, i, 'new' FROM generate_series(${1000 + n * 3}, ${1002 + n * 3}) i; UPDATE log SET k = ${1002 + n * 3}, v = v || '+' WHERE id = ${1 + (n % 200)};
       INSERT INTO whole VALUES (${1000 + n}, 'new'); DELETE FROM whole WHERE id = ${1 + (n % 200)}`,
    40,
  );
  await expect.poll(() => lastOn(primary, fresh)).toBeGreaterThan(1000);
  let waits = 0;
  let before = 0;
  for (let epoch = 1; epoch <= 3; epoch++) {
    waits += await run(fresh, epoch);
    const value = Number(fresh.line.bookmark('public.log').replication?.value);
    const seen = await lastOn(replica, fresh);
    // Between the plan and now the replica has come further.
    expect(value).toBeLessThanOrEqual(seen ?? -1);
    expect(value).toBeGreaterThan(before);
    // Up to there nothing is missing.
    const there = new Set(await idsIn(fresh.to, 'true'));
    expect((await idsIn(fresh.from, `k <= ${value}`)).filter((id) => !there.has(id))).toEqual([]);
    before = value;
  }
  expect(waits).toBeGreaterThan(0);
  expect(await writer.end()).toBeGreaterThan(50);
  await run(fresh, fresh.line.bookmark('public.log').epoch + 1);
  await fresh.equal();
});

test('a run reads what the replica has, and not what is on the primary only; the next one brings that', {
  timeout: 120_000,
}, async () => {
  await using fresh = await open(MADE);
  await expect.poll(() => lastOn(replica, fresh), { timeout: 30_000 }).toBe(200);
  await run(fresh, 1);
  const on = await replica.connect(fresh.from.database);
  // GIVEN a run that has been planned, and whose chunks wait: what is committed from here on, no run has promised.
  await fresh.line.window();
  const plans = fresh.line.durable.extractBells.length;
  expect(plans).toBeGreaterThan(0);
  await on.query('SELECT pg_wal_replay_pause()');
  await fresh.from.query("INSERT INTO log VALUES (500, 500, 'late'); INSERT INTO whole VALUES (500, 'late')");
  // WHEN the replica stands still behind what the run needs.
  await expect(fresh.line.pump()).rejects.toMatchObject({ code: 'REPLICA_BEHIND' });
  expect(fresh.line.bookmark('public.log').replication?.value).toBe('200');
  expect(await idsIn(fresh.to, 'id = 500')).toEqual([]);
  await on.query('SELECT pg_wal_replay_resume()');
  await on.end();
  const { epoch } = fresh.line.bookmark('public.log');
  await run(fresh, epoch);
  await run(fresh, epoch + 1);
  await fresh.equal();
  expect(fresh.line.bookmark('public.log').replication?.value).toBe('500');
});
