/**
 * The log of the functions: one JSON object a line, on stdout, where CloudWatch and the local engine read it. No secrets and no rows reach it: lib/
 * puts names, positions and numbers into facts (lib/ports.ts, Log).
 */
import { SluiceError } from '../lib/errors.ts';
import type { Log } from '../lib/ports.ts';
import { toldError } from '../lib/postgres/server-error.ts';

type Level = 'info' | 'warn' | 'error';

/** CloudWatch cuts a line at 256 KB; a fact that is longer than this has no business in it. */
const LINE_LENGTH_MAX = 64 * 1024;

/** What JSON lets through and a terminal obeys: C1 controls, line separators, changes of direction. A name or a server's message may hold them. */
// oxlint-disable-next-line no-control-regex -- these are what must not reach a terminal
const CONTROL = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;
const escaped = (control: string): string => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** A log that hands whole lines, without their newline, to `write`. `always` stands in every line. */
export function jsonLog(
  write: (line: string) => void,
  always: Readonly<Record<string, unknown>>,
  now: () => number = Date.now,
): Log {
  const at =
    (level: Level) =>
    (event: string, facts: Record<string, unknown> = {}): void =>
      write(logLine(level, event, { ...always, ...facts }, now()));
  return { info: at('info'), warn: at('warn'), error: at('error') };
}

/** `{"time":…,"level":…,"event":…, facts}`. Facts cannot shadow the first three. Never throws. */
export function logLine(level: Level, event: string, facts: Readonly<Record<string, unknown>>, now_ms: number): string {
  const head = { time: new Date(now_ms).toISOString(), level, event };
  try {
    const line = JSON.stringify({ ...head, ...facts, ...head }, printable).replaceAll(CONTROL, escaped);
    return line.length <= LINE_LENGTH_MAX ? line : JSON.stringify({ ...head, facts_length: line.length });
  } catch {
    return JSON.stringify({ ...head, facts_unprintable: true });
  }
}

/** Known errors by what a person needs of them; others with their stack, because only that finds the fault. */
function printable(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return String(value);
  if (value instanceof SluiceError) {
    const { code, message, remedy } = value;
    return { code, message, remedy, ...(code === 'UNEXPECTED' && { cause: value.cause }) };
  }
  if (value instanceof Error) return { name: value.name, ...toldError(value) };
  return value;
}
