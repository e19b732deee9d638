/**
 * Tables with a schedule of their own (tables[].schedule).
 * Theorem 1: wherever a window or a loader dies, what a table was due for is loaded in the end, nothing is lost, and nobody waits for a person.
 * Theorem 2: called at the times of a schedule, each call up to a minute late, and at any times in between, windows serve each time once and none before it.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ScheduleConfig } from '../../lib/config/schedule.ts';
import { dueFrom, nextTime } from '../../lib/config/times.ts';
import { MemoryPipeline } from '../support/memory-pipeline.ts';
import { property } from '../support/property.ts';

const MINUTE_MS = 60_000;
const row = (table: string, id: number) => ({ table: `public.${table}`, put: { id: String(id), v: `v${id}` } });

function tables(): MemoryPipeline {
  const pipeline = new MemoryPipeline({
    tables: '[public.a, { table: public.b, schedule: { every: 5 minutes, anchor: "00:00" } }]',
  });
  pipeline.database.makeTable('public.a').makeTable('public.b');
  for (let id = 0; id < 3; id++) pipeline.database.write(row('a', id), row('b', id));
  return pipeline;
}

const STEPS: readonly ((pipeline: MemoryPipeline) => unknown)[] = [
  (p) => p.window(),
  (p) => p.pump(),
  ({ database }) => database.write(row('a', 10), row('b', 10)),
  (p) => p.window(),
  (p) => p.pump(),
  ({ database }) => database.write(row('a', 11), row('b', 11)),
  // Not due.
  (p) => p.window(),
  (p) => p.pump(),
  ({ world }) => {
    world.clock.now_ms += 5 * MINUTE_MS;
  },
  ({ database }) => database.write(row('b', 12)),
  (p) => p.window(),
  (p) => p.pump(),
  (p) => p.window(),
];

async function run(pipeline: MemoryPipeline): Promise<void> {
  await pipeline.live(STEPS);
  for (const table of ['public.a', 'public.b']) {
    const { target, source } = pipeline.both(table);
    expect(target).toEqual(source);
  }
  expect(pipeline.world.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
}

test('a process that dies at any call leaves nothing of a table with a schedule behind', {
  timeout: 90_000,
}, async () => {
  const whole = tables();
  await run(whole);
  expect(whole.world.log.lines.some(({ event }) => event === 'table_due')).toBe(true);
  const failures: string[] = [];
  for (let at = 1; at <= whole.world.changes; at++) {
    for (const when of ['before', 'after'] as const) {
      const pipeline = tables();
      pipeline.world.crashAt = at;
      pipeline.world.crashWhen = when;
      await run(pipeline).catch((error: unknown) => {
        failures.push(`${when} call ${at} (${whole.world.events[at - 1]?.call}): ${String(error).slice(0, 300)}`);
      });
    }
  }
  expect(failures).toEqual([]);
});

const timezone = fc.constantFrom('UTC', 'Europe/Zurich', 'America/New_York', 'Australia/Lord_Howe');
const points: fc.Arbitrary<ScheduleConfig> = fc.oneof(
  fc.record({
    kind: fc.constant('cron' as const),
    cron: fc.constantFrom(
      '0 6 * * ? *',
      '30 1,2,3 * * ? *',
      '0/10 * * * ? *',
      '15 8-18 ? * MON-FRI *',
      '59 23 L * ? *',
    ),
    timezone,
    paused: fc.constant(false),
  }),
  fc.record({
    kind: fc.constant('every' as const),
    every_seconds: fc.constantFrom(120, 900, 3600, 5400, 7 * 3600, 86_400, 3 * 86_400),
    anchor: fc.record({ hour: fc.nat({ max: 23 }), minute: fc.nat({ max: 59 }) }),
    timezone,
    paused: fc.constant(false),
  }),
);
const from_ms = fc.integer({ min: Date.UTC(2026, 0, 1), max: Date.UTC(2027, 0, 1) });
/** How late each call is, and how much of its distance from the next the windows in between come at. */
const calls = fc.array(
  fc.record({
    late_ms: fc.nat({ max: MINUTE_MS - 1 }),
    between: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 }),
  }),
  { minLength: 1, maxLength: 12 },
);

property(
  'each point of cron and anchor is served once, by the first window after it',
  fc.record({ schedule: points, from: from_ms, calls }),
  ({ schedule, from, calls: made }) => {
    let served_ms = from;
    let point_ms = nextTime(schedule, from + 1_000);
    for (const { late_ms, between } of made) {
      const next_ms = point_ms === null ? null : nextTime(schedule, point_ms);
      if (point_ms === null || next_ms === null) return;
      const begin_ms = point_ms;
      const windows = between.map((part) => begin_ms + Math.floor(part * (next_ms - 2_000 - begin_ms)));
      const times = [point_ms + late_ms, ...windows].toSorted((a, b) => a - b);
      const early = [point_ms - 1_500];
      let serves = 0;
      for (const at_ms of [...early, ...times]) {
        const due_ms = dueFrom(schedule, served_ms, at_ms);
        if (due_ms === null || due_ms > at_ms) continue;
        expect(at_ms).toBe(times[0]);
        served_ms = at_ms;
        serves++;
      }
      expect(serves).toBe(1);
      point_ms = next_ms;
    }
  },
);

property(
  'an interval is served by each of its calls, and by no window much sooner',
  fc.record({
    every_seconds: fc.integer({ min: 2, max: 44_640 }).map((minutes) => minutes * 60),
    from: from_ms,
    calls,
  }),
  ({ every_seconds, from, calls: made }) => {
    const schedule: ScheduleConfig = { kind: 'every', every_seconds, anchor: null, timezone: 'UTC', paused: false };
    const every_ms = every_seconds * 1000;
    let served_ms = from;
    for (const [i, { late_ms }] of made.entries()) {
      const at_ms = from + (i + 1) * every_ms + late_ms;
      const due_ms = dueFrom(schedule, served_ms, at_ms) ?? Number.POSITIVE_INFINITY;
      expect(due_ms).toBeLessThanOrEqual(at_ms);
      expect(due_ms - served_ms).toBeGreaterThanOrEqual(every_ms - Math.min(MINUTE_MS, every_ms / 2));
      served_ms = at_ms;
    }
  },
);
