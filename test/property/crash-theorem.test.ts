/**
 * Theorem: whatever dies, fails, is done twice or comes late, in however many processes at once, in the end the target is the source, each change was applied once,
 * the chain has no hole, and no stream waits for a person.
 *
 * Method: random histories of windows, extractions, loads and writes on the real lib/pipeline over ports in memory (support/chaos.ts). The ports assert what
 * their contracts say while it runs: nothing is confirmed that is not recorded (I1), a cut begins where the one before it ended (I2), nothing is recorded before
 * its object is complete, no stream's cut goes backwards (I4). pipeline-crash.test.ts has each call in turn; this has them together.
 */
import * as fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { Chaos } from '../support/chaos.ts';
import { LEASE_MS, MemoryPipeline } from '../support/memory-pipeline.ts';
import { property } from '../support/property.ts';

const TABLES = ['public.a', 'public.b', 'public.c'];
const SECONDS = 20;

const histories = fc.record({
  seed: fc.nat(),
  steps: fc.integer({ min: 20, max: 200 }),
  faults_per_mille: fc.constantFrom(0, 10, 40, 120),
  consistency: fc.constantFrom('stream', 'transaction'),
  messages_per_read: fc.constantFrom(1, 3, Number.POSITIVE_INFINITY),
});

/** Of all histories. */
const fates = new Map<string, number>();
const lost = { bells: 0, doubled: 0, buried: 0, windows_at_once: 0, unfinished: 0, long_cuts: 0 };

property(
  'whatever breaks, the target becomes the source',
  histories,
  async ({ consistency, messages_per_read, ...options }) => {
    const pipeline = new MemoryPipeline({ target: `hard_delete: true, consistency: ${consistency}` });
    const { database, durable, world } = pipeline;
    database.messages_per_read = messages_per_read;
    // Three chunks, and one.
    database.makeTable('public.a', 750_000).makeTable('public.b').makeTable('public.c');
    for (let id = 0; id < 9; id++) {
      for (const table of TABLES) database.write({ table, put: { id: String(id), v: `first ${id}` } });
    }

    const happened = await new Chaos(pipeline, { ...options, tables: TABLES }).run();
    for (const [fate, count] of happened.fates) fates.set(fate, (fates.get(fate) ?? 0) + count);
    lost.bells += happened.lost.bells;
    lost.doubled += happened.lost.doubled;
    lost.buried += happened.lost.buried;
    lost.windows_at_once += happened.windows_at_once;

    pipeline.revive();
    // Also after clocks that went back: no lease of a dead holder is left.
    world.clock.now_ms += 10 * LEASE_MS;
    await pipeline.settle();
    for (const table of TABLES) {
      const { target, source } = pipeline.both(table);
      expect(target).toEqual(source);
    }
    const { chain } = durable;
    lost.unfinished += world.calls('ledger.saveUnfinished').length;
    lost.long_cuts += chain.filter(({ earlier }) => earlier !== undefined).length;
    expect(chain.map(({ number }) => number)).toEqual(chain.map((_, i) => (chain[0]?.number ?? 0) + i));
    expect(chain.slice(1).map(({ begin_lsn }) => begin_lsn)).toEqual(chain.slice(0, -1).map(({ end_lsn }) => end_lsn));
    expect(world.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
    expect(database.slot?.active_pid ?? null).toBeNull();
  },
  SECONDS,
);

test('a history is its seed', async () => {
  const events = async (): Promise<string[]> => {
    const pipeline = new MemoryPipeline();
    pipeline.database.makeTable('public.a', 750_000).makeTable('public.b').makeTable('public.c');
    await new Chaos(pipeline, { seed: 7, steps: 80, faults_per_mille: 40, tables: TABLES }).run();
    return pipeline.world.events.map(({ call }) => call);
  };
  expect(await events()).toEqual(await events());
});

afterAll(() => {
  const calls = new Set([...fates.keys()].map((fate) => fate.slice(0, fate.indexOf(':'))));
  const faults = [...fates.values()].reduce((sum, count) => sum + count, 0);
  console.info(`${faults} faults at ${calls.size} calls; messages: ${JSON.stringify(lost)}`);
});
