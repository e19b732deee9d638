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

/** The next time after `after_ms`, in ms since the Unix epoch; null: there is none. `cron` must be without fault. */
export function nextCronTime(cron: string, timezone: string, after_ms: number): number | null {
  return parse(cron, timezone).nextRun(new Date(after_ms))?.getTime() ?? null;
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
