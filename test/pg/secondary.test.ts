/**
 * Copies from a physical replica (source.use_secondary): one that lags is waited for and never read too early, one that is none is refused, and what a
 * replica cannot give comes from the primary.
 */
import { text } from 'node:stream/consumers';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { surveySecondary } from '../../lib/doctor/secondary.ts';
import { postgresExtractor } from '../../lib/epoch/extractor.ts';
import { planTable } from '../../lib/epoch/plan-table.ts';
import type { Secondary } from '../../lib/epoch/secondary.ts';
import type { Lsn } from '../../lib/lsn.ts';
import type { ChunkRead, ChunkRequest, Clock, Extractor, SourceTable } from '../../lib/ports.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { connectTo, makeRole, ROLE_SQL, replicationTo } from '../support/source-role.ts';

const DELAY_SECONDS = 3;
/** How long replaying waits for a query in its way. */
const STANDBY_DELAY_MS = 500;
const clock: Clock = { now: () => Date.now(), sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)) };

let primary: TestPostgres;
let replica: TestPostgres;
let target: TestPostgres;
let admin: pg.Client;
beforeAll(async () => {
  [primary, target] = await Promise.all([startPostgres(), startPostgres()]);
  await makeRole(primary);
  admin = await primary.connect();
  await admin.query(`GRANT pg_read_all_data TO ${ROLE_SQL}`);
  replica = await startStandby(primary, {
    hot_standby: 'on',
    recovery_min_apply_delay: `${DELAY_SECONDS}s`,
    // Replaying waits for queries, until a test says otherwise.
    max_standby_streaming_delay: '-1',
  });
});
afterAll(async () => {
  await admin.end();
  await replica.stop();
  await Promise.all([primary.stop(), target.stop()]);
});

function extractor(secondary: Partial<Secondary> & Pick<Secondary, 'connect'>): Extractor {
  return postgresExtractor({
    connect: connectTo(primary),
    connectReplication: replicationTo(primary),
    publications: [],
    secondary: { clock, ...secondary },
  });
}
const lagging = (wait_ms_max = 20_000) => extractor({ connect: connectTo(replica), wait_ms_max });

async function made(name: string, sql: string): Promise<SourceTable> {
  await admin.query(sql);
  const table = await lagging().table({ schema: 'public', table: name });
  if (!table) throw new Error(`no table ${name}`);
  return table;
}

const request = (from_lsn: Lsn | null, is_logged = true): ChunkRequest => ({ where: null, is_logged, from_lsn });

async function rowsOf(read: ChunkRead): Promise<{ readonly lines: string[]; readonly lsn: Lsn }> {
  const lines = (await text(read.lines)).split('\n').slice(0, -1);
  return { lines, lsn: (await read.result()).lsn };
}

describe('a replica that lags', () => {
  test('is waited for: the chunk has what the primary had when it was planned, and a position past it', async () => {
    const table = await made('waited', 'CREATE TABLE waited (id int PRIMARY KEY); INSERT INTO waited VALUES (1), (2)');
    const from_lsn = await lagging().insertLsn();
    const seen = await replica.connect();
    // GIVEN that it has not even the table yet.
    expect((await seen.query("SELECT to_regclass('public.waited') AS there")).rows).toEqual([{ there: null }]);
    await seen.end();
    const { lines, lsn } = await rowsOf(await lagging().readChunk(table, { by: 'whole' }, request(from_lsn)));
    expect(lines).toEqual(['1', '2']);
    expect(lsn).toBeGreaterThanOrEqual(from_lsn);
  });

  test('is never read too early: after a limit it is told, and tried again', async () => {
    const table = await made('early', 'CREATE TABLE early (id int PRIMARY KEY); INSERT INTO early VALUES (1)');
    const from_lsn = await lagging().insertLsn();
    const impatient = lagging(0);
    const failure = { code: 'REPLICA_BEHIND', disposition: 'retry' };
    await expect(impatient.readChunk(table, { by: 'whole' }, request(from_lsn))).rejects.toMatchObject(failure);
    const plan = planTable(impatient, table, { is_logged: true }, { from_lsn });
    await expect(plan).rejects.toMatchObject(failure);
  });

  test('is read as it is where it has come that far: not the rows of later', async () => {
    const table = await made('later', 'CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)');
    const from_lsn = await lagging().insertLsn();
    await rowsOf(await lagging().readChunk(table, { by: 'whole' }, request(from_lsn)));
    await admin.query('INSERT INTO later VALUES (2)');
    const { lines, lsn } = await rowsOf(await lagging().readChunk(table, { by: 'whole' }, request(from_lsn)));
    // From the replica: the primary has two.
    expect(lines).toEqual(['1']);
    // From above: what the replica's snapshot is of, it cannot say exactly.
    expect(lsn).toBeGreaterThan(from_lsn);
  });
});

describe('from the primary comes', () => {
  const nowhere = (): Promise<never> => Promise.reject(new Error('the replica was asked'));

  test('a table without a key that is followed by the log, an unlogged one, and what has no position to wait for', async () => {
    const keyless = await made('keyless', 'CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1)');
    const unlogged = await made('unl', 'CREATE UNLOGGED TABLE unl (id int PRIMARY KEY); INSERT INTO unl VALUES (1)');
    const keyed = await made('keyed', 'CREATE TABLE keyed (id int PRIMARY KEY); INSERT INTO keyed VALUES (1)');
    const from_lsn = await lagging().insertLsn();
    const asking = extractor({ connect: nowhere });
    const whole = { by: 'whole' } as const;
    expect((await rowsOf(await asking.readChunk(keyless, whole, request(from_lsn)))).lines).toEqual(['1']);
    expect((await rowsOf(await asking.readChunk(unlogged, whole, request(from_lsn, false)))).lines).toEqual(['1']);
    expect((await rowsOf(await asking.readChunk(keyed, whole, request(null)))).lines).toEqual(['1']);
    // Where nothing goes on by the log, any snapshot will do.
    await expect(asking.readChunk(keyless, whole, request(from_lsn, false))).rejects.toThrow('the replica was asked');
  });
});

describe('refused is', () => {
  test('a server that is no standby', async () => {
    const table = await made('refused', 'CREATE TABLE refused (id int PRIMARY KEY)');
    const from_lsn = await lagging().insertLsn();
    const same = extractor({ connect: connectTo(primary) });
    const failure = { code: 'REPLICA_UNFIT', facts: { reason: expect.stringContaining('no standby') } };
    await expect(same.readChunk(table, { by: 'whole' }, request(from_lsn))).rejects.toMatchObject(failure);
  });

  test('a replica of another cluster', async () => {
    const table = await made('other', 'CREATE TABLE other (id int PRIMARY KEY)');
    const from_lsn = await lagging().insertLsn();
    await makeRole(target);
    const foreign = extractor({ connect: connectTo(target) });
    const failure = { code: 'REPLICA_UNFIT', facts: { reason: expect.stringContaining('another cluster') } };
    await expect(foreign.readChunk(table, { by: 'whole' }, request(from_lsn))).rejects.toMatchObject(failure);
  });
});

test('the doctor sees where a replica is, and that it waits on purpose', async () => {
  const survey = await surveySecondary(connectTo(replica));
  expect(survey.server).toMatchObject({ in_recovery: true, lsn: expect.anything() });
  expect(survey.limits).toMatchObject({
    apply_delay_ms: DELAY_SECONDS * 1000,
    standby_delay_ms: -1,
    feedback: false,
    sorts_otherwise: false,
  });
});

describe('the whole line, over a replica that lags on purpose', () => {
  /** Writes as long as it runs: rows come, change, and go. */
  async function writing(from: pg.Client, work: () => Promise<void>): Promise<number> {
    let rounds = 0;
    const stop = new AbortController();
    const writes = (async () => {
      for (let id = 10_000; !stop.signal.aborted; id += 10, rounds++) {
        await from.query(`INSERT INTO a SELECT i, 'new' FROM generate_series(${id}, ${id + 9}) i;
          UPDATE a SET v = v || '+' WHERE id % 97 = ${rounds % 97}; DELETE FROM a WHERE id % 991 = ${rounds % 991}`);
      }
    })();
    try {
      await work();
    } finally {
      stop.abort();
      await writes;
    }
    return rounds;
  }

  /** The database and its tables, which were made in it just after. */
  async function hasDatabase(database: string): Promise<boolean> {
    const client = await replica.connect(database).catch(() => null);
    if (client === null) return false;
    const { rows } = await client.query("SELECT FROM pg_class WHERE relname = 'b' AND relreplident = 'f'");
    await client.end();
    return rows.length === 1;
  }

  /** Windows and bells until the copies are there. Bells that the replica is too far behind for come again: how often it was. */
  async function copied({ line }: FreshLine): Promise<number> {
    const until_ms = Date.now() + 60_000;
    for (let waits = 0; ; ) {
      try {
        await line.window();
        await line.pump();
        const bookmarks = [...line.durable.bookmarks.values()];
        const begun = bookmarks.filter(({ state }) => state === 'captured' || state === 'syncing');
        if (bookmarks.length > 0 && begun.length === 0) return waits;
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'REPLICA_BEHIND') throw error;
        waits++;
      }
      if (Date.now() > until_ms) throw new Error('the copies do not end');
    }
  }

  test('source.use_secondary: no row is missing in the end', { timeout: 120_000 }, async () => {
    await using fresh = await freshLine(
      { source: primary, target },
      `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'old' FROM generate_series(1, 5000) i;
       CREATE TABLE b (v text); ALTER TABLE b REPLICA IDENTITY FULL; INSERT INTO b VALUES ('x'), ('x')`,
      {
        source: `use_secondary: true, secondary_host: ${replica.host}, secondary_port: ${replica.port}`,
        target: 'primary_key_required: false',
      },
    );
    // GIVEN a replica that has the tables, and not what has been written to them for seconds.
    const writer = await primary.connect(fresh.from.database);
    await expect.poll(async () => await hasDatabase(fresh.from.database ?? ''), { timeout: 20_000 }).toBe(true);
    let waits = 0;
    // WHEN they are captured and copied, while the writes go on.
    const rounds = await writing(writer, async () => {
      await clock.sleep((DELAY_SECONDS * 1000) / 2);
      waits = await copied(fresh);
    });
    await writer.end();
    // THEN it was waited for, and in the end nothing is missing.
    expect(waits).toBeGreaterThan(0);
    expect(rounds).toBeGreaterThan(10);
    await fresh.equal();
    expect(fresh.line.bookmark('public.a').rows_copied).toBeGreaterThan(4000);
  });
});

// The last one: the replica is another from here on.
test('a chunk that is in the way of replaying is broken off, and worth another try', { timeout: 60_000 }, async () => {
  await replica.restart({ max_standby_streaming_delay: `${STANDBY_DELAY_MS}ms` });
  const table = await made(
    'conflict',
    "CREATE TABLE conflict (id int PRIMARY KEY, t text); INSERT INTO conflict SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i",
  );
  const from_lsn = await lagging().insertLsn();
  const read = await lagging().readChunk(table, { by: 'whole' }, request(from_lsn));
  await new Promise((resolve) => read.lines.once('data', resolve));
  read.lines.pause();
  await admin.query('DELETE FROM conflict WHERE id > 10');
  await admin.query('VACUUM conflict');
  await clock.sleep(DELAY_SECONDS * 1000 + 4 * STANDBY_DELAY_MS);
  await expect(text(read.lines)).rejects.toMatchObject({ disposition: 'retry' });
  await expect(read.result()).rejects.toMatchObject({ disposition: 'retry' });
  const now_lsn = await lagging().insertLsn();
  const again = await rowsOf(await lagging().readChunk(table, { by: 'whole' }, request(now_lsn)));
  expect(again.lines).toHaveLength(10);
});
