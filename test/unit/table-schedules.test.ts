/**
 * Tables with a schedule of their own, in windows over ports in memory: when exactly a table is rung for, with the clock in hand. What becomes of it between two
 * servers is test/pg/table-schedules.test.ts.
 */
import { describe, expect, test } from 'vitest';
import { appliedLagSeconds } from '../../lib/operate.ts';
import type { LoadBell } from '../../lib/ports.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';

const DAILY = idOf('public.daily');
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const put = (table: string, id: number) => ({ table: `public.${table}`, put: { id: String(id), v: 'v' } });

/** Both tables are live, and the clock shows `at`; `daily` is loaded at six. */
async function live(
  at: string,
  source = 'break_at_end_lsn: true',
  more: { tables?: string; schedule?: string } = {},
): Promise<MemoryPipeline> {
  const tables = '[public.always, { table: public.daily, schedule: { cron: "0 6 * * ? *" } }]';
  const p = new MemoryPipeline({ tables, source, ...more });
  p.world.clock.now_ms = Date.parse(at) - 60 * MINUTE_MS;
  p.database.makeTable('public.always').makeTable('public.daily');
  await p.window({ break_at_end_lsn: true });
  await p.pump();
  p.database.write(put('always', 1), put('daily', 1));
  await p.window({ break_at_end_lsn: true, ignore_schedules: true });
  await p.pump();
  expect(p.isSettled).toBe(true);
  p.world.clock.now_ms = Date.parse(at);
  p.world.events.length = 0;
  return p;
}

/** Cuts that the doorbell was rung for, by the stream. */
function bellsFor({ world }: MemoryPipeline, stream: string): number[] {
  return world
    .calls('doorbell.ringLoad')
    .flatMap((bells) => bells as readonly LoadBell[])
    .flatMap((bell) => (bell.stream === stream && bell.kind === 'cuts' ? [bell.cut] : []));
}

/** Rows of the table that the target has. */
const rowsThere = (p: MemoryPipeline): number => p.warehouse.rows(DAILY).size;

describe('a table with a schedule', () => {
  test('is rung for in the middle of a window that lasts, when its time has come and all until then is recorded', async () => {
    const p = await live('2026-05-01T05:57:00Z', 'max_run_seconds: 600');
    const rung_ms: number[] = [];
    let wrote = false;
    p.database.onRead = () => {
      if (!wrote && p.world.clock.now() >= Date.parse('2026-05-01T05:59:59.900Z')) {
        wrote = true;
        p.database.write(put('daily', 2));
      }
      if (bellsFor(p, DAILY).length > rung_ms.length) rung_ms.push(p.world.clock.now());
    };
    const report = await p.window();
    expect(report.stopped_by).toBe('max_run');
    expect(rung_ms).toHaveLength(1);
    expect((rung_ms[0] ?? 0) - Date.parse('2026-05-01T06:00:00Z')).toBeGreaterThanOrEqual(-1_000);
    expect((rung_ms[0] ?? 0) - Date.parse('2026-05-01T06:00:00Z')).toBeLessThan(10_000);
    await p.pump();
    expect(rowsThere(p)).toBe(2);
  });

  test('is not rung for by a window that has read the log only up to before its time; the next one does', async () => {
    const p = await live('2026-05-01T05:59:30Z');
    p.database.write(put('daily', 2));
    // The window knows an end from before six, and ends long after.
    p.database.onRead = () => {
      if (p.world.clock.now() < Date.parse('2026-05-01T06:01:00Z'))
        p.world.clock.now_ms = Date.parse('2026-05-01T06:01:00Z');
    };
    const early = await p.window();
    expect(early.stopped_by).toBe('end_lsn');
    expect(bellsFor(p, DAILY)).toEqual([]);
    p.database.onRead = () => {};
    await p.window();
    expect(bellsFor(p, DAILY)).toHaveLength(1);
    await p.window();
    await p.pump();
    expect(rowsThere(p)).toBe(2);
  });

  test('is rung for by the window that is called for its time, also by a clock that is a little behind, and by no other until the next day', async () => {
    const p = await live('2026-05-01T05:59:59.950Z');
    p.database.write(put('daily', 2));
    await p.window();
    await p.pump();
    expect(rowsThere(p)).toBe(2);
    for (const at of ['2026-05-01T06:00:30Z', '2026-05-01T12:00:00Z', '2026-05-02T05:58:00Z']) {
      p.world.clock.now_ms = Date.parse(at);
      p.database.write(put('daily', 3), put('always', 3));
      await p.window();
    }
    expect(bellsFor(p, DAILY)).toHaveLength(1);
    p.world.clock.now_ms = Date.parse('2026-05-02T06:00:01Z');
    await p.window();
    expect(bellsFor(p, DAILY)).toHaveLength(2);
  });

  test('is rung for once for several times that nobody was there for', async () => {
    const p = await live('2026-05-01T07:00:00Z');
    await p.window();
    await p.pump();
    p.world.events.length = 0;
    p.database.write(put('daily', 2));
    p.world.clock.now_ms += 5 * DAY_MS;
    await p.window();
    await p.pump();
    await p.window();
    expect(bellsFor(p, DAILY)).toHaveLength(1);
  });

  test('is not behind while it waits for its time; from its time on it is', async () => {
    const p = await live('2026-05-01T07:00:00Z');
    await p.window();
    await p.pump();
    p.database.write(put('daily', 2));
    p.world.clock.now_ms += 10 * 60 * MINUTE_MS;
    await p.window();
    await p.pump();
    expect(await appliedLagSeconds(p.drainPorts())).toBe(0);
    p.world.clock.now_ms = Date.parse('2026-05-02T06:00:10Z');
    await p.window();
    p.world.clock.now_ms += MINUTE_MS;
    const lag_seconds = (await appliedLagSeconds(p.drainPorts())) ?? 0;
    expect(lag_seconds).toBeGreaterThanOrEqual(60);
    expect(lag_seconds).toBeLessThan(120);
    await p.pump();
    expect(await appliedLagSeconds(p.drainPorts())).toBe(0);
  });

  test('is rung for again by every window until what it was rung for is applied, and no longer', async () => {
    const p = await live('2026-05-01T06:00:00Z');
    p.database.write(put('daily', 2));
    await p.window();
    p.durable.loadBells.length = 0;
    const [cut] = bellsFor(p, DAILY);
    p.world.clock.now_ms += 5 * MINUTE_MS;
    await p.window();
    await p.pump();
    expect(bellsFor(p, DAILY)).toEqual([cut, cut]);
    p.world.clock.now_ms += 5 * MINUTE_MS;
    await p.window();
    expect(bellsFor(p, DAILY)).toHaveLength(2);
  });

  test('is rung for like all while it is copied and catches up, and waits for its time from then on', async () => {
    const tables = '[{ table: public.daily, schedule: { every: 6 hours, anchor: "06:00" } }]';
    const p = new MemoryPipeline({ tables, source: 'max_run_seconds: 600' });
    p.world.clock.now_ms = Date.parse('2026-05-01T07:00:00Z');
    p.database.makeTable('public.daily');
    await p.window({ break_at_end_lsn: true });
    await p.pump();
    p.database.write(put('daily', 1));
    const wrote = new Set<number>();
    let bellsWhenLive = 0;
    p.database.onRead = () => {
      const minute = Math.floor((p.world.clock.now() - Date.parse('2026-05-01T07:00:00Z')) / MINUTE_MS);
      if (!wrote.has(minute)) p.database.write(put('daily', 10 + minute));
      wrote.add(minute);
      // What loaders do meanwhile, in short.
      const bookmark = p.durable.bookmarks.get(DAILY);
      if (minute >= 2 && bookmark?.state === 'catching_up')
        p.durable.bookmarks.set(DAILY, { ...bookmark, state: 'live' });
      if (minute < 5) bellsWhenLive = bellsFor(p, DAILY).length;
    };
    await p.window();
    // Bells while it caught up, and none in the last minutes.
    expect(bellsWhenLive).toBeGreaterThanOrEqual(1);
    expect(wrote.size).toBeGreaterThanOrEqual(9);
    expect(bellsFor(p, DAILY)).toHaveLength(bellsWhenLive);
    p.database.onRead = () => {};
    p.world.clock.now_ms = Date.parse('2026-05-01T12:00:00Z');
    await p.window({ break_at_end_lsn: true });
    expect(bellsFor(p, DAILY)).toHaveLength(bellsWhenLive + 1);
  });

  test('a window that dies before it has rung leaves that to the next', async () => {
    const p = await live('2026-05-01T06:00:00Z');
    p.database.write(put('daily', 2));
    p.world.faults.set('doorbell.ringLoad', new Error('no queue'));
    await p.window();
    p.world.faults.clear();
    p.world.clock.now_ms += 5 * MINUTE_MS;
    await p.window();
    await p.pump();
    expect(rowsThere(p)).toBe(2);
  });

  test('schedule.every: windows that take their time, or last, load it neither later nor sooner than it says', async () => {
    const every = (text: string) => `[public.always, { table: public.daily, schedule: { every: ${text} } }]`;
    const p = await live('2026-05-01T00:00:00Z', 'break_at_end_lsn: true', {
      tables: every('2 hours'),
      schedule: 'every: 1 hour',
    });
    const loaded: number[] = [];
    for (let hour = 1; hour <= 12; hour++) {
      p.world.clock.now_ms = Date.parse('2026-05-01T00:00:00Z') + hour * 60 * MINUTE_MS;
      const before = bellsFor(p, DAILY).length;
      p.database.write(put('daily', hour), put('always', hour));
      let late_ms = hour % 2 === 0 ? 3 * MINUTE_MS : 0;
      p.database.onRead = () => {
        p.world.clock.now_ms += late_ms;
        late_ms = 0;
      };
      await p.window();
      await p.pump();
      if (bellsFor(p, DAILY).length > before) loaded.push(hour);
    }
    expect(loaded).toEqual([1, 3, 5, 7, 9, 11].map((hour) => hour + (loaded[0] ?? 0) - 1));

    const q = await live('2026-05-01T00:00:00Z', 'break_at_end_lsn: false', {
      tables: every('2 minutes'),
      schedule: 'continuous: true',
    });
    for (let id = 2; q.world.clock.now() < Date.parse('2026-05-01T01:00:00Z'); id++) {
      q.database.write(put('daily', id));
      await q.window();
      await q.pump();
      q.world.clock.now_ms += 1_000;
    }
    const bells = bellsFor(q, DAILY).length;
    expect(bells).toBeGreaterThanOrEqual(27);
    expect(bells).toBeLessThanOrEqual(30);
  });

  test('schedule.cron: a time that passes while a window reads what is from before it is not taken for served', async () => {
    const tables = '[public.always, { table: public.daily, schedule: { cron: "0/10 * * * ? *" } }]';
    const p = await live('2026-05-01T06:00:00Z', 'break_at_end_lsn: true', { tables });
    p.database.write(put('daily', 2));
    p.database.onRead = () => {
      p.world.clock.now_ms = Date.parse('2026-05-01T06:10:20Z');
    };
    await p.window();
    await p.pump();
    expect(rowsThere(p)).toBe(2);
    p.database.onRead = () => {};
    p.database.write(put('daily', 3));
    p.world.clock.now_ms = Date.parse('2026-05-01T06:15:00Z');
    await p.window();
    await p.pump();
    expect(rowsThere(p)).toBe(3);
    expect(bellsFor(p, DAILY)).toHaveLength(2);
  });

  test('that is taken out of the file gets what was staged of it before', async () => {
    const p = await live('2026-05-01T07:00:00Z');
    await p.window();
    await p.pump();
    p.database.write(put('daily', 2));
    await p.window();
    await p.pump();
    expect(rowsThere(p)).toBe(1);
    await p.window({}, new MemoryPipeline({ tables: '[public.always]' }).pipeline);
    await p.pump();
    expect(rowsThere(p)).toBe(2);
    expect(p.durable.bookmarks.get(DAILY)?.schedule).toBeNull();
  });

  test('beside one that is read by query: that has one run in each of windows back to back', async () => {
    const query = '{ table: public.always, replication_method: FULL_TABLE }';
    const tables = `[${query}, { table: public.daily, schedule: { every: 1 day } }]`;
    const p = await live('2026-05-01T00:00:00Z', 'break_at_end_lsn: false', { tables, schedule: 'continuous: true' });
    const stream = idOf('public.always');
    const epoch = () => p.durable.bookmarks.get(stream)?.epoch ?? 0;
    const before = epoch();
    // Whoever is rung for is done in no time.
    p.database.onRead = () => {
      for (const [key, known] of p.durable.epochs) {
        if (known.stream === stream) p.durable.epochs.set(key, { ...known, state: 'done' });
      }
    };
    for (let windows = 1; windows <= 3; windows++) {
      p.world.clock.now_ms += 1_000;
      await p.window();
      expect(epoch()).toBe(before + windows);
    }
  });
});
