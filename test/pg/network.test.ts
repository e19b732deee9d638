/**
 * Goal: whatever the network does to a connection, at whatever byte, nobody waits longer than the limit of silence, what ends is tried again, and in the end the
 * target has what the source has.
 * Method: the whole line between real servers, each connection through a proxy of its own kind that is cut, reset, stalled, slowed, or lost on one side.
 */
import { Readable } from 'node:stream';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CATALOGUE } from '../../lib/error-catalogue.ts';
import { SluiceError } from '../../lib/errors.ts';
import { LOAD_LIMITS, withSession } from '../../lib/load/session.ts';
import { clientConfig, connectClient, type Endpoint } from '../../lib/postgres/connection.ts';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { type Direction, type NetworkFault, startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

/** In the place of SILENCE_MS_MAX. */
const SILENCE_MS = 1_000;
/** One window or one load with a connection in it that falls silent, a zombie that is waited for and ended, and a machine that is busy. */
const STEP_MS_MAX = 40_000;
/** SLUICE_NETWORK_FAULTS=N: every kind of fault in each place, and so many random ones of each connection; left out: a sample. */
const FAULTS = Number(process.env.SLUICE_NETWORK_FAULTS ?? 0);
const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
const below = seededBelow(SEED);

const KINDS: readonly NetworkFault[] = ['cut', 'reset', 'stall', 'lose_client', 'lose_server'];
/** Bytes of what one round sends: past a socket's buffers. */
const ROUND_ROWS = 3_000;

let source: TestPostgres;
let target: TestPostgres;
let replica: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  replica = await startStandby(source);
});
afterAll(async () => {
  await replica?.stop();
  await Promise.all([source?.stop(), target?.stop()]);
});

type Role = 'query' | 'slot' | 'target' | 'replica';

interface Way extends AsyncDisposable {
  readonly line: Line;
  readonly from: Client;
  readonly proxies: Readonly<Record<Role, TcpProxy>>;
  /** Changes of every kind, in transactions of their own and in a large one. */
  write(): Promise<void>;
  /** Windows and bells until the target has all; errors that are tried again are told and passed. Throws what would wait for a person. */
  through(): Promise<string[]>;
}

let databases = 0;

async function wayWith(config: { source?: string } = {}): Promise<Way> {
  const database = `network_${++databases}`;
  for (const server of [source, target]) {
    const admin = await server.connect();
    await admin.query(`CREATE DATABASE ${database}`);
    await admin.end();
  }
  const proxies = {
    query: await startTcpProxy(source),
    slot: await startTcpProxy(source),
    target: await startTcpProxy(target),
    replica: await startTcpProxy(replica),
  };
  const connect = async (asked: Endpoint): Promise<Client> => {
    const { side, replication = false, connection } = asked;
    const isSlot = replication || connection.application_name.includes('#');
    const role =
      side === 'target' ? 'target' : connection.port === replica.port ? 'replica' : isSlot ? 'slot' : 'query';
    const endpoint = {
      ...asked,
      silence_ms: SILENCE_MS,
      connection: { ...connection, port: proxies[role].port, connect_timeout_seconds: 2 },
    };
    return await connectClient(() => new Client(clientConfig(endpoint)), endpoint);
  };
  const from = await source.connect(database);
  await from.query('CREATE TABLE t (id int PRIMARY KEY, v text, w text)');
  await from.query('CREATE TABLE big (id int PRIMARY KEY, v text)');
  const at = ({ host, port, user, password }: TestPostgres) => ({ host, port, user, password, database });
  const line = await openLine({
    source: at(source),
    target: at(target),
    pipeline: database.replace('_', '-'),
    connect,
    silence_ms: SILENCE_MS,
    config: {
      source: [`replication_slot: ${database}, publication_name: ${database}`, config.source ?? []].flat().join(', '),
    },
  });
  let round = 0;
  return {
    line,
    from,
    proxies,
    write: async () => {
      const first = ++round * ROUND_ROWS;
      await from.query(
        `INSERT INTO t SELECT g, repeat(md5(g::text), 20), 'w' FROM generate_series(${first}, ${first + ROUND_ROWS - 1}) g`,
      );
      await from.query(`UPDATE t SET w = 'w${round}' WHERE id % 7 = ${round % 7}`);
      await from.query(`DELETE FROM t WHERE id % 11 = ${round % 11}`);
      for (let i = 0; i < 5; i++) await from.query(`INSERT INTO big VALUES (${first + i}, repeat('b', 20000))`);
    },
    through: async () => {
      const errors: string[] = [];
      for (let steps = 0; steps < 8; steps++) {
        const before = errors.length;
        for (const step of [() => line.window(), () => line.pump()] as (() => Promise<unknown>)[]) {
          await inTime(step()).catch((error: unknown) => errors.push(retried(error)));
        }
        if (errors.length === before && (await line.equal('public.t')) && (await line.equal('public.big')))
          return errors;
      }
      throw new Error(`not through after ${errors.join(', ')}`);
    },
    [Symbol.asyncDispose]: async () => {
      for (const proxy of Object.values(proxies)) await proxy[Symbol.asyncDispose]();
      await line[Symbol.asyncDispose]();
      await from.end();
    },
  };
}

/** The code of an error that is tried again; any other is thrown on. `Line.window` tells it in words. */
function retried(error: unknown): string {
  const [, told] = error instanceof Error ? (/^window: ([A-Z_0-9]+):/.exec(error.message) ?? []) : [];
  const code = error instanceof SluiceError ? error.code : told;
  if (code === undefined || !(code in CATALOGUE)) throw error;
  if (CATALOGUE[code as keyof typeof CATALOGUE].disposition !== 'retry') throw error;
  return code;
}

async function inTime<T>(work: Promise<T>, limit_ms = STEP_MS_MAX): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no end in ${limit_ms} ms`)), limit_ms);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** One fault, met by the connection of a role after so many bytes; then the network is well again, and everything comes through. */
async function survives(
  way: Way,
  role: Role,
  bytes: number,
  direction: Direction,
  fault: NetworkFault,
): Promise<string[]> {
  const { line, proxies } = way;
  const proxy = proxies[role];
  const before = proxy.faults;
  const name = `SLUICE_SEED=${SEED}: ${role} ${fault} after ${bytes} bytes ${direction}`;
  await way.write();
  // Not of the test's own, which look at the rows.
  const { accepted } = proxy;
  proxy.after(bytes, direction, fault, { which: ({ number }) => number > accepted });
  const errors: string[] = [];
  try {
    for (let rounds = 0; rounds < 3 && proxy.faults === before; rounds++) {
      for (const step of [() => line.window(), () => line.pump()] as (() => Promise<unknown>)[]) {
        await inTime(step()).catch((error: unknown) => errors.push(retried(error)));
      }
    }
    expect(proxy.faults).toBe(before + 1);
    await proxy.heal();
    errors.push(...(await way.through()));
    for (const { halt } of line.durable.bookmarks.values()) expect(halt).toBeNull();
  } catch (error) {
    throw new Error(`${name} (${errors.join(', ')}): ${String(error)}`, { cause: error });
  }
  return errors;
}

/** One of them, another each time, where not all are asked for. */
function sampled<Case>(cases: readonly Case[]): readonly Case[] {
  const at = below(cases.length);
  return FAULTS > 0 ? cases : cases.slice(at, at + 1);
}

describe.each([
  { slot_reader: 'stream', faults: FAULTS > 0 ? KINDS : (['stall', 'lose_client'] as const) },
  { slot_reader: 'peek', faults: FAULTS > 0 ? KINDS : (['stall'] as const) },
])('a slot that is read by $slot_reader', ({ slot_reader, faults }) => {
  let way: Way;
  beforeAll(async () => {
    way = await wayWith({ source: `slot_reader: ${slot_reader}` });
    await way.write();
    await way.line.settle();
  });
  afterAll(async () => {
    await way[Symbol.asyncDispose]();
  });

  test.each(faults)('%s in the middle of its transactions', async (fault) => {
    expect(await survives(way, 'slot', 300_000, 'down', fault)).not.toEqual([]);
  });

  test.runIf(FAULTS > 0 || slot_reader === 'stream')(
    'a target that falls silent in the middle of a COPY: given up, and nothing of it is there twice',
    async () => {
      expect(await survives(way, 'target', 500_000, 'up', 'stall')).toContain('TARGET_TRANSIENT');
    },
  );

  test.each(sampled(['query', 'slot', 'target'] as const))('%s: faults at random bytes', async (role) => {
    for (let i = 0; i < Math.max(FAULTS, 1); i++) {
      const fault = KINDS[below(KINDS.length)] ?? 'cut';
      const direction = below(2) === 0 ? 'up' : 'down';
      // What goes up to the source are questions, and what comes down from the target are answers.
      const few = (role === 'target') === (direction === 'down');
      await survives(way, role, below(few ? 500 : role === 'query' ? 2_000 : 400_000), direction, fault);
    }
  });

  test.runIf(slot_reader === 'stream')('slow lines everywhere are no fault', async () => {
    await way.write();
    for (const proxy of Object.values(way.proxies)) proxy.slow(20_000_000);
    expect(await way.through()).toEqual([]);
    for (const proxy of Object.values(way.proxies)) await proxy.heal();
  });
});

describe('a first copy', () => {
  test.each([
    ['from the primary', 'query', 'stall'],
    ['from the replica', 'replica', FAULTS > 0 ? 'stall' : 'reset'],
  ] as const)('%s: %s %s in the middle', async (_from, role, fault) => {
    const secondary = `use_secondary: true, secondary_host: 127.0.0.1, secondary_port: ${replica.port}`;
    await using way = await wayWith(role === 'replica' ? { source: secondary } : {});
    expect(await survives(way, role, 500_000, 'down', fault)).toContain('SOURCE_TRANSIENT');
  });
});

describe('a server that says nothing from the beginning', () => {
  let way: Way;
  beforeAll(async () => {
    way = await wayWith();
    await way.write();
    await way.line.settle();
  });
  afterAll(async () => {
    await way[Symbol.asyncDispose]();
  });

  test.each(sampled(['query', 'slot', 'target'] as const))(
    '%s: an error in time, and all is well when it speaks',
    async (role) => {
      await way.write();
      const { accepted } = way.proxies[role];
      way.proxies[role].stall(({ number }) => number > accepted);
      const errors: string[] = [];
      for (const step of [() => way.line.window(), () => way.line.pump()] as (() => Promise<unknown>)[]) {
        await inTime(step()).catch((error: unknown) => errors.push(retried(error)));
      }
      expect(errors).toContain('CONNECTION_FAILED');
      await way.proxies[role].heal();
      expect(await way.through()).toEqual([]);
    },
  );
});

describe('a target that takes its time', () => {
  const SUBJECT = { stream: 'public.t', table: 'public.t' };
  const connect = async (): Promise<Client> => {
    const { host, port, user, password, database } = target;
    const connection = {
      host,
      port,
      user,
      password,
      database,
      application_name: 'sluice/slow',
      connect_timeout_seconds: 10,
    };
    const endpoint = { side: 'target' as const, silence_ms: 200, connection };
    return await connectClient(() => new Client(clientConfig(endpoint)), endpoint);
  };

  test('over a statement is not broken off', async () => {
    const { rows } = await withSession(connect, SUBJECT, async (session) => {
      await session.begin(LOAD_LIMITS);
      return await session.run('SELECT pg_sleep(2), 7 AS n');
    });
    expect(rows).toMatchObject([{ n: 7 }]);
  });

  test('because a COPY has nothing for it yet is not broken off', async () => {
    const slow = Readable.from(
      (async function* () {
        yield '1\n';
        await new Promise((resolve) => setTimeout(resolve, 2_000));
        yield '2\n';
      })(),
    );
    const rows = await withSession(connect, SUBJECT, async (session) => {
      await session.begin(LOAD_LIMITS, 'CREATE TEMP TABLE slow (id int)');
      return await session.copy('COPY slow FROM STDIN', slow);
    });
    expect(rows).toBe(2);
  });
});
