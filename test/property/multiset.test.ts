/**
 * Theorem: whatever is done to a table without a key, however its history is cut and taken in parts, the shares that come of it lead a bag of rows from
 * the table as it was to the table as it is: as many copies of each row. And a copy taken at any commit, with the shares that it does not have, is the table.
 */
import * as fc from 'fast-check';
import { expect } from 'vitest';
import { OpenCut } from '../../lib/cut/open-cut.ts';
import type { Share } from '../../lib/cut/share.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { inCopy } from '../../lib/load/multiset.ts';
import { lsnOf } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import { applyCopies, type Bag, change, emptyCopies, rowOf } from '../support/multiset.ts';
import * as pg from '../support/pgoutput.ts';
import { property } from '../support/property.ts';
import type { Value } from '../support/shares.ts';

/** Few different values, so that rows meet; the last one is an unchanged value of an update. */
const VALUES: readonly Value[] = ['', 'a', 'A\t\\\n', null, 'x'.repeat(300)];
const COLUMNS = [{ name: 'a' }, { name: 'b' }];

const row = fc.tuple(fc.constantFrom(...VALUES), fc.constantFrom(...VALUES));
const command = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('insert' as const), row }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('update' as const), at: fc.nat(), row, unchanged: fc.boolean() }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('delete' as const), at: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('truncate' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('commit' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('part' as const) }) },
);
const plans = fc.record({
  first: fc.array(row, { maxLength: 4 }),
  commands: fc.array(command, { maxLength: 60 }),
  hard_delete: fc.boolean(),
  /** Also with a copy whose position is known: from there on transactions are folded together. */
  apart: fc.constantFrom(0n, 30n, 2n ** 64n - 1n),
  giants: fc.boolean(),
  copied: fc.nat(),
});

type Plan = typeof plans extends fc.Arbitrary<infer P> ? P : never;

interface Recorded {
  readonly shares: readonly Share[];
  /** The live rows at the beginning and after each commit, with the position that a copy of them would have. */
  readonly snapshots: readonly { readonly rows: readonly (readonly Value[])[]; readonly lsn: bigint }[];
  readonly erased: Bag;
}

function record({ first, commands, hard_delete, apart, giants }: Plan): Recorded {
  const keyless = { rows: 'multiset', apart_before: lsnOf(apart) } as const;
  const streams = [{ stream: 's', schema: 'public', table: 't', key: [], keyless }];
  const cut = new OpenCut({ streams, hard_delete, isDue: () => false, part_text_bytes_max: 1024 });
  const decoder = new PgoutputDecoder(cut);
  const feed = (message: Buffer): void => {
    if (giants && message.length > 300) decoder.decodeGiant([message.subarray(0, 20), message.subarray(20)]);
    else decoder.decode(message, 0, message.length);
  };
  let live: (readonly Value[])[] = [...first];
  const erased: Bag = new Map();
  const shares: Share[] = [];
  const snapshots: Recorded['snapshots'][number][] = [{ rows: live, lsn: 1n }];
  let lsn = 10n;
  let open = false;
  const take = (): void => {
    // The shares are views: they are read before the next part is.
    for (const share of cut.takePart())
      shares.push({
        ...share,
        blocks: share.blocks.map((block) => ({ ...block, pieces: [Buffer.from(joined(block.pieces))] })),
      });
  };
  const commit = (): void => {
    if (!open) return;
    // A transaction's commit record begins where the one before ends: there a copy's position may be, too.
    feed(pg.commit(lsn + 10n, 0n, lsn));
    lsn += 10n;
    snapshots.push({ rows: live, lsn });
    open = false;
  };
  for (const next of commands) {
    if (next.do === 'part') take();
    if (next.do === 'commit') commit();
    if (next.do === 'part' || next.do === 'commit') continue;
    if (!open) feed(pg.begin(1, 0n, lsn));
    if (!open) feed(pg.relation({ id: 1, identity: 'f', columns: COLUMNS }));
    open = true;
    if (next.do === 'insert') {
      live = [...live, next.row];
      feed(pg.insert(1, next.row));
    } else if (next.do === 'truncate') {
      for (const gone of live) if (!hard_delete) change(erased, rowOf(gone), 1);
      live = [];
      feed(pg.truncate([1]));
    } else if (live.length > 0) {
      const at = next.at % live.length;
      const old = live[at] as readonly Value[];
      if (next.do === 'delete') {
        live = live.toSpliced(at, 1);
        if (!hard_delete) change(erased, rowOf(old), 1);
        feed(pg.del(1, { full: old }));
      } else {
        const leaves = next.unchanged && old[1] !== null;
        const now = leaves ? [next.row[0], old[1] as Value] : next.row;
        live = live.with(at, now);
        feed(pg.update(1, leaves ? [next.row[0], pg.UNCHANGED] : next.row, { full: old }));
      }
    }
    if (cut.partIsFull) take();
  }
  commit();
  take();
  return { shares, snapshots, erased };
}

function bagOf(rows: readonly (readonly Value[])[]): Bag {
  const bag: Bag = new Map();
  for (const values of rows) change(bag, rowOf(values), 1);
  return bag;
}

property('a bag that takes every share equals the table', plans, (plan) => {
  const { shares, snapshots, erased } = record(plan);
  const copies = emptyCopies(bagOf(plan.first));
  for (const share of shares) applyCopies(copies, share, plan.hard_delete);
  expect(copies.alive).toEqual(bagOf(snapshots.at(-1)?.rows ?? []));
  expect(copies.marked).toEqual(erased);
});

property(
  'a copy of any moment, and the shares of transactions that it does not have, equal the table',
  plans,
  (plan) => {
    const { shares, snapshots } = record(plan.apart === 0n ? { ...plan, apart: 2n ** 64n - 1n } : plan);
    const at = plan.apart === 30n ? Math.min(2, snapshots.length - 1) : plan.copied % snapshots.length;
    const { rows, lsn } = snapshots[at] as Recorded['snapshots'][number];
    const copies = emptyCopies(bagOf(rows));
    for (const share of shares) {
      if (!share.commits) throw new Error('a share that does not say when it was committed');
      const has = inCopy(share.commits, lsnOf(lsn));
      expect(has).not.toBe('some');
      if (has === 'none') applyCopies(copies, share, plan.hard_delete);
    }
    expect(copies.alive).toEqual(bagOf(snapshots.at(-1)?.rows ?? []));
  },
);
