/**
 * When a cut ends and when a stream's doorbell is rung: pure decisions, with the time and the limits passed in.
 */

/** A cut is due at the first commit past any of these. */
export const CUT_TEXT_BYTES_MAX = 32 * 1024 * 1024;
export const CUT_CHANGES_MAX = 500_000;
export const CUT_AGE_MS_MAX = 10_000;
/** Where windows run back to back, somebody waits for the rows. */
export const CUT_AGE_CONTINUOUS_MS_MAX = 500;
/** With nothing more to read, a cut is due at this age: soon enough to be fresh, seldom enough not to make a PUT of every commit. */
export const CUT_QUIET_AGE_MS_MIN = 300;

export interface CutSize {
  readonly text_bytes: number;
  readonly changes: number;
  /** Since its first change. */
  readonly age_ms: number;
}

/** At a commit: does the cut end here? `quiet`: the server has nothing more at the moment. */
export function cutIsDue(size: CutSize, quiet: boolean, age_ms_max: number): boolean {
  if (size.changes === 0) return false;
  return (
    size.text_bytes >= CUT_TEXT_BYTES_MAX ||
    size.changes >= CUT_CHANGES_MAX ||
    size.age_ms >= age_ms_max ||
    (quiet && size.age_ms >= CUT_QUIET_AGE_MS_MIN)
  );
}

export interface BatchOptions {
  readonly batch_size_rows: number;
  readonly batch_flush_interval_ms: number;
  readonly batch_flush_min_time_gap_ms: number;
  readonly flush_all_streams: boolean;
  /** All streams are loaded together (consistency: transaction): one that is due makes all due. */
  readonly together?: boolean;
}

/** What has been recorded for one stream since its doorbell was last rung. */
export interface PendingBatch {
  readonly rows: number;
  /** Newest cut with something for the stream. */
  readonly cut: number;
  readonly since_ms: number;
}

/**
 * Streams whose batch is due: full by rows; or older than the interval, and not rung by the clock more often than the least gap allows.
 * With `flush_all_streams`, one that is full makes all due; where they are loaded together, one that is due.
 */
export function batchesDue(
  pending: ReadonlyMap<string, PendingBatch>,
  rung_at_ms: ReadonlyMap<string, number>,
  now_ms: number,
  options: BatchOptions,
): string[] {
  const full = [...pending].filter(([, batch]) => batch.rows >= options.batch_size_rows).map(([stream]) => stream);
  if (options.flush_all_streams && full.length > 0) return [...pending.keys()];
  const old = [...pending]
    .filter(([stream, batch]) => {
      if (batch.rows >= options.batch_size_rows) return false;
      const last_ms = rung_at_ms.get(stream) ?? Number.NEGATIVE_INFINITY;
      return (
        now_ms - batch.since_ms >= options.batch_flush_interval_ms &&
        now_ms - last_ms >= options.batch_flush_min_time_gap_ms
      );
    })
    .map(([stream]) => stream);
  const due = [...full, ...old];
  return options.together && due.length > 0 ? [...pending.keys()] : due;
}
