/**
 * Connections of a command to the databases of a pipeline file: the same way, with the same secrets, as the functions have it.
 */
import { resolve } from 'node:path';
import { Connector, secretReaders } from '../../functions/postgres.ts';
import { awsEnvironment } from '../../infra/local/environment.ts';
import type { Pipeline } from '../../lib/config/schema.ts';
import type { Connect } from '../../lib/postgres/session.ts';

export interface Connections {
  readonly source: Connect;
  readonly replication: Connect;
  /** The source's replica; null: none is used. */
  readonly secondary: Connect | null;
  readonly target: Connect;
}

/** A pipeline whose databases can be reached: both hosts are known, and `environment` holds what its secrets name. */
export interface Reachable {
  readonly pipeline: Pipeline;
  /** The file that it was read from: paths in it are relative to that. */
  readonly config_path: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export function connectionsTo({ pipeline, config_path, environment }: Reachable): Connections {
  const env = awsEnvironment(environment);
  const readers = secretReaders(env, resolve(config_path), { region: env.AWS_REGION ?? '' });
  const connector = new Connector(pipeline, readers, Date.now);
  return {
    source: () => connector.connect('source'),
    replication: () => connector.connect('source', { replication: true }),
    secondary: pipeline.source.use_secondary ? () => connector.connect('source', { secondary: true }) : null,
    target: () => connector.connect('target'),
  };
}
