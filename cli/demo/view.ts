/**
 * What the demo shows: each stage of the path with what has gone through it, for somebody who sees it for the first time; and the summary. Pure.
 */
import { displayName } from '../../lib/shape.ts';
import { errorLines, type Told } from '../failure.ts';
import type { Progress } from '../run/progress.ts';
import type { Terminal } from '../view/terminal.ts';
import { bytes, count, counted, duration, padEnd, padStart, printable, rate, table } from '../view/text.ts';
import type { Comparison } from './compare.ts';

type Paint = Terminal['paint'];

export interface Stages {
  readonly progress: Progress;
  readonly written: { readonly changes: number; readonly transactions: number; readonly changes_per_second: number };
  readonly windows: number;
  /** The newest cut with changes; null: none yet. */
  readonly cut: { readonly number: number; readonly changes: number } | null;
  readonly cuts_per_second: number;
  /** Doorbells that nobody has answered yet. */
  readonly bells: number;
  readonly lag: { readonly p50: number | null; readonly p95: number | null };
}

interface StageLine {
  readonly stage: string;
  readonly what: string;
  readonly total: string;
  readonly pace: string;
  readonly more: string;
}

const STAGE_WIDTH = 9;
const WHAT_WIDTH = 21;
const TOTAL_WIDTH = 15;
const PACE_WIDTH = 9;
/** Where a terminal is narrower, the explanations go. */
const COLUMNS_FOR_WHAT = 78;

export function stageBlock(stages: Stages, width: number, paint: Paint): string[] {
  const { progress, written, windows, cut, bells, lag } = stages;
  const { log, applied, streams } = progress;
  const lines: StageLine[] = [
    {
      stage: 'source',
      what: 'a shop, written to',
      total: counted(written.changes, 'change'),
      pace: rate(written.changes_per_second),
      more: counted(written.transactions, 'transaction'),
    },
    {
      stage: 'slot',
      what: 'its log, in windows',
      total: counted(log.changes, 'change'),
      pace: rate(log.changes_per_second),
      more: `window ${count(windows + 1)}`,
    },
    {
      stage: 'cut',
      what: 'all up to one commit',
      total: counted(log.cuts, 'cut'),
      pace: rate(stages.cuts_per_second),
      more: cut === null ? '' : `last: ${counted(cut.changes, 'change')}`,
    },
    {
      stage: 'stage',
      what: 'an S3 object a cut',
      total: bytes(log.object_bytes),
      pace: `${bytes(log.bytes_per_second)}/s`,
      more: '',
    },
    {
      stage: 'ledger',
      what: 'a DynamoDB item a cut',
      total: cut === null ? '' : `cut ${count(cut.number)}`,
      pace: '',
      more: log.lsn === null ? '' : `to ${log.lsn}`,
    },
    { stage: 'doorbell', what: 'SQS tells the loaders', total: `${count(bells)} waiting`, pace: '', more: '' },
    {
      stage: 'load',
      what: 'COPY, delete, upsert',
      total: counted(applied.changes, 'change'),
      pace: rate(applied.changes_per_second),
      more: applied.rows > 0 ? `${counted(applied.rows, 'row')} before` : '',
    },
    {
      stage: 'target',
      what: 'the same rows',
      total: `${count(streams.live + streams.catching_up)} of ${counted(streams.total, 'table')}`,
      pace: '',
      more: lagText(lag),
    },
  ];
  return lines.map((line) => stageLine(line, width, paint));
}

function stageLine({ stage, what, total, pace, more }: StageLine, width: number, paint: Paint): string {
  const explained = width >= COLUMNS_FOR_WHAT ? `${paint('dim', padEnd(what, WHAT_WIDTH))} ` : '';
  return `  ${paint('bold', padEnd(stage, STAGE_WIDTH))}${explained}${padStart(total, TOTAL_WIDTH)} ${padStart(pace, PACE_WIDTH)}  ${paint('dim', more)}`.trimEnd();
}

function lagText({ p50, p95 }: Stages['lag']): string {
  return p50 === null || p95 === null ? '' : `lag ${duration(p50)}, p95 ${duration(p95)}`;
}

/** The same in one line. */
export function stageText(stages: Stages): string {
  const { progress, written, bells, lag } = stages;
  const { log, applied } = progress;
  return [
    `written ${counted(written.changes, 'change')} (${rate(written.changes_per_second)})`,
    `read ${count(log.changes)} in ${counted(log.cuts, 'cut')}`,
    `staged ${bytes(log.object_bytes)}`,
    `${counted(bells, 'doorbell')} waiting`,
    `applied ${count(applied.changes)} (${rate(applied.changes_per_second)})`,
    ...(lag.p50 === null ? [] : [lagText(lag)]),
  ].join('; ');
}

export interface Summary {
  readonly comparisons: readonly Comparison[];
  readonly halts: readonly Told[];
  readonly stages: Stages;
  readonly seconds: number;
}

export function isEqual({ comparisons }: Pick<Summary, 'comparisons'>): boolean {
  return comparisons.length > 0 && comparisons.every(({ equal }) => equal);
}

export function summaryLines({ comparisons, halts, stages, seconds }: Summary, width: number, paint: Paint): string[] {
  const { progress, written, lag } = stages;
  const { log, applied } = progress;
  const [title = '', ...rows] = table(
    comparisons,
    [
      { title: 'table', text: (one) => printable(displayName(one.table)), shrinks_to: 16 },
      { title: 'rows, source', align: 'right', text: (one) => count(one.source_rows) },
      { title: 'rows, target', align: 'right', text: (one) => count(one.target_rows) },
      { title: '', text: ({ equal }) => (equal ? 'equal' : 'DIFFERENT') },
    ],
    width - 2,
  );
  const perSecond = seconds > 0 ? written.changes / seconds : 0;
  const { p50, p95 } = lag;
  const lags =
    p50 === null || p95 === null
      ? 'not measured: the writes had ended before the tables were copied'
      : `p50 ${duration(p50)}, p95 ${duration(p95)}, from commit to seen in the target`;
  return [
    `  ${paint('dim', title)}`,
    ...rows.map((row, i) => `  ${comparisons[i]?.equal ? row : paint('red', row)}`),
    ...halts.flatMap((halt) => ['', ...errorLines(halt).map((line) => paint('red', `  ${printable(line)}`))]),
    '',
    `  written  ${counted(written.changes, 'change')} in ${counted(written.transactions, 'transaction')}, ${rate(perSecond)}`,
    `  staged   ${counted(log.cuts, 'cut')}, ${bytes(log.object_bytes)}`,
    `  applied  ${counted(applied.changes, 'change')}, after ${counted(applied.rows, 'row')} of the first copy`,
    `  lag      ${lags}`,
    '',
    isEqual({ comparisons })
      ? paint('green', 'Every table is equal, row for row, as text.')
      : paint('red', 'The tables are NOT equal.'),
  ];
}
