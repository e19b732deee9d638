/**
 * Who does the same work: each on the servers that Sluice is measured on, in the same run. One that is not installed gives null.
 */
import { spawn } from 'node:child_process';
import { access } from 'node:fs/promises';
import { Writable } from 'node:stream';
import { pipeline as pipe } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import copyStreams from 'pg-copy-streams';
import type { TestPostgres } from '../support/postgres.ts';

const BINARIES = ['/usr/lib/postgresql/18/bin', '/usr/lib/postgresql/15/bin', '/usr/bin'];
const POLL_MS = 10;

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began_ms = performance.now();
  await work();
  return (performance.now() - began_ms) / 1000;
}

async function installed(name: string): Promise<string | null> {
  for (const directory of BINARIES) {
    const path = `${directory}/${name}`;
    const found = await access(path).then(
      () => true,
      () => false,
    );
    if (found) return path;
  }
  return null;
}

async function run(path: string, args: readonly string[], password: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const child = spawn(path, args, { env: { ...process.env, PGPASSWORD: password }, stdio: 'ignore' });
    child.on('error', reject);
    child.on('exit', (code, signal) =>
      code === 0 ? resolve() : reject(new Error(`${path} ended with ${code ?? signal}`)),
    );
  });
}

/** The structure of a table, as another database needs it: columns and key. */
export async function tableSql(from: Client, table: string): Promise<string> {
  const { rows } = await from.query<{ sql: string }>(
    `SELECT string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
       || (SELECT ', ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'p') AS sql
     FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [table],
  );
  return `CREATE TABLE ${table} (${rows[0]?.sql})`;
}

/** `COPY … TO STDOUT` into `COPY … FROM STDIN`, text, one stream, in seconds. */
export async function copyAcross(source: TestPostgres, target: TestPostgres, table: string): Promise<number> {
  const [from, admin] = [await source.connect(), await target.connect()];
  await admin.query('CREATE DATABASE copied');
  const to = await target.connect('copied');
  await to.query(await tableSql(from, table));
  const seconds = await timed(() =>
    pipe(from.query(copyStreams.to(`COPY ${table} TO STDOUT`)), to.query(copyStreams.from(`COPY ${table} FROM STDIN`))),
  );
  await Promise.all([from.end(), to.end()]);
  await admin.query('DROP DATABASE copied');
  await admin.end();
  return seconds;
}

/** PostgreSQL's own logical replication: a subscription in a database of its own. */
export class Subscription implements AsyncDisposable {
  readonly #source: TestPostgres;
  readonly #from: Client;
  readonly #to: Client;

  private constructor(source: TestPostgres, from: Client, to: Client) {
    this.#source = source;
    this.#from = from;
    this.#to = to;
  }

  static async to(source: TestPostgres, target: TestPostgres, tables: readonly string[]): Promise<Subscription> {
    const [from, admin] = [await source.connect(), await target.connect()];
    await admin.query('CREATE DATABASE native');
    await admin.end();
    const to = await target.connect('native');
    for (const table of tables) {
      const [schema = ''] = table.split('.');
      await to.query(`CREATE SCHEMA IF NOT EXISTS ${schema}`);
      await to.query(await tableSql(from, table));
    }
    await from.query(`CREATE PUBLICATION native FOR TABLE ${tables.join(', ')}`);
    return new Subscription(source, from, to);
  }

  /** The initial copy, in seconds. */
  async copy(): Promise<number> {
    const { host, port, user, password, database } = this.#source;
    const conninfo = `host=${host} port=${port} user=${user} password=${password} dbname=${database}`;
    return await timed(async () => {
      await this.#to.query(`CREATE SUBSCRIPTION native CONNECTION '${conninfo}' PUBLICATION native`);
      await this.#until(this.#to, `SELECT bool_and(srsubstate = 'r') AS done FROM pg_subscription_rel`);
    });
  }

  async disable(): Promise<void> {
    await this.#to.query('ALTER SUBSCRIPTION native DISABLE');
    await this.#until(this.#from, `SELECT NOT active AS done FROM pg_replication_slots WHERE slot_name = 'native'`);
  }

  /** From the moment when it may begin until all that the source has is applied, in seconds. */
  async apply(): Promise<number> {
    const { rows } = await this.#from.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    return await timed(async () => {
      await this.#to.query('ALTER SUBSCRIPTION native ENABLE');
      await this.#until(
        this.#from,
        `SELECT confirmed_flush_lsn >= '${rows[0]?.lsn}' AS done FROM pg_replication_slots WHERE slot_name = 'native'`,
      );
    });
  }

  async #until(client: Client, sql: string): Promise<void> {
    for (;;) {
      const { rows } = await client.query<{ done: boolean | null }>(sql);
      if (rows[0]?.done === true) return;
      await sleep(POLL_MS);
    }
  }

  get target(): Client {
    return this.#to;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#to.query('DROP SUBSCRIPTION native');
    await Promise.all([this.#to.end(), this.#from.end()]);
  }
}

/** All of a slot of `publication`, thrown away as it comes, in seconds. */
export async function recvlogical(source: TestPostgres, slot: string, publication: string): Promise<number | null> {
  const path = await installed('pg_recvlogical');
  if (path === null) return null;
  const client = await source.connect();
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
  await client.end();
  const { host, port, user, database, password } = source;
  const where = ['-h', host, '-p', String(port), '-U', user, '-d', database];
  const what = [`--slot=${slot}`, '--start', '--no-loop', '-f', '/dev/null', '-E', rows[0]?.lsn ?? ''];
  const options = ['-o', 'proto_version=1', '-o', `publication_names=${publication}`];
  return await timed(() => run(path, [...what, ...where, ...options], password));
}

/** All of it by one call, thrown away as it comes, in seconds: the limit. */
export async function peekOnce(source: TestPostgres, slot: string, publication: string): Promise<number> {
  const client = await source.connect();
  const call = `pg_logical_slot_peek_binary_changes('${slot}', NULL, NULL, 'proto_version', '1', 'publication_names', '${publication}')`;
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const seconds = await timed(() =>
    pipe(client.query(copyStreams.to(`COPY (SELECT data FROM ${call}) TO STDOUT (FORMAT binary)`)), nowhere),
  );
  await client.end();
  return seconds;
}

/** The slot is moved to the log's end by the server alone: nothing is sent, in seconds. */
export async function advanceAlone(source: TestPostgres, slot: string): Promise<number> {
  const client = await source.connect();
  const seconds = await timed(() =>
    client.query('SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())', [slot]),
  );
  await client.end();
  return seconds;
}

/** `pgcopydb clone` of one database into a new one, in seconds. */
export async function pgcopydb(source: TestPostgres, target: TestPostgres): Promise<number | null> {
  const path = await installed('pgcopydb');
  if (path === null) return null;
  const admin = await target.connect();
  await admin.query('CREATE DATABASE cloned');
  const url = ({ user, password, host, port }: TestPostgres, database: string): string =>
    `postgresql://${user}:${password}@${host}:${port}/${database}`;
  const args = ['clone', '--source', url(source, source.database), '--target', url(target, 'cloned')];
  const seconds = await timed(() => run(path, args, ''));
  await admin.query('DROP DATABASE cloned');
  await admin.end();
  return seconds;
}
