/**
 * When the next window begins: what EventBridge Scheduler does on AWS. `nextWindow` decides and is pure; `runSchedule` waits and calls.
 * Never two windows at once: a time that passes while one runs is let go, as the reserved concurrency of 1 does on AWS.
 */
import { nextCronTime } from '../../lib/config/cron.ts';
import type { ScheduleConfig } from '../../lib/config/schema.ts';

/** Times in ms since the Unix epoch. */
export interface ScheduleState {
  /** Start of the schedule's first window; null: none yet. */
  readonly first_ms: number | null;
  /** End of the last window. */
  readonly ended_ms: number | null;
  /** Windows that failed since the last one that did not. */
  readonly failures: number;
}

export interface SchedulerClock {
  now(): number;
  /** Resolves after `ms`, or at once when `signal` is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** Windows back to back still leave a breath in between, and a longer one, doubling, while they fail. */
export const CONTINUOUS_GAP_MS = 1_000;
export const CONTINUOUS_GAP_MS_MAX = 60_000;
/** Looked at anew after at most so long: clocks are set, and laptops sleep. */
const SLEEP_MS_MAX = 60_000;
const DAY_SECONDS = 86_400;

/** The time at which the next window begins, at the earliest `now_ms`; null: never. */
export function nextWindow(schedule: ScheduleConfig, state: ScheduleState, now_ms: number): number | null {
  if (schedule.paused) return null;
  switch (schedule.kind) {
    case 'continuous': {
      const gap_ms = Math.min(CONTINUOUS_GAP_MS * 2 ** state.failures, CONTINUOUS_GAP_MS_MAX);
      return state.ended_ms === null ? now_ms : Math.max(now_ms, state.ended_ms + gap_ms);
    }
    case 'cron':
      return nextCronTime(schedule.cron, schedule.timezone, now_ms);
    case 'every': {
      const every_ms = schedule.every_seconds * 1_000;
      if (schedule.anchor !== null)
        return nextAnchored(schedule.every_seconds, schedule.anchor, schedule.timezone, now_ms);
      return state.first_ms === null ? now_ms : nextStep(state.first_ms, every_ms, now_ms);
    }
    default:
      return schedule satisfies never;
  }
}

/** The first of `from_ms + n · step_ms` after `now_ms`. */
function nextStep(from_ms: number, step_ms: number, now_ms: number): number {
  return from_ms + (Math.floor((now_ms - from_ms) / step_ms) + 1) * step_ms;
}

/**
 * An interval that divides the day has the same times by the clock on every day, as its crons have on AWS (infra/aws/schedule.ts). Any other is
 * counted in real time, from the anchor's first occurrence in 1970.
 */
function nextAnchored(
  every_seconds: number,
  anchor: { readonly hour: number; readonly minute: number },
  timezone: string,
  now_ms: number,
): number | null {
  if (DAY_SECONDS % every_seconds !== 0) {
    const first_ms = nextCronTime(`${anchor.minute} ${anchor.hour} * * ? *`, timezone, 0);
    return first_ms === null ? null : nextStep(first_ms, every_seconds * 1_000, now_ms);
  }
  const hoursByMinute = new Map<number, number[]>();
  for (let second = 0; second < DAY_SECONDS; second += every_seconds) {
    const minutes = anchor.hour * 60 + anchor.minute + second / 60;
    hoursByMinute.set(minutes % 60, [...(hoursByMinute.get(minutes % 60) ?? []), Math.floor(minutes / 60) % 24]);
  }
  const times = [...hoursByMinute].map(([minute, hours]) =>
    nextCronTime(`${minute} ${hours.join(',')} * * ? *`, timezone, now_ms),
  );
  return times.reduce((least, time) => (least === null || (time !== null && time < least) ? time : least), null);
}

export interface ScheduleRun {
  readonly schedule: ScheduleConfig;
  readonly clock: SchedulerClock;
  readonly signal: AbortSignal;
  /** One window, from beginning to end; false: it failed, and whoever reports that has done so. */
  readonly window: () => Promise<boolean>;
}

/** Runs windows until the signal is aborted, or until there will never be another. A window that is running then is waited for. */
export async function runSchedule({ schedule, clock, signal, window }: ScheduleRun): Promise<void> {
  let state: ScheduleState = { first_ms: null, ended_ms: null, failures: 0 };
  while (!signal.aborted) {
    const at_ms = nextWindow(schedule, state, clock.now());
    if (at_ms === null) return;
    while (!signal.aborted && clock.now() < at_ms)
      await clock.sleep(Math.min(at_ms - clock.now(), SLEEP_MS_MAX), signal);
    if (signal.aborted) return;
    const succeeded = await window();
    state = {
      first_ms: state.first_ms ?? at_ms,
      ended_ms: clock.now(),
      failures: succeeded ? 0 : state.failures + 1,
    };
  }
}
