/** Every form of `schedule` as EventBridge's; and anchored intervals run at exactly the points that they promise. */
import { describe, expect, test } from 'vitest';
import { expressionsOf, longestGap, tableExpressionsOf } from '../../infra/aws/schedule.ts';
import { nextWindow } from '../../infra/local/scheduler.ts';
import { nextCronTime } from '../../lib/config/cron.ts';
import { readPipeline } from '../../lib/config/read.ts';
import type { ScheduleConfig } from '../../lib/config/schema.ts';
import { pipelineYaml, resourcesOf, synthesize } from './support.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

describe('expressions', () => {
  test.each([
    ['every: 5 minutes', ['rate(5 minutes)'], 'Etc/UTC'],
    ['every: 1 hour', ['rate(1 hour)'], 'Etc/UTC'],
    ['every: 2 days', ['rate(2 days)'], 'Etc/UTC'],
    ['cron: "0 6 * * ? *"', ['cron(0 6 * * ? *)'], 'UTC'],
    ['cron: "0/10 8-18 ? * MON-FRI *"\ntimezone: Europe/Zurich', ['cron(0/10 8-18 ? * MON-FRI *)'], 'Europe/Zurich'],
    ['every: 15 minutes\nanchor: "06:05"', ['cron(5,20,35,50 * * * ? *)'], 'UTC'],
    ['every: 6 hours\nanchor: "07:30"\ntimezone: America/New_York', ['cron(30 1,7,13,19 * * ? *)'], 'America/New_York'],
    ['every: 1 day\nanchor: "06:00"', ['cron(0 6 * * ? *)'], 'UTC'],
    [
      'every: 90 minutes\nanchor: "06:00"',
      ['cron(0 0,3,6,9,12,15,18,21 * * ? *)', 'cron(30 1,4,7,10,13,16,19,22 * * ? *)'],
      'UTC',
    ],
    ['continuous: true', ['rate(1 minute)'], 'Etc/UTC'],
  ])('of %j are %j in %s', (schedule, expected, timezone) => {
    const expressions = expressionsOf(readPipeline(pipelineYaml({ schedule }), 'test').schedule);
    expect(expressions.map(({ expressionString }) => expressionString)).toEqual(expected);
    // CDK writes UTC by its other name where a rate says none.
    expect(new Set(expressions.map(({ timeZone }) => timeZone?.timezoneName ?? 'UTC'))).toEqual(new Set([timezone]));
  });

  test('an anchored interval that does not divide a day is refused, with what to do', () => {
    const uneven = every({ every_seconds: 420, anchor: { hour: 6, minute: 0 } });
    expect(() => expressionsOf(uneven)).toThrow('needs an interval that divides a day');
  });
});

describe('expressions of tables with a schedule of their own', () => {
  test.each([
    ['every: 5 minutes', ['cron: "0 6 * * ? *"'], ['cron(0 6 * * ? *)']],
    ['every: 5 minutes', ['every: 1 hour'], []],
    ['every: 5 minutes', ['every: 7 minutes'], ['rate(7 minutes)']],
    ['every: 1 hour', ['every: 5 minutes', 'every: 5 minutes', 'every: 2 hours'], ['rate(5 minutes)']],
    [
      'every: 1 hour',
      ['every: 90 minutes, anchor: "06:00"'],
      ['cron(0 0,3,6,9,12,15,18,21 * * ? *)', 'cron(30 1,4,7,10,13,16,19,22 * * ? *)'],
    ],
    // Which of the days it is, the window knows.
    ['every: 1 hour', ['every: 3 days, anchor: "06:30"'], ['cron(30 6 * * ? *)']],
    ['cron: "0 7 * * ? *"', ['every: 3 days'], ['rate(3 days)']],
    ['cron: "0 6 * * ? *"', ['cron: "0 6 * * ? *"', 'every: 1 day, anchor: "06:00"'], []],
    ['cron: "0 6 * * ? *"', ['cron: "0 6 * * ? *", timezone: Asia/Tokyo'], ['cron(0 6 * * ? *)']],
    ['every: 5 minutes', ['cron: "0 6 * * ? *", paused: true', 'paused: true'], []],
    ['continuous: true', ['every: 5 minutes', 'cron: "0 6 * * ? *"'], []],
  ])('beside %s, of %j are %j', (schedule, own, expected) => {
    const expressions = tableExpressionsOf(readPipeline(withTables(schedule, own), 'test'));
    expect(expressions.map(({ expressionString }) => expressionString)).toEqual(expected);
  });

  test('an anchored interval that does not divide a day is refused, with what to do', () => {
    const uneven = readPipeline(withTables('every: 1 hour', ['every: 7 hours, anchor: "06:00"']), 'test');
    expect(() => tableExpressionsOf(uneven)).toThrow('needs an interval that divides a day');
  });

  test('stand in the template beside the pipeline’s, with the same event, and are off where the pipeline is paused', () => {
    const of = (schedule: string) => {
      const { pipeline } = synthesize({ yaml: withTables(schedule, ['cron: "0 6 * * ? *", timezone: Europe/Zurich']) });
      return Object.values(resourcesOf(pipeline, 'AWS::Scheduler::Schedule')).map(({ Properties }) => Properties);
    };
    const schedules = of('every: 5 minutes');
    expect(schedules).toMatchObject([
      { ScheduleExpression: 'rate(5 minutes)', State: 'ENABLED' },
      {
        ScheduleExpression: 'cron(0 6 * * ? *)',
        ScheduleExpressionTimezone: 'Europe/Zurich',
        State: 'ENABLED',
        Description: 'Windows of the pipeline shop, at the times of tables',
      },
    ]);
    for (const { Target } of schedules)
      expect(JSON.parse((Target as { Input: string }).Input)).toEqual({ kind: 'window', pipeline: 'shop' });
    expect(of('every: 5 minutes\npaused: true').map(({ State }) => State)).toEqual(['DISABLED', 'DISABLED']);
  });
});

/**
 * Goal: the local scheduler runs at exactly the times of the synthesized expressions, on the days that the clocks change too. Method: both are read over
 * these days; what EventBridge does with an expression then is written out below from its manual, by a clock that is not croner's.
 */
describe('both places agree', () => {
  const ZONES = [
    ['Europe/Zurich', '2026-03-29', '2026-10-25'],
    ['America/New_York', '2026-03-08', '2026-11-01'],
    ['Australia/Lord_Howe', '2026-10-04', '2026-04-05'],
    ['Africa/Cairo', '2026-04-24', '2026-10-30'],
    ['Asia/Kolkata', '2026-03-29', '2026-10-25'],
  ] as const;
  const LINES = [
    'cron: "30 2 * * ? *"',
    'cron: "15,45 0-3 * * ? *"',
    'cron: "0/20 * * * ? *"',
    'every: 1 hour\nanchor: "06:30"',
    'every: 20 minutes\nanchor: "06:05"',
    'every: 6 hours\nanchor: "02:30"',
    'every: 1 day\nanchor: "01:45"',
  ];
  const cases = ZONES.flatMap(([zone, ...days]) =>
    LINES.flatMap((line) => days.map((day) => [line, zone, day] as const)),
  );

  test.each(cases)('%j in %s around %s', (line, zone, day) => {
    const { schedule } = readPipeline(pipelineYaml({ schedule: `${line}\ntimezone: ${zone}` }), 'test');
    const from_ms = Date.parse(`${day}T00:00:00Z`) - DAY_MS;
    const to_ms = from_ms + 3 * DAY_MS;
    const local: number[] = [];
    let state = { first_ms: from_ms, began_ms: from_ms, ended_ms: from_ms, failures: 0 };
    for (let now_ms = from_ms - 1; ; ) {
      const next_ms = nextWindow(schedule, state, now_ms);
      if (next_ms === null || next_ms >= to_ms) break;
      local.push(next_ms);
      state = { first_ms: from_ms, began_ms: next_ms, ended_ms: next_ms, failures: 0 };
      now_ms = next_ms;
    }
    expect(local).toEqual(eventBridgeTimes(schedule, from_ms, to_ms));
  });
});

/** Each local time of the expressions once, the first where it comes twice, none where it does not exist; minute by minute. */
function eventBridgeTimes(schedule: ScheduleConfig, from_ms: number, to_ms: number): number[] {
  const fields = expressionsOf(schedule).map(({ expressionString, timeZone }) => ({
    minutesHours: (/^cron\((\S+) (\S+) \* \* \? \*\)$/.exec(expressionString) ?? []).slice(1),
    timeZone: timeZone?.timezoneName ?? '',
  }));
  const clock = new Intl.DateTimeFormat('en-GB', {
    timeZone: fields[0]?.timeZone ?? '',
    dateStyle: 'short',
    timeStyle: 'short',
  });
  const times: number[] = [];
  const shown = new Set<string>();
  // From a day before, so that what comes twice is known.
  for (let at_ms = from_ms - DAY_MS; at_ms < to_ms; at_ms += MINUTE_MS) {
    const text = clock.format(at_ms);
    const isFirst = !shown.has(text);
    shown.add(text);
    const [hour = 0, minute = 0] = text.slice(-5).split(':').map(Number);
    const isMeant = fields.some(
      ({ minutesHours: [minutes = '', hours = ''] }) => meansTime(minutes, minute) && meansTime(hours, hour),
    );
    if (isFirst && isMeant && at_ms >= from_ms) times.push(at_ms);
  }
  return times;
}

/** `*`, `0/20`, `0-3`, and lists of such and of numbers. */
function meansTime(field: string, value: number): boolean {
  return field.split(',').some((element) => {
    const [, from = '', to, step] = /^(\*|\d+)(?:-(\d+))?(?:\/(\d+))?$/.exec(element) ?? [];
    if (from === '*') return true;
    if (step !== undefined) return value >= Number(from) && (value - Number(from)) % Number(step) === 0;
    return value >= Number(from) && value <= Number(to ?? from);
  });
}

describe('in the template', () => {
  test('there is a schedule for each expression, and its event names the pipeline', () => {
    const schedules = schedulesOf('every: 90 minutes\nanchor: "06:00"\ntimezone: Europe/Zurich');
    expect(schedules).toMatchObject([
      { ScheduleExpression: 'cron(0 0,3,6,9,12,15,18,21 * * ? *)', State: 'ENABLED' },
      { ScheduleExpression: 'cron(30 1,4,7,10,13,16,19,22 * * ? *)', State: 'ENABLED' },
    ]);
    for (const { ScheduleExpressionTimezone, FlexibleTimeWindow, Target } of schedules) {
      expect([ScheduleExpressionTimezone, FlexibleTimeWindow]).toEqual(['Europe/Zurich', { Mode: 'OFF' }]);
      expect(JSON.parse((Target as { Input: string }).Input)).toEqual({ kind: 'window', pipeline: 'shop' });
    }
  });

  test('a paused pipeline has its schedule, turned off', () => {
    expect(schedulesOf('every: 5 minutes\npaused: true')).toMatchObject([
      { ScheduleExpression: 'rate(5 minutes)', State: 'DISABLED' },
    ]);
  });
});

/** Goal: the crons of an anchored interval run at anchor + n × interval, and never else. Method: croner reads them back over three days. */
describe('anchored intervals', () => {
  const from_ms = Date.UTC(2026, 4, 1);
  const divisors = Array.from({ length: 1440 }, (_, i) => i + 1).filter((minutes) => 1440 % minutes === 0);

  test.each(divisors)('every %i minutes', (minutes) => {
    const anchor = { hour: 6, minute: 7 };
    const runs = runsOf(every({ every_seconds: minutes * 60, anchor }), from_ms, from_ms + 3 * DAY_MS);
    const anchor_ms = from_ms + 6 * HOUR_MS + 7 * MINUTE_MS;
    const expected: number[] = [];
    for (let at_ms = anchor_ms - DAY_MS; at_ms < from_ms + 3 * DAY_MS; at_ms += minutes * MINUTE_MS) {
      if (at_ms >= from_ms) expected.push(at_ms);
    }
    expect(runs).toEqual(expected);
  });

  test('schedule.anchor, schedule.timezone: keep their time of day when the clocks change', () => {
    // In Zurich the clocks go forward on 29 March 2026.
    const daily = every({ every_seconds: 86_400, anchor: { hour: 6, minute: 0 }, timezone: 'Europe/Zurich' });
    const runs = runsOf(daily, Date.UTC(2026, 2, 28), Date.UTC(2026, 2, 30));
    expect(runs.map((at_ms) => new Date(at_ms).toISOString())).toEqual([
      '2026-03-28T05:00:00.000Z',
      '2026-03-29T04:00:00.000Z',
    ]);
  });
});

describe('the longest gap', () => {
  const cron = (text: string, timezone = 'UTC'): ScheduleConfig => ({
    kind: 'cron',
    cron: text,
    timezone,
    paused: false,
  });

  test.each<[string, ScheduleConfig, number | null]>([
    ['an interval', every({ every_seconds: 300 }), 5 * MINUTE_MS],
    ['back to back: a window and the next tick', { kind: 'continuous', paused: false }, 16 * MINUTE_MS],
    ['paused', { kind: 'continuous', paused: true }, null],
    ['working hours, over the weekend', cron('0/5 8-17 ? * MON-FRI *'), 62 * HOUR_MS + 5 * MINUTE_MS],
    ['daily, in a zone whose clocks change', cron('0 6 * * ? *', 'Europe/Zurich'), 25 * HOUR_MS],
    ['monthly', cron('0 6 1 * ? *'), 31 * DAY_MS],
    ['in the past', cron('0 6 1 1 ? 2020'), null],
    ['often, but in one month', cron('* * * 1 ? *'), null],
  ])('%s', (name, schedule, expected) => {
    const gap_ms = longestGap(schedule);
    // Found day by day: to within a day.
    if (name === 'often, but in one month') expect(gap_ms).toBeGreaterThan(300 * DAY_MS);
    else expect(gap_ms).toBe(expected);
  });
});

/** The example, with a table for each schedule besides. */
function withTables(schedule: string, own: readonly string[]): string {
  const tables = own.map((line, i) => `  - { table: public.own_${i}, schedule: { ${line} } }\n`).join('');
  return pipelineYaml({ schedule }).replace(/^tables:\n/m, `tables:\n${tables}`);
}

function every(given: Partial<Extract<ScheduleConfig, { kind: 'every' }>>): ScheduleConfig {
  return { kind: 'every', every_seconds: 300, anchor: null, timezone: 'UTC', paused: false, ...given };
}

function schedulesOf(schedule: string): Readonly<Record<string, unknown>>[] {
  const { pipeline } = synthesize({ yaml: pipelineYaml({ schedule }) });
  return Object.values(resourcesOf(pipeline, 'AWS::Scheduler::Schedule')).map(({ Properties }) => Properties);
}

/** Times in [from, to) at which the crons of a schedule run, in order. */
function runsOf(schedule: ScheduleConfig, from_ms: number, to_ms: number): number[] {
  const runs: number[] = [];
  for (const { expressionString, timeZone } of expressionsOf(schedule)) {
    const cron = /^cron\((.*)\)$/.exec(expressionString)?.[1] ?? '';
    let at_ms = nextCronTime(cron, timeZone?.timezoneName ?? '', from_ms - 1);
    while (at_ms !== null && at_ms < to_ms) {
      runs.push(at_ms);
      at_ms = nextCronTime(cron, timeZone?.timezoneName ?? '', at_ms);
    }
  }
  return runs.sort((a, b) => a - b);
}
