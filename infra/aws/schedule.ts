/**
 * The pipeline's `schedule` as schedules of EventBridge, and the longest time that passes between two windows by it. Pure.
 *
 * - `every`       → `rate(…)`, counted from the deployment.
 * - with `anchor` → `cron(…)` at the fixed points, in the schedule's time zone. A rate with a start date would say the same, but Scheduler takes
 *                   no start date in the past, and one in the future would differ in every synth.
 * - `cron`        → as it is, in the schedule's time zone. On the day the clocks change, Scheduler leaves out a time that does not exist, and runs
 *                   once at one that comes twice.
 * - `continuous`  → `rate(1 minute)`: Scheduler has nothing shorter, and needs nothing. A window lives as long as its function (15 minutes), a tick
 *                   that comes meanwhile finds the one reserved execution taken and is dropped after a minute (limits.ts), and the
 *                   first tick after its end opens the next window. Should two ever start, the lease lets one of them skip.
 */
import { Duration, TimeZone } from 'aws-cdk-lib';
import { ScheduleExpression } from 'aws-cdk-lib/aws-scheduler';
import { nextCronTime } from '../../lib/config/cron.ts';
import type { ScheduleConfig } from '../../lib/config/schema.ts';
import { SluiceError } from '../../lib/errors.ts';
import { FUNCTION_LIMITS } from './limits.ts';

const MINUTES_A_DAY = 24 * 60;
const DAY_MS = 86_400_000;

/** One expression, but for an anchored interval that no single cron expression can say: then several, whose times never meet. */
export function expressionsOf(schedule: ScheduleConfig): ScheduleExpression[] {
  if (schedule.kind === 'continuous') return [ScheduleExpression.rate(Duration.minutes(1))];
  const cronIn = (cron: string): ScheduleExpression =>
    ScheduleExpression.expression(`cron(${cron})`, TimeZone.of(schedule.timezone));
  if (schedule.kind === 'cron') return [cronIn(schedule.cron)];
  if (!schedule.anchor) return [ScheduleExpression.rate(Duration.seconds(schedule.every_seconds))];
  return anchoredCrons(schedule.every_seconds / 60, schedule.anchor).map(cronIn);
}

/**
 * The crons that together run every `every_minutes`, counted from the anchor. Throws CONFIG_INVALID for an interval that does not divide a day:
 * its points move from day to day, which no cron expression can say.
 */
function anchoredCrons(every_minutes: number, anchor: { readonly hour: number; readonly minute: number }): string[] {
  if (MINUTES_A_DAY % every_minutes !== 0) {
    throw new SluiceError('CONFIG_INVALID', {
      problem:
        'On AWS, schedule.anchor needs an interval that divides a day, such as 15 minutes, 90 minutes or 6 hours.',
      remedy: 'Choose such an interval for schedule.every, or leave out schedule.anchor, or give schedule.cron.',
    });
  }
  const hoursByMinute = new Map<number, number[]>();
  for (let i = 0; i < MINUTES_A_DAY / every_minutes; i++) {
    const point = (anchor.hour * 60 + anchor.minute + i * every_minutes) % MINUTES_A_DAY;
    hoursByMinute.set(point % 60, [...(hoursByMinute.get(point % 60) ?? []), Math.floor(point / 60)]);
  }
  const minutesByHours = new Map<string, number[]>();
  for (const [minute, hours] of [...hoursByMinute].sort(([a], [b]) => a - b)) {
    const text = hours.length === 24 ? '*' : hours.sort((a, b) => a - b).join(',');
    minutesByHours.set(text, [...(minutesByHours.get(text) ?? []), minute]);
  }
  return [...minutesByHours].map(([hours, minutes]) => `${minutes.join(',')} ${hours} * * ? *`);
}

/** Gaps are looked for from here, over so many days: fixed, so that a synth depends on its input alone. */
const GAP_FROM_MS = Date.UTC(2026, 0, 1);
const GAP_DAYS = 400;
/** Runs of a cron that are looked at one by one; after these, at most one a day. */
const GAP_RUNS = 2000;

/** The longest time between the starts of two windows, in ms; null: no two windows will ever run. An estimate for crons that run often but seldom begin. */
export function longestGap(schedule: ScheduleConfig): number | null {
  if (schedule.paused) return null;
  if (schedule.kind === 'every') return schedule.every_seconds * 1000;
  if (schedule.kind === 'continuous')
    return FUNCTION_LIMITS.drain.timeout.toMilliseconds() + Duration.minutes(1).toMilliseconds();
  let at_ms = nextCronTime(schedule.cron, schedule.timezone, GAP_FROM_MS);
  let gap_ms: number | null = null;
  for (let runs = 0; at_ms !== null && at_ms < GAP_FROM_MS + GAP_DAYS * DAY_MS; runs++) {
    const next_ms = nextCronTime(schedule.cron, schedule.timezone, at_ms);
    if (next_ms === null) break;
    gap_ms = Math.max(gap_ms ?? 0, next_ms - at_ms);
    at_ms = runs < GAP_RUNS ? next_ms : Math.max(next_ms, at_ms + DAY_MS);
  }
  return gap_ms;
}
