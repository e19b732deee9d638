/**
 * Rows that are put aside (lib/load/divert.ts, lib/load/quarantine.ts), without a server: how long it is looked for them, and what is held meanwhile.
 */
import { Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import type { Owner } from '../../lib/load/control.ts';
import { Diverter, type Groups } from '../../lib/load/divert.ts';
import { type Refusals, withCare } from '../../lib/load/quarantine.ts';
import { QuarantinedKeys } from '../../lib/load/quarantined-keys.ts';
import type { Session } from '../../lib/load/session.ts';
import type { Aside, SegmentSource } from '../../lib/ports.ts';
import type { RejectedRow } from '../../lib/validation/rejected.ts';
import { Durable, memoryLedger, memoryStage, World } from '../support/memory-ports.ts';

const STREAM = 'public.t';
const KEY = { name: 'id', type_oid: 23, type_mod: -1 };
const refusal = () =>
  new SluiceError('TARGET_REJECTS', { stream: STREAM, reason: 'check_violation', sqlstate: '23514' });

/** Blocks of whole rows, with a column beside the key; what ends in `wrong` is refused. */
async function divert(blocks: readonly (readonly string[])[], rows_max: number) {
  const session = { run: async () => ({ rows: [] }), query: async () => ({ rows: [] }) } as unknown as Session;
  const owner: Owner = {
    pipeline: 'p',
    stream: { stream: STREAM, target: { schema: 'public', table: 't' } },
  };
  const put: RejectedRow[] = [];
  const aside: Aside = {
    id: 'load-1',
    epoch: null,
    plan: null,
    kept: new Set(),
    refuses: true,
    rows_max,
    add: async (row) => void put.push(row),
    keep: async () => {},
  };
  const keys = await QuarantinedKeys.read(session, owner, aside);
  const diverter = new Diverter(session, owner, aside, { checks: false, keys });
  const tried: string[] = [];
  const groups: Groups = {
    isUnused: () => false,
    isLast: () => false,
    apply: async (_block, index, text) => {
      tried.push(`${index}: ${put.length} put aside`);
      if (text.includes('wrong\n')) throw refusal();
    },
    refused: async () => {},
    finish: async () => {},
    remember: () => () => {},
  };
  const segment = {
    header: {
      shape: { columns: [KEY, { ...KEY, name: 'v' }], key: [0] },
      blocks: blocks.map((lines) => ({ kind: 'upsert', columns: [0, 1], rows: lines.length })),
    },
    block: (index: number) => Readable.from([Buffer.from((blocks[index] ?? []).join(''))]),
  } as unknown as SegmentSource;
  const outcome = await diverter.apply(segment, groups).catch((error: unknown) => error);
  return { outcome, put, tried };
}

const lines = (block: number, count: number, ending: string): string[] =>
  Array.from({ length: count }, (_, i) => `${block}${String(i).padStart(4, '0')}\t${ending}\n`);

describe('where many rows are refused', () => {
  test('the search ends with as many as may wait, however many blocks they are in', async () => {
    const { outcome, tried } = await divert(
      Array.from({ length: 20 }, (_, block) => lines(block, 20, 'wrong')),
      5,
    );
    expect(outcome).toMatchObject({ code: 'QUARANTINE_FULL' });
    // Twenty of the first block, and a few of the second.
    expect(new Set(tried.map((one) => one.split(':')[0]))).toEqual(new Set(['0', '1']));
  });

  test('large ones are not held until the others are in', async () => {
    const large = `${'x'.repeat(9 * 1024 * 1024)}wrong`;
    const { outcome, put, tried } = await divert(
      [...Array.from({ length: 6 }, (_, block) => lines(block, 1, large)), lines(6, 1, 'good')],
      10,
    );
    expect(outcome).toBe(7);
    expect(put).toHaveLength(6);
    expect(tried).toContain('6: 4 put aside');
  });
});

describe('what a load puts aside', () => {
  const refusals: Refusals = { on_error: 'quarantine', rows_max: 9, newObject: () => `p/rejected/loads/${++objects}` };
  let objects = 0;
  const row = (id: string): RejectedRow => ({
    stream: STREAM,
    operation: 'copy',
    key: { columns: ['id'], values: [id] },
    committed_at: null,
    faults: [],
    row: {},
  });

  function ports() {
    const world = new World();
    const durable = new Durable();
    const own = {
      stage: memoryStage(world, durable),
      ledger: memoryLedger(world, durable),
      clock: world.clock,
      log: world.log,
    };
    return { own, durable };
  }

  /** The first time it is refused, as a load that goes the fast way is. */
  async function careful(own: ReturnType<typeof ports>['own'], work: (aside: Aside) => Promise<void>): Promise<void> {
    await withCare(own, STREAM, refusals, async (care) => {
      const aside = await care.aside(STREAM, { epoch: 1, plan: 'a', chunk: null });
      if (!aside) throw refusal();
      await work(aside);
    });
  }

  test('is put aside anew where its transaction was given up after that', async () => {
    const { own } = ports();
    await careful(own, async (aside) => {
      for (let tries = 0; tries < 2; tries++) {
        await aside.add(row('7'));
        await aside.keep(new Map(), new Map([[aside.id, new Set(['["7"]'])]]));
      }
    });
    expect(await own.ledger.rejects(STREAM)).toMatchObject([{ rows: 1, epoch: 1 }]);
  });

  test('is not listed any more where it was taken at the second try, by whoever came after a crash', async () => {
    const { own, durable } = ports();
    const crashed = careful(own, async (aside) => {
      await aside.add(row('7'));
      await aside.keep(new Map(), new Map([[aside.id, new Set(['["7"]'])]]));
      throw new Error('no answer to the commit');
    });
    await expect(crashed).rejects.toThrow('no answer');
    expect(durable.rejects.size).toBe(1);
    await careful(own, (aside) => aside.keep(new Map(), new Map()));
    expect(await own.ledger.rejects(STREAM)).toEqual([]);
  });

  test('stays listed where somebody else did the same work meanwhile', async () => {
    const { own } = ports();
    await careful(own, async (aside) => {
      await aside.add(row('7'));
      await aside.keep(new Map(), new Map([[aside.id, new Set(['["7"]'])]]));
    });
    await careful(own, async () => {});
    expect(await own.ledger.rejects(STREAM)).toHaveLength(1);
  });
});
