/**
 * Theorem: wherever a process dies, before a call that changes something or just after it (done, and the answer lost), those that come after it bring
 * the target to the source: nothing is lost, nothing is doubled, and no stream waits for a person.
 *
 * Method: one history of windows, extractions and loads, run once for every such call, with the death at that call.
 */
import { expect, test } from 'vitest';
import { MemoryPipeline, WINDOW_MS } from '../support/memory-pipeline.ts';
import type { World } from '../support/memory-ports.ts';

const row = (table: string, id: number, v: string | null) => ({ table: `public.${table}`, put: { id: String(id), v } });
const gone = (table: string, id: number) => ({ table: `public.${table}`, remove: { id: String(id) } });

/** Three chunks, and one. */
function tables(consistency: string): MemoryPipeline {
  const pipeline = new MemoryPipeline({ target: `hard_delete: true, consistency: ${consistency}` });
  pipeline.database.makeTable('public.a', 750_000).makeTable('public.b');
  for (let id = 0; id < 9; id++) pipeline.database.write(row('a', id, `first ${id}`), row('b', id, null));
  return pipeline;
}

const STEPS: readonly ((pipeline: MemoryPipeline) => unknown)[] = [
  (p) => p.window(),
  ({ database }) => database.write(row('a', 1, 'while it is copied'), gone('a', 2), row('b', 20, '\\N')),
  (p) => p.pump(),
  ({ database }) =>
    database.write(row('a', 2, 'again'), gone('b', 20), { table: 'public.b', truncate: true }, row('b', 1, '')),
  ({ database }) => database.write(row('a', 30, 'x\ty')),
  (p) => p.window(),
  (p) => p.pump(),
  // Somebody takes a table out of the publication, and writes to it.
  ({ database }) => database.publication?.delete('public.a'),
  ({ database }) => database.write(row('a', 40, 'unseen'), gone('a', 3), row('b', 40, 'seen')),
  (p) => p.window(),
  ({ database }) => database.write(row('a', 41, 'seen again'), gone('b', 1)),
  (p) => p.pump(),
  (p) => p.window(),
  (p) => p.pump(),
  // A transaction longer than a window, and the two that read it.
  ({ database }) =>
    database.write(row('a', 50, 'long'), gone('a', 4), row('b', 51, 'long'), row('a', 52, ''), row('a', 50, 'again')),
  (p) => shortWindow(p, 4),
  (p) => shortWindow(p, 7),
  (p) => p.window(),
];

/** Its time is over after so many messages. */
async function shortWindow(p: MemoryPipeline, messages: number): Promise<void> {
  const { database, world } = p;
  database.messages_per_read = 1;
  let reads = 0;
  database.onRead = () => {
    if (++reads === messages) world.clock.now_ms += WINDOW_MS;
  };
  try {
    await p.window();
  } finally {
    database.onRead = () => {};
    database.messages_per_read = Number.POSITIVE_INFINITY;
  }
}

function expectEqual(pipeline: MemoryPipeline, world: World): void {
  for (const table of ['public.a', 'public.b']) {
    const { target, source } = pipeline.both(table);
    expect(target).toEqual(source);
  }
  expect(world.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
  const leftOpen = pipeline.database.slot?.active_pid ?? null;
  expect(leftOpen).toBeNull();
}

test.each(['stream', 'transaction'])(
  'a process that dies at any call, before or after it is done; consistency: %s',
  {
    timeout: 180_000,
  },
  async (consistency) => {
    const whole = tables(consistency);
    await whole.live(STEPS);
    expectEqual(whole, whole.world);
    const calls = whole.world.changes;
    expect(whole.world.calls('ledger.saveUnfinished')).toHaveLength(2);
    expect(whole.durable.chain.filter(({ earlier }) => earlier?.length === 2)).toHaveLength(1);
    expect(calls).toBeGreaterThan(120);
    expect(new Set(whole.world.events.map(({ call }) => call)).size).toBeGreaterThan(20);

    const failures: string[] = [];
    for (let at = 1; at <= calls; at++) {
      for (const when of ['before', 'after'] as const) {
        const pipeline = tables(consistency);
        pipeline.world.crashAt = at;
        pipeline.world.crashWhen = when;
        try {
          await pipeline.live(STEPS);
          expectEqual(pipeline, pipeline.world);
        } catch (error) {
          failures.push(
            `${when} call ${at} (${whole.world.events[at - 1]?.call}): ${error instanceof Error ? error.message.slice(0, 300) : String(error)}`,
          );
        }
      }
    }
    expect(failures).toEqual([]);
  },
);
