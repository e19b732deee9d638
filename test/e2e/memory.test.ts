/**
 * Bounds (I8): neither a transaction of very many rows nor a giant row makes the process of `sluice run`, which has all functions as its threads, grow past its
 * limit, on any of the ways that it can take.
 *
 * By default the sizes are small; SLUICE_BOUNDS=full: two million rows, 100 MB.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FULL } from '../support/bounds.ts';
import { columnsOf, tableText } from '../support/compare.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Workplace, workplace } from '../support/sluice.ts';

const RSS_BYTES_MAX = 400 * 1000 * 1000;
const TRANSACTION_ROWS = FULL ? 2_000_000 : 200_000;
/** 32 hexadecimal digits each: text that does not compress to nothing. 100 MB, or 20. */
const GIANT_PARTS = FULL ? 3_125_000 : 625_000;

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;

beforeAll(async () => {
  source = await startPostgres({ settings: { max_wal_size: '4GB' }, large: true });
  target = await startPostgres({ settings: { max_wal_size: '4GB' }, large: true });
  place = await workplace(source, target);
  const client = await source.connect();
  await client.query(`
    CREATE TABLE rows (id bigint PRIMARY KEY, n int, note text, at timestamptz);
    CREATE TABLE giants (id int PRIMARY KEY, before text, giant text, after text);
    INSERT INTO giants SELECT 1, 'a', ${giant()}, 'b'`);
  await client.end();
});

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await source?.stop();
  await target?.stop();
});

function giant(): string {
  return `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, ${GIANT_PARTS}) AS i)`;
}

async function write(sql: string): Promise<void> {
  const client = await source.connect();
  await client.query(sql);
  await client.end();
}

async function runAndCompare(...tables: string[]): Promise<void> {
  const { code, err, rss_bytes_max } = await place.run('--until-caught-up').ended;
  expect(code, err).toBe(0);
  console.log(`peak RSS ${Math.round(rss_bytes_max / 1e6)} MB`);
  const [from, to] = [await source.connect(), await target.connect()];
  for (const table of tables) {
    const name = { schema: 'public', table };
    const columns = await columnsOf(from, name);
    expect({ table, ...(await tableText(to, name, columns)) }).toEqual({
      table,
      ...(await tableText(from, name, columns)),
    });
  }
  await from.end();
  await to.end();
  expect(rss_bytes_max).toBeLessThan(RSS_BYTES_MAX);
}

/** Several runs of the command, each with millions of rows, on a machine that has other things to do. */
const PATIENCE = { timeout: FULL ? 1_800_000 : 600_000 };

test('first sync with a giant row stays under the limit', PATIENCE, async () => {
  await runAndCompare('giants', 'rows');
});

test(
  'so do one transaction of very many rows, and a giant one by the log: inserted, updated beside it, its key changed, another deleted',
  PATIENCE,
  async () => {
    await write(
      `INSERT INTO rows SELECT i, i, md5(i::text) || md5(i::text), now() FROM generate_series(1, ${TRANSACTION_ROWS}) i`,
    );
    if (FULL) await runAndCompare('rows');
    await write(`INSERT INTO giants SELECT 2, E'tab\\tnewline\\n', ${giant()}, 'b'`);
    await write(`UPDATE giants SET after = 'c' WHERE id = 2`);
    await write('UPDATE giants SET id = 3 WHERE id = 2');
    await write('DELETE FROM giants WHERE id = 1');
    await runAndCompare('giants', 'rows');
  },
);
