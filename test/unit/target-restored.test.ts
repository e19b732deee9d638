/**
 * A target that was restored to an earlier time, or made anew; and a ledger that was. The target's own row says what is applied, and what the ledger cannot bring it is
 * a halt with the way out: never a row that stays old in silence, never a stream that waits for ever.
 */
import { describe, expect, test } from 'vitest';
import { requestResets, resume } from '../../lib/operate.ts';
import type { Bookmark, Cut } from '../../lib/ports.ts';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';
import type { Write } from '../support/memory-source.ts';

const A = idOf('public.a');
const B = idOf('public.b');
const put = (table: string, id: number, v = 'v'): Write => ({ table: `public.${table}`, put: { id: String(id), v } });

async function live(options: ConstructorParameters<typeof MemoryPipeline>[0] = {}): Promise<MemoryPipeline> {
  const p = new MemoryPipeline(options);
  p.database.makeTable('public.a').makeTable('public.b');
  for (let id = 0; id < 5; id++) p.database.write(put('a', id), put('b', id));
  await p.settle();
  return p;
}

/** The target as it is now; calling it restores that. */
function backup({ warehouse }: MemoryPipeline): () => void {
  const streams = new Map(warehouse.streams);
  const plans = new Map(warehouse.plans);
  return () => {
    warehouse.streams.clear();
    warehouse.plans.clear();
    for (const [key, state] of streams) warehouse.streams.set(key, state);
    for (const [key, plan] of plans) warehouse.plans.set(key, plan);
  };
}

async function round(p: MemoryPipeline, rounds = 3): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    await p.window({ ring_all: true });
    await p.pump();
  }
}

const bookmark = (p: MemoryPipeline, id: string): Bookmark => p.durable.bookmarks.get(id) as Bookmark;
const haltOf = (p: MemoryPipeline, id: string): string | undefined => bookmark(p, id).halt?.code;
const operatePorts = (p: MemoryPipeline) => {
  const { ledger, doorbell, clock, log } = p.drainPorts();
  return { ledger, doorbell, clock, log };
};
/** `reset`, and what follows from it. */
async function copyAnew(p: MemoryPipeline, ...names: string[]): Promise<void> {
  await requestResets(operatePorts(p), names);
  await round(p, 5);
}

function expectEqual(p: MemoryPipeline): void {
  for (const [id, table] of [
    [A, 'public.a'],
    [B, 'public.b'],
  ] as const) {
    const rows = [...p.warehouse.rows(id).values()].map(({ values }) => values);
    const source = [...p.database.table(table).rows.values()];
    const sorted = (all: readonly Readonly<Record<string, unknown>>[]) =>
      all.map(({ id, v }) => `${String(id)} ${String(v)}`).toSorted();
    expect(sorted(rows)).toEqual(sorted(source));
  }
}

describe.each(['stream', 'transaction'])(
  'with consistency: %s, a target that was restored to before',
  (consistency) => {
    const options = { target: `hard_delete: true, consistency: ${consistency}` };

    test('some cuts that are staged still: it goes on from its own rows, also of tables that are idle by now', async () => {
      const p = await live(options);
      const restore = backup(p);
      p.database.write(put('a', 1, 'later'), put('b', 1, 'later'));
      await round(p);
      restore();
      // Nothing of b is written any more, and the ledger's mirror says that it has everything.
      p.database.write(put('a', 2, 'after'));
      await round(p);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual([undefined, undefined]);
      expectEqual(p);
      expect(p.world.log.lines.filter(({ event }) => event === 'target_went_back').length).toBeGreaterThan(0);
    });

    test('some cuts, and nothing is written at all: resume says that it is to be looked at', async () => {
      const p = await live(options);
      const restore = backup(p);
      p.database.write(put('a', 1, 'later'), put('b', 1, 'later'));
      await round(p);
      restore();
      expect(await resume(operatePorts(p), '*.*')).toEqual([
        expect.objectContaining({ resumed: false }),
        expect.objectContaining({ resumed: false }),
      ]);
      await p.pump();
      expectEqual(p);
    });

    test('cuts that are pruned by now: a halt, and a copy is the way out', async () => {
      const p = await live(options);
      const restore = backup(p);
      p.database.write(put('a', 1, 'later'), put('b', 1, 'later'));
      await round(p);
      p.database.write(put('a', 2, 'pruned'), put('b', 2, 'pruned'));
      p.world.clock.now_ms += 30 * 24 * 3_600_000;
      await round(p);
      restore();
      p.database.write(put('a', 3, 'after'), put('b', 3, 'after'));
      await round(p);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual(['LEDGER_GAP', 'LEDGER_GAP']);
      await copyAnew(p, 'public.*');
      expect([haltOf(p, A), haltOf(p, B)]).toEqual([undefined, undefined]);
      expectEqual(p);
    });

    test('the last copy of a table: the log alone does not say what its rows are', async () => {
      const p = await live(options);
      const restore = backup(p);
      await copyAnew(p, 'public.a');
      restore();
      p.database.write(put('a', 3, 'after'), put('b', 3, 'after'));
      await round(p);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual(['TARGET_WENT_BACK', undefined]);
      await copyAnew(p, 'public.a');
      expect(haltOf(p, A)).toBeUndefined();
      expectEqual(p);
    });

    test('the end of a copy that was under way: nothing waits for it for ever', async () => {
      const p = await live(options);
      await requestResets(operatePorts(p), ['public.a']);
      await p.window();
      // Planned and prepared, no chunk loaded.
      const { extractBells } = p.durable;
      const [plan] = extractBells.splice(0);
      if (plan) await p.extract(plan);
      expect(p.warehouse.streams.get(A)?.row.hold).toBe(2);
      const restore = backup(p);
      await round(p);
      expect(bookmark(p, A).state).toBe('live');
      restore();
      p.database.write(put('a', 3, 'after'), put('b', 3, 'after'));
      await round(p);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual(['TARGET_WENT_BACK', undefined]);
      await copyAnew(p, 'public.a');
      expectEqual(p);
    });

    test('chunks of a copy that is under way: it is begun anew when that is asked for', async () => {
      const p = new MemoryPipeline(options);
      p.database.makeTable('public.a', 750_000).makeTable('public.b');
      for (let id = 0; id < 9; id++) p.database.write(put('a', id), put('b', id));
      await p.settle();
      const restore = backup(p);
      await requestResets(operatePorts(p), ['public.a']);
      await p.window();
      const { extractBells, loadBells } = p.durable;
      for (const plan of extractBells.splice(0)) await p.extract(plan);
      const chunks = extractBells.splice(0);
      expect(chunks.length).toBeGreaterThan(1);
      for (const chunk of chunks) await p.extract(chunk);
      // All but the last are loaded.
      const bells = loadBells.splice(0).filter(({ kind }) => kind === 'chunk');
      for (const bell of bells.slice(0, -1)) await p.load(bell);
      restore();
      await round(p, 5);
      expect(haltOf(p, A)).toBe('TARGET_WENT_BACK');
      await copyAnew(p, 'public.a');
      expect(haltOf(p, A)).toBeUndefined();
      expectEqual(p);
    });

    test('the pipeline: its rows are not there, and a copy is the way out', async () => {
      const p = await live(options);
      p.warehouse.streams.clear();
      p.warehouse.plans.clear();
      p.database.write(put('a', 3, 'after'), put('b', 3, 'after'));
      await round(p);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual(['TARGET_ROW_MISSING', 'TARGET_ROW_MISSING']);
      await copyAnew(p, 'public.*');
      expectEqual(p);
    });
  },
);

describe.each(['stream', 'transaction'])(
  'with consistency: %s, a ledger that was restored to before',
  (consistency) => {
    const options = { target: `hard_delete: true, consistency: ${consistency}` };

    test('cuts that the target has applied, and that the slot still had: the same numbers now mean other changes', async () => {
      const p = await live(options);
      const chain: Cut[] = [...p.durable.chain];
      const bookmarks = new Map(p.durable.bookmarks);
      const confirmed = p.database.slot?.confirmed_lsn;
      p.database.write(put('a', 1, 'first'), put('b', 1, 'first'));
      await round(p, 1);
      // WHEN the ledger is as it was; and the slot too, for its last confirmation did not outlive a crash of the source.
      p.durable.chain.splice(0, Infinity, ...chain);
      for (const [key, value] of bookmarks) p.durable.bookmarks.set(key, value);
      Object.assign(p.database.slot ?? {}, { confirmed_lsn: confirmed });
      p.database.write(put('a', 2, 'second'), put('b', 2, 'second'));
      await round(p);
      p.database.write(put('a', 3, 'third'), put('b', 3, 'third'));
      await round(p);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual(['LEDGER_BEHIND', 'LEDGER_BEHIND']);
      await copyAnew(p, 'public.*');
      expect([haltOf(p, A), haltOf(p, B)]).toEqual([undefined, undefined]);
      expectEqual(p);
    });

    test('its newest cuts: the target is ahead, and says so when it is rung', async () => {
      const p = await live(options);
      const chain: Cut[] = [...p.durable.chain];
      const bookmarks = new Map(p.durable.bookmarks);
      const confirmed = p.database.slot?.confirmed_lsn;
      for (let i = 0; i < 3; i++) {
        p.database.write(put('a', 1, `${i}`), put('b', 1, `${i}`));
        await round(p, 1);
      }
      p.durable.chain.splice(0, Infinity, ...chain);
      for (const [key, value] of bookmarks) p.durable.bookmarks.set(key, value);
      Object.assign(p.database.slot ?? {}, { confirmed_lsn: confirmed });
      await round(p, 1);
      expect([haltOf(p, A), haltOf(p, B)]).toEqual(['LEDGER_BEHIND', 'LEDGER_BEHIND']);
    });
  },
);
