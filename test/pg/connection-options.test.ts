/**
 * What every connection has, of whatever kind: its limit of time, its name, keepalive, and an end. Through a proxy that a test can make slow, in which each
 * socket of ours is seen.
 */
import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { closeClient } from '../../lib/postgres/connection.ts';
import { connectionsOf, KINDS } from '../support/connections.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let server: TestPostgres;
let proxy: Proxy;
let admin: Client;
beforeAll(async () => {
  server = await startPostgres();
  proxy = await startProxy(server);
  admin = await server.connect();
});
afterAll(async () => {
  await admin.end();
  proxy.close();
  await server.stop();
});

interface Proxy {
  readonly port: number;
  /** How long it holds back what the server says first; Infinity: for ever. */
  delay_ms: number;
  /** Sockets of ours that are open in it. */
  open(): number;
  close(): void;
}

async function startProxy({ host, port }: TestPostgres): Promise<Proxy> {
  const sockets = new Set<Socket>();
  const listener: Server = createServer((ours: Socket) => {
    sockets.add(ours);
    const theirs = connectTcp(port, host);
    ours.on('error', () => undefined);
    theirs.on('error', () => undefined);
    ours.on('close', () => {
      sockets.delete(ours);
      theirs.destroy();
    });
    theirs.on('close', () => ours.destroy());
    ours.pipe(theirs);
    if (proxy.delay_ms !== Number.POSITIVE_INFINITY) setTimeout(() => theirs.pipe(ours), proxy.delay_ms);
  });
  await new Promise<void>((done) => {
    listener.listen(0, '127.0.0.1', done);
  });
  return {
    port: (listener.address() as AddressInfo).port,
    delay_ms: 0,
    open: () => sockets.size,
    close: () => {
      for (const socket of sockets) socket.destroy();
      listener.close();
    },
  };
}

const connections = (options: Readonly<Record<string, unknown>> = {}) =>
  connectionsOf({
    options: { host: '127.0.0.1', port: proxy.port, user: server.user, password: '${env:PASSWORD}', ...options },
    secondary_host: 'localhost',
    env: { PASSWORD: server.password },
  });

/** Waits for what follows soon. */
async function soon(what: () => Promise<boolean> | boolean): Promise<boolean> {
  for (let tries = 0; tries < 250; tries++) {
    if (await what()) return true;
    await sleep(20);
  }
  return false;
}

async function sessions(name: string): Promise<number> {
  const { rows } = await admin.query<{ n: number }>(
    'SELECT count(*)::int4 AS n FROM pg_stat_activity WHERE application_name = $1',
    [name],
  );
  return rows[0]?.n ?? 0;
}

describe.each(KINDS)('a connection of kind %s', (kind) => {
  test('connect_timeout_seconds ends a wait for a server that says nothing, and the socket with it', async () => {
    proxy.delay_ms = Number.POSITIVE_INFINITY;
    await using made = await connections({ connect_timeout_seconds: 1 });
    const began = Date.now();
    await expect(made.open(kind)).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringContaining('no answer in 1 seconds (connect_timeout_seconds)'),
    });
    expect(Date.now() - began).toBeGreaterThanOrEqual(950);
    expect(await soon(() => proxy.open() === 0)).toBe(true);
  });

  test.each([0, -1])('connect_timeout_seconds: %i waits as long as it takes', async (connect_timeout_seconds) => {
    proxy.delay_ms = 1_500;
    await using made = await connections({ connect_timeout_seconds });
    const began = Date.now();
    await closeClient(await made.open(kind));
    expect(Date.now() - began).toBeGreaterThanOrEqual(1_450);
  });

  test.each([
    ['application_name of the file', { application_name: 'reports, nightly' }, 'reports, nightly'],
    ["application_name's default", {}, 'sluice/shop'],
  ])('%s is what the server shows', async (_name, options, shown) => {
    proxy.delay_ms = 0;
    await using made = await connections(options);
    const client = await made.open(kind);
    expect(await sessions(shown)).toBe(1);
    await closeClient(client);
  });

  test('is closed: no session on the server and no socket here', async () => {
    proxy.delay_ms = 0;
    await using made = await connections({ application_name: 'closing' });
    const client = await made.open(kind);
    expect(await sessions('closing')).toBe(1);
    expect(proxy.open()).toBe(1);
    await closeClient(client);
    expect(await soon(async () => (await sessions('closing')) === 0 && proxy.open() === 0)).toBe(true);
    // Closed again, it is closed.
    await closeClient(client);
  });

  test('that the server refuses leaves no socket', async () => {
    proxy.delay_ms = 0;
    await using made = await connections({ password: '${env:WRONG}' });
    made.env.WRONG = 'wrong';
    await expect(made.open(kind)).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
    expect(await soon(() => proxy.open() === 0)).toBe(true);
  });

  test.runIf(process.platform === 'linux')('has keepalive: a server that is gone is noticed', async () => {
    proxy.delay_ms = 0;
    await using made = await connections();
    const client = await made.open(kind);
    try {
      expect(await keepaliveSeconds(client)).toBeGreaterThan(0);
      expect(await keepaliveSeconds(client)).toBeLessThanOrEqual(30);
    } finally {
      await closeClient(client);
    }
  });
});

test('connect_timeout_seconds is the limit of a TLS handshake as well', async () => {
  const sockets = new Set<Socket>();
  const silent = createServer((socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.once('data', () => socket.write('S'));
  });
  await new Promise<void>((done) => {
    silent.listen(0, '127.0.0.1', done);
  });
  try {
    const { port } = silent.address() as AddressInfo;
    await using made = await connections({ port, ssl: true, connect_timeout_seconds: 1 });
    await expect(made.open('target')).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringContaining('no answer in 1 seconds'),
    });
    expect(await soon(() => sockets.size === 0)).toBe(true);
  } finally {
    silent.close();
  }
});

test('takes nothing from variables of the environment that other clients of PostgreSQL read', async () => {
  proxy.delay_ms = 0;
  const variables = {
    PGHOST: 'nowhere.invalid',
    PGPORT: '1',
    PGUSER: 'nobody',
    PGPASSWORD: 'wrong',
    PGDATABASE: 'nothing',
    PGAPPNAME: 'another',
    PGSSLMODE: 'require',
    PGSSLNEGOTIATION: 'direct',
    PGCONNECT_TIMEOUT: '1',
    PGOPTIONS: '-c work_mem=123kB',
    PGREPLICATION: 'true',
    PGBINARY: 'true',
    PGCLIENT_ENCODING: 'LATIN1',
  };
  const before = Object.fromEntries(Object.keys(variables).map((name) => [name, process.env[name]]));
  Object.assign(process.env, variables);
  try {
    await using made = await connections();
    for (const kind of KINDS) {
      const client = await made.open(kind);
      const { rows } = await client.query<{ work_mem: string }>('SHOW work_mem');
      expect(rows).toEqual([{ work_mem: '4MB' }]);
      expect(await sessions('sluice/shop')).toBe(1);
      await closeClient(client);
      expect(await soon(async () => (await sessions('sluice/shop')) === 0)).toBe(true);
    }
  } finally {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  }
});

/** Seconds until Linux asks whether the other side is there; NaN: it does not ask (https://docs.kernel.org/networking/proc_net_tcp.html). */
async function keepaliveSeconds(client: Client): Promise<number> {
  const { stream } = client.connection;
  const { localPort } = stream as unknown as Socket;
  const port = (localPort ?? 0).toString(16).toUpperCase().padStart(4, '0');
  const to = proxy.port.toString(16).toUpperCase().padStart(4, '0');
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const lines = (await readFile(table, 'utf8')).split('\n').map((line) => line.trim().split(/\s+/));
    const ours = lines.find(([, local, remote]) => local?.endsWith(`:${port}`) && remote?.endsWith(`:${to}`));
    const [timer = '', left = ''] = ours?.[5]?.split(':') ?? [];
    // 02: the keepalive timer, with what is left of it in jiffies of a hundredth of a second.
    if (timer === '02') return Number.parseInt(left, 16) / 100;
  }
  return Number.NaN;
}
