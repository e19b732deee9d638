import { describe, expect, test } from 'vitest';
import {
  CONTINUOUS_GAP_MS,
  CONTINUOUS_GAP_MS_MAX,
  nextWindow,
  nextWindowOf,
  runSchedule,
  type SchedulerClock,
  type ScheduleState,
  windowSucceeded,
} from '../../infra/local/scheduler.ts';
import type { ScheduleConfig } from '../../lib/config/schema.ts';

const FRESH: ScheduleState = { first_ms: null, began_ms: null, ended_ms: null, failures: 0 };
const MINUTE_MS = 60_000;

function every(minutes: number, anchor: string | null = null, timezone = 'UTC'): ScheduleConfig {
  const [hour, minute] = (anchor ?? '').split(':').map(Number);
  return {
    kind: 'every',
    every_seconds: minutes * 60,
    anchor: hour === undefined || minute === undefined ? null : { hour, minute },
    timezone,
    paused: false,
  };
}

function cron(text: string, timezone = 'UTC'): ScheduleConfig {
  return { kind: 'cron', cron: text, timezone, paused: false };
}

/** The next `count` times after `from`, as ISO text. */
function times(schedule: ScheduleConfig, from: string, count: number): string[] {
  const found: string[] = [];
  let now_ms = Date.parse(from);
  let state = FRESH;
  for (let i = 0; i < count; i++) {
    const next_ms = nextWindow(schedule, state, now_ms);
    if (next_ms === null) break;
    found.push(new Date(next_ms).toISOString().replace(':00.000Z', 'Z'));
    state = { first_ms: state.first_ms ?? next_ms, began_ms: next_ms, ended_ms: next_ms + 1, failures: 0 };
    now_ms = next_ms + 1;
  }
  return found;
}

describe('every', () => {
  test('begins at once, then counts from its first window', () => {
    expect(times(every(5), '2026-03-01T10:02:00Z', 3)).toEqual([
      '2026-03-01T10:02Z',
      '2026-03-01T10:07Z',
      '2026-03-01T10:12Z',
    ]);
  });

  test('lets the times go that pass during a window', () => {
    const first_ms = Date.parse('2026-03-01T10:00:00Z');
    const state = { first_ms, began_ms: first_ms, ended_ms: first_ms + 12 * MINUTE_MS, failures: 0 };
    expect(nextWindow(every(5), state, state.ended_ms)).toBe(first_ms + 15 * MINUTE_MS);
  });

  test('with an anchor runs at points of the clock, across midnight too', () => {
    expect(times(every(360, '21:30'), '2026-03-01T20:00:00Z', 4)).toEqual([
      '2026-03-01T21:30Z',
      '2026-03-02T03:30Z',
      '2026-03-02T09:30Z',
      '2026-03-02T15:30Z',
    ]);
  });

  test('with an anchor and an interval shorter than an hour has several points in each', () => {
    expect(times(every(20, '06:05'), '2026-03-01T10:06:00Z', 3)).toEqual([
      '2026-03-01T10:25Z',
      '2026-03-01T10:45Z',
      '2026-03-01T11:05Z',
    ]);
  });

  test('with an anchor keeps to the clock of its zone when that changes', () => {
    // Zurich goes from UTC+1 to UTC+2 on 29 March 2026 at 02:00.
    expect(times(every(720, '06:00', 'Europe/Zurich'), '2026-03-28T12:00:00Z', 3)).toEqual([
      '2026-03-28T17:00Z',
      '2026-03-29T04:00Z',
      '2026-03-29T16:00Z',
    ]);
  });

  test('with an anchor and an interval that does not divide the day counts on over days', () => {
    const found = times(every(7 * 60, '06:00'), '2026-03-01T00:00:00Z', 30).map((time) => Date.parse(time));
    expect(found).toHaveLength(30);
    for (const [i, time] of found.slice(1).entries()) expect(time - (found[i] ?? 0)).toBe(7 * 60 * MINUTE_MS);
    expect(((found[0] ?? 0) - 6 * 60 * MINUTE_MS) % (7 * 60 * MINUTE_MS)).toBe(0);
  });
});

describe('cron', () => {
  test('has six fields, the days of the week from Sunday = 1', () => {
    expect(times(cron('0 6 ? * 2 *'), '2026-11-20T00:00:00Z', 2)).toEqual(['2026-11-23T06:00Z', '2026-11-30T06:00Z']);
  });

  // As EventBridge has it: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html, "Daylight savings time".
  test('leaves out a time that the clock jumps over', () => {
    expect(times(cron('30 2 * * ? *', 'Europe/Zurich'), '2026-03-27T12:00:00Z', 3)).toEqual([
      '2026-03-28T01:30Z',
      '2026-03-30T00:30Z',
      '2026-03-31T00:30Z',
    ]);
  });

  test.each([
    ['30 2 * * ? *', '2026-10-24T12:00:00Z', ['2026-10-25T00:30Z', '2026-10-26T01:30Z']],
    ['30 1,2,3 * * ? *', '2026-10-24T22:00:00Z', ['2026-10-24T23:30Z', '2026-10-25T00:30Z', '2026-10-25T02:30Z']],
    ['0/30 * * * ? *', '2026-10-25T00:00:00Z', ['2026-10-25T00:30Z', '2026-10-25T02:00Z', '2026-10-25T02:30Z']],
  ])('%s runs once at a time that comes twice', (text, from, expected) => {
    expect(times(cron(text, 'Europe/Zurich'), from, expected.length)).toEqual(expected);
  });

  test('runs once at a time that comes twice where the clock is set back by half an hour', () => {
    // Lord Howe Island goes from UTC+11 to UTC+10:30 on 5 April 2026 at 02:00.
    expect(times(cron('45 1 * * ? *', 'Australia/Lord_Howe'), '2026-04-04T00:00:00Z', 2)).toEqual([
      '2026-04-04T14:45Z',
      '2026-04-05T15:15Z',
    ]);
  });

  test('ends with its last year', () => {
    expect(times(cron('0 0 1 1 ? 2027'), '2026-11-20T00:00:00Z', 5)).toEqual(['2027-01-01T00:00Z']);
  });
});

describe('continuous', () => {
  const continuous: ScheduleConfig = { kind: 'continuous', paused: false };

  test('begins at once, and again a breath after each end', () => {
    expect(nextWindow(continuous, FRESH, 5_000)).toBe(5_000);
    expect(nextWindow(continuous, { first_ms: 0, began_ms: 0, ended_ms: 5_000, failures: 0 }, 5_000)).toBe(
      5_000 + CONTINUOUS_GAP_MS,
    );
    expect(nextWindow(continuous, { first_ms: 0, began_ms: 0, ended_ms: 5_000, failures: 0 }, 9_000)).toBe(9_000);
  });

  test('counts a window as failed that got nowhere, not one that was cut off after it had recorded something', () => {
    expect(windowSucceeded({ stopped_by: 'failed', cuts: 0 })).toBe(false);
    expect(windowSucceeded({ stopped_by: 'failed', cuts: 3 })).toBe(true);
    expect(windowSucceeded({ stopped_by: 'end_lsn', cuts: 0 })).toBe(true);
  });

  test('waits longer the more windows have failed, up to a limit', () => {
    const gaps = [1, 2, 3, 50].map((failures) =>
      nextWindow(continuous, { first_ms: 0, began_ms: 0, ended_ms: 0, failures }, 0),
    );
    expect(gaps).toEqual([2 * CONTINUOUS_GAP_MS, 4 * CONTINUOUS_GAP_MS, 8 * CONTINUOUS_GAP_MS, CONTINUOUS_GAP_MS_MAX]);
  });
});

test('what is paused never runs', () => {
  for (const schedule of [
    every(5),
    every(5, '06:00'),
    cron('* * * * ? *'),
    { kind: 'continuous', paused: false } as const,
  ]) {
    expect(nextWindow({ ...schedule, paused: true }, FRESH, 0)).toBeNull();
  }
});

describe('windows at the times of tables (tables[].schedule)', () => {
  const at = (iso: string): number => Date.parse(iso);
  const after = (iso: string): ScheduleState => ({
    first_ms: at(iso),
    began_ms: at(iso),
    ended_ms: at(iso) + 1_000,
    failures: 0,
  });

  test('come beside those of the pipeline: whichever is first', () => {
    const state = after('2026-03-01T05:58:00Z');
    const next = (tables: readonly ScheduleConfig[]) =>
      nextWindowOf(every(5), tables, state, at('2026-03-01T05:59:00Z'));
    expect(next([])).toBe(at('2026-03-01T06:03:00Z'));
    expect(next([cron('0 6 * * ? *')])).toBe(at('2026-03-01T06:00:00Z'));
    expect(next([cron('0 9 * * ? *'), every(60, '00:01')])).toBe(at('2026-03-01T06:01:00Z'));
    expect(next([every(2)])).toBe(at('2026-03-01T06:00:00Z'));
    expect(nextWindowOf({ ...every(5), paused: true }, [every(2)], state, state.ended_ms ?? 0)).toBeNull();
  });

  test('are not let go when they pass during a window: one follows at once, and only one', () => {
    const tables = [cron('0 6 * * ? *')];
    const during = { ...after('2026-03-01T05:59:00Z'), ended_ms: at('2026-03-01T06:02:00Z') };
    expect(nextWindowOf(every(720, '00:00'), tables, during, at('2026-03-01T06:02:00Z'))).toBe(
      at('2026-03-01T06:02:00Z'),
    );
    const later = after('2026-03-01T06:02:00Z');
    expect(nextWindowOf(every(720, '00:00'), tables, later, at('2026-03-01T06:02:01Z'))).toBe(
      at('2026-03-01T12:00:00Z'),
    );
  });

  test('end with their last year, and the pipeline’s go on', () => {
    const state = after('2026-03-01T00:00:00Z');
    const over = [cron('0 6 * * ? 2020')];
    expect(nextWindowOf(every(5), over, state, at('2026-03-01T00:01:00Z'))).toBe(at('2026-03-01T00:05:00Z'));
    expect(nextWindowOf(cron('0 6 * * ? 2020'), over, state, at('2026-03-01T00:01:00Z'))).toBeNull();
  });

  test('are run', async () => {
    const clock = new HandClock('2026-03-01T05:50:00Z');
    const stop = new AbortController();
    const begun: string[] = [];
    await runSchedule({
      schedule: every(60, '00:30'),
      tables: [cron('0/20 * * * ? *')],
      clock,
      signal: stop.signal,
      window: async () => {
        begun.push(new Date(clock.now()).toISOString().slice(11, 16));
        await clock.sleep(1_000);
        if (begun.length === 4) stop.abort();
        return true;
      },
    });
    expect(begun).toEqual(['06:00', '06:20', '06:30', '06:40']);
  });
});

/** A clock that only moves when somebody sleeps on it. */
class HandClock implements SchedulerClock {
  time_ms: number;
  readonly slept: number[] = [];

  constructor(iso: string) {
    this.time_ms = Date.parse(iso);
  }

  now(): number {
    return this.time_ms;
  }

  async sleep(ms: number): Promise<void> {
    this.slept.push(ms);
    this.time_ms += ms;
  }
}

describe('the run of a schedule', () => {
  test('calls windows one after the other at their times until it is stopped', async () => {
    const clock = new HandClock('2026-03-01T10:00:30Z');
    const stop = new AbortController();
    const begun: string[] = [];
    let isRunning = false;
    await runSchedule({
      schedule: every(5, '00:00'),
      clock,
      signal: stop.signal,
      window: async () => {
        expect(isRunning).toBe(false);
        isRunning = true;
        begun.push(new Date(clock.now()).toISOString());
        await clock.sleep(begun.length === 2 ? 7 * MINUTE_MS : MINUTE_MS);
        isRunning = false;
        if (begun.length === 3) stop.abort();
        return true;
      },
    });
    expect(begun).toEqual(['2026-03-01T10:05:00.000Z', '2026-03-01T10:10:00.000Z', '2026-03-01T10:20:00.000Z']);
  });

  test('sleeps in short stretches, so that a clock that is set is noticed', async () => {
    const clock = new HandClock('2026-03-01T00:00:00Z');
    const stop = new AbortController();
    await runSchedule({
      schedule: cron('0 6 * * ? *'),
      clock,
      signal: stop.signal,
      window: async () => {
        stop.abort();
        return true;
      },
    });
    expect(clock.time_ms).toBe(Date.parse('2026-03-01T06:00:00Z'));
    expect(Math.max(...clock.slept)).toBeLessThanOrEqual(MINUTE_MS);
  });

  test('backs off while windows fail, and no longer when one succeeds', async () => {
    const clock = new HandClock('2026-03-01T00:00:00Z');
    const stop = new AbortController();
    const results = [false, false, true, true];
    const begun: number[] = [];
    await runSchedule({
      schedule: { kind: 'continuous', paused: false },
      clock,
      signal: stop.signal,
      window: async () => {
        begun.push(clock.now());
        const result = results.shift() ?? true;
        if (results.length === 0) stop.abort();
        return result;
      },
    });
    expect(begun.slice(1).map((time, i) => time - (begun[i] ?? 0))).toEqual([2_000, 4_000, 1_000]);
  });

  test('ends when there is no other time, and when it is stopped while it waits', async () => {
    const clock = new HandClock('2026-03-01T00:00:00Z');
    const never = async (): Promise<boolean> => {
      throw new Error('no window was due');
    };
    const stop = new AbortController();
    await runSchedule({ schedule: cron('0 0 1 1 ? 2020'), clock, signal: stop.signal, window: never });
    const stopping: SchedulerClock = { now: () => 0, sleep: async () => stop.abort() };
    await runSchedule({ schedule: every(5, '06:00'), clock: stopping, signal: stop.signal, window: never });
    expect(stop.signal.aborted).toBe(true);
  });
});
