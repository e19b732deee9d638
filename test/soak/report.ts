/** The report of a soak as Markdown. Pure. */
import type { SoakReport } from './course.ts';
import type { Quarter } from './figures.ts';

const number = new Intl.NumberFormat('en-US', { maximumFractionDigits: 1 });
const count = (value: number): string => number.format(value);
const megabytes = (bytes: number): string => `${count(bytes / 2 ** 20)} MB`;
const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, one) => total + one, 0);

export function soakPage(report: SoakReport): string {
  const { load, run } = report;
  const kills = sum(run.kills_by_point);
  const figures: [string, string][] = [
    ['time', `${count(report.seconds / 60)} minutes, seed ${report.seed}, slot_reader ${report.slot_reader}`],
    [
      'written on the source',
      `${count(load.rows)} rows in ${count(load.transactions)} transactions, ${megabytes(load.wal_bytes)} of WAL`,
    ],
    [
      '',
      `${count(sum(load.ddl))} changes of shape (${listed(load.ddl)}), ${count(load.truncates)} TRUNCATE, ${count(load.subtransactions)} subtransactions, ${count(load.rolled_back_rows)} rows rolled back`,
    ],
    [
      'processes',
      `${count(run.starts)} started, ${count(kills)} killed at ${Object.keys(run.kills_by_point).length} failpoints, ${count(run.kills_by_clock)} by the clock, ${count(run.given_up)} gave up at their start (a server away, the state in use)`,
    ],
    ['windows', `${count(run.windows)} ended well, ${count(run.windows_failed)} failed and were followed by another`],
    [
      'loads',
      `${count(run.loads)} of ${count(run.cuts_loaded)} cuts, ${count(run.changes_loaded)} changes and ${count(run.rows_copied)} copied rows; ${count(run.extracts)} extracts`,
    ],
    ['caught up in the end', `in ${count(report.catch_up_seconds)} s`],
    ['compared', `${count(report.rows_compared)} rows: ${count(report.differences.length)} tables differ`],
    [
      'chain',
      `${String(report.chain.cuts)} cuts, ${String(report.chain.objects)} objects: ${String(report.chain.fault_count)} faults`,
    ],
    ['halts', count(run.halts.length + report.halted.length)],
  ];
  return [
    `| | |\n|---|---|`,
    ...figures.map(([name, text]) => `| ${name} | ${text} |`),
    '',
    ...table('fault', report.faults),
    ...table('asked for', report.requests),
    ...table('killed at', run.kills_by_point),
    ...table('error that was gone on from', run.errors),
    '| by quarter of the time | least | median | greatest |\n|---|---|---|---|',
    ...report.rss_bytes.map((quarter, i) => quarterLine(`memory (RSS), ${i + 1}`, quarter, megabytes)),
    ...report.lag_seconds.map((quarter, i) => quarterLine(`lag, ${i + 1}`, quarter, (value) => `${count(value)} s`)),
    '',
    `Memory of all processes together grows by ${report.rss_bytes_per_minute === null ? '?' : megabytes(report.rss_bytes_per_minute)} a minute; of those that lived long: ${
      report.long_lived.length === 0
        ? 'there was none'
        : report.long_lived
            .map(
              ({ lived_ms, bytes_per_minute }) =>
                `${megabytes(bytes_per_minute)} (${count(lived_ms / 60_000)} minutes)`,
            )
            .join(', ')
    }.`,
    '',
    report.problems.length === 0
      ? 'Nothing was lost, nothing was doubled, nothing waits for a person.'
      : ['**Problems**', '', ...report.problems.map((problem) => `- ${problem}`)].join('\n'),
  ].join('\n');
}

function listed(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .map(([name, times]) => `${name} ${times}`)
    .join(', ');
}

function table(title: string, counts: Readonly<Record<string, number>>): string[] {
  const lines = Object.entries(counts).toSorted(([, a], [, b]) => b - a);
  return [`| ${title} | times |\n|---|---|`, ...lines.map(([name, times]) => `| ${name} | ${count(times)} |`), ''];
}

function quarterLine(name: string, quarter: Quarter | null, text: (value: number) => string): string {
  const cells = quarter === null ? ['', '', ''] : [quarter.min, quarter.median, quarter.max].map(text);
  return `| ${name} | ${cells.join(' | ')} |`;
}
