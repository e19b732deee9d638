/**
 * Properties: random inputs for as long as a budget of wall-clock time lasts, and on failure one line that says how to see it again.
 *
 * SLUICE_SEED and SLUICE_PATH replay a failure; SLUICE_PROPERTY_SECONDS is the budget of each property (1 without it, or
 * what a property on real servers asks for).
 */
import * as fc from 'fast-check';
import { test } from 'vitest';

const SECONDS_DEFAULT = 1;
/** More than any budget allows: the time ends a property, not the count. */
const RUNS_MAX = 10_000_000;
/** Above the budget, for the run under way and for shrinking a counterexample. */
const TIMEOUT_SPARE_MS = 60_000;

function numberFrom(variable: string): number | undefined {
  const text = process.env[variable];
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (!Number.isFinite(value)) throw new RangeError(`${variable} is not a number: ${text}`);
  return value;
}

/** A test that `check` holds for every value of `values`. `check` throws where it does not. */
export function property<T>(
  name: string,
  values: fc.Arbitrary<T>,
  check: (value: T) => void | Promise<void>,
  seconds = SECONDS_DEFAULT,
): void {
  const budget_ms = (numberFrom('SLUICE_PROPERTY_SECONDS') ?? seconds) * 1000;
  const path = process.env.SLUICE_PATH;
  test(name, { timeout: budget_ms + TIMEOUT_SPARE_MS }, async () => {
    const seed = numberFrom('SLUICE_SEED') ?? Date.now() ^ Math.floor(Math.random() * 2 ** 32);
    const until_ms = Date.now() + budget_ms;
    const details = await fc.check(
      fc.asyncProperty(values, async (value) => {
        await check(value);
      }),
      {
        seed,
        ...(path ? { path, numRuns: 1 } : { numRuns: RUNS_MAX, interruptAfterTimeLimit: until_ms - Date.now() }),
      },
    );
    if (!details.failed) {
      if (details.numRuns === 0) throw new Error(`no run of "${name}" ended within ${budget_ms} ms`);
      return;
    }
    const where = details.counterexamplePath === null ? '' : ` SLUICE_PATH=${details.counterexamplePath}`;
    const replay = `replay: SLUICE_SEED=${details.seed}${where} npx vitest run -t ${JSON.stringify(name)}`;
    throw new Error(`${fc.defaultReportMessage(details)}\n${replay}`, { cause: details.errorInstance });
  });
}
