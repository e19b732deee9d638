/** A position of an idle primary is one that its log ends at: whoever waits for it need not wait for more to be written. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseLsn } from '../../lib/lsn.ts';
import { readInsertLsn } from '../../lib/postgres/log-position.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let server: TestPostgres;

beforeAll(async () => {
  // Nothing of the server's own is written meanwhile.
  const settings = { autovacuum: 'off', checkpoint_timeout: '1h', bgwriter_lru_maxpages: '0' };
  server = await startPostgres({ settings });
}, 60_000);
afterAll(() => server.stop());

const PAGE_BYTES = 8192n;
const PAGES = 3;

test('behind the header of a segment, and of a page', async () => {
  const client = await server.connect();
  const at = async (name: string) => {
    const { rows } = await client.query<{ lsn: string }>(`SELECT ${name}()::text AS lsn`);
    return parseLsn(rows[0]?.lsn ?? '');
  };
  const settled = async () => {
    const insert = await at('pg_current_wal_insert_lsn');
    const position = await readInsertLsn(client);
    expect(position).toBe(await at('pg_current_wal_flush_lsn'));
    return insert - position;
  };
  await client.query('CHECKPOINT; SELECT pg_switch_wal()');
  expect(await settled()).toBe(40n);

  // Messages of 8 bytes more until a record ends where a page does.
  let found = 0;
  for (let i = 0; found < PAGES && i < 400; i++) {
    const left = PAGE_BYTES - ((await at('pg_current_wal_insert_lsn')) % PAGE_BYTES);
    const bytes = Number(left) - 60 - (i % 12) * 8;
    if (bytes > 0) await client.query("SELECT pg_logical_emit_message(false, 'p', repeat('x', $1))", [bytes]);
    else await client.query("SELECT pg_logical_emit_message(false, 'p', repeat('x', 200))");
    await client.query("SELECT pg_logical_emit_message(true, 'flush', '')");
    if ((await settled()) === 24n) found++;
  }
  expect(found).toBe(PAGES);
  await client.end();
}, 60_000);
