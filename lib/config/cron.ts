/**
 * Cron expressions in EventBridge's form, six fields: minutes hours day-of-month month day-of-week year; days of the week are 1 (Sunday) to 7
 * (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based). The local scheduler must run at the same times as
 * EventBridge would, so both read this one form; croner does the calendar.
 */
import { Cron } from 'croner';

const FIELDS = ['minutes', 'hours', 'day-of-month', 'month', 'day-of-week', 'year'] as const;
const DAY = '(?:[1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)';
const YEAR = '(?:19[7-9][0-9]|2[01][0-9]{2})';
/** What EventBridge takes in each field, one element of a list; croner takes more. Bounds that are not here, croner has too. */
const ELEMENTS = [
  /^[0-9*/-]+$/,
  /^[0-9*/-]+$/,
  /^[0-9*/?LW-]+$/,
  /^[0-9A-Z*/-]+$/,
  new RegExp(`^(?:\\*|\\?|${DAY}(?:-${DAY}|#[1-5]|L)?)$`),
  new RegExp(`^(?:\\*|${YEAR}(?:-${YEAR})?)(?:/[0-9]+)?$`),
] as const;
const TEXT_MAX = 256;

/** What is wrong with the expression, to stand after "is"; null: nothing. */
export function cronFault(text: string): string | null {
  if (text.length > TEXT_MAX) return `longer than ${TEXT_MAX} characters`;
  const fields = text.split(' ');
  if (fields.length !== FIELDS.length) return `of ${fields.length} fields instead of six (${FIELDS.join(' ')})`;
  for (const [i, name] of FIELDS.entries()) {
    const field = fields[i] ?? '';
    const valid = field.split(',').every((element) => ELEMENTS[i]?.test(element));
    if (!valid) return `not valid in its field ${name}: ${JSON.stringify(field)}`;
  }
  const [, , dayOfMonth, , dayOfWeek] = fields;
  if ((dayOfMonth === '?') === (dayOfWeek === '?'))
    return 'ambiguous about days: exactly one of day-of-month and day-of-week must be ?';
  try {
    return nextCronTime(text, 'UTC', 0) === null ? 'never due: there is no such day' : null;
  } catch (error) {
    return `not a cron expression: ${(error as Error).message.replace(/^CronPattern: /, '')}`;
  }
}

/**
 * The next time after `after_ms`, in ms since the Unix epoch; null: there is none. `cron` must be without fault. On the day the clocks change, a time that
 * does not exist is left out, and one that comes twice is taken once, as EventBridge has it
 * (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html, "Daylight savings time").
 */
export function nextCronTime(cron: string, timezone: string, after_ms: number): number | null {
  const times = parse(cron, timezone);
  let at = times.nextRun(new Date(after_ms));
  for (let i = 0; at !== null && i < CHANGED_TIMES_MAX; i++) {
    // croner runs what does not exist at the jump, where the expression does not match, and some of what comes twice twice.
    if (times.match(at) && !isSecondOfTwo(at.getTime(), timezone)) return at.getTime();
    at = times.nextRun(at);
  }
  return null;
}

/** A change of the clocks touches a few hours: no more times than minutes of a day are passed over in a row. */
const CHANGED_TIMES_MAX = 1_440;
const HOUR_MS = 3_600_000;
/** The greatest change of a zone's clocks, and some more. */
const CHANGE_MS_MAX = 3 * HOUR_MS;

/** Whether the clock has shown this time before: it was set back since. */
function isSecondOfTwo(at_ms: number, timezone: string): boolean {
  if (timezone === 'UTC') return false;
  const offset_ms = zoneOffset(at_ms, timezone);
  const set_back_ms = zoneOffset(at_ms - CHANGE_MS_MAX, timezone) - offset_ms;
  return set_back_ms > 0 && zoneOffset(at_ms - set_back_ms, timezone) === offset_ms + set_back_ms;
}

const clocks = new Map<string, Intl.DateTimeFormat>();

/** What the zone's clock is ahead of UTC at a time, ms. */
export function zoneOffset(at_ms: number, timezone: string): number {
  const clock =
    clocks.get(timezone) ??
    new Intl.DateTimeFormat('en-US', {
      timeZone: timezone,
      calendar: 'iso8601',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
  clocks.set(timezone, clock);
  const shown: Partial<Record<Intl.DateTimeFormatPartTypes, number>> = {};
  for (const { type, value } of clock.formatToParts(at_ms)) shown[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = shown;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(at_ms / 1000) * 1000;
}

function parse(text: string, timezone: string): Cron {
  return new Cron(`0 ${text}`, {
    mode: '7-part',
    alternativeWeekdays: true,
    sloppyRanges: true,
    timezone,
    paused: true,
  });
}

export function isTimezone(name: string): boolean {
  // Offsets such as +02:00 are zones to Intl, but not to EventBridge.
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
}
