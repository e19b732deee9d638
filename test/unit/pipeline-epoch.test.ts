/** The steps of an epoch, extraction and loading, over ports in memory: each may come twice, late, or out of turn. */
import { describe, expect, test } from 'vitest';
import { cancelBackfills } from '../../lib/epoch/backfill.ts';
import { cancelEpoch } from '../../lib/epoch/cancel.ts';
import { openRequested, requestEpoch } from '../../lib/epoch/request.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { Bookmark, Chunk, Epoch, ExtractBell, LoadBell } from '../../lib/ports.ts';
import { haltOrThrow } from '../../lib/window/halt.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';

const A = idOf('public.a');
const put = (id: number, v = 'v') => ({ table: 'public.a', put: { id: String(id), v } });

const bookmark = (p: MemoryPipeline): Bookmark => p.durable.bookmarks.get(A) as Bookmark;
const callsOf = ({ world }: MemoryPipeline): string[] => world.events.map(({ call }) => call);

describe('an epoch', () => {
  /** Planned as two chunks. */
  async function planned(): Promise<{
    readonly p: MemoryPipeline;
    readonly epoch: Epoch;
    readonly chunk: (number: number) => LoadBell & ExtractBell;
  }> {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a', 500_000);
    for (let id = 0; id < 4; id++) p.database.write(put(id));
    await p.window();
    expect(await p.extract({ kind: 'plan', stream: A, epoch: 1 })).toMatchObject({ outcome: 'planned', chunks: 2 });
    const epoch = p.durable.epochs.get(`${A}/1`) as Epoch;
    expect([epoch.state, bookmark(p).state]).toEqual(['planned', 'syncing']);
    p.world.events.length = 0;
    p.durable.extractBells.length = 0;
    return {
      p,
      epoch,
      chunk: (number) => ({ kind: 'chunk', stream: A, epoch: 1, plan: epoch.plan ?? '', chunk: number }),
    };
  }
  const FINISH: LoadBell = { kind: 'finish', stream: A, epoch: 1 };

  test('is planned once: who comes later rings for its chunks', async () => {
    const { p } = await planned();
    expect(await p.extract({ kind: 'plan', stream: A, epoch: 1 })).toMatchObject({ outcome: 'planned', chunks: 2 });
    expect(callsOf(p)).toEqual(['doorbell.ringExtract']);
    expect(p.durable.extractBells.map((bell) => bell.kind === 'chunk' && bell.chunk)).toEqual([0, 1]);
  });

  test('of two planners at once one wins, and the other rings for nothing', async () => {
    const { p, epoch } = await planned();
    p.durable.epochs.set(`${A}/1`, { ...epoch, state: 'opened', plan: null, chunks: null });
    const change = p.world.change.bind(p.world);
    p.world.change = (life, call, about, effect) => {
      if (call === 'ledger.updateEpoch') p.durable.epochs.set(`${A}/1`, epoch);
      return change(life, call, about, effect);
    };
    expect(await p.extract({ kind: 'plan', stream: A, epoch: 1 })).toMatchObject({ outcome: 'nothing' });
    expect(callsOf(p)).not.toContain('doorbell.ringExtract');
  });

  test('a chunk is staged once, and rung for until it is loaded', async () => {
    const { p, chunk } = await planned();
    expect(await p.extract(chunk(0))).toEqual({ stream: A, outcome: 'staged', rows: 2, chunks: 1 });
    expect(callsOf(p)).toEqual(['stage.complete', 'ledger.stageChunk', 'doorbell.ringLoad']);
    const { objects } = p.durable;
    const count = objects.size;
    expect(await p.extract(chunk(0))).toMatchObject({ outcome: 'nothing' });
    expect([objects.size, p.durable.loadBells]).toEqual([count, [chunk(0), chunk(0)]]);
    await p.load(chunk(0));
    p.durable.loadBells.length = 0;
    expect(await p.extract(chunk(0))).toMatchObject({ outcome: 'nothing' });
    expect(p.durable.loadBells).toEqual([]);
  });

  test('a chunk is loaded once; the last one finishes the epoch', async () => {
    const { p, chunk } = await planned();
    await p.extract(chunk(0));
    await p.extract(chunk(1));
    expect(await p.load(chunk(1))).toMatchObject({ outcome: 'loaded', rows: 2 });
    expect(bookmark(p).state).toBe('syncing');
    expect(await p.load(chunk(1))).toMatchObject({ outcome: 'loaded' });
    expect(p.world.calls('target.loadChunk')).toHaveLength(1);
    expect(await p.load(chunk(0))).toMatchObject({ outcome: 'loaded', rows: 2 });
    expect(bookmark(p)).toMatchObject({ state: 'catching_up', applied_cut: 2, rows_copied: 4 });
    expect(p.durable.epochs.get(`${A}/1`)?.state).toBe('done');
    expect(p.durable.loadBells.at(-1)).toEqual({ kind: 'cuts', stream: A, cut: 2 });
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('is finished once, by whoever comes', async () => {
    const { p, epoch, chunk } = await planned();
    await p.extract(chunk(0));
    await p.extract(chunk(1));
    await p.load(chunk(0));
    await p.load(chunk(1));
    const rows = p.warehouse.rows(A);
    expect(await p.load(FINISH)).toMatchObject({ outcome: 'nothing' });
    // The process died between the target and the ledger.
    p.durable.epochs.set(`${A}/1`, epoch);
    p.durable.bookmarks.set(A, { ...bookmark(p), state: 'syncing' });
    expect(await p.load(FINISH)).toMatchObject({ outcome: 'finished', rows: 4 });
    expect([bookmark(p).state, p.warehouse.rows(A)]).toEqual(['catching_up', rows]);
  });

  test('rung for too early, it rings for the chunks that are missing', async () => {
    const { p, chunk } = await planned();
    await p.extract(chunk(0));
    await p.extract(chunk(1));
    await p.load(chunk(1));
    p.durable.loadBells.length = 0;
    expect(await p.load(FINISH)).toMatchObject({ outcome: 'nothing' });
    expect(p.durable.loadBells).toEqual([chunk(0)]);
    expect(bookmark(p).state).toBe('syncing');
  });

  test('a mark that is only in the ledger does not count', async () => {
    const { p, chunk } = await planned();
    await p.extract(chunk(0));
    await p.extract(chunk(1));
    await p.load(chunk(1));
    for (const [key, known] of p.durable.chunks) p.durable.chunks.set(key, { ...known, loaded: true });
    p.durable.loadBells.length = 0;
    expect(await p.load(FINISH)).toMatchObject({ outcome: 'nothing' });
    expect(p.durable.loadBells).toEqual([chunk(0)]);
  });

  test.each<[string, (p: MemoryPipeline, epoch: Epoch) => void]>([
    ['of an epoch that was cancelled', (p, epoch) => p.durable.epochs.set(`${A}/1`, { ...epoch, state: 'cancelled' })],
    ['of a plan that did not win', (p, epoch) => p.durable.epochs.set(`${A}/1`, { ...epoch, plan: 'another' })],
    ['of an epoch after which another was opened', (p) => p.durable.bookmarks.set(A, { ...bookmark(p), epoch: 2 })],
    ['of an epoch that there is not', (p) => p.durable.epochs.clear()],
    ['of a stream that there is not', (p) => p.durable.bookmarks.clear()],
  ])('a bell %s changes nothing', async (_what, arrange) => {
    const { p, epoch, chunk } = await planned();
    await p.extract(chunk(0));
    p.world.events.length = 0;
    arrange(p, epoch);
    expect(await p.extract(chunk(1))).toMatchObject({ outcome: 'nothing' });
    for (const bell of [chunk(0), chunk(1), FINISH]) expect(await p.load(bell)).toMatchObject({ outcome: 'nothing' });
    expect(callsOf(p)).toEqual([]);
  });

  test('of a capture before the last ends without a word: the stream waits for the copy of the last', async () => {
    const { p, chunk } = await planned();
    for (const number of [0, 1]) await p.extract(chunk(number));
    await p.load(chunk(0));
    // As when another method has it captured anew, by a window that dies before it opens the epoch.
    const captured_cut = p.durable.chain.length + 1;
    p.durable.bookmarks.set(A, { ...bookmark(p), state: 'captured', captured_cut });
    await p.load(chunk(1));
    expect(p.durable.epochs.get(`${A}/1`)?.state).toBe('done');
    expect(bookmark(p)).toMatchObject({ state: 'captured', captured_cut });
  });

  test('that is over leaves nobody waiting: whoever planned it said so after whoever ended it', async () => {
    const { p, chunk } = await planned();
    for (const number of [0, 1]) await p.extract(chunk(number));
    for (const number of [0, 1]) await p.load(chunk(number));
    expect(bookmark(p).state).toBe('catching_up');
    p.durable.bookmarks.set(A, { ...bookmark(p), state: 'syncing' });
    p.durable.loadBells.length = 0;
    await p.window({ ring_all: true });
    expect(p.durable.loadBells).toContainEqual(FINISH);
    expect(await p.load(FINISH)).toMatchObject({ outcome: 'finished' });
    expect(bookmark(p).state).toBe('catching_up');
    await p.pump();
    expect(bookmark(p).state).toBe('live');
  });

  test('a chunk that is not staged yet is not loaded', async () => {
    const { p, chunk } = await planned();
    expect(await p.load(chunk(0))).toMatchObject({ outcome: 'nothing' });
    expect(callsOf(p)).toEqual([]);
  });

  test('a table that is gone halts its stream; a source that is away halts nobody', async () => {
    const { p, chunk } = await planned();
    const { tables } = p.database;
    const table = p.database.table('public.a');
    tables.clear();
    expect(await p.extract(chunk(0))).toMatchObject({ outcome: 'halted' });
    expect(bookmark(p).halt?.code).toBe('TABLE_MISSING');
    expect(await p.extract(chunk(0))).toMatchObject({ outcome: 'nothing' });
    tables.set('public.a', table);
    p.durable.bookmarks.set(A, { ...bookmark(p), halt: null });
    p.world.faults.set(
      'stage.complete',
      new SluiceError('SOURCE_TRANSIENT', { reason: 'admin_shutdown', sqlstate: '57P01' }),
    );
    await expect(p.extract(chunk(0))).rejects.toMatchObject({ code: 'SOURCE_TRANSIENT' });
    expect([bookmark(p).halt, callsOf(p)]).toEqual([null, ['ledger.updateBookmark', 'stage.abandon']]);
  });

  // A table without a key is copied in the snapshot of a temporary slot, of which a source has few.
  test('a source that has no free slot at the moment halts nobody', async () => {
    const { p, chunk } = await planned();
    p.world.faults.set('stage.complete', new SluiceError('SLOTS_EXHAUSTED'));
    await expect(p.extract(chunk(0))).rejects.toMatchObject({ code: 'SLOTS_EXHAUSTED' });
    expect(bookmark(p).halt).toBeNull();
  });

  test('two extractors of one chunk: the first counts', async () => {
    const { p, chunk } = await planned();
    const change = p.world.change.bind(p.world);
    let first: Chunk | null = null;
    p.world.change = (life, call, about, effect) => {
      if (call === 'ledger.stageChunk' && !first) {
        const staged = (about as Chunk).staged;
        first = { ...(about as Chunk), staged: staged && { ...staged, rows: 77 } };
        p.durable.chunks.set(`${A}/1/${first.plan}/0`, first);
      }
      return change(life, call, about, effect);
    };
    expect(await p.extract(chunk(0))).toMatchObject({ outcome: 'nothing' });
    expect([...p.durable.chunks.values()][0]).toBe(first);
    expect(p.durable.loadBells).toEqual([chunk(0)]);
  });
});

describe('planning that ends half-way', () => {
  async function captured(): Promise<MemoryPipeline> {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a', 500_000);
    for (let id = 0; id < 4; id++) p.database.write(put(id));
    await p.window();
    p.durable.extractBells.length = 0;
    return p;
  }
  const PLAN: ExtractBell = { kind: 'plan', stream: A, epoch: 1 };
  const opened = (p: MemoryPipeline): Epoch => p.durable.epochs.get(`${A}/1`) as Epoch;
  const fault = new SluiceError('CONNECTION_FAILED', { side: 'target', host: 'h', port: 5432, reason: 'x' });

  test.each(['ledger.saveChunks', 'target.prepareEpoch', 'ledger.updateEpoch'])(
    'at %s is made anew, and what it left behind is never read',
    async (call) => {
      const p = await captured();
      p.world.faults.set(call, fault);
      await expect(p.extract(PLAN)).rejects.toMatchObject({ code: 'CONNECTION_FAILED' });
      expect([opened(p).state, opened(p).plan, p.durable.extractBells]).toEqual(['opened', null, []]);
      const left = [...p.durable.chunks.values()];
      p.world.faults.clear();
      expect(await p.extract(PLAN)).toMatchObject({ outcome: 'planned', chunks: 2 });
      for (const { plan, number } of left) {
        expect(plan).not.toBe(opened(p).plan);
        const bell: ExtractBell = { kind: 'chunk', stream: A, epoch: 1, plan, chunk: number };
        expect(await p.extract(bell)).toMatchObject({ outcome: 'nothing' });
      }
      await p.settle();
      expect(p.both('public.a').target).toEqual(p.both('public.a').source);
    },
  );

  test('no chunk is older than the hold: the position is read after it', async () => {
    const p = await captured();
    const change = p.world.change.bind(p.world);
    p.world.change = (life, call, about, effect) => {
      const result = change(life, call, about, effect);
      if (call === 'target.prepareEpoch') p.database.write(put(9));
      return result;
    };
    const before = p.database.lsn;
    await p.extract(PLAN);
    expect(p.database.lsn).toBeGreaterThan(before);
    expect(opened(p).from_lsn).toBe(p.database.lsn);
    expect(opened(p)).toMatchObject({ rows_estimate: 500_000, bytes_estimate: 50_000_000 });
  });
});

describe('an epoch beside the log', () => {
  /** A backfill of a live stream, opened. */
  async function opened(): Promise<{ readonly p: MemoryPipeline; readonly epoch: Epoch }> {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a').write(put(1));
    await p.settle();
    expect(await requestEpoch(p.drainPorts(), A, { kind: 'backfill', where: 'true', ranges: null })).toBe('opened');
    return { p, epoch: p.durable.epochs.get(`${A}/2`) as Epoch };
  }
  const state = (p: MemoryPipeline): string | undefined => p.durable.epochs.get(`${A}/2`)?.state;

  test('is cancelled also where its plan wins in that very moment', async () => {
    const { p, epoch } = await opened();
    await p.extract({ kind: 'plan', stream: A, epoch: 2 });
    expect([epoch.state, state(p)]).toEqual(['opened', 'planned']);
    expect(await cancelEpoch(p.drainPorts(), epoch, 'Enough.')).toBe(true);
    expect(p.durable.epochs.get(`${A}/2`)).toMatchObject({ state: 'cancelled', reason: 'Enough.', chunks: 1 });
    expect(await cancelEpoch(p.drainPorts(), epoch, 'Once more.')).toBe(false);
    await p.pump();
    expect(bookmark(p)).toMatchObject({ state: 'live', given_up: { epoch: 2, reason: 'Enough.' } });
  });

  test.each([
    ['TABLE_REWRITTEN', { stream: 'public.a', what: 'it was altered.' }],
    ['TABLE_MISSING', { table: 'public.a' }],
  ] as const)(
    'ends by its first fault (%s); a second chunk that fails says nothing of the stream',
    async (code, facts) => {
      const { p } = await opened();
      const fault = new SluiceError(code, facts);
      const seen = bookmark(p);
      expect(await haltOrThrow(p.drainPorts(), seen, fault, 2)).toBe('nothing');
      expect(state(p)).toBe('cancelled');
      expect(await haltOrThrow(p.drainPorts(), seen, fault, 2)).toBe('nothing');
      expect(bookmark(p)).toMatchObject({ halt: null, reset_requested: false });
    },
  );
});

test('a backfill that begins while it is cancelled ends as well', async () => {
  const p = new MemoryPipeline();
  p.database.makeTable('public.a').write(put(1));
  await p.settle();
  const ports = p.drainPorts();
  const { ledger } = ports;
  const request = { stream: A, id: '1', kind: 'backfill', where: 'true', ranges: null, requested_at_ms: 1 } as const;
  await ledger.addEpochRequest(request);
  const epochRequests = async (stream: string | null) => {
    const waiting = await ledger.epochRequests(stream);
    await openRequested(ports, bookmark(p));
    return waiting;
  };
  const cancelled = await cancelBackfills({ ...ports, ledger: { ...ledger, epochRequests } }, ['public.a']);
  expect(cancelled).toMatchObject([{ requests: 1, epoch: 2 }]);
  expect(p.durable.epochs.get(`${A}/2`)?.state).toBe('cancelled');
});
