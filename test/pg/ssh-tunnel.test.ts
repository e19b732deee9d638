/**
 * source.ssh and target.ssh: each connection to a database goes through an SSH connection of its own, to a server that is known by its key. The databases
 * have names that only the SSH server knows: without the tunnel nothing here could reach them.
 */
import { createServer } from 'node:net';
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Connector } from '../../functions/postgres.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import { makeAuthority } from '../support/certificates.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type KeyPair, keyPair, type SshServer, type SshServerOptions, startSshServer } from '../support/ssh-server.ts';
import { startTlsServer, TLS_PASSWORD } from '../support/tls-server.ts';

const PORT = 5432;
let server: TestPostgres;
let key: KeyPair;
beforeAll(async () => {
  server = await startPostgres();
  key = keyPair();
});
afterAll(async () => {
  await server.stop();
});

const HOSTS = ['db.internal', 'warehouse.internal', 'replica.internal'];
const bastion = (options: Partial<SshServerOptions> = {}): Promise<SshServer> =>
  startSshServer({
    authorized: key.public,
    hosts: () => Object.fromEntries(HOSTS.map((name) => [`${name}:${PORT}`, { host: server.host, port: server.port }])),
    ...options,
  });

interface ThroughTunnel extends Pick<Connector, 'connect'> {
  readonly env: Record<string, string>;
}

/** A connector of a file with `ssh` on both sides. `secrets`: what it names. */
function connectorThrough(
  ssh: SshServer,
  more: {
    readonly ssh?: Record<string, unknown>;
    readonly secrets?: Record<string, string>;
    readonly side?: Record<string, unknown>;
    readonly databases?: readonly [source: string, target: string];
  } = {},
): ThroughTunnel {
  const tunnel = {
    host: ssh.host,
    port: ssh.port,
    user: 'tunnel',
    private_key: '${env:SSH_KEY}',
    host_key: ssh.fingerprints[0],
    ...more.ssh,
  };
  const [from, to] = more.databases ?? ['postgres', 'postgres'];
  const side = (host: string, database: string) => ({
    host,
    port: PORT,
    user: 'postgres',
    password: '${env:PW}',
    database,
    ssh: tunnel,
    ...more.side,
  });
  const source = { ...side('db.internal', from), use_secondary: true, secondary_host: 'replica.internal' };
  const file = { pipeline: 'shop', source, tables: ['public.*'], target: side('warehouse.internal', to) };
  const pipeline = readPipeline(JSON.stringify(file), 'pipeline.yaml');
  const reject = () => Promise.reject(new Error('not asked for'));
  const env: Record<string, string> = { PW: server.password, SSH_KEY: key.private, ...more.secrets };
  const readers = { env, readFile: reject, readSecret: reject, readAuthorities: reject, signToken: reject };
  const connector = new Connector(pipeline, readers, Date.now);
  return { env, connect: async (...given) => await connector.connect(...given) };
}

/** Resolves when no SSH connection is open. */
async function closed(ssh: SshServer): Promise<void> {
  await expect.poll(() => ssh.connections.open, { timeout: 5_000 }).toBe(0);
}

async function ask(client: Client, sql: string): Promise<unknown> {
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql);
    return Object.values(rows[0] ?? {})[0];
  } finally {
    await closeClient(client);
  }
}

describe('source.ssh, target.ssh', () => {
  test('carry queries, walsenders, the replica and the target, each in an SSH connection of its own that is closed with it', async () => {
    await using ssh = await bastion();
    const connector = connectorThrough(ssh);
    const clients = [
      await connector.connect('source'),
      await connector.connect('source', { replication: true }),
      await connector.connect('source', { secondary: true }),
      await connector.connect('target'),
    ];
    expect(ssh.connections).toEqual({ open: 4, made: 4 });
    expect(ssh.forwarded).toEqual(
      ['db.internal', 'db.internal', 'replica.internal', 'warehouse.internal'].map((name) => `${name}:${PORT}`),
    );
    const [query, walsender, replica, target] = clients as [Client, Client, Client, Client];
    expect(await ask(query, "SELECT current_setting('port')::int4")).toBe(server.port);
    await expect.poll(() => ssh.connections.open).toBe(3);
    expect((await walsender.query<{ dbname: string }>('IDENTIFY_SYSTEM')).rows[0]?.dbname).toBe('postgres');
    await Promise.all([walsender, replica, target].map(closeClient));
    await closed(ssh);
    // Nothing is left on the server either.
    const admin = await server.connect();
    const left = "SELECT count(*)::int4 AS n FROM pg_stat_activity WHERE application_name = 'sluice/shop'";
    await expect.poll(async () => (await admin.query<{ n: number }>(left)).rows[0]?.n).toBe(0);
    await admin.end();
  });

  test('carry a whole pipeline: copies and changes larger than any buffer, exactly', async () => {
    await using ssh = await bastion();
    const admin = await server.connect();
    await admin.query('CREATE DATABASE tunnelled_from');
    await admin.query('CREATE DATABASE tunnelled_to');
    const from = await server.connect('tunnelled_from');
    await from.query(`CREATE TABLE t (id int PRIMARY KEY, v text);
      INSERT INTO t SELECT i, repeat(md5(i::text), 16) FROM generate_series(1, 5000) AS i`);
    const { host, port, user, password } = server;
    const at = { host, port, user, password };
    const connector = connectorThrough(ssh, { databases: ['tunnelled_from', 'tunnelled_to'] });
    {
      await using line = await openLine({
        source: { ...at, database: 'tunnelled_from' },
        target: { ...at, database: 'tunnelled_to' },
        pipeline: 'tunnelled',
        connect: async ({ side, connection: { application_name }, replication = false }) =>
          await connector.connect(side, { application_name, replication }),
      });
      await line.settle();
      await from.query(`UPDATE t SET v = repeat(md5(v), 20) WHERE id % 2 = 0; DELETE FROM t WHERE id % 5 = 0;
        INSERT INTO t VALUES (0, repeat('x', 4000000))`);
      await line.settle();
      expect(await line.equal('public.t')).toBe(true);
    }
    expect(new Set(ssh.forwarded)).toEqual(new Set([`db.internal:${PORT}`, `warehouse.internal:${PORT}`]));
    await closed(ssh);
    await from.end();
    await admin.end();
  });

  test("carry TLS, which checks the database's own name, on every kind of connection", async () => {
    const authority = await makeAuthority('ours');
    const shown = await authority.issue('server', { names: ['db.internal', 'replica.internal'] });
    await using tls = await startTlsServer(authority, shown);
    const there = { host: tls.server.host, port: tls.server.port };
    await using ssh = await bastion({
      hosts: () => Object.fromEntries(HOSTS.map((name) => [`${name}:${PORT}`, there])),
    });
    const ssl = { mode: 'verify-full', ca: authority.cert };
    const connector = connectorThrough(ssh, { side: { user: 'secure', ssl }, secrets: { PW: TLS_PASSWORD } });
    const application_name = 'ssh-test/tls';
    for (const kind of [{}, { replication: true }, { secondary: true }]) {
      const client = await connector.connect('source', { ...kind, application_name });
      expect(await tls.sessions(application_name)).toEqual([expect.objectContaining({ ssl: true })]);
      await closeClient(client);
      await expect.poll(async () => await tls.sessions(application_name)).toEqual([]);
    }
    await expect(connector.connect('target')).rejects.toMatchObject({
      code: 'TLS_FAILED',
      facts: { host: 'warehouse.internal' },
    });
    await closed(ssh);
  });

  test('a database that ends the connection, and a tunnel that breaks, fail the next query; nothing waits', async () => {
    await using ssh = await bastion();
    const connector = connectorThrough(ssh);
    const ended = await connector.connect('source');
    const admin = await server.connect();
    await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice/shop'");
    await admin.end();
    await closed(ssh);
    await expect(ended.query('SELECT 1')).rejects.toThrow();
    await closeClient(ended);
    const broken = await connector.connect('source');
    const sleeping = broken.query('SELECT pg_sleep(60)');
    setTimeout(() => ssh.breakOff(), 50);
    await expect(sleeping).rejects.toThrow();
    await closeClient(broken);
    await closed(ssh);
  });
});

describe('source.ssh.host_key', () => {
  test('of another server: refused before anything is proven to it, with both fingerprints', async () => {
    await using ssh = await bastion({ keys: ['ed25519', 'rsa'] });
    const expected = `SHA256:${'A'.repeat(43)}`;
    const connecting = connectorThrough(ssh, { ssh: { host_key: expected } }).connect('source');
    await expect(connecting).rejects.toMatchObject({
      code: 'SSH_HOST_KEY',
      disposition: 'halt',
      facts: { expected, found: expect.stringContaining(ssh.fingerprints[0] ?? '?') },
    });
    await expect(connecting).rejects.toThrow(ssh.fingerprints[1]);
    expect(ssh.forwarded).toEqual([]);
    await closed(ssh);
  });

  test.each([0, 1, 2])('may be any key of the server: number %i', async (i) => {
    await using ssh = await bastion({ keys: ['ed25519', 'ecdsa', 'rsa'] });
    const client = await connectorThrough(ssh, { ssh: { host_key: ssh.fingerprints[i] } }).connect('source');
    expect(await ask(client, 'SELECT 1')).toBe(1);
    await closed(ssh);
  });
});

describe('source.ssh.private_key, source.ssh.passphrase, source.ssh.user', () => {
  test('an encrypted key is opened by its passphrase', async () => {
    const encrypted = keyPair('ed25519', 'open sesame');
    await using ssh = await bastion({ authorized: encrypted.public });
    const given = (secrets: Record<string, string>, more: Record<string, unknown> = {}) =>
      connectorThrough(ssh, {
        ssh: { passphrase: '${env:PASS}', ...more },
        secrets: { SSH_KEY: encrypted.private, ...secrets },
      });
    expect(await ask(await given({ PASS: 'open sesame' }).connect('target'), 'SELECT 1')).toBe(1);
    const wrong = given({ PASS: 'open barley' }).connect('target');
    await expect(wrong).rejects.toMatchObject({
      code: 'SSH_KEY_UNREADABLE',
      facts: { side: 'target', reason: 'the passphrase does not open it' },
    });
    const error: unknown = await wrong.catch((thrown: unknown) => thrown);
    expect(JSON.stringify([error, String(error)])).not.toContain('barley');
    const without = connectorThrough(ssh, { secrets: { SSH_KEY: encrypted.private } }).connect('source');
    await expect(without).rejects.toMatchObject({
      code: 'SSH_KEY_UNREADABLE',
      facts: { reason: 'it is encrypted, and there is no passphrase' },
    });
    await closed(ssh);
  });

  test('a key that the server does not know, and a user that it does not have, are refused', async () => {
    await using ssh = await bastion();
    const refused = { code: 'SSH_KEY_REFUSED', disposition: 'halt' };
    await expect(
      connectorThrough(ssh, { secrets: { SSH_KEY: keyPair().private } }).connect('source'),
    ).rejects.toMatchObject(refused);
    await expect(connectorThrough(ssh, { ssh: { user: 'somebody' } }).connect('source')).rejects.toMatchObject(refused);
    await closed(ssh);
  });

  test('a key that was replaced is read anew after one refusal', async () => {
    await using ssh = await bastion();
    const secrets = { SSH_KEY: keyPair().private };
    const connector = connectorThrough(ssh, { secrets });
    await expect(connector.connect('source')).rejects.toMatchObject({ code: 'SSH_KEY_REFUSED' });
    connector.env.SSH_KEY = key.private;
    expect(await ask(await connector.connect('source'), 'SELECT 1')).toBe(1);
  });

  test('text that is no private key says so, and is not quoted', async () => {
    await using ssh = await bastion();
    for (const text of [
      key.public,
      '-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----',
    ]) {
      const connecting = connectorThrough(ssh, { secrets: { SSH_KEY: text } }).connect('source');
      await expect(connecting).rejects.toMatchObject({
        code: text === key.public ? 'SECRET_UNREADABLE' : 'SSH_KEY_UNREADABLE',
      });
      const error: unknown = await connecting.catch((thrown: unknown) => thrown);
      expect(String(error)).not.toMatch(/c2VjcmV0|AAAA/);
    }
  });
});

describe('source.ssh.host, source.ssh.port', () => {
  test('where nobody listens: unreachable, and tried again', async () => {
    const ssh = await bastion();
    const connector = connectorThrough(ssh);
    await ssh[Symbol.asyncDispose]();
    await expect(connector.connect('source')).rejects.toMatchObject({
      code: 'SSH_UNREACHABLE',
      disposition: 'retry',
      facts: { side: 'source', host: ssh.host, port: ssh.port, reason: expect.stringContaining('ECONNREFUSED') },
    });
  });

  test('where somebody listens and says nothing, connect_timeout_seconds is the limit', async () => {
    await using ssh = await bastion();
    const silent = createServer((socket) => void socket.resume());
    await new Promise<void>((done) => silent.listen(0, '127.0.0.1', done));
    const address = silent.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const connecting = connectorThrough(ssh, { ssh: { port }, side: { connect_timeout_seconds: 1 } }).connect('target');
    await expect(connecting).rejects.toMatchObject({
      code: 'SSH_UNREACHABLE',
      facts: { reason: 'no answer in 1 seconds (connect_timeout_seconds)' },
    });
    await new Promise((done) => silent.close(done));
  });

  test('a server that forwards nothing says so; one that cannot reach the database is another fault', async () => {
    await using strict = await bastion({ forwards: false });
    await expect(connectorThrough(strict).connect('target')).rejects.toMatchObject({
      code: 'SSH_FORWARDING_REFUSED',
      disposition: 'halt',
      facts: { side: 'target', to: `warehouse.internal:${PORT}`, user: 'tunnel' },
    });
    await using lost = await bastion({ hosts: () => ({}) });
    await expect(connectorThrough(lost).connect('source')).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      disposition: 'retry',
      facts: { host: 'db.internal', reason: expect.stringContaining(`through SSH server ${lost.host}`) },
    });
    await closed(strict);
    await closed(lost);
  });

  test('what the database itself refuses is told as without a tunnel', async () => {
    await using ssh = await bastion();
    const connecting = connectorThrough(ssh, { secrets: { PW: 'wrong' } }).connect('source');
    await expect(connecting).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED', facts: { host: 'db.internal' } });
    await closed(ssh);
  });
});
