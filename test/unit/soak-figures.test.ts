import { describe, expect, test } from 'vitest';
import { quarters, slopePerMinute, tally } from '../soak/figures.ts';

describe('series of a soak', () => {
  test('are told by quarters of the time, however many samples each has', () => {
    const samples = [
      { at_ms: 0, value: 5 },
      { at_ms: 10, value: 1 },
      { at_ms: 20, value: 3 },
      { at_ms: 99, value: 9 },
      { at_ms: 130, value: 7 },
    ];
    expect(quarters(samples, 100)).toEqual([{ min: 1, median: 3, max: 5 }, null, null, { min: 7, median: 9, max: 9 }]);
  });

  test('grow by their slope, in a minute', () => {
    const rising = [0, 1, 2, 3].map((minute) => ({ at_ms: minute * 60_000, value: 10 + 4 * minute }));
    expect(slopePerMinute(rising)).toBeCloseTo(4);
    expect(slopePerMinute(rising.toReversed())).toBeCloseTo(4);
    expect(slopePerMinute(rising.slice(0, 1))).toBeNull();
    expect(slopePerMinute([])).toBeNull();
  });

  test('counts by name begin with the first', () => {
    const counts: Record<string, number> = {};
    tally(counts, 'a');
    tally(counts, 'a', 2);
    expect(counts).toEqual({ a: 3 });
  });
});
