/**
 * Taking streams in (I11), and beginning a chain: publication, writers, the cut that captures, epochs; again whenever changes of a stream have been
 * out of sight.
 */
import { describe, expect, test } from 'vitest';
import { openRequested } from '../../lib/epoch/request.ts';
import type { Bookmark, Cut, Epoch } from '../../lib/ports.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';

const A = idOf('public.a');
const B = idOf('public.b');
const put = (table: string, id: number, v = 'v') => ({ table: `public.${table}`, put: { id: String(id), v } });

function expectEqual(p: MemoryPipeline, ...tables: readonly string[]): void {
  for (const table of tables) expect(p.both(`public.${table}`).target).toEqual(p.both(`public.${table}`).source);
}

const bookmark = (p: MemoryPipeline, stream: string): Bookmark => p.durable.bookmarks.get(stream) as Bookmark;
const callsOf = ({ world }: MemoryPipeline): string[] => world.events.map(({ call }) => call);
const captures = ({ durable }: MemoryPipeline): (readonly string[])[] =>
  durable.chain.filter(({ kind }) => kind === 'captures').map(({ captures: streams }) => streams);

async function live(
  tables = 'ab',
  options: ConstructorParameters<typeof MemoryPipeline>[0] = {},
): Promise<MemoryPipeline> {
  const p = new MemoryPipeline(options);
  for (const table of tables) p.database.makeTable(`public.${table}`).write(put(table, 1, 'first'));
  await p.settle();
  p.world.events.length = 0;
  return p;
}

describe('the first window', () => {
  test('begins the chain in an order that a crash cannot hurt, and captures before anything is copied', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a').write(put('a', 1));
    await p.window();
    expect(callsOf(p)).toEqual([
      'ledger.takeLease',
      'ledger.append', // genesis: from here a slot of this name is ours
      'source.publish',
      'source.createSlot',
      'ledger.append', // where the slot stands
      'source.publish',
      'source.writers',
      'ledger.append', // captures
      'ledger.addBookmark',
      'ledger.openEpoch',
      'doorbell.ringExtract',
      'source.openSlot',
      'reader.close',
      'ledger.prune',
      'ledger.releaseLease',
      'ledger.saveReport',
    ]);
    expect(p.durable.chain.map(({ number, kind }) => [number, kind])).toEqual([
      [0, 'genesis'],
      [1, 'slot'],
      [2, 'captures'],
    ]);
    expect(new Set(p.durable.chain.map(({ incarnation }) => incarnation)).size).toBe(1);
    expect(bookmark(p, A)).toMatchObject({ captured_cut: 2, state: 'captured', epoch: 1 });
    expect([...p.durable.epochs.values()]).toEqual([
      expect.objectContaining({ stream: A, number: 1, kind: 'first_sync', held_cut: 2, state: 'opened' }),
    ]);
    expect(p.durable.extractBells).toEqual([{ kind: 'plan', stream: A, epoch: 1 }]);
  });

  test('takes over a slot that is there where it may, and reads nothing of what it holds', async () => {
    const p = new MemoryPipeline({ source: 'break_at_end_lsn: true, create_slot: false' });
    p.database.makeTable('public.a');
    p.database.slot = { active_pid: null, active_application: null, confirmed_lsn: p.database.lsn };
    p.database.publication = new Set(['public.a']);
    p.database.write(put('a', 1, 'before the chain'));
    const report = await p.window();
    expect(report).toMatchObject({ error: null, changes: 0 });
    expect(p.world.calls('source.advanceSlot')).toEqual([p.database.lsn]);
    await p.settle();
    expectEqual(p, 'a');
  });

  test('refuses a slot that another has made', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a');
    p.database.slot = { active_pid: null, active_application: null, confirmed_lsn: p.database.lsn };
    expect((await p.window()).error?.code).toBe('SLOT_FOREIGN');
    expect([p.durable.chain, p.database.publication]).toEqual([[], null]);
  });
});

describe('transactions that wrote before the publication', () => {
  test('are waited for, and what they did is in the copy', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a').write(put('a', 1));
    const unpublished = p.database.begin().write(put('a', 2, 'not in the log'));
    let asked = 0;
    p.database.onWriters = () => {
      if (++asked === 4) unpublished.commit();
    };
    await p.window();
    expect(asked).toBe(4);
    expect(captures(p)).toEqual([[A]]);
    await p.settle();
    expectEqual(p, 'a');
  });

  test('those that began to write later are in the log, and are not waited for', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a').write(put('a', 1));
    const unpublished = p.database.begin().write(put('a', 2));
    let asked = 0;
    p.database.onWriters = () => {
      if (++asked !== 3) return;
      p.database.begin().write(put('a', 3));
      unpublished.commit();
    };
    await p.window();
    expect([asked, captures(p)]).toEqual([3, [[A]]]);
    for (const transaction of p.database.open) transaction.commit();
    await p.settle();
    expectEqual(p, 'a');
  });

  test('are not waited for when the window shall end', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a');
    const stuck = p.database.begin().write(put('a', 1));
    let looks = 0;
    p.database.onWriters = () => void looks++;
    const began_ms = p.world.clock.now_ms;
    const report = await p.window({ asked: () => looks > 0 });
    expect([report.stopped_by, captures(p)]).toEqual(['asked', []]);
    expect(p.world.clock.now_ms - began_ms).toBeLessThan(2_000);
    stuck.commit();
    await p.settle();
    expectEqual(p, 'a');
  });

  test('that do not end keep their table out, and nothing else', async () => {
    const p = await live('b');
    p.database.makeTable('public.a');
    const stuck = p.database.begin().write(put('a', 1));
    p.database.write(put('b', 2));
    const report = await p.window();
    expect(report).toMatchObject({ stopped_by: 'end_lsn', error: null, changes: 1 });
    expect(captures(p)).toEqual([[B]]);
    expect(p.durable.bookmarks.has(A)).toBe(false);
    expect(p.world.log.lines.filter(({ event }) => event === 'capture_waits_for_writers')).toHaveLength(1);
    stuck.commit();
    await p.settle();
    expect(captures(p)).toEqual([[B], [A]]);
    expectEqual(p, 'a', 'b');
  });
});

describe('a stream whose changes have been out of sight', () => {
  test('a new table is captured by the next window', async () => {
    const p = await live('a');
    p.database.makeTable('public.c').write(put('c', 1));
    await p.settle();
    expect(captures(p)).toEqual([[A], [idOf('public.c')]]);
    expectEqual(p, 'a', 'c');
  });

  test('one that left the publication is captured anew, and that is noted before it is published again', async () => {
    const p = await live();
    p.database.publication?.delete('public.a');
    p.database.write(put('a', 2, 'unseen'));
    await p.window();
    const noted = p.world.events.findIndex(
      ({ call, about }) => call === 'ledger.updateBookmark' && (about as Bookmark).reset_requested,
    );
    expect(noted).toBeGreaterThanOrEqual(0);
    expect(noted).toBeLessThan(callsOf(p).indexOf('source.publish'));
    expect(captures(p)).toEqual([[A, B], [A]]);
    expect(bookmark(p, A)).toMatchObject({ state: 'captured', epoch: 2, reset_requested: false });
    expect(p.durable.epochs.get(`${A}/2`)).toMatchObject({ kind: 'reset', held_cut: bookmark(p, A).captured_cut });
    await p.settle();
    expectEqual(p, 'a', 'b');
    expect(captures(p)).toHaveLength(2);
  });

  test('one that left the publication, while a transaction writes to it that does not end', async () => {
    const p = await live();
    p.database.publication?.delete('public.a');
    const stuck = p.database.begin().write(put('a', 2, 'unseen'));
    await p.window();
    expect(captures(p)).toHaveLength(1);
    // It is published by now, and looks as if it had never been away.
    expect(p.database.publication?.has('public.a')).toBe(true);
    expect(bookmark(p, A).reset_requested).toBe(true);
    stuck.commit();
    await p.settle();
    expectEqual(p, 'a', 'b');
  });

  test('one that was taken out of the file for a while', async () => {
    const p = await live();
    const without = new MemoryPipeline({ tables: '[public.b]' }).pipeline;
    p.database.write(put('a', 2, 'unseen'), put('b', 2));
    const report = await p.window({}, without);
    expect(Object.keys(report.streams)).toEqual([B]);
    expect(bookmark(p, A).reset_requested).toBe(true);
    p.database.write(put('a', 3));
    await p.settle();
    expect(captures(p)).toEqual([[A, B], [A]]);
    expectEqual(p, 'a', 'b');
  });

  test('what was asked for of one that was taken out of the file is dropped, of others not', async () => {
    const p = await live();
    const request = { id: '1-x', kind: 'backfill', where: 'true', ranges: null, requested_at_ms: 1 } as const;
    for (const stream of [A, B]) {
      await p.drainPorts().ledger.addEpochRequest({ ...request, stream });
      p.durable.bookmarks.set(stream, { ...bookmark(p, stream), state: 'syncing' });
    }
    await p.window({}, new MemoryPipeline({ tables: '[public.b]' }).pipeline);
    expect([...p.durable.requests.values()].map(({ stream }) => stream)).toEqual([B]);
  });

  test('what was asked for of one that is read by query by now is dropped', async () => {
    const p = await live('a');
    const request = { stream: A, id: '1-x', kind: 'repair', where: null, ranges: [], requested_at_ms: 1 } as const;
    await p.drainPorts().ledger.addEpochRequest(request);
    p.durable.bookmarks.set(A, { ...bookmark(p, A), method: 'FULL_TABLE' });
    expect(await openRequested(p.drainPorts(), bookmark(p, A))).toBeNull();
    expect([p.durable.requests.size, bookmark(p, A).epoch]).toEqual([0, 1]);
  });

  test('one that somebody wants anew; that ends its halt', async () => {
    const p = await live();
    const halt = { code: 'X', message: '', remedy: '', cut: 1, at_ms: 0, must_reset: true };
    p.durable.bookmarks.set(A, { ...bookmark(p, A), reset_requested: true, halt });
    p.database.write(put('a', 2));
    await p.window();
    expect(bookmark(p, A)).toMatchObject({ halt: null, reset_requested: false, epoch: 2, state: 'captured' });
    await p.settle();
    expect([captures(p).length, p.durable.epochs.size]).toEqual([2, 3]);
    expectEqual(p, 'a', 'b');
  });

  test('a request that could not be fulfilled is not forgotten with the epoch of an earlier capture', async () => {
    const p = await live();
    // Captured anew, and the window died before it opened the epoch: the last one is of the capture before.
    p.durable.bookmarks.set(A, { ...bookmark(p, A), state: 'captured', reset_requested: true });
    p.durable.epochs.set(`${A}/1`, {
      ...(p.durable.epochs.get(`${A}/1`) as Epoch),
      held_cut: bookmark(p, A).captured_cut - 1,
    });
    const stuck = p.database.begin().write(put('a', 2));
    await p.window();
    expect(bookmark(p, A)).toMatchObject({ epoch: 2, reset_requested: true });
    stuck.commit();
    await p.window();
    expect(bookmark(p, A)).toMatchObject({ epoch: 3, reset_requested: false });
  });

  test('a loader that ends late does not make a stream live that was captured anew meanwhile', async () => {
    const p = await live('a');
    p.database.write(put('a', 2));
    await p.window();
    const [bell] = p.durable.loadBells.splice(0);
    const late = bookmark(p, A);
    // Between the loader's look at the bookmark and its update of it, a window captures the stream.
    const update = p.world.change.bind(p.world);
    p.world.change = (life, call, about, effect) => {
      if (call === 'target.commit') p.durable.bookmarks.set(A, { ...late, state: 'captured' });
      return update(life, call, about, effect);
    };
    if (bell) await p.load(bell);
    expect(bookmark(p, A).state).toBe('captured');
  });

  test('nor does it write its position into a bookmark of the new capture', async () => {
    const p = await live('a');
    p.database.write(put('a', 2));
    await p.window();
    const [bell] = p.durable.loadBells.splice(0);
    const late = bookmark(p, A);
    const anew: Bookmark = { ...late, state: 'captured', captured_cut: late.captured_cut + 50, applied_cut: 1 };
    const update = p.world.change.bind(p.world);
    p.world.change = (life, call, about, effect) => {
      if (call === 'target.commit') p.durable.bookmarks.set(A, anew);
      return update(life, call, about, effect);
    };
    if (bell) await p.load(bell);
    expect(bookmark(p, A)).toEqual(anew);
  });

  test('an epoch that ends late does not make a stream catch up that was captured anew meanwhile', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a').write(put('a', 1));
    await p.window();
    const update = p.world.change.bind(p.world);
    let anew: Bookmark | null = null;
    p.world.change = (life, call, about, effect) => {
      if (call === 'target.finishEpoch') {
        const now = bookmark(p, A);
        anew = { ...now, state: 'captured', captured_cut: now.captured_cut + 50 };
        p.durable.bookmarks.set(A, anew);
      }
      return update(life, call, about, effect);
    };
    await p.pump();
    expect(anew).not.toBeNull();
    expect(bookmark(p, A)).toEqual(anew);
  });

  test('every one is captured anew when somebody has altered the publication', async () => {
    const p = await live();
    p.database.revision++;
    await p.settle();
    expect(captures(p)).toEqual([
      [A, B],
      [A, B],
    ]);
    expectEqual(p, 'a', 'b');
  });

  test('altered in the very moment in which a table is added to it: noted, and captured anew by the next window', async () => {
    const p = await live('a');
    p.database.makeTable('public.b');
    const update = p.world.change.bind(p.world);
    p.world.change = (life, call, about, effect) => {
      if (call === 'source.publish') p.database.revision++;
      return update(life, call, about, effect);
    };
    await p.window();
    p.world.change = update;
    expect(bookmark(p, A).reset_requested).toBe(true);
    await p.settle();
    expect(captures(p)).toEqual([[A], [B], [A]]);
  });
});

describe('work of epochs that nobody has done', () => {
  const bells = (p: MemoryPipeline): unknown[] =>
    [...p.durable.extractBells.splice(0), ...p.durable.loadBells.splice(0)].map((bell) => bell.kind);

  test('is rung for again: the plan, chunks to extract, chunks to load, the end', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a', 500_000);
    for (let id = 0; id < 4; id++) p.database.write(put('a', id));
    await p.window();
    const later = async (): Promise<unknown[]> => {
      p.world.clock.now_ms += 120_000;
      await p.window();
      return bells(p);
    };
    bells(p);
    expect(await later()).toEqual(['plan']);
    // Rung for a moment ago: not again.
    await p.window();
    expect(bells(p)).toEqual([]);
    await p.window({ ring_all: true });
    expect(bells(p)).toEqual(['plan']);

    await p.extract({ kind: 'plan', stream: A, epoch: 1 });
    bells(p);
    expect(await later()).toEqual(['chunk', 'chunk']);
    const epoch = p.durable.epochs.get(`${A}/1`) as Epoch;
    const chunk = (number: number) =>
      ({ kind: 'chunk', stream: A, epoch: 1, plan: epoch.plan ?? '', chunk: number }) as const;
    await p.extract(chunk(0));
    bells(p);
    expect(await later()).toEqual(['chunk', 'chunk']);
    await p.extract(chunk(1));
    await p.load(chunk(0));
    bells(p);
    expect(await later()).toEqual(['chunk']);
    // Loaded, and the loader died before it could finish.
    await p.load(chunk(1));
    p.durable.epochs.set(`${A}/1`, { ...epoch, state: 'planned' });
    p.durable.bookmarks.set(A, { ...bookmark(p, A), state: 'syncing' });
    bells(p);
    expect(await later()).toEqual(['finish']);
  });
});

test('captures move no position', async () => {
  const p = await live('a');
  p.database.makeTable('public.b');
  await p.window();
  const cut = p.durable.chain.find(({ kind, captures: streams }) => kind === 'captures' && streams.includes(B)) as Cut;
  expect(cut.end_lsn).toBe(cut.begin_lsn);
});
