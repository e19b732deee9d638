/**
 * Every number of the stack, named, with the reason for its size. The rules between them (visibility ≥ 6 × timeout, lease > timeout) are
 * written as such, so that changing one moves the other; test/infra holds them against the template.
 */
import { Duration } from 'aws-cdk-lib';
import { SAFE_WAL_BYTES_MIN } from '../../lib/slot/room.ts';

export const FUNCTION_NAMES = ['drain', 'extract', 'load', 'backfill', 'operate'] as const;
export type FunctionName = (typeof FUNCTION_NAMES)[number];

interface FunctionLimits {
  /** Lambda gives one full vCPU at 1,769 MB (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html). */
  readonly memory_mb: number;
  readonly timeout: Duration;
}

export const FUNCTION_LIMITS: Readonly<Record<FunctionName, FunctionLimits>> = {
  // A window may use all the time that Lambda gives. It decodes on one core; more memory would buy cores that it leaves idle.
  drain: { memory_mb: 1769, timeout: Duration.minutes(15) },
  // A chunk is one COPY from the source: as long as the source takes.
  extract: { memory_mb: 1769, timeout: Duration.minutes(15) },
  // What does not fit goes on with the next doorbell. But a source transaction is one on the target too (I3), and a first sync ends with the
  // making of a primary key: the longest of these must fit, so it has all the time that there is.
  load: { memory_mb: 1024, timeout: Duration.minutes(15) },
  // These two read and write some items of the ledger, and wait for nothing.
  backfill: { memory_mb: 512, timeout: Duration.minutes(5) },
  operate: { memory_mb: 512, timeout: Duration.minutes(1) },
};

/** Longer than a window can live: a lease that ended sooner would let a second window read beside the first. */
export const LEASE = Duration.minutes(FUNCTION_LIMITS.drain.timeout.toMinutes() + 1);

/** One slot, one reader. The lease would keep a second window out too; this keeps it from being started and paid. */
export const DRAIN_CONCURRENCY = 1;

/**
 * How long an event for `drain` may wait while a window runs; the least that Lambda and Scheduler allow. A late event has no worth, since the
 * next tick asks for the same window again.
 */
export const WINDOW_EVENT_AGE_MAX = Duration.minutes(1);

/** AWS asks for six times the function's timeout (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html): fewer, and a message comes again while it is worked on. */
export const VISIBILITY_TIMEOUTS = 6;

export function visibilityOf(name: FunctionName): Duration {
  return Duration.seconds(FUNCTION_LIMITS[name].timeout.toSeconds() * VISIBILITY_TIMEOUTS);
}

/**
 * Receives before a message is put aside. functions/doorbells.ts gives a message back for 5 seconds, then 20, 80, 320, 900: eight of them are an
 * hour at most, long enough for a target's maintenance. It is a doorbell (I9): the next window rings again.
 */
export const RECEIVES_MAX = 8;

/** The most that SQS keeps: time to look at what was put aside. */
export const DLQ_RETENTION = Duration.days(14);

/** What Lambda's event source accepts as its maximum concurrency. */
export const SOURCE_CONCURRENCY_MIN = 2;
export const SOURCE_CONCURRENCY_MAX = 1000;

/** Parts of an upload that a killed window left; no window lives for a day. */
export const UPLOAD_ABORT = Duration.days(1);

// ── Alarms ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** WAL kept for the slot: 10 GiB is a day of a small database or an hour of a busy one, and no disk yet. */
export const SLOT_LAG_ALARM_BYTES = 10 * 1024 ** 3;

/** WAL that may still be written before the slot is lost: time to act, not to write a report. */
export const SAFE_WAL_ALARM_BYTES = SAFE_WAL_BYTES_MIN;

/** A recorded change is applied within a minute when all is well; a load that fails is tried again within the hour. */
export const APPLIED_LAG_ALARM = Duration.hours(1);

/** Missed windows in a row before it is said that there are none. */
export const WINDOWS_MISSED_MAX = 3;

/** The least that the alarm above waits: a window may run for 15 minutes before it reports. */
export const WINDOW_SILENCE_MIN = Duration.minutes(45);

/** A doorbell for load that is as old has been given back again and again; chunks of a first sync may have to wait their turn. */
export const QUEUE_AGE_ALARM = { load: Duration.hours(1), extract: Duration.hours(3) } as const;

/** So long every window must have failed before it is said; a single one may be the only one. */
export const WINDOW_FAILED_PERIOD = Duration.minutes(15);
