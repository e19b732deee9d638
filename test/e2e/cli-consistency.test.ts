/**
 * consistency: transaction with the command itself, whose loaders are processes of their own: while it runs, when it is killed, and after it has gone on, the sum over
 * all tables is what it is in every transaction of the source.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Workplace, workplace } from '../support/sluice.ts';

const TABLES = 6;
const SUM = '0';
/** Commits that a reader has to have seen. */
const STATES_MIN = 5;
const WAIT_MS_MAX = 90_000;

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;

const numbers = Array.from({ length: TABLES }, (_, i) => i);
const SUM_SQL = `SELECT (${numbers.map((i) => `(SELECT sum(v) FROM t${i})`).join(' + ')})::text AS sum`;

async function rows<T>(server: TestPostgres, sql: string): Promise<T[]> {
  const client = await server.connect();
  try {
    return (await client.query(sql)).rows as T[];
  } finally {
    await client.end();
  }
}

/** `count` transactions, each of which moves something from one table to another. */
async function move(count: number): Promise<void> {
  const client = await source.connect();
  try {
    for (let n = 0; n < count; n++) {
      const [from, to] = [n % TABLES, (n * 5 + 1) % TABLES];
      await client.query(
        `BEGIN; UPDATE t${from} SET v = v - 7 WHERE id = ${n % 10}; UPDATE t${to} SET v = v + 7 WHERE id = ${(n * 3) % 10}; COMMIT`,
      );
    }
  } finally {
    await client.end();
  }
}

async function expectTogether(): Promise<void> {
  const positions = await rows<{ n: number; places: number; together: boolean; states: string }>(
    target,
    `SELECT count(*)::int AS n, count(DISTINCT as_of_lsn)::int AS places, bool_and(together) AS together, min(state) || max(state) AS states
       FROM _sluice.positions`,
  );
  expect(positions).toEqual([{ n: TABLES, places: 1, together: true, states: 'livelive' }]);
}

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  await rows(
    source,
    numbers
      .map(
        (i) =>
          `CREATE TABLE t${i} (id int PRIMARY KEY, v int NOT NULL); INSERT INTO t${i} SELECT g, 0 FROM generate_series(0, 9) g`,
      )
      .join('; '),
  );
  // A batch for every cut, and as many loaders as there may be.
  place = await workplace(source, target, {
    target: '  consistency: transaction\n  batch_size_rows: 1',
    source: '  break_at_end_lsn: true',
  });
}, 60_000);

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

test('after each run all tables are of the same commit', async () => {
  for (let run = 0; run < 2; run++) {
    await move(20);
    const { code, err } = await place.run('--until-caught-up').ended;
    expect(code, err).toBe(0);
    expect(await rows(target, SUM_SQL)).toEqual([{ sum: SUM }]);
  }
  await expectTogether();
  for (const i of numbers) {
    const sql = `SELECT id, v FROM t${i} ORDER BY id`;
    expect(await rows(target, sql)).toEqual(await rows(source, sql));
  }
}, 180_000);

test('killed while it loads, it leaves a commit as a whole, and goes on from there', async () => {
  const running = place.run('--continuous');
  const reader = await target.connect();
  const seen = new Set<string>();
  let until_ms = Date.now() + WAIT_MS_MAX;
  const goesOn = (): boolean => seen.size < STATES_MIN && Date.now() < until_ms;
  const writing = (async () => {
    for (; goesOn(); await sleep(100)) await move(12);
  })();
  try {
    const read = async (): Promise<void> => {
      const { rows: found } = await reader.query<{ sum: string; first: string }>(
        `${SUM_SQL}, (SELECT string_agg(v::text, ',' ORDER BY id) FROM t0) AS first`,
      );
      expect(found[0]?.sum).toBe(SUM);
      seen.add(found[0]?.first ?? '');
    };
    for (; goesOn(); await sleep(5)) await read();
    expect(seen.size).toBeGreaterThanOrEqual(STATES_MIN);
    const more = move(100);
    await sleep(300);
    running.kill('SIGKILL');
    await running.ended;
    await more;
    await read();
  } finally {
    until_ms = 0;
    running.kill('SIGKILL');
    await Promise.all([running.ended, writing]);
    await reader.end();
  }
  const { code, err } = await place.run('--until-caught-up').ended;
  expect(code, err).toBe(0);
  await expectTogether();
  for (const i of numbers) {
    const sql = `SELECT id, v FROM t${i} ORDER BY id`;
    expect(await rows(target, sql)).toEqual(await rows(source, sql));
  }
}, 180_000);
