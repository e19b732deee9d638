/**
 * When windows run: the forms of a schedule, and EventBridge's cron expressions on this machine's calendar.
 */
import { describe, expect, test } from 'vitest';
import { cronFault, isTimezone, nextCronTime } from '../../lib/config/cron.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { parseEvery } from '../../lib/config/schedule.ts';

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
