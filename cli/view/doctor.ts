/**
 * The doctor's findings as a page: errors first, each with its subject, what is wrong, and what mends it, to be copied as it stands. Pure.
 */
import type { Finding, Severity } from '../../lib/doctor/finding.ts';
import type { Terminal } from './terminal.ts';
import { counted, padEnd, printable, wrap } from './text.ts';

const MARKS: Readonly<Record<Severity, string>> = { error: 'ERROR', warning: 'WARNING', info: 'INFO' };
const COLOURS = { error: 'red', warning: 'yellow', info: 'dim' } as const satisfies Record<Severity, string>;
const MARK_WIDTH = 8;

export function doctorPage(findings: readonly Finding[], width: number, paint: Terminal['paint']): string[] {
  const lines = findings.flatMap((finding) => [...findingLines(finding, width, paint), '']);
  return [...lines, summaryLine(findings)];
}

function findingLines(
  { severity, subject, problem, remedy }: Finding,
  width: number,
  paint: Terminal['paint'],
): string[] {
  const indent = ' '.repeat(MARK_WIDTH);
  const [first = '', ...rest] = wrap(`${printable(subject)}: ${printable(problem)}`, width, indent);
  return [
    paint(COLOURS[severity], padEnd(MARKS[severity], MARK_WIDTH)) + first.slice(MARK_WIDTH),
    ...rest,
    // Not broken into lines: it holds SQL to be copied.
    ...(remedy === null ? [] : [`${indent}${paint('bold', '→')} ${printable(remedy)}`]),
  ];
}

/** `2 errors, 1 warning`: the last line, whatever was found. */
export function summaryLine(findings: readonly Finding[]): string {
  const of = (severity: Severity): number => findings.filter((finding) => finding.severity === severity).length;
  return `${counted(of('error'), 'error')}, ${counted(of('warning'), 'warning')}`;
}
