/**
 * npm run bench -- [--only W1,W2] [--scale N] [--runs N] [--write]
 *
 * How fast rows and changes go through, beside peers that do the same work on the same servers in the same run. Figures are medians over the runs, and a ratio is
 * the median of each run's own. `--write` writes the tables of docs/BENCHMARKS.md.
 */
import { parseArgs } from 'node:util';
import setUp from '../support/run-directory.ts';
import { coldStart } from './cold-start.ts';
import { cost } from './cost.ts';
import { compared, type Figure, medians } from './figures.ts';
import { GOALS } from './goals.ts';
import { latency } from './latency.ts';
import { hotKeys, oneTransaction, othersOnly, rowsAndChanges, tables, wideRows } from './measures.ts';
import { pageWith, tablesOf } from './page.ts';

const WORKS: Readonly<Record<string, (scale: number) => Promise<Figure[]>>> = {
  W1: rowsAndChanges,
  W3: hotKeys,
  W4: wideRows,
  W5: (scale) => tables(scale, 200),
  W6: oneTransaction,
  W7: othersOnly,
  latency,
  cold: coldStart,
  cost,
};

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    scale: { type: 'string', default: '1' },
    runs: { type: 'string', default: '3' },
    write: { type: 'boolean', default: false },
  },
});
const scale = Number(values.scale);
const runs = Number(values.runs);
// W2 goes on from the rows of W1.
const chosen = new Set(
  (values.only ?? Object.keys(WORKS).join()).split(',').map((name) => (name === 'W2' ? 'W1' : name)),
);
if (!(scale > 0) || !Number.isInteger(runs) || runs < 1 || [...chosen].some((name) => WORKS[name] === undefined)) {
  console.error(`usage: npm run bench -- [--only ${Object.keys(WORKS).join()}] [--scale N] [--runs N] [--write]`);
  process.exit(2);
}

const tearDown = setUp();
const measured: Figure[][] = [];
try {
  for (let run = 1; run <= runs; run++) {
    const figures: Figure[] = [];
    for (const name of chosen) {
      console.error(`${new Date().toISOString()} run ${run} of ${runs}: ${name}`);
      const found = (await WORKS[name]?.(scale)) ?? [];
      for (const { work, who, value, unit } of found) {
        console.error(`  ${work} ${who}: ${value === null ? 'not installed' : `${value.toPrecision(4)} ${unit}`}`);
      }
      figures.push(...found);
    }
    measured.push(figures);
  }
} finally {
  await tearDown?.();
}

const results = compared(measured, GOALS);
const text = tablesOf(results, medians(measured), { scale, runs });
console.log(text);
if (values.write) await pageWith(text);
