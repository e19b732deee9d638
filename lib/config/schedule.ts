/**
 * When windows run: at intervals, at the times of a cron expression, or back to back. On AWS this becomes an EventBridge schedule, here the local
 * scheduler's; both read `ScheduleConfig`.
 */
import * as z from 'zod';
import { cronFault, isTimezone } from './cron.ts';
import { option } from './option.ts';

const UNIT_SECONDS = { minute: 60, hour: 3600, day: 86_400 } as const;
/** EventBridge knows no shorter rate than a minute; a slot that is read less often than monthly holds WAL beyond use. */
const EVERY_SECONDS_MAX = 31 * UNIT_SECONDS.day;
const EVERY = /^([1-9][0-9]{0,5}) (minute|hour|day)s?$/;
const ANCHOR = /^([01][0-9]|2[0-3]):([0-5][0-9])$/;

/** `5 minutes` → 300; null for any other spelling, and out of bounds. */
export function parseEvery(text: string): number | null {
  const [, count, unit] = EVERY.exec(text) ?? [];
  if (count === undefined || unit === undefined) return null;
  const seconds = Number(count) * UNIT_SECONDS[unit as keyof typeof UNIT_SECONDS];
  return seconds <= EVERY_SECONDS_MAX ? seconds : null;
}

/** Options that say times, of windows or of one table's loads. */
const timesOf = (what: 'window' | 'load') => ({
  every: option(
    z
      .string()
      .refine((text) => parseEvery(text) !== null)
      .optional(),
    {
      sentence: `Time from one ${what} to the next, counted from \`anchor\` where that is given.`,
      form: 'a whole number of minutes, hours or days, such as "5 minutes", at most 31 days',
      default_text: what === 'window' ? '`5 minutes`, where neither `cron` nor `continuous` is given' : 'none',
      example: '5 minutes',
    },
  ),
  cron: option(
    z
      .string()
      .refine((text) => cronFault(text) === null)
      .optional(),
    {
      sentence: `Times of ${what}s as a cron expression of EventBridge: minutes hours day-of-month month day-of-week year.`,
      form: 'six fields (minutes hours day-of-month month day-of-week year), one of the days being ?',
      default_text: 'none',
      example: '"0 6 * * ? *"',
    },
  ),
  timezone: option(z.string().refine(isTimezone).optional(), {
    sentence: 'Time zone of `cron` and `anchor`, by its IANA name.',
    form: 'an IANA time zone such as Europe/Zurich',
    default_text: '`UTC`',
    example: 'Europe/Zurich',
  }),
  anchor: option(z.string().regex(ANCHOR).optional(), {
    sentence: `Time of day from which \`every\` is counted, so that ${what}s run at fixed points.`,
    form: 'a time of day as "HH:MM"',
    default_text: 'none',
    example: '"06:00"',
  }),
});

export const scheduleOptions = z.strictObject({
  ...timesOf('window'),
  continuous: option(z.boolean().optional(), {
    sentence: 'Windows run back to back.',
    default_text: '`false`',
  }),
  paused: option(z.boolean().default(false), {
    sentence: 'No windows run. The slot stays, and holds WAL on the source.',
  }),
});

/** Of one table; the times are when it is loaded, or read by query. */
export const tableScheduleOptions = z.strictObject({
  ...timesOf('load'),
  paused: option(z.boolean().default(false), {
    sentence:
      'Nothing of the table is loaded, or read by query, until this is taken back. Its changes are staged all the same, and stay for `target.stage_retention_days`.',
  }),
});

export type TableSchedule = z.output<typeof tableScheduleOptions>;

export type ScheduleConfig = { readonly paused: boolean } & (
  | {
      readonly kind: 'every';
      readonly every_seconds: number;
      /** Time of day that the runs are counted from; null: from the first. */
      readonly anchor: { readonly hour: number; readonly minute: number } | null;
      readonly timezone: string;
    }
  /** `cron` in EventBridge's six fields: see `cron.ts`. */
  | { readonly kind: 'cron'; readonly cron: string; readonly timezone: string }
  | { readonly kind: 'continuous' }
);

const EVERY_DEFAULT_SECONDS = 5 * UNIT_SECONDS.minute;
export const SCHEDULE_DEFAULT: ScheduleConfig = {
  kind: 'every',
  every_seconds: EVERY_DEFAULT_SECONDS,
  anchor: null,
  timezone: 'UTC',
  paused: false,
};

/** The schedule that checked options say; `rules.ts` has made sure that they do not contradict each other. */
export function scheduleOf(
  given: z.output<typeof scheduleOptions> | z.output<typeof tableScheduleOptions>,
): ScheduleConfig {
  const { paused } = given;
  const timezone = given.timezone ?? 'UTC';
  if ('continuous' in given && given.continuous) return { kind: 'continuous', paused };
  if (given.cron !== undefined) return { kind: 'cron', cron: given.cron, timezone, paused };
  const [, hour, minute] = ANCHOR.exec(given.anchor ?? '') ?? [];
  return {
    kind: 'every',
    every_seconds: (given.every === undefined ? null : parseEvery(given.every)) ?? EVERY_DEFAULT_SECONDS,
    anchor: hour === undefined ? null : { hour: Number(hour), minute: Number(minute) },
    timezone,
    paused,
  };
}
