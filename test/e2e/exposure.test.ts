/**
 * What others on the machine, and on its network, can see of a `sluice run` with everything embedded: sockets, command lines, environments, files. Linux tells.
 */
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startServices } from '../../infra/local/services.ts';
import { takeState } from '../../infra/local/state.ts';
import { eventually } from '../support/local-engine.ts';
import { type Running, startSluice } from '../support/sluice.ts';

const PIPELINE = `pipeline: seen
source: {}
target: {}
tables: [public.*]
schedule: { continuous: true }
`;
const SECRET = 'ZQenvironmentXJ';

/** S3, SQS, DynamoDB and two servers. */
const LISTENERS_MIN = 5;
const LISTENS = '0A';

let directory: string;
let state: string;
let running: Running;
let pids: number[];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sluice-test-'));
  state = join(directory, 'state');
  await writeFile(join(directory, 'pipeline.yaml'), PIPELINE);
  // As for most people: what is not said to be private is for all.
  const before = process.umask(0o022);
  running = startSluice(['run', '-c', join(directory, 'pipeline.yaml'), '--state', state, '--json'], {
    SOME_SECRET: SECRET,
  });
  process.umask(before);
  await eventually(
    'a running engine',
    async () => (await named(state, 'engine.json')) && (await named(state, 'pgpass')),
    60_000,
  );
  pids = await tree(running.pid);
}, 90_000);

afterAll(async () => {
  running?.kill('SIGTERM');
  await running?.ended;
  await rm(directory, { recursive: true, force: true, maxRetries: 10 });
}, 60_000);

async function named(where: string, name: string): Promise<boolean> {
  const names: string[] = await readdir(where).catch(() => []);
  return names.includes(name);
}

/** The process and all that it has started, whoever adopted them: servers are in sessions of their own. */
async function tree(root: number): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const pid of (await readdir('/proc')).map(Number).filter(Number.isInteger)) {
    const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    parents.set(pid, Number(line.slice(line.lastIndexOf(')') + 2).split(' ')[1]));
  }
  const found = [root];
  for (const pid of found) for (const [child, parent] of parents) if (parent === pid) found.push(child);
  return found;
}

/** Local addresses, in hexadecimal, of the sockets of these processes that wait for connections. */
async function listening(of: readonly number[]): Promise<string[]> {
  const inodes = new Set<string>();
  for (const pid of of) {
    const open: string[] = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const fd of open) {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')) ?? [];
      if (inode !== undefined) inodes.add(inode);
    }
  }
  const addresses: string[] = [];
  for (const table of ['tcp', 'tcp6', 'udp', 'udp6']) {
    for (const line of (await readFile(`/proc/net/${table}`, 'utf8')).split('\n').slice(1)) {
      const [, local = '', , socket_state, , , , , , inode = ''] = line.trim().split(/\s+/);
      if (inodes.has(inode) && (table.startsWith('udp') || socket_state === LISTENS))
        addresses.push(`${table} ${local}`);
    }
  }
  return addresses;
}

test('nothing listens but on loopback', async () => {
  const addresses = await listening(pids);
  expect(addresses.length).toBeGreaterThanOrEqual(LISTENERS_MIN);
  for (const address of addresses) expect(address).toMatch(/^tcp 0100007F:|^tcp6 0{24}01000000:/);
  // The search finds one that is open to all.
  const open = createServer().listen(0, '0.0.0.0');
  await once(open, 'listening');
  const port = (open.address() as AddressInfo).port.toString(16).toUpperCase().padStart(4, '0');
  expect(await listening([process.pid])).toContainEqual(expect.stringContaining(`00000000:${port}`));
  open.close();
});

test('no password is in a command line, and the servers get nothing of our environment', async () => {
  const passwords = (await readFile(join(state, 'pgpass'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => line.split(':').at(-1) ?? '');
  expect(passwords).toHaveLength(2);
  expect(pids.length).toBeGreaterThan(5);
  for (const pid of pids) {
    const [line, environment] = await Promise.all(
      ['cmdline', 'environ'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
    );
    for (const password of passwords)
      expect(`${line}\n${environment}`.includes(password), `process ${pid}: ${line}`).toBe(false);
    if (pid === running.pid) expect(environment).toContain(SECRET);
    else expect(environment?.includes(SECRET), `process ${pid}: ${line}`).toBe(false);
  }
});

test('nobody else reads what is in the state directory', async () => {
  const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;
  expect(await mode(state)).toBe(0o700);
  // Each for itself, for the day on which somebody opens the directory above.
  for (const name of ['s3', 'dynamodb', 'pgpass', 'engine.json', 'seen.json'])
    expect((await mode(join(state, name))) & 0o077, name).toBe(0);
  for (const server of await readdir(join(state, 'postgres'))) {
    const place = join(state, 'postgres', server);
    expect((await mode(place)) & 0o066, server).toBe(0);
    for (const name of ['data', 'server.json', 'server.log'])
      expect((await mode(join(place, name))) & 0o077, name).toBe(0);
  }
});

test('what an earlier version has made for all is closed; a directory that was there before keeps its mode', async () => {
  const shared = join(directory, 'shared');
  for (const name of ['s3', 'dynamodb']) await mkdir(join(shared, name), { recursive: true, mode: 0o755 });
  await chmod(shared, 0o755);
  const taken = await takeState(shared);
  const fail = (fault: unknown): never => {
    throw fault;
  };
  const services = await startServices({ directory: shared, onError: fail, onEnd: fail });
  await services.stop();
  await taken.release();
  const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;
  for (const name of ['s3', 'dynamodb']) expect(await mode(join(shared, name))).toBe(0o700);
  expect(await mode(shared)).toBe(0o755);
});

describe('a URL with a password', () => {
  test('is on the command line no longer than it takes to start', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const reached = once(silent, 'connection');
    const { port } = silent.address() as AddressInfo;
    const init = startSluice(['init', `postgresql://u:${SECRET}@127.0.0.1:${port}/d`, '-o', '-']);
    await reached;
    const seen = await Promise.all((await tree(init.pid)).map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8')));
    init.kill('SIGKILL');
    silent.close();
    await init.ended;
    expect(seen.length).toBeGreaterThan(0);
    for (const line of seen) expect(line).not.toContain(SECRET);
  });
});
