/** consistency: transaction over ports in memory: what a bell makes the loader do with the chain of all streams; who stands aside, and how he comes back. */
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { JOIN_CUTS_MAX } from '../../lib/load/muster.ts';
import { load } from '../../lib/pipeline.ts';
import type { Bookmark, LoadBell } from '../../lib/ports.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';
import { memoryTarget } from '../support/memory-target.ts';

const NAMES = ['a', 'b', 'c'] as const;
type Name = (typeof NAMES)[number];
const ids = Object.fromEntries(NAMES.map((name) => [name, idOf(`public.${name}`)])) as Readonly<Record<Name, string>>;
const put = (name: Name, id: number, v = 'v') => ({ table: `public.${name}`, put: { id: String(id), v } });
const bell = (name: Name): LoadBell => ({ kind: 'cuts', stream: ids[name], cut: 0 });
const bookmark = (p: MemoryPipeline, name: Name): Bookmark => p.durable.bookmarks.get(ids[name]) as Bookmark;
const row = (p: MemoryPipeline, name: Name) => p.warehouse.streams.get(ids[name])?.row;
const applied = (p: MemoryPipeline): unknown[] => NAMES.map((name) => row(p, name)?.applied_cut);
const head = ({ durable }: MemoryPipeline): number => durable.chain.at(-1)?.number ?? -1;
const equal = (p: MemoryPipeline, name: Name): void => {
  const { target, source } = p.both(`public.${name}`);
  expect(target).toEqual(source);
};

/** Three live streams that are together, and cuts that none of them has. */
async function behind(cuts: number): Promise<MemoryPipeline> {
  const p = new MemoryPipeline({ target: 'hard_delete: true, consistency: transaction' });
  for (const name of NAMES) p.database.makeTable(`public.${name}`).write(put(name, 1, 'first'));
  await p.settle();
  await more(p, cuts);
  p.durable.loadBells.length = 0;
  p.world.events.length = 0;
  return p;
}

async function more(p: MemoryPipeline, cuts: number): Promise<void> {
  for (let i = 0; i < cuts; i++) {
    p.database.write(put('a', 10 + i), put(i % 2 === 0 ? 'b' : 'c', 1, `of cut ${i}`));
    await p.window();
  }
}

describe('cuts', () => {
  test('are applied to all streams in one transaction, whichever is rung for; the bookmarks follow', async () => {
    const p = await behind(3);
    expect(await p.load(bell('c'))).toEqual({ stream: ids.c, outcome: 'applied', cuts: 3, changes: 6, rows: 0 });
    for (const name of NAMES) equal(p, name);
    expect(p.world.calls('target.commit')).toHaveLength(1);
    expect(applied(p)).toEqual([head(p), head(p), head(p)]);
    expect(NAMES.map((name) => bookmark(p, name).applied_cut)).toEqual(applied(p));
    expect(NAMES.map((name) => row(p, name)?.together)).toEqual([true, true, true]);
    expect(await p.load(bell('a'))).toMatchObject({ outcome: 'nothing', cuts: 0 });
  });

  test('a window rings once for all of them', async () => {
    const p = await behind(0);
    p.database.write(put('a', 5), put('b', 5), put('c', 5));
    await p.window();
    expect(p.durable.loadBells.map(({ kind }) => kind)).toEqual(['cuts']);
    // And again for what was not applied.
    p.durable.loadBells.length = 0;
    await p.window({ ring_all: true });
    expect(p.durable.loadBells).toHaveLength(1);
    await p.pump();
    for (const name of NAMES) equal(p, name);
  });

  test('as far as the time goes, all to the same cut; then it rings for the rest', async () => {
    const p = await behind(3);
    expect(await p.load(bell('a'), p.world.clock.now())).toMatchObject({ outcome: 'applied', cuts: 1 });
    expect(applied(p)).toEqual([head(p) - 2, head(p) - 2, head(p) - 2]);
    expect(p.durable.loadBells).toHaveLength(1);
    await p.pump();
    for (const name of NAMES) equal(p, name);
  });

  test('a loader that dies after its commit leaves mirrors that the next one brings up', async () => {
    const p = await behind(1);
    const before = NAMES.map((name) => bookmark(p, name));
    await p.load(bell('a'));
    for (const mark of before) p.durable.bookmarks.set(mark.stream, mark);
    expect(await p.load(bell('b'))).toMatchObject({ outcome: 'nothing' });
    expect(NAMES.map((name) => bookmark(p, name).applied_cut)).toEqual(applied(p));
  });
});

describe('a stream that is refused', () => {
  const fault = new SluiceError('TARGET_REJECTS', { stream: 'b', table: 'b', reason: 'x', sqlstate: '22000' });

  test('halts alone, and the others are applied in the same load; a bell for it is one for them', async () => {
    const p = await behind(2);
    p.world.faults.set(`target.apply ${ids.b}`, fault);
    expect(await p.load(bell('b'))).toMatchObject({ outcome: 'halted', cuts: 2 });
    expect(bookmark(p, 'b').halt).toMatchObject({ code: 'TARGET_REJECTS', cut: head(p) - 1 });
    expect(row(p, 'b')?.halt).toBe('TARGET_REJECTS');
    equal(p, 'a');
    equal(p, 'c');
    await more(p, 2);
    expect(await p.load(bell('b'))).toMatchObject({ outcome: 'applied', cuts: 2 });
    expect(applied(p)).toEqual([head(p), head(p) - 4, head(p)]);
  });

  test.each([
    ['a little behind: in the transaction of all', 4, 1],
    ['far behind: alone, and then with them', JOIN_CUTS_MAX + 4, 2],
  ])('comes back to the others from %s', async (_name, cuts, commits) => {
    const p = await behind(1);
    p.world.faults.set(`target.apply ${ids.b}`, fault);
    await p.load(bell('a'));
    await more(p, cuts);
    await p.load(bell('a'));
    p.world.faults.clear();
    p.durable.bookmarks.set(ids.b, { ...bookmark(p, 'b'), halt: null });
    p.world.events.length = 0;
    p.durable.loadBells.length = 0;
    await more(p, 1);
    await p.load(bell('b'));
    expect(p.world.calls('target.commit').length).toBeGreaterThanOrEqual(commits);
    expect(applied(p)).toEqual([head(p), head(p), head(p)]);
    expect(row(p, 'b')).toMatchObject({ together: true, halt: null });
    for (const name of NAMES) equal(p, name);
  });

  test('far behind, it is rung for by whoever finds it, and nobody waits for it', async () => {
    const p = await behind(1);
    p.world.faults.set(`target.apply ${ids.b}`, fault);
    await p.load(bell('a'));
    await more(p, JOIN_CUTS_MAX + 4);
    await p.load(bell('a'));
    p.world.faults.clear();
    p.durable.bookmarks.set(ids.b, { ...bookmark(p, 'b'), halt: null });
    p.durable.loadBells.length = 0;
    await p.load(bell('a'));
    expect(p.durable.loadBells).toMatchObject([{ kind: 'cuts', stream: ids.b }]);
    expect(row(p, 'b')?.together).toBe(true);
    expect(row(p, 'b')?.applied_cut).toBeLessThan(row(p, 'a')?.applied_cut ?? 0);
    await p.pump();
    expect(applied(p)).toEqual([head(p), head(p), head(p)]);
  });

  test('a little behind with more than one transaction takes, it comes up by itself for as long, and nobody waits', async () => {
    const p = await behind(1);
    p.world.faults.set(`target.apply ${ids.b}`, fault);
    await p.load(bell('a'));
    await more(p, 6);
    await p.load(bell('a'));
    p.world.faults.clear();
    p.durable.bookmarks.set(ids.b, { ...bookmark(p, 'b'), halt: null });
    const place = row(p, 'a')?.applied_cut;
    const from = row(p, 'b')?.applied_cut ?? 0;
    expect(await p.load(bell('a'), p.world.clock.now())).toMatchObject({ outcome: 'applied', cuts: 1 });
    expect(applied(p)).toEqual([place, from + 1, place]);
    expect(NAMES.map((name) => row(p, name)?.together)).toEqual([true, false, true]);
    await p.pump();
    expect(NAMES.map((name) => row(p, name)?.together)).toEqual([true, true, true]);
    expect(applied(p)).toEqual([head(p), head(p), head(p)]);
    for (const name of NAMES) equal(p, name);
  });

  test('by a window, while a load waits: it is not moved past the changes that the window has passed over', async () => {
    const p = await behind(2);
    const before = row(p, 'b');
    const ports = p.drainPorts();
    const halt = { code: 'TABLE_RENAMED', message: '', remedy: '', at_ms: 0, cut: null, must_reset: true } as const;
    const cutsAfter: typeof ports.ledger.cutsAfter = async (from, cuts_max) => {
      p.durable.bookmarks.set(ids.b, { ...bookmark(p, 'b'), halt });
      return await ports.ledger.cutsAfter(from, cuts_max);
    };
    const given = { ...ports, ledger: { ...ports.ledger, cutsAfter }, target: memoryTarget(p.world, p.warehouse) };
    const limits = { deadline_ms: p.world.clock.now() + 60_000, consistency: 'transaction' as const };
    expect(await load(given, bell('a'), limits)).toMatchObject({ outcome: 'applied', cuts: 2 });
    expect(row(p, 'b')).toMatchObject({ applied_cut: before?.applied_cut, halt: 'TABLE_RENAMED' });
    equal(p, 'a');
    equal(p, 'c');
  });

  test('by what passes, nothing is done, and nobody halts', async () => {
    const p = await behind(1);
    const before = applied(p);
    p.world.faults.set(
      `target.apply ${ids.b}`,
      new SluiceError('TARGET_TRANSIENT', { stream: 'b', reason: 'x', sqlstate: '40P01' }),
    );
    await expect(p.load(bell('a'))).rejects.toMatchObject({ code: 'TARGET_TRANSIENT' });
    expect(applied(p)).toEqual(before);
    expect(bookmark(p, 'b').halt).toBe(null);
  });
});

describe('a stream that is ahead', () => {
  test('waits for the others, who come to it', async () => {
    const p = await behind(3);
    const state = p.warehouse.streams.get(ids.c);
    if (!state) throw new Error('no stream');
    // As one is that was copied a moment ago: it has everything, and moved with nobody.
    const rows = new Map(p.database.table('public.c').snapshot());
    const ahead = {
      ...state.row,
      applied_cut: head(p),
      applied_lsn: p.durable.chain.at(-1)?.end_lsn ?? state.row.applied_lsn,
    };
    p.warehouse.streams.set(ids.c, { ...state, rows, row: { ...ahead, together: false } });
    await p.load(bell('a'), p.world.clock.now());
    expect(applied(p)).toEqual([head(p) - 2, head(p) - 2, head(p)]);
    expect(NAMES.map((name) => row(p, name)?.together)).toEqual([true, true, false]);
    await p.pump();
    expect(applied(p)).toEqual([head(p), head(p), head(p)]);
    expect(row(p, 'c')?.together).toBe(true);
    for (const name of NAMES) equal(p, name);
  });
});

test('a stream that is synchronised anew stands aside, catches up alone to where the others are, and joins', async () => {
  const p = await behind(2);
  p.durable.bookmarks.set(ids.b, { ...bookmark(p, 'b'), reset_requested: true });
  await p.load(bell('a'));
  expect(row(p, 'b')?.applied_cut).toBe(head(p) - 2);
  equal(p, 'a');
  await p.settle();
  expect(row(p, 'b')).toMatchObject({ together: true, hold: null, catching_up_to: null });
  expect(new Set(applied(p)).size).toBe(1);
  for (const name of NAMES) equal(p, name);
});
