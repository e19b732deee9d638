import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, cp, lstat, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client, type QueryResultRow } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { accountCan, serverAccount } from '../../infra/local/postgres/account.ts';
import { findBinaries, packageDirectory } from '../../infra/local/postgres/binaries.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../infra/local/postgres.ts';
import { startPostgres, startStandby } from '../support/postgres.ts';

const asRoot = process.getuid?.() === 0;
const END_WAIT_MS = 20_000;

let scratch: string;
const running: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'sluice-test-'));
});

afterEach(async () => {
  for (const stop of running.splice(0).toReversed()) await stop();
  await rm(scratch, { recursive: true, force: true, maxRetries: 10 });
});

async function start(options: Partial<Parameters<typeof startEmbeddedPostgres>[0]> = {}): Promise<EmbeddedPostgres> {
  const server = await startEmbeddedPostgres({
    directory: join(scratch, 'server'),
    ...options,
    settings: { fsync: 'off', ...options.settings },
  });
  running.push(() => server.stop('immediate'));
  return server;
}

async function ask<Row extends QueryResultRow>(url: string, sql: string): Promise<Row[]> {
  const client = new Client(url);
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}

/** A process of its own that owns a server on `scratch/server`. */
async function startOwner(): Promise<{ owner: ChildProcess; url: string }> {
  const owner = spawn(
    process.execPath,
    [join(import.meta.dirname, '../support/fixtures/own-postgres.ts'), join(scratch, 'server')],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  running.push(async () => owner.kill('SIGKILL'));
  if (owner.stdout === null) throw new TypeError('no stdout');
  const [line] = await once(createInterface(owner.stdout), 'line');
  return { owner, url: (JSON.parse(line as string) as { url: string }).url };
}

async function postmasterPid(): Promise<number> {
  return Number((await readFile(join(scratch, 'server/data/postmaster.pid'), 'utf8')).split('\n')[0]);
}

/** A process that has ended and that nobody has waited for is still in the table: it counts as gone. */
async function lives(pid: number): Promise<boolean> {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=', '-p', String(pid)]).catch(() => ({ stdout: '' }));
  return stdout.trim() !== '' && !stdout.startsWith('Z');
}

async function waitUntilGone(pid: number): Promise<void> {
  for (let waited_ms = 0; (await lives(pid)) && waited_ms < END_WAIT_MS; waited_ms += 50) await sleep(50);
  expect(await lives(pid), `process ${pid} still lives`).toBe(false);
}

describe('a start', () => {
  test('gives a logical-replication server on loopback that asks for its password', async () => {
    const server = await start();
    expect(server.host).toBe('127.0.0.1');
    expect(
      await ask(
        server.url,
        "SELECT current_setting('wal_level') AS wal_level, current_setting('listen_addresses') AS addresses",
      ),
    ).toEqual([{ wal_level: 'logical', addresses: '127.0.0.1' }]);
    await expect(ask(server.url.replace(server.password, 'guessed'), 'SELECT 1')).rejects.toMatchObject({
      code: '28P01',
    });
    expect((await stat(join(server.directory, 'server.json'))).mode & 0o077).toBe(0);
  });

  test('runs the server under an account that is not root, which owns the data', async () => {
    const server = await start();
    const { uid } = await stat(server.dataDirectory);
    expect(uid).toBe(server.account.uid);
    expect(uid).not.toBe(0);
  });

  test('takes settings and hba, and lets ALTER SYSTEM override the settings', async () => {
    const hba = 'host all guest 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256';
    const server = await start({ settings: { wal_level: 'replica', search_path: "'odd''name', public" }, hba });
    expect(await ask(server.url, 'SHOW search_path')).toEqual([{ search_path: "'odd''name', public" }]);
    await ask(server.url, 'CREATE ROLE guest LOGIN');
    await expect(ask(server.url.replace('//postgres:', '//guest:'), 'SELECT 1')).rejects.toMatchObject({
      code: '28000',
    });
    await ask(server.url, 'ALTER SYSTEM SET wal_level = logical');
    await server.stop();
    const again = await start({ settings: { wal_level: 'replica' } });
    expect(await ask(again.url, 'SHOW wal_level')).toEqual([{ wal_level: 'logical' }]);
  });

  test('on a port that is taken fails with the server’s own reason', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    running.push(async () => taken.close());
    const { port } = taken.address() as { port: number };
    await expect(start({ port })).rejects.toMatchObject({
      code: 'LOCAL_POSTGRES_FAILED',
      message: expect.stringContaining('could not bind'),
    });
  });

  test('with a setting that PostgreSQL does not know fails with the log’s end', async () => {
    await expect(start({ settings: { wal_levle: 'logical' } })).rejects.toMatchObject({
      code: 'LOCAL_POSTGRES_FAILED',
      message: expect.stringContaining('wal_levle'),
    });
  });
});

describe('a directory', () => {
  test('has one server at a time, which a second start leaves alone', async () => {
    const server = await start();
    await expect(start()).rejects.toMatchObject({ code: 'STATE_IN_USE', facts: { pid: process.pid } });
    expect(await ask(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('of another process that lives keeps others out', async () => {
    const { owner, url } = await startOwner();
    await expect(start()).rejects.toMatchObject({ code: 'STATE_IN_USE', facts: { pid: owner.pid } });
    expect(await ask(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });
});

describe('a stop and the next start', () => {
  test('keep data, port and password', async () => {
    const first = await start();
    await ask(first.url, 'CREATE TABLE kept AS SELECT 7 AS n');
    const pid = await postmasterPid();
    await first.stop();
    expect(await lives(pid)).toBe(false);
    const second = await start();
    expect(second.url).toBe(first.url);
    expect(await ask(second.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test('another port is taken when the last one is no longer free', async () => {
    const first = await start();
    await first.stop();
    const taken = createServer().listen(first.port, '127.0.0.1');
    await once(taken, 'listening');
    running.push(async () => taken.close());
    const second = await start();
    expect(second.port).not.toBe(first.port);
    expect(await ask(second.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('the directory is removed where it is not to be kept', async () => {
    const server = await start({ keep: false });
    await server.stop();
    await expect(lstat(server.directory)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('after SIGKILL', () => {
  test('of its owner the server ends by itself, and the next start has what was committed', async () => {
    const { owner, url } = await startOwner();
    await ask(url, 'CREATE TABLE kept AS SELECT 7 AS n');
    const pid = await postmasterPid();
    owner.kill('SIGKILL');
    await waitUntilGone(pid);
    const server = await start();
    expect(await ask(server.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test('of its owner a start need not wait for the server’s end', async () => {
    const { owner, url } = await startOwner();
    await ask(url, 'CREATE TABLE kept AS SELECT 7 AS n');
    owner.kill('SIGKILL');
    const server = await start();
    expect(await ask(server.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test.runIf(process.platform === 'linux')(
    'of owner and supervisor the next start ends the server that was left',
    async () => {
      const { owner, url } = await startOwner();
      await ask(url, 'CREATE TABLE kept AS SELECT 7 AS n');
      const pid = await postmasterPid();
      const supervisor = Number(/^PPid:\s*(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
      // The kernel may leave one out while others come and go (proc_pid_children(5)): postmaster and reader are two.
      let children: number[] = [];
      await expect
        .poll(async () => {
          const list = await readFile(`/proc/${supervisor}/task/${supervisor}/children`, 'utf8');
          children = list.trim().split(' ').map(Number);
          return children.length;
        })
        .toBe(2);
      // The reader first: an owner that still sees its supervisor die lets go of the pipe, and the reader would end the server.
      for (const child of [...children.filter((child) => child !== pid), supervisor]) process.kill(child, 'SIGKILL');
      owner.kill('SIGKILL');
      await sleep(300);
      expect(await lives(pid)).toBe(true);
      const server = await start();
      expect(await lives(pid)).toBe(false);
      expect(await ask(server.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
    },
  );

  test('of the postmaster itself its end is reported, and the next start recovers', async () => {
    const server = await start();
    await ask(server.url, 'CREATE TABLE kept AS SELECT 7 AS n');
    process.kill(await postmasterPid(), 'SIGKILL');
    expect(await server.ended).toMatch(/137|SIGKILL/);
    const again = await start();
    expect(await ask(again.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test('a postmaster.pid that names another process does not stop a start, nor harm the process', async () => {
    const server = await start();
    await server.stop();
    await writeFile(
      join(server.dataDirectory, 'postmaster.pid'),
      `${process.pid}\n${server.dataDirectory}\n1\n1\n\n\n\nready\n`,
    );
    const again = await start();
    expect(await ask(again.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  test('in the middle of the first initialisation the next start begins it anew', async () => {
    await mkdir(join(scratch, 'server/data.half/base'), { recursive: true });
    await mkdir(join(scratch, 'server/data/base'), { recursive: true });
    const server = await start();
    expect(await ask(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });
});

describe.runIf(asRoot)('root, below a directory that others cannot enter', () => {
  test('has data there', async () => {
    const home = join(scratch, 'home');
    await mkdir(home, { mode: 0o700 });
    const server = await start({ directory: join(home, 'server') });
    expect(await accountCan(server.account, '-w', server.dataDirectory)).toBe(false);
    await ask(server.url, 'CREATE TABLE kept AS SELECT 7 AS n');
    await server.stop();
    const again = await start({ directory: join(home, 'server') });
    expect(await ask(again.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  test('has the binaries copied once, without what others put in their place', async () => {
    const home = join(scratch, 'home');
    await mkdir(home, { mode: 0o700 });
    await cp(packageDirectory(), join(home, 'package'), { recursive: true, verbatimSymlinks: true });
    const [first, second] = [join(scratch, 'first'), join(scratch, 'second')];
    await chmod(scratch, 0o755);
    for (const place of [first, second]) {
      await mkdir(place);
      await chmod(place, 0o755);
    }
    const account = await serverAccount();
    const binaries = await findBinaries(account, join(home, 'package'), [first, second]);
    expect(binaries.postgres.startsWith(first)).toBe(true);
    expect(await accountCan(account, '-x', binaries.initdb)).toBe(true);
    const { ino } = await stat(binaries.postgres);
    expect((await stat((await findBinaries(account, join(home, 'package'), [first, second])).postgres)).ino).toBe(ino);

    await rm(binaries.initdb);
    const mended = await findBinaries(account, join(home, 'package'), [first, second]);
    expect(mended).toEqual(binaries);

    const copy = join(binaries.postgres, '../..');
    await chown(copy, account.uid, account.gid);
    await chmod(first, 0o1777);
    const elsewhere = await findBinaries(account, join(home, 'package'), [first, second]);
    expect(elsewhere.postgres.startsWith(second)).toBe(true);
  });
});

test('a standby streams from its primary, and is one', async () => {
  await using primary = await startPostgres();
  const writer = await primary.connect();
  await writer.query('CREATE TABLE streamed AS SELECT 1 AS n');
  await using standby = await startStandby(primary);
  const reader = await standby.connect();
  await writer.query('INSERT INTO streamed VALUES (2)');
  const { rows } = await writer.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
  for (let tries = 0; tries < 200; tries++) {
    const behind = await reader.query<{ behind: boolean }>('SELECT pg_last_wal_replay_lsn() < $1::pg_lsn AS behind', [
      rows[0]?.lsn,
    ]);
    if (behind.rows[0]?.behind === false) break;
    await sleep(25);
  }
  expect((await reader.query('SELECT n, pg_is_in_recovery() AS standby FROM streamed ORDER BY n')).rows).toEqual([
    { n: 1, standby: true },
    { n: 2, standby: true },
  ]);
});

test('a test server leaves nothing behind, and restarts on its port with other settings', async () => {
  const server = await startPostgres();
  const before = await server.connect();
  await before.query('CREATE TABLE kept AS SELECT 7 AS n');
  await server.restart({ wal_level: 'replica' });
  const after = await server.connect();
  expect((await after.query("SELECT n, current_setting('wal_level') AS wal_level FROM kept")).rows).toEqual([
    { n: 7, wal_level: 'replica' },
  ]);
  await server.stop();
  await expect(lstat(server.directory)).rejects.toMatchObject({ code: 'ENOENT' });
});
