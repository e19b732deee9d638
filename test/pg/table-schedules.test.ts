/**
 * tables[].schedule between two real servers: what each window stages, what it loads and which runs it opens, as time goes by and as the file is changed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { status } from '../../lib/operate.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { eventually } from '../support/local-engine.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const TABLES = 'CREATE TABLE daily (id int PRIMARY KEY); CREATE TABLE always (id int PRIMARY KEY)';

const line = (tables: string): Promise<FreshLine> => freshLine({ source, target }, TABLES, { tables });
const logged = (schedule: string): string => `[public.always, { table: public.daily, schedule: ${schedule} }]`;
const copied = (schedule: string): string =>
  `[{ table: public.always, replication_method: FULL_TABLE }, { table: public.daily, replication_method: FULL_TABLE, schedule: ${schedule} }]`;

/** A window, and everything that it rings for. */
async function pass({ line }: FreshLine, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) {
    await line.window();
    await line.pump();
  }
}

/** How many rows the target has of each. */
async function counts({ line }: FreshLine): Promise<{ daily: number; always: number }> {
  const count = async (table: string): Promise<number> => (await line.rows('target', `public.${table}`)).length;
  return { daily: await count('daily'), always: await count('always') };
}

const add = async ({ from }: FreshLine, id: number): Promise<void> => {
  await from.query(`INSERT INTO daily VALUES (${id}); INSERT INTO always VALUES (${id})`);
};

const statusOf = async ({ line }: FreshLine, table: string) => {
  const { streams } = await status(
    { clock: { now: () => Date.now(), sleep: async () => {} }, ledger: line.ledger },
    'p',
  );
  return streams.find((stream) => stream.table === `public.${table}`);
};

describe('LOG_BASED', () => {
  test('schedule.every: staged by every window, loaded once for each time', async () => {
    await using run = await line(logged('{ every: 1 day }'));
    await add(run, 1);
    await run.settle(); // A new table is copied at once.
    expect(await counts(run)).toEqual({ daily: 1, always: 1 });
    await pass(run);
    await add(run, 2);
    await pass(run, 2);
    expect(await counts(run)).toEqual({ daily: 1, always: 2 });
    // The slot waits for nobody.
    const { stream } = run.line.bookmark('public.daily');
    expect(run.line.durable.chain.filter((cut) => cut.streams[stream]).length).toBeGreaterThan(0);
    run.line.passTime(DAY_MS);
    await add(run, 3);
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 3, always: 3 });
    await add(run, 4);
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 3, always: 4 });
    expect(run.line.log.lines.filter(({ event }) => event === 'table_due')).toHaveLength(1);
  });

  test('schedule.cron and timezone: loaded by the first window after its time, and not before', async () => {
    // Two hours from now, by a clock that is not the machine's.
    const at = new Date(Date.now() + 2 * HOUR_MS);
    const zone = { timeZone: 'Asia/Kolkata', hour: 'numeric', minute: 'numeric', hourCycle: 'h23' } as const;
    const [hour, minute] = new Intl.DateTimeFormat('en', zone).format(at).split(':').map(Number);
    await using run = await line(logged(`{ cron: "${minute} ${hour} * * ? *", timezone: Asia/Kolkata }`));
    await run.settle();
    await pass(run);
    await add(run, 1);
    run.line.passTime(HOUR_MS);
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 0, always: 1 });
    const next_at = (await statusOf(run, 'daily'))?.schedule?.next_at ?? '';
    expect(Math.abs(Date.parse(next_at) - at.getTime())).toBeLessThan(60_000);
    run.line.passTime(HOUR_MS);
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 1, always: 1 });
  });

  test('what it was rung for and nobody loaded is rung for again', async () => {
    await using run = await line(logged('{ every: 1 day }'));
    await run.settle();
    await pass(run);
    await add(run, 1);
    run.line.passTime(DAY_MS);
    await run.line.window();
    run.line.durable.loadBells.length = 0;
    await add(run, 2);
    expect(await counts(run)).toEqual({ daily: 0, always: 0 });
    await pass(run);
    expect((await counts(run)).daily).toBeGreaterThan(0);
  });

  test('schedule.paused: staged and not loaded; taken back, the next window loads what has waited', async () => {
    await using run = await line('[public.always, public.daily]');
    await add(run, 1);
    await run.settle();
    run.line.configure({ tables: logged('{ paused: true }') });
    await add(run, 2);
    run.line.passTime(40 * DAY_MS);
    await pass(run, 2);
    expect(await counts(run)).toEqual({ daily: 1, always: 2 });
    expect(await statusOf(run, 'daily')).toMatchObject({ state: 'live', schedule: { paused: true, next_at: null } });
    expect(await statusOf(run, 'always')).toMatchObject({ schedule: null });
    run.line.configure({ tables: '[public.always, public.daily]' });
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 2, always: 2 });
    expect(await statusOf(run, 'daily')).toMatchObject({ schedule: null });
  });

  test('schedule.paused from the beginning: captured and staged, and copied when that is taken back', async () => {
    await using run = await line(logged('{ paused: true }'));
    await add(run, 1);
    await pass(run, 3);
    expect(run.line.bookmark('public.daily')).toMatchObject({ state: 'captured', epoch: 1 });
    expect((await run.to.query("SELECT FROM pg_tables WHERE tablename = 'daily'")).rows).toEqual([]);
    run.line.configure({ tables: logged('{ every: 1 hour }') });
    await run.equal();
  });

  test('a schedule that is given later holds from the next window on, and one that is changed is followed', async () => {
    await using run = await line('[public.always, public.daily]');
    await run.settle();
    run.line.configure({ tables: logged('{ every: 1 day }') });
    await add(run, 1);
    await pass(run, 2);
    expect(await counts(run)).toEqual({ daily: 0, always: 1 });
    run.line.configure({ tables: logged('{ every: 1 hour }') });
    run.line.passTime(HOUR_MS);
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 1, always: 1 });
  });

  test('a window that is to catch up ignores schedules', async () => {
    await using run = await line(logged('{ paused: true }'));
    await add(run, 1);
    for (let i = 0; i < 3; i++) {
      await run.line.windowWith({ ignore_schedules: true });
      await run.line.pump();
    }
    await add(run, 2);
    await run.line.windowWith({ ignore_schedules: true });
    await run.line.pump();
    expect(await counts(run)).toEqual({ daily: 2, always: 2 });
  });
});

describe('by query', () => {
  test('schedule.every: its run is opened when it is due; others have theirs by the pipeline’s schedule, and not at windows of the table’s', async () => {
    await using run = await line(copied('{ every: 1 day }'));
    await add(run, 1);
    await pass(run, 2);
    expect(await counts(run)).toEqual({ daily: 1, always: 1 });
    const epochs = () => [run.line.bookmark('public.daily').epoch, run.line.bookmark('public.always').epoch];
    await pass(run, 2);
    // The pipeline's schedule is every 5 minutes: these windows are others'.
    expect(epochs()).toEqual([1, 1]);
    await add(run, 2);
    run.line.passTime(5 * MINUTE_MS);
    await pass(run, 2);
    expect(epochs()).toEqual([1, 2]);
    expect(await counts(run)).toEqual({ daily: 1, always: 2 });
    run.line.passTime(DAY_MS);
    await pass(run);
    expect(epochs()).toEqual([2, 3]);
    expect(await counts(run)).toEqual({ daily: 2, always: 2 });
  });

  test('schedule.cron: its run is opened in the middle of a window that lasts', async () => {
    await using run = await line(
      '[public.always, { table: public.daily, replication_method: FULL_TABLE, schedule: { cron: "* * * * ? *" } }]',
    );
    await pass(run, 2);
    let asked = false;
    const window = run.line.windowWith({ break_at_end_lsn: false, asked: () => asked });
    await sleep(1_000);
    await run.line.pump();
    const { epoch } = run.line.bookmark('public.daily');
    await add(run, 1);
    run.line.passTime(MINUTE_MS);
    await eventually('a run', () => run.line.bookmark('public.daily').epoch === epoch + 1);
    asked = true;
    expect((await window).stopped_by).toBe('asked');
    await run.line.pump();
    expect((await counts(run)).daily).toBe(1);
  });

  test('schedule.paused: no run, also none that never was; taken back, the next window opens it', async () => {
    await using run = await line(copied('{ paused: true }'));
    await add(run, 1);
    run.line.passTime(DAY_MS);
    await pass(run, 2);
    expect(run.line.bookmark('public.daily')).toMatchObject({ epoch: 0, state: 'captured' });
    run.line.configure({ tables: copied('{ every: 1 day }') });
    await pass(run);
    expect(await counts(run)).toEqual({ daily: 1, always: 1 });
  });
});
