/**
 * The search for refused rows (lib/load/bisect.ts): everything that can be taken is, what is told is refused, and few tries are made.
 */
import { describe, expect, test } from 'vitest';
import { applyAllBut } from '../../lib/load/bisect.ts';

/** `refused`: why `row` cannot be taken beside these, or null. */
async function search(rows: number, refused: (row: number, there: ReadonlySet<number>) => boolean) {
  const there = new Set<number>();
  const left: number[] = [];
  let tries = 0;
  await applyAllBut<string>(
    {
      attempt: async (from, to) => {
        tries++;
        const with_these = new Set(there);
        for (let row = from; row < to; row++) with_these.add(row);
        for (let row = from; row < to; row++) if (refused(row, with_these)) return 'refused';
        for (let row = from; row < to; row++) there.add(row);
        return null;
      },
      refuse: (row) => left.push(row),
    },
    0,
    rows,
  );
  return { left: left.toSorted((a, b) => a - b), there, tries };
}

describe('rows that are refused for themselves', () => {
  test.each([
    [0, []],
    [1, []],
    [1, [0]],
    [2, [0, 1]],
    [1000, []],
    [1000, [0]],
    [1000, [999]],
    [1000, [0, 499, 500, 999]],
    [8_192, [1, 2, 3, 5_000]],
  ])('of %i rows: %j', async (rows, wrong) => {
    const bad = new Set(wrong);
    const found = await search(rows, (row) => bad.has(row));
    expect(found.left).toEqual(wrong);
    expect(found.there.size).toBe(rows - wrong.length);
    // A failing range has two halves, and each may be tried twice.
    expect(found.tries).toBeLessThanOrEqual(1 + 4 * wrong.length * Math.ceil(Math.log2(Math.max(rows, 2))));
  });
});

test('rows that wait for others are taken when these are in', async () => {
  // Each of the second half needs one of the first, and each of the first quarter one of the last.
  const needs = (row: number): number | null => (row >= 512 ? row - 512 : row < 128 ? 800 + row : null);
  const bad = new Set([700]);
  const found = await search(
    1024,
    (row, there) => bad.has(row) || (needs(row) !== null && !there.has(needs(row) as number)),
  );
  expect(found.left).toContain(700);
  expect(found.there.size + found.left.length).toBe(1024);
});

test('what ends the search ends it', async () => {
  const refuse = (): void => {
    throw new Error('enough');
  };
  await expect(applyAllBut({ attempt: async () => 'refused', refuse }, 0, 100)).rejects.toThrow('enough');
});
