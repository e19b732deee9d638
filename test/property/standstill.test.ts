/**
 * Theorem: wherever a process stands still (a frozen function, a long pause, an answer that takes its time), for however long, while others do its work, and then goes
 * on as if nothing had been: the target becomes the source, and no stream waits for a person.
 *
 * Method: one history, in which one process stands still at one call of any port, reads too, its lease runs out, and it goes on some steps later. crash-theorem.test.ts draws who
 * is next at every call; here one pause is tried at every place, which is what conditions that are decided long after they were read need.
 */
import { setImmediate as still } from 'node:timers/promises';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { cancelEpoch } from '../../lib/epoch/cancel.ts';
import { repairOf, requestEpoch } from '../../lib/epoch/request.ts';
import { SluiceError } from '../../lib/errors.ts';
import { requestResets } from '../../lib/operate.ts';
import { idOf, LEASE_MS, MemoryPipeline } from '../support/memory-pipeline.ts';
import { property } from '../support/property.ts';

/** Calls of the others without one that changes something: they wait for what it has locked, and on a server their limit would end that. */
const IDLE_CALLS_MAX = 400;
/** More than the history has. */
const CALLS_MAX = 900;
const SECONDS = 15;

const row = (table: string, id: number, v: string | null) => ({ table: `public.${table}`, put: { id: String(id), v } });
const gone = (table: string, id: number) => ({ table: `public.${table}`, remove: { id: String(id) } });

type Step = (pipeline: MemoryPipeline) => unknown;

const window: Step = async (p) => {
  const { error } = await p.window();
  if (error?.code === 'UNEXPECTED') throw new Error(error.message);
};

const repair =
  (table: string, id: number): Step =>
  async (p) => {
    for (const wanted of repairOf(['id'], [[String(id)]])) {
      await requestEpoch(p.drainPorts(), idOf(`public.${table}`), wanted);
    }
  };

const backfill =
  (table: string): Step =>
  (p) =>
    requestEpoch(p.drainPorts(), idOf(`public.${table}`), { kind: 'backfill', where: null, ranges: null });

const cancelNewest =
  (table: string): Step =>
  async (p) => {
    const ports = p.drainPorts();
    const stream = idOf(`public.${table}`);
    const bookmark = await ports.ledger.bookmark(stream);
    const epoch = await ports.ledger.epoch(stream, bookmark?.epoch ?? 0);
    if (epoch) await cancelEpoch(ports, epoch, 'somebody wanted it');
  };

const STEPS: readonly Step[] = [
  window,
  ({ database }) => database.write(row('a', 1, 'while it is copied'), gone('a', 2), row('b', 20, 'x')),
  (p) => p.pump(),
  window,
  ({ database }) => database.write(row('a', 2, 'again'), { table: 'public.b', truncate: true }, row('b', 1, '')),
  (p) => p.pump(),
  window,
  repair('b', 3),
  // Somebody takes a table out of the publication, and writes to it.
  ({ database }) => database.publication?.delete('public.b'),
  ({ database }) => database.write(row('b', 40, 'unseen'), row('a', 40, 'seen')),
  window,
  ({ database }) => database.write(row('b', 41, 'seen again'), gone('b', 40)),
  (p) => p.pump(),
  backfill('a'),
  ({ database }) => database.write(row('a', 3, 'beside the backfill'), gone('a', 4)),
  (p) => p.pump(),
  (p) => requestResets(p.drainPorts(), ['public.a']),
  window,
  backfill('b'),
  ({ database }) => database.write(row('a', 5, 'beside the reset'), gone('a', 6), row('b', 41, 'later')),
  (p) => p.pump(),
  repair('b', 1),
  cancelNewest('b'),
  window,
  ({ database }) => database.write(gone('a', 7), row('b', 42, 'last')),
  (p) => p.pump(),
];

interface Lived {
  readonly calls: number;
  readonly stood: boolean;
}

/** `at`: the call before which it stands still, counted from 1; `steps`: after so many others it goes on. */
async function live(pipeline: MemoryPipeline, at: number, steps: number): Promise<Lived> {
  const { world } = pipeline;
  const stood = Promise.withResolvers<void>();
  const goesOn = Promise.withResolvers<void>();
  let calls = 0;
  let idle = 0;
  let changes = 0;
  world.turn = async () => {
    calls++;
    await still();
    idle = world.changes === changes ? idle + 1 : 0;
    changes = world.changes;
    if (calls === at) {
      stood.resolve();
      await goesOn.promise;
    } else if (idle > IDLE_CALLS_MAX) goesOn.resolve();
  };
  const asStep = async (step: Step): Promise<void> => {
    world.fork();
    try {
      await step(pipeline);
    } catch (error) {
      // It may come too late for what it wanted.
      if (!(error instanceof SluiceError) || error.code === 'UNEXPECTED') throw error;
    }
  };
  let standing: Promise<void> | null = null;
  let since = 0;
  for (const step of STEPS) {
    const work = asStep(step);
    if (standing === null) {
      const ended = await Promise.race([work.then(() => true), stood.promise.then(() => false)]);
      if (ended) continue;
      standing = work;
      world.clock.now_ms += LEASE_MS + 1;
      continue;
    }
    await work;
    if (++since === steps) goesOn.resolve();
  }
  goesOn.resolve();
  await standing;
  world.turn = () => Promise.resolve();
  world.fork();
  world.clock.now_ms += LEASE_MS + 1;
  await pipeline.settle();
  return { calls, stood: standing !== null };
}

function tables(consistency: string): MemoryPipeline {
  const pipeline = new MemoryPipeline({ target: `hard_delete: true, consistency: ${consistency}` });
  // Three chunks, and one.
  pipeline.database.makeTable('public.a', 750_000).makeTable('public.b');
  for (let id = 0; id < 9; id++) pipeline.database.write(row('a', id, `first ${id}`), row('b', id, null));
  return pipeline;
}

const places = fc.record({
  at: fc.integer({ min: 1, max: CALLS_MAX }),
  steps: fc.integer({ min: 1, max: STEPS.length }),
  consistency: fc.constantFrom('stream', 'transaction'),
});

test.each(['stream', 'transaction'])(
  'CALLS_MAX is as many as the history has, or a few more: %s',
  async (consistency) => {
    const { calls } = await live(tables(consistency), 0, 0);
    expect(calls).toBeLessThan(CALLS_MAX);
    expect(calls).toBeGreaterThan(CALLS_MAX * 0.8);
  },
);

property(
  'a process that stands still at any call, while others go on',
  places,
  async ({ at, steps, consistency }) => {
    const pipeline = tables(consistency);
    const { calls, stood } = await live(pipeline, at, steps);
    expect(stood || at > calls, 'it stood still').toBe(true);
    for (const table of ['public.a', 'public.b']) {
      const { target, source } = pipeline.both(table);
      expect(target).toEqual(source);
    }
    expect(pipeline.world.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
    expect(pipeline.database.slot?.active_pid ?? null).toBeNull();
  },
  SECONDS,
);
