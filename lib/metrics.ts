/**
 * The numbers that a pipeline reports of itself, named once: the functions print them, the alarms (infra/aws/monitoring.ts) read them, and
 * docs/OPERATIONS.md explains them. Beside the path: nothing here decides what happens to a change.
 *
 * They travel as log lines in CloudWatch's embedded metric format, so that printing a line is all it takes: no call, no right, no wait. The
 * line must reach stdout as it is (`process.stdout.write`): Lambda's `console.log` wraps it in its own JSON, and then it is no metric.
 */
export const METRIC_NAMESPACE = 'Sluice';

/** The only dimension: the pipeline's name. One more (the stream) would multiply what CloudWatch charges for. */
export const METRIC_DIMENSION = 'pipeline';

interface MetricEntry {
  /** A unit of CloudWatch (https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html). */
  readonly unit: 'Bytes' | 'Count' | 'Seconds';
  /** What it says, and who prints it when. */
  readonly sentence: string;
}

export const METRICS = {
  streams_halted: {
    unit: 'Count',
    sentence:
      'Streams of the pipeline that wait for a person. Printed by drain after every window, and by load and extract when they halt a stream or find one halted.',
  },
  slot_lag_bytes: {
    unit: 'Bytes',
    sentence:
      'WAL that the source keeps for the slot, also for a transaction that has been open since. Printed by drain after every window that has seen the slot.',
  },
  safe_wal_bytes: {
    unit: 'Bytes',
    sentence:
      'WAL that the source can still write before it gives the slot up; 0 for a slot that is lost, absent where max_slot_wal_keep_size sets no limit. What was left when it was least in the window. Printed by drain after every window that has seen the slot.',
  },
  windows_succeeded: {
    unit: 'Count',
    sentence:
      'Windows that ended without an error: 1 or 0 for each. Printed by drain after every window; one that was skipped because another holds the lease prints nothing.',
  },
  rejected_rows: {
    unit: 'Count',
    sentence:
      'Rows that were left out because they are not valid (`target.on_invalid: reject`), and neither loaded again nor discarded. Printed by drain after every window.',
  },
  unfinished_windows: {
    unit: 'Count',
    sentence:
      'Windows that one transaction has taken which none of them has come to the end of; 0: there is none. Printed by drain after every window that ended without an error.',
  },
  applied_lag_seconds: {
    unit: 'Seconds',
    sentence:
      'Age of the oldest recorded change that a live stream has not applied; halted streams do not count; 0 when nothing waits. Printed by drain after every window.',
  },
} as const satisfies Record<string, MetricEntry>;

export type MetricName = keyof typeof METRICS;
export const METRIC_NAMES = Object.keys(METRICS) as MetricName[];

/** Values to report; null, like absence: not known at this moment, not reported. */
export type MetricValues = Readonly<Partial<Record<MetricName, number | null>>>;

/**
 * One line (without its newline) that reports `metrics` for `pipeline` at `now_ms` (since the Unix epoch). It is a valid line even when every
 * value is null: then it reports nothing. Throws RangeError for a value that is not finite, which CloudWatch would drop without a word.
 * (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html)
 */
export function metricLine(metrics: MetricValues, pipeline: string, now_ms: number): string {
  const values: Partial<Record<MetricName, number>> = {};
  for (const name of METRIC_NAMES) {
    const value = metrics[name];
    if (value === null || value === undefined) continue;
    if (!Number.isFinite(value)) throw new RangeError(`metric ${name} is not a finite number: ${value}`);
    values[name] = value;
  }
  const reported = METRIC_NAMES.filter((name) => values[name] !== undefined);
  if (reported.length === 0) return JSON.stringify({ [METRIC_DIMENSION]: pipeline });
  const directive = {
    Namespace: METRIC_NAMESPACE,
    Dimensions: [[METRIC_DIMENSION]],
    Metrics: reported.map((name) => ({ Name: name, Unit: METRICS[name].unit })),
  };
  return JSON.stringify({
    _aws: { Timestamp: now_ms, CloudWatchMetrics: [directive] },
    [METRIC_DIMENSION]: pipeline,
    ...values,
  });
}
