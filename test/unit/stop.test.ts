/** When a window ends: a table of what was read and what the rules say. */
import { describe, expect, test } from 'vitest';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import { hasReached, type Progress, type StopRules, stopReason, windowMsMax } from '../../lib/window/stop.ts';

const lsn = (position: number): Lsn => lsnOf(BigInt(position));
const PAGE = 64 * 1024;

const going: Progress = {
  now_ms: 1_000,
  started_at_ms: 0,
  position: lsn(500_000),
  standstill: 0,
  inTransaction: false,
  isFirst: false,
};
const rules: StopRules = { end_lsn: null, quiet_lsn: null, max_run_ms: 10_000, deadline_ms: 20_000, asked: false };

test('windows that follow each other without a pause are short: each takes stock of the tables', () => {
  expect(windowMsMax(43_200_000, 'every')).toBe(43_200_000);
  expect(windowMsMax(43_200_000, 'continuous')).toBe(60_000);
  expect(windowMsMax(5_000, 'continuous')).toBe(5_000);
});

describe('stopReason', () => {
  test.each<[string, Partial<Progress>, Partial<StopRules>, ReturnType<typeof stopReason>]>([
    ['nothing says so', {}, {}, null],
    ['the deadline', { now_ms: 20_000 }, {}, 'deadline'],
    ['the deadline, also within a transaction', { now_ms: 20_000, inTransaction: true }, { asked: true }, 'deadline'],
    [
      'the deadline before all else',
      { now_ms: 20_000 },
      { asked: true, end_lsn: lsn(1), quiet_lsn: lsn(1) },
      'deadline',
    ],
    ['a millisecond before the deadline', { now_ms: 19_999, started_at_ms: 19_000 }, {}, null],
    ['asked', {}, { asked: true, end_lsn: lsn(1) }, 'asked'],
    ['asked within a transaction: it is read to its end', { inTransaction: true }, { asked: true }, null],
    ['as long as it may run', { now_ms: 10_000 }, {}, 'max_run'],
    ['a millisecond less', { now_ms: 9_999 }, {}, null],
    ['as long as it may run, in its first call', { now_ms: 10_000, isFirst: true }, {}, null],
    ['asked in its first call', { isFirst: true }, { asked: true }, 'asked'],
    ['the deadline in its first call', { now_ms: 20_000, isFirst: true }, {}, 'deadline'],
    ['as long as it may run, within a transaction', { now_ms: 10_000, inTransaction: true }, {}, null],
    ['at the end', {}, { end_lsn: lsn(500_000) }, 'end_lsn'],
    ['past the end', {}, { end_lsn: lsn(1) }, 'end_lsn'],
    ['a byte before the end', {}, { end_lsn: lsn(500_001) }, null],
    ['past the end within a transaction', { inTransaction: true }, { end_lsn: lsn(1) }, null],
    ['no data, and all that there was is read', {}, { quiet_lsn: lsn(500_000) }, 'no_data'],
    ['no data, and the server still has some', {}, { quiet_lsn: lsn(900_000) }, null],
    ['no data, but the end is what was waited for', {}, { quiet_lsn: lsn(1), end_lsn: lsn(1) }, 'end_lsn'],
    ['no data, and the end is far', {}, { quiet_lsn: lsn(1), end_lsn: lsn(900_000) }, 'no_data'],
  ])('%s', (_name, progress, more, expected) => {
    expect(stopReason({ ...going, ...progress }, { ...rules, ...more })).toBe(expected);
  });
});

describe('hasReached', () => {
  test.each<[string, number, number, boolean]>([
    ['at it', 0, 0, true],
    ['past it', -1, 0, true],
    ['a byte before it, moving', 1, 2, false],
    ['a byte before it, standing still', 1, 3, true],
    ['nearly a page before it, standing still', PAGE - 1, 3, true],
    ['a page before it, standing still', PAGE, 99, false],
    ['nearly a page before it, moving', PAGE - 1, 2, false],
  ])('%s', (_name, before, standstill, expected) => {
    expect(hasReached({ position: lsn(500_000), standstill }, lsn(500_000 + before))).toBe(expected);
  });
});
