/** What npm run mutants takes out is there to be taken out, once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { MUTANTS } from '../mutants/list.ts';

const root = join(import.meta.dirname, '../..');

test.each(MUTANTS)('without $without', ({ file, from, to }) => {
  const text = readFileSync(join(root, file), 'utf8');
  expect(text.split(from)).toHaveLength(2);
  expect(to).not.toBe(from);
});
