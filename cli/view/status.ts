/**
 * How a pipeline stands, as a page: streams, copies that are under way, halts with their remedies, the last windows. Pure.
 */
import type { PipelineStatus, ReportStatus, StreamStatus } from '../../lib/operate.ts';
import type { Terminal } from './terminal.ts';
import { bytes, count, counted, duration, padEnd, percent, printable, table, wrap } from './text.ts';

type Paint = Terminal['paint'];

/** Windows that are shown. */
const WINDOWS_MAX = 5;
const NAME_WIDTH_MIN = 16;

export interface StatusPage {
  readonly status: PipelineStatus;
  readonly now_ms: number;
  /** The process whose engine runs on the state; null: none does. */
  readonly running_pid: number | null;
  readonly width: number;
  readonly paint: Paint;
}

export function statusPage(page: StatusPage): string[] {
  const { status } = page;
  const blocks = [
    [headLine(page)],
    streamTable(page),
    ...copyBlock(page),
    ...unfinishedBlock(page),
    ...givenUpBlock(page),
    ...haltBlock(page),
    ...rejectedBlock(page),
    ...slotBlock(page),
    ...windowBlock(page),
  ];
  if (status.streams.length === 0)
    blocks.splice(1, 1, ['No table has been captured yet: the first window of `sluice run` does that.']);
  return blocks.filter((block) => block.length > 0).flatMap((block, i) => (i === 0 ? block : ['', ...block]));
}

function headLine({ status, now_ms, running_pid, paint }: StatusPage): string {
  const { head, pipeline } = status;
  const running =
    running_pid === null ? paint('dim', 'no engine runs') : paint('green', `runs in process ${running_pid}`);
  const log =
    head === null
      ? 'nothing recorded yet'
      : `recorded up to ${head.lsn} (cut ${head.cut}, ${ago(head.recorded_at, now_ms)})`;
  return `Pipeline ${paint('bold', pipeline)}: ${running}, ${log}`;
}

function streamTable({ status, now_ms, width, paint }: StatusPage): string[] {
  const { streams } = status;
  const isRenamed = streams.some((stream) => stream.table !== stream.target);
  const isQueried = streams.some((stream) => !isOfLog(stream));
  const lines = table(
    streams,
    [
      { title: 'table', text: (stream) => printable(stream.table), shrinks_to: NAME_WIDTH_MIN },
      ...(isRenamed
        ? [{ title: 'target', text: (stream: StreamStatus) => printable(stream.target), shrinks_to: NAME_WIDTH_MIN }]
        : []),
      ...(isQueried ? [{ title: 'method', text: methodText }] : []),
      { title: 'state', text: stateText },
      { title: 'copied', align: 'right', text: (stream) => count(stream.rows_copied) },
      { title: 'changes', align: 'right', text: (stream) => (isOfLog(stream) ? count(stream.changes_applied) : '-') },
      { title: 'applied', align: 'right', text: appliedText },
      { title: 'behind', align: 'right', text: ({ lag }) => (lag === null ? '-' : bytes(lag.bytes)) },
      { title: '', align: 'right', text: (stream) => timeText(stream, now_ms) },
      ...(streams.some(({ schedule }) => schedule !== null)
        ? [{ title: 'next', text: (stream: StreamStatus) => nextText(stream, now_ms) }]
        : []),
    ],
    width,
  );
  const [title = '', ...rest] = lines;
  return [paint('dim', title), ...rest.map((line, i) => coloured(line, streams[i], paint))];
}

function isOfLog({ method }: StreamStatus): boolean {
  return method === 'LOG_BASED';
}

/** `log`, `incremental`, `full table`. */
function methodText({ method }: StreamStatus): string {
  return method === 'LOG_BASED' ? 'log' : method.toLowerCase().replaceAll('_', ' ');
}

/** A position in the log says nothing of rows that were read by query. */
function appliedText(stream: StreamStatus): string {
  return stream.applied_at === null || !isOfLog(stream) ? '-' : stream.applied_lsn;
}

/** How far behind the log it is; read by query, as of when its rows are. */
function timeText({ lag, as_of }: StreamStatus, now_ms: number): string {
  if (as_of !== null) return `as of ${ago(as_of, now_ms)}`;
  return lag === null ? '-' : duration(lag.seconds);
}

/** When a table with a schedule of its own is loaded or read next. */
function nextText({ schedule }: StreamStatus, now_ms: number): string {
  if (schedule === null) return '';
  if (schedule.paused) return 'paused';
  if (schedule.next_at === null) return 'never';
  const seconds = (Date.parse(schedule.next_at) - now_ms) / 1000;
  return seconds <= 0 ? 'at the next window' : `in ${duration(seconds)}`;
}

function stateText({ state, reset_requested, resync_requested }: StreamStatus): string {
  const shown = state === 'syncing' ? 'copying' : state.replaceAll('_', ' ');
  if (reset_requested) return `${shown}, reset asked`;
  return resync_requested ? `${shown}, resync asked` : shown;
}

function coloured(line: string, stream: StreamStatus | undefined, paint: Paint): string {
  if (stream?.state === 'halted') return paint('red', line);
  return stream?.state === 'live' ? line : paint('cyan', line);
}

function copyBlock({ status, now_ms }: StatusPage): string[][] {
  return status.streams.flatMap(({ table: name, epoch, halt }) => {
    if (epoch === null || halt !== null || epoch.state === 'done') return [];
    const { rows_loaded, rows_total, bytes_loaded, bytes_total, chunks, chunks_loaded, seconds_left } = epoch;
    const done = epoch.percent === null ? '' : `${percent(epoch.percent / 100).trim()}: `;
    const ofRows = rows_total === null ? '' : ` of ${count(rows_total)}`;
    const ofBytes = bytes_total === null ? '' : ` of ${bytes(bytes_total)}`;
    const part = `${done}${count(rows_loaded)}${ofRows} rows, ${bytes(bytes_loaded)}${ofBytes}`;
    const left = seconds_left === null || seconds_left === 0 ? '' : `, ${duration(seconds_left)} left`;
    const pieces =
      chunks === null
        ? 'not planned yet'
        : `${count(chunks_loaded)} of ${counted(chunks, 'chunk')} loaded, ${count(epoch.chunks_staged)} read${equalText(epoch)}`;
    return [
      [
        `Copying ${printable(name)} (${kindText(epoch)}): ${part}, ${pieces}, began ${ago(epoch.opened_at, now_ms)}${left}`,
      ],
    ];
  });
}

/** Of a resync: the others are copied. */
function equalText({ kind, chunks_equal }: NonNullable<StreamStatus['epoch']>): string {
  return kind === 'resync' ? `, ${count(chunks_equal)} of these the same on both sides` : '';
}

function kindText({ kind, where }: NonNullable<StreamStatus['epoch']>): string {
  const shown = kind.replaceAll('_', ' ');
  return where === null ? shown : `${shown} where ${printable(where)}`;
}

/** What was asked for beside the log and ended before it was done. */
function givenUpBlock({ status, now_ms, width, paint }: StatusPage): string[][] {
  return status.streams.flatMap(({ table: name, given_up }) => {
    if (given_up === null) return [];
    const { kind, reason, at } = given_up;
    return [
      [
        paint(
          'yellow',
          `The last ${kind.replaceAll('_', ' ')} of ${printable(name)} ended before it was done, ${ago(at, now_ms)}`,
        ),
        ...wrap(printable(reason), width, '  '),
      ],
    ];
  });
}

function haltBlock({ status, now_ms, width, paint }: StatusPage): string[][] {
  return status.streams.flatMap(({ table: name, halt }) => {
    if (halt === null) return [];
    const cut = halt.cut === null ? '' : ` at cut ${halt.cut}`;
    return [
      [
        paint('red', `${printable(name)} is halted${cut}, ${ago(halt.at, now_ms)}: ${halt.code}`),
        ...wrap(printable(halt.message), width, '  '),
        ...wrap(`Remedy: ${printable(halt.remedy)}`, width, '  '),
      ],
    ];
  });
}

/** Rows that were left out, and wait for a person. */
function unfinishedBlock({ status, now_ms, width, paint }: StatusPage): string[][] {
  const { unfinished } = status;
  if (unfinished === null) return [];
  const { xid, changes, text_bytes, tables, table_count, windows, stalled, began_at } = unfinished;
  const more = table_count > tables.length ? ` and ${counted(table_count - tables.length, 'other')}` : '';
  const facts = `${counted(changes, 'change')} (${bytes(text_bytes)}) of ${tables.map(printable).join(', ')}${more} staged in ${counted(windows, 'window')}, begun ${ago(began_at, now_ms)}`;
  const remedy = stalled
    ? 'Passing over what is staged took all of the last window: only one without a deadline comes to its end (sluice run --stack).'
    : 'The next window goes on behind it.';
  return [
    [
      paint('yellow', `Transaction ${xid} is longer than a window`),
      ...wrap(facts, width, '  '),
      ...wrap(remedy, width, '  '),
    ],
  ];
}

function rejectedBlock({ status, width, paint }: StatusPage): string[][] {
  const rejected = status.streams.filter(({ rejected_rows }) => rejected_rows > 0);
  if (rejected.length === 0) return [];
  const of = rejected.map(({ table: name, rejected_rows }) => `${counted(rejected_rows, 'row')} of ${printable(name)}`);
  return [
    [paint('yellow', 'Rows that are not valid were left out: sluice rejects'), ...wrap(of.join(', '), width, '  ')],
  ];
}

/** The newest window that has seen the slot found that it may soon be lost. */
function slotBlock({ status, now_ms, width, paint }: StatusPage): string[][] {
  const seen = status.reports.find(({ slot }) => slot !== undefined);
  if (!seen?.slot?.at_risk) return [];
  const { safe_wal_bytes, kept_wal_bytes } = seen.slot;
  const left = safe_wal_bytes === null ? 'little' : bytes(safe_wal_bytes);
  const kept = kept_wal_bytes === null ? '' : ` It kept ${bytes(kept_wal_bytes)} for it then.`;
  const found = `When a window began ${ago(seen.started_at, now_ms)}, the source could write ${left} more before it gives the slot up.${kept}`;
  return [
    [
      paint('yellow', 'The slot is at risk'),
      ...wrap(found, width, '  '),
      ...wrap('Remedy: raise max_slot_wal_keep_size on the source, or run windows more often.', width, '  '),
    ],
  ];
}

function windowBlock({ status, now_ms, width, paint }: StatusPage): string[][] {
  const reports = status.reports.slice(0, WINDOWS_MAX);
  if (reports.length === 0) return [];
  const [title = '', ...rest] = table(
    reports,
    [
      { title: 'last windows', text: ({ started_at }) => ago(started_at, now_ms) },
      { title: 'ended by', text: ({ stopped_by }) => stopped_by },
      { title: 'changes', align: 'right', text: ({ changes }) => count(changes) },
      { title: 'cuts', align: 'right', text: ({ cuts }) => count(cuts) },
      { title: 'staged', align: 'right', text: ({ object_bytes }) => bytes(object_bytes) },
      { title: 'took', align: 'right', text: (report) => duration(secondsOf(report)) },
      {
        title: '',
        text: ({ error }) => (error === null ? '' : printable(`${error.code}: ${error.message}`)),
        shrinks_to: 0,
      },
    ],
    width,
  );
  return [[paint('dim', title), ...rest.map((line, i) => (reports[i]?.error ? paint('yellow', line) : line))]];
}

function secondsOf({ started_at, ended_at }: ReportStatus): number {
  return (Date.parse(ended_at) - Date.parse(started_at)) / 1000;
}

function ago(at: string, now_ms: number): string {
  const seconds = (now_ms - Date.parse(at)) / 1000;
  return seconds < 1 ? 'just now' : `${duration(seconds)} ago`;
}

/** The page, for who looks at it again and again. */
export function watchTitle(now_ms: number, every_seconds: number): string {
  return padEnd(
    `sluice status, every ${every_seconds} s, ${new Date(now_ms).toTimeString().slice(0, 8)} (Ctrl-C ends)`,
    0,
  );
}
