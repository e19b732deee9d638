/** The lines that report metrics, held against the embedded metric format. */
import { describe, expect, test } from 'vitest';
import { METRIC_NAMES, METRICS, metricLine } from '../../lib/metrics.ts';

const NOW_MS = Date.UTC(2026, 10, 21, 8);

describe('a line', () => {
  test('reports each value with its unit, for the pipeline and the time', () => {
    const line = metricLine({ slot_lag_bytes: 1024, windows_succeeded: 1 }, 'shop', NOW_MS);
    expect(JSON.parse(line)).toEqual({
      _aws: {
        Timestamp: NOW_MS,
        CloudWatchMetrics: [
          {
            Namespace: 'Sluice',
            Dimensions: [['pipeline']],
            Metrics: [
              { Name: 'slot_lag_bytes', Unit: 'Bytes' },
              { Name: 'windows_succeeded', Unit: 'Count' },
            ],
          },
        ],
      },
      pipeline: 'shop',
      slot_lag_bytes: 1024,
      windows_succeeded: 1,
    });
  });

  test('is one line', () => {
    const values = Object.fromEntries(METRIC_NAMES.map((name) => [name, 0]));
    expect(metricLine(values, 'shop', NOW_MS)).not.toContain('\n');
  });

  test('leaves out what is not known, and keeps what is zero', () => {
    const line = JSON.parse(metricLine({ safe_wal_bytes: null, streams_halted: 0 }, 'shop', NOW_MS)) as Record<
      string,
      unknown
    >;
    expect(line).not.toHaveProperty('safe_wal_bytes');
    expect(line.streams_halted).toBe(0);
    expect(JSON.stringify(line)).not.toContain('safe_wal_bytes');
  });

  test('with nothing known reports nothing', () => {
    expect(JSON.parse(metricLine({ safe_wal_bytes: null }, 'shop', NOW_MS))).toEqual({ pipeline: 'shop' });
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY])('refuses %s, which CloudWatch would drop', (value) => {
    expect(() => metricLine({ slot_lag_bytes: value }, 'shop', NOW_MS)).toThrow('slot_lag_bytes');
  });
});

test.each(METRIC_NAMES)('%s is snake_case, and its sentence says who prints it', (name) => {
  expect(name).toMatch(/^[a-z]+(_[a-z]+)+$/);
  expect(METRICS[name].sentence).toMatch(/Printed by (drain|load)/);
});
