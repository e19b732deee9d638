/**
 * IAM tokens: signed as RDS wants them, without a network; each connection with one of its own, over TLS only, and none for a walsender. The server here is
 * an ordinary one whose password is changed to each token that is signed, as RDS takes each for a quarter of an hour.
 */
import { X509Certificate } from 'node:crypto';
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { secretReaders } from '../../functions/postgres.ts';
import type { TokenRequest } from '../../lib/config/secrets.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import { makeAuthority } from '../support/certificates.ts';
import { type Connections, connectionsOf } from '../support/connections.ts';
import { startTlsServer, type TlsServer } from '../support/tls-server.ts';

const CREDENTIALS = { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'canary-of-the-key' };
const REQUEST: TokenRequest = {
  host: 'shop.c1.eu-west-3.rds.amazonaws.com',
  port: 5433,
  user: 'sluice',
  region: 'eu-west-3',
};

describe('a token', () => {
  const readers = secretReaders({}, '/nowhere/pipeline.yaml', { region: 'us-east-1', credentials: CREDENTIALS });

  test('password: { iam: true } is a signed request to connect, good for a quarter of an hour', async () => {
    const token = await readers.signToken(REQUEST);
    const url = new URL(`https://${token}`);
    expect(url.host).toBe('shop.c1.eu-west-3.rds.amazonaws.com:5433');
    const said = Object.fromEntries(url.searchParams);
    expect(said).toMatchObject({
      Action: 'connect',
      DBUser: 'sluice',
      'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
      'X-Amz-Expires': '900',
      'X-Amz-Signature': expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(said['X-Amz-Credential']).toMatch(/^AKIAEXAMPLE\/\d{8}\/eu-west-3\/rds-db\/aws4_request$/);
    expect(token).not.toContain(CREDENTIALS.secretAccessKey);
  });

  test('that cannot be signed is told as what it is, without the credentials', async () => {
    const credentials = () => Promise.reject(Object.assign(new Error('none'), { name: 'CredentialsProviderError' }));
    const without = secretReaders({}, '/nowhere/pipeline.yaml', { credentials });
    await expect(without.signToken(REQUEST)).rejects.toMatchObject({
      code: 'AWS_DENIED',
      facts: { service: 'RDS', reason: 'CredentialsProviderError: none' },
    });
  });
});

test('the authorities of Amazon RDS are there', async () => {
  const text = await secretReaders({}, '/nowhere/pipeline.yaml', {}).readAuthorities();
  const certificates = text.split(/(?<=-----END CERTIFICATE-----\s*)/).filter((part) => part.trim() !== '');
  const subjects = certificates.map((pem) => new X509Certificate(pem).subject);
  for (const region of ['eu-central-1', 'us-east-1', 'ap-southeast-2'])
    expect(subjects.some((subject) => subject.includes(`CN=Amazon RDS ${region} Root CA RSA2048 G1`))).toBe(true);
  // Those of RDS Proxy, which are Amazon's public ones.
  expect(subjects.some((subject) => subject.includes('Amazon Root CA 1'))).toBe(true);
});

describe('a connection with a token', () => {
  let tls: TlsServer;
  let admin: Client;
  let ca: string;
  const signed: TokenRequest[] = [];
  beforeAll(async () => {
    const authority = await makeAuthority('ours');
    ca = authority.cert;
    const names = ['localhost', 'shop.c1.eu-west-3.rds.amazonaws.com'];
    tls = await startTlsServer(authority, await authority.issue('server', { names, addresses: ['127.0.0.1'] }));
    admin = await tls.server.connect();
  });
  afterAll(async () => {
    await admin.end();
    await tls[Symbol.asyncDispose]();
  });

  /** Each token is the password from when it is signed: what was signed before is refused. */
  const signToken = async (request: TokenRequest): Promise<string> => {
    const token = `token-${signed.push(request)}`;
    await admin.query(`ALTER ROLE secure PASSWORD '${token}'`);
    return token;
  };

  const connections = (options: Readonly<Record<string, unknown>>): Promise<Connections> => {
    const { host, port } = tls.server;
    const ssl = { mode: 'verify-full', ca: './ca.pem' };
    signed.length = 0;
    return connectionsOf({
      options: { host, port, user: 'secure', ssl, ...options },
      secondary_host: 'localhost',
      files: { 'ca.pem': ca },
      readers: { signToken },
    });
  };

  test('password: { iam: true } signs one for each connection, for its host, port, role and region', async () => {
    await using made = await connections({ password: { iam: true, region: 'eu-north-1' } });
    const { port } = tls.server;
    for (const kind of ['source', 'source', 'replica', 'target'] as const) {
      const client = await made.open(kind, 'sluice/token');
      expect(await tls.sessions('sluice/token')).toMatchObject([{ ssl: true }]);
      await closeClient(client);
    }
    const here = { host: '127.0.0.1', port, user: 'secure', region: 'eu-north-1' };
    expect(signed).toEqual([here, here, { ...here, host: 'localhost' }, here]);
  });

  test('is signed for ssl.server_name where that is the name of the database, which tells the region as well', async () => {
    const server_name = 'shop.c1.eu-west-3.rds.amazonaws.com';
    await using made = await connections({
      password: { iam: true },
      ssl: { mode: 'verify-full', ca: './ca.pem', server_name },
    });
    await closeClient(await made.open('source'));
    expect(signed).toMatchObject([{ host: server_name, region: 'eu-west-3' }]);
  });

  test('a walsender gets none: Amazon RDS takes none of it', async () => {
    await using made = await connections({ password: { iam: true, region: 'eu-north-1' } });
    await expect(made.open('walsender')).rejects.toMatchObject({
      code: 'REPLICATION_NOT_ALLOWED',
      remedy: expect.stringContaining('source.slot_reader: peek'),
    });
    expect(signed).toEqual([]);
  });

  test('that the server refuses: what a token needs is told, and the token is not', async () => {
    await using made = await connections({ password: { iam: true, region: 'eu-north-1' } });
    await admin.query("ALTER ROLE secure VALID UNTIL '2001-01-01'");
    try {
      const outcome: unknown = await made.open('target').catch((thrown: unknown) => thrown);
      expect(outcome).toMatchObject({
        code: 'AUTHENTICATION_FAILED',
        remedy: expect.stringContaining('rds-db:connect'),
      });
      expect(JSON.stringify(outcome)).not.toContain('token-1');
    } finally {
      await admin.query("ALTER ROLE secure VALID UNTIL 'infinity'");
    }
  });
});
