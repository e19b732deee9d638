/**
 * Shows that the crash theorem (test/property/{standstill,crash-theorem}.test.ts) rests on what it is said to rest on: takes one condition, check or order out at a
 * time, in a copy of the checkout, and a test should fail each time. `npm run mutants`; SLUICE_PROPERTY_SECONDS is the budget of each.
 *
 * Where a condition is one of DynamoDB's, it is taken out of the ledger in memory, which has the same: that the adapters keep their contracts is shown on the
 * services themselves (test/e2e, test/pg). Not among them are the lease, without which two windows get in each other's way and lose nothing (I2), and the lock of a
 * stream's row on the target, whose transactions are of one piece in memory (test/pg/load-transaction has it).
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MUTANTS } from './list.ts';

const THEOREMS = ['test/property/standstill', 'test/property/crash-theorem'];

/** How to see it fail again; null: it holds. */
function failureOf(theorem: string): string | null {
  const { status, stdout, stderr } = spawnSync('npx', ['vitest', 'run', '--project', 'property', theorem], {
    cwd: copy,
    encoding: 'utf8',
  });
  if (status === 0) return null;
  const replay = /replay: .*/.exec(stdout + stderr)?.[0];
  // Something else than the theorem: a mutant that does not run shows nothing.
  if (replay === undefined) throw new Error(`${theorem} did not come to its end:\n${stdout}${stderr}`);
  return replay;
}

const root = join(import.meta.dirname, '../..');
const copy = mkdtempSync(join(tmpdir(), 'sluice-mutants-'));
const wanted = process.argv[2];
const survivors: string[] = [];
try {
  for (const part of ['lib', 'test', 'package.json', 'tsconfig.json', 'vitest.config.ts']) {
    cpSync(join(root, part), join(copy, part), {
      recursive: true,
      filter: (path) => !path.includes('node_modules'),
    });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  for (const { without, file, from, to } of MUTANTS) {
    if (wanted !== undefined && !without.includes(wanted)) continue;
    const path = join(copy, file);
    const text = readFileSync(path, 'utf8');
    if (text.split(from).length !== 2) throw new Error(`${file} does not have exactly one: ${from}`);
    writeFileSync(
      path,
      text.replace(from, () => to),
    );
    let replay: string | null = null;
    for (const theorem of THEOREMS) replay ??= failureOf(theorem);
    writeFileSync(path, text);
    console.info(
      replay === null ? `NOT SEEN  without ${without}` : `seen      without ${without}\n          ${replay}`,
    );
    if (replay === null) survivors.push(without);
  }
} finally {
  rmSync(copy, { recursive: true, force: true });
}
process.exitCode = survivors.length === 0 ? 0 : 1;
