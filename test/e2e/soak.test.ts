/**
 * A short soak (test/soak), with a few kinds of faults that always come: nothing is lost, nothing doubled, nothing halts. `npm run soak` is the long one, with all of them.
 *
 * SLUICE_SOAK_SECONDS (15) is how long load and faults last, SLUICE_SEED what they are drawn by: printed, to be drawn again.
 */
import { expect, test } from 'vitest';
import { soak } from '../soak/course.ts';

const SECONDS = Number(process.env.SLUICE_SOAK_SECONDS ?? 15);
const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));

/** It waits for what it breaks: on a machine that has other things to do, that is slow. */
const PATIENCE_MS = 600_000 + SECONDS * 1_000;

test('a soak ends with both sides equal, a chain that is whole, and no halt', { timeout: PATIENCE_MS }, async () => {
  console.log(`SLUICE_SEED=${SEED}`);
  const report = await soak({
    seconds: SECONDS,
    seed: SEED,
    faults: ['process_killed', 'walsender_terminated', 'target_reset', 'source_crashed', 'target_restarted'],
    armed: 0.5,
    fault_every_ms: 2_500,
    onProgress: (line) => console.log(line),
    big_rows: 2_000,
    pause_ms: 100,
  });
  expect(report.problems).toEqual([]);
  expect(report.load.rows).toBeGreaterThan(0);
  expect(report.rows_compared).toBeGreaterThan(100_000);
  // How many there is time for is the machine's affair.
  expect(report.run.starts - 1 + Object.keys(report.faults).length).toBeGreaterThan(0);
});
