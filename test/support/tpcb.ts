/**
 * pgbench's tables and its TPC-B-like writes (https://www.postgresql.org/docs/current/pgbench.html): by pgbench where it is installed, else the same
 * transactions by `pg`. The history table gets a key, since a table without one cannot be followed.
 */
import { spawn } from 'node:child_process';
import { access } from 'node:fs/promises';
import type { Client } from 'pg';
import type { TestPostgres } from './postgres.ts';

const ACCOUNTS_PER_BRANCH = 100_000;
const TELLERS_PER_BRANCH = 10;
const PGBENCH_PLACES = ['/usr/bin/pgbench', '/usr/lib/postgresql/15/bin/pgbench', '/usr/local/bin/pgbench'];

export const TPCB_TABLES = ['pgbench_accounts', 'pgbench_branches', 'pgbench_tellers', 'pgbench_history'] as const;

/** Makes and fills the tables: `scale` × 100,000 accounts. */
export async function makeTpcb(server: TestPostgres, scale: number): Promise<void> {
  const client = await server.connect();
  try {
    await client.query(`
      CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
      CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
      CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
      CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22), id bigserial PRIMARY KEY);
      INSERT INTO pgbench_branches SELECT b, 0 FROM generate_series(1, ${scale}) b;
      INSERT INTO pgbench_tellers SELECT t, (t - 1) / ${TELLERS_PER_BRANCH} + 1, 0 FROM generate_series(1, ${scale * TELLERS_PER_BRANCH}) t;
      INSERT INTO pgbench_accounts SELECT a, (a - 1) / ${ACCOUNTS_PER_BRANCH} + 1, 0, '' FROM generate_series(1, ${scale * ACCOUNTS_PER_BRANCH}) a;
      ANALYZE;`);
  } finally {
    await client.end();
  }
}

export interface Writes {
  /** Resolves when the writes have ended, by themselves or after `stop`. */
  readonly done: Promise<void>;
  stop(): void;
}

/** Writes with `clients` connections for `seconds`, or until stopped. */
export async function writeTpcb(
  server: TestPostgres,
  options: { scale: number; clients: number; seconds: number },
): Promise<Writes> {
  const pgbench = await installedPgbench();
  return pgbench ? byPgbench(pgbench, server, options) : byQueries(server, options);
}

async function installedPgbench(): Promise<string | null> {
  for (const place of PGBENCH_PLACES) {
    const found = await access(place).then(
      () => true,
      () => false,
    );
    if (found) return place;
  }
  return null;
}

function byPgbench(path: string, server: TestPostgres, options: { clients: number; seconds: number }): Writes {
  const { host, port, user, password, database } = server;
  const child = spawn(
    path,
    [
      '-n',
      '-c',
      String(options.clients),
      '-T',
      String(options.seconds),
      '-h',
      host,
      '-p',
      String(port),
      '-U',
      user,
      database,
    ],
    { env: { ...process.env, PGPASSWORD: password }, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  let stopped = false;
  return {
    done: new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (code) =>
        code === 0 || stopped ? resolve() : reject(new Error(`pgbench ended with ${code}: ${complaint}`)),
      );
    }),
    stop: () => {
      stopped = true;
      child.kill('SIGINT');
    },
  };
}

function byQueries(
  server: TestPostgres,
  { scale, clients, seconds }: { scale: number; clients: number; seconds: number },
): Writes {
  const stopping = new AbortController();
  const until_ms = Date.now() + seconds * 1000;
  const writer = async (): Promise<void> => {
    const client = await server.connect();
    try {
      while (!stopping.signal.aborted && Date.now() < until_ms) await transaction(client, scale);
    } finally {
      await client.end();
    }
  };
  return {
    done: Promise.all(Array.from({ length: clients }, writer)).then(() => undefined),
    stop: () => stopping.abort(),
  };
}

async function transaction(client: Client, scale: number): Promise<void> {
  const below = (count: number): number => 1 + Math.floor(Math.random() * count);
  const [aid, tid, bid, delta] = [
    below(scale * ACCOUNTS_PER_BRANCH),
    below(scale * TELLERS_PER_BRANCH),
    below(scale),
    below(10_000) - 5_000,
  ];
  await client.query(`BEGIN;
    UPDATE pgbench_accounts SET abalance = abalance + ${delta} WHERE aid = ${aid};
    SELECT abalance FROM pgbench_accounts WHERE aid = ${aid};
    UPDATE pgbench_tellers SET tbalance = tbalance + ${delta} WHERE tid = ${tid};
    UPDATE pgbench_branches SET bbalance = bbalance + ${delta} WHERE bid = ${bid};
    INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (${tid}, ${bid}, ${aid}, ${delta}, CURRENT_TIMESTAMP);
    END`);
}
