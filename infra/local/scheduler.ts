/**
 * When the next window begins: what EventBridge Scheduler does on AWS. `nextWindow` decides and is pure; `runSchedule` waits and calls.
 * Never two windows at once: a time that passes while one runs is let go, as the reserved concurrency of 1 does on AWS.
 */
import type { ScheduleConfig } from '../../lib/config/schema.ts';
import { nextStep, nextTime } from '../../lib/config/times.ts';

/** Times in ms since the Unix epoch. */
export interface ScheduleState {
  /** Start of the schedule's first window; null: none yet. */
  readonly first_ms: number | null;
  /** Start and end of the last window. */
  readonly began_ms: number | null;
  readonly ended_ms: number | null;
  /** Windows that failed since the last one that did not (`windowSucceeded`). */
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

/** Whether a window, by its report, got anywhere: one that was cut off after it had recorded something has, and what comes next is not put off for it. Pure. */
export function windowSucceeded(report: unknown): boolean {
  const { stopped_by, cuts = 0 } = (report ?? {}) as { stopped_by?: unknown; cuts?: number };
  return stopped_by !== 'failed' || cuts > 0;
}

/** The time at which the next window begins, at the earliest `now_ms`; null: never. */
export function nextWindow(schedule: ScheduleConfig, state: ScheduleState, now_ms: number): number | null {
  if (schedule.paused) return null;
  switch (schedule.kind) {
    case 'continuous': {
      const gap_ms = Math.min(CONTINUOUS_GAP_MS * 2 ** state.failures, CONTINUOUS_GAP_MS_MAX);
      return state.ended_ms === null ? now_ms : Math.max(now_ms, state.ended_ms + gap_ms);
    }
    case 'cron':
      return nextTime(schedule, now_ms);
    case 'every':
      if (schedule.anchor !== null) return nextTime(schedule, now_ms);
      return state.first_ms === null ? now_ms : nextStep(state.first_ms, schedule.every_seconds * 1_000, now_ms);
    default:
      return schedule satisfies never;
  }
}

/**
 * The next window, where tables have times of their own (`tableTimes` of lib/config/times.ts). Such a time is not let go when it passes during a window, which
 * may have looked at the source before it: another window follows at once.
 */
export function nextWindowOf(
  schedule: ScheduleConfig,
  tables: readonly ScheduleConfig[],
  state: ScheduleState,
  now_ms: number,
): number | null {
  if (schedule.paused) return null;
  const times = tables.map((own) => {
    const isPoint = own.kind === 'cron' || (own.kind === 'every' && own.anchor !== null);
    const at_ms = nextWindow(own, state, isPoint ? (state.began_ms ?? now_ms) : now_ms);
    return at_ms === null ? null : Math.max(at_ms, now_ms);
  });
  const known = [nextWindow(schedule, state, now_ms), ...times].filter((at_ms) => at_ms !== null);
  return known.length === 0 ? null : Math.min(...known);
}

export interface ScheduleRun {
  readonly schedule: ScheduleConfig;
  /** Of tables, beside it; none where it is left out. */
  readonly tables?: readonly ScheduleConfig[];
  readonly clock: SchedulerClock;
  readonly signal: AbortSignal;
  /** One window, from beginning to end; false: it failed, and whoever reports that has done so. */
  readonly window: () => Promise<boolean>;
}

/** Runs windows until the signal is aborted, or until there will never be another. A window that is running then is waited for. */
export async function runSchedule({ schedule, tables = [], clock, signal, window }: ScheduleRun): Promise<void> {
  let state: ScheduleState = { first_ms: null, began_ms: null, ended_ms: null, failures: 0 };
  while (!signal.aborted) {
    const at_ms = nextWindowOf(schedule, tables, state, clock.now());
    if (at_ms === null) return;
    while (!signal.aborted && clock.now() < at_ms)
      await clock.sleep(Math.min(at_ms - clock.now(), SLEEP_MS_MAX), signal);
    if (signal.aborted) return;
    const began_ms = clock.now();
    const succeeded = await window();
    state = {
      first_ms: state.first_ms ?? at_ms,
      began_ms,
      ended_ms: clock.now(),
      failures: succeeded ? 0 : state.failures + 1,
    };
  }
}
