/**
 * From what a pipeline file names to the secrets themselves, just before a connection is made. The environment, Secrets Manager and the disk come in
 * as arguments. A secret is in what is returned and nowhere else: no error carries it, nor a part of it, nor a cause that does.
 */
import { SluiceError } from '../errors.ts';
import type { Connection, Ssh } from '../postgres/connection.ts';
import type { AuthorityReference, ConnectionConfig, SecretReference } from './schema.ts';
import type { SshConfig } from './ssh.ts';

/** Where secrets are read. Each may be called for the same name more than once: keep what should be kept. */
export interface SecretReaders {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The text of an entry of AWS Secrets Manager, by name or ARN. */
  readonly readSecret: (name: string) => Promise<string>;
  /** The text of a file that the pipeline file names; relative to what, the caller decides. */
  readonly readFile: (path: string) => Promise<string>;
  /** The certificates of the authorities of Amazon RDS, as PEM text. */
  readonly readAuthorities: () => Promise<string>;
  /** An IAM token: the password of one connection, good for a quarter of an hour. */
  readonly signToken: (to: TokenRequest) => Promise<string>;
}

/** What an IAM token is for (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html). */
export interface TokenRequest {
  /** The endpoint's own name: no alias of it, and no address. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly region: string;
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

/** What a PEM text may begin with: https://datatracker.ietf.org/doc/html/rfc7468, and the labels of OpenSSL and OpenSSH. */
const LABELS = {
  certificate: /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/,
  'private key': /-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY-----/,
};

/** The PEM text that `reference` names. Throws SECRET_UNREADABLE where it is not there or holds no `kind`. */
export async function resolvePem(
  reference: AuthorityReference,
  readers: SecretReaders,
  path: string,
  kind: keyof typeof LABELS,
): Promise<string> {
  const pem = await pemText(reference, readers, path);
  if (LABELS[kind].test(pem)) return pem;
  throw unreadable(path, `what it names holds no ${kind} as PEM text (-----BEGIN …).`);
}

async function pemText(reference: AuthorityReference, readers: SecretReaders, path: string): Promise<string> {
  if (reference.from === 'text') return reference.pem;
  if (reference.from === 'rds') return readers.readAuthorities();
  if (reference.from === 'file') {
    return reading(path, `file ${reference.path}`, () => readers.readFile(reference.path));
  }
  return resolveSecret(reference, readers, path);
}

/** The connection with its secrets, as `lib/postgres` takes it; an IAM token is none of them, for each connection has its own. The host must be known: the local engine has put its embedded server there. */
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
  const pem = (
    reference: AuthorityReference | null,
    option: string,
    kind: keyof typeof LABELS = 'certificate',
  ): Promise<string | null> =>
    reference ? resolvePem(reference, readers, `${side}.ssl.${option}`, kind) : Promise.resolve(null);
  const secret = (reference: SecretReference | null, option: string): Promise<string | null> =>
    reference ? resolveSecret(reference, readers, `${side}.${option}`) : Promise.resolve(null);
  return {
    host: config.host,
    port: config.port,
    user: config.user,
    password: config.password?.from === 'iam' ? null : await secret(config.password, 'password'),
    ...(config.password?.from === 'iam' ? { iam: true } : {}),
    database: config.database,
    connect_timeout_seconds: config.connect_timeout_seconds,
    application_name: config.application_name,
    ssl: {
      mode,
      ca: await pem(ca, 'ca'),
      cert: await pem(cert, 'cert'),
      key: await pem(key, 'key', 'private key'),
      key_password: await secret(key_password, 'ssl.key_password'),
      server_name,
    },
    ssh: config.ssh && (await resolveSsh(config.ssh, side, readers)),
  };
}

async function resolveSsh(config: SshConfig, side: 'source' | 'target', readers: SecretReaders): Promise<Ssh> {
  const { private_key, passphrase } = config;
  return {
    ...config,
    private_key: await resolvePem(private_key, readers, `${side}.ssh.private_key`, 'private key'),
    passphrase: passphrase && (await resolveSecret(passphrase, readers, `${side}.ssh.passphrase`)),
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
