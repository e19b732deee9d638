/**
 * TLS with real servers, from the file's options to the session: every mode with every certificate that a server may show, client certificates, and that
 * nothing is ever weaker than the file says. On each kind of connection where the kind could make a difference.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { SluiceError } from '../../lib/errors.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import { type Authority, type Issued, makeAuthority } from '../support/certificates.ts';
import { type Connections, type ConnectionsFile, connectionsOf, KINDS, type Kind } from '../support/connections.ts';
import { startPostgres } from '../support/postgres.ts';
import { startTlsServer, TLS_PASSWORD, type TlsServer } from '../support/tls-server.ts';

let authority: Authority;
let stranger: Authority;
/** For 127.0.0.1 and localhost, which is where the server is. */
let right: Issued;
let elsewhere: Issued;
let expired: Issued;
let shown: Issued;
let tls: TlsServer;

beforeAll(async () => {
  [authority, stranger] = await Promise.all([makeAuthority('ours'), makeAuthority('theirs')]);
  const here = { names: ['localhost'], addresses: ['127.0.0.1'] };
  [right, elsewhere, expired] = await Promise.all([
    authority.issue('server', here),
    authority.issue('server', { names: ['db.internal', 'db.other'] }),
    authority.issue('server', { ...here, expired: true }),
  ]);
  tls = await startTlsServer(authority, right);
  shown = right;
});
afterAll(async () => {
  await tls[Symbol.asyncDispose]();
});

const open: Connections[] = [];
afterEach(async () => {
  for (const connections of open.splice(0)) await connections[Symbol.asyncDispose]();
});

type Ssl = boolean | Readonly<Record<string, unknown>>;

/** As `role`, with `ssl` of the file. The replica is the same server by its other name. */
async function connections(ssl: Ssl, role = 'secure', more: Partial<ConnectionsFile> = {}): Promise<Connections> {
  const { host, port } = tls.server;
  const made = await connectionsOf({
    secondary_host: 'localhost',
    ...more,
    options: { host, port, user: role, password: '${env:PASSWORD}', ssl, ...more.options },
    env: { PASSWORD: TLS_PASSWORD, ...more.env },
    files: { 'ca.pem': authority.cert, 'other-ca.pem': stranger.cert, ...more.files },
  });
  open.push(made);
  return made;
}

async function show(certificate: Issued): Promise<void> {
  if (shown !== certificate) await tls.show(certificate);
  shown = certificate;
}

/** What the server knows of the connection while it is open. */
async function session(made: Connections, kind: Kind) {
  const name = `tls-test/${kind}`;
  const client = await made.open(kind, name);
  const sessions = await tls.sessions(name);
  await closeClient(client);
  expect(sessions).toHaveLength(1);
  return sessions[0];
}

async function failure(made: Connections, kind: Kind = 'source'): Promise<SluiceError> {
  const outcome: unknown = await made.open(kind).then(
    (client) => closeClient(client),
    (thrown: unknown) => thrown,
  );
  expect(outcome).toMatchObject({ name: 'SluiceError' });
  const error = outcome as SluiceError;
  // Nothing that opens a key or a server is told.
  for (const secret of [TLS_PASSWORD, 'PRIVATE KEY', PASSPHRASE])
    expect(`${error.message} ${error.remedy} ${JSON.stringify(error.facts)}`).not.toContain(secret);
  return error;
}

const PASSPHRASE = 'a passphrase of the test';
const VERIFY_FULL = { mode: 'verify-full', ca: './ca.pem' };

describe.each(KINDS)('ssl on a connection of kind %s', (kind) => {
  test('ssl: true is TLS, and without it a server that wants TLS is not reached', async () => {
    await show(right);
    expect(await session(await connections(true), kind)).toMatchObject({ ssl: true, client: null });
    const error = await failure(await connections(false), kind);
    expect(error).toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    expect(error.remedy).toContain(`by hostssl only, set ${kind === 'target' ? 'target' : 'source'}.ssl`);
  });

  test('ssl.mode: verify-full with ssl.ca believes the right server, and no other', async () => {
    await show(right);
    expect(await session(await connections(VERIFY_FULL), kind)).toMatchObject({ ssl: true });
    expect(await failure(await connections({ ...VERIFY_FULL, ca: './other-ca.pem' }), kind)).toMatchObject({
      code: 'TLS_FAILED',
      message: expect.stringContaining('of an authority that is not among'),
    });
  });

  test('ssl.cert, ssl.key and ssl.key_password are shown to the server, in place of a password', async () => {
    await show(right);
    const certified = await authority.issue('certified');
    const made = await connections(
      { ...VERIFY_FULL, cert: './client.crt', key: './client.key', key_password: '${env:PASSPHRASE}' },
      'certified',
      {
        options: { password: undefined },
        files: { 'client.crt': certified.cert, 'client.key': certified.encryptedKey(PASSPHRASE, 'pkcs8') },
        env: { PASSPHRASE },
      },
    );
    expect(await session(made, kind)).toMatchObject({ ssl: true, client: '/CN=certified' });
  });
});

test.each(KINDS)('ssl.mode is not weakened by the environment (%s)', async (kind) => {
  await show(right);
  const before = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
  try {
    for (const mode of ['require', 'verify-ca', 'verify-full']) {
      const error = await failure(await connections({ mode, ca: './other-ca.pem' }), kind);
      expect(error).toMatchObject({ code: 'TLS_FAILED' });
    }
    expect(await failure(await connections({ mode: 'verify-full' }), kind)).toMatchObject({ code: 'TLS_FAILED' });
    await show(elsewhere);
    expect(await failure(await connections(VERIFY_FULL), kind)).toMatchObject({
      code: 'TLS_FAILED',
      message: expect.stringContaining('is not for'),
    });
  } finally {
    if (before === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    else process.env.NODE_TLS_REJECT_UNAUTHORIZED = before;
  }
});

describe('a server that shows', () => {
  const modes: readonly [name: string, ssl: Ssl][] = [
    ['require', { mode: 'require' }],
    // As in libpq, an authority that is given is checked.
    ['require with the ca', { mode: 'require', ca: './ca.pem' }],
    ['require with another ca', { mode: 'require', ca: './other-ca.pem' }],
    ['ca alone', { ca: './ca.pem' }],
    ['verify-ca', { mode: 'verify-ca', ca: './ca.pem' }],
    ['verify-full', VERIFY_FULL],
    ['verify-full with the public authorities', { mode: 'verify-full' }],
    ['verify-full with server_name', { ...VERIFY_FULL, server_name: 'db.internal' }],
    ['verify-full with another server_name', { ...VERIFY_FULL, server_name: 'db.nowhere' }],
  ];
  const UNKNOWN = 'of an authority that is not among';
  const NAME = 'is not for';
  const EXPIRED = 'has expired';
  const certificates: readonly [name: string, certificate: () => Issued, outcomes: readonly (string | null)[]][] = [
    ['what it should', () => right, [null, null, UNKNOWN, null, null, null, UNKNOWN, NAME, NAME]],
    ['another name', () => elsewhere, [null, null, UNKNOWN, null, null, NAME, UNKNOWN, null, NAME]],
    ['what has expired', () => expired, [null, EXPIRED, EXPIRED, EXPIRED, EXPIRED, EXPIRED, EXPIRED, EXPIRED, EXPIRED]],
  ];
  const cases = certificates.flatMap(([name, certificate, outcomes]) =>
    modes.map(([mode, ssl], i) => [name, `ssl.mode ${mode}`, certificate, ssl, outcomes[i] ?? null] as const),
  );

  test.each(cases)('%s: %s', async (_name, _mode, certificate, ssl, outcome) => {
    await show(certificate());
    const made = await connections(ssl);
    if (outcome === null) {
      expect(await session(made, 'source')).toMatchObject({ ssl: true });
    } else {
      const error = await failure(made);
      expect(error.code).toBe('TLS_FAILED');
      expect(error.message).toContain(outcome);
    }
  });

  test('another name: the message tells which, and the remedy is ssl.server_name', async () => {
    await show(elsewhere);
    const error = await failure(await connections(VERIFY_FULL));
    expect(error.message).toContain('is not for 127.0.0.1, but for DNS:db.internal, DNS:db.other');
    expect(error.remedy).toContain('source.ssl.server_name');
  });

  test('a certificate of ours, with ssl.ca: rds: it is none of Amazon', async () => {
    await show(right);
    const error = await failure(await connections({ mode: 'verify-full', ca: 'rds' }));
    expect(error.message).toContain(UNKNOWN);
    // With ours in their place it is believed: what `rds` stands for is what is trusted.
    const readAuthorities = () => Promise.resolve(authority.cert);
    const made = await connections({ mode: 'verify-full', ca: 'rds' }, 'secure', { readers: { readAuthorities } });
    expect(await session(made, 'source')).toMatchObject({ ssl: true });
  });
});

describe('a client certificate', () => {
  const CLIENT = { ...VERIFY_FULL, cert: './client.crt', key: './client.key' };
  /** The outcome with these two files, as a role that needs a certificate and a password. */
  const withFiles = (cert: string, key: string, role = 'demanding', more: Record<string, unknown> = {}) =>
    connections({ ...CLIENT, ...more }, role, {
      files: { 'client.crt': cert, 'client.key': key },
      env: { PASSPHRASE },
    });
  const WITH_PASSPHRASE = { key_password: '${env:PASSPHRASE}' };

  beforeAll(async () => {
    await show(right);
  });

  test.each(['pkcs8', 'pkcs1'] as const)('ssl.key_password opens an encrypted key (%s)', async (form) => {
    const { cert, encryptedKey } = await authority.issue('somebody');
    const made = await withFiles(cert, encryptedKey(PASSPHRASE, form), 'demanding', WITH_PASSPHRASE);
    expect(await session(made, 'target')).toMatchObject({ ssl: true, client: '/CN=somebody' });
  });

  test.each(['pkcs8', 'pkcs1'] as const)('a wrong ssl.key_password, and none, are told apart (%s)', async (form) => {
    const { cert, encryptedKey } = await authority.issue('somebody');
    const key = encryptedKey('another', form);
    expect(await failure(await withFiles(cert, key, 'demanding', WITH_PASSPHRASE))).toMatchObject({
      code: 'TLS_FAILED',
      message: expect.stringContaining('the passphrase in source.ssl.key_password does not open the private key'),
    });
    expect(await failure(await withFiles(cert, key))).toMatchObject({
      code: 'TLS_FAILED',
      message: expect.stringContaining('the private key in source.ssl.key is encrypted, and there is no passphrase'),
      remedy: expect.stringContaining('source.ssl.key_password'),
    });
  });

  test("a key that is another certificate's", async () => {
    const [{ cert }, { key }] = await Promise.all([authority.issue('somebody'), authority.issue('somebody')]);
    expect(await failure(await withFiles(cert, key))).toMatchObject({
      code: 'TLS_FAILED',
      message: expect.stringContaining('source.ssl.key is not that of the certificate in source.ssl.cert'),
    });
  });

  test('a key that is broken, and a certificate', async () => {
    const { cert, key } = await authority.issue('somebody');
    const cut = (pem: string): string => `${pem.slice(0, 300)}${pem.slice(400)}`;
    expect(await failure(await withFiles(cert, cut(key)))).toMatchObject({ code: 'TLS_FAILED' });
    expect(await failure(await withFiles(cut(cert), key))).toMatchObject({ code: 'TLS_FAILED' });
  });

  test('of an authority that the server does not trust', async () => {
    const { cert, key } = await stranger.issue('somebody');
    const error = await failure(await withFiles(cert, key));
    expect(error.code).toBe('TLS_FAILED');
    expect(error.message).toContain('the server refuses the client certificate');
    expect(error.remedy).toContain('source.ssl.cert');
  });

  test('that has expired', async () => {
    const { cert, key } = await authority.issue('somebody', { expired: true });
    const error = await failure(await withFiles(cert, key));
    expect(error.code).toBe('TLS_FAILED');
    expect(error.message).toContain('the server refuses the client certificate');
  });

  test('that is asked for and not given', async () => {
    const error = await failure(await connections(VERIFY_FULL, 'demanding'));
    expect(error.code).toBe('AUTHENTICATION_FAILED');
    expect(error.remedy).toContain('give source.ssl.cert and source.ssl.key');
  });

  test("that is another role's", async () => {
    const { cert, key } = await authority.issue('somebody');
    const error = await failure(await withFiles(cert, key, 'certified'));
    expect(error.code).toBe('AUTHENTICATION_FAILED');
    expect(error.remedy).toContain('pg_ident.conf');
  });

  test('that is renewed while a function lives is used after one refusal', async () => {
    const [old, renewed] = await Promise.all([
      authority.issue('somebody', { expired: true }),
      authority.issue('somebody'),
    ]);
    const env: Record<string, string> = { CERT: old.cert, KEY: old.key };
    const made = await connections({ ...VERIFY_FULL, cert: '${env:CERT}', key: '${env:KEY}' }, 'demanding', { env });
    expect((await failure(made)).code).toBe('TLS_FAILED');
    Object.assign(made.env, { CERT: renewed.cert, KEY: renewed.key });
    expect(await session(made, 'source')).toMatchObject({ client: '/CN=somebody' });
  });
});

/** Goal: whoever sits on the way gets nothing by answering in the server's place. Method: such a one, who keeps what he is sent. */
describe('somebody who answers the request for TLS with', () => {
  const sent: Buffer[] = [];
  let impostor: Server;
  let answer = '';
  beforeAll(async () => {
    impostor = createServer((socket: Socket) => {
      socket.on('error', () => undefined);
      socket.once('data', (bytes: Buffer) => {
        sent.push(bytes);
        socket.write(answer, 'latin1');
        socket.on('data', (more: Buffer) => sent.push(more));
      });
    });
    await new Promise<void>((done) => {
      impostor.listen(0, '127.0.0.1', done);
    });
  });
  afterAll(() => {
    impostor.close();
  });

  const AUTHENTICATION_CLEARTEXT = 'R\0\0\0\x08\0\0\0\x03';
  const AUTHENTICATION_OK = 'R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I';
  test.each([
    ['no', 'N', 'does not support SSL'],
    [
      'no, and asks for the password',
      `N${AUTHENTICATION_CLEARTEXT}`,
      'answers the request for TLS with something else',
    ],
    ['yes, and goes on in the clear', `S${AUTHENTICATION_OK}`, 'answers the request for TLS with something else'],
    ['an error', 'E\0\0\0\x0cSFATAL\0\0', 'answers the request for TLS with something else'],
  ])('%s: ssl.mode require goes no further', async (_name, text, reason) => {
    answer = text;
    sent.length = 0;
    const { port } = impostor.address() as AddressInfo;
    const made = await connections({ mode: 'require' }, 'secure', { options: { host: '127.0.0.1', port } });
    const error = await failure(made);
    expect(error.code).toBe('TLS_FAILED');
    expect(error.message).toContain(reason);
    expect(Buffer.concat(sent).length).toBe(8);
  });

  test('yes, and does no TLS: told as what it is', async () => {
    answer = 'S';
    const { port } = impostor.address() as AddressInfo;
    impostor.once('connection', (socket: Socket) => {
      socket.once('data', () => {
        socket.once('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'));
      });
    });
    const made = await connections({ mode: 'require' }, 'secure', { options: { host: '127.0.0.1', port } });
    const error = await failure(made);
    expect(error.code).toBe('TLS_FAILED');
    expect(error.message).toContain('no version or cipher of TLS');
  });
});

test('a connection that fails for TLS leaves no socket', async () => {
  await show(right);
  const sockets = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
  const before = sockets();
  const { cert, encryptedKey } = await authority.issue('somebody');
  const files = { 'client.crt': cert, 'client.key': encryptedKey('another', 'pkcs8') };
  const client = { ...VERIFY_FULL, cert: './client.crt', key: './client.key' };
  for (const ssl of [{ ca: './other-ca.pem' }, { ...VERIFY_FULL, server_name: 'db.nowhere' }, client])
    expect((await failure(await connections(ssl, 'secure', { files }))).code).toBe('TLS_FAILED');
  await vi.waitFor(() => expect(sockets()).toBe(before));
});

test('a server that has no TLS is not used without it', async () => {
  await using plain = await startPostgres();
  const { host, port, user, password } = plain;
  for (const kind of KINDS) {
    const made = await connections({ mode: 'require' }, user, {
      options: { host, port },
      secondary_port: port,
      env: { PASSWORD: password },
    });
    const error = await failure(made, kind);
    expect(error.code).toBe('TLS_FAILED');
    expect(error.remedy).toContain('Turn ssl on at the');
  }
});
