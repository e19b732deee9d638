/** The place in the log is gone: every stream halts and says so, nothing is given up unasked, and a resync copies only what differs. */
import { describe, expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import { requestResets, requestResync, resume } from '../../lib/operate.ts';
import type { Bookmark } from '../../lib/ports.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';
import type { Write } from '../support/memory-source.ts';

const A = idOf('public.a');
const B = idOf('public.b');
const put = (table: string, id: number, v = 'v'): Write => ({ table: `public.${table}`, put: { id: String(id), v } });
const remove = (table: string, id: number): Write => ({ table: `public.${table}`, remove: { id: String(id) } });

const bookmark = (p: MemoryPipeline, id: string): Bookmark => p.durable.bookmarks.get(id) as Bookmark;
const logged = (p: MemoryPipeline, event: string) =>
  p.world.log.lines.flatMap((line) => (line.event === event ? [line.facts] : []));
const kindsOf = (p: MemoryPipeline): string[] => p.durable.chain.map(({ kind }) => kind);

/** Two streams, live: `a` in three chunks. */
async function live(options: ConstructorParameters<typeof MemoryPipeline>[0] = {}): Promise<MemoryPipeline> {
  const p = new MemoryPipeline(options);
  p.database.makeTable('public.a', 750_000).makeTable('public.b');
  for (let id = 0; id < 9; id++) p.database.write(put('a', id), put('b', id));
  if (options.source?.includes('create_slot: false')) giveSlot(p);
  await p.settle();
  p.world.events.length = 0;
  return p;
}

function giveSlot({ database }: MemoryPipeline): void {
  database.publication ??= new Set();
  database.slot = { active_pid: null, active_application: null, confirmed_lsn: database.lsn };
}

/** The source is a copy of itself elsewhere, without slot and publication, whose log begins anew. */
function moveElsewhere({ database }: MemoryPipeline, lsn = 0x500000n): void {
  Object.assign(database, { system_identifier: 'elsewhere', slot: null, publication: null, lsn: lsnOf(lsn) });
  database.log.length = 0;
}

const LOSSES: readonly [how: string, code: string, lose: (p: MemoryPipeline) => void][] = [
  ['lost by the source', 'SLOT_LOST', ({ database }) => Object.assign(database.slot ?? {}, { wal_status: 'lost' })],
  [
    'invalidated',
    'SLOT_LOST',
    ({ database }) => Object.assign(database.slot ?? {}, { wal_status: 'lost', invalidation_reason: 'idle_timeout' }),
  ],
  ['dropped', 'SLOT_MISSING', ({ database }) => void (database.slot = null)],
  [
    'made anew by somebody',
    'SLOT_ADVANCED',
    (p) => {
      p.database.write(put('a', 5, 'between'));
      giveSlot(p);
    },
  ],
  [
    'not there on the promoted standby',
    'SLOT_MISSING',
    ({ database }) => Object.assign(database, { timeline: 2, slot: null }),
  ],
  ['of another cluster', 'CLUSTER_CHANGED', (p) => moveElsewhere(p)],
  [
    'of a cluster that was set back',
    'CLUSTER_BEHIND',
    ({ database }) => Object.assign(database, { lsn: lsnOf(database.lsn - 1n) }),
  ],
];

describe.each(LOSSES)('a slot that is %s', (_how, code, lose) => {
  test('halts every stream with that reason, once, and fails the window', async () => {
    const p = await live();
    const cuts = p.durable.chain.length;
    lose(p);
    const slot = p.database.slot && { ...p.database.slot };
    for (let i = 0; i < 2; i++) {
      expect(await p.window()).toMatchObject({
        stopped_by: 'failed',
        error: { code, remedy: expect.stringContaining('sluice resume --resync') },
      });
    }
    for (const id of [A, B]) {
      expect(bookmark(p, id).halt).toMatchObject({
        code,
        must_reset: true,
        remedy: expect.stringContaining('--resync'),
      });
    }
    expect(logged(p, 'stream_halted')).toHaveLength(2);
    expect([p.durable.chain.length, p.database.slot]).toEqual([cuts, slot]);
    await expect(resume(p.drainPorts(), 'public.a')).rejects.toMatchObject({
      code: 'USAGE',
      remedy: expect.stringContaining('sluice resume --resync'),
    });
  });

  test('is made anew when that is asked for, and only what differs is copied', async () => {
    const p = await live();
    lose(p);
    await p.window();
    p.database.write(put('a', 8, 'while it was lost'), remove('b', 3), put('b', 20, 'new'));
    await requestResync(p.drainPorts());
    await p.settle();
    for (const table of ['public.a', 'public.b']) expect(p.both(table).target).toEqual(p.both(table).source);
    for (const id of [A, B])
      expect(bookmark(p, id)).toMatchObject({ state: 'live', halt: null, resync_requested: false });
    expect([...p.durable.epochs.values()].map(({ kind }) => kind)).toEqual([
      'first_sync',
      'first_sync',
      'resync',
      'resync',
    ]);
    const done = logged(p, 'epoch_done').slice(-2);
    // `a` has three chunks, of which the loss has touched one or two; `b` has one.
    const between = code === 'SLOT_ADVANCED' ? 1 : 2;
    expect(done).toEqual([
      expect.objectContaining({ stream: A, kind: 'resync', chunks: 3, chunks_equal: between }),
      expect.objectContaining({ stream: B, kind: 'resync', chunks: 1, chunks_equal: 0 }),
    ]);
    const begun = kindsOf(p).lastIndexOf('genesis');
    expect(kindsOf(p).slice(begun, begun + 3)).toEqual(['genesis', 'slot', 'captures']);
    const { system_identifier, timeline } = p.database;
    for (const cut of p.durable.chain.slice(begun)) expect(cut).toMatchObject({ system_identifier, timeline });
    expect(new Set(p.durable.chain.map(({ incarnation }) => incarnation)).size).toBe(1);
    // And goes on from there.
    p.database.write(put('a', 1, 'afterwards'));
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });
});

test('what is read by query goes on without the slot', async () => {
  const p = new MemoryPipeline({ tables: '[public.a, { table: public.q, replication_method: FULL_TABLE }]' });
  p.database.makeTable('public.a').makeTable('public.q').write(put('a', 1), put('q', 1));
  await p.settle();
  p.database.slot = null;
  p.database.write(put('a', 2), put('q', 2));
  expect((await p.window({ runs_since_ms: p.world.clock.now() })).error?.code).toBe('SLOT_MISSING');
  await p.pump();
  expect([bookmark(p, A).halt?.code, bookmark(p, idOf('public.q')).halt]).toEqual(['SLOT_MISSING', null]);
  expect(p.both('public.q').target).toEqual(p.both('public.q').source);
  await requestResync(p.drainPorts());
  await p.settle();
  expect(p.both('public.a').target).toEqual(p.both('public.a').source);
});

describe('nothing is given up', () => {
  test('where a resync is asked for, and no window has found anything lost', async () => {
    const p = await live();
    await expect(requestResync(p.drainPorts())).rejects.toMatchObject({ code: 'USAGE' });
    expect(bookmark(p, A).resync_requested).toBeUndefined();
  });

  test('where the slot is there after all: the halts end by themselves', async () => {
    const p = await live();
    const { slot } = p.database;
    p.database.slot = null;
    await p.window();
    expect(bookmark(p, A).halt?.code).toBe('SLOT_MISSING');
    p.database.slot = slot;
    p.database.write(put('a', 1, 'was never lost'));
    await p.settle();
    expect(kindsOf(p).filter((kind) => kind === 'genesis')).toHaveLength(1);
    expect(logged(p, 'stream_resumed')).toHaveLength(2);
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('where another fault than this one halts a stream for good', async () => {
    const p = await live();
    const halt = { code: 'NUMBER_UNKNOWN', message: 'm', remedy: 'r', cut: null, at_ms: 1, must_reset: true };
    p.durable.bookmarks.set(A, { ...bookmark(p, A), halt });
    const { slot } = p.database;
    p.database.slot = null;
    await p.window();
    p.database.slot = slot;
    await p.window();
    expect([bookmark(p, A).halt, bookmark(p, B).halt]).toEqual([halt, null]);
  });

  test('where the log was set back and has grown past the chain since: its positions mean something else', async () => {
    const p = await live();
    const { lsn } = p.database;
    p.database.lsn = lsnOf(lsn - 1n);
    await p.window();
    p.database.write(put('a', 1, 'at a position that was read'));
    p.database.idle(1000n);
    expect((await p.window()).error?.code).toBe('CLUSTER_BEHIND');
    await requestResync(p.drainPorts());
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('on another cluster whose slot of that name works: it may be anybody’s', async () => {
    const p = await live();
    moveElsewhere(p);
    giveSlot(p);
    await p.window();
    await requestResync(p.drainPorts());
    const cuts = p.durable.chain.length;
    expect((await p.window()).error?.code).toBe('SLOT_FOREIGN');
    expect([p.durable.chain.length, p.database.slot]).toEqual([cuts, expect.anything()]);
    p.database.slot = null;
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('while the lost slot is in use', async () => {
    const p = await live();
    Object.assign(p.database.slot ?? {}, { wal_status: 'lost', active_pid: 77 });
    await p.window();
    await requestResync(p.drainPorts());
    const cuts = p.durable.chain.length;
    expect((await p.window()).error).toMatchObject({ code: 'SLOT_ACTIVE', remedy: expect.stringContaining('77') });
    expect(p.durable.chain).toHaveLength(cuts);
  });

  test('where source.create_slot is false: a person makes it, and the next window goes on', async () => {
    const p = await live({ source: 'break_at_end_lsn: true, create_slot: false' });
    Object.assign(p.database.slot ?? {}, { wal_status: 'lost' });
    await p.window();
    await requestResync(p.drainPorts());
    p.database.write(put('a', 1, 'while it was lost'));
    const remedy = expect.stringMatching(/pg_drop_replication_slot\('.*pg_create_logical_replication_slot\('/);
    expect((await p.window()).error).toMatchObject({ code: 'SLOT_LOST', remedy });
    p.database.slot = null;
    expect((await p.window()).error?.code).toBe('SLOT_MISSING');
    expect(kindsOf(p).filter((kind) => kind === 'genesis')).toHaveLength(1);
    giveSlot(p);
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });
});

describe('a resync', () => {
  test('of a stream that somebody wants copied anew is a reset', async () => {
    const p = await live();
    p.database.slot = null;
    await p.window();
    await requestResets(p.drainPorts(), ['public.a']);
    await requestResync(p.drainPorts());
    await p.settle();
    const kinds = [...p.durable.epochs.values()].map(({ stream, kind }) => [stream, kind]);
    expect(kinds.slice(2)).toEqual([
      [A, 'reset'],
      [B, 'resync'],
    ]);
    expect(bookmark(p, A)).toMatchObject({ reset_requested: false, resync_requested: false });
  });

  test('of a stream whose first copy had not come to its end begins that anew, and says so', async () => {
    const p = new MemoryPipeline();
    p.database.makeTable('public.a').write(put('a', 1));
    await p.window();
    p.database.slot = null;
    await p.window();
    await requestResync(p.drainPorts());
    await p.settle();
    expect(logged(p, 'resync_copies_anew')).toEqual([
      expect.objectContaining({ stream: A, reason: 'it was never copied' }),
    ]);
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('notes every stream before the chain says that the position has jumped', async () => {
    const p = await live();
    p.database.slot = null;
    await p.window();
    await requestResync(p.drainPorts());
    // The one who asked died in the middle of it.
    p.durable.bookmarks.set(B, { ...bookmark(p, B), resync_requested: false });
    p.world.events.length = 0;
    await p.window();
    const calls = p.world.events.map(({ call }) => call);
    expect(calls.indexOf('ledger.updateBookmark')).toBeLessThan(calls.indexOf('ledger.append'));
    expect([...p.durable.epochs.values()].slice(2).map(({ kind }) => kind)).toEqual(['resync', 'resync']);
  });

  test('waits for those who write meanwhile, and nobody applies cuts past the new beginning before', async () => {
    const p = await live();
    p.database.slot = null;
    await p.window();
    await requestResync(p.drainPorts());
    const writer = p.database.begin().write(put('a', 1, 'has begun'));
    await p.window();
    expect(kindsOf(p).slice(-3)).toEqual(['genesis', 'slot', 'captures']);
    // Nobody writes to the other.
    expect(p.durable.chain.at(-1)?.captures).toEqual([B]);
    const before = bookmark(p, A);
    expect(before).toMatchObject({ resync_requested: true, halt: { code: 'SLOT_MISSING' } });
    // Somebody clears the halt by force.
    p.durable.bookmarks.set(A, { ...before, halt: null });
    p.database.write(put('a', 2, 'in the new log'));
    await p.window();
    await p.load({ kind: 'cuts', stream: A, cut: p.durable.chain.at(-1)?.number ?? 0 });
    const genesis = p.durable.chain.findLast(({ kind }) => kind === 'genesis');
    expect(p.warehouse.streams.get(A)?.row.applied_cut).toBeLessThan(genesis?.number ?? 0);
    writer.commit();
    await p.settle();
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });

  test('of a log that was set back is over, whatever became of a stream that the file no longer names', async () => {
    const p = await live();
    p.database.lsn = lsnOf(p.database.lsn - 1n);
    await p.window();
    expect(bookmark(p, A).halt?.code).toBe('CLUSTER_BEHIND');
    await requestResync(p.drainPorts());
    const narrow = new MemoryPipeline({ tables: '[public.b]' }).pipeline;
    for (let i = 0; i < 3; i++) {
      expect((await p.window({ ring_all: true }, narrow)).error).toBeNull();
      await p.pump();
      p.database.write(put('b', i, 'goes on'));
    }
    expect(kindsOf(p).filter((kind) => kind === 'genesis')).toHaveLength(2);
    expect(bookmark(p, B)).toMatchObject({ halt: null, resync_requested: false });
  });

  test('leaves a stream alone that the file no longer names; when it comes back it is copied anew', async () => {
    const p = await live();
    const narrow = new MemoryPipeline({ tables: '[public.b]' }).pipeline;
    await p.window({}, narrow);
    p.database.slot = null;
    await p.window({}, narrow);
    expect([bookmark(p, A).halt, bookmark(p, B).halt?.code]).toEqual([null, 'SLOT_MISSING']);
    await requestResync(p.drainPorts());
    await p.window({}, narrow);
    expect(bookmark(p, A)).toMatchObject({ reset_requested: true, resync_requested: false });
    await p.settle();
    expect([...p.durable.epochs.values()].findLast(({ stream }) => stream === A)?.kind).toBe('reset');
    expect(p.both('public.a').target).toEqual(p.both('public.a').source);
  });
});
