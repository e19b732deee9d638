/**
 * The demo, small and short: it ends by itself, both sides are equal, and nothing stays behind. It is also what runs on embedded servers alone.
 */
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { startSluice } from '../support/sluice.ts';

const leftovers = async (): Promise<string[]> =>
  (await readdir(tmpdir())).filter((name) => name.startsWith('sluice-demo-'));

test('replicates a shop while it is written to, and shows that both sides are equal', async () => {
  const before = await leftovers();
  const { code, out, err } = await startSluice(['demo', '--rows', '2000', '--seconds', '5', '--json']).ended;
  expect(code, err).toBe(0);
  const result = JSON.parse(out) as { tables: { table: string; source_rows: number; equal: boolean }[] };
  expect(result).toMatchObject({ equal: true, written: { changes: expect.any(Number) }, cuts: expect.any(Number) });
  expect(result.tables).toHaveLength(7);
  expect(result.tables.find(({ table }) => table === 'shop.orders')?.source_rows).toBeGreaterThan(320);
  expect(err).toContain('Every table is copied');
  expect(err).not.toMatch(/postgresql:\/\/[^@]*:/);
  expect(await leftovers()).toEqual(before);
});
