/**
 * What the benchmark makes of its figures: medians of each, and ratios of figures of the same run.
 */
import { expect, test } from 'vitest';
import { type Comparison, compared, type Figure, median, medians } from '../bench/figures.ts';
import { tablesOf } from '../bench/page.ts';

const figure = (who: string, value: number | null): Figure => ({ work: 'W', who, value, unit: 'rows/s' });
const comparison = (peer: string | null, goal: number, wants: Comparison['wants'] = 'least'): Comparison => ({
  work: 'W',
  what: 'what',
  who: 'us',
  peer,
  goal,
  wants,
});
const RUNS = [
  [figure('us', 100), figure('them', 50), figure('others', null)],
  [figure('us', 60), figure('them', 60), figure('others', null)],
  [figure('us', 90), figure('them', 30), figure('others', null)],
];

test.each([
  [[3], 3],
  [[3, 1, 2], 2],
  [[4, 1, 2, 3], 2.5],
])('the median of %j is %d', (values, expected) => {
  expect(median(values)).toBe(expected);
});

test('a ratio is one of figures of the same run, not of medians', () => {
  // 2, 1 and 3; of the medians it would be 90 / 50.
  expect(compared(RUNS, [comparison('them', 2)])).toMatchObject([{ value: 2, isMet: true }]);
  expect(compared(RUNS, [comparison('them', 2.1), comparison('them', 1.9, 'most')])).toMatchObject([
    { isMet: false },
    { isMet: false },
  ]);
});

test('a limit is held against the median, and a peer that is not installed against nothing', () => {
  expect(compared(RUNS, [comparison(null, 90), comparison('others', 1)])).toMatchObject([
    { value: 90, isMet: true },
    { value: null, isMet: null },
  ]);
});

test('what was not run is left out', () => {
  expect(compared(RUNS, [{ ...comparison('them', 1), work: 'another' }])).toEqual([]);
});

test('the tables name machine, size and runs, and who is not installed', () => {
  const text = tablesOf(compared(RUNS, [comparison('them', 2)]), medians(RUNS), { scale: 0.5, runs: 3 });
  expect(text).toContain('at 0.5 of their size, median of 3 runs');
  expect(text).toContain('| what (us) | them | **2.00 ×** | ≥ 2 × | met |');
  expect(text).toContain('| W | us | 90 rows/s |');
  expect(text).toContain('| W | others | not installed |');
});
