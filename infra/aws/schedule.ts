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
import type { Pipeline, ScheduleConfig } from '../../lib/config/schema.ts';
import { anchoredCrons, dailyCron, longestCronGap, tableTimes } from '../../lib/config/times.ts';
import { SluiceError } from '../../lib/errors.ts';
import { FUNCTION_LIMITS } from './limits.ts';

const MINUTES_A_DAY = 24 * 60;

/**
 * One expression, but for an anchored interval that no single cron expression can say: then several, whose times never meet. Throws CONFIG_INVALID for an
 * anchored interval that does not divide a day: its points move from day to day, which no cron expression can say.
 */
export function expressionsOf(schedule: ScheduleConfig): ScheduleExpression[] {
  if (schedule.kind === 'continuous') return [ScheduleExpression.rate(Duration.minutes(1))];
  const cronIn = (cron: string): ScheduleExpression =>
    ScheduleExpression.expression(`cron(${cron})`, TimeZone.of(schedule.timezone));
  if (schedule.kind === 'cron') return [cronIn(schedule.cron)];
  if (!schedule.anchor) return [ScheduleExpression.rate(Duration.seconds(schedule.every_seconds))];
  const every_minutes = schedule.every_seconds / 60;
  if (MINUTES_A_DAY % every_minutes !== 0) {
    throw new SluiceError('CONFIG_INVALID', {
      problem:
        'On AWS, schedule.anchor needs an interval that divides a day, such as 15 minutes, 90 minutes or 6 hours.',
      remedy: 'Choose such an interval for schedule.every, or leave out schedule.anchor, or give schedule.cron.',
    });
  }
  return anchoredCrons(every_minutes, schedule.anchor).map(cronIn);
}

/**
 * Those of tables with a schedule of their own, without what the pipeline's has already: a window at each of their times, in which lib/window decides whose
 * time it is. For some days and an anchor that is every day, at that time. Throws as `expressionsOf`.
 */
export function tableExpressionsOf(pipeline: Pick<Pipeline, 'tables' | 'schedule'>): ScheduleExpression[] {
  const known = new Set(expressionsOf(pipeline.schedule).map(expressionText));
  const own = tableTimes(pipeline).flatMap((schedule) => {
    if (schedule.kind !== 'every' || !schedule.anchor || (schedule.every_seconds / 60) % MINUTES_A_DAY !== 0)
      return expressionsOf(schedule);
    return expressionsOf({ ...schedule, kind: 'cron', cron: dailyCron(schedule.anchor) });
  });
  const different = new Map(own.map((expression) => [expressionText(expression), expression]));
  return [...different].filter(([text]) => !known.has(text)).map(([, expression]) => expression);
}

function expressionText({ expressionString, timeZone }: ScheduleExpression): string {
  return `${expressionString} ${timeZone?.timezoneName ?? ''}`;
}

/** The longest time between the starts of two windows, in ms; null: no two windows will ever run. An estimate for crons that run often but seldom begin. */
export function longestGap(schedule: ScheduleConfig): number | null {
  if (schedule.paused) return null;
  if (schedule.kind === 'every') return schedule.every_seconds * 1000;
  if (schedule.kind === 'continuous')
    return FUNCTION_LIMITS.drain.timeout.toMilliseconds() + Duration.minutes(1).toMilliseconds();
  return longestCronGap(schedule.cron, schedule.timezone);
}
