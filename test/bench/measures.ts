/**
 * The workloads and who is measured on them. Peers that are not installed are left out, and named.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline as pipe } from 'node:stream/promises';
import type { Client } from 'pg';
import copyStreams from 'pg-copy-streams';
import { type Engine, startEngine } from '../../infra/local/engine.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { workplace } from '../support/sluice.ts';

export interface Measure {
  readonly work: string;
  readonly name: string;
  /** Name of the measure that this one is held against; null: it is a peer itself. */
  readonly peer: string | null;
  readonly per_second: number;
}

const SETTINGS = { shared_buffers: '256MB', max_wal_size: '4GB' };
const TABLE = `CREATE TABLE w (id bigint PRIMARY KEY, n int, name text, amount numeric, note text, doc jsonb,
  made timestamptz, changed timestamptz)`;
const RECVLOGICAL_PLACES = ['/usr/lib/postgresql/15/bin/pg_recvlogical', '/usr/bin/pg_recvlogical'];
/** Loads of one session at a time are what a peer has, too. */
const CONCURRENCY = { load: 2, extract: 2 };

function rowsSql(from: number, to: number): string {
  return `INSERT INTO w SELECT i, i % 1000, 'name ' || i, i / 7.0, rpad(md5(i::text), 60, 'x'), '{"a": 1, "b": "two"}', now(), now()
    FROM generate_series(${from}, ${to}) i`;
}

/** W1: a table of about 200 bytes a row, for the first time. */
export async function firstSync(rows: number): Promise<Measure[]> {
  const work = 'first sync (W1), rows';
  await using source = await startPostgres({ settings: SETTINGS });
  await using target = await startPostgres({ settings: SETTINGS });
  const client = await source.connect();
  await client.query(TABLE);
  await client.query(rowsSql(1, rows));
  await client.query('VACUUM ANALYZE');
  const copied_s = await copyAcross(source, target);
  const synced_s = await withEngine(source, target, async (engine) => await timed(() => settle(engine)));
  await client.end();
  return [
    { work, name: 'sluice, through the stage', peer: 'COPY TO → COPY FROM', per_second: rows / synced_s },
    { work, name: 'COPY TO → COPY FROM', peer: null, per_second: rows / copied_s },
  ];
}

/** W2: inserts, updates over the table and deletes, 5 : 3 : 1, in transactions of 100. */
export async function replication(rows: number): Promise<Measure[]> {
  const work = 'changes (W2)';
  await using source = await startPostgres({ settings: SETTINGS });
  await using target = await startPostgres({ settings: SETTINGS });
  const client = await source.connect();
  await client.query(TABLE);
  await client.query(rowsSql(1, rows));
  await client.query('VACUUM ANALYZE');
  const measures: Measure[] = [];
  await withEngine(source, target, async (engine) => {
    await settle(engine);
    await client.query("SELECT pg_create_logical_replication_slot('peer', 'pgoutput')");
    const changes = await writeChanges(client, rows);
    const peer_s = await recvlogical(source);
    const began_ms = Date.now();
    const report = (await engine.window({ break_at_end_lsn: true })) as { started_at: string; ended_at: string };
    const drained_s = (Date.parse(report.ended_at) - Date.parse(report.started_at)) / 1000;
    await engine.idle();
    const visible_s = (Date.now() - began_ms) / 1000;
    measures.push({
      work,
      name: 'sluice, slot → stage and ledger',
      peer: 'pg_recvlogical to /dev/null',
      per_second: changes / drained_s,
    });
    measures.push({
      work,
      name: 'sluice, slot → target',
      peer: 'pg_recvlogical to /dev/null',
      per_second: changes / visible_s,
    });
    if (peer_s === null) console.error('pg_recvlogical is not installed: left out');
    else measures.push({ work, name: 'pg_recvlogical to /dev/null', peer: null, per_second: changes / peer_s });
  });
  await client.end();
  return measures;
}

async function writeChanges(client: Client, rows: number): Promise<number> {
  const transactions = Math.floor((rows * 0.45) / 100);
  await client.query(`CREATE OR REPLACE PROCEDURE change(t int) LANGUAGE plpgsql AS $$
    BEGIN
      FOR k IN 0 .. t - 1 LOOP
        INSERT INTO w SELECT ${rows} + k * 56 + g, g, 'new', g / 3.0, rpad(md5(g::text), 60, 'y'), '{"c": 3}', now(), now() FROM generate_series(1, 56) g;
        UPDATE w SET n = n + 1, changed = now() WHERE id IN (SELECT 1 + (k * 7919 + g * 104729) % ${rows} FROM generate_series(1, 33) g);
        DELETE FROM w WHERE id IN (SELECT ${rows} + k * 56 + g FROM generate_series(1, 11) g);
        COMMIT;
      END LOOP;
    END $$`);
  await client.query(`CALL change(${transactions})`);
  return transactions * 100;
}

async function withEngine<T>(
  source: TestPostgres,
  target: TestPostgres,
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  await using place = await workplace(source, target, { tables: '[public.w]' });
  const pipeline = readPipeline(readFileSync(place.config, 'utf8'), place.config);
  const stateDirectory = await mkdtemp(join(tmpdir(), 'sluice-bench-'));
  const engine = await startEngine({
    pipeline,
    configPath: place.config,
    stateDirectory,

    concurrency: CONCURRENCY,
    environment: { ...process.env, SOURCE_PASSWORD: source.password, TARGET_PASSWORD: target.password },
    onFatal: (error) => console.error(error.message),
    onFault: (what, error) => console.error(what, error.message),
  });
  try {
    return await work(engine);
  } finally {
    await engine.stop();
    await rm(stateDirectory, { recursive: true, force: true });
  }
}

/** Windows until what the source had is applied. */
async function settle(engine: Engine): Promise<void> {
  for (let quiet = 0; quiet < 2; ) {
    await engine.window({ break_at_end_lsn: true });
    await engine.idle();
    const status = (await engine.invoke('operate', { kind: 'status' })) as { streams: { state: string }[] };
    quiet = status.streams.every(({ state }) => state === 'live') ? quiet + 1 : 0;
  }
}

async function copyAcross(source: TestPostgres, target: TestPostgres): Promise<number> {
  const [from, to] = [await source.connect(), await target.connect()];
  await to.query(TABLE.replace('CREATE TABLE w', 'CREATE TABLE copied'));
  const seconds = await timed(() =>
    pipe(from.query(copyStreams.to('COPY w TO STDOUT')), to.query(copyStreams.from('COPY copied FROM STDIN'))),
  );
  await from.end();
  await to.end();
  return seconds;
}

/** Null: it is not installed. */
async function recvlogical(source: TestPostgres): Promise<number | null> {
  const found: string[] = [];
  for (const place of RECVLOGICAL_PLACES) {
    await access(place).then(
      () => found.push(place),
      () => undefined,
    );
  }
  const [path] = found;
  if (!path) return null;
  const client = await source.connect();
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
  await client.end();
  const { host, port, user, database, password } = source;
  const options = ['-o', 'proto_version=1', '-o', `publication_names=sluice_${database}`];
  const args = [
    '--slot=peer',
    '--start',
    '--no-loop',
    '-f',
    '/dev/null',
    '-E',
    rows[0]?.lsn ?? '',
    '-h',
    host,
    '-p',
    String(port),
    '-U',
    user,
    '-d',
    database,
  ];
  return await timed(
    () =>
      new Promise<void>((resolve, reject) => {
        const child = spawn(path, [...args, ...options], {
          env: { ...process.env, PGPASSWORD: password },
          stdio: 'ignore',
        });
        child.on('error', reject);
        child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`pg_recvlogical ended with ${code}`))));
      }),
  );
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began_ms = performance.now();
  await work();
  return (performance.now() - began_ms) / 1000;
}
