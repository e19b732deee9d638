/**
 * Connections to source and target for the functions: the file's connection, its secrets, and a `pg` client for each piece of work.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { SecretsManagerClientConfig } from '@aws-sdk/client-secrets-manager';
import { Client } from 'pg';
import { awsFault } from '../lib/aws-faults.ts';
import type { Pipeline } from '../lib/config/schema.ts';
import { resolveConnection, resolveSecret, type SecretReaders } from '../lib/config/secrets.ts';
import { SluiceError } from '../lib/errors.ts';
import { type Connection, clientConfig, connectClient, type Side } from '../lib/postgres/connection.ts';

/** Secrets are read again after this, so that one that is rotated is known without a deployment. */
const SECRETS_KEPT_MS = 5 * 60_000;

export interface ConnectOptions {
  /** A walsender's connection. */
  readonly replication?: boolean;
  /** Of the source: its replica (source.secondary_host). */
  readonly secondary?: boolean;
  /** Instead of the pipeline's. */
  readonly application_name?: string;
}

export class Connector {
  readonly #pipeline: Pipeline;
  readonly #readers: SecretReaders;
  readonly #now: () => number;
  readonly #kept = new Map<Side, { readonly connection: Promise<Connection>; readonly until_ms: number }>();

  constructor(pipeline: Pipeline, readers: SecretReaders, now: () => number) {
    this.#pipeline = pipeline;
    this.#readers = readers;
    this.#now = now;
  }

  /** A connected client of `side`, for the caller to close. Throws what secrets and connecting throw. */
  async connect(side: Side, options: ConnectOptions = {}): Promise<Client> {
    const { application_name, replication = false, secondary = false } = options;
    const primary = await this.#connection(side);
    const connection = secondary ? { ...primary, ...this.#secondary() } : primary;
    const endpoint = {
      side,
      connection: application_name === undefined ? connection : { ...connection, application_name },
      replication,
    };
    try {
      return await connectClient(() => new Client(clientConfig(endpoint)), endpoint);
    } catch (error) {
      // The password may have been changed since it was read.
      if (error instanceof SluiceError && error.code === 'AUTHENTICATION_FAILED') this.#kept.delete(side);
      throw error;
    }
  }

  /** The rules of the file see to it that it names one where it is to be used. */
  #secondary(): Pick<Connection, 'host' | 'port'> {
    const { secondary_host: host, secondary_port: port } = this.#pipeline.source;
    if (host === null) throw new RangeError('there is no source.secondary_host');
    return { host, port };
  }

  async #connection(side: Side): Promise<Connection> {
    const kept = this.#kept.get(side);
    if (kept && kept.until_ms > this.#now()) return await kept.connection;
    const connection = resolveConnection(this.#pipeline[side], side, this.#readers);
    this.#kept.set(side, { connection, until_ms: this.#now() + SECRETS_KEPT_MS });
    try {
      return await connection;
    } catch (error) {
      this.#kept.delete(side);
      throw error;
    }
  }
}

/** The salt of hashed columns, read when it is first needed. It is not rotated: another salt makes other hashes, and new copies. */
export function keptSalt({ mask_salt }: Pipeline, readers: SecretReaders): () => Promise<string | null> {
  let kept: Promise<string> | null = null;
  return async () => {
    if (mask_salt === null) return null;
    kept ??= resolveSecret(mask_salt, readers, 'mask_salt');
    try {
      return await kept;
    } catch (error) {
      kept = null;
      throw error;
    }
  };
}

/** Where a function reads secrets: its environment, Secrets Manager, and files beside the pipeline file. */
export function secretReaders(
  env: NodeJS.ProcessEnv,
  config_path: string,
  options: SecretsManagerClientConfig,
): SecretReaders {
  return {
    env,
    readFile: (path) => readFile(resolve(dirname(config_path), path), 'utf8'),
    readSecret: async (name) => {
      // Only pipelines with secrets there pay for loading it.
      const { GetSecretValueCommand, SecretsManagerClient } = await import('@aws-sdk/client-secrets-manager');
      const client = new SecretsManagerClient(options);
      try {
        const { SecretString } = await client.send(new GetSecretValueCommand({ SecretId: name }));
        return SecretString ?? '';
      } catch (error) {
        throw awsFault('Secrets Manager', 'GetSecretValue', error);
      } finally {
        client.destroy();
      }
    },
  };
}
