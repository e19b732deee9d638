/** When a cut ends and when doorbells are rung: every limit by itself, at it and a step before. */
import { describe, expect, test } from 'vitest';
import {
  type BatchOptions,
  batchesDue,
  CUT_AGE_CONTINUOUS_MS_MAX,
  CUT_AGE_MS_MAX,
  CUT_CHANGES_MAX,
  CUT_QUIET_AGE_MS_MIN,
  CUT_TEXT_BYTES_MAX,
  cutIsDue,
  type PendingBatch,
} from '../../lib/cut/due.ts';

describe('cutIsDue', () => {
  const small = { text_bytes: 1, changes: 1, age_ms: 0 };
  test.each<[string, Partial<typeof small>, boolean, number, boolean]>([
    ['a small one', {}, false, CUT_AGE_MS_MAX, false],
    ['bytes', { text_bytes: CUT_TEXT_BYTES_MAX }, false, CUT_AGE_MS_MAX, true],
    ['a byte less', { text_bytes: CUT_TEXT_BYTES_MAX - 1 }, false, CUT_AGE_MS_MAX, false],
    ['changes', { changes: CUT_CHANGES_MAX }, false, CUT_AGE_MS_MAX, true],
    ['a change less', { changes: CUT_CHANGES_MAX - 1 }, false, CUT_AGE_MS_MAX, false],
    ['age', { age_ms: CUT_AGE_MS_MAX }, false, CUT_AGE_MS_MAX, true],
    ['a millisecond less', { age_ms: CUT_AGE_MS_MAX - 1 }, false, CUT_AGE_MS_MAX, false],
    [
      'age where windows run back to back',
      { age_ms: CUT_AGE_CONTINUOUS_MS_MAX },
      false,
      CUT_AGE_CONTINUOUS_MS_MAX,
      true,
    ],
    ['quiet, and old enough', { age_ms: CUT_QUIET_AGE_MS_MIN }, true, CUT_AGE_MS_MAX, true],
    ['quiet, and not old enough', { age_ms: CUT_QUIET_AGE_MS_MIN - 1 }, true, CUT_AGE_MS_MAX, false],
    ['not quiet, and old enough for that', { age_ms: CUT_QUIET_AGE_MS_MIN }, false, CUT_AGE_MS_MAX, false],
    [
      'nothing in it, whatever else',
      { changes: 0, text_bytes: CUT_TEXT_BYTES_MAX, age_ms: 1e9 },
      true,
      CUT_AGE_MS_MAX,
      false,
    ],
  ])('%s', (_name, size, quiet, age_ms_max, expected) => {
    expect(cutIsDue({ ...small, ...size }, quiet, age_ms_max)).toBe(expected);
  });
});

describe('batchesDue', () => {
  const options: BatchOptions = {
    batch_size_rows: 100,
    batch_flush_interval_ms: 60_000,
    batch_flush_min_time_gap_ms: 30_000,
    flush_all_streams: false,
  };
  const now_ms = 1_000_000;
  const batch = (rows: number, age_ms: number): PendingBatch => ({ rows, cut: 7, since_ms: now_ms - age_ms });
  const due = (
    pending: Readonly<Record<string, PendingBatch>>,
    rung_ago_ms: Readonly<Record<string, number>> = {},
    more: Partial<BatchOptions> = {},
  ): string[] =>
    batchesDue(
      new Map(Object.entries(pending)),
      new Map(Object.entries(rung_ago_ms).map(([stream, ago_ms]) => [stream, now_ms - ago_ms])),
      now_ms,
      { ...options, ...more },
    );

  test.each<[string, PendingBatch, number | null, boolean]>([
    ['full', batch(100, 0), null, true],
    ['a row less than full', batch(99, 0), null, false],
    ['old', batch(1, 60_000), null, true],
    ['a millisecond less than old', batch(1, 59_999), null, false],
    ['old, and rung as long ago as the gap', batch(1, 60_000), 30_000, true],
    ['old, and rung a millisecond later', batch(1, 60_000), 29_999, false],
    ["full, and rung just now: the gap is the clock's", batch(100, 60_000), 0, true],
  ])('%s', (_name, pending, rung_ago_ms, expected) => {
    expect(due({ s: pending }, rung_ago_ms === null ? {} : { s: rung_ago_ms })).toEqual(expected ? ['s'] : []);
  });

  test('each stream by itself, and each once', () => {
    const pending = { full: batch(500, 0), old: batch(1, 90_000), both: batch(500, 90_000), neither: batch(1, 1) };
    expect(due(pending).sort()).toEqual(['both', 'full', 'old']);
    expect(due(pending, { old: 10, both: 10 }).sort()).toEqual(['both', 'full']);
  });

  test('with flush_all_streams one that is full is enough for all, and one that is old is not', () => {
    const flush_all_streams = true;
    expect(
      due({ full: batch(100, 0), a: batch(1, 0), b: batch(1, 0) }, { a: 1 }, { flush_all_streams }).sort(),
    ).toEqual(['a', 'b', 'full']);
    expect(due({ old: batch(1, 60_000), a: batch(1, 0) }, {}, { flush_all_streams })).toEqual(['old']);
  });

  test('loaded together (consistency: transaction), one that is due is enough for all, by rows or by time', () => {
    const together = true;
    expect(due({ full: batch(100, 0), a: batch(1, 0) }, { a: 1 }, { together }).sort()).toEqual(['a', 'full']);
    expect(due({ old: batch(1, 60_000), a: batch(1, 0) }, { a: 1 }, { together }).sort()).toEqual(['a', 'old']);
    expect(due({ a: batch(1, 0), b: batch(99, 59_999) }, {}, { together })).toEqual([]);
  });

  test('nothing pending, nothing due', () => {
    expect(due({})).toEqual([]);
    expect(due({}, { a: 100_000 }, { flush_all_streams: true })).toEqual([]);
  });

  test('an interval of nothing rings at once, held back by the gap alone', () => {
    const more = { batch_flush_interval_ms: 0, batch_flush_min_time_gap_ms: 10 };
    expect(due({ a: batch(1, 0) }, {}, more)).toEqual(['a']);
    expect(due({ a: batch(1, 0) }, { a: 9 }, more)).toEqual([]);
  });
});
