/**
 * When windows run: the forms of a schedule, and EventBridge's cron expressions on this machine's calendar.
 */
import { describe, expect, test } from 'vitest';
import { cronFault, isTimezone, nextCronTime } from '../../lib/config/cron.ts';
import { checkPipeline, readPipeline } from '../../lib/config/read.ts';
import { parseEvery, scheduleOf } from '../../lib/config/schedule.ts';
import { TABLE_SCHEDULES_MAX } from '../../lib/config/schedule-rules.ts';
import { dueFrom, nextTime, tableTimes } from '../../lib/config/times.ts';

const schedule = (line: string) => readPipeline(`pipeline: p\ntables: [a.b]\nschedule: { ${line} }\n`, 'p').schedule;

test.each([
  ['every: 1 hour', { kind: 'every', every_seconds: 3600, anchor: null, timezone: 'UTC', paused: false }],
  [
    'every: 12 hours, anchor: 06:30, timezone: Asia/Kolkata',
    { kind: 'every', every_seconds: 43_200, anchor: { hour: 6, minute: 30 }, timezone: 'Asia/Kolkata', paused: false },
  ],
  ['cron: 0 6 ? * MON-FRI *', { kind: 'cron', cron: '0 6 ? * MON-FRI *', timezone: 'UTC', paused: false }],
  ['continuous: true', { kind: 'continuous', paused: false }],
  ['continuous: true, paused: true', { kind: 'continuous', paused: true }],
  ['paused: true', { kind: 'every', every_seconds: 300, anchor: null, timezone: 'UTC', paused: true }],
  [
    'every: 1 day, continuous: false',
    { kind: 'every', every_seconds: 86_400, anchor: null, timezone: 'UTC', paused: false },
  ],
])('%s', (line, expected) => {
  expect(schedule(line)).toEqual(expected);
});

test.each([
  ['1 minute', 60],
  ['90 minutes', 5400],
  ['31 days', 2_678_400],
  ['32 days', null],
  ['0 minutes', null],
  ['5  minutes', null],
  ['5 Minutes', null],
  ['-5 minutes', null],
  ['1.5 hours', null],
  ['5 seconds', null],
  ['9999999 minutes', null],
  ['', null],
])('every %j is %s seconds', (text, seconds) => {
  expect(parseEvery(text)).toBe(seconds);
});

describe('cron', () => {
  // Days of the week are 1 (Sunday) to 7, months 1 to 12: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
  test.each([
    ['0 6 * * ? *', 'UTC', '2026-01-01T06:00:00Z', '2026-01-02T06:00:00Z'],
    ['0 6 * * ? *', 'Europe/Zurich', '2026-01-01T05:00:00Z', '2026-01-02T05:00:00Z'],
    ['0 6 * * ? *', 'Europe/Zurich', '2026-07-01T00:00:00Z', '2026-07-01T04:00:00Z'],
    ['0/15 * ? * MON-FRI *', 'UTC', '2026-01-02T23:50:00Z', '2026-01-05T00:00:00Z'],
    ['0 8 ? * 1 *', 'UTC', '2026-01-01T00:00:00Z', '2026-01-04T08:00:00Z'],
    ['0 8 ? * SUN *', 'UTC', '2026-01-01T00:00:00Z', '2026-01-04T08:00:00Z'],
    ['15 10 ? * 6L 2026-2027', 'UTC', '2026-01-01T00:00:00Z', '2026-01-30T10:15:00Z'],
    ['0 8 ? * 2#1 *', 'UTC', '2026-01-06T00:00:00Z', '2026-02-02T08:00:00Z'],
    ['0 8 L * ? *', 'UTC', '2026-02-01T00:00:00Z', '2026-02-28T08:00:00Z'],
    ['0 8 15W * ? *', 'UTC', '2026-02-01T00:00:00Z', '2026-02-16T08:00:00Z'],
    ['0 0 29 FEB ? *', 'UTC', '2026-01-01T00:00:00Z', '2028-02-29T00:00:00Z'],
    ['0 0 1 1 ? 2199', 'UTC', '2026-01-01T00:00:00Z', '2199-01-01T00:00:00Z'],
  ])('%s in %s after %s', (cron, timezone, after, next) => {
    expect(cronFault(cron)).toBeNull();
    expect(nextCronTime(cron, timezone, Date.parse(after))).toBe(Date.parse(next));
  });

  test('an expression whose years are over has no next time', () => {
    expect(cronFault('0 6 * * ? 2020')).toBeNull();
    expect(nextCronTime('0 6 * * ? 2020', 'UTC', Date.parse('2026-01-01T00:00:00Z'))).toBeNull();
  });

  test.each([
    '',
    '* * * * *',
    '0 0 6 * * ? *',
    '0 6 * * * *',
    '0 6 ? * ? *',
    '0 6  * * ? *',
    '@daily',
    '0 24 * * ? *',
    '0 6 0 * ? *',
    '0 6 32 * ? *',
    '0 6 * 13 ? *',
    '0 6 ? * 8 *',
    '0 6 ? * 0 *',
    '0 6 * XYZ ? *',
    '0 6 31 2 ? *',
    '0 6 * * ? 2200',
    '0 6 * * ? 1970/500,1',
    '? 6 * * ? *',
    '0 6 +1 * ? *',
    `0 6 ${'1,'.repeat(200)}1 * ? *`,
  ])('%j is none', (cron) => {
    expect(cronFault(cron)).toEqual(expect.any(String));
  });
});

test.each([
  ['UTC', true],
  ['Europe/Zurich', true],
  ['America/Argentina/Buenos_Aires', true],
  ['+02:00', false],
  ['Mars/Base', false],
  ['', false],
])('%j is a time zone: %s', (name, is) => {
  expect(isTimezone(name)).toBe(is);
});

describe('tables[].schedule', () => {
  const file = (own: string, more = ''): string =>
    `pipeline: p\ntables:\n  - public.a\n  - { table: public.b${more}, schedule: { ${own} } }\nschedule: { every: 5 minutes }\n`;
  const problems = (text: string): string[] => checkPipeline(text).faults.map(({ problem }) => problem);

  test('is read as the pipeline’s is, and is none where it is left out', () => {
    const { tables } = readPipeline(file('cron: 0 6 * * ? *, timezone: Europe/Zurich'), 'p');
    const [first, second] = tables.map(({ schedule: own }) => own && scheduleOf(own));
    expect(first).toBeNull();
    expect(second).toEqual({ kind: 'cron', cron: '0 6 * * ? *', timezone: 'Europe/Zurich', paused: false });
  });

  test.each([
    ['timezone: UTC', 'tables[1].schedule says no time.'],
    ['every: 5 minutes, cron: 0 6 * * ? *', 'tables[1].schedule has every and cron, and can follow only one.'],
    ['cron: 0 6 * * ? *, anchor: 06:00', 'tables[1].schedule.anchor is given without tables[1].schedule.every.'],
    ['every: 1 hour, timezone: UTC', 'tables[1].schedule.timezone is given without a time of day'],
    ['continuous: true', 'tables[1].schedule.continuous is not an option.'],
    ['every: 5 seconds', 'tables[1].schedule.every must be a whole number of minutes, hours or days'],
    ['cron: 0 25 * * ? *', 'tables[1].schedule.cron is not a cron expression'],
    ['every: 14 days', 'leaves up to 14 days between two loads, and the stage keeps what waits for 14'],
    ['cron: 0 6 1 * ? *', 'leaves up to 31 days between two loads'],
  ])('{ %s } is refused', (own, problem) => {
    expect(problems(file(own)).join()).toContain(problem);
  });

  test('may be longer than the stage keeps what waits where nothing waits: read by query, or paused', () => {
    expect(problems(file('every: 20 days', ', replication_method: FULL_TABLE'))).toEqual([]);
    expect(problems(file('every: 20 days, paused: true'))).toEqual([]);
    expect(problems(file('paused: true'))).toEqual([]);
  });

  test('does not stand beside target.consistency: transaction, but for what is read by query', () => {
    const together = 'target: { consistency: transaction }\n';
    expect(problems(file('every: 1 hour') + together).join()).toContain('tables[1].schedule loads the table by itself');
    expect(problems(file('every: 1 hour', ', replication_method: FULL_TABLE') + together)).toEqual([]);
  });

  test('may be said for many tables, but not too differently', () => {
    const many = (count: number): string =>
      `pipeline: p\ntables:\n${Array.from({ length: count }, (_, i) => `  - { table: public.t${i}, schedule: { every: ${i + 6} minutes } }\n`).join('')}`;
    expect(problems(many(TABLE_SCHEDULES_MAX))).toEqual([]);
    expect(problems(many(TABLE_SCHEDULES_MAX + 2))).toEqual([
      `tables have more than ${TABLE_SCHEDULES_MAX} different schedules.`,
    ]);
  });

  test('windows run at its times once, and not where there are windows anyway', () => {
    const times = (pipeline: string, ...own: string[]): string[] => {
      const tables = own.map((one, i) => `  - { table: public.t${i}, schedule: { ${one} } }\n`).join('');
      return tableTimes(readPipeline(`pipeline: p\ntables:\n${tables}schedule: { ${pipeline} }\n`, 'p')).map((one) =>
        one.kind === 'cron' ? one.cron : one.kind === 'every' ? `${one.every_seconds / 60} minutes` : one.kind,
      );
    };
    expect(times('every: 5 minutes', 'every: 1 hour', 'every: 7 minutes', 'every: 7 minutes')).toEqual(['7 minutes']);
    expect(times('every: 5 minutes', 'cron: 0 6 * * ? *', 'every: 1 hour, anchor: 06:00')).toEqual([
      '0 6 * * ? *',
      '60 minutes',
    ]);
    expect(times('every: 1 hour', 'every: 5 minutes', 'every: 1 hour, paused: true')).toEqual(['5 minutes']);
    expect(times('cron: 0 6 * * ? *', 'cron: 0 6 * * ? *')).toEqual([]);
    expect(times('continuous: true', 'every: 5 minutes', 'cron: 0 6 * * ? *')).toEqual([]);
  });
});

describe('the times of a schedule', () => {
  const at = (iso: string): number => Date.parse(iso);
  const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString().slice(0, 16));

  test.each([
    ['cron: 0 6 * * ? *', '2026-05-01T06:00:00Z', '2026-05-02T05:59:59Z'],
    // A window that was called at six may have begun just before it: it served that time.
    ['cron: 0 6 * * ? *', '2026-05-01T05:59:59.500Z', '2026-05-02T05:59:59Z'],
    ['cron: 0 6 * * ? *', '2026-05-01T05:59:58Z', '2026-05-01T05:59:59Z'],
    ['every: 1 hour, anchor: 00:15', '2026-05-01T06:00:00Z', '2026-05-01T06:14:59Z'],
    ['every: 1 hour', '2026-05-01T06:00:00Z', '2026-05-01T07:00:00Z'],
    ['every: 1 minute', '2026-05-01T06:00:00Z', '2026-05-01T06:01:00Z'],
  ])('%s, served at %s, is due from %s', (line, served, due) => {
    expect(dueFrom(schedule(line), at(served), at(served))).toBe(at(due));
  });

  test('calls come within the minute after their time: a window that begins may be that much sooner after the last', () => {
    const served = at('2026-05-01T06:00:00Z');
    const due = (line: string, began: string) => iso(dueFrom(schedule(line), served, at(began)));
    expect(due('every: 1 hour', '2026-05-01T06:58:59Z')).toBe('2026-05-01T07:00');
    expect(due('every: 1 hour', '2026-05-01T06:59:00Z')).toBe('2026-05-01T06:59');
    expect(due('every: 1 minute', '2026-05-01T06:00:29Z')).toBe('2026-05-01T06:01');
    expect(due('every: 1 minute', '2026-05-01T06:00:30Z')).toBe('2026-05-01T06:00');
  });

  test('windows back to back serve once each', () => {
    expect(dueFrom(schedule('continuous: true'), 5_000, 5_000)).toBeNull();
    expect(dueFrom(schedule('continuous: true'), 5_000, 5_001)).toBe(5_000);
  });

  test('what is paused is never due, and what is over neither', () => {
    expect(dueFrom(schedule('every: 5 minutes, paused: true'), 0, 600_000)).toBeNull();
    expect(
      dueFrom(schedule('cron: 0 6 * * ? 2020'), at('2026-05-01T06:00:00Z'), at('2026-05-02T06:00:00Z')),
    ).toBeNull();
  });

  test('whole days with an anchor keep its time of day, whatever the clocks do', () => {
    const every = schedule('every: 3 days, anchor: 06:00, timezone: Europe/Zurich');
    const times: (string | null)[] = [];
    for (let ms: number | null = at('2026-03-20T00:00:00Z'); ms !== null && times.length < 5; ) {
      ms = nextTime(every, ms);
      times.push(iso(ms));
    }
    expect(times).toEqual([
      '2026-03-20T05:00',
      '2026-03-23T05:00',
      '2026-03-26T05:00',
      '2026-03-29T04:00',
      '2026-04-01T04:00',
    ]);
  });
});
