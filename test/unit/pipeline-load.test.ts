/** What a bell makes the loader do with the chain, over ports in memory: once, in order, as far as it may. Epochs are pipeline-epoch's. */
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import type { Bookmark, Cut, LoadBell } from '../../lib/ports.ts';
import { copyAnew } from '../../lib/window/halt.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';

const A = idOf('public.a');
const put = (id: number, v = 'v') => ({ table: 'public.a', put: { id: String(id), v } });
const CUTS: LoadBell = { kind: 'cuts', stream: A, cut: 0 };

const bookmark = (p: MemoryPipeline): Bookmark => p.durable.bookmarks.get(A) as Bookmark;
const callsOf = ({ world }: MemoryPipeline): string[] => world.events.map(({ call }) => call);
const head = ({ durable }: MemoryPipeline): Cut => durable.chain.at(-1) as Cut;

/** A live stream, and `cuts` cuts that it has not applied. */
async function behind(cuts: number): Promise<MemoryPipeline> {
  const p = new MemoryPipeline();
  p.database.makeTable('public.a').makeTable('public.b').write(put(1, 'first'));
  await p.settle();
  for (let i = 0; i < cuts; i++) {
    p.database.write(put(10 + i), put(1, `of cut ${i}`));
    await p.window();
  }
  p.durable.loadBells.length = 0;
  p.world.events.length = 0;
  return p;
}

const applied = (p: MemoryPipeline): unknown => p.warehouse.streams.get(A)?.row.applied_cut;

describe('cuts', () => {
  test('everything after the applied cut, whatever the bell names, in one transaction; the bookmark follows', async () => {
    const p = await behind(3);
    const before = bookmark(p);
    expect(await p.load(CUTS)).toEqual({ stream: A, outcome: 'applied', cuts: 3, changes: 6, rows: 0 });
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
    expect(callsOf(p)).toEqual(['target.commit', 'ledger.updateBookmark']);
    expect(bookmark(p)).toMatchObject({ applied_cut: head(p).number, applied_lsn: head(p).end_lsn, state: 'live' });
    expect(bookmark(p).changes_applied).toBe(before.changes_applied + 6);
  });

  test('rung twice, they are applied once', async () => {
    const p = await behind(1);
    await p.load(CUTS);
    expect(await p.load(CUTS)).toEqual({ stream: A, outcome: 'nothing', cuts: 0, changes: 0, rows: 0 });
    expect(p.world.calls('ledger.updateBookmark')).toHaveLength(1);
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('a cut without the stream is applied as well: the position moves', async () => {
    const p = await behind(0);
    p.database.write({ table: 'public.b', put: { id: '1', v: '' } });
    await p.window();
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'applied', cuts: 1, changes: 0 });
    expect(applied(p)).toBe(head(p).number);
  });

  test('a bookmark that was left behind by a loader that died is brought up', async () => {
    const p = await behind(1);
    const before = bookmark(p);
    await p.load(CUTS);
    p.durable.bookmarks.set(A, { ...before, state: 'catching_up' });
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'nothing' });
    expect(bookmark(p)).toMatchObject({ applied_cut: head(p).number, applied_lsn: head(p).end_lsn, state: 'live' });
  });

  test('as far as the time goes; then it rings for the rest', async () => {
    const p = await behind(3);
    const report = await p.load(CUTS, p.world.clock.now());
    expect(report).toMatchObject({ outcome: 'applied', cuts: 1, changes: 2 });
    expect(applied(p)).toBe(head(p).number - 2);
    expect(p.durable.loadBells).toEqual([{ kind: 'cuts', stream: A, cut: head(p).number - 2 }]);
    await p.pump();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('more than one transaction takes', async () => {
    const p = await behind(1);
    const last = head(p);
    const { object_bytes: _, ...rest } = last;
    for (let i = 1; i <= 450; i++)
      p.durable.chain.push({
        ...rest,
        object_bytes: 0,
        number: last.number + i,
        object: null,
        streams: {},
        begin_lsn: last.end_lsn,
      });
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'applied', cuts: 451, changes: 2 });
    expect(callsOf(p).filter((call) => call === 'target.commit').length).toBeGreaterThan(2);
    expect(applied(p)).toBe(last.number + 450);
  });

  test.each<[string, (p: MemoryPipeline) => void]>([
    [
      'that was captured and has no epoch yet',
      (p) => p.durable.bookmarks.set(A, { ...bookmark(p), state: 'captured' }),
    ],
    ['that is being copied', (p) => p.durable.bookmarks.set(A, { ...bookmark(p), state: 'syncing' })],
    [
      'that an epoch holds on the target',
      (p) => {
        const state = p.warehouse.streams.get(A);
        if (state) p.warehouse.streams.set(A, { ...state, row: { ...state.row, hold: 2 } });
      },
    ],
  ])('a stream %s is held', async (_what, arrange) => {
    const p = await behind(1);
    const rows = p.warehouse.rows(A);
    arrange(p);
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'held', cuts: 0 });
    expect(callsOf(p)).not.toContain('ledger.updateBookmark');
    expect(p.warehouse.rows(A)).toEqual(rows);
  });

  test('catching up ends with the newest chunk, and not before', async () => {
    const p = await behind(0);
    const state = p.warehouse.streams.get(A);
    p.database.write(put(2));
    await p.window();
    const middle = head(p);
    p.database.write(put(3));
    const lsn = p.database.lsn;
    await p.window();
    if (state) p.warehouse.streams.set(A, { ...state, row: { ...state.row, catching_up_to: lsn } });
    p.durable.bookmarks.set(A, { ...bookmark(p), state: 'catching_up' });
    const last = p.durable.chain.pop() as Cut;
    await p.load(CUTS);
    expect([applied(p), bookmark(p).state, p.warehouse.streams.get(A)?.row.catching_up_to]).toEqual([
      middle.number,
      'catching_up',
      lsn,
    ]);
    p.durable.chain.push(last);
    await p.load(CUTS);
    expect([applied(p), bookmark(p).state, p.warehouse.streams.get(A)?.row.catching_up_to]).toEqual([
      last.number,
      'live',
      null,
    ]);
  });
});

describe('a fault of the stream halts it, and it alone', () => {
  test.each<[string, string, (p: MemoryPipeline) => void]>([
    ['a gap at its beginning', 'LEDGER_GAP', (p) => p.durable.chain.splice(-3, 1)],
    ['a gap in the middle', 'LEDGER_GAP', (p) => p.durable.chain.splice(-2, 1)],
    ['an object that is gone', 'STAGE_MISSING', (p) => p.durable.objects.delete(p.durable.chain.at(-2)?.object ?? '')],
    [
      'an object that is damaged',
      'STAGE_CORRUPT',
      (p) => {
        const cut = p.durable.chain.at(-2);
        p.durable.objects
          .get(cut?.object ?? '')
          ?.subarray(-6)
          .fill(0xff);
      },
    ],
    [
      'a target of another ledger',
      'LEDGER_INCARNATION',
      (p) => {
        const state = p.warehouse.streams.get(A);
        if (state) p.warehouse.streams.set(A, { ...state, row: { ...state.row, incarnation: 'another' } });
      },
    ],
    ['a target that has lost its record of the stream', 'TARGET_ROW_MISSING', (p) => p.warehouse.streams.delete(A)],
    [
      'rows that the target refuses',
      'TARGET_REJECTS',
      (p) =>
        p.world.faults.set(
          'target.apply',
          new SluiceError('TARGET_REJECTS', { stream: A, reason: 'check_violation', sqlstate: '23514' }),
        ),
    ],
  ])('%s', async (_what, code, arrange) => {
    const p = await behind(3);
    const { applied_cut } = bookmark(p);
    arrange(p);
    const rows = p.warehouse.rows(A);
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'halted', cuts: 0 });
    const { halt } = bookmark(p);
    expect(halt).toMatchObject({ code, must_reset: false, at_ms: p.world.clock.now() });
    expect(halt?.remedy).toContain('sluice ');
    expect([p.warehouse.rows(A), bookmark(p).applied_cut]).toEqual([rows, applied_cut]);
    expect(p.world.log.lines.at(-1)).toMatchObject({
      level: 'error',
      event: 'stream_halted',
      facts: { stream: A, code },
    });

    p.world.events.length = 0;
    for (const bell of [CUTS, { kind: 'finish', stream: A, epoch: 1 }] as const)
      expect(await p.load(bell)).toMatchObject({ outcome: 'halted' });
    // Nothing is done but that readers of the target are told.
    expect(new Set(callsOf(p))).toEqual(new Set(['target.noteHalts']));
    if (code !== 'TARGET_ROW_MISSING') expect(p.warehouse.streams.get(A)?.row.halt).toBe(code);
  });

  test('the halt names the cut', async () => {
    const p = await behind(3);
    p.durable.objects.delete(p.durable.chain.at(-2)?.object ?? '');
    await p.load(CUTS);
    expect(bookmark(p).halt?.cut).toBe(head(p).number - 1);
  });

  test('what nobody thought of halts', async () => {
    const p = await behind(1);
    p.world.faults.set('target.apply', new TypeError('x is not a function'));
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'halted' });
    expect(bookmark(p).halt).toMatchObject({
      code: 'UNEXPECTED',
      message: 'Unexpected: TypeError: x is not a function',
    });
  });

  test.each<[string, SluiceError]>([
    ['the ground', new SluiceError('CONNECTION_FAILED', { side: 'target', host: 'h', port: 1, reason: 'refused' })],
    [
      'the ground, until a person mends it',
      new SluiceError('AUTHENTICATION_FAILED', { side: 'target', host: 'h', port: 1, user: 'u', reason: 'no' }),
    ],
    ['the resources', new SluiceError('AWS_MISSING', { service: 'S3', operation: 'GetObject', resource: 'bucket b' })],
    ['the moment', new SluiceError('TARGET_TRANSIENT', { stream: A, reason: 'deadlock_detected', sqlstate: '40P01' })],
  ])('a fault of %s is thrown, and halts nobody', async (_what, fault) => {
    const p = await behind(1);
    p.world.faults.set('target.apply', fault);
    await expect(p.load(CUTS)).rejects.toMatchObject({ code: fault.code });
    expect(bookmark(p).halt).toBeNull();
    p.world.faults.clear();
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'applied', cuts: 1 });
  });
});

describe('a stream whose log does not hold what it needs', () => {
  const rewritten = new SluiceError('TABLE_REWRITTEN', { stream: 'public.a', what: 'x' });

  test('is copied anew by the next window, and nothing of the cut is applied', async () => {
    const p = await behind(1);
    p.world.faults.set('target.apply', rewritten);
    const before = p.both('public.a').target;
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'nothing' });
    expect(bookmark(p)).toMatchObject({ halt: null, state: 'live', reset_requested: true });
    expect(p.both('public.a').target).toEqual(before);
    // Bells that come meanwhile change nothing, and are not told of again.
    expect(await p.load(CUTS)).toMatchObject({ outcome: 'nothing' });
    expect(p.world.log.lines.filter(({ event }) => event === 'table_recopied')).toHaveLength(1);
    p.world.faults.clear();
    const { epoch } = bookmark(p);
    await p.settle();
    expect(bookmark(p)).toMatchObject({ halt: null, state: 'live', reset_requested: false, epoch: epoch + 1 });
    const { source, target } = p.both('public.a');
    expect(target).toEqual(source);
  });

  test('is not asked for again by a bell of before its new capture', async () => {
    const p = await behind(1);
    p.world.faults.set('target.apply', rewritten);
    const old = bookmark(p);
    await p.load(CUTS);
    await p.window();
    expect(bookmark(p)).toMatchObject({ state: 'captured', reset_requested: false });
    await copyAnew({ ledger: p.drainPorts().ledger, log: p.world.log }, old, rewritten);
    expect(bookmark(p).reset_requested).toBe(false);
  });
});
