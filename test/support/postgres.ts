/**
 * PostgreSQL servers for tests: embedded, each with a directory of its own that is gone when it stops. What a test commits need not survive the
 * machine, so nothing is synced to disk. (But commits stay synchronous: a slot shows only what is flushed.)
 */
import { chmod, chown, copyFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Client } from 'pg';
import { saveKnown } from '../../infra/local/postgres/cluster.ts';
import type { StopMode } from '../../infra/local/postgres/supervise.ts';
import {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  startEmbeddedPostgres,
} from '../../infra/local/postgres.ts';
import { plantCluster, serverDirectory } from './clusters.ts';
import { type Major, serverPackage } from './servers.ts';

type Settings = Readonly<Record<string, string>>;

export interface ServerOptions {
  readonly settings?: Settings;
  readonly hba?: string;
  /** Major version, of those that npm has (servers.ts); 18 where neither this nor `server` is given. */
  readonly version?: Major;
  /** Another server than that of the dependency (EmbeddedPostgresOptions.server). */
  readonly server?: EmbeddedPostgresOptions['server'];
  /** It will hold so much that its files are better on a disk. */
  readonly large?: boolean;
}

export interface TestPostgres extends Omit<EmbeddedPostgres, 'ended'> {
  /** A connected client as superuser. What is not ended by the test is cut off when the server stops. */
  connect(database?: string): Promise<Client>;
  /** Stops the server (`fast` where it is not said) and starts it again on the same port, with `settings` on top of the first ones. */
  restart(settings?: Settings, mode?: StopMode): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** One statement's rows, over a connection of its own. */
export async function query(server: TestPostgres, sql: string): Promise<Record<string, unknown>[]> {
  const client = await server.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

const UNSAFE_AND_FAST: Settings = {
  fsync: 'off',
  full_page_writes: 'off',
  shared_buffers: '32MB',
};

/** A primary, ready for logical replication (`wal_level = logical` unless `settings` say otherwise). A fraction of a second in a run, else 1–2 s. */
export async function startPostgres(options: ServerOptions = {}): Promise<TestPostgres> {
  return await serve(await serverDirectory(options.large), options, true);
}

/** A hot standby that streams from `primary`, made by a base backup of its files. Stop it before the primary. */
export async function startStandby(primary: TestPostgres, settings: Settings = {}): Promise<TestPostgres> {
  const directory = await serverDirectory();
  const data = join(directory, 'data');
  // https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP: start and stop in one session.
  const session = await primary.connect();
  await session.query("SELECT pg_backup_start('standby', fast => true)");
  await copyCluster(primary.account, primary.dataDirectory, data);
  const { rows } = await session.query<{ labelfile: string }>(
    'SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)',
  );
  await session.end();

  const { host, port, user, password, account } = primary;
  // The database is for whoever synchronises slots (https://www.postgresql.org/docs/current/logical-replication-failover.html).
  const conninfo = `host=${host} port=${port} user=${user} password=${password} dbname=postgres application_name=standby`;
  for (const [name, content] of Object.entries({ backup_label: rows[0]?.labelfile ?? '', 'standby.signal': '' })) {
    await writeFile(join(data, name), content);
    await chown(join(data, name), account.uid, account.gid);
  }
  await saveKnown(directory, { password, port: null, pid: null });
  return await serve(directory, { settings: { ...settings, primary_conninfo: conninfo } }, false);
}

/** `empty`: the directory has no cluster yet. */
async function serve(directory: string, options: ServerOptions, empty: boolean): Promise<TestPostgres> {
  const binaries = options.server ?? (options.version === undefined ? undefined : await serverPackage(options.version));
  const start = (port?: number, more?: Settings): Promise<EmbeddedPostgres> =>
    startEmbeddedPostgres({
      directory,
      settings: { ...UNSAFE_AND_FAST, ...options.settings, ...more },
      ...(options.hba === undefined ? {} : { hba: options.hba }),
      ...(binaries === undefined ? {} : { server: binaries }),
      ...(port === undefined ? {} : { port }),
    });
  const first = async (): Promise<EmbeddedPostgres> => {
    if (empty) await plantCluster(directory, binaries);
    return await start();
  };
  let server = await first().catch(async (thrown: unknown) => {
    await rm(directory, { recursive: true, force: true });
    throw thrown;
  });
  const stop: TestPostgres['stop'] = async (mode = 'immediate') => {
    await server.stop(mode);
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  };
  return {
    ...server,
    connect: async (database = 'postgres') => {
      const client = new Client({
        host: server.host,
        port: server.port,
        user: server.user,
        password: server.password,
        database,
      });
      client.on('error', () => undefined); // The server may be stopped under it; what the test does next on it fails by itself.
      await client.connect();
      return client;
    },
    restart: async (settings, mode) => {
      await server.stop(mode);
      server = await start(server.port, settings);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Every file but those of the running primary and its WAL, which the standby streams. Files may vanish under the copy, as in any base backup. */
async function copyCluster(account: TestPostgres['account'], from: string, to: string): Promise<void> {
  await mkdir(to, { mode: 0o700 });
  await chown(to, account.uid, account.gid);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, copy] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) {
      await copyCluster(account, source, copy);
    } else if (!source.startsWith(join(from, 'postmaster.')) && !/\/pg_wal\/[0-9A-F]{24}$/.test(source)) {
      const copied = await copyFile(source, copy).then(
        () => true,
        (thrown: NodeJS.ErrnoException) => {
          if (thrown.code === 'ENOENT') return false;
          throw thrown;
        },
      );
      if (copied) {
        await chmod(copy, 0o600);
        await chown(copy, account.uid, account.gid);
      }
    }
  }
}
