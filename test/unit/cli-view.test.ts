/** What a person sees: numbers, tables, progress, status, findings. Every line fits into the terminal that it was made for. */
import { describe, expect, test } from 'vitest';
import { errorLines } from '../../cli/failure.ts';
import type { Progress } from '../../cli/run/progress.ts';
import { doctorPage } from '../../cli/view/doctor.ts';
import { progressBlock, progressLine } from '../../cli/view/progress.ts';
import { statusPage } from '../../cli/view/status.ts';
import {
  bytes,
  count,
  counted,
  duration,
  fit,
  harmless,
  percent,
  printable,
  rate,
  table,
  widthOf,
  wrap,
} from '../../cli/view/text.ts';
import type { PipelineStatus, StreamStatus } from '../../lib/operate.ts';

const plain = (_style: string, text: string): string => text;

describe('numbers', () => {
  test.each([
    [count(1234567), '1,234,567'],
    [counted(1, 'table'), '1 table'],
    [counted(0, 'table'), '0 tables'],
    [bytes(0), '0 B'],
    [bytes(999), '999 B'],
    [bytes(1000), '1.0 kB'],
    [bytes(123_456), '123 kB'],
    [bytes(999_600), '1.0 MB'],
    [bytes(5.4e12), '5.4 TB'],
    [bytes(9e18), '9000 PB'],
    [duration(0), '0.0 s'],
    [duration(9.94), '9.9 s'],
    [duration(9.96), '10 s'],
    [duration(59.6), '1 min'],
    [duration(200), '3 min 20 s'],
    [duration(3600), '1 h'],
    [duration(7500), '2 h 5 min'],
    [duration(273_600), '3 d 4 h'],
    [rate(0), '0/s'],
    [rate(0.31), '0.3/s'],
    [rate(1234.4), '1,234/s'],
    [percent(0), '  0 %'],
    [percent(0.999), ' 99 %'],
    [percent(1), '100 %'],
    [percent(1.2), '100 %'],
  ])('%s', (shown, expected) => expect(shown).toBe(expected));
});

describe('text', () => {
  test('a name does nothing to a terminal', () => {
    expect(printable('a\u001b[2Jb\nc\u202e')).toBe('a\ufffd[2Jb\ufffdc\ufffd');
  });

  test('a line for a terminal has our colours, and nothing else that it obeys', () => {
    const line = '\u001b[31mred\u001b[39m\tx\n  y\u001b[2J\u001b]0;title\u0007\u009b1m\r\u202e\u001b[8;1m';
    expect(harmless(line)).toBe(
      '\u001b[31mred\u001b[39m\tx\n  y\\u001b[2J\\u001b]0;title\\u0007\\u009b1m\\u000d\\u202e\\u001b[8;1m',
    );
    const json = JSON.stringify({ name: 'a\u009bb\u2028' });
    expect(JSON.parse(harmless(json))).toEqual(JSON.parse(json));
  });

  test('nothing of a message begins where a line of ours does', () => {
    const said = errorLines({ code: 'X', message: 'a\nError Y: forged\n  ours', remedy: 'b\r\nc' });
    expect(said).toEqual(['Error X: a\n  Error Y: forged\n  ours', '  Remedy: b\n  c']);
  });

  test('is as wide as its graphemes, colours not counted', () => {
    expect(widthOf('\u001b[31mrot\u001b[39m')).toBe(3);
    expect(widthOf('注文')).toBe(4);
    expect(widthOf('e\u0301')).toBe(1);
    expect(widthOf('🛒')).toBe(2);
  });

  test('is cut at a grapheme', () => {
    expect(fit('orders', 6)).toBe('orders');
    expect(fit('orders', 5)).toBe('orde…');
    expect(fit('注文テーブル', 6)).toBe('注文…');
    expect(fit('orders', 1)).toBe('…');
  });

  test('is wrapped at words; what is longer than a line stays whole', () => {
    expect(wrap('a bb ccc averyverylongword d', 8, '  ')).toEqual(['  a bb', '  ccc', '  averyverylongword', '  d']);
    expect(wrap('one\ntwo', 80)).toEqual(['one', 'two']);
  });

  test('a table shrinks where it may', () => {
    const rows = [
      { name: 'a long name indeed', n: 5 },
      { name: 'short', n: 12345 },
    ];
    const columns = [
      { title: 'name', text: (row: { name: string }) => row.name, shrinks_to: 6 },
      { title: 'n', align: 'right' as const, text: (row: { n: number }) => String(row.n) },
    ];
    expect(table(rows, columns, 80)).toEqual([
      'name                    n',
      'a long name indeed      5',
      'short               12345',
    ]);
    expect(table(rows, columns, 16)).toEqual(['name           n', 'a long n…      5', 'short      12345']);
    expect(table(rows, columns, 1)[1]).toBe('a lon…      5');
  });
});

const PROGRESS: Progress = {
  streams: { total: 4, live: 1, catching_up: 0, copying: 2, waiting: 0, halted: 1 },
  copying: [
    {
      table: 'public.orders',
      rows_staged: 750,
      rows_loaded: 500,
      rows_total: 1000,
      bytes_loaded: 5000,
      bytes_total: 10_000,
      percent: 50,
      rows_per_second: 250,
      seconds_left: 2,
    },
    {
      table: 'public.events',
      rows_staged: 0,
      rows_loaded: 0,
      rows_total: null,
      bytes_loaded: 0,
      bytes_total: null,
      percent: null,
      rows_per_second: 0,
      seconds_left: null,
    },
  ],
  log: { lsn: '0/1A2B', cuts: 3, changes: 1234, object_bytes: 5600, changes_per_second: 100, bytes_per_second: 500 },
  applied: { rows: 500, changes: 1000, changes_per_second: 90 },
  lag: { seconds: 1.25, bytes: 4096 },
};

describe('progress', () => {
  test('has a bar for each copy: loaded, staged, to be read', () => {
    const [orders, events] = progressBlock(PROGRESS, 80, plain);
    const bar = /[█▒░]+/.exec(orders ?? '')?.[0] ?? '';
    const share = (mark: string): number => (bar.split(mark).length - 1) / bar.length;
    expect(share('█')).toBeCloseTo(0.5, 1);
    expect(share('▒')).toBeCloseTo(0.25, 1);
    expect(orders).toMatch(/^ copying {3}public\.orders .* 50 % 500\/1,000 5\.0 kB 250\/s 2\.0 s left$/);
    expect(events).toMatch(/public\.events ░+ +\? +0 rows +0 B$/);
  });

  test('says what was read, applied, and how the streams stand', () => {
    expect(progressBlock(PROGRESS, 80, plain).slice(2)).toEqual([
      ' log       1,234 changes in 3 cuts, 5.6 kB staged, 100/s, up to 0/1A2B',
      ' applied   500 rows copied, 1,000 changes, 90/s, 1.3 s behind (4.1 kB)',
      ' streams   1 live, 2 copying, 1 halted',
    ]);
  });

  test('fits into any terminal that shows a name and a figure', () => {
    for (const width of [60, 80, 132, 250]) {
      for (const line of progressBlock(PROGRESS, width, plain).slice(0, 2)) expect(widthOf(line)).toBeLessThan(width);
    }
  });

  test('of many tables shows the first, and how many more there are', () => {
    const one = PROGRESS.copying[0] as Progress['copying'][number];
    const many = { ...PROGRESS, copying: Array.from({ length: 12 }, (_, i) => ({ ...one, table: `public.t${i}` })) };
    const lines = progressBlock(many, 80, plain);
    expect(lines.filter((line) => line.includes('public.t'))).toHaveLength(10);
    expect(lines[10]).toBe('           and 2 more tables');
  });

  test('in one line has the same facts', () => {
    const known = { ...PROGRESS, copying: PROGRESS.copying.slice(0, 1) };
    expect(progressLine(known)).toBe(
      '1 live, 2 copying, 1 halted; copied 500 of 1,000 rows (50 %), 250/s, 2.0 s left; read 1,234 changes in 3 cuts, 5.6 kB staged, 100/s, up to 0/1A2B; applied 500 rows copied, 1,000 changes, 90/s, 1.3 s behind (4.1 kB)',
    );
    expect(progressLine(PROGRESS)).toContain('copied 500 rows, 250/s;');
  });
});

const AT = '2026-11-21T08:00:00.000Z';
const NOW_MS = Date.parse('2026-11-21T08:00:30.000Z');

function stream(over: Partial<StreamStatus> = {}): StreamStatus {
  return {
    stream: 'public.orders-1',
    table: 'public.orders',
    target: 'public.orders',
    state: 'live',
    halt: null,
    method: 'LOG_BASED',
    as_of: null,
    reset_requested: false,
    resync_requested: false,
    schedule: null,
    applied_cut: 7,
    applied_lsn: '0/1A2B',
    applied_at: AT,
    lag: { cuts: 0, bytes: 0, seconds: 0 },
    rows_copied: 1000,
    changes_applied: 20,
    rejected_rows: 0,
    epoch_number: 1,
    epoch: null,
    given_up: null,
    ...over,
  };
}

function page(over: Partial<PipelineStatus> = {}, running_pid: number | null = null, width = 120): string[] {
  const head = { cut: 7, lsn: '0/1A2B', committed_at: AT, recorded_at: AT };
  const status = { pipeline: 'shop', at: AT, head, unfinished: null, streams: [stream()], reports: [], ...over };
  return statusPage({ status, now_ms: NOW_MS, running_pid, width, paint: plain });
}

describe('status', () => {
  test('tells how far a transaction has been read that is longer than a window, and when only a window without a deadline helps', () => {
    const unfinished = {
      xid: 7_001,
      changes: 5_000_000,
      text_bytes: 2 ** 30,
      tables: ['public.orders'],
      table_count: 3,
      windows: 2,
      stalled: false,
      began_at: AT,
      at: AT,
    };
    const going = page({ unfinished }).join(' ').replaceAll(/\s+/g, ' ');
    expect(going).toContain('Transaction 7001 is longer than a window');
    expect(going).toContain('5,000,000 changes');
    expect(going).toContain('of public.orders and 2 others staged in 2 windows');
    expect(going).toContain('The next window goes on behind it.');
    const stalled = page({ unfinished: { ...unfinished, stalled: true } })
      .join(' ')
      .replaceAll(/\s+/g, ' ');
    expect(stalled).toContain('sluice run --stack');
    expect(page().join(' ')).not.toContain('longer than a window');
  });

  test('tells when a table with a schedule of its own is loaded next, or that it is paused', () => {
    const at = (next_at: string | null, paused = false) => ({ schedule: { paused, next_at } });
    const lines = page({
      streams: [
        stream({ table: 'public.a', ...at('2026-11-21T10:00:30.000Z') }),
        stream({ table: 'public.b', ...at(null, true) }),
        stream({ table: 'public.c', ...at(AT) }),
        stream({ table: 'public.d', ...at(null) }),
        stream({ table: 'public.e' }),
      ],
    }).slice(2, 8);
    expect(lines[0]).toMatch(/ next *$/);
    expect(lines.slice(1).map((line) => line.trimEnd().replace(/^.* {2}/, ''))).toEqual([
      expect.stringMatching(/^in 2/),
      'paused',
      'at the next window',
      'never',
      expect.not.stringMatching(/in|paused|never/),
    ]);
  });

  test('of a pipeline that has never run', () => {
    expect(page({ head: null, streams: [] })).toEqual([
      'Pipeline shop: no engine runs, nothing recorded yet',
      '',
      'No table has been captured yet: the first window of `sluice run` does that.',
    ]);
  });

  test('says how a stream is read where that is not by the log, and as of when its rows are', () => {
    const read = (table: string, method: StreamStatus['method']): StreamStatus =>
      stream({ table, target: table, method, as_of: AT, lag: null, changes_applied: 0 });
    const lines = page({
      streams: [stream(), read('public.prices', 'FULL_TABLE'), read('public.events', 'INCREMENTAL')],
    }).slice(2, 6);
    expect(lines.map((line) => line.trim().split(/ {2,}/u))).toEqual([
      ['table', 'method', 'state', 'copied', 'changes', 'applied', 'behind'],
      ['public.orders', 'log', 'live', '1,000', '20', '0/1A2B', '0 B', '0.0 s'],
      ['public.prices', 'full table', 'live', '1,000', '-', '-', '-', 'as of 30 s ago'],
      ['public.events', 'incremental', 'live', '1,000', '-', '-', '-', 'as of 30 s ago'],
    ]);
  });

  test('has a line a stream', () => {
    const behind = stream({
      table: 'public.events',
      target: 'public.events',
      lag: { cuts: 2, bytes: 5000, seconds: 75 },
      reset_requested: true,
    });
    expect(page({ streams: [stream(), behind] }, 42)).toEqual([
      'Pipeline shop: runs in process 42, recorded up to 0/1A2B (cut 7, 30 s ago)',
      '',
      'table          state              copied  changes  applied  behind',
      'public.orders  live                1,000       20   0/1A2B     0 B       0.0 s',
      'public.events  live, reset asked   1,000       20   0/1A2B  5.0 kB  1 min 15 s',
    ]);
  });

  test('names the target where it is called otherwise', () => {
    expect(page({ streams: [stream({ target: 'dwh.orders' })] })[3]).toMatch(/^public\.orders +dwh\.orders +live/);
  });

  test('tells how far a copy has come', () => {
    const epoch = {
      number: 1,
      kind: 'first_sync' as const,
      state: 'planned' as const,
      chunks: 4,
      chunks_staged: 2,
      chunks_equal: 0,
      chunks_loaded: 1,
      rows_staged: 500,
      rows_loaded: 250,
      bytes_staged: 50_000,
      bytes_loaded: 25_000,
      rows_total: 1000,
      bytes_total: 100_000,
      percent: 25,
      seconds_left: 90,
      where: null,
      rows_estimate: 1000,
      opened_at: AT,
    };
    expect(page({ streams: [stream({ state: 'syncing', applied_at: null, lag: null, epoch })] })).toContain(
      'Copying public.orders (first sync): 25 %: 250 of 1,000 rows, 25.0 kB of 100 kB, 1 of 4 chunks loaded, 2 read, began 30 s ago, 1 min 30 s left',
    );
    const compared = { ...epoch, kind: 'resync' as const, chunks_equal: 1 };
    expect(
      page({ streams: [stream({ state: 'syncing', applied_at: null, lag: null, epoch: compared })] }).join(),
    ).toContain('1 of 4 chunks loaded, 2 read, 1 of these the same on both sides');
    const some = {
      ...epoch,
      kind: 'backfill' as const,
      where: "kind = 'a'",
      rows_total: null,
      bytes_total: null,
      seconds_left: null,
    };
    expect(page({ streams: [stream({ state: 'syncing', applied_at: null, lag: null, epoch: some })] })).toContain(
      "Copying public.orders (backfill where kind = 'a'): 25 %: 250 rows, 25.0 kB, 1 of 4 chunks loaded, 2 read, began 30 s ago",
    );
  });

  test('tells why what was asked for beside the log ended before it was done', () => {
    const given_up = { epoch: 3, kind: 'backfill' as const, reason: 'The condition is none.', at: AT };
    expect(page({ streams: [stream({ given_up })] })).toEqual(
      expect.arrayContaining([
        'The last backfill of public.orders ended before it was done, 30 s ago',
        '  The condition is none.',
      ]),
    );
  });

  test('tells that a resync was asked for', () => {
    expect(page({ streams: [stream({ state: 'halted', resync_requested: true })] })[3]).toContain(
      'halted, resync asked',
    );
  });

  test('tells a halt with its remedy, wrapped', () => {
    const halt = {
      code: 'TARGET_REJECTS',
      message: 'It refuses\u001b[2J.',
      remedy: 'Mend it, then: sluice resume public.orders',
      cut: 5,
      must_reset: false,
      at: AT,
    };
    const lines = page({ streams: [stream({ state: 'halted', halt })] }, null, 40);
    expect(lines.slice(-4)).toEqual([
      'public.orders is halted at cut 5, 30 s ago: TARGET_REJECTS',
      '  It refuses\ufffd[2J.',
      '  Remedy: Mend it, then: sluice resume',
      '  public.orders',
    ]);
  });

  test('shows the last windows, and why one failed', () => {
    const report = {
      run: 'r',
      started_at: AT,
      ended_at: '2026-11-21T08:00:02.500Z',
      stopped_by: 'failed' as const,
      error: { code: 'SLOT_ACTIVE', message: 'Slot s is in use.', remedy: 'Wait.' },
      begin_lsn: null,
      end_lsn: null,
      source_lsn: null,
      cuts: 2,
      transactions: 1,
      changes: 3,
      text_bytes: 10,
      object_bytes: 2000,
      streams: {},
      seconds: { ground: 0, read: 0, stage: 0, record: 0 },
    };
    const lines = page({ reports: Array.from({ length: 9 }, () => report) });
    expect(lines.at(-1)).toBe('30 s ago      failed          3     2  2.0 kB  2.5 s  SLOT_ACTIVE: Slot s is in use.');
    expect(lines.filter((line) => line.includes('failed'))).toHaveLength(5);
  });
});

test('findings stand with their subject and an arrow to what mends them, whose SQL is not broken into lines', () => {
  const remedy = "Run: ALTER SYSTEM SET wal_level = 'logical'";
  const lines = doctorPage(
    [
      {
        check: 'a',
        severity: 'error',
        subject: 'source',
        problem: 'It has wal_level = replica, and that is too little for this.',
        remedy,
      },
      { check: 'b', severity: 'info', subject: 'slot s', problem: 'It will be made.', remedy: null },
    ],
    40,
    plain,
  );
  expect(lines).toEqual([
    'ERROR   source: It has wal_level =',
    '        replica, and that is too little',
    '        for this.',
    `        → ${remedy}`,
    '',
    'INFO    slot s: It will be made.',
    '',
    '1 error, 0 warnings',
  ]);
});
