/**
 * Numbers and names as people read them in a terminal, and text that fits into it. Pure.
 */
import { stripVTControlCharacters } from 'node:util';

const GROUPED = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** 12345 → `12,345`. */
export function count(value: number): string {
  return GROUPED.format(value);
}

/** `1 table`, `2 tables`. */
export function counted(value: number, singular: string, plural = `${singular}s`): string {
  return `${count(value)} ${value === 1 ? singular : plural}`;
}

const BYTE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** 3400000 → `3.4 MB`; units of 1000. */
export function bytes(value: number): string {
  let unit = 0;
  let left = value;
  while (left >= 999.5 && unit < BYTE_UNITS.length - 1) {
    left /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || left >= 99.95 ? 0 : 1;
  return `${left.toFixed(digits)} ${BYTE_UNITS[unit]}`;
}

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Seconds → `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  const [large, small, names] =
    whole < HOUR
      ? [MINUTE, 1, ['min', 's']]
      : whole < DAY
        ? [HOUR, MINUTE, ['h', 'min']]
        : ([DAY, HOUR, ['d', 'h']] as const);
  const rest = Math.floor((whole % large) / small);
  return `${Math.floor(whole / large)} ${names[0]}${rest > 0 ? ` ${rest} ${names[1]}` : ''}`;
}

/** A rate of `unit`-less things: `1,234/s`; below 10 with a digit, so that slow is not none. */
export function rate(per_second: number): string {
  return `${per_second > 0 && per_second < 9.95 ? per_second.toFixed(1) : count(per_second)}/s`;
}

/** 0.613 → ` 61 %`, as wide as 100 %; never 100 before it is. */
export function percent(part: number): string {
  const shown = part >= 1 ? 100 : Math.min(99, Math.floor(Math.max(0, part) * 100));
  return `${String(shown).padStart(3)} %`;
}

// oxlint-disable-next-line no-control-regex -- these are what must not reach a terminal
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** A name out of a catalog, harmless to a terminal: a table may be called anything. */
export function printable(name: string): string {
  return name.replaceAll(CONTROL, '\ufffd');
}

/** What `printable` finds, but for line breaks, tabs and the colours of `Terminal.paint`. */
const OUTPUT_CONTROL =
  // oxlint-disable-next-line no-control-regex -- these are what must not reach a terminal
  /\u001b(?!\[[0-9]{1,2}m)|[\u0000-\u0008\u000b-\u001a\u001c-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** What is left of a line for standard output or error, JSON or not: a control character that nobody has taken out is spelled as JSON spells it. */
export function harmless(line: string): string {
  return line.replaceAll(OUTPUT_CONTROL, (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const SEGMENTS = new Intl.Segmenter('en', { granularity: 'grapheme' });
/** East Asian wide and emoji: two columns each. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;

/** Columns that `text` takes in a terminal, colours not counted. */
export function widthOf(text: string): number {
  let width = 0;
  for (const { segment } of SEGMENTS.segment(stripVTControlCharacters(text))) width += WIDE.test(segment) ? 2 : 1;
  return width;
}

/** Cuts plain text (without colours) to `width` columns, with `…` where something is missing. */
export function fit(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = '';
  let used = 0;
  for (const { segment } of SEGMENTS.segment(text)) {
    used += WIDE.test(segment) ? 2 : 1;
    if (used > width - 1) break;
    kept += segment;
  }
  return width > 0 ? `${kept}…` : '';
}

export function padEnd(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}

export function padStart(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - widthOf(text))) + text;
}

export interface ColumnOf<Row> {
  readonly title: string;
  readonly align?: 'right';
  readonly text: (row: Row) => string;
  /** Columns of the terminal that it may shrink to; not given: it never shrinks. */
  readonly shrinks_to?: number;
}

const GAP = '  ';

/** Rows in aligned columns under their titles, within `width` as far as columns can shrink. */
export function table<Row>(rows: readonly Row[], columns: readonly ColumnOf<Row>[], width: number): string[] {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ text }) => text(row)))];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => widthOf(line[i] ?? ''))));
  let excess = widths.reduce((sum, wide) => sum + wide + GAP.length, -GAP.length) - width;
  columns.forEach(({ shrinks_to }, i) => {
    const wide = widths[i] ?? 0;
    const cut = Math.min(Math.max(0, excess), Math.max(0, wide - (shrinks_to ?? wide)));
    widths[i] = wide - cut;
    excess -= cut;
  });
  return cells.map((line) =>
    line
      .map((cell, i) => {
        const fitted = fit(cell, widths[i] ?? 0);
        return columns[i]?.align === 'right' ? padStart(fitted, widths[i] ?? 0) : padEnd(fitted, widths[i] ?? 0);
      })
      .join(GAP)
      .trimEnd(),
  );
}

/** Breaks prose into lines of at most `width` columns, each after `indent`. Words that are longer stay whole: SQL is for copying. */
export function wrap(text: string, width: number, indent = ''): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (const word of paragraph.split(' ')) {
      if (line !== '' && widthOf(indent) + widthOf(line) + 1 + widthOf(word) > width) {
        lines.push(indent + line);
        line = word;
      } else line = line === '' ? word : `${line} ${word}`;
    }
    lines.push(indent + line);
  }
  return lines;
}
