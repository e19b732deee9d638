/**
 * source.failover: the slot is kept on a standby, switched on and off at any time; and when the primary is gone and the standby is promoted, the pipeline goes on
 * there by itself, with nothing lost and nothing copied anew.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { doctor } from '../../lib/doctor/doctor.ts';
import { FAILOVER_CHECKS, surveyFailover } from '../../lib/doctor/failover.ts';
import type { Survey } from '../../lib/doctor/finding.ts';
import { freshLine } from '../support/fresh-line.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';

const STANDBY = 'standby_a';
const WAIT_MS = 60_000;

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const SQL =
  'CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 500) AS n';

async function failoverOf(client: pg.Client, slot: string): Promise<unknown> {
  const { rows } = await client.query('SELECT failover FROM pg_replication_slots WHERE slot_name = $1', [slot]);
  return rows[0]?.failover;
}

describe('source.failover', () => {
  test.each([17, 18] as const)(
    'on %i makes the slot so; switched on and off later, the next window changes the slot, and loses nothing',
    async (version) => {
      await using server = version === 18 ? null : await startPostgres({ version });
      const servers = { source: server ?? source, target };
      await using fresh = await freshLine(servers, SQL);
      const { line, from } = fresh;
      const slot = line.pipeline.source.replication_slot;
      await fresh.equal();
      expect(await failoverOf(from, slot)).toBe(false);
      line.configure({ source: 'failover: true' });
      await from.query("INSERT INTO t VALUES (1001, 'later')");
      await fresh.equal();
      expect(await failoverOf(from, slot)).toBe(true);
      // Where the file leaves the slot to somebody else, it stays as it is.
      line.configure({ source: 'create_slot: false' });
      await fresh.equal();
      expect(await failoverOf(from, slot)).toBe(true);
      line.configure({ source: '' });
      await from.query("UPDATE t SET v = 'off' WHERE id = 1");
      await fresh.equal();
      expect(await failoverOf(from, slot)).toBe(false);
      expect(line.log.lines.filter(({ event }) => event === 'slot_failover_set').map(({ facts }) => facts)).toEqual([
        { slot, failover: true },
        { slot, failover: false },
      ]);
      await using made = await freshLine(servers, SQL, { source: 'failover: true' });
      await made.settle();
      expect(await failoverOf(made.from, made.line.pipeline.source.replication_slot)).toBe(true);
    },
  );

  test('before 17 it is refused, by the window and by doctor', async () => {
    await using old = await startPostgres({ version: 16 });
    await using fresh = await freshLine({ source: old, target }, SQL, { source: 'failover: true' });
    await expect(fresh.line.window()).rejects.toThrow(/VERSION_UNSUPPORTED.*17 or newer is needed: source\.failover/);
    const { rows } = await fresh.from.query('SELECT count(*)::int4 AS n FROM pg_replication_slots');
    expect(rows).toEqual([{ n: 0 }]);
    const connect = async (): Promise<pg.Client> => await old.connect(fresh.from.database);
    const found = await doctor({
      pipeline: fresh.line.pipeline,
      connect: { source: connect, replication: connect, target: async () => await target.connect(fresh.to.database) },
    });
    expect(found.filter(({ severity, check }) => severity === 'error' || check === 'slot_failover')).toEqual([
      expect.objectContaining({ check: 'source_server', code: 'VERSION_UNSUPPORTED' }),
    ]);
  });

  test('a standby that is promoted: the pipeline goes on there, nothing is lost, nothing copied anew', async () => {
    const settings = { wal_retrieve_retry_interval: '200ms' };
    await using primary = await startPostgres({ settings });
    const admin = await primary.connect();
    await admin.query('SELECT pg_create_physical_replication_slot($1, true)', [STANDBY]);
    await using standby = await startStandby(primary, {
      ...settings,
      hot_standby: 'on',
      primary_slot_name: STANDBY,
      hot_standby_feedback: 'on',
      sync_replication_slots: 'on',
    });
    await admin.query(`ALTER SYSTEM SET synchronized_standby_slots = '${STANDBY}'`);
    await admin.query('SELECT pg_reload_conf()');
    await admin.query(SQL);
    // What the file calls the source is where the primary is.
    const { host, user, password } = primary;
    const at = { host, port: primary.port, user, password, database: 'postgres' };
    const { port, database } = target;
    await using line = await openLine({
      source: at,
      target: { host: target.host, port, user: target.user, password: target.password, database },
      pipeline: 'promoted',
      config: { source: 'failover: true' },
    });
    const slot = line.pipeline.source.replication_slot;
    await line.settle();
    const there = await standby.connect();
    const synced = 'SELECT synced AND NOT temporary AS synced FROM pg_replication_slots WHERE slot_name = $1';
    // An idle primary writes nothing by which the standby could come to be where the slot is.
    await expect
      .poll(
        async () => {
          await admin.query("SELECT pg_logical_emit_message(true, 'test', '')");
          return (await there.query<{ synced: boolean }>(synced, [slot])).rows[0]?.synced;
        },
        { timeout: WAIT_MS, interval: 500 },
      )
      .toBe(true);
    const before = line.bookmark('public.t');
    await admin.query("UPDATE t SET v = 'drained' WHERE id % 3 = 0; INSERT INTO t VALUES (2001, 'drained')");
    await line.window();
    await line.pump();
    // GIVEN changes that no window has read when the primary goes.
    await admin.query("DELETE FROM t WHERE id % 7 = 0; INSERT INTO t VALUES (2002, 'not drained')");
    const { rows } = await admin.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    const replayed = 'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS replayed';
    await expect
      .poll(async () => (await there.query<{ replayed: boolean }>(replayed, [rows[0]?.lsn])).rows[0]?.replayed, {
        timeout: WAIT_MS,
      })
      .toBe(true);
    await primary.stop();
    await there.query('SELECT pg_promote(true)');
    await there.query("INSERT INTO t VALUES (2003, 'on the new primary'); UPDATE t SET v = 'there' WHERE id = 1");
    // WHEN the file names the standby from now on.
    at.port = standby.port;
    for (let windows = 0; windows < 3; windows++) {
      await line.window();
      await line.pump();
    }
    const into = await target.connect();
    const all = 'SELECT id, v FROM t ORDER BY id';
    expect((await into.query(all)).rows).toEqual((await there.query(all)).rows);
    const after = line.bookmark('public.t');
    expect(after).toMatchObject({ state: 'live', halt: null, epoch: before.epoch });
    expect(line.durable.chain.at(-1)?.timeline).toBe(2);
    expect(await failoverOf(there, slot)).toBe(true);
    await Promise.all([into.end(), there.end(), admin.end()]);
  });
});

describe('doctor, of source.failover', () => {
  const pipeline = readPipeline(
    'pipeline: shop\nsource: { host: a, user: u, database: shop, failover: true }\ntables: [public.t]\ntarget: { host: b, user: u, database: d }',
    'shop.yaml',
  );
  const findings = async (client: pg.Client, given = pipeline) => {
    const survey = {
      pipeline: given,
      source: { ground: { version: 170_000 }, failover: await surveyFailover(client) },
    } as unknown as Survey;
    return FAILOVER_CHECKS.flatMap(({ run }) => run(survey)).map(
      ({ severity, problem, remedy }) => `${severity}: ${problem} ${remedy}`,
    );
  };

  test('says what the standby needs, that none has a slot, that nothing waits for it, and whom windows wait for in vain', async () => {
    await using server = await startPostgres();
    const admin = await server.connect();
    const set = async (names: string): Promise<void> => {
      await admin.query(`ALTER SYSTEM SET synchronized_standby_slots = '${names}'`);
      await admin.query('SELECT pg_reload_conf()');
      await expect
        .poll(async () => (await admin.query('SHOW synchronized_standby_slots')).rows[0])
        .toEqual({ synchronized_standby_slots: names });
    };
    expect(await findings(admin)).toEqual([
      expect.stringMatching(/^warning: .*no standby has a physical slot.*sync_replication_slots = on/),
    ]);
    await admin.query("SELECT pg_create_physical_replication_slot('one')");
    expect(await findings(admin)).toEqual([
      expect.stringMatching(
        /^warning: synchronized_standby_slots is empty.*ALTER SYSTEM SET synchronized_standby_slots = 'one'/,
      ),
    ]);
    await set('one');
    expect(await findings(admin)).toEqual([
      expect.stringMatching(/^warning: .*names one, which no standby reads now.*SET synchronized_standby_slots = ''/),
      expect.stringMatching(/^info: .*primary_slot_name, hot_standby_feedback = on/),
    ]);
    await admin.query("SELECT pg_drop_replication_slot('one')");
    expect((await findings(admin))[0]).toMatch(/^error: .*names one, which does not exist/);
    // Whoever does not want it is not told of it.
    const without = { ...pipeline, source: { ...pipeline.source, failover: false } };
    expect(await findings(admin, without)).toEqual([]);
    await admin.end();
  });
});
