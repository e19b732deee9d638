/**
 * The connections of a pipeline file as the functions make them: one of each kind, from the file's options, with its files and its environment.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import { Connector, secretReaders } from '../../functions/postgres.ts';
import { readPipeline } from '../../lib/config/read.ts';
import type { SecretReaders } from '../../lib/config/secrets.ts';

/** Each way in which a function connects. */
export const KINDS = ['source', 'walsender', 'replica', 'target'] as const;
export type Kind = (typeof KINDS)[number];

/** Options of both sides, beside `use_secondary`; `secondary_host` is where the replica is. */
export interface ConnectionsFile {
  readonly options: Readonly<Record<string, unknown>>;
  readonly secondary_host?: string;
  readonly secondary_port?: number;
  /** Texts of the files that the options name, beside the pipeline file. */
  readonly files?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** In place of what the functions read. */
  readonly readers?: Partial<SecretReaders>;
}

export interface Connections extends AsyncDisposable {
  /** Throws what connecting throws. The caller closes it. */
  readonly open: (kind: Kind, application_name?: string) => Promise<Client>;
  /** What the file's secrets are read from, to be changed. */
  readonly env: Record<string, string>;
}

/** Nothing listens where no replica is named. */
const NOWHERE = 'replica.invalid';

export async function connectionsOf(file: ConnectionsFile): Promise<Connections> {
  const directory = await mkdtemp(join(tmpdir(), 'sluice-test-file-'));
  for (const [name, text] of Object.entries(file.files ?? {})) await writeFile(join(directory, name), text);
  const config_path = join(directory, 'pipeline.yaml');
  const { options, secondary_host = NOWHERE, secondary_port } = file;
  const replica = { use_secondary: true, secondary_host, ...(secondary_port === undefined ? {} : { secondary_port }) };
  const text = JSON.stringify({
    pipeline: 'shop',
    source: { database: 'postgres', ...options, ...replica },
    tables: [{ table: 'public.*', target_schema: 'elsewhere' }],
    target: { database: 'postgres', ...options },
  });
  const pipeline = readPipeline(text, config_path);
  const env = { ...file.env };
  const readers = { ...secretReaders(env, config_path, { region: 'eu-central-1' }), ...file.readers };
  const connector = new Connector(pipeline, readers, Date.now);
  return {
    env,
    open: (kind, application_name) => {
      const named = application_name === undefined ? {} : { application_name };
      if (kind === 'target') return connector.connect('target', named);
      return connector.connect('source', {
        ...named,
        replication: kind === 'walsender',
        secondary: kind === 'replica',
      });
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}
