/**
 * The command with tables that are read by query alone: `run --until-caught-up` gives each one run, whether it is due or not, against a source without logical decoding
 * and a role that may only SELECT; `status` says as of when the rows are.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Workplace, workplace } from '../support/sluice.ts';

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;

async function rows(server: TestPostgres, sql: string): Promise<unknown[]> {
  const client = await server.connect();
  try {
    return (await client.query(sql)).rows as unknown[];
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ settings: { wal_level: 'replica' } }), startPostgres()]);
  await rows(
    source,
    `CREATE SCHEMA shop; CREATE TABLE shop.full_one (id int PRIMARY KEY, v text); CREATE TABLE shop.runs (id int PRIMARY KEY, k int NOT NULL);
     INSERT INTO shop.full_one VALUES (1, 'a'), (2, 'b'); INSERT INTO shop.runs VALUES (1, 1)`,
  );
  place = await workplace(source, target, {
    tables:
      "[{ table: 'shop.full_one', replication_method: FULL_TABLE }, { table: shop.runs, replication_method: INCREMENTAL, replication_key: k }]",
  });
}, 60_000);
afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

const TABLES =
  'SELECT array(SELECT id FROM shop.full_one ORDER BY id) AS full_one, array(SELECT id FROM shop.runs ORDER BY id) AS runs';

test('one run each, then another', async () => {
  const first = await place.run('--until-caught-up').ended;
  expect(first.code, first.err).toBe(0);
  expect(await rows(target, TABLES)).toEqual([{ full_one: [1, 2], runs: [1] }]);
  await rows(source, 'DELETE FROM shop.full_one WHERE id = 1; INSERT INTO shop.runs VALUES (2, 2)');
  const second = await place.run('--until-caught-up').ended;
  expect(second.code, second.err).toBe(0);
  expect(await rows(target, TABLES)).toEqual([{ full_one: [2], runs: [1, 2] }]);
  expect(await rows(target, 'SELECT epoch::int FROM _sluice.streams')).toEqual([{ epoch: 2 }, { epoch: 2 }]);
  expect(await rows(source, 'SELECT FROM pg_replication_slots')).toEqual([]);
}, 120_000);

test('status says as of when the rows are', async () => {
  const page = await place.command('status').ended;
  expect(page.out).toMatch(/shop\.full_one .*live.*as of .* ago/);
  const json = await place.command('status', '--json').ended;
  const { streams } = JSON.parse(json.out) as { streams: { method: string; as_of: string }[] };
  expect(streams.map(({ method }) => method)).toEqual(['FULL_TABLE', 'INCREMENTAL']);
  for (const { as_of } of streams) expect(Date.now() - Date.parse(as_of)).toBeLessThan(300_000);
}, 60_000);

test('doctor finds nothing that stops it, and remarks what it costs', async () => {
  const { code, out } = await place.command('doctor').ended;
  expect(code).toBe(0);
  expect(out).toMatch(/No index begins with its replication key k/);
  expect(out).toMatch(/there is no lookback/);
  expect(out).not.toMatch(/slot|wal_level|publication/i);
}, 60_000);
