/** connectionFault and sourceFault: each code that a network, TLS or a server gives, and that no value of a row gets through. */
import { describe, expect, test } from 'vitest';
import { asSluiceError } from '../../lib/errors.ts';
import {
  type Connection,
  clientConfig,
  connectionFault,
  type Endpoint,
  PINNED_SETTINGS,
  type Tls,
} from '../../lib/postgres/connection.ts';
import { reasonOf, sourceFault } from '../../lib/postgres/faults.ts';

const CONNECTION: Connection = {
  host: 'db.internal',
  port: 5433,
  user: 'sluice',
  password: 'hunter2',
  database: 'shop',
  connect_timeout_seconds: 30,
  application_name: 'sluice/shop',
  ssl: null,
};
const SOURCE: Endpoint = { side: 'source', connection: CONNECTION };

function serverError(code: string, message: string, more: object = {}): Error {
  return Object.assign(new Error(message), { severity: 'FATAL', code, ...more });
}
function nodeError(code: string, message = code): Error {
  return Object.assign(new Error(message), { code });
}

describe('connectionFault', () => {
  test.each([
    ['ENOTFOUND', 'CONNECTION_FAILED'],
    ['EAI_AGAIN', 'CONNECTION_FAILED'],
    ['ECONNREFUSED', 'CONNECTION_FAILED'],
    ['ECONNRESET', 'CONNECTION_FAILED'],
    ['ETIMEDOUT', 'CONNECTION_FAILED'],
    ['EHOSTUNREACH', 'CONNECTION_FAILED'],
    ['EPIPE', 'CONNECTION_FAILED'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'TLS_FAILED'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'TLS_FAILED'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'TLS_FAILED'],
    ['CERT_HAS_EXPIRED', 'TLS_FAILED'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'TLS_FAILED'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'TLS_FAILED'],
    ['ERR_OSSL_PEM_NO_START_LINE', 'TLS_FAILED'],
  ])('%s → %s', (code, expected) => expect(connectionFault(SOURCE, nodeError(code)).code).toBe(expected));

  test.each([
    ['28P01', 'AUTHENTICATION_FAILED'],
    ['28000', 'AUTHENTICATION_FAILED'],
    ['3D000', 'DATABASE_MISSING'],
    ['42501', 'AUTHENTICATION_FAILED'],
    ['53300', 'CONNECTION_FAILED'],
    ['57P03', 'CONNECTION_FAILED'],
    ['57P01', 'CONNECTION_FAILED'],
    ['08P01', 'CONNECTION_FAILED'],
    ['40001', 'CONNECTION_FAILED'],
    ['XX000', 'UNEXPECTED'],
  ])('SQLSTATE %s → %s', (code, expected) =>
    expect(connectionFault(SOURCE, serverError(code, 'no')).code).toBe(expected),
  );

  test.each([
    ['53300', false, 'ALTER ROLE "sluice" CONNECTION LIMIT'],
    ['53300', true, 'max_wal_senders'],
    ['53100', false, 'disk of the source is full'],
    ['57P03', false, 'starts, stops or recovers'],
    ['42501', false, 'GRANT CONNECT ON DATABASE'],
  ])('SQLSTATE %s (replication: %s) says what to do: %s', (code, replication, remedy) => {
    expect(connectionFault({ ...SOURCE, replication }, serverError(code, 'no')).remedy).toContain(remedy);
  });

  test('no right to start a walsender is about replication, not about the password', () => {
    const fault = connectionFault(
      { ...SOURCE, replication: true },
      serverError('42501', 'permission denied to start WAL sender'),
    );
    expect(fault.code).toBe('REPLICATION_NOT_ALLOWED');
    expect(fault.remedy).toContain('ALTER ROLE "sluice" REPLICATION');
  });

  test.each([
    ['timeout expired', 'CONNECTION_FAILED', 'no answer in 30 seconds'],
    ['Connection terminated unexpectedly', 'CONNECTION_FAILED', 'the server closed the connection'],
    ['The server does not support SSL connections', 'TLS_FAILED', 'does not support SSL'],
    ['SASL: SCRAM-SERVER-FINAL-MESSAGE: server signature does not match', 'AUTHENTICATION_FAILED', 'server signature'],
    ['There was an error establishing an SSL connection', 'TLS_FAILED', 'with something else'],
    ['something else', 'UNEXPECTED', 'something else'],
  ])('%s → %s', (message, code, said) => {
    const fault = connectionFault(SOURCE, new Error(message));
    expect(fault.code).toBe(code);
    expect(fault.message).toContain(said);
  });

  test('a host of several addresses: the parts say what the whole does not', () => {
    const error = new AggregateError([nodeError('ECONNREFUSED'), nodeError('ECONNREFUSED')], '');
    expect(connectionFault(SOURCE, error).message).toBe(
      'The source at db.internal:5433 cannot be reached: it refuses connections: nothing listens on that port (ECONNREFUSED)',
    );
  });

  const tlsOf = (ssl: Partial<Tls>): Endpoint => ({
    side: 'target',
    connection: {
      ...CONNECTION,
      ssl: { mode: 'verify-full', ca: 'CA', cert: 'C', key: 'K', key_password: 'P', server_name: null, ...ssl },
    },
  });
  test.each<[string, Error, Partial<Tls>, string, string]>([
    ['ours', nodeError('SELF_SIGNED_CERT_IN_CHAIN'), {}, 'not among target.ssl.ca', 'target.ssl.ca'],
    ['public', nodeError('UNABLE_TO_GET_ISSUER_CERT_LOCALLY'), { ca: null }, 'the public authorities', 'ca: rds'],
    ['expired', nodeError('CERT_HAS_EXPIRED'), {}, 'has expired', 'clock'],
    ['too early', nodeError('CERT_NOT_YET_VALID'), {}, 'is not valid yet', 'clocks'],
    [
      'another name',
      Object.assign(nodeError('ERR_TLS_CERT_ALTNAME_INVALID'), { cert: { subject: { CN: 'db' } } }),
      { server_name: 'wanted' },
      'is not for wanted, but for db',
      'target.ssl.server_name',
    ],
    ['wrong passphrase', nodeError('ERR_OSSL_BAD_DECRYPT'), {}, 'does not open', 'target.ssl.key_password'],
    ['no passphrase', nodeError('ERR_OSSL_EVP_BAD_DECRYPT'), { key_password: null }, 'no passphrase', 'key_password'],
    ['another key', nodeError('ERR_OSSL_X509_KEY_VALUES_MISMATCH'), {}, 'is not that of the certificate', 'together'],
    ['no key', nodeError('ERR_OSSL_UNSUPPORTED'), {}, 'no private key', 'PKCS #8'],
    ['no certificate', nodeError('ERR_OSSL_ASN1_WRONG_TAG'), {}, 'no certificate or key', 'target.ssl.cert'],
    ['refused', nodeError('ERR_SSL_TLSV1_ALERT_UNKNOWN_CA'), {}, 'refuses the client certificate', 'target.ssl.cert'],
    ['refused', nodeError('ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_EXPIRED'), {}, 'it has expired', 'target.ssl.key'],
    ['asked', nodeError('ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED'), {}, 'asks for a client', 'target.ssl.cert'],
    ['too old', nodeError('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION'), {}, 'no version or cipher', 'TLS 1.2'],
    [
      'no TLS at all',
      nodeError('EPROTO', 'write EPROTO 40:error:0A00010B:SSL routines:tls_header:wrong version number:x.c:77:'),
      {},
      'no version or cipher',
      'TLS 1.2',
    ],
    ['any other', nodeError('ERR_SSL_DECRYPTION_FAILED', 'decryption failed'), {}, 'decryption failed', 'its mode, ca'],
  ])('TLS faults are told apart: %s', (_name, error, ssl, reason, remedy) => {
    const fault = connectionFault(tlsOf(ssl), error);
    expect(fault.code).toBe('TLS_FAILED');
    expect(fault.message).toContain(reason);
    expect(fault.remedy).toContain(remedy);
  });

  const REFUSED = serverError('28000', 'kein Eintrag in pg_hba.conf');
  test.each<[string, Endpoint, string]>([
    ['no TLS', SOURCE, 'hostssl only, set source.ssl'],
    ['TLS that is off', tlsOf({ mode: 'disable' }), 'hostssl only, set target.ssl'],
    ['no client certificate', tlsOf({ cert: null }), 'give target.ssl.cert and target.ssl.key'],
    ['a client certificate', tlsOf({}), 'pg_ident.conf'],
    [
      'an IAM token',
      { side: 'source', connection: { ...CONNECTION, iam: true } },
      'this AWS identity may rds-db:connect as sluice',
    ],
  ])('a refusal with %s has the remedy that fits, whatever language the server speaks', (_name, endpoint, remedy) => {
    const fault = connectionFault(endpoint, REFUSED);
    expect(fault.code).toBe('AUTHENTICATION_FAILED');
    expect(fault.remedy).toContain(remedy);
  });

  test('a password that is asked for and not there is named as the cause', () => {
    const endpoint = { ...SOURCE, connection: { ...CONNECTION, password: null } };
    const scram = new Error('SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a non-empty string');
    expect(connectionFault(endpoint, scram).message).toContain('none is configured');
    expect(connectionFault(endpoint, serverError('28P01', 'password authentication failed')).message).toContain(
      'no password is configured',
    );
  });

  test('what is an error of ours already stays as it is', () => {
    const fault = asSluiceError(new Error('x'));
    expect(connectionFault(SOURCE, fault)).toBe(fault);
  });
});

describe('sourceFault', () => {
  test.each(['08006', '53300', '57014', '57P01', '40001', '40P01', '55P03', '55006'])('%s is tried again', (code) => {
    expect(sourceFault(serverError(code, 'x'), 'answer').disposition).toBe('retry');
  });
  test.each(['42P01', '42501', '22P02', 'XX000', '0A000', '55000'])('%s waits for a person', (code) => {
    expect(sourceFault(serverError(code, 'x'), 'answer')).toMatchObject({
      code: 'SOURCE_REFUSES',
      disposition: 'halt',
    });
  });
  test.each([nodeError('ECONNRESET'), nodeError('EPIPE'), new Error('Connection terminated unexpectedly')])(
    'a connection that broke is tried again (%s)',
    (error) => expect(sourceFault(error, 'answer').code).toBe('SOURCE_TRANSIENT'),
  );
  test('a mistake of ours is no fault of the source', () => {
    expect(sourceFault(new TypeError('x is not a function'), 'answer').code).toBe('UNEXPECTED');
  });

  test('no value of a row is passed on', () => {
    const secret = '4111-1111-1111-1111';
    const more = {
      detail: `Key (card)=(${secret}) exists`,
      where: `COPY cards, line 1: "${secret}"`,
      table: 'cards',
      column: 'card',
    };
    for (const code of ['22P02', '22001', '22008', '23505', '23514', 'P0001']) {
      const fault = sourceFault(serverError(code, `invalid input: "${secret}"`, more), 'answer');
      expect(JSON.stringify([fault.message, fault.remedy, fault.facts])).not.toContain(secret);
      expect(reasonOf(fault.cause)).toContain('table cards, column card');
    }
  });
});

describe('clientConfig', () => {
  test('takes nothing from the environment, and waits without end for 0 or less', () => {
    const config = clientConfig({ ...SOURCE, connection: { ...CONNECTION, connect_timeout_seconds: -1 } });
    expect(config).toMatchObject({
      ssl: false,
      connectionTimeoutMillis: 0,
      keepAlive: true,
      application_name: 'sluice/shop',
    });
    expect(config.options).toBeUndefined();
    expect(typeof config.password === 'function' && config.password()).toBe('hunter2');
  });

  test('a timeout that no timer can hold is the longest that one can', () => {
    const connection = { ...CONNECTION, connect_timeout_seconds: 1e9 };
    expect(clientConfig({ ...SOURCE, connection }).connectionTimeoutMillis).toBe(2_147_483_647);
  });

  test('a replication connection has its settings pinned at its start', () => {
    const config = clientConfig({ ...SOURCE, replication: true });
    expect(config).toMatchObject({ replication: 'database' });
    for (const [name, value] of Object.entries(PINNED_SETTINGS))
      expect(config.options).toContain(`-c ${name}=${value}`);
  });

  const tls: Tls = { mode: 'require', ca: null, cert: null, key: null, key_password: null, server_name: null };
  const ssl = (more: Partial<Tls>) =>
    clientConfig({ ...SOURCE, connection: { ...CONNECTION, ssl: { ...tls, ...more } } }).ssl;
  const certificate = (name: string) => ({ subject: { CN: name }, subjectaltname: `DNS:${name}` }) as never;
  /** What the client says of a certificate for `name`: undefined is yes. */
  const identity = (options: ReturnType<typeof ssl>, name: string) =>
    typeof options === 'object' ? options.checkServerIdentity?.('ignored', certificate(name)) : null;

  test('TLS modes are those of libpq', () => {
    expect(ssl({ mode: 'disable' })).toBe(false);
    expect(ssl({ mode: 'require' })).toMatchObject({ rejectUnauthorized: false });
    expect(ssl({ mode: 'require', ca: 'PEM' })).toMatchObject({ rejectUnauthorized: true, ca: 'PEM' });
    expect(ssl({ mode: 'verify-ca' })).toMatchObject({ rejectUnauthorized: true });
    expect(identity(ssl({ mode: 'verify-ca' }), 'another')).toBeUndefined();
    expect(identity(ssl({ mode: 'verify-full' }), 'db.internal')).toBeUndefined();
    expect(identity(ssl({ mode: 'verify-full' }), 'another')).toBeInstanceOf(Error);
    expect(identity(ssl({ mode: 'verify-full', server_name: 'another' }), 'another')).toBeUndefined();
    expect(ssl({ cert: 'C', key: 'K', key_password: 'P' })).toMatchObject({ cert: 'C', key: 'K', passphrase: 'P' });
  });
});
