/**
 * When a window ends (design §3, Window 4): a pure decision, asked after every read.
 */
import { type Lsn, lsnBytesBetween } from '../lsn.ts';
import type { StopReason } from '../ports.ts';

/** Largest page of WAL that a server can be built with (--with-wal-blocksize, KiB). */
const WAL_PAGE_BYTES_MAX = 64 * 1024;
/** Answered keepalives at one and the same position after which the server is known to stand still. */
const STANDSTILL_ANSWERS = 3;

export interface Progress {
  readonly now_ms: number;
  readonly started_at_ms: number;
  /** Everything up to here has been read: the end of the last commit, or a later keepalive's position. */
  readonly position: Lsn;
  /** Keepalives in a row that came with the same position. */
  readonly standstill: number;
  /** Inside a transaction nothing ends but by the deadline, or by somebody who has waited: what was read of it is passed over by the next window. */
  readonly inTransaction: boolean;
  /** The window has come no further yet, and the reader is in the middle of what the next window would have to begin anew, for ever. */
  readonly isFirst: boolean;
}

export interface StopRules {
  /** Stop at or past it; null: go on. */
  readonly end_lsn: Lsn | null;
  /** Where the source stood when `logical_poll_total_seconds` had passed without data; null while they have not. */
  readonly quiet_lsn: Lsn | null;
  readonly max_run_ms: number;
  /** The function's deadline less its margin, ms since the Unix epoch. */
  readonly deadline_ms: number;
  /** Somebody wants the window to end. */
  readonly asked: boolean;
  /** Since when, ms since the Unix epoch. */
  readonly asked_at_ms?: number | null;
}

/** Most transactions come to their end meanwhile. Whoever asks has not much more time than that (GRACE_MS of the local engine). */
const ASKED_IN_TRANSACTION_MS = 3_000;

/**
 * A window takes stock at its beginning and its end: new tables, copies that are wanted, shapes that nobody has written in yet. So windows that follow
 * each other without a pause are short.
 */
const WINDOW_CONTINUOUS_MS_MAX = 60_000;

/** The longest time of one window. A transaction that is being read is read to its end all the same, and so is the first call of a reader by calls. */
export function windowMsMax(max_run_ms: number, schedule: string): number {
  return schedule === 'continuous' ? Math.min(max_run_ms, WINDOW_CONTINUOUS_MS_MAX) : max_run_ms;
}

/** Why the window ends now; null: it goes on. */
export function stopReason(progress: Progress, rules: StopRules): StopReason | null {
  if (progress.now_ms >= rules.deadline_ms) return 'deadline';
  if (progress.inTransaction) {
    const waited_ms = rules.asked && rules.asked_at_ms != null ? progress.now_ms - rules.asked_at_ms : 0;
    return waited_ms >= ASKED_IN_TRANSACTION_MS ? 'asked' : null;
  }
  if (rules.asked) return 'asked';
  if (!progress.isFirst && progress.now_ms - progress.started_at_ms >= rules.max_run_ms) return 'max_run';
  if (rules.end_lsn !== null && hasReached(progress, rules.end_lsn)) return 'end_lsn';
  if (rules.quiet_lsn !== null && hasReached(progress, rules.quiet_lsn)) return 'no_data';
  return null;
}

/**
 * A server's flush position can lie within a record, when WAL was written out by pages; decoding stops before that record, and nothing moves it on
 * until there is more WAL. So a server that stands still less than a page before the position has sent what there is up to it.
 */
export function hasReached(progress: Pick<Progress, 'position' | 'standstill'>, lsn: Lsn): boolean {
  if (progress.position >= lsn) return true;
  return progress.standstill >= STANDSTILL_ANSWERS && lsnBytesBetween(progress.position, lsn) < WAL_PAGE_BYTES_MAX;
}
