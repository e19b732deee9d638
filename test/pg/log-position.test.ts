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

  // A record of the last bytes of a page: what a message costs beside its content is measured in the same page.
  const emit = async (bytes: number): Promise<bigint> => {
    const before = await at('pg_current_wal_insert_lsn');
    await client.query("SELECT pg_logical_emit_message(false, 'p', repeat('x', $1), true)", [bytes]);
    return (await at('pg_current_wal_insert_lsn')) - before;
  };
  let found = 0;
  for (let i = 0; found < PAGES && i < 20; i++) {
    const beside = (await emit(1_000)) - 1_000n;
    const left = PAGE_BYTES - ((await at('pg_current_wal_insert_lsn')) % PAGE_BYTES);
    if (left > beside) await emit(Number(left - beside));
    if ((await settled()) === 24n) found++;
  }
  expect(found).toBe(PAGES);
  await client.end();
}, 60_000);
