/** The command with tables that have a schedule of their own (tables[].schedule): what a run until caught up does with them, and what `status` and `doctor` say. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Workplace, workplace } from '../support/sluice.ts';

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;

const TABLES = `
  - { table: public.paused, schedule: { paused: true } }
  - { table: public.daily, schedule: { cron: "0 6 * * ? *", timezone: Europe/Zurich } }
  - { table: public.copied, replication_method: FULL_TABLE, schedule: { every: 1 day } }`;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  place = await workplace(source, target, { tables: TABLES });
}, 60_000);

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

async function run(server: TestPostgres, sql: string): Promise<Record<string, unknown>[]> {
  const client = await server.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

test('run --until-caught-up waits for no schedule, and status says what each table waits for', async () => {
  const names = ['paused', 'daily', 'copied'];
  await run(source, names.map((name) => `CREATE TABLE ${name} (id int PRIMARY KEY)`).join('; '));
  const add = (id: number) => run(source, names.map((name) => `INSERT INTO ${name} VALUES (${id})`).join('; '));
  for (const id of [1, 2]) {
    await add(id);
    const { code, err } = await place.run('--until-caught-up').ended;
    expect(code, err).toBe(0);
    for (const name of names) {
      expect([name, await run(target, `SELECT count(*)::int AS count FROM ${name}`)]).toEqual([name, [{ count: id }]]);
    }
  }
  const { out } = await place.command('status', '--json').ended;
  const { streams } = JSON.parse(out) as {
    streams: { table: string; schedule: { paused: boolean; next_at: string } }[];
  };
  const of = (table: string) => streams.find((stream) => stream.table === `public.${table}`)?.schedule;
  expect(of('paused')).toEqual({ paused: true, next_at: null });
  expect(of('copied')).toMatchObject({ paused: false });
  const next = new Date(of('daily')?.next_at ?? '').toLocaleTimeString('en-GB', { timeZone: 'Europe/Zurich' });
  expect(next).toBe('06:00:00');
  expect((await place.command('doctor').ended).out).toMatch(/public\.paused[\s\S]*It is paused/);
}, 120_000);

test('verify loads what waits for its time, and waits for no schedule', async () => {
  const engine = place.run();
  for (let isRead = false; !isRead; await sleep(100)) {
    isRead = (await run(source, 'SELECT FROM pg_replication_slots WHERE active')).length > 0;
  }
  for (const name of ['paused', 'daily']) await run(source, `INSERT INTO ${name} VALUES (3)`);
  await sleep(2_000);
  engine.kill('SIGINT');
  expect((await engine.ended).code).toBe(0);
  for (const name of ['paused', 'daily']) {
    expect([name, await run(target, `SELECT count(*)::int AS count FROM ${name}`)]).toEqual([name, [{ count: 2 }]]);
  }
  const { code, err } = await place.command('verify').ended;
  expect(code, err).toBe(0);
  expect(await run(target, 'SELECT count(*)::int AS count FROM daily')).toEqual([{ count: 3 }]);
}, 90_000);
