/**
 * Theorem: wherever a process dies, before a call that changes something or just after it, a row that is not valid is put aside before its cut or chunk counts (I1):
 * the target ends with what it had of it, every such row is found in the stage by its key, and nothing is put aside that was valid.
 *
 * Method: as pipeline-crash.test.ts, one history run once for every such call. Rejects may be there twice (a phantom), never less than once.
 */
import { expect, test } from 'vitest';
import { readRejects } from '../../lib/validation/rejects.ts';
import { MemoryPipeline } from '../support/memory-pipeline.ts';

const row = (id: number, v: string) => ({ table: 'public.a', put: { id: String(id), v } });

function tables(): MemoryPipeline {
  const pipeline = new MemoryPipeline({
    tables: '[{ table: public.a, json_schema: { properties: { v: { not: { pattern: ^bad } } } } }]',
    target: 'hard_delete: true, validate_records: true, on_invalid: reject',
  });
  pipeline.database.makeTable('public.a', 750_000);
  for (let id = 0; id < 6; id++) pipeline.database.write(row(id, `first ${id}`));
  pipeline.database.write(row(6, 'bad from the start'));
  return pipeline;
}

const STEPS: readonly ((pipeline: MemoryPipeline) => unknown)[] = [
  (p) => p.window(),
  (p) => p.pump(),
  (p) => p.window(),
  (p) => p.pump(),
  ({ database }) => database.write(row(1, 'bad'), row(2, 'second'), row(20, 'bad and new')),
  (p) => p.window(),
  ({ database }) => database.write(row(3, 'bad alone')),
  (p) => p.window(),
  ({ database }) => database.write(row(1, 'mended'), row(21, 'third')),
  (p) => p.pump(),
  (p) => p.window(),
];

const VALID = [
  ['0', 'first 0'],
  ['1', 'mended'],
  ['2', 'second'],
  ['21', 'third'],
  ['3', 'first 3'],
  ['4', 'first 4'],
  ['5', 'first 5'],
];

async function expectPutAside(pipeline: MemoryPipeline): Promise<void> {
  const { target } = pipeline.both('public.a') as { target: [string, { values: { id: string; v: string } }][] };
  expect(target.map(([, { values }]) => [values.id, values.v])).toEqual(VALID);
  const found = new Set<string>();
  for await (const { key, faults } of readRejects(pipeline.drainPorts(), 'public.a')) {
    found.add(key.values.join());
    expect(faults).toMatchObject([{ column: 'v', keyword: 'not' }]);
  }
  expect([...found].toSorted()).toEqual(['1', '20', '3', '6']);
  expect(pipeline.world.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
}

test('a process that dies at any call, with target.on_invalid: reject', { timeout: 90_000 }, async () => {
  const whole = tables();
  await whole.live(STEPS);
  await expectPutAside(whole);
  const calls = whole.world.changes;
  expect(whole.world.calls('ledger.addReject').length).toBeGreaterThan(2);
  const failures: string[] = [];
  for (let at = 1; at <= calls; at++) {
    for (const when of ['before', 'after'] as const) {
      const pipeline = tables();
      pipeline.world.crashAt = at;
      pipeline.world.crashWhen = when;
      try {
        await pipeline.live(STEPS);
        await expectPutAside(pipeline);
      } catch (error) {
        const call = whole.world.events[at - 1]?.call;
        failures.push(
          `${when} call ${at} (${call}): ${error instanceof Error ? error.message.slice(0, 400) : String(error)}`,
        );
      }
    }
  }
  expect(failures).toEqual([]);
});
