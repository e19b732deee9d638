/** What the demo measures and shows. */
import { describe, expect, test } from 'vitest';
import { LagMeter } from '../../cli/demo/lag.ts';
import { shopSize } from '../../cli/demo/shop.ts';
import { isEqual, type Stages, stageBlock, stageText, summaryLines } from '../../cli/demo/view.ts';
import { widthOf } from '../../cli/view/text.ts';
import { lsnOf } from '../../lib/lsn.ts';

const plain = (_style: string, text: string): string => text;

describe('lag', () => {
  test('is from the commit until all before it has been seen', () => {
    const meter = new LagMeter();
    expect(meter.quantile(0.5)).toBeNull();
    meter.committed(lsnOf(100n), 1000);
    meter.committed(lsnOf(200n), 2000);
    meter.committed(lsnOf(300n), 3000);
    meter.seen(lsnOf(99n), 3500);
    expect(meter.quantile(0.5)).toBeNull();
    meter.seen(lsnOf(200n), 4000);
    meter.seen(lsnOf(200n), 9000);
    expect([meter.quantile(0), meter.quantile(0.95)]).toEqual([2, 3]);
    meter.seen(lsnOf(300n), 13_000);
    expect([meter.quantile(0.5), meter.quantile(1)]).toEqual([3, 10]);
  });
});

const STAGES: Stages = {
  progress: {
    streams: { total: 7, live: 5, catching_up: 2, copying: 0, waiting: 0, halted: 0 },
    copying: [],
    log: {
      lsn: '0/FFFFFFFF',
      cuts: 1234,
      changes: 123_456,
      object_bytes: 9.9e11,
      changes_per_second: 12_345,
      bytes_per_second: 9.9e8,
    },
    applied: { rows: 500_000, changes: 123_456, changes_per_second: 12_345 },
    lag: null,
  },
  written: { changes: 123_456, transactions: 12_345, changes_per_second: 12_345 },
  windows: 99,
  cut: { number: 1234, changes: 1234 },
  cuts_per_second: 1.9,
  bells: 7,
  lag: { p50: 0.9, p95: 11 },
};

test('every stage of the path has its line, and each fits into 80 columns', () => {
  const lines = stageBlock(STAGES, 80, plain);
  expect(lines.map((line) => line.trim().split(' ')[0])).toEqual([
    'source',
    'slot',
    'cut',
    'stage',
    'ledger',
    'doorbell',
    'load',
    'target',
  ]);
  for (const line of lines) expect(widthOf(line)).toBeLessThan(80);
  for (const line of stageBlock(STAGES, 60, plain)) expect(widthOf(line)).toBeLessThan(60);
  expect(stageText(STAGES)).toBe(
    'written 123,456 changes (12,345/s); read 123,456 in 1,234 cuts; staged 990 GB; 7 doorbells waiting; applied 123,456 (12,345/s); lag 0.9 s, p95 11 s',
  );
});

describe('the summary', () => {
  const table = { schema: 'shop', table: 'orders' };
  const equal = { table, source_rows: 10, target_rows: 10, equal: true };
  const different = { table, source_rows: 10, target_rows: 9, equal: false };

  test('says whether all is equal, and that nothing compared is not', () => {
    expect([
      isEqual({ comparisons: [equal] }),
      isEqual({ comparisons: [equal, different] }),
      isEqual({ comparisons: [] }),
    ]).toEqual([true, false, false]);
  });

  test('has the tables, what is halted, and the figures', () => {
    const halt = { code: 'TARGET_REJECTS', message: 'shop.orders is halted: it refuses', remedy: 'Mend it.' };
    const lines = summaryLines(
      { comparisons: [equal, different], halts: [halt], stages: STAGES, seconds: 100 },
      80,
      plain,
    );
    expect(lines).toContain('  shop.orders            10            10  equal');
    expect(lines).toContain('  shop.orders            10             9  DIFFERENT');
    expect(lines).toContain('  written  123,456 changes in 12,345 transactions, 1,235/s');
    expect(lines).toContain('  lag      p50 0.9 s, p95 11 s, from commit to seen in the target');
    expect(lines).toContain('  Error TARGET_REJECTS: shop.orders is halted: it refuses');
    expect(lines.at(-1)).toBe('The tables are NOT equal.');
  });
});

test('a shop has about the rows that were asked for', () => {
  for (const rows of [1000, 50_000, 1_000_000]) {
    const { customers, products, orders, events } = shopSize(rows);
    expect((customers + products * 3 + orders * 4 + events) / rows).toBeCloseTo(1, 0);
  }
});
