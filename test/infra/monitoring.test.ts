/** The alarms: each has its article in docs/OPERATIONS.md and each article its alarm; what they look at is really reported. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { windowSilence } from '../../infra/aws/monitoring.ts';
import { METRIC_DIMENSION, METRIC_NAMES, METRIC_NAMESPACE, METRICS } from '../../lib/metrics.ts';
import { pipelineYaml, ROOT, resourceOf, resourcesOf, type Synthesized, synthesize } from './support.ts';

interface AlarmProperties {
  readonly AlarmName: string;
  readonly AlarmDescription: string;
  readonly Namespace: string;
  readonly MetricName: string;
  readonly Dimensions: readonly { readonly Name: string; readonly Value: unknown }[];
  readonly Statistic: string;
  readonly Period: number;
  readonly EvaluationPeriods: number;
  readonly DatapointsToAlarm: number;
  readonly ComparisonOperator: string;
  readonly Threshold: number;
  readonly TreatMissingData: string;
  readonly AlarmActions?: unknown;
  readonly OKActions?: unknown;
}

const PREFIX = 'sluice-shop-';
const synthesized = synthesize();
const alarms = alarmsOf(synthesized);

function alarmsOf({ pipeline }: Synthesized): AlarmProperties[] {
  return Object.values(resourcesOf(pipeline, 'AWS::CloudWatch::Alarm')).map(
    ({ Properties }) => Properties as unknown as AlarmProperties,
  );
}

function alarmNamed(name: string, from = alarms): AlarmProperties {
  const found = from.find(({ AlarmName }) => AlarmName === `${PREFIX}${name}`);
  if (!found) throw new Error(`no alarm ${name}`);
  return found;
}

/** The articles of the runbook: headings of the third level under "Alarms". */
function articles(): Map<string, string> {
  const page = readFileSync(join(ROOT, 'docs/OPERATIONS.md'), 'utf8');
  const section = page.split(/^## /m).find((part) => part.startsWith('Alarms\n')) ?? '';
  const parts = section.split(/^### /m).slice(1);
  return new Map(parts.map((part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n'))]));
}

test('alarms and articles of the runbook are the same set', () => {
  const names = alarms.map(({ AlarmName }) => AlarmName.slice(PREFIX.length));
  expect(names.length).toBeGreaterThan(0);
  expect([...articles().keys()].sort()).toEqual(names.sort());
});

test.each([...articles()])(
  'the article %s says what it means, what to look at, what to do, and what is not at risk',
  (_, text) => {
    for (const part of ['**Means.**', '**Look at.**', '**Do.**', '**Not at risk.**']) expect(text).toContain(part);
  },
);

test.each(alarms.map((alarm) => [alarm.AlarmName, alarm] as const))('%s points to its article', (name, alarm) => {
  expect(name.startsWith(PREFIX)).toBe(true);
  expect(alarm.AlarmDescription).toContain(`docs/OPERATIONS.md, "${name.slice(PREFIX.length)}"`);
  expect(alarm.TreatMissingData).toMatch(/^(ignore|notBreaching|breaching)$/);
});

test('metrics of ours are looked at under the names, with the dimension, by which they are printed', () => {
  const ours = alarms.filter(({ Namespace }) => Namespace === METRIC_NAMESPACE);
  for (const { Dimensions } of ours) expect(Dimensions).toEqual([{ Name: METRIC_DIMENSION, Value: 'shop' }]);
  const looked = new Set(ours.map(({ MetricName }) => MetricName));
  expect([...looked].filter((name) => !METRIC_NAMES.some((known) => known === name))).toEqual([]);
  expect(METRIC_NAMES.filter((name) => !looked.has(name))).toEqual([]);
});

test('every option in the table of metrics of the runbook is as it is printed', () => {
  const page = readFileSync(join(ROOT, 'docs/OPERATIONS.md'), 'utf8');
  for (const name of METRIC_NAMES) expect(page).toContain(`| \`${name}\` | ${METRICS[name].unit} |`);
});

test('each queue that takes up what failed has an alarm at the first message', () => {
  for (const [name, id] of [
    ['load-dlq-not-empty', 'LoadDlq'],
    ['extract-dlq-not-empty', 'ExtractDlq'],
  ] as const) {
    const alarm = alarmNamed(name);
    expect(alarm).toMatchObject({
      MetricName: 'ApproximateNumberOfMessagesVisible',
      Threshold: 1,
      ComparisonOperator: 'GreaterThanOrEqualToThreshold',
    });
    expect(JSON.stringify(alarm.Dimensions)).toContain(id);
  }
});

test.each(['drain', 'extract', 'load', 'backfill', 'operate'])('%s has an alarm at the first error', (name) => {
  const alarm = alarmNamed(`${name}-failed`);
  expect(alarm).toMatchObject({
    Namespace: 'AWS/Lambda',
    MetricName: 'Errors',
    Statistic: 'Sum',
    Threshold: 1,
    EvaluationPeriods: 1,
  });
  const fn = alarm.Dimensions[0]?.Value as { Ref: string };
  const id = name[0]?.toUpperCase() + name.slice(1);
  expect(resourcesOf(synthesized.pipeline, 'AWS::Lambda::Function')[fn.Ref]).toEqual(
    resourceOf(synthesized.pipeline, 'AWS::Lambda::Function', id),
  );
});

describe('no-successful-window', () => {
  const HOUR_S = 3600;
  const DAY_S = 24 * HOUR_S;

  test('needs every period to be without a success, silence included', () => {
    const alarm = alarmNamed('no-successful-window');
    expect(alarm).toMatchObject({
      Statistic: 'Sum',
      Threshold: 1,
      ComparisonOperator: 'LessThanThreshold',
      TreatMissingData: 'breaching',
    });
    expect(alarm.DatapointsToAlarm).toBe(alarm.EvaluationPeriods);
    expect(alarm.Period * alarm.EvaluationPeriods).toBe(45 * 60);
  });

  test.each([
    ['5 minutes', 5 * 60, 45 * 60],
    ['a window back to back', 16 * 60, 50 * 60],
    ['1 hour', HOUR_S, 3 * HOUR_S],
    ['8 hours', 8 * HOUR_S, DAY_S],
    ['9 hours', 9 * HOUR_S, 27 * HOUR_S],
    ['a day', DAY_S, 3 * DAY_S],
    ['3 days', 3 * DAY_S, 7 * DAY_S],
  ])('with windows %s apart it waits as long as three, as far as CloudWatch looks back', (_, gap_s, expected_s) => {
    const silence = windowSilence(gap_s * 1000);
    const period_s = silence?.period.toSeconds() ?? 0;
    const silence_s = period_s * (silence?.periods ?? 0);
    expect(silence_s).toBe(expected_s);
    // PutMetricAlarm, EvaluationPeriods: a day, or a week with periods of an hour and more.
    expect(silence_s).toBeLessThanOrEqual(period_s < HOUR_S ? DAY_S : 7 * DAY_S);
  });

  test('with windows a week apart or more there is none, nor while the pipeline is paused', () => {
    expect([windowSilence(7 * DAY_S * 1000), windowSilence(null)]).toEqual([null, null]);
    const paused = alarmsOf(synthesize({ yaml: pipelineYaml({ schedule: 'every: 5 minutes\npaused: true' }) }));
    const names = (of: AlarmProperties[]): string[] => of.map(({ AlarmName }) => AlarmName);
    expect(names(paused)).toEqual(names(alarms).filter((name) => !name.endsWith('no-successful-window')));
  });
});

test('alarms tell the topic of the context, when they begin and when they end; without one they tell nobody', () => {
  const topic = 'arn:aws:sns:eu-central-1:123456789012:ops';
  expect(alarms.map(({ AlarmActions }) => AlarmActions)).toEqual(alarms.map(() => undefined));
  for (const { AlarmActions, OKActions } of alarmsOf(synthesize({ context: { alarm_topic: topic } }))) {
    expect([AlarmActions, OKActions]).toEqual([[topic], [topic]]);
  }
});
