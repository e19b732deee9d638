/**
 * The times of a schedule, beyond what one place makes of them: when its next one is, whether one has come since it was last served, and how far apart they
 * are. Pure, in ms since the Unix epoch. The local scheduler, windows (table schedules) and the checks of the file ask here; EventBridge has the same times by
 * infra/aws/schedule.ts.
 *
 * `cron` and `anchor` mean points by the clock of their zone. `every` alone means a time from one to the next, wherever the first was.
 */
import { nextCronTime, zoneOffset } from './cron.ts';
import { type ScheduleConfig, scheduleOf } from './schedule.ts';
import type { Pipeline } from './schema.ts';

const DAY_SECONDS = 86_400;
const DAY_MS = DAY_SECONDS * 1000;
/** A window that was called for a point may begin this much before it, by its own clock. */
const EARLY_MS = 1_000;
/** EventBridge calls within a minute after its time (https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html): two calls are that much closer together at times. */
const CALL_MS_MAX = 60_000;

/** The first time after `after_ms`, which for `every` alone is counted from there; null: there will be none. Whether it is paused does not count. */
export function nextTime(schedule: ScheduleConfig, after_ms: number): number | null {
  switch (schedule.kind) {
    case 'continuous':
      return after_ms;
    case 'cron':
      return nextCronTime(schedule.cron, schedule.timezone, after_ms);
    case 'every':
      if (schedule.anchor === null) return after_ms + schedule.every_seconds * 1000;
      return nextAnchored(schedule.every_seconds, schedule.anchor, schedule.timezone, after_ms);
    default:
      return schedule satisfies never;
  }
}

/**
 * From when on the window that began at `began_ms` serves the schedule again that was served at `served_ms`; null: not in this window, or it is paused. Calls do
 * not come to the second, so that a window may begin a little early for an interval; one that lasts waits for its end.
 */
export function dueFrom(schedule: ScheduleConfig, served_ms: number, began_ms: number): number | null {
  if (schedule.paused) return null;
  if (schedule.kind === 'continuous') return served_ms < began_ms ? served_ms : null;
  if (schedule.kind === 'every' && schedule.anchor === null) {
    const every_ms = schedule.every_seconds * 1000;
    const early_ms = served_ms + every_ms - Math.min(CALL_MS_MAX, every_ms / 2);
    return early_ms <= began_ms ? early_ms : served_ms + every_ms;
  }
  const next_ms = nextTime(schedule, served_ms + EARLY_MS);
  return next_ms === null ? null : next_ms - EARLY_MS;
}

/** Two that name the same times, whatever they are of. */
export function timesText(schedule: ScheduleConfig): string {
  const { paused: _, ...times } = schedule;
  return JSON.stringify(times);
}

/** The times of tables at which windows run beside those of the pipeline: each once, without those at which there are windows anyway. */
export function tableTimes({ tables, schedule }: Pick<Pipeline, 'tables' | 'schedule'>): ScheduleConfig[] {
  if (schedule.kind === 'continuous') return [];
  const times = new Map<string, ScheduleConfig>();
  for (const { schedule: given } of tables) {
    const own = given && scheduleOf(given);
    if (own && !own.paused && !isWithin(own, schedule)) times.set(timesText(own), own);
  }
  return [...times.values()];
}

function isWithin(own: ScheduleConfig, windows: ScheduleConfig): boolean {
  if (timesText(own) === timesText(windows)) return true;
  if (own.kind !== 'every' || windows.kind !== 'every' || own.anchor !== null || windows.anchor !== null) return false;
  return own.every_seconds % windows.every_seconds === 0;
}

interface Anchor {
  readonly hour: number;
  readonly minute: number;
}

/**
 * An interval that divides the day has the same times by the clock on every day, and one of whole days the same time on every so many days, counted from
 * 1970. Any other is counted in real time, from the anchor's first occurrence in 1970.
 */
function nextAnchored(every_seconds: number, anchor: Anchor, timezone: string, after_ms: number): number | null {
  if (every_seconds % DAY_SECONDS === 0) {
    return nextOnDays(every_seconds / DAY_SECONDS, anchor, timezone, after_ms);
  }
  if (DAY_SECONDS % every_seconds !== 0) {
    const first_ms = nextCronTime(dailyCron(anchor), timezone, 0);
    return first_ms === null ? null : nextStep(first_ms, every_seconds * 1_000, after_ms);
  }
  const times = anchoredCrons(every_seconds / 60, anchor).map((cron) => nextCronTime(cron, timezone, after_ms));
  return times.reduce((least, time) => (least === null || (time !== null && time < least) ? time : least), null);
}

function nextOnDays(days: number, anchor: Anchor, timezone: string, after_ms: number): number | null {
  let at_ms = nextCronTime(dailyCron(anchor), timezone, after_ms);
  // One of so many days in a row, and one more round where the clocks change on that day.
  for (let i = 0; at_ms !== null && i < 2 * days; i++) {
    const day = Math.floor((at_ms + zoneOffset(at_ms, timezone)) / DAY_MS);
    if (day % days === 0) return at_ms;
    at_ms = nextCronTime(dailyCron(anchor), timezone, at_ms);
  }
  return at_ms;
}

export function dailyCron({ hour, minute }: Anchor): string {
  return `${minute} ${hour} * * ? *`;
}

/** The first of `from_ms + n · step_ms` after `after_ms`. */
export function nextStep(from_ms: number, step_ms: number, after_ms: number): number {
  return from_ms + (Math.floor((after_ms - from_ms) / step_ms) + 1) * step_ms;
}

/** The crons that together run every `every_minutes`, a divisor of the day, counted from the anchor. Their times never meet. */
export function anchoredCrons(every_minutes: number, anchor: Anchor): string[] {
  const hoursByMinute = new Map<number, number[]>();
  for (let i = 0; i < DAY_SECONDS / 60 / every_minutes; i++) {
    const point = (anchor.hour * 60 + anchor.minute + i * every_minutes) % (DAY_SECONDS / 60);
    hoursByMinute.set(point % 60, [...(hoursByMinute.get(point % 60) ?? []), Math.floor(point / 60)]);
  }
  const minutesByHours = new Map<string, number[]>();
  for (const [minute, hours] of [...hoursByMinute].sort(([a], [b]) => a - b)) {
    const text = hours.length === 24 ? '*' : hours.sort((a, b) => a - b).join(',');
    minutesByHours.set(text, [...(minutesByHours.get(text) ?? []), minute]);
  }
  return [...minutesByHours].map(([hours, minutes]) => `${minutes.join(',')} ${hours} * * ? *`);
}

/** Gaps are looked for from here, over so many days: fixed, so that the answer depends on the schedule alone. */
const GAP_FROM_MS = Date.UTC(2026, 0, 1);
const GAP_DAYS = 400;
/** Runs of a cron that are looked at one by one; after these, at most one a day. */
const GAP_RUNS = 2000;

/** The longest time between two runs of a cron expression, ms; null: there will not be two. An estimate for crons that run often but seldom begin. */
export function longestCronGap(cron: string, timezone: string): number | null {
  let at_ms = nextCronTime(cron, timezone, GAP_FROM_MS);
  let gap_ms: number | null = null;
  for (let runs = 0; at_ms !== null && at_ms < GAP_FROM_MS + GAP_DAYS * DAY_MS; runs++) {
    const next_ms = nextCronTime(cron, timezone, at_ms);
    if (next_ms === null) break;
    gap_ms = Math.max(gap_ms ?? 0, next_ms - at_ms);
    at_ms = runs < GAP_RUNS ? next_ms : Math.max(next_ms, at_ms + DAY_MS);
  }
  return gap_ms;
}
