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

interface Mutant {
  /** What is taken out. */
  readonly without: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const LEDGER = 'test/support/memory-ports.ts';

const MUTANTS: readonly Mutant[] = [
  {
    without: 'the condition that a cut has no other at its number (I2)',
    file: LEDGER,
    from: 'if (cut.number !== (head?.number ?? -1) + 1) return false;',
    to: '',
  },
  {
    without: 'the condition that a bookmark is changed only while its capture and epoch are those that were read',
    file: LEDGER,
    from: 'if (known.captured_cut !== captured_cut || known.epoch !== epoch) return false;',
    to: 'void captured_cut; void epoch;',
  },
  {
    without: 'the condition that an epoch follows the one before it',
    file: LEDGER,
    from: 'if (bookmark?.epoch !== epoch.number - 1) return false;',
    to: 'if (!bookmark) return false;',
  },
  {
    without: 'the condition that an epoch is changed only from the state that was read',
    file: LEDGER,
    from: 'if (known?.state !== from) return false;',
    to: 'if (!known) return false; void from;',
  },
  {
    without: 'the condition that a chunk is staged once',
    file: LEDGER,
    from: 'if (chunks.get(chunkKey(chunk))?.staged) return false;',
    to: '',
  },
  {
    without: 'the order: recorded, then confirmed (I1)',
    file: 'lib/pipeline.ts',
    from: "const record = () => run.timed('record', () => chain.append(next));",
    to: "reader.confirm(next.end_lsn); const record = () => run.timed('record', () => chain.append(next));",
  },
  {
    without: 'the order: staged, then recorded',
    file: 'lib/stage/staged-cut.ts',
    from: 'await this.#writer.complete();',
    to: '',
  },
  {
    without: 'the applied cut: a load begins after what it believes, not after what the target says (I4)',
    file: 'lib/load/steps.ts',
    from: 'ledger.cutsAfter(applied_cut, CUTS_MAX)',
    to: 'ledger.cutsAfter(Math.max(0, applied_cut - 1), CUTS_MAX)',
  },
  {
    without: 'the hold: cuts are applied while an epoch has the stream',
    file: 'lib/load/steps.ts',
    from: "if (tx.row.hold !== null) return 'held';",
    to: '',
  },
  {
    without: 'the wait for whoever wrote before the publication (I11)',
    file: 'lib/window/capture.ts',
    from: 'if (!(await writersHaveEnded(ports, wanted, asked))) return null;',
    to: 'void wanted;',
  },
  {
    without: 'passing over what the log has from before a capture',
    file: 'lib/cut/open-cut.ts',
    from: 'if (stream?.captured.log_from !== undefined && this.#commit_lsn < stream.captured.log_from) return null;',
    to: '',
  },
  {
    without: 'the note that a table is to be captured anew, before it is published again',
    file: 'lib/window/capture.ts',
    from: 'await captureAnew({ ledger, log }, id, { table: displayName(table), reason });',
    to: '',
  },
  {
    without: 'catching up: a copy is live before the chain has been applied up to it',
    file: 'lib/load/steps.ts',
    from: 'const caughtUp = catching_up_to === null || lsn >= catching_up_to;',
    to: 'const caughtUp = catching_up_to === null || lsn >= 0n;',
  },
];

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
