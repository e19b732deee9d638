/**
 * `verify --chain`: whole where the line has worked, and each thing that can be missing or damaged is named.
 * Method: a line in memory with cuts that are not applied; then something is taken away, cut short or turned round.
 */
import { expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import { type ChainFindings, verifyChain } from '../../lib/verify/chain.ts';
import { chainSlotFault } from '../../lib/window/lost-slot.ts';
import { MemoryPipeline } from '../support/memory-pipeline.ts';

const TABLES = ['public.a', 'public.b'];

/** Three cuts with changes of both tables that are staged and not applied. */
async function behind(): Promise<MemoryPipeline> {
  const p = new MemoryPipeline();
  for (const table of TABLES) p.database.makeTable(table).write({ table, put: { id: '1', v: 'first' } });
  await p.settle();
  for (let i = 2; i < 5; i++) {
    p.database.write(...TABLES.map((table) => ({ table, put: { id: String(i), v: `v${i}` } })));
    await p.window();
  }
  p.durable.loadBells.length = 0;
  return p;
}

async function verified(p: MemoryPipeline): Promise<ChainFindings> {
  const { ledger, stage, source } = p.drainPorts();
  return await verifyChain({
    ledger,
    stage,
    look: () => source.look(),
    slotFault: (ground, head) => chainSlotFault(p.pipeline, ground, head),
    row: ({ stream }) => Promise.resolve(p.warehouse.streams.get(stream)?.row ?? null),
  });
}

const faultsOf = async (p: MemoryPipeline): Promise<string[]> =>
  (await verified(p)).faults.map(({ code, subject }) => `${code} ${subject}`);

test('a chain that is whole: all that is not applied has been looked at', async () => {
  const p = await behind();
  const found = await verified(p);
  expect(found).toMatchObject({ objects: 3, segments: 6, fault_count: 0, faults: [] });
  expect(found.cuts).toBe(found.to_cut - found.from_cut);
  expect(found.to_cut).toBe(p.durable.chain.at(-1)?.number);
  await p.settle();
  expect(await verified(p)).toMatchObject({ objects: 0, fault_count: 0 });
});

test('before anything was copied, and while chunks are staged and not loaded', async () => {
  const p = new MemoryPipeline();
  await expect(verified(p)).rejects.toMatchObject({ code: 'USAGE' });
  p.database.makeTable('public.a', 750_000);
  for (let id = 0; id < 9; id++) p.database.write({ table: 'public.a', put: { id: String(id), v: 'x' } });
  await p.window();
  expect(await verified(p)).toMatchObject({ objects: 0, fault_count: 0 });
  while (p.durable.extractBells.length > 0) {
    const [bell] = p.durable.extractBells.splice(0, 1);
    if (bell) await p.extract(bell);
  }
  expect(await verified(p)).toMatchObject({ objects: 3, segments: 3, fault_count: 0 });
  const chunk = [...p.durable.objects.keys()].find((name) => name.includes('/chunks/')) ?? '';
  p.durable.objects.delete(chunk);
  expect(await faultsOf(p)).toEqual([expect.stringMatching(/^STAGE_MISSING chunk \d of public\.a$/)]);
});

test('an object that is gone, and one of which a byte is another', async () => {
  const p = await behind();
  const [first, second] = p.durable.chain.slice(-3);
  p.durable.objects.delete(first?.object ?? '');
  const damaged = Buffer.from(p.durable.objects.get(second?.object ?? '') ?? '');
  const at = damaged.length - 12;
  damaged[at] = (damaged[at] ?? 0) ^ 1;
  p.durable.objects.set(second?.object ?? '', damaged);
  expect(await faultsOf(p)).toEqual([
    `STAGE_MISSING cut ${first?.number} of public.a`,
    `STAGE_MISSING cut ${first?.number} of public.b`,
    `STAGE_CORRUPT cut ${second?.number} of public.b`,
  ]);
});

test('a cut that is gone, one that begins elsewhere, and one of another ledger', async () => {
  const gone = await behind();
  const [cut] = gone.durable.chain.splice(-2, 1);
  expect(await faultsOf(gone)).toEqual([`LEDGER_DAMAGED cut ${cut?.number}`]);

  const turned = await behind();
  const last = turned.durable.chain.pop();
  if (last) turned.durable.chain.push({ ...last, begin_lsn: lsnOf(last.begin_lsn + 8n) });
  expect(await faultsOf(turned)).toEqual([`LEDGER_DAMAGED cut ${last?.number}`]);

  const other = await behind();
  const newest = other.durable.chain.pop();
  if (newest) other.durable.chain.push({ ...newest, incarnation: 'another' });
  expect(await faultsOf(other)).toEqual([`LEDGER_DAMAGED cut ${newest?.number}`]);
});

test('a slot that is past the chain, or gone', async () => {
  const p = await behind();
  const { slot } = p.database;
  if (slot) p.database.slot = { ...slot, confirmed_lsn: lsnOf(slot.confirmed_lsn + 8n) };
  expect(await faultsOf(p)).toEqual(['SLOT_ADVANCED slot']);
  p.database.slot = null;
  expect(await faultsOf(p)).toEqual(['SLOT_MISSING slot']);
});

test('a target that is ahead, of another ledger, or without its rows', async () => {
  const p = await behind();
  const [a = '', b = ''] = [...p.warehouse.streams.keys()];
  const of = (stream: string) =>
    p.warehouse.streams.get(stream) as NonNullable<ReturnType<typeof p.warehouse.streams.get>>;
  p.warehouse.streams.set(a, { ...of(a), row: { ...of(a).row, applied_cut: 99 } });
  p.warehouse.streams.set(b, { ...of(b), row: { ...of(b).row, incarnation: 'another' } });
  expect((await faultsOf(p)).toSorted()).toEqual(['LEDGER_GAP public.a', 'LEDGER_INCARNATION public.b']);
  p.warehouse.streams.delete(b);
  expect((await faultsOf(p)).toSorted()).toEqual(['LEDGER_GAP public.a', 'TARGET_ROW_MISSING public.b']);
});
