/**
 * A run's progress as lines: a block for a terminal, one plain line for a log. Pure.
 */
import type { Copying, Progress } from '../run/progress.ts';
import type { Terminal } from './terminal.ts';
import { bytes, count, counted, duration, fit, padEnd, padStart, percent, printable, rate, widthOf } from './text.ts';

/** Tables with a bar of their own; more than these only push the rest off the screen. */
const BARS_MAX = 10;
const NAME_WIDTH_MIN = 12;
const NAME_WIDTH_MAX = 32;
const BAR_WIDTH_MAX = 30;
/** For so much of a bar a long name is cut; with less than the least there is none. */
const BAR_WIDTH_GOOD = 14;
const BAR_WIDTH_MIN = 6;
const LABEL_WIDTH = 9;
/** With less, bytes are left out. */
const BYTES_WIDTH_MIN = 66;

type Paint = Terminal['paint'];

/** Copies with their bars, the log, what is applied. */
export function progressBlock(progress: Progress, width: number, paint: Paint): string[] {
  const lines = copyBars(progress, width, paint);
  if (progress.log.lsn !== null) lines.push(labelled('log', logText(progress), paint));
  lines.push(labelled('applied', appliedText(progress), paint));
  lines.push(labelled('streams', streamsText(progress, paint), paint));
  return lines;
}

/** A bar for each table that is being copied. */
export function copyBars({ copying }: Pick<Progress, 'copying'>, width: number, paint: Paint): string[] {
  const shown = copyLines(copying.slice(0, BARS_MAX), width - LABEL_WIDTH - 3, paint);
  const lines = shown.map((line, i) => labelled(i === 0 ? 'copying' : '', line, paint));
  const more = copying.length - shown.length;
  return more > 0 ? [...lines, labelled('', `and ${counted(more, 'more table')}`, paint)] : lines;
}

/** The same in one line. */
export function progressLine(progress: Progress): string {
  const { copying, log } = progress;
  const parts: string[] = [streamsText(progress, (_, text) => text)];
  if (copying.length > 0) parts.push(copiesText(copying));
  if (log.lsn !== null) parts.push(`read ${logText(progress)}`);
  parts.push(`applied ${appliedText(progress)}`);
  return parts.join('; ');
}

function labelled(label: string, text: string, paint: Paint): string {
  return ` ${paint('dim', padEnd(label, LABEL_WIDTH))} ${text}`;
}

function logText({ log }: Progress): string {
  const { changes, cuts, object_bytes, changes_per_second, lsn } = log;
  return `${counted(changes, 'change')} in ${counted(cuts, 'cut')}, ${bytes(object_bytes)} staged, ${rate(changes_per_second)}, up to ${lsn}`;
}

function appliedText({ applied, lag }: Progress): string {
  const rows = applied.rows > 0 ? `${counted(applied.rows, 'row')} copied, ` : '';
  const behind =
    lag === null ? '' : lag.bytes === 0 ? ', nothing waits' : `, ${duration(lag.seconds)} behind (${bytes(lag.bytes)})`;
  return `${rows}${counted(applied.changes, 'change')}, ${rate(applied.changes_per_second)}${behind}`;
}

function streamsText({ streams }: Progress, paint: Paint): string {
  if (streams.total === 0) return 'none captured yet';
  const parts = [
    streams.live > 0 && `${count(streams.live)} live`,
    streams.catching_up > 0 && `${count(streams.catching_up)} catching up`,
    streams.copying > 0 && `${count(streams.copying)} copying`,
    streams.waiting > 0 && `${count(streams.waiting)} waiting`,
    streams.halted > 0 && paint('red', `${count(streams.halted)} halted`),
  ];
  return parts.filter((part) => part !== false).join(', ');
}

function copiesText(copying: readonly Copying[]): string {
  const loaded = copying.reduce((total, { rows_loaded }) => total + rows_loaded, 0);
  const per_second = copying.reduce((total, { rows_per_second }) => total + rows_per_second, 0);
  const known = copying.every(({ rows_total }) => rows_total !== null);
  const total = copying.reduce((rows, { rows_total }) => rows + (rows_total ?? 0), 0);
  const left = known && per_second > 0 ? `, ${duration((total - loaded) / per_second)} left` : '';
  const part = known && total > 0 ? ` of ${count(total)} rows (${percent(loaded / total).trim()})` : ' rows';
  return `copied ${count(loaded)}${part}, ${rate(per_second)}${left}`;
}

/** One line a table: name, bar, percent, rows, rate, remaining time; what does not fit goes, the bar first. */
function copyLines(copying: readonly Copying[], width: number, paint: Paint): string[] {
  const names = copying.map(({ table }) => printable(table));
  const figures = aligned(copying.map((copy) => figuresOf(copy, width >= BYTES_WIDTH_MIN)));
  const figuresWidth = Math.max(0, ...figures.map(widthOf));
  const longest = Math.max(0, ...names.map(widthOf));
  const nameWidth = Math.max(
    NAME_WIDTH_MIN,
    Math.min(NAME_WIDTH_MAX, longest, width - figuresWidth - BAR_WIDTH_GOOD - 2),
  );
  const barWidth = Math.min(BAR_WIDTH_MAX, width - nameWidth - figuresWidth - 2);
  return copying.map((copy, i) => {
    const name = padEnd(fit(names[i] ?? '', nameWidth), nameWidth);
    return barWidth < BAR_WIDTH_MIN ? `${name} ${figures[i]}` : `${name} ${bar(copy, barWidth, paint)} ${figures[i]}`;
  });
}

function figuresOf(copy: Copying, hasRoom: boolean): string[] {
  const { rows_loaded, rows_total, bytes_loaded, percent: done, rows_per_second, seconds_left } = copy;
  const isKnown = rows_total !== null && rows_total > 0;
  const isMoving = rows_per_second > 0 && seconds_left !== 0;
  return [
    isKnown ? percent(rows_loaded / rows_total) : done === null ? '    ?' : percent(done / 100),
    isKnown ? `${count(rows_loaded)}/${count(rows_total)}` : `${count(rows_loaded)} rows`,
    ...(hasRoom ? [bytes(bytes_loaded)] : []),
    isMoving ? rate(rows_per_second) : '',
    isMoving && seconds_left !== null ? `${duration(seconds_left)} left` : '',
  ];
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => widthOf(row[i] ?? ''))));
  return rows.map((row) =>
    row
      .map((cell, i) => padStart(cell, widths[i] ?? 0))
      .join(' ')
      .trimEnd(),
  );
}

/** Loaded, staged, still to be read. */
function bar({ rows_loaded, rows_staged, rows_total }: Copying, width: number, paint: Paint): string {
  const part = (rows: number): number =>
    rows_total === null || rows_total === 0 ? 0 : Math.min(width, Math.floor((rows / rows_total) * width));
  const loaded = part(rows_loaded);
  const staged = Math.max(loaded, part(rows_staged));
  return (
    paint('green', '█'.repeat(loaded)) +
    paint('cyan', '▒'.repeat(staged - loaded)) +
    paint('dim', '░'.repeat(width - staged))
  );
}
