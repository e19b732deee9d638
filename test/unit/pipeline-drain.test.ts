/**
 * One window, over ports in memory: when it ends, in what order it makes things durable, and what it leaves alone. The ports assert what must be
 * there first (test/support/memory-ports.ts); capturing is pipeline-capture's.
 */
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import type { Cut } from '../../lib/ports.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';

const A = idOf('public.a');
const put = (id: number, v = 'v') => ({ table: 'public.a', put: { id: String(id), v } });

/** A pipeline whose tables are live, with what happened until then forgotten. */
async function live(options: ConstructorParameters<typeof MemoryPipeline>[0] = {}): Promise<MemoryPipeline> {
  const p = new MemoryPipeline(options);
  p.database.makeTable('public.a').makeTable('public.b');
  await p.window({ break_at_end_lsn: true });
  await p.pump();
  // The chunks' positions lie before this commit.
  p.database.write(put(1));
  await p.window({ break_at_end_lsn: true });
  await p.pump();
  expect(p.isSettled).toBe(true);
  p.world.events.length = 0;
  return p;
}

const head = ({ durable }: MemoryPipeline): Cut => durable.chain.at(-1) as Cut;
const callsOf = ({ world }: MemoryPipeline): string[] => world.events.map(({ call }) => call);

describe('a window ends', () => {
  test('source.break_at_end_lsn: at a commit at or past the end that the source had when it began', async () => {
    const p = await live();
    const end_lsn = p.database.write(put(2), put(3));
    // Written meanwhile, and there to be read with the last commit: not waited for, and not begun.
    p.database.onRead = () => p.database.write(put(9));
    p.database.messages_per_read = 2;
    const report = await p.window();
    expect(report).toMatchObject({
      stopped_by: 'end_lsn',
      error: null,
      source_lsn: end_lsn,
      end_lsn,
      cuts: 1,
      transactions: 1,
      changes: 2,
    });
    expect(report.streams).toEqual({ [A]: { changes: 2, text_bytes: 8 } });
    expect([head(p).end_lsn, p.database.slot?.confirmed_lsn]).toEqual([end_lsn, end_lsn]);
  });

  test('at a keepalive, where all that was written was not for us; the position is recorded and confirmed', async () => {
    const p = await live();
    const before = head(p);
    p.database.idle(5_000_000n);
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'end_lsn', cuts: 0, changes: 0, end_lsn: p.database.lsn });
    expect(head(p)).toMatchObject({
      number: before.number + 1,
      begin_lsn: before.end_lsn,
      end_lsn: p.database.lsn,
      object: null,
      streams: {},
    });
    expect(p.database.slot?.confirmed_lsn).toBe(p.database.lsn);
  });

  test('where nothing was written, without a cut', async () => {
    const p = await live();
    const before = head(p);
    await p.window();
    expect(head(p)).toBe(before);
    expect(callsOf(p)).not.toContain('reader.confirm');
  });

  test('source.logical_poll_total_seconds: when no data came for long enough, and the server says that there is none', async () => {
    const p = await live({ source: 'logical_poll_total_seconds: 5' });
    p.database.write(put(2));
    const began_ms = p.world.clock.now();
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'no_data', changes: 1 });
    expect(report.ended_at_ms - began_ms).toBeGreaterThanOrEqual(5_000);
    expect(report.ended_at_ms - began_ms).toBeLessThan(7_000);
  });

  test('not while the server is silent: what it decodes may be for us', async () => {
    const p = await live({ source: 'logical_poll_total_seconds: 5' });
    p.database.write(put(2));
    p.database.busy_until_ms = p.world.clock.now() + 60_000;
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'no_data', changes: 1 });
    // And then it is waited again: there was data.
    expect(report.ended_at_ms).toBeGreaterThanOrEqual(p.database.busy_until_ms + 5_000);
  });

  test('no data is counted anew from every change', async () => {
    const p = await live({ source: 'logical_poll_total_seconds: 5' });
    const began_ms = p.world.clock.now();
    let written = 0;
    p.database.onRead = () => {
      if (p.world.clock.now() - began_ms >= 4_000 * (written + 1) && written < 3) p.database.write(put(10 + written++));
    };
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'no_data', changes: 3 });
    expect(report.ended_at_ms - began_ms).toBeGreaterThanOrEqual(17_000);
  });

  test('source.max_run_seconds: after its time', async () => {
    const p = await live({ source: 'max_run_seconds: 60' });
    const began_ms = p.world.clock.now();
    const report = await p.window();
    expect(report.stopped_by).toBe('max_run');
    expect(report.ended_at_ms - began_ms).toBeGreaterThanOrEqual(60_000);
  });

  test('when it is asked to, with what it has', async () => {
    const p = await live({ source: 'max_run_seconds: 60' });
    let asked = false;
    p.database.write(put(2));
    p.database.onRead = () => {
      asked = true;
    };
    const report = await p.window({ asked: () => asked });
    expect(report).toMatchObject({ stopped_by: 'asked', changes: 1 });
  });

  test('asked within a transaction, with all of that', async () => {
    const p = await live({ source: 'max_run_seconds: 60' });
    p.database.messages_per_read = 1;
    p.database.write(put(2), put(3), put(4));
    const report = await p.window({ asked: () => true });
    expect(report).toMatchObject({ stopped_by: 'asked', changes: 3 });
  });

  test('at its deadline in the middle of a transaction: nothing is recorded of it, and what is staged stays for the next', async () => {
    const p = await live();
    const before = head(p);
    p.database.write(put(2, 'in the same cut'));
    p.database.write(put(3, 'x'.repeat(9_000_000)), put(4), put(5));
    p.database.messages_per_read = 1;
    const { now_ms } = p.world.clock;
    let reads = 0;
    p.database.onRead = () => {
      // After the begin and the change of the second transaction: a part of it is on its way.
      if (++reads === 7) p.world.clock.now_ms += 900_000;
    };
    const report = await p.window({ deadline_ms: now_ms + 800_000 });
    expect(report).toMatchObject({ stopped_by: 'deadline', error: null, cuts: 0, changes: 0 });
    expect(head(p)).toBe(before);
    expect(callsOf(p)).toEqual(expect.arrayContaining(['stage.complete', 'ledger.saveUnfinished']));
    expect(callsOf(p)).not.toContain('ledger.append');
    expect(p.database.slot).toMatchObject({ confirmed_lsn: before.end_lsn, active_pid: null });

    p.database.onRead = () => {};
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });
});

describe('the order', () => {
  test('of every cut is stage, record, confirm; bells come after', async () => {
    const p = await live({
      target: 'hard_delete: true, batch_size_rows: 1',
      source: 'max_run_seconds: 30',
      schedule: 'continuous: true',
    });
    let written = 0;
    p.database.onRead = () => {
      if (written < 5) p.database.write(put(written++));
      p.world.clock.now_ms += 300;
    };
    await p.window();
    const cut = ['stage.complete', 'ledger.append', 'reader.confirm', 'doorbell.ringLoad'];
    const calls = callsOf(p).filter((call) => cut.includes(call));
    expect(calls.length).toBeGreaterThanOrEqual(3 * cut.length);
    expect(calls).toEqual(Array.from({ length: calls.length / 4 }, () => cut).flat());
    const confirmed = p.world.calls('reader.confirm') as Lsn[];
    expect(confirmed).toEqual((p.world.calls('ledger.append') as Cut[]).map(({ end_lsn }) => end_lsn));
  });

  test('bells that are not due are rung at the end, once', async () => {
    const p = await live();
    p.database.write(put(2));
    await p.window();
    expect(p.durable.loadBells).toEqual([{ kind: 'cuts', stream: A, cut: head(p).number }]);
    expect(callsOf(p).indexOf('doorbell.ringLoad')).toBeGreaterThan(callsOf(p).indexOf('reader.confirm'));
  });

  test('a stage that fails leaves nothing recorded, nothing confirmed, and the slot free', async () => {
    const p = await live();
    const before = head(p);
    p.database.write(put(2));
    p.world.faults.set(
      'stage.complete',
      new SluiceError('AWS_TRANSIENT', { service: 'S3', operation: 'PutObject', reason: 'SlowDown' }),
    );
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'failed', error: { code: 'AWS_TRANSIENT' }, cuts: 0 });
    expect(p.durable.reports.at(-1)).toEqual(report);
    expect(callsOf(p)).not.toContain('reader.confirm');
    expect([head(p), p.database.slot?.active_pid, p.durable.lease?.until_ms]).toEqual([before, null, 0]);
    p.world.faults.clear();
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('the slot is free again where the window fails between opening it and reading', async () => {
    const p = await live();
    // Here files are compared as soon as it is known what the plugin speaks.
    p.database.version = 100_023;
    const bookmark = p.durable.bookmarks.get(A);
    if (!bookmark?.followed) throw new Error('not followed');
    p.durable.bookmarks.set(A, { ...bookmark, followed: { ...bookmark.followed, file: 'another' } });
    const fault = new SluiceError('AWS_TRANSIENT', { service: 'DynamoDB', operation: 'PutItem', reason: 'Throttling' });
    p.world.faults.set('ledger.updateBookmark', fault);
    expect(await p.window()).toMatchObject({ stopped_by: 'failed', error: { code: 'AWS_TRANSIENT' } });
    expect(callsOf(p)).toContain('reader.close');
    expect(p.database.slot?.active_pid).toBeNull();
  });

  test('a bell that cannot be rung fails nothing, and is rung again by the next window', async () => {
    const p = await live();
    p.database.write(put(2));
    p.world.faults.set('doorbell.ringLoad', new Error('no queue'));
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'end_lsn', error: null, changes: 1 });
    expect(p.world.log.lines.filter(({ event }) => event === 'doorbell_not_rung')).toHaveLength(1);
    p.world.faults.clear();
    await p.window();
    expect(p.durable.loadBells).toEqual([{ kind: 'cuts', stream: A, cut: head(p).number }]);
  });

  test('a stream that is halted is not rung for', async () => {
    const p = await live();
    p.database.write(put(2));
    await p.window();
    p.durable.loadBells.length = 0;
    const bookmark = p.durable.bookmarks.get(A);
    if (bookmark)
      p.durable.bookmarks.set(A, {
        ...bookmark,
        halt: { code: 'X', message: '', remedy: '', cut: null, at_ms: 0, must_reset: false },
      });
    await p.window();
    expect(p.durable.loadBells).toEqual([]);
  });
});

describe('beside another window', () => {
  test('that holds the lease, it is skipped and touches nothing', async () => {
    const p = await live();
    p.durable.lease = { name: 'x', owner: 'another', token: 99, until_ms: p.world.clock.now() + 1 };
    p.database.write(put(2));
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'skipped', error: null });
    expect(callsOf(p)).toEqual(['ledger.takeLease']);
    expect(p.durable.lease.owner).toBe('another');
  });

  test('that has taken the lease over, it stops and records nothing more', async () => {
    const p = await live({ source: 'max_run_seconds: 60' });
    const before = head(p);
    p.database.write(put(2));
    p.database.onRead = () => {
      p.durable.lease = { name: 'x', owner: 'another', token: 99, until_ms: p.world.clock.now() + 900_000 };
      p.world.clock.now_ms += 2_000;
    };
    const report = await p.window({ lease_ms: 6_000 });
    expect(report).toMatchObject({ stopped_by: 'lease_lost', cuts: 0 });
    expect([head(p), p.durable.lease?.owner]).toEqual([before, 'another']);
    expect(callsOf(p)).not.toContain('reader.confirm');
  });

  test('a lease that lasts is renewed meanwhile', async () => {
    const p = await live({ source: 'max_run_seconds: 60' });
    await p.window({ lease_ms: 9_000 });
    expect(p.world.calls('ledger.renewLease').length).toBeGreaterThan(15);
  });

  test('that has extended the chain, it ends with WINDOW_LOST, and what it staged does not count', async () => {
    const p = await live();
    p.database.write(put(2));
    p.durable.beforeAppend = (cut) => {
      p.durable.beforeAppend = () => {};
      p.durable.chain.push({ ...cut, object: null, streams: {}, end_lsn: lsnOf(cut.begin_lsn + 1n) });
    };
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'failed', error: { code: 'WINDOW_LOST' }, cuts: 0 });
    expect(callsOf(p)).not.toContain('reader.confirm');
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('that died and left its reader behind, it ends that and no other', async () => {
    const p = await live();
    const token = (p.durable.lease?.token ?? 0) - 1;
    p.database.slot = {
      confirmed_lsn: p.database.slot?.confirmed_lsn ?? lsnOf(0n),
      active_pid: 4711,
      active_application: `sluice/shop#${token}`,
    };
    expect((await p.window()).error).toBeNull();
    expect(p.world.calls('source.terminate')).toEqual([4711]);
    p.database.slot = { ...p.database.slot, active_pid: 4712, active_application: 'psql' };
    expect((await p.window()).error?.code).toBe('SLOT_ACTIVE');
    expect(p.world.calls('source.terminate')).toEqual([4711]);
  });
});

describe('what it finds', () => {
  test('a selection that is wrong from the start changes nothing', async () => {
    const p = new MemoryPipeline({ tables: '[public.a, public.missing]' });
    p.database.makeTable('public.a');
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'failed', error: { code: 'TABLE_MISSING' } });
    expect(callsOf(p)).toEqual(['ledger.takeLease', 'ledger.releaseLease', 'ledger.saveReport']);
    expect([p.database.publication, p.database.slot, p.durable.chain]).toEqual([null, null, []]);
  });

  test('another cluster is a fault before anything is read', async () => {
    const p = await live();
    p.database.system_identifier = 'restored elsewhere';
    const report = await p.window();
    expect(report.error?.code).toBe('CLUSTER_CHANGED');
    // Each of the streams halts (test/unit/lost-slot.test.ts).
    expect(new Set(callsOf(p))).toEqual(
      new Set(['ledger.takeLease', 'ledger.updateBookmark', 'ledger.releaseLease', 'ledger.saveReport']),
    );
  });

  test.each([
    ['alone', []],
    ['beside changes of others', [{ table: 'public.b', put: { id: '1', v: 'x' } }]],
  ])(
    'a table that lost its key while it was read, %s: it is halted before a position past its changes is recorded',
    async (_how, others) => {
      const p = await live();
      const before = head(p);
      p.database.table('public.a').isKeyless = true;
      p.database.write(put(70), ...others);
      // The catalog has the key again by the time of the next look.
      const report = await p.window();
      expect(report.error).toBeNull();
      expect(head(p).number).toBe(before.number + 1);
      expect(p.durable.bookmarks.get(A)?.halt).toMatchObject({ code: 'SHAPE_CHANGED', must_reset: true });
      const calls = callsOf(p);
      expect(calls.indexOf('ledger.updateBookmark')).toBeLessThan(calls.indexOf('ledger.append'));
      expect(calls.indexOf('ledger.updateBookmark')).toBeGreaterThanOrEqual(0);
    },
  );

  test('cuts that every stream has applied, and that are older than the stage, are removed', async () => {
    const p = await live();
    const { number } = head(p);
    p.world.clock.now_ms += 15 * 24 * 3600 * 1000;
    p.database.write(put(2));
    await p.settle();
    expect(p.durable.chain[0]?.number).toBeGreaterThanOrEqual(number);
  });
});
