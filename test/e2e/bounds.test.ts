/**
 * Bounds (I8): a transaction of millions of rows, one of very many subtransactions, one over very many tables with names of 63 bytes, a table of 1,600 columns, and
 * a log full of what is not ours. Each function is a process of its own and stays under 512 MB; the target equals the source.
 *
 * By default the sizes are small, and the limit with them; SLUICE_BOUNDS=full takes those that are promised, and an hour.
 */
import type { Client } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bounded, FULL, RSS_BYTES_MAX } from '../support/bounds.ts';
import { columnsOf, tableText } from '../support/compare.ts';
import { type OwnFunctions, ownFunctions, type PipelineLines } from '../support/own-functions.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const ROWS = FULL ? 5_000_000 : 30_000;
/** In a row, 32 digits each: more than a part of a cut takes (lib/cut/part-limits.ts). */
const DIGESTS = FULL ? 2 : 10;
const SUBTRANSACTIONS = FULL ? 100_000 : 1_000;
const TABLES = FULL ? 1_000 : 6;
const OTHER_WAL_BYTES = FULL ? 20e9 : 40e6;
/** PostgreSQL's limit of a table. */
const COLUMNS = 1_600;
/** Their values may lie outside the row: 18 bytes each in the row, which has 8 KB. */
const TEXT_COLUMNS = 250;
const TIMEOUT_MS = FULL ? 3_600_000 : 600_000;

let source: TestPostgres;
let target: TestPostgres;
let from: Client;
let to: Client;

beforeAll(async () => {
  const settings = { max_wal_size: '4GB', max_locks_per_transaction: '256' };
  source = await startPostgres({ settings, large: true });
  target = await startPostgres({ settings, large: true });
  [from, to] = await Promise.all([source.connect(), target.connect()]);
});

afterAll(async () => {
  await from?.end();
  await to?.end();
  await source?.stop();
  await target?.stop();
});

const tablesOf = async (schema: string): Promise<string[]> =>
  (
    await from.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::regnamespace`,
      [schema],
    )
  ).rows.map(({ name }) => name);

async function expectEqual(schema: string): Promise<void> {
  for (const table of await tablesOf(schema)) {
    const columns = await columnsOf(from, { schema, table });
    const [here, there] = [
      await tableText(from, { schema, table }, columns),
      await tableText(to, { schema, table }, columns),
    ];
    expect({ table, ...there }).toEqual({ table, ...here });
  }
}

/** A pipeline of one schema, whose first sync is done. */
async function pipelineOf(schema: string, lines: PipelineLines = {}): Promise<OwnFunctions> {
  const own = await ownFunctions(
    { source, target },
    {
      pipeline: schema,
      tables: `["${schema}.*"]`,
      source: `  replication_slot: ${schema}\n  publication_name: ${schema}`,
      target: '  hard_delete: true',
      ...lines,
    },
  );
  await bounded(own, `${schema}: first sync`, RSS_BYTES_MAX, () => own.settle());
  return own;
}

/** One transaction, then all of it on the target. */
async function replicate(own: OwnFunctions, schema: string, what: string, sql: string): Promise<void> {
  await from.query(`BEGIN; ${sql}; COMMIT`);
  await bounded(own, `${schema}: ${what}`, RSS_BYTES_MAX, () => own.settle());
  await expectEqual(schema);
}

test('a transaction of very many rows, one of very many subtransactions, and the log of others', {
  timeout: TIMEOUT_MS,
}, async () => {
  await from.query(`CREATE SCHEMA many;
    CREATE TABLE many.rows (id bigint PRIMARY KEY, n int, note text, at timestamptz);
    CREATE TABLE many.subs (id int PRIMARY KEY, note text);
    CREATE TABLE public.others (id bigint, big bytea);
    ALTER TABLE public.others ALTER big SET STORAGE EXTERNAL`);
  await using own = await pipelineOf('many');
  await replicate(
    own,
    'many',
    `one transaction of ${ROWS} rows`,
    `INSERT INTO many.rows SELECT i, i, repeat(md5(i::text), ${DIGESTS}), now() FROM generate_series(1, ${ROWS}) i`,
  );
  await replicate(
    own,
    'many',
    `one transaction that changes and deletes ${ROWS} rows`,
    `UPDATE many.rows SET n = n + 1 WHERE id % 2 = 0; DELETE FROM many.rows WHERE id % 2 = 1`,
  );
  // Every tenth is rolled back.
  await replicate(
    own,
    'many',
    `${SUBTRANSACTIONS} subtransactions`,
    `DO $$ BEGIN FOR i IN 1..${SUBTRANSACTIONS} LOOP
       BEGIN INSERT INTO many.subs VALUES (i, md5(i::text)); IF i % 10 = 0 THEN RAISE EXCEPTION 'no'; END IF;
       EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$`,
  );
  const piece = 4_000_000;
  const write = `INSERT INTO public.others SELECT i, (SELECT string_agg(sha512((i || ':' || j)::bytea), '') FROM generate_series(1, 1000) j) ||
    decode(repeat('00', ${piece - 64_000}), 'hex') FROM generate_series(1, $1::int) i`;
  for (let written = 0; written < OTHER_WAL_BYTES; written += 100 * piece) {
    await from.query(write, [Math.min(100, Math.ceil((OTHER_WAL_BYTES - written) / piece))]);
    await from.query('TRUNCATE public.others; CHECKPOINT');
  }
  await replicate(
    own,
    'many',
    `behind ${OTHER_WAL_BYTES / 1e6} MB of WAL of others`,
    'DELETE FROM many.subs WHERE id < 100',
  );
  const { rows } = await from.query<{ kept: string }>(
    `SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) AS kept FROM pg_replication_slots WHERE slot_name = 'many'`,
  );
  expect(Number(rows[0]?.kept)).toBeLessThan(OTHER_WAL_BYTES / 2);
  await from.query(`SELECT pg_drop_replication_slot('many'); DROP SCHEMA many CASCADE; DROP TABLE public.others`);
});

test(`one transaction over ${TABLES} tables with names of 63 bytes`, { timeout: TIMEOUT_MS }, async () => {
  const schema = `s${'x'.repeat(62)}`;
  await from.query(`CREATE SCHEMA ${schema}`);
  const names = Array.from({ length: TABLES }, (_, i) => `${'t'.repeat(59)}${String(i).padStart(4, '0')}`);
  for (const name of names)
    await from.query(`CREATE TABLE ${schema}.${name} (id int PRIMARY KEY, "${'c'.repeat(63)}" text)`);
  await using own = await pipelineOf(schema, {
    pipeline: 'names',
    source: '  replication_slot: names\n  publication_name: names',
  });
  for (const round of [1, 2]) {
    const inserts = names.map(
      (name) => `INSERT INTO ${schema}.${name} SELECT i, md5(i::text) FROM generate_series(${round}00, ${round}09) i`,
    );
    await replicate(own, schema, `one transaction over ${TABLES} tables`, inserts.join(';'));
  }
  await from.query(`SELECT pg_drop_replication_slot('names')`);
});

test('a table of 1,600 columns, whole and in parts', { timeout: TIMEOUT_MS }, async () => {
  const texts = Array.from({ length: TEXT_COLUMNS }, (_, i) => `t${i}`);
  const numbers = Array.from({ length: COLUMNS - TEXT_COLUMNS - 1 }, (_, i) => `n${i}`);
  await from.query(`CREATE SCHEMA wide; CREATE TABLE wide.table (id int PRIMARY KEY,
    ${texts.map((name) => `${name} text`).join(', ')}, ${numbers.map((name) => `${name} int2`).join(', ')})`);
  for (const name of texts) await from.query(`ALTER TABLE wide.table ALTER ${name} SET STORAGE EXTERNAL`);
  const big = `(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 70) j)`;
  const insert = (first: number, last: number): string =>
    `INSERT INTO wide.table SELECT i, ${texts.map(() => big).join(', ')}, ${numbers.map((_, n) => `(i + ${n}) % 1000`).join(', ')} FROM generate_series(${first}, ${last}) i`;
  await from.query(insert(1, 10));
  // The metadata columns would be more than a table has.
  await using own = await pipelineOf('wide', { target: '  add_metadata_columns: false' });
  await replicate(own, 'wide', 'inserted', insert(11, 30));
  // Each leaves out other values: 120 sets of columns, and more than a share has.
  const parts = Array.from(
    { length: 120 },
    (_, i) => `UPDATE wide.table SET n0 = n0 + 1, t${i} = 'changed', t${i + 1} = NULL WHERE id = ${1 + (i % 30)}`,
  );
  await replicate(own, 'wide', 'updated in parts', parts.join(';'));
  await from.query(`SELECT pg_drop_replication_slot('wide')`);
});
