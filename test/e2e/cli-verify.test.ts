/**
 * `sluice verify` from the outside: what it says, how it ends, beside a run and without one, and how much memory it takes when everything differs.
 */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { KEYS_SHOWN_MAX } from '../../lib/verify/findings.ts';
import { eventually } from '../support/local-engine.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Ended, type Running, type Workplace, workplace } from '../support/sluice.ts';

/** Of a table whose key is text: `key 1` to `key 120000`. */
const ROWS = 120_000;
/** What a run of the command takes with a table of a few thousand rows, and some more; all keys of `many` take several times that. */
const HEAP_MB_MAX = 56;

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;
const running: Running[] = [];

interface Told {
  readonly streams: readonly Record<string, unknown>[];
}

const verify = (...args: string[]): Promise<Ended> => place.command('verify', ...args).ended;
const told = ({ out }: Ended): Told => JSON.parse(out) as Told;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  // What verify waits for is recorded by the end of a window at the latest.
  place = await workplace(source, target, { source: '  max_run_seconds: 3' });
  await query(
    source,
    `CREATE TABLE orders (id int PRIMARY KEY, secret text);
     INSERT INTO orders SELECT i, 'hidden ' || i FROM generate_series(1, 3000) AS i;
     CREATE TABLE many (id text PRIMARY KEY); INSERT INTO many SELECT 'key ' || i FROM generate_series(1, ${ROWS}) AS i`,
  );
  expect(await verify()).toMatchObject({ code: 2 });
  expect(await place.run('--until-caught-up').ended).toMatchObject({ code: 0 });
});

afterEach(async () => {
  for (const run of running.splice(0)) {
    run.kill('SIGKILL');
    await run.ended;
  }
});

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

test('without a run: finds, names keys and no values, repairs, and is clean', async () => {
  expect(await verify()).toMatchObject({
    code: 0,
    out: expect.stringMatching(/2 tables, 123,000 rows compared: 2 equal/) as string,
  });
  await query(source, 'INSERT INTO orders VALUES (9001, $$new$$)');
  await query(
    target,
    "UPDATE orders SET secret = 'wrong' WHERE id = 17; DELETE FROM orders WHERE id = 18; INSERT INTO orders VALUES (8000, 'wrong')",
  );
  const found = await verify('public.orders');
  expect(found.code).toBe(1);
  expect(found.out).toContain('3,001 rows, 1 differing, 1 missing, 1 extra');
  expect(found.out).toMatch(/differing: id\n +17\n +missing: id\n +18\n +extra: id\n +8000/);
  expect(found.out + found.err).not.toMatch(/hidden|wrong/);

  const repaired = await verify('orders', '--repair', '--json');
  expect(repaired).toMatchObject({ code: 2 }); // A table has a schema.
  expect(told(await verify('public.orders', '--repair', '--json')).streams).toMatchObject([
    { outcome: 'repaired', repaired: 3 },
  ]);
  expect(await verify('public.*')).toMatchObject({ code: 0 });
});

test('--chain: no table is read, and what is missing is named', async () => {
  expect(await verify('--chain')).toMatchObject({
    code: 0,
    out: expect.stringContaining('nothing is missing, nothing is damaged') as string,
  });
  expect(await verify('--chain', 'public.orders')).toMatchObject({ code: 2 });
  await query(target, 'UPDATE _sluice.streams SET applied_cut = applied_cut + 1000');
  const ahead = await verify('--chain', '--json');
  await query(target, 'UPDATE _sluice.streams SET applied_cut = applied_cut - 1000');
  expect(ahead.code).toBe(1);
  expect(JSON.parse(ahead.out)).toMatchObject({
    fault_count: 2,
    faults: [{ code: 'LEDGER_GAP' }, { code: 'LEDGER_GAP' }],
  });
  expect(await verify('--chain', '--json')).toMatchObject({ code: 0 });
});

test('beside a run: its windows serve', async () => {
  const run = place.run('--continuous');
  running.push(run);
  await eventually('a stream that is live', () => /\d live/.test(run.said()));
  await query(target, 'DELETE FROM orders WHERE id = 20');
  const found = await verify('public.orders', '--json');
  expect(found.code).toBe(1);
  expect(told(found).streams).toMatchObject([{ outcome: 'different', missing: { rows: 1, keys: [['20']] } }]);
  expect(await verify('public.orders', '--repair')).toMatchObject({ code: 0 });
  expect(await verify('public.orders')).toMatchObject({ code: 0 });
});

test('memory is bounded, however much differs', async () => {
  await query(target, 'TRUNCATE many');
  const node_options = process.env.NODE_OPTIONS ?? '';
  // A process that held all keys at once would not come to its end.
  process.env.NODE_OPTIONS = `${node_options} --max-old-space-size=${HEAP_MB_MAX}`;
  try {
    const all = await verify('public.many');
    expect(all.code, all.err).toBe(1);
    expect(all.out).toContain(`${ROWS.toLocaleString('en-US')} missing`);
    expect(all.out).toContain(`and ${(ROWS - KEYS_SHOWN_MAX).toLocaleString('en-US')} more`);
  } finally {
    process.env.NODE_OPTIONS = node_options;
  }
});
