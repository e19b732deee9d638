/**
 * A transaction that no single window can read to its end, over ports in memory: each window goes on behind what the last has staged, in one cut, and whatever does
 * not fit any more is begun anew (lib/window/unfinished.ts).
 */
import { describe, expect, test } from 'vitest';
import { CUT_AGE_MS_MAX } from '../../lib/cut/due.ts';
import type { Cut, RunReport } from '../../lib/ports.ts';
import { MemoryPipeline } from '../support/memory-pipeline.ts';
import type { Write } from '../support/memory-source.ts';
import { insert } from '../support/pgoutput.ts';

const put = (id: number, v = `v${id}`, table = 'public.a'): Write => ({ table, put: { id: String(id), v } });
const many = (from: number, to: number): Write[] => Array.from({ length: to - from }, (_, i) => put(from + i));

/** A pipeline whose tables are live. */
async function live(options: ConstructorParameters<typeof MemoryPipeline>[0] = {}): Promise<MemoryPipeline> {
  const p = new MemoryPipeline(options);
  p.database.makeTable('public.a').makeTable('public.b');
  await p.window({ break_at_end_lsn: true });
  await p.pump();
  p.database.write(put(1));
  await p.settle();
  p.world.events.length = 0;
  p.world.log.lines.length = 0;
  return p;
}

const head = ({ durable }: MemoryPipeline): Cut => durable.chain.at(-1) as Cut;
const told = ({ world }: MemoryPipeline, event: string) => world.log.lines.filter((line) => line.event === event);

/** A window that reads so many messages before its deadline. */
async function windowOf(
  p: MemoryPipeline,
  messages: number,
  more: Parameters<MemoryPipeline['window']>[0] = {},
  /** The cut is old by then. */
  aged = 0,
): Promise<RunReport> {
  const { now_ms } = p.world.clock;
  p.database.messages_per_read = 1;
  let reads = 0;
  p.database.onRead = () => {
    if (++reads === aged) p.world.clock.now_ms += CUT_AGE_MS_MAX;
    if (reads === messages) p.world.clock.now_ms = now_ms + 800_000;
  };
  try {
    return await p.window({ deadline_ms: now_ms + 800_000, break_at_end_lsn: true, ...more });
  } finally {
    p.database.onRead = () => {};
    p.database.messages_per_read = Number.POSITIVE_INFINITY;
  }
}

function expectEqual(p: MemoryPipeline): void {
  for (const table of ['public.a', 'public.b']) expect(p.both(table).target).toEqual(p.both(table).source);
}

describe('a transaction longer than a window', () => {
  test('comes in one cut of as many objects as it took windows; each change is staged once', async () => {
    const p = await live();
    const before = head(p);
    // The cut that it is in begins with another.
    p.database.write(put(2, 'first'), put(3, 'x', 'public.b'));
    p.database.write(...many(10, 40), { table: 'public.a', remove: { id: '2' } }, put(1, 'changed'));
    const reports = [await windowOf(p, 12), await windowOf(p, 22), await windowOf(p, 32)];
    expect(reports.map(({ stopped_by }) => stopped_by)).toEqual(['deadline', 'deadline', 'deadline']);
    expect(reports.map(({ error }) => error)).toEqual([null, null, null]);
    expect(reports.map(({ unfinished }) => unfinished?.windows)).toEqual([1, 2, 3]);
    const changes = reports.map(({ unfinished }) => unfinished?.changes ?? 0);
    expect(changes).toEqual([...new Set(changes)].sort((a, b) => a - b));
    expect(head(p)).toBe(before);
    expect(p.database.slot?.confirmed_lsn).toBe(before.end_lsn);
    expect(told(p, 'transaction_unfinished').at(-1)?.facts).toMatchObject({
      xid: 7,
      windows: 3,
      tables: ['public.a', 'public.b'],
    });

    const last = await p.window({ break_at_end_lsn: true });
    expect(last).toMatchObject({ error: null, cuts: 1, changes: 34, transactions: 2 });
    expect(last.unfinished).toBeUndefined();
    expect(head(p)).toMatchObject({ number: before.number + 1, begin_lsn: before.end_lsn, end_lsn: p.database.lsn });
    expect(head(p).earlier).toHaveLength(3);
    const bytes = [...(head(p).earlier ?? []), { object: head(p).object ?? '' }].map(
      ({ object }) => p.durable.objects.get(object)?.length ?? 0,
    );
    expect(head(p).object_bytes).toBe(bytes.reduce((sum, length) => sum + length, 0));
    await p.settle();
    expectEqual(p);
  });

  test('at whatever message the windows end, nothing is lost or doubled', async () => {
    for (let messages = 2; messages < 16; messages++) {
      const p = await live();
      p.database.write(put(2, 'first'), put(3, 'x', 'public.b'));
      p.database.write(...many(4, 9), { table: 'public.b', truncate: true }, put(3, 'y', 'public.b'), put(2, 'again'));
      const first = await windowOf(p, messages);
      await windowOf(p, messages + 3);
      await windowOf(p, messages + 3);
      await p.settle();
      expectEqual(p);
      expect(first.error).toBeNull();
      const counted = p.durable.reports
        .flatMap(({ streams }) => Object.values(streams))
        .reduce((sum, { changes }) => sum + changes, 0);
      expect(counted).toBe(1 + 2 + 5 + 3);
    }
  });

  test('a window that passes over what is staged, and comes to nothing new, says so; what is staged stays', async () => {
    const p = await live();
    p.database.write(...many(10, 40));
    await windowOf(p, 25);
    const objects = p.durable.objects.size;
    const { unfinished } = await windowOf(p, 10);
    expect(unfinished).toMatchObject({ windows: 2, stalled: true });
    expect(p.durable.objects.size).toBe(objects);
    await p.settle();
    expect(head(p).earlier ?? p.durable.chain.at(-2)?.earlier).toHaveLength(1);
    expectEqual(p);
  });

  test('has only so many objects; a transaction behind it is another one, and has its own', async () => {
    const p = await live();
    p.database.write(...many(10, 60));
    p.database.write(...many(100, 140));
    const more = { objects_max: 2 };
    for (const messages of [15, 25]) expect((await windowOf(p, messages, more)).unfinished?.stalled).toBe(false);
    const objects = p.durable.objects.size;
    expect((await windowOf(p, 35, more)).unfinished).toMatchObject({ windows: 3, stalled: true });
    expect(p.durable.objects.size).toBe(objects);
    const { unfinished, cuts } = await windowOf(p, 70, more, 40);
    expect(cuts).toBe(1);
    expect(unfinished).toMatchObject({ windows: 1, stalled: false });
    await p.settle();
    expect(p.durable.chain.flatMap(({ earlier }) => (earlier ? [earlier.length] : []))).toEqual([2, 1]);
    expectEqual(p);
  });

  test('a window to which the source sends nothing until its deadline says so', async () => {
    const p = await live();
    p.database.write(...many(10, 40));
    p.database.busy_until_ms = p.world.clock.now() + 900_000;
    const report = await p.window({ break_at_end_lsn: true });
    expect(report).toMatchObject({ stopped_by: 'deadline', error: null, cuts: 0 });
    expect(told(p, 'window_came_to_nothing')).toHaveLength(1);
    p.world.clock.now_ms += 900_000;
    await p.settle();
    expect(told(p, 'window_came_to_nothing')).toHaveLength(1);
    expectEqual(p);
  });

  test('who is asked to end inside one waits a little for its end', async () => {
    const p = await live();
    p.database.write(...many(10, 40));
    p.database.messages_per_read = 1;
    let reads = 0;
    p.database.onRead = () => {
      if (++reads > 5) p.world.clock.now_ms += 1_000;
    };
    const { stopped_by, unfinished } = await p.window({ asked: () => reads > 5 });
    expect(stopped_by).toBe('asked');
    expect(unfinished?.changes).toBeGreaterThan(5);
    expect(unfinished?.changes).toBeLessThan(12);
  });
});

describe('is begun anew', () => {
  /** Begun, and not come to its end. */
  async function suspended(): Promise<MemoryPipeline> {
    const p = await live();
    p.database.write(...many(10, 40));
    await windowOf(p, 15);
    expect(p.durable.unfinished?.objects).toHaveLength(1);
    return p;
  }
  /** In the end all is there, in a cut of one object. */
  async function anew(p: MemoryPipeline): Promise<void> {
    await p.settle();
    expect(p.durable.chain.filter(({ earlier }) => earlier !== undefined)).toEqual([]);
    expectEqual(p);
  }

  test('where an object is gone', async () => {
    const p = await suspended();
    p.durable.objects.delete(p.durable.unfinished?.objects[0]?.object ?? '');
    await anew(p);
    expect(told(p, 'transaction_begun_anew')).toHaveLength(1);
  });

  test('where its state is damaged', async () => {
    const p = await suspended();
    const { object = '', object_bytes = 0 } = p.durable.unfinished?.objects[0] ?? {};
    const bytes = Buffer.from(p.durable.objects.get(object) ?? '');
    bytes.writeUInt8(bytes.readUInt8(object_bytes - 9) ^ 1, object_bytes - 9);
    p.durable.objects.set(object, bytes);
    await anew(p);
    expect(told(p, 'transaction_begun_anew')[0]?.facts?.reason).toContain('checksum');
  });

  test('under another file', async () => {
    const p = await suspended();
    const other = new MemoryPipeline({ target: 'hard_delete: false' }).pipeline;
    const { unfinished } = p.durable;
    await p.window({ deadline_ms: 0 }, other);
    expect(told(p, 'transaction_begun_anew')[0]?.facts?.reason).toContain('pipeline file');
    expect(p.durable.unfinished).toBe(unfinished);
  });

  test('where the chain has gone on', async () => {
    const p = await suspended();
    p.database.makeTable('public.c');
    await anew(p);
  });

  test.each(['fewer changes', 'another change'])('where the source sends %s than it did', async (what) => {
    const p = await suspended();
    const { log } = p.database;
    const sent = log.pop();
    const table = p.database.table('public.a');
    if (!sent) throw new Error('no transaction');
    const messages = [...sent.messages];
    if (what === 'fewer changes') {
      messages.length = 8;
      for (let id = 18; id < 40; id++) table.rows.delete(JSON.stringify([String(id)]));
    } else {
      messages[4] = { table, message: insert(table.source.oid, ['14', 'longer than before']) };
      table.rows.set(JSON.stringify(['14']), { id: '14', v: 'longer than before' });
    }
    log.push({ ...sent, messages });
    p.database.write(put(90));
    const report = await p.window({ break_at_end_lsn: true });
    expect(report.error?.code).toBe('TRANSACTION_CHANGED');
    expect(p.durable.unfinished).toBeNull();
    await anew(p);
  });
});
