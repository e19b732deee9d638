/**
 * The alarms. Each is named `sluice-<pipeline>-<name>`, and `<name>` is the heading of its article in docs/OPERATIONS.md; a test holds the two
 * sets together. An alarm says that a person is needed: what heals by itself (a skipped window, a retried load) has none.
 */
import { Duration } from 'aws-cdk-lib';
import { Alarm, ComparisonOperator, type IMetric, Metric, Stats, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import { METRIC_DIMENSION, METRIC_NAMESPACE, type MetricName } from '../../lib/metrics.ts';
import {
  APPLIED_LAG_ALARM,
  FUNCTION_NAMES,
  type FunctionName,
  QUEUE_AGE_ALARM,
  SAFE_WAL_ALARM_BYTES,
  SLOT_LAG_ALARM_BYTES,
  WINDOW_FAILED_PERIOD,
  WINDOW_SILENCE_MIN,
  WINDOWS_MISSED_MAX,
} from './limits.ts';
import type { DoorbellQueue } from './stateful-stack.ts';

export interface MonitoringProps {
  /** Name of the pipeline. */
  readonly pipeline: string;
  readonly functions: Readonly<Record<FunctionName, LambdaFunction>>;
  readonly queues: Readonly<Record<'load' | 'extract', DoorbellQueue>>;
  /** Longest time between two windows by the schedule; null: none will run. */
  readonly gap_ms: number | null;
  /** ARN of the SNS topic that is told; null: alarms only change their state. */
  readonly topic_arn: string | null;
}

interface AlarmEntry {
  /** Also the heading of its article. */
  readonly name: string;
  readonly meaning: string;
  readonly metric: IMetric;
  readonly comparison: ComparisonOperator;
  readonly threshold: number;
  readonly periods: number;
  readonly missing: TreatMissingData;
}

const PERIOD = Duration.minutes(5);
/** CloudWatch looks back a day at most with periods under an hour, and a week with longer ones (PutMetricAlarm, EvaluationPeriods). */
const LOOK_BACK_SHORT = Duration.days(1);
const LOOK_BACK_LONG = Duration.days(7);

export class Monitoring extends Construct {
  constructor(scope: Construct, id: string, props: MonitoringProps) {
    super(scope, id);
    const topic = props.topic_arn === null ? null : Topic.fromTopicArn(this, 'Topic', props.topic_arn);
    for (const entry of alarmsOf(props)) {
      const alarm = new Alarm(this, entry.name, {
        alarmName: `sluice-${props.pipeline}-${entry.name}`,
        alarmDescription: `${entry.meaning} What to do: docs/OPERATIONS.md, "${entry.name}".`,
        metric: entry.metric,
        comparisonOperator: entry.comparison,
        threshold: entry.threshold,
        evaluationPeriods: entry.periods,
        datapointsToAlarm: entry.periods,
        treatMissingData: entry.missing,
      });
      if (topic) {
        alarm.addAlarmAction(new SnsAction(topic));
        alarm.addOkAction(new SnsAction(topic));
      }
    }
  }
}

function alarmsOf(props: MonitoringProps): AlarmEntry[] {
  return [
    ...pipelineAlarms(props.pipeline),
    ...FUNCTION_NAMES.map((name) => failureAlarm(name, props.functions[name])),
    ...(['load', 'extract'] as const).flatMap((name) => [
      throttleAlarm(name, props.functions[name]),
      ...queueAlarms(name, props.queues[name]),
    ]),
    ...windowAlarm(props.pipeline, props.gap_ms),
  ];
}

function pipelineAlarms(pipeline: string): AlarmEntry[] {
  return [
    {
      name: 'stream-halted',
      meaning: 'A stream waits for a person; the others go on.',
      metric: ownMetric('streams_halted', pipeline, Stats.MAXIMUM),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      // Between windows nothing is printed, and a halt does not end by itself: the state stays until a window says otherwise.
      missing: TreatMissingData.IGNORE,
    },
    {
      name: 'slot-lag',
      meaning: 'The source keeps much WAL for the slot.',
      metric: ownMetric('slot_lag_bytes', pipeline, Stats.MAXIMUM),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: SLOT_LAG_ALARM_BYTES,
      periods: 1,
      // The lag does not shrink while nobody looks; that nobody looks is no-successful-window's to say.
      missing: TreatMissingData.IGNORE,
    },
    {
      name: 'slot-at-risk',
      meaning: 'The source will soon give the slot up, or has done so.',
      metric: ownMetric('safe_wal_bytes', pipeline, Stats.MINIMUM),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold: SAFE_WAL_ALARM_BYTES,
      periods: 1,
      // As above. Where the source sets no limit there is never a value, and the alarm stays in INSUFFICIENT_DATA: nothing to lose.
      missing: TreatMissingData.IGNORE,
    },
    {
      name: 'applied-lag',
      meaning: 'Changes are recorded, and the target does not get them.',
      metric: ownMetric('applied_lag_seconds', pipeline, Stats.MAXIMUM),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: APPLIED_LAG_ALARM.toSeconds(),
      periods: 1,
      // As for the slot: what waits goes on waiting while nobody looks.
      missing: TreatMissingData.IGNORE,
    },
    {
      name: 'rows-rejected',
      meaning: 'Rows are not valid, or the target refuses them, and were left out of it.',
      metric: ownMetric('rejected_rows', pipeline, Stats.MAXIMUM),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      // As for a halt: they stay put aside until somebody sees to them, and a window says so.
      missing: TreatMissingData.IGNORE,
    },
    {
      name: 'transaction-unfinished',
      meaning:
        'A transaction is longer than a window; each window goes on behind the last, as long as it comes to something new.',
      metric: ownMetric('unfinished_windows', pipeline, Stats.MAXIMUM),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      // Between windows nothing is printed, and nothing comes further.
      missing: TreatMissingData.IGNORE,
    },
    {
      name: 'window-failed',
      meaning: `Every window of ${WINDOW_FAILED_PERIOD.toMinutes()} minutes ended with an error.`,
      metric: ownMetric('windows_succeeded', pipeline, Stats.MAXIMUM, WINDOW_FAILED_PERIOD),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold: 1,
      periods: 1,
      // No window, no value; that there is none is no-successful-window's to say.
      missing: TreatMissingData.NOT_BREACHING,
    },
  ];
}

function failureAlarm(name: FunctionName, fn: LambdaFunction): AlarmEntry {
  return {
    name: `${name}-failed`,
    meaning: `An invocation of ${name} threw an error, or ran out of time or memory.`,
    metric: fn.metricErrors({ period: PERIOD, statistic: Stats.SUM }),
    comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
    threshold: 1,
    periods: 1,
    // No invocation, no value: a function that is not called does not fail.
    missing: TreatMissingData.NOT_BREACHING,
  };
}

/**
 * Of the functions that queues wake. Not of drain: a tick that finds a window running is throttled by its reserved concurrency, as it should be.
 * Not of the others: who calls them is told.
 */
function throttleAlarm(name: 'load' | 'extract', fn: LambdaFunction): AlarmEntry {
  return {
    name: `${name}-throttled`,
    meaning: `Lambda refuses to start ${name}: the concurrency of the account is used up.`,
    metric: fn.metricThrottles({ period: PERIOD, statistic: Stats.SUM }),
    comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
    threshold: 1,
    // A burst passes, and what it held up is tried again.
    periods: 3,
    // No invocation, no value.
    missing: TreatMissingData.NOT_BREACHING,
  };
}

function queueAlarms(name: 'load' | 'extract', { queue, dlq }: DoorbellQueue): AlarmEntry[] {
  return [
    {
      name: `${name}-queue-old`,
      meaning: `Doorbells for ${name} are not getting through.`,
      metric: queue.metricApproximateAgeOfOldestMessage({ period: PERIOD, statistic: Stats.MAXIMUM }),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: QUEUE_AGE_ALARM[name].toSeconds(),
      periods: 1,
      // SQS stops reporting for a queue that has been empty for hours.
      missing: TreatMissingData.NOT_BREACHING,
    },
    {
      name: `${name}-dlq-not-empty`,
      meaning: `A doorbell for ${name} was tried often and put aside.`,
      metric: dlq.metricApproximateNumberOfMessagesVisible({ period: PERIOD, statistic: Stats.MAXIMUM }),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      // As above: an unused queue reports nothing.
      missing: TreatMissingData.NOT_BREACHING,
    },
  ];
}

/**
 * How long the alarm waits for a successful window, in periods; null, no alarm, for a pipeline that is paused, and for one whose windows are further
 * apart than CloudWatch can look back.
 */
export function windowSilence(gap_ms: number | null): { readonly period: Duration; readonly periods: number } | null {
  if (gap_ms === null || gap_ms >= LOOK_BACK_LONG.toMilliseconds()) return null;
  const silence_ms = Math.min(
    Math.max(gap_ms * WINDOWS_MISSED_MAX, WINDOW_SILENCE_MIN.toMilliseconds()),
    LOOK_BACK_LONG.toMilliseconds(),
  );
  const period = silence_ms <= LOOK_BACK_SHORT.toMilliseconds() ? PERIOD : Duration.hours(1);
  return { period, periods: Math.ceil(silence_ms / period.toMilliseconds()) };
}

function windowAlarm(pipeline: string, gap_ms: number | null): AlarmEntry[] {
  const silence = windowSilence(gap_ms);
  if (!silence) return [];
  return [
    {
      name: 'no-successful-window',
      meaning: `No window has succeeded for ${WINDOWS_MISSED_MAX} times the longest gap of the schedule.`,
      metric: ownMetric('windows_succeeded', pipeline, Stats.SUM, silence.period),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold: 1,
      periods: silence.periods,
      // Nothing is what it must hear: a schedule that does not fire prints nothing.
      missing: TreatMissingData.BREACHING,
    },
  ];
}

function ownMetric(metricName: MetricName, pipeline: string, statistic: string, period: Duration = PERIOD): Metric {
  return new Metric({
    namespace: METRIC_NAMESPACE,
    metricName,
    dimensionsMap: { [METRIC_DIMENSION]: pipeline },
    statistic,
    period,
  });
}
