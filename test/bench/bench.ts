/**
 * npm run bench -- [--copy-rows N] [--rows N] [--runs N] [--write]
 *
 * How fast rows and changes go through, beside peers that do the same work on the same servers in the same run. Each figure is the median of the
 * runs; ratios are to be trusted more than absolutes. `--write` writes docs/BENCHMARKS.md.
 */
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { firstSync, type Measure, replication } from './measures.ts';

const { values } = parseArgs({
  options: {
    'copy-rows': { type: 'string', default: '2000000' },
    rows: { type: 'string', default: '500000' },
    runs: { type: 'string', default: '3' },
    write: { type: 'boolean', default: false },
  },
});
const copy_rows = Number(values['copy-rows']);
const rows = Number(values.rows);
const runs = Number(values.runs);
const isCount = (count: number, least: number): boolean => Number.isInteger(count) && count >= least;
if (!isCount(copy_rows, 1000) || !isCount(rows, 1000) || !isCount(runs, 1)) {
  console.error(
    'usage: npm run bench -- [--copy-rows N, at least 1000] [--rows N, at least 1000] [--runs N] [--write]',
  );
  process.exit(2);
}

const measured: Measure[] = [];
for (let run = 1; run <= runs; run++) {
  console.error(`run ${run} of ${runs}`);
  measured.push(...(await firstSync(copy_rows)), ...(await replication(rows)));
}

const names = [...new Set(measured.map(({ name }) => name))];
const figures = names.map((name) => {
  const all = measured.filter((measure) => measure.name === name);
  return { ...(all[0] as Measure), per_second: median(all.map(({ per_second }) => per_second)) };
});
const lines = [
  '| work | how | ratio to the peer | per second |',
  '|---|---|---|---|',
  ...figures.map(({ work, name, peer, per_second }) => {
    const other = figures.find((figure) => figure.name === peer);
    const ratio = other ? `${(per_second / other.per_second).toFixed(2)} × ${peer}` : '(peer)';
    return `| ${work} | ${name} | ${ratio} | ${Math.round(per_second).toLocaleString('en')} |`;
  }),
];
const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, Node ${process.version}; ${copy_rows.toLocaleString('en')} rows copied, a table of ${rows.toLocaleString('en')} rows changed, median of ${runs} runs`;
const page = `# Benchmarks\n\nMade by \`npm run bench -- --copy-rows ${copy_rows} --rows ${rows} --runs ${runs} --write\` on ${machine}.\nEmbedded PostgreSQL 18 on both sides, on the same machine; both sides and the engine share its cores.\n\n${lines.join('\n')}\n`;
console.log(`${machine}\n\n${lines.join('\n')}`);
if (values.write) await writeFile(new URL('../../docs/BENCHMARKS.md', import.meta.url), page);

function median(figures: number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}
