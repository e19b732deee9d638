/**
 * Secrets come from where the file says, and an error never carries one, nor a cause that does.
 */
import { inspect } from 'node:util';
import { describe, expect, test, vi } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import type { PemReference, SecretReference } from '../../lib/config/schema.ts';
import { resolveConnection, resolvePem, resolveSecret, type SecretReaders } from '../../lib/config/secrets.ts';
import { SluiceError } from '../../lib/errors.ts';

const SECRET = 'hunter2-of-the-test';
const PEM = `-----BEGIN CERTIFICATE-----\n${SECRET}\n-----END CERTIFICATE-----\n`;

function readers(over: Partial<SecretReaders> = {}): SecretReaders {
  return {
    env: { PASSWORD: SECRET, EMPTY: '' },
    readSecret: (name) => {
      const text: Record<string, string> = {
        plain: SECRET,
        json: JSON.stringify({ password: SECRET, port: 5432, empty: '' }),
        list: `["${SECRET}"]`,
        broken: `{"password": ${SECRET}`,
        none: '',
      };
      const found = text[name];
      return found === undefined ? Promise.reject(new Error(`no secret ${name}`)) : Promise.resolve(found);
    },
    readFile: (path) => (path === 'ca.pem' ? Promise.resolve(PEM) : Promise.reject(new Error(`no file ${path}`))),
    readAuthorities: () => Promise.resolve(PEM.repeat(2)),
    signToken: () => Promise.reject(new Error('a token is made for a connection')),
    ...over,
  };
}

const failure = async (promise: Promise<unknown>): Promise<SluiceError> => {
  const error: unknown = await promise.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  if (error instanceof SluiceError) return error;
  throw error;
};

describe('a secret', () => {
  test.each<[SecretReference]>([
    [{ from: 'env', name: 'PASSWORD' }],
    [{ from: 'secret', name: 'plain', key: null }],
    [{ from: 'secret', name: 'json', key: 'password' }],
  ])('%j is read', async (reference) => {
    expect(await resolveSecret(reference, readers(), 'source.password')).toBe(SECRET);
  });

  test.each<[SecretReference, string]>([
    [{ from: 'env', name: 'MISSING' }, 'the environment variable MISSING is not set.'],
    [{ from: 'env', name: 'EMPTY' }, 'the environment variable EMPTY is empty.'],
    [{ from: 'secret', name: 'missing', key: null }, 'secret missing: no secret missing'],
    [{ from: 'secret', name: 'none', key: null }, 'secret none is empty.'],
    [{ from: 'secret', name: 'plain', key: 'password' }, 'secret plain is not a JSON object, and a key is named.'],
    [{ from: 'secret', name: 'list', key: '0' }, 'secret list is not a JSON object, and a key is named.'],
    [{ from: 'secret', name: 'broken', key: 'password' }, 'secret broken is not a JSON object, and a key is named.'],
    [{ from: 'secret', name: 'json', key: 'pasword' }, 'secret json has no field pasword.'],
    [{ from: 'secret', name: 'json', key: 'toString' }, 'secret json has no field toString.'],
    [{ from: 'secret', name: 'json', key: 'port' }, 'secret json has a field port that is not text.'],
    [{ from: 'secret', name: 'json', key: 'empty' }, 'secret json is empty.'],
  ])('%j cannot be read: %s', async (reference, reason) => {
    const error = await failure(resolveSecret(reference, readers(), 'source.password'));
    expect(error.code).toBe('SECRET_UNREADABLE');
    expect(error.facts).toEqual({ path: 'source.password', reason });
    expect(inspect(error, { depth: null }) + error.remedy).not.toContain(SECRET);
  });

  test('that may come with another try is tried again: the error goes on as it is', async () => {
    const throttled = new SluiceError('AWS_TRANSIENT', { service: 'Secrets Manager', operation: 'GetSecretValue' });
    const readSecret = () => Promise.reject(throttled);
    const reading = resolveSecret({ from: 'secret', name: 'x', key: null }, readers({ readSecret }), 'p');
    expect(await failure(reading)).toBe(throttled);
  });
});

describe('PEM text', () => {
  test.each<[PemReference]>([
    [{ from: 'text', pem: PEM }],
    [{ from: 'file', path: 'ca.pem' }],
    [{ from: 'env', name: 'CA' }],
  ])('%j is read', async (reference) => {
    expect(await resolvePem(reference, readers({ env: { CA: PEM } }), 'source.ssl.ca', 'certificate')).toBe(PEM);
  });

  test('ca: rds is the authorities that come with Sluice', async () => {
    expect(await resolvePem({ from: 'rds' }, readers(), 'source.ssl.ca', 'certificate')).toBe(PEM.repeat(2));
  });

  test.each(['PRIVATE KEY', 'ENCRYPTED PRIVATE KEY', 'RSA PRIVATE KEY', 'EC PRIVATE KEY', 'OPENSSH PRIVATE KEY'])(
    'a private key is %s',
    async (label) => {
      const pem = PEM.replaceAll('CERTIFICATE', label);
      const env = { KEY: pem, CERT: PEM };
      expect(await resolvePem({ from: 'env', name: 'KEY' }, readers({ env }), 'p', 'private key')).toBe(pem);
      const error = await failure(resolvePem({ from: 'env', name: 'CERT' }, readers({ env }), 'p', 'private key'));
      expect(error.facts.reason).toBe('what it names holds no private key as PEM text (-----BEGIN …).');
    },
  );

  test.each<[PemReference, string]>([
    [{ from: 'file', path: 'missing.pem' }, 'file missing.pem: no file missing.pem'],
    [{ from: 'env', name: 'PASSWORD' }, 'what it names holds no certificate as PEM text (-----BEGIN …).'],
  ])('%j cannot be read', async (reference, reason) => {
    const error = await failure(resolvePem(reference, readers(), 'source.ssl.ca', 'certificate'));
    expect(error.facts).toEqual({ path: 'source.ssl.ca', reason });
    expect(inspect(error, { depth: null })).not.toContain(SECRET);
  });
});

describe('a connection', () => {
  const pipeline = readPipeline(
    `pipeline: shop
tables: [public.*]
source:
  host: db
  user: u
  password: { secret: json, key: password }
  database: d
  ssl: { ca: ca.pem, mode: verify-full }
target: { host: wh, user: l, database: a }
`,
    'p',
  );

  test('gets its secrets', async () => {
    expect(await resolveConnection(pipeline.source, 'source', readers())).toEqual({
      host: 'db',
      port: 5432,
      user: 'u',
      password: SECRET,
      database: 'd',
      connect_timeout_seconds: 30,
      application_name: 'sluice/shop',
      ssl: { mode: 'verify-full', ca: PEM, cert: null, key: null, key_password: null, server_name: null },
      ssh: null,
    });
  });

  test('without secrets reads none', async () => {
    const readSecret = vi.fn<SecretReaders['readSecret']>();
    const readFile = vi.fn<SecretReaders['readFile']>();
    const connection = await resolveConnection(pipeline.target, 'target', {
      ...readers(),
      env: {},
      readSecret,
      readFile,
    });
    expect(connection.password).toBeNull();
    expect(readSecret).not.toHaveBeenCalled();
    expect(readFile).not.toHaveBeenCalled();
  });

  test('names the option that cannot be read', async () => {
    const reading = resolveConnection(
      pipeline.source,
      'source',
      readers({ readFile: () => Promise.reject(new Error('x')) }),
    );
    expect((await failure(reading)).facts.path).toBe('source.ssl.ca');
  });

  test('to an embedded server is refused where there is none', async () => {
    const error = await failure(resolveConnection({ ...pipeline.target, host: null }, 'target', readers()));
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.remedy).toBe('Set target.host.');
  });
});
