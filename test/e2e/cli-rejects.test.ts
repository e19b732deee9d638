/**
 * Rows that are not valid, from the outside: a schema in a file beside the pipeline file, shipped to functions that have no files of ours; what status and
 * `sluice rejects` say of them; and how they come back.
 */
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Ended, type Workplace, workplace } from '../support/sluice.ts';

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  place = await workplace(source, target, {
    tables: '[{ table: shop.orders, json_schema: orders.json }]',
    target: '  validate_records: true\n  on_invalid: reject\n  hard_delete: true',
  });
  const schema = {
    required: ['qty'],
    properties: { qty: { type: 'integer', minimum: 0 }, note: { type: 'string', format: 'email' } },
  };
  await writeFile(join(dirname(place.config), 'orders.json'), JSON.stringify(schema));
  await query(
    source,
    `CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, qty int, note text DEFAULT 'a@b.example');
     INSERT INTO shop.orders VALUES (1, 1), (2, -2)`,
  );
});

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

const caughtUp = (): Promise<Ended> => place.run('--until-caught-up').ended;
const rejects = (...args: string[]): Promise<Ended> => place.command('rejects', ...args).ended;
const orders = (server: TestPostgres) => query(server, 'SELECT id, qty FROM shop.orders ORDER BY id');

test('target.on_invalid and tables.json_schema: rejects are listed, shown, loaded and discarded', {
  timeout: 240_000,
}, async () => {
  const first = await caughtUp();
  expect(first.code, first.out + first.err).toBe(0);
  await query(source, `INSERT INTO shop.orders VALUES (3, 3); INSERT INTO shop.orders VALUES (4, 4, 'nobody')`);
  const second = await caughtUp();
  expect(second.code, second.out + second.err).toBe(0);
  expect(await orders(target)).toEqual([
    { id: 1, qty: 1 },
    { id: 3, qty: 3 },
  ]);

  expect((await place.command('status').ended).out).toMatch(/left out: sluice rejects\s+2 rows of shop\.orders/u);
  expect((await rejects()).out).toMatch(/shop\.orders +2 /u);
  const shown = await rejects('shop.orders');
  expect(shown.out).toMatch(/\(id = 2\): copy[^]*column qty must be >= 0 \(minimum\)[^]*qty: -2/u);
  expect(shown.out).toMatch(/\(id = 4\): insert[^]*column note must match format "email" \(format\)[^]*note: nobody/u);
  expect((await rejects('shop.orders', '--limit', '1')).out).toContain('and 1 more');
  const [, line = ''] = (await rejects('shop.orders', '--json')).out.split('\n');
  expect(JSON.parse(line)).toMatchObject({ key: { id: '4' }, operation: 'insert', faults: [{ column: 'note' }] });
  expect(await rejects('--load')).toMatchObject({ code: 2 });
  expect(await rejects('shop.nothing')).toMatchObject({ code: 2 });

  await query(source, 'UPDATE shop.orders SET qty = 2 WHERE id = 2');
  expect((await rejects('shop.orders', '--load')).out).toContain('2 rows will be read again');
  const third = await caughtUp();
  expect(third.code, third.out + third.err).toBe(0);
  expect(await orders(target)).toEqual([
    { id: 1, qty: 1 },
    { id: 2, qty: 2 },
    { id: 3, qty: 3 },
  ]);
  expect((await rejects('shop.orders', '--discard')).out).toContain('1 row forgotten');
  expect((await rejects()).out).toContain('No rows are put aside.');
});

test('a schema that is none is told when the file is read, with its place', async () => {
  await writeFile(join(dirname(place.config), 'orders.json'), '{ "properties": { "qty": { "type": "int" } } }');
  const { code, err } = await caughtUp();
  expect(code).toBe(2);
  expect(err).toMatch(/pipeline\.yaml:\d+:\d+ .*tables\[0\]\.json_schema \(orders\.json\)/u);
});
