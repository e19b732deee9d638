/** The loss of a slot from the outside: what a run says of it, what status shows, and how it goes on when that is asked for. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Ended, type Workplace, workplace } from '../support/sluice.ts';

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  place = await workplace(source, target, { tables: '[shop.*]' });
  await query(
    source,
    `CREATE SCHEMA shop;
     CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
     CREATE TABLE shop.items (id int PRIMARY KEY);
     INSERT INTO shop.orders SELECT i, 'note ' || i FROM generate_series(1, 500) AS i;
     INSERT INTO shop.items SELECT generate_series(1, 500)`,
  );
});

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

const caughtUp = (): Promise<Ended> => place.run('--until-caught-up').ended;
const resume = (...args: string[]): Promise<Ended> => place.command('resume', ...args).ended;
const orders = (server: TestPostgres) => query(server, 'SELECT id, note FROM shop.orders ORDER BY id');

test('a slot that was dropped', { timeout: 120_000 }, async () => {
  const first = await caughtUp();
  expect(first.code, first.out + first.err).toBe(0);
  expect(await resume('--resync')).toMatchObject({ code: 2, err: expect.stringContaining('nothing to resynchronise') });

  await query(source, `SELECT pg_drop_replication_slot('sluice_postgres')`);
  await query(source, `UPDATE shop.orders SET note = 'between' WHERE id = 1; DELETE FROM shop.orders WHERE id = 2`);
  const lost = await caughtUp();
  expect(lost.code).toBe(1);
  expect(lost.err).toMatch(/Error SLOT_MISSING: [^]*Remedy: .*sluice resume --resync/);

  const { out: page } = await place.command('status').ended;
  expect(page).toMatch(/shop\.items +halted/);
  expect(page).toMatch(/shop\.orders +halted[^]*SLOT_MISSING[^]*sluice resume --resync/);
  expect(await resume('shop.orders')).toMatchObject({
    code: 2,
    err: expect.stringContaining('sluice resume --resync'),
  });
  expect(await resume()).toMatchObject({ code: 2, err: expect.stringContaining('--resync') });
  expect(await resume('shop.orders', '--resync')).toMatchObject({ code: 2, err: expect.stringContaining('no name') });

  const asked = await resume('--resync');
  expect(asked).toMatchObject({ code: 0, out: expect.stringContaining('2 streams will be compared') });
  expect((await place.command('status').ended).out).toMatch(/shop\.orders +halted, resync asked/);

  const { code, out, err } = await caughtUp();
  expect(code, out + err).toBe(0);
  expect(out + err).toContain('shop.orders is compared: 0 of 1 chunk the same, 499 rows copied');
  expect(out + err).toContain('shop.items is compared: 1 of 1 chunk the same, 0 rows copied');
  expect(await orders(target)).toEqual(await orders(source));
  expect(JSON.parse((await place.command('status', '--json').ended).out)).toMatchObject({
    streams: [
      { state: 'live', halt: null, resync_requested: false },
      { state: 'live', halt: null, resync_requested: false },
    ],
  });
});
