/**
 * The two databases of a pipeline on this machine: those that its file names, and an embedded PostgreSQL for a side that names none. The embedded ones
 * live in the state directory, so whoever starts them holds its lock: no two start the same server.
 *
 *     state/postgres/source, target   their clusters
 *     state/postgres/pgpass           for psql (PGPASSFILE): no password stands in anything that is printed
 *     state/pipeline.yaml             the pipeline file with their addresses, for the functions
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../infra/local/postgres.ts';
import { readPipeline } from '../../lib/config/read.ts';
import type { Pipeline } from '../../lib/config/schema.ts';
import type { Side } from '../../lib/postgres/connection.ts';
import type { PipelineFile } from '../pipeline-file.ts';
import { type EmbeddedAddress, resolvedFile, SIDES } from './resolved-file.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export interface Databases {
  /** Both hosts are known in it. */
  readonly pipeline: Pipeline;
  /** Absolute; what the functions read. */
  readonly config_path: string;
  /** The caller's, and in it what `config_path` names. */
  readonly environment: Environment;
  readonly embedded: Readonly<Partial<Record<Side, EmbeddedPostgres>>>;
  /** For `PGPASSFILE`; null where nothing is embedded. */
  readonly pgpass: string | null;
  stop(): Promise<void>;
}

/** A shop's worth of rows is copied and changed in them, by servers that share the machine with everything else. */
const SETTINGS = { shared_buffers: '64MB', max_wal_size: '2GB' };

const PASSWORD_VARIABLES = {
  source: 'SLUICE_EMBEDDED_SOURCE_PASSWORD',
  target: 'SLUICE_EMBEDDED_TARGET_PASSWORD',
} as const satisfies Record<Side, string>;

/** Starts what must be started: 1–2 s a server the first time. The caller holds the lock of `state`. */
export async function openDatabases(
  file: PipelineFile,
  path: string,
  state: string,
  environment: Environment,
): Promise<Databases> {
  const sides = SIDES.filter((side) => file.pipeline[side].host === null);
  if (sides.length === 0) {
    const { pipeline } = file;
    const stop = (): Promise<void> => Promise.resolve();
    return { pipeline, config_path: resolve(path), environment, embedded: {}, pgpass: null, stop };
  }
  await using opened = new AsyncDisposableStack();
  const directory = join(resolve(state), 'postgres');
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const servers = await startServers(sides, directory, opened);
  const addresses = Object.fromEntries(servers.map(([side, server]) => [side, addressOf(side, server)]));
  const config_path = join(resolve(state), 'pipeline.yaml');
  const text = resolvedFile(file, addresses);
  await writeFile(config_path, text, { mode: 0o600 });
  const pgpass = join(directory, 'pgpass');
  await writeFile(pgpass, servers.map(([, server]) => passLine(server)).join(''), { mode: 0o600 });
  const kept = opened.move();
  return {
    pipeline: readPipeline(text, config_path),
    config_path,
    environment: {
      ...environment,
      ...Object.fromEntries(servers.map(([side, { password }]) => [PASSWORD_VARIABLES[side], password])),
    },
    embedded: Object.fromEntries(servers),
    pgpass,
    stop: () => kept.disposeAsync(),
  };
}

/** Side by side; when one fails, those that started are ended by `opened`. */
async function startServers(
  sides: readonly Side[],
  directory: string,
  opened: AsyncDisposableStack,
): Promise<[Side, EmbeddedPostgres][]> {
  const started = await Promise.allSettled(
    sides.map(async (side): Promise<[Side, EmbeddedPostgres]> => {
      const server = await startEmbeddedPostgres({ directory: join(directory, side), settings: SETTINGS });
      opened.defer(() => server.stop());
      return [side, server];
    }),
  );
  return started.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

function addressOf(side: Side, { host, port, user, database }: EmbeddedPostgres): EmbeddedAddress {
  return { host, port, user, database, password_variable: PASSWORD_VARIABLES[side] };
}

/** https://www.postgresql.org/docs/current/libpq-pgpass.html; nothing in it needs an escape: the password is base64url. */
function passLine({ host, port, user, password }: EmbeddedPostgres): string {
  return `${host}:${port}:*:${user}:${password}\n`;
}

/** What to type to look into an embedded server. */
export function psqlLine(server: EmbeddedPostgres, pgpass: string): string {
  return `PGPASSFILE=${shellWord(pgpass)} psql ${psqlUrl(server)}`;
}

/** Without the password. */
export function psqlUrl({ host, port, user, database }: EmbeddedPostgres): string {
  return `postgresql://${user}@${host}:${port}/${database}`;
}

function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
