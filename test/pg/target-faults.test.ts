/**
 * Goal: whatever befalls the target's server, the source's slot goes on moving (I10), nothing is lost, doubled or stale when it is over, and no stream halts for what passes
 * by itself; what is said tells what to do.
 * Method: a line between real servers, with a table without a key, which would show what is applied twice; the fault is made, a window and its bells are tried, the fault ends, and
 * everything must be equal without anybody's help.
 */
import { execFile } from 'node:child_process';
import { chown, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { answer, attempt, confirmedLsn, crash, demote, restore, type Tried } from '../support/server-faults.ts';

const run = promisify(execFile);
/** Mounting a file system of a few megabytes is root's. */
const CAN_MOUNT = process.platform === 'linux' && process.getuid?.() === 0;

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres(),
    startPostgres({ settings: { max_connections: '20', max_locks_per_transaction: '10' } }),
  ]);
}, 60_000);
afterAll(() => Promise.all([source.stop(), target.stop()]));

async function followed(to: TestPostgres = target): Promise<FreshLine> {
  const fresh = await freshLine(
    { source, target: to },
    `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 50) i;
     CREATE TABLE bag (v text); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES ('x'), ('x')`,
    { target: 'primary_key_required: false' },
  );
  await fresh.settle();
  return fresh;
}

const CHANGES = `INSERT INTO bag VALUES ('x'), ('y'); DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE v = 'x');
  UPDATE a SET v = 'new' WHERE id = 1; DELETE FROM a WHERE id = 2`;

/** Changes are made, and a window is tried: it is well, and the slot has moved. */
async function tried({ line, from }: FreshLine, sql = CHANGES): Promise<Tried> {
  const slot = line.pipeline.source.replication_slot;
  const before = await confirmedLsn(source, slot);
  await from.query(sql);
  const said = await attempt(line);
  expect(said.window).toBeNull();
  expect(await confirmedLsn(source, slot)).toBeGreaterThan(before);
  return said;
}

async function expectEqual({ line }: FreshLine): Promise<void> {
  await line.settle();
  for (const table of ['public.a', 'public.bag']) expect([table, await line.equal(table)]).toEqual([table, true]);
  expect([...line.durable.bookmarks.values()].map(({ halt }) => halt)).toEqual([null, null]);
}

describe('what passes by itself', () => {
  let fresh: FreshLine;
  beforeAll(async () => {
    fresh = await followed();
  }, 60_000);
  afterAll(() => fresh[Symbol.asyncDispose]());

  test('no connection is left (53300)', async () => {
    const clients = [];
    for (;;) {
      const client = await target.connect('template1').catch(() => null);
      if (client === null) break;
      clients.push(client);
    }
    const { bells } = await tried(fresh);
    expect(bells).toMatchObject([{ code: 'CONNECTION_FAILED', remedy: expect.stringContaining('max_connections') }]);
    await Promise.all(clients.map((client) => client.end()));
    await expectEqual(fresh);
  });

  test('no room for locks (53200): the setting is named', async () => {
    const holder = await target.connect();
    await expect(holder.query('SELECT pg_advisory_lock(i) FROM generate_series(1, 1000000) i')).rejects.toMatchObject({
      code: '53200',
    });
    const { bells } = await tried(fresh);
    await holder.end();
    expect(bells).not.toEqual([]);
    for (const { code, remedy } of bells) {
      expect(code).toMatch(/^(TARGET_TRANSIENT|CONNECTION_FAILED)$/);
      expect(remedy).toContain('raise max_locks_per_transaction');
    }
    await expectEqual(fresh);
  });

  test('its database goes by another name for a while', async () => {
    const { database } = fresh.line.pipeline.target;
    const rename = (now: string, then: string): Promise<unknown> =>
      query(
        target,
        `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '${now}'; ALTER DATABASE ${now} RENAME TO ${then}`,
      );
    await rename(database, 'elsewhere');
    expect(await tried(fresh)).toMatchObject({ bells: [{ code: 'DATABASE_MISSING' }], halts: {} });
    await rename('elsewhere', database);
    await expectEqual(fresh);
  });

  test.skipIf(!CAN_MOUNT)(
    'its disk is full (53100)',
    async () => {
      const { database } = fresh.line.pipeline.target;
      const directory = await mkdtemp(join(tmpdir(), 'sluice-full-'));
      await run('mount', ['-t', 'tmpfs', '-o', 'size=6m,mode=0700', 'tmpfs', directory]);
      try {
        await chown(directory, target.account.uid, target.account.gid);
        await query(target, `CREATE TABLESPACE small LOCATION '${directory}'`);
        await query(target, `ALTER DATABASE ${database} SET temp_tablespaces = small`);
        const rows = `INSERT INTO a SELECT i, repeat('x', 500) FROM generate_series(1000, 25000) i`;
        expect(await tried(fresh, rows)).toMatchObject({
          bells: [{ code: 'TARGET_TRANSIENT', remedy: expect.stringContaining('disk of the target is full') }],
          halts: {},
        });
        await run('mount', ['-o', 'remount,size=200m', directory]);
        await expectEqual(fresh);
        await query(target, `ALTER DATABASE ${database} RESET temp_tablespaces`);
        await query(target, 'DROP TABLESPACE small');
      } finally {
        await run('umount', ['-l', directory]);
        await rm(directory, { recursive: true });
      }
    },
    60_000,
  );
});

describe('a server of its own', () => {
  let own: TestPostgres;
  let fresh: FreshLine;
  beforeAll(async () => {
    own = await startPostgres({ settings: { wal_writer_delay: '10s', checkpoint_timeout: '1h' } });
    fresh = await followed(own);
  }, 60_000);
  afterAll(async () => {
    await fresh.line[Symbol.asyncDispose]();
    await own.stop();
  });

  /** The changes are loaded, and the server crashes when a loader waits as `wait_event` says; `then`, what is done about it when it is back. */
  const crashAt = async (wait_event: string, then?: () => Promise<unknown>): Promise<void> => {
    await fresh.from.query(CHANGES);
    await fresh.line.window();
    const loading = answer(fresh.line);
    const waiting = `SELECT FROM pg_stat_activity WHERE application_name = 'sluice/line' AND wait_event = '${wait_event}'`;
    for (let looks = 0; (await query(own, waiting)).length === 0; looks++) {
      if (looks > 500) throw new Error(`no loader waits for ${wait_event}`);
      await sleep(10);
    }
    await crash(own);
    await then?.();
    expect((await loading)[0]?.code).toMatch(/^(TARGET_TRANSIENT|CONNECTION_FAILED)$/);
  };

  const onTarget = async (sql: string): Promise<void> => {
    const client = await own.connect(fresh.line.pipeline.target.database);
    await client.query(sql);
    await client.end();
  };

  test('crashes while rows are written, at the commit before it is durable, and after that before its answer', async () => {
    const wait = `CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$`;
    await onTarget(
      `${wait}; CREATE TRIGGER wait AFTER INSERT OR UPDATE ON public.bag FOR EACH STATEMENT EXECUTE FUNCTION public.wait()`,
    );
    await crashAt('PgSleep');
    await onTarget(`DROP TRIGGER wait ON public.bag;
      CREATE CONSTRAINT TRIGGER wait AFTER INSERT OR UPDATE ON public.bag DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.wait()`);
    await crashAt('PgSleep');
    await onTarget('DROP TRIGGER wait ON public.bag');
    // Done and durable, and nobody hears of it: the standby that it waits for is not there.
    await query(own, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
    await query(own, 'SELECT pg_reload_conf()');
    // The next bell may be loaded before `crash` is back, and would wait for the standby without end.
    await crashAt('SyncRep', async () => {
      await query(own, 'ALTER SYSTEM RESET synchronous_standby_names');
      await query(own, 'SELECT pg_reload_conf()');
    });
    await expectEqual(fresh);
  }, 60_000);

  test('what the ledger takes for applied survives a crash, though the database says synchronous_commit = off', async () => {
    await onTarget(`ALTER DATABASE ${fresh.line.pipeline.target.database} SET synchronous_commit = off`);
    expect((await tried(fresh)).bells).toEqual([]);
    await crash(own);
    // The next window has nothing, and rings for nobody who has applied all.
    await fresh.line.window();
    await answer(fresh.line);
    for (const table of ['public.a', 'public.bag'])
      expect([table, await fresh.line.equal(table)]).toEqual([table, true]);
  }, 60_000);

  test('is demoted to a standby, and promoted again', async () => {
    await demote(own);
    expect(await tried(fresh)).toMatchObject({ bells: [{ code: 'TARGET_READ_ONLY' }], halts: {} });
    await restore(own);
    await expectEqual(fresh);
  }, 60_000);
});
