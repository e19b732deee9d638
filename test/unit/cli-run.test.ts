/** What a run decides and counts: whether it has caught up, when it gives up, what stops it, what it says of a log line. */
import { describe, expect, test } from 'vitest';
import { isSettled, mark, needsWindow, remaining } from '../../cli/run/caught-up.ts';
import { isOfTables, whatStops } from '../../cli/run/ground.ts';
import { Meter, secondsLeft } from '../../cli/run/meter.ts';
import { BellFaults, isTransient, windowWait } from '../../cli/run/patience.ts';
import { ProgressMaker } from '../../cli/run/progress.ts';
import { remarkOf } from '../../cli/run/remarks.ts';
import { concurrencyFor } from '../../cli/run/session.ts';
import { readPipeline } from '../../lib/config/read.ts';
import type { Finding } from '../../lib/doctor/finding.ts';
import type { EpochStatus, StreamStatus } from '../../lib/operate.ts';

function stream(over: Partial<StreamStatus> = {}): StreamStatus {
  return {
    stream: 'a',
    table: 'public.a',
    target: 'public.a',
    state: 'live',
    halt: null,
    method: 'LOG_BASED',
    as_of: null,
    reset_requested: false,
    resync_requested: false,
    schedule: null,
    applied_cut: 5,
    applied_lsn: '0/50',
    applied_at: null,
    lag: { cuts: 1, bytes: 10, seconds: 1 },
    rows_copied: 0,
    changes_applied: 0,
    rejected_rows: 0,
    epoch_number: 1,
    epoch: null,
    given_up: null,
    ...over,
  };
}

const epoch = (over: Partial<EpochStatus> = {}): EpochStatus => ({
  number: 1,
  kind: 'first_sync',
  state: 'planned',
  chunks: 4,
  chunks_staged: 0,
  chunks_equal: 0,
  chunks_loaded: 0,
  rows_staged: 0,
  rows_loaded: 0,
  bytes_staged: 0,
  bytes_loaded: 0,
  rows_total: 1000,
  bytes_total: null,
  percent: 0,
  seconds_left: null,
  where: null,
  rows_estimate: 1000,
  opened_at: '2026-11-21T08:00:00.000Z',
  ...over,
});

describe('caught up', () => {
  const selected = new Set(['a']);
  const left = (over: Partial<StreamStatus>, goal_cut: number | null = 5) =>
    remaining({ streams: [stream(over)] }, selected, goal_cut);

  test.each<[string, Partial<StreamStatus>, number | null, boolean]>([
    ['live, and the goal is applied', { applied_cut: 5 }, 5, true],
    ['live, and more than the goal is applied', { applied_cut: 9 }, 5, true],
    ['live, and there was nothing for it', { applied_cut: 2, lag: { cuts: 0, bytes: 0, seconds: 0 } }, 5, true],
    ['live, and something for it waits', { applied_cut: 4 }, 5, false],
    ['live, and too far behind to tell', { applied_cut: 2, lag: null }, 5, false],
    ['live, and no window has come as far yet', { applied_cut: 5 }, null, false],
    ['still showing older rows', { state: 'catching_up', applied_cut: 7 }, 5, false],
    ['being copied', { state: 'syncing', applied_cut: 7 }, 5, false],
    ['to be copied anew', { applied_cut: 7, reset_requested: true }, 5, false],
    ['halted: it waits for a person, not for a window', { state: 'halted', applied_cut: 1 }, 5, true],
  ])('%s', (_, over, goal, settled) => expect(isSettled(left(over, goal))).toBe(settled));

  test.each<[string, Partial<StreamStatus>, boolean]>([
    ['has had its run', { as_of: '2026-11-21T08:00:05.000Z' }, true],
    ['was read last before this run began', { as_of: '2026-11-21T07:59:59.000Z' }, false],
    ['has never been read', { as_of: null }, false],
    ['is being read', { state: 'syncing', as_of: '2026-11-21T08:00:05.000Z' }, false],
  ])('read by query: it %s', (_, over, settled) => {
    const streams = [stream({ method: 'FULL_TABLE', lag: null, applied_cut: 0, ...over })];
    const found = remaining({ streams }, selected, 5, Date.parse('2026-11-21T08:00:00.000Z'));
    expect(isSettled(found)).toBe(settled);
    expect(needsWindow(found, 5)).toBe(!settled);
  });

  test('what is selected and not captured is waited for; what is not selected is not', () => {
    const streams = [stream(), stream({ stream: 'other', state: 'syncing' })];
    expect(isSettled(remaining({ streams }, selected, 5))).toBe(true);
    const both = remaining({ streams }, new Set(['a', 'new']), 5);
    expect(both.missing).toEqual(['new']);
    expect(isSettled(both)).toBe(false);
  });

  test('another window helps whoever needs a later position, and not a loader that is at work', () => {
    expect(needsWindow(left({ applied_cut: 4 }), 5)).toBe(false);
    expect(needsWindow(left({ state: 'catching_up' }), 5)).toBe(true);
    expect(needsWindow(left({ applied_cut: 4 }, null), null)).toBe(true);
    expect(needsWindow(left({ reset_requested: true }), 5)).toBe(true);
  });

  test('something has moved when a position, a state or a chunk has', () => {
    const head = { cut: 5, lsn: '0/50', committed_at: null, recorded_at: '' };
    const before = mark({ head, streams: [stream({ epoch: epoch() })] });
    expect(mark({ head, streams: [stream({ epoch: epoch(), lag: null })] })).toBe(before);
    const after = [
      { head: { ...head, lsn: '0/51' }, streams: [stream({ epoch: epoch() })] },
      { head, streams: [stream({ epoch: epoch(), applied_cut: 6 })] },
      { head, streams: [stream({ epoch: epoch({ chunks_loaded: 1 }) })] },
      { head, streams: [stream({ epoch: epoch(), state: 'halted' })] },
    ];
    for (const one of after) expect(mark(one)).not.toBe(before);
  });
});

describe('patience', () => {
  const lost = { code: 'CONNECTION_FAILED', message: 'm', remedy: 'r' };
  const denied = { code: 'AUTHENTICATION_FAILED', message: 'm', remedy: 'r' };

  test('what may pass by itself is known by its code', () => {
    expect(['CONNECTION_FAILED', 'SLOT_ACTIVE', 'WAL_LEVEL', 'SOMETHING_NEW'].map(isTransient)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  test('waits double, up to a limit', () => {
    expect([1, 2, 3, 5, 6, 60].map(windowWait)).toEqual([1000, 2000, 4000, 16_000, 20_000, 20_000]);
  });

  test('what a person must mend is believed the second time', () => {
    const faults = new BellFaults();
    faults.failed(denied, 0);
    expect(faults.hopeless(0)).toBeNull();
    faults.failed(denied, 5000);
    expect(faults.hopeless(5000)).toBe(denied);
  });

  test('a success in between begins the count anew', () => {
    const faults = new BellFaults();
    faults.failed(denied, 0);
    faults.succeeded();
    faults.failed(denied, 5000);
    expect(faults.hopeless(5000)).toBeNull();
  });

  test('what may pass is waited for, for minutes and some tries', () => {
    const faults = new BellFaults();
    for (let i = 0; i < 20; i++) faults.failed(lost, i * 1000);
    expect(faults.hopeless(20_000)).toBeNull();
    expect(faults.hopeless(130_000)).toBe(lost);
  });
});

test('of a resync a run says how much was the same', () => {
  const done = { event: 'epoch_done', stream: 'a', rows: 1200 };
  expect(remarkOf({ ...done, chunks: 3, chunks_equal: 2 }, () => 'public.a')?.lines).toEqual([
    'public.a is compared: 2 of 3 chunks the same, 1,200 rows copied',
  ]);
  expect(remarkOf(done, () => 'public.a')?.lines).toEqual(['public.a is copied: 1,200 rows']);
});

test('a stream whose resync was asked for is waited for, and not told as halted', () => {
  const halted = stream({ state: 'halted', resync_requested: true });
  const left = remaining({ streams: [halted] }, new Set(['a']), 5);
  expect([left.halted, left.unfinished, needsWindow(left, 5)]).toEqual([[], [halted], true]);
});

describe('what stops a run', () => {
  const finding = (check: string, over: Partial<Finding> = {}): Finding => ({
    check,
    severity: 'error',
    subject: 's',
    problem: 'p',
    remedy: null,
    ...over,
  });
  const checks = (findings: Finding[], captured: boolean | null, lasting: boolean): string[] =>
    whatStops(findings, { captured, lasting }).map(({ check }) => check);
  const all = ['source_server', 'target_connection', 'tables_selected', 'target_ledger'].map((check) => finding(check));

  test('before the ledger is known, what no window and no load can get past', () => {
    expect(checks(all, null, false)).toEqual(['source_server', 'target_connection']);
  });

  test('at the beginning, tables as well; later a stream halts alone', () => {
    expect(checks(all, false, true)).toEqual(['source_server', 'target_connection', 'tables_selected']);
    expect(checks(all, true, true)).toEqual(['source_server', 'target_connection']);
  });

  test('a target that is away is waited for by a run that lasts, once something is captured', () => {
    const away = [finding('target_connection', { code: 'CONNECTION_FAILED' })];
    expect(checks(away, true, true)).toEqual([]);
    expect(checks(away, false, true)).toEqual(['target_connection']);
    expect(checks(away, true, false)).toEqual(['target_connection']);
    expect(checks([finding('target_connection', { code: 'AUTHENTICATION_FAILED' })], true, true)).toEqual([
      'target_connection',
    ]);
  });

  test('a position that is lost is the window’s to halt for, and to go on from; before anything is captured it stops', () => {
    for (const code of ['SLOT_LOST', 'SLOT_MISSING', 'SLOT_ADVANCED', 'CLUSTER_CHANGED', 'CLUSTER_BEHIND'] as const) {
      const lost = [finding(code.startsWith('SLOT') ? 'slot' : 'source_cluster', { code })];
      expect([checks(lost, true, false), checks(lost, null, false)]).toEqual([[], []]);
      expect(checks(lost, false, false)).toHaveLength(1);
    }
    expect(checks([finding('slot', { code: 'SLOT_PLUGIN' })], true, false)).toEqual(['slot']);
  });

  test('warnings never do', () => {
    expect(checks([finding('source_server', { severity: 'warning' })], false, false)).toEqual([]);
    expect(isOfTables(finding('tables_selected'))).toBe(true);
    expect(isOfTables(finding('tables_selected', { severity: 'warning' }))).toBe(false);
  });
});

describe('a meter', () => {
  test('tells the rate of the last seconds', () => {
    const meter = new Meter();
    expect(meter.per_second).toBe(0);
    for (let s = 0; s <= 60; s++) meter.add(s * 1000, s < 30 ? s * 100 : 3000);
    expect(meter.per_second).toBe(0);
    meter.add(62_000, 5000);
    expect(meter.per_second).toBe(200);
  });

  test('is not confused by a total that falls, nor by two looks at one time', () => {
    const meter = new Meter();
    meter.add(0, 100);
    meter.add(0, 200);
    expect(meter.per_second).toBe(0);
    meter.add(1000, 50);
    expect(meter.per_second).toBe(0);
  });

  test('what is left takes so long, or nobody can tell', () => {
    expect([secondsLeft(100, 50), secondsLeft(0, 0), secondsLeft(-5, 3), secondsLeft(10, 0)]).toEqual([2, 0, 0, null]);
  });
});

describe('progress', () => {
  const recorded = { cuts: 0, changes: 0, object_bytes: 0 };

  test('counts what this run has copied: not what was there, and a second copy as well as a first', () => {
    const maker = new ProgressMaker();
    const rows = (at_ms: number, over: Partial<StreamStatus>): number =>
      maker.make(at_ms, { head: null, streams: [stream(over)] }, recorded).applied.rows;
    expect(rows(0, { state: 'syncing', epoch: epoch({ rows_loaded: 300 }) })).toBe(0);
    expect(rows(1, { state: 'syncing', epoch: epoch({ rows_loaded: 500 }) })).toBe(200);
    expect(rows(2, { rows_copied: 1000 })).toBe(700);
    const second = { epoch_number: 2, epoch: epoch({ number: 2, rows_loaded: 0 }) };
    expect(rows(3, { state: 'syncing', rows_copied: 1000, ...second })).toBe(700);
    expect(rows(4, { rows_copied: 1100, epoch_number: 2 })).toBe(1800);
    // Begun and ended between two looks.
    expect(rows(5, { rows_copied: 1100, epoch_number: 3 })).toBe(2900);
  });

  test('a stream that comes later counts whole', () => {
    const maker = new ProgressMaker();
    maker.make(0, { head: null, streams: [] }, recorded);
    const streams = [stream({ state: 'syncing', epoch: epoch({ rows_loaded: 40 }) })];
    expect(maker.make(1, { head: null, streams }, recorded).applied.rows).toBe(40);
  });

  test('knows the end of a copy when all is read, and estimates it before', () => {
    const maker = new ProgressMaker();
    const copying = (at_ms: number, over: Partial<EpochStatus>) =>
      maker.make(at_ms, { head: null, streams: [stream({ state: 'syncing', epoch: epoch(over) })] }, recorded)
        .copying[0];
    expect(copying(0, { rows_total: null })).toMatchObject({ rows_total: null, seconds_left: null });
    expect(copying(1000, { rows_staged: 1200, rows_loaded: 100, rows_total: 1200 })).toMatchObject({
      rows_total: 1200,
      rows_per_second: 100,
      seconds_left: 11,
    });
    expect(copying(2000, { chunks_staged: 4, rows_staged: 900, rows_loaded: 900, rows_total: 900 })).toMatchObject({
      rows_total: 900,
      seconds_left: 0,
    });
  });

  test('tells the worst lag, or none where it cannot be told', () => {
    const lag = (...lags: StreamStatus['lag'][]) =>
      new ProgressMaker().make(0, { head: null, streams: lags.map((one) => stream({ lag: one })) }, recorded).lag;
    expect(lag({ cuts: 1, bytes: 10, seconds: 9 }, { cuts: 1, bytes: 90, seconds: 1 })).toEqual({
      bytes: 90,
      seconds: 9,
    });
    expect(lag({ cuts: 1, bytes: 10, seconds: 9 }, null)).toBeNull();
    expect(lag()).toBeNull();
  });
});

describe('a log line', () => {
  const tableOf = (id: string): string => (id === 'a-1' ? 'public.a' : id);

  test.each([
    [
      { event: 'captured', cut: 3, tables: ['public.a', 'b.c'] },
      'info',
      'Taken in by cut 3, to be copied: public.a, b.c',
    ],
    [{ event: 'epoch_done', stream: 'a-1', rows: 12345 }, 'info', 'public.a is copied: 12,345 rows'],
    [
      { event: 'stream_halted', stream: 'a-1', code: 'X', message: 'm', remedy: 'r' },
      'error',
      'public.a is halted: X: m\n  Remedy: r',
    ],
    [
      { event: 'bell_retried', retry_seconds: 5, error: { code: 'X', message: 'm' } },
      'warning',
      'A step failed and is tried again: X: m',
    ],
    [
      { event: 'bell_failed', retry_seconds: 5, error: { code: 'X', message: 'm', remedy: 'r' } },
      'error',
      'A step failed and is tried again: X: m\n  Remedy: r',
    ],
    [
      { event: 'table_recopied', stream: 'a-1', code: 'X', message: 'its rows were written anew.' },
      'warning',
      'public.a is copied anew: its rows were written anew.',
    ],
    [
      { event: 'append_only', table: 'public.a', remedy: 'r' },
      'warning',
      'public.a has no key: only what is added to it is followed, not what is changed or deleted.\n  r',
    ],
    [
      { event: 'generated_column_left_out', table: 'public.a', column: 'g', reason: 'why' },
      'warning',
      'public.a: the generated column g is left out, for the target cannot compute it: why',
    ],
    [
      { event: 'generated_column_plain', table: 'public.a', column: 'g', reason: 'why' },
      'info',
      'public.a: the generated column g is a plain one, for the target cannot compute it: why',
    ],
    [
      { event: 'slot_at_risk', wal_status: 'extended', kept_wal_bytes: 7, safe_wal_bytes: 5_000_000 },
      'warning',
      'The source can write 5.0 MB more before it gives the slot up.\n  Remedy: raise max_slot_wal_keep_size on the source, or run windows more often.',
    ],
    [
      { event: 'target_went_back', stream: 'a', cut: 3, known_cut: 5 },
      'warning',
      expect.stringMatching(/^The target is of an earlier time .*: cut 3, before 5\).*loaded again\.$/),
    ],
    [{ event: 'table_not_followed', code: 'X', message: 'm\u001b[2J' }, 'warning', 'Not followed: X: m\ufffd[2J'],
  ])('%j', (record, level, text) => {
    const remark = remarkOf(record, tableOf);
    expect([remark?.level, remark?.lines.join('\n')]).toEqual([level, text]);
  });

  test('of no interest to a person says nothing', () => {
    expect(remarkOf({ event: 'loaded', stream: 'a-1' }, tableOf)).toBeNull();
    expect(remarkOf({ message: 'an object that is no log line' }, tableOf)).toBeNull();
  });
});

test('loaders are as many as streams, and never more than the machine has use for', () => {
  const pipeline = (target: string) =>
    readPipeline(`pipeline: p\ntables: [public.a]\ntarget: { ${target} }\n`, 'p.yaml');
  expect(concurrencyFor(pipeline(''), 3, 2)).toEqual({ load: 3, extract: 2 });
  expect(concurrencyFor(pipeline(''), 100, 2)).toEqual({ load: 8, extract: 2 });
  expect(concurrencyFor(pipeline('parallelism: 1'), 100, 16)).toEqual({ load: 1, extract: 4 });
  expect(concurrencyFor(pipeline(''), Number.POSITIVE_INFINITY, 1)).toEqual({ load: 4, extract: 2 });
});
