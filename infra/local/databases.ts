/**
 * Embedded servers for the sides of a pipeline that name no host, and the pipeline file as the functions then read it: with the servers' addresses,
 * and with their passwords in the environment, as any other's are.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { ALIASES_MAX } from '../../lib/config/document.ts';
import type { ConnectionConfig, Pipeline } from '../../lib/config/schema.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './postgres.ts';
import { type DatabaseAddress, writeWhole } from './state.ts';

export const SIDES = ['source', 'target'] as const;
export type Side = (typeof SIDES)[number];

/** Null: the pipeline names a server of its own. */
export type Addresses = Readonly<Record<Side, DatabaseAddress | null>>;

const PASSWORD_VARIABLES: Readonly<Record<Side, string>> = {
  source: 'SLUICE_EMBEDDED_SOURCE_PASSWORD',
  target: 'SLUICE_EMBEDDED_TARGET_PASSWORD',
};

export interface Databases {
  readonly addresses: Addresses;
  /** A server has ended that nobody has stopped. */
  readonly onEnd: (tell: (side: Side, how: string) => void) => void;
  stop(): Promise<void>;
}

/** Starts what is missing, in `stateDirectory`; whoever calls holds its lock. */
export async function startDatabases(pipeline: Pipeline, stateDirectory: string): Promise<Databases> {
  const servers = new Map<Side, EmbeddedPostgres>();
  let stopping = false;
  const stop = async (): Promise<void> => {
    stopping = true;
    await Promise.all([...servers.values()].map((server) => server.stop()));
  };
  try {
    for (const side of SIDES.filter((one) => pipeline[one].host === null)) {
      const directory = join(stateDirectory, 'postgres', `${pipeline.pipeline}-${side}`);
      servers.set(side, await startEmbeddedPostgres({ directory }));
    }
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    addresses: { source: addressOf(servers.get('source')), target: addressOf(servers.get('target')) },
    onEnd: (tell) => {
      for (const [side, server] of servers) void server.ended.then((how) => (stopping ? undefined : tell(side, how)));
    },
    stop,
  };
}

function addressOf(server: EmbeddedPostgres | undefined): DatabaseAddress | null {
  if (server === undefined) return null;
  const { host, port, user, password, database } = server;
  return { host, port, user, password, database };
}

/** What the functions' environment must hold for the file of `writeLocalFile`. */
export function passwordsOf(addresses: Addresses): Record<string, string> {
  const passwords: Record<string, string> = {};
  for (const side of SIDES) {
    const address = addresses[side];
    if (address !== null) passwords[PASSWORD_VARIABLES[side]] = address.password;
  }
  return passwords;
}

/** Path of the file that the functions read. */
export function localFilePath(pipeline: Pipeline, stateDirectory: string): string {
  return join(stateDirectory, `${pipeline.pipeline}.json`);
}

/** Writes it: what the user's own says, with the embedded servers where it names none, and the files that it names by their whole paths. */
export async function writeLocalFile(
  pipeline: Pipeline,
  configPath: string,
  path: string,
  addresses: Addresses,
): Promise<void> {
  const file = parseDocument(await readFile(configPath, 'utf8'));
  for (const side of SIDES) {
    for (const [option, named] of namedFiles(pipeline[side]))
      file.setIn([side, 'ssl', option], resolve(dirname(configPath), named));
    const address = addresses[side];
    if (address === null) continue;
    const { host, port, user, database } = address;
    const given = { host, port, user, database, password: `\${env:${PASSWORD_VARIABLES[side]}}` };
    for (const [option, value] of Object.entries(given)) file.setIn([side, option], value);
  }
  for (const [i, { json_schema }] of pipeline.tables.entries()) {
    if (json_schema !== null) file.setIn(['tables', i, 'json_schema'], file.createNode(json_schema));
  }
  await writeWhole(path, `${JSON.stringify(file.toJS({ maxAliasCount: ALIASES_MAX }), null, 2)}\n`);
}

function namedFiles({ ssl }: Pick<ConnectionConfig, 'ssl'>): [option: string, path: string][] {
  const references = Object.entries({ ca: ssl.ca, cert: ssl.cert, key: ssl.key });
  return references.flatMap(([option, reference]) => (reference?.from === 'file' ? [[option, reference.path]] : []));
}
