/**
 * The tables, as the terminal and docs/BENCHMARKS.md show them. Of the page only what lies between the marks is made.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import type { Figure, Result } from './figures.ts';

const PAGE = new URL('../../docs/BENCHMARKS.md', import.meta.url);
const [BEGIN, END] = ['<!-- made by npm run bench -->', '<!-- end -->'];

export function tablesOf(
  results: readonly Result[],
  figures: readonly Figure[],
  { scale, runs }: { readonly scale: number; readonly runs: number },
): string {
  const machine = `${cpus()[0]?.model.trim()}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB; Node ${process.version}; PostgreSQL 18, embedded`;
  const sizes = scale === 1 ? 'in full' : `at ${scale} of their size`;
  return [
    `On ${machine}. Workloads ${sizes}, median of ${runs} ${runs === 1 ? 'run' : 'runs'}. Servers, functions and services share the machine.`,
    '',
    '| what | held against | | goal | |',
    '|---|---|---|---|---|',
    ...results.map(({ comparison: { what, who, peer, goal, wants }, value, isMet }) => {
      const shown = value === null ? 'not installed' : peer === null ? number(value) : `**${value.toFixed(2)} ×**`;
      const mark = isMet === null ? '' : isMet ? 'met' : 'not met';
      return `| ${what}${who.startsWith('Sluice, slot') || peer === null ? '' : ` (${who})`} | ${peer ?? ''} | ${shown} | ${wants === 'least' ? '≥' : '≤'} ${number(goal)}${peer === null ? '' : ' ×'} | ${mark} |`;
    }),
    '',
    '| workload | who | |',
    '|---|---|---|',
    ...figures.map(
      ({ work, who, value, unit }) =>
        `| ${work} | ${who} | ${value === null ? 'not installed' : `${number(value)} ${unit}`} |`,
    ),
  ].join('\n');
}

function number(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}

export async function pageWith(text: string): Promise<void> {
  const page = await readFile(PAGE, 'utf8');
  const [before, after] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (before < 0 || after < before) throw new Error(`docs/BENCHMARKS.md lacks ${BEGIN} … ${END}`);
  await writeFile(PAGE, `${page.slice(0, before + BEGIN.length)}\n\n${text}\n\n${page.slice(after)}`);
}
