/** Every test that docs/RELIABILITY.md names is there. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');

test('docs/RELIABILITY.md names tests that are there', () => {
  const page = readFileSync(join(root, 'docs/RELIABILITY.md'), 'utf8');
  const named = new Set([...page.matchAll(/`(test\/[a-z0-9/-]+)`/g)].map(([, name]) => name));
  expect(named.size).toBeGreaterThan(40);
  expect([...named].filter((name) => !existsSync(join(root, `${name}.test.ts`)))).toEqual([]);
});
