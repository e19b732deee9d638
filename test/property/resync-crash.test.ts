/**
 * Theorem: wherever a process dies while the slot is given up and made anew, before a call that changes something or just after it, those that come after it
 * bring the target to the source, without anybody being asked again.
 *
 * Method: as pipeline-crash.test.ts, with a history in which the slot is lost, on the same cluster and with a cluster that is another one.
 */
import { expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import { requestResync } from '../../lib/operate.ts';
import { MemoryPipeline } from '../support/memory-pipeline.ts';
import { Crash } from '../support/memory-ports.ts';
import type { Write } from '../support/memory-source.ts';

const row = (table: string, id: number, v: string): Write => ({ table: `public.${table}`, put: { id: String(id), v } });
const gone = (table: string, id: number): Write => ({ table: `public.${table}`, remove: { id: String(id) } });

type Step = (pipeline: MemoryPipeline) => unknown;

const LOSSES: Readonly<Record<string, Step>> = {
  'lost by the source': ({ database }) => Object.assign(database.slot ?? {}, { wal_status: 'lost' }),
  'on another cluster': ({ database }) => {
    Object.assign(database, { system_identifier: 'elsewhere', slot: null, publication: null, lsn: lsnOf(0x500000n) });
    database.log.length = 0;
  },
};

const steps = (lose: Step): readonly Step[] => [
  lose,
  ({ database }) => database.write(row('a', 1, 'never in a log'), gone('b', 2)),
  (p) => p.window(),
  (p) => requestResync(p.drainPorts()),
  ({ database }) => database.write(row('a', 8, 'before the new slot'), row('b', 20, 'x')),
  (p) => p.window(),
  ({ database }) => database.write(row('a', 4, 'while it is compared'), gone('a', 5)),
  (p) => p.pump(),
  ({ database }) => database.write(row('a', 6, 'afterwards'), { table: 'public.b', truncate: true }, row('b', 1, 'y')),
  (p) => p.window(),
  (p) => p.pump(),
];

/** Three chunks, and one; both live. */
async function live(): Promise<MemoryPipeline> {
  const pipeline = new MemoryPipeline();
  pipeline.database.makeTable('public.a', 750_000).makeTable('public.b');
  for (let id = 0; id < 9; id++) pipeline.database.write(row('a', id, `first ${id}`), row('b', id, 'b'));
  await pipeline.settle();
  return pipeline;
}

/** Each step is a process of its own once one has died; a person asks once, and again where that was not answered. */
async function run(pipeline: MemoryPipeline, history: readonly Step[]): Promise<void> {
  const { world } = pipeline;
  for (const step of history) {
    try {
      await step(pipeline);
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      pipeline.revive();
      if (step === history[2] || step === history[3]) await step(pipeline);
    }
    if (world.isDead) pipeline.revive();
  }
  world.crashAt = 0;
  await pipeline.settle();
  for (const table of ['public.a', 'public.b']) {
    const { target, source } = pipeline.both(table);
    expect(target).toEqual(source);
  }
  for (const { halt, resync_requested } of pipeline.durable.bookmarks.values()) {
    expect([halt, resync_requested]).toEqual([null, false]);
  }
}

test.each(Object.entries(LOSSES))(
  'a process that dies at any call, the slot being %s',
  { timeout: 180_000 },
  async (_how, lose) => {
    const history = steps(lose);
    const whole = await live();
    const from = whole.world.changes;
    await run(whole, history);
    const calls = whole.world.events.map(({ call }) => call);
    expect(calls.filter((call) => call === 'comparer.equalRows').length).toBeGreaterThan(0);
    const to = whole.world.changes;
    expect(to - from).toBeGreaterThan(60);

    const failures: string[] = [];
    for (let at = from + 1; at <= to; at++) {
      for (const when of ['before', 'after'] as const) {
        const pipeline = await live();
        pipeline.world.crashAt = at;
        pipeline.world.crashWhen = when;
        try {
          await run(pipeline, history);
        } catch (error) {
          failures.push(`${when} call ${at}: ${error instanceof Error ? error.message.slice(0, 300) : String(error)}`);
        }
      }
    }
    expect(failures).toEqual([]);
  },
);
