/**
 * From what a pipeline file names to the secrets themselves, just before a connection is made. The environment, Secrets Manager and the disk come in
 * as arguments. A secret is in what is returned and nowhere else: no error carries it, nor a part of it, nor a cause that does.
 */
import { SluiceError } from '../errors.ts';
import type { Connection } from '../postgres/connection.ts';
import type { ConnectionConfig, PemReference, SecretReference } from './schema.ts';

/** Where secrets are read. Each may be called for the same name more than once: keep what should be kept. */
export interface SecretReaders {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The text of an entry of AWS Secrets Manager, by name or ARN. */
  readonly readSecret: (name: string) => Promise<string>;
  /** The text of a file that the pipeline file names; relative to what, the caller decides. */
  readonly readFile: (path: string) => Promise<string>;
}

/**
 * The secret that `reference` names. `path` is the option that names it, for the message: `source.password`.
 * Throws SECRET_UNREADABLE where it is not there or empty. A SluiceError of `readSecret` that says to try again goes on as it is.
 */
export async function resolveSecret(
  reference: SecretReference,
  readers: Pick<SecretReaders, 'env' | 'readSecret'>,
  path: string,
): Promise<string> {
  if (reference.from === 'env') {
    const value = readers.env[reference.name];
    if (value) return value;
    throw unreadable(
      path,
      `the environment variable ${reference.name} is ${value === undefined ? 'not set' : 'empty'}.`,
    );
  }
  const text = await reading(path, `secret ${reference.name}`, () => readers.readSecret(reference.name));
  const value = reference.key === null ? text : fieldOf(text, reference.key, reference.name, path);
  if (value) return value;
  throw unreadable(path, `secret ${reference.name} is empty.`);
}

/** The PEM text that `reference` names. Throws SECRET_UNREADABLE where it is not there or is no PEM text. */
export async function resolvePem(reference: PemReference, readers: SecretReaders, path: string): Promise<string> {
  const pem = await pemText(reference, readers, path);
  if (pem.includes('-----BEGIN ')) return pem;
  throw unreadable(path, 'what it names is not PEM text (-----BEGIN …).');
}

async function pemText(reference: PemReference, readers: SecretReaders, path: string): Promise<string> {
  if (reference.from === 'text') return reference.pem;
  if (reference.from === 'file') {
    return reading(path, `file ${reference.path}`, () => readers.readFile(reference.path));
  }
  return resolveSecret(reference, readers, path);
}

/** The connection with its secrets, as `lib/postgres` takes it. The host must be known: the local engine has put its embedded server there. */
export async function resolveConnection(
  config: ConnectionConfig,
  side: 'source' | 'target',
  readers: SecretReaders,
): Promise<Connection> {
  if (config.host === null) {
    throw new SluiceError('CONFIG_INVALID', {
      problem: `${side}.host is missing: an embedded PostgreSQL is there on the local engine only.`,
      remedy: `Set ${side}.host.`,
    });
  }
  const { mode, ca, cert, key, key_password, server_name } = config.ssl;
  const pem = (reference: PemReference | null, option: string): Promise<string | null> =>
    reference ? resolvePem(reference, readers, `${side}.ssl.${option}`) : Promise.resolve(null);
  const secret = (reference: SecretReference | null, option: string): Promise<string | null> =>
    reference ? resolveSecret(reference, readers, `${side}.${option}`) : Promise.resolve(null);
  return {
    host: config.host,
    port: config.port,
    user: config.user,
    password: await secret(config.password, 'password'),
    database: config.database,
    connect_timeout_seconds: config.connect_timeout_seconds,
    application_name: config.application_name,
    ssl: {
      mode,
      ca: await pem(ca, 'ca'),
      cert: await pem(cert, 'cert'),
      key: await pem(key, 'key'),
      key_password: await secret(key_password, 'ssl.key_password'),
      server_name,
    },
  };
}

async function reading(path: string, what: string, read: () => Promise<string>): Promise<string> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof SluiceError && error.disposition === 'retry') throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SluiceError('SECRET_UNREADABLE', { path, reason: `${what}: ${reason}` }, { cause: error });
  }
}

function fieldOf(text: string, key: string, name: string, path: string): string {
  const fields = jsonObject(text);
  if (!fields) throw unreadable(path, `secret ${name} is not a JSON object, and a key is named.`);
  if (!Object.hasOwn(fields, key)) throw unreadable(path, `secret ${name} has no field ${key}.`);
  const value = fields[key];
  if (typeof value !== 'string') throw unreadable(path, `secret ${name} has a field ${key} that is not text.`);
  return value;
}

/** Null for anything else. The parser's own error would quote the secret: it goes no further. */
function jsonObject(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : null;
  } catch {
    return null;
  }
}

function unreadable(path: string, reason: string): SluiceError {
  return new SluiceError('SECRET_UNREADABLE', { path, reason });
}
