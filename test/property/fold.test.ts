/**
 * Theorem: whatever is done to a table, however its history is cut and taken in parts, the shares that come of it lead a target from the table as it
 * was to the table as it is: row for row, and with soft deletes the deleted rows with their last values and the time of their deletion.
 *
 * Each share is checked to be what lib/stage/segment.ts says that it is (test/support/shares.ts), and applied by that page's words.
 */
import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { Doubts } from '../support/doubts.ts';
import { exchangeHistories, type History, type HistoryPlan, histories, recordHistory } from '../support/history.ts';
import { property } from '../support/property.ts';
import { applySegment, type SegmentText, type TargetRows } from '../support/shares.ts';
import { type Command, formOf, MARKED_BY_TRUNCATE } from '../support/source-table.ts';

function apply(rows: TargetRows, segments: readonly SegmentText[], hard_delete: boolean): TargetRows {
  for (const segment of segments) applySegment(rows, segment, hard_delete, MARKED_BY_TRUNCATE);
  return rows;
}

const live = (rows: TargetRows): TargetRows => new Map([...rows].filter(([, { deleted_at }]) => deleted_at === null));
const sorted = (rows: TargetRows) => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));

/** As `toEqual`, which is slow where all is well. */
function expectRows(rows: TargetRows, expected: TargetRows): void {
  if (!isDeepStrictEqual(rows, expected)) expect(sorted(rows)).toEqual(sorted(expected));
}

property('a target that takes every share equals the source', histories, (plan) => {
  const { source, cuts, snapshots } = recordHistory(plan);
  const rows = apply(snapshots[0]?.rows ?? new Map(), cuts.flat(), plan.hard_delete);
  const expected = source.snapshot();
  if (!plan.hard_delete) for (const [key, row] of source.graves) expected.set(key, row);
  expectRows(rows, expected);
});

property('where the log has whole rows, no share needs what the target has', histories, (plan) => {
  const { source, cuts } = recordHistory({ ...plan, form: { ...plan.form, full: true } });
  const kinds = new Set(cuts.flat().flatMap(({ blocks }) => blocks.map(({ kind }) => kind)));
  expect([kinds.has('rekey'), kinds.has('update')]).toEqual([false, false]);
  // So that a target which begins with nothing has every row that was written since.
  const rows = live(apply(new Map(), cuts.flat(), plan.hard_delete));
  expectRows(rows, new Map([...source.snapshot()].filter(([key]) => rows.has(key))));
});

/**
 * An epoch: chunks that were read at different moments after the cut that the stream goes on from (design §3, Epochs 5). Each key is in one chunk, and a
 * chunk has the rows as they were when it was read. The chain from there on leads to the source; but for rows whose key changed while the log
 * lacks values of theirs (I7): such a row may be in no chunk, or be another's when its values are taken. The notes that are kept meanwhile know
 * every one of these, and none where no key changed so.
 */
interface Epoch {
  readonly hard_delete: boolean;
  /** The first cut that is applied. */
  readonly from: number;
  /** A snapshot of `readable` for each chunk. */
  readonly ages: readonly number[];
  readonly chunkOf: (key: string) => number;
}

/** Snapshots that a chunk can be of: from the last commit before the cut on. */
function readable({ snapshots }: History, from: number): History['snapshots'] {
  return snapshots.filter(({ cut }, i) => cut >= from || (snapshots[i + 1]?.cut ?? from) >= from);
}

/** True: it is known that the rows may differ; else they have been found equal. */
function synchronise(history: History, { hard_delete, from, ages, chunkOf }: Epoch): boolean {
  const { source, cuts } = history;
  const chunks = ages.map((age) => readable(history, from)[age] ?? { rows: new Map(), cut: from });
  const rows: TargetRows = new Map(
    chunks.flatMap(({ rows: read }, i) => [...read].filter(([key]) => chunkOf(key) === i)),
  );
  const newest = Math.max(...chunks.map(({ cut }) => cut));
  const doubts = new Doubts();
  for (const segment of cuts.slice(from, newest + 1).flat()) doubts.apply(rows, segment, hard_delete);
  if (doubts.unknown.size > 0) return true;
  apply(rows, cuts.slice(newest + 1).flat(), hard_delete);
  expectRows(live(rows), source.snapshot());
  // What the replay brought back is marked again by the end of it.
  for (const [key, { deleted_at }] of rows)
    if ((deleted_at === null) !== source.live.has(key)) expect(key).toBe('live');
  return false;
}

const isRekeyed = ({ cuts }: History): boolean =>
  cuts.flat().some(({ blocks }) => blocks.some(({ kind }) => kind === 'rekey'));

property(
  'chunks of any age, and then the chain from before them, equal the source, or it is known that they do not',
  fc.record({ plan: histories, held: fc.nat(1000), ages: fc.array(fc.nat(1000), { minLength: 1, maxLength: 3 }) }),
  ({ plan, held, ages }) => {
    const history = recordHistory(plan);
    const from = held % history.cuts.length;
    const count = readable(history, from).length;
    const chunkOf = (key: string): number => Buffer.from(key).reduce((sum, byte) => sum + byte, 0) % ages.length;
    const epoch = { hard_delete: plan.hard_delete, from, ages: ages.map((age) => age % count), chunkOf };
    if (synchronise(history, epoch)) expect(isRekeyed(history)).toBe(true);
  },
);

/** Every cut to go on from, and every age of every key's chunk. How many of these epochs are known to be in doubt. */
function synchroniseAll(plan: HistoryPlan): number {
  const history = recordHistory(plan);
  const keys = [...new Set(history.snapshots.flatMap(({ rows }) => [...rows.keys()]))];
  const chunkOf = (key: string): number => keys.indexOf(key);
  let doubtful = 0;
  for (let from = 0; from < history.cuts.length && keys.length > 0; from++) {
    const count = readable(history, from).length;
    for (let combination = 0; combination < count ** keys.length; combination++) {
      const ages = keys.map((_, i) => Math.floor(combination / count ** i) % count);
      if (synchronise(history, { hard_delete: plan.hard_delete, from, ages, chunkOf })) doubtful++;
    }
  }
  return doubtful;
}

property("rows that take each other's keys while they are copied", exchangeHistories, (plan) => {
  synchroniseAll(plan);
});

/** Found by trying every history of three changes; rare among random ones. */
test.each([
  ['the row that is found at the old key is gone again within the cut', 'move 0>2, insert 0, commit, delete 0'],
  ['the same, with a cut between', 'move 0>2, insert 0, cut, delete 0'],
  ["the key was another row's before", 'delete 0, move 1>0, insert 1'],
  ['the old key is filled again', 'delete 0, move 1>2, insert 1'],
  ['two rows change places', 'move 0>2, move 1>0, move 2>1'],
])('%s: it is known where values are in doubt', (_what, changes) => {
  const history = changes.split(', ').map((change): Command => {
    const [what, at = '', to = at] = change.split(/[ >]/);
    const values = Array.from({ length: 5 }, () => ({ value: `new ${changes.indexOf(change)}`, how: 'kept' as const }));
    if (what === 'commit' || what === 'cut') return { do: what };
    return { do: what as 'move', at: Number(at), to: Number(to), values, giant: false };
  });
  const first = ['x', 'y'].map((text, i) => [i, Array<string>(5).fill(text)] as const);
  for (const hard_delete of [true, false]) {
    expect(synchroniseAll({ form: formOf(1, false), first, history, hard_delete })).toBeGreaterThan(0);
  }
});
