/**
 * The command from the outside: what a run says and how it ends, what can be asked beside it, and what becomes of a stream that halts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { columnsOf, tableText } from '../support/compare.ts';
import { eventually } from '../support/local-engine.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Ended, type Running, startSluice, type Workplace, workplace } from '../support/sluice.ts';

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;
const running: Running[] = [];

async function query<R extends object = Record<string, unknown>>(server: TestPostgres, sql: string): Promise<R[]> {
  const client = await server.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  place = await workplace(source, target, { tables: '[shop.*]' });
  await query(
    source,
    `CREATE SCHEMA shop;
     CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
     CREATE TABLE shop."Odd, ""name""" (a int, b text, PRIMARY KEY (a, b));
     INSERT INTO shop.orders SELECT i, 'note ' || i FROM generate_series(1, 5000) AS i;
     INSERT INTO shop."Odd, ""name""" VALUES (1, ''), (2, E'tab\\t')`,
  );
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

/** A run that goes on, once its first window has been there. */
async function lasting(...args: string[]): Promise<Running> {
  const run = place.run(...args);
  running.push(run);
  await eventually('a stream that is live', () => /\d live/.test(run.said()));
  return run;
}

const caughtUp = (...args: string[]): Promise<Ended> => place.run('--until-caught-up', ...args).ended;
const lines = ({ out }: Ended): Record<string, unknown>[] =>
  out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

async function expectEqual(): Promise<void> {
  const [from, to] = [await source.connect(), await target.connect()];
  for (const table of ['orders', 'Odd, "name"']) {
    const name = { schema: 'shop', table };
    const columns = await columnsOf(from, name);
    expect(await tableText(to, name, columns)).toEqual(await tableText(from, name, columns));
  }
  await from.end();
  await to.end();
}

describe('a run until caught up', () => {
  test('copies, says what it has done, and ends with 0', async () => {
    const { code, out, err } = await caughtUp();
    expect(code, err).toBe(0);
    expect(out).toMatch(
      /^Caught up with the source at [0-9A-F]+\/[0-9A-F]+: 2 streams; 5,002 rows copied, 0 changes applied, in .+ s\.\n$/,
    );
    expect(err).toMatch(/Pipeline test/);
    expect(err).toMatch(/shop\.orders is copied: 5,000 rows/);
    await expectEqual();
  });

  test('applies what has been written since, and tells programs about it', async () => {
    await query(
      source,
      "UPDATE shop.orders SET note = NULL WHERE id <= 10; DELETE FROM shop.orders WHERE id > 4990; INSERT INTO shop.orders VALUES (9999, '')",
    );
    const ended = await caughtUp('--json');
    expect(ended.code, ended.err).toBe(0);
    const events = lines(ended);
    expect(events[0]).toMatchObject({
      event: 'started',
      pipeline: 'test',
      streams: expect.arrayContaining([expect.stringMatching(/^shop\.orders-/)]),
    });
    expect(events.find(({ event }) => event === 'window')).toMatchObject({
      stopped_by: 'end_lsn',
      error: null,
      changes: 21,
    });
    expect(events.at(-1)).toMatchObject({ event: 'ended', outcome: 'caught_up', lsn: expect.stringMatching(/\//) });
    expect(ended.err).toBe('');
    await expectEqual();
  });

  test('with a backfill asked for, reads the rows that match again, or says why it will not', async () => {
    const wrong = await place.command('backfill', 'shop.orders', '--where', 'no_such = 1').ended;
    expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining('column "no_such" does not exist') });
    const asked = await place.command('backfill', 'shop.orders', '--where', 'true', '--json').ended;
    expect(asked.code, asked.err).toBe(0);
    expect(JSON.parse(asked.out)).toMatchObject({ streams: [{ table: 'shop.orders', backfill: 'opened' }] });
    const status = await place.command('status').ended;
    expect(status.out).toContain('Copying shop.orders (backfill where true)');
    const cancelled = await place.command('backfill', 'shop.orders', '--cancel').ended;
    expect(cancelled.out).toContain('shop.orders: cancelled the one under way.');
    const again = await place.command('backfill', 'shop.orders', '--where', 'true').ended;
    expect(again.out).toContain('shop.orders: waits until the stream is free.');
    const { code, err } = await caughtUp();
    expect(code, err).toBe(0);
    await expectEqual();
  });

  test('with a reset asked for, copies anew; the source may be idle', async () => {
    const asked = await place.command('backfill', 'shop.o*', '--reset').ended;
    expect(asked).toMatchObject({ code: 0, out: expect.stringContaining('shop.orders will be copied anew') });
    const { code, out, err } = await caughtUp();
    expect(code, err).toBe(0);
    expect(out).toContain('4,991 rows copied');
    await expectEqual();
  });
});

describe('a run by the schedule', () => {
  test('is left alone by a second one, is seen by status, and ends cleanly on Ctrl-C', async () => {
    const run = await lasting();
    const second = await caughtUp();
    expect(second).toMatchObject({
      code: 1,
      err: expect.stringContaining(`Error STATE_IN_USE: Another sluice (process ${run.pid})`),
    });

    const beside = await place.command('status', '--json').ended;
    expect(beside.code, beside.err).toBe(0);
    const status = JSON.parse(beside.out) as Record<string, unknown>;
    expect(status).toMatchObject({
      pipeline: 'test',
      running_pid: run.pid,
      head: { lsn: expect.any(String) },
      streams: [{ table: 'shop.Odd, "name"' }, { table: 'shop.orders', state: 'live', halt: null, lag: { cuts: 0 } }],
    });

    const asked_ms = Date.now();
    run.kill('SIGINT');
    const { code, out } = await run.ended;
    expect(Date.now() - asked_ms).toBeLessThan(8_000);
    expect(code).toBe(0);
    expect(out).toContain('Ended. It goes on from');
    const [slot] = await query<{ active: boolean }>(source, 'SELECT active FROM pg_replication_slots');
    expect(slot).toEqual({ active: false });
  });

  test('killed, it holds nobody up', async () => {
    const run = await lasting('--continuous');
    run.kill('SIGKILL');
    await run.ended;
    await query(source, "INSERT INTO shop.orders VALUES (10001, 'after')");
    const ended = await caughtUp('--json');
    expect(ended.code, ended.err).toBe(0);
    const windows = lines(ended).filter(({ event }) => event === 'window');
    expect(windows.length).toBeGreaterThan(0);
    // Nobody had to wait until the dead window's lease ran out.
    expect(windows.filter(({ stopped_by }) => stopped_by === 'skipped')).toEqual([]);
    await expectEqual();
  });

  test('ended before it was caught up, says so and fails', async () => {
    await query(source, 'BEGIN; SELECT 1; COMMIT');
    const blocker = await source.connect();
    await query(source, 'CREATE TABLE shop.late (id int PRIMARY KEY)');
    await blocker.query('BEGIN; INSERT INTO shop.late VALUES (1)');
    const run = place.run('--until-caught-up');
    running.push(run);
    await eventually('the wait for the writer', () => run.said().includes('2 live'));
    run.kill('SIGTERM');
    const { code, out } = await run.ended;
    await blocker.query('ROLLBACK');
    await blocker.end();
    await query(source, 'DROP TABLE shop.late');
    expect(code).toBe(1);
    expect(out).toContain('Ended before everything was applied. It goes on from');
  });
});

describe('a stream that halts', () => {
  test('fails the run, is named with its remedy, and goes on after a resume', async () => {
    await query(target, 'ALTER TABLE shop.orders ADD CONSTRAINT small CHECK (id < 20000)');
    await query(
      source,
      `INSERT INTO shop.orders VALUES (20000, 'too large'); INSERT INTO shop."Odd, ""name""" VALUES (3, 'fine')`,
    );
    const halted = await caughtUp();
    expect(halted.code).toBe(1);
    expect(halted.out).toContain('1 stream, 1 stream halted');
    expect(halted.err.match(/^Error /gm)).toHaveLength(1);
    expect(halted.err).toMatch(
      /^Error TARGET_REJECTS: shop\.orders is halted: .*small[^]*\n {2}Remedy: .*sluice resume shop\.orders/m,
    );
    const page = await place.command('status').ended;
    expect(page.out).toMatch(/shop\.orders +halted/);
    expect(page.out).toMatch(/shop\.orders is halted at cut \d+, .* ago: TARGET_REJECTS/);

    await query(target, 'ALTER TABLE shop.orders DROP CONSTRAINT small');
    expect(await place.command('resume', 'shop.orders').ended).toMatchObject({
      code: 0,
      out: expect.stringContaining('shop.orders goes on.'),
    });
    expect(await place.command('resume', 'shop.orders', '--json').ended).toMatchObject({
      code: 0,
      out: expect.stringContaining('"resumed":false'),
    });
    const { code, err } = await caughtUp();
    expect(code, err).toBe(0);
    await expectEqual();
  });

  test('has a name: another one is an error of usage', async () => {
    expect(await place.command('resume', 'shop.order').ended).toMatchObject({
      code: 2,
      err: expect.stringContaining('Did you mean shop.orders?'),
    });
    expect(await place.command('backfill', 'shop.orders').ended).toMatchObject({
      code: 2,
      err: expect.stringContaining('--reset'),
    });
  });
});

describe('the doctor', () => {
  test('finds no error here, and says how many warnings there are', async () => {
    const { code, out, err } = await place.command('doctor').ended;
    expect(code, err).toBe(0);
    expect(out).toMatch(/WARNING +slot sluice_postgres: .*max_slot_wal_keep_size[^]*→ Run: ALTER SYSTEM SET/);
    expect(out.trim().split('\n').at(-1)).toBe('0 errors, 1 warning');
  });

  test('ends with 1 when there is an error', async () => {
    await using elsewhere = await workplace(source, target, { tables: '[shop.nothing]' });
    const { code, out } = await elsewhere.command('doctor', '--json').ended;
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      errors: 1,
      findings: expect.arrayContaining([
        expect.objectContaining({ check: 'tables_selected', severity: 'error', code: 'TABLE_MISSING' }),
      ]),
    });
  });
});

describe('usage', () => {
  test.each([
    ['an unknown command', ['replicate']],
    ['an unknown option', ['run', '--fast']],
    ['options that exclude each other', ['run', '--until-caught-up', '--continuous']],
    ['a demo of nothing', ['demo', '--rows', '0']],
  ])('%s ends with 2', async (_, args) => {
    const { code, out, err } = await startSluice(args).ended;
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).not.toMatch(/\n\s+at /);
  });

  test('status of what has never run is no error, and makes nothing', async () => {
    await using fresh = await workplace(source, target);
    const { code, out } = await fresh.command('status', '--json').ended;
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ head: null, streams: [], reports: [] });
    expect(await fresh.command('resume', 'shop.orders').ended).toMatchObject({
      code: 2,
      err: expect.stringContaining('no state'),
    });
  });
});
