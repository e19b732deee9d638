/**
 * What `verify` has found, as a page: a line a table, and below it what is to be known of it. Keys only, never another value. Pure.
 */
import { FINDING_KINDS, type Found, type Outcome, type StreamFindings } from '../../lib/verify/findings.ts';
import { errorLines } from '../failure.ts';
import type { Terminal } from './terminal.ts';
import { count, counted, padEnd, printable, widthOf, wrap } from './text.ts';

const COLOURS = {
  equal: 'green',
  repaired: 'green',
  different: 'red',
  failed: 'red',
  undecided: 'yellow',
  skipped: 'dim',
} as const satisfies Record<Outcome, string>;
const OUTCOME_WIDTH = 10;
const INDENT = '  ';
/** A key is as long as its table allows. */
const KEY_LETTERS_MAX = 200;

const WHY = {
  hashed: 'only their hash is on the target',
  excluded: 'the file leaves them out',
  computed: 'computed on both sides',
  missing: 'the target does not have them',
  unprinted: 'servers before 12 write the numbers in them otherwise',
} as const satisfies Record<StreamFindings['not_compared'][number]['why'], string>;

export function verifyPage(streams: readonly StreamFindings[], width: number, paint: Terminal['paint']): string[] {
  const names = Math.max(0, ...streams.map(({ table }) => widthOf(printable(table))));
  return [...streams.flatMap((stream) => streamLines(stream, names, width, paint)), '', summaryLine(streams)];
}

/** `3 tables, 60,000 rows compared: 2 equal, 1 different`. */
export function summaryLine(streams: readonly StreamFindings[]): string {
  const rows = streams.reduce((sum, stream) => sum + stream.rows, 0);
  const outcomes = [...new Set(streams.map(({ outcome }) => outcome))]
    .map((outcome) => `${count(streams.filter((stream) => stream.outcome === outcome).length)} ${outcome}`)
    .toSorted();
  return `${counted(streams.length, 'table')}, ${counted(rows, 'row')} compared: ${outcomes.join(', ')}`;
}

function streamLines(found: StreamFindings, names: number, width: number, paint: Terminal['paint']): string[] {
  const { table, outcome, rows, undecided, kept, repaired, remarks, error } = found;
  const counts = FINDING_KINDS.filter((kind) => found[kind].rows > 0).map(
    (kind) => `${count(found[kind].rows)} ${kind}`,
  );
  const facts = [
    ...(outcome === 'skipped' ? [] : [counted(rows, 'row')]),
    ...counts,
    ...(undecided.rows > 0 ? [`${count(undecided.rows)} undecided`] : []),
    ...(kept > 0 ? [`${count(kept)} kept after deletion`] : []),
    ...(repaired > 0 ? [`${count(repaired)} repaired`] : []),
  ];
  const head = `${paint(COLOURS[outcome], padEnd(outcome, OUTCOME_WIDTH))} ${padEnd(printable(table), names)}  ${facts.join(', ')}`;
  return [
    head.trimEnd(),
    ...[...remarks, ...hiddenOf(found)].flatMap((remark) => wrap(`${INDENT}${printable(remark)}`, width, INDENT)),
    ...FINDING_KINDS.flatMap((kind) => keyLines(kind, found.key, found[kind])),
    ...keyLines('undecided (they changed at each look)', found.key, undecided),
    ...(error === null ? [] : errorLines(error).map((line) => `${INDENT}${printable(line)}`)),
  ];
}

function hiddenOf({ not_compared }: StreamFindings): string[] {
  const whys = [...new Set(not_compared.map(({ why }) => why))];
  return whys.map((why) => {
    const columns = not_compared.filter((one) => one.why === why).map(({ column }) => column);
    return `Not compared: ${columns.join(', ')} (${WHY[why]}).`;
  });
}

function keyLines(what: string, key: readonly string[], { rows, keys }: Found): string[] {
  if (keys.length === 0) return [];
  const more = rows - keys.length;
  return [
    `${INDENT}${what}: ${printable(key.join(', '))}`,
    ...keys.map((values) => `${INDENT}${INDENT}${printable(keyText(values))}`),
    ...(more > 0 ? [`${INDENT}${INDENT}and ${count(more)} more`] : []),
  ];
}

function keyText(values: readonly string[]): string {
  const text = values.length === 1 ? (values[0] ?? '') : JSON.stringify(values);
  return text.length <= KEY_LETTERS_MAX ? text : `${text.slice(0, KEY_LETTERS_MAX)}…`;
}
