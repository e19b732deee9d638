/**
 * Theorem: whatever a table holds when its chunks are read, each row is in exactly one of them: the chunks are disjoint and cover every
 * key from the least to the greatest int8, and every ctid, however many rows came or moved since the plan was made. (test/pg/plan.test.ts has
 * keys of every kind, compared by the servers themselves.)
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { planChunks } from '../../lib/epoch/plan.ts';
import type { ChunkRange, SourceTable } from '../../lib/ports.ts';

const INT8_MIN = -(2n ** 63n);
const INT8_MAX = 2n ** 63n - 1n;
const BLOCK_MAX = 2 ** 32 - 2;

const int8 = fc.oneof(fc.bigInt({ min: INT8_MIN, max: INT8_MAX }), fc.constantFrom(INT8_MIN, -1n, 0n, 1n, INT8_MAX));

function table(): SourceTable {
  const columns = [{ name: 'id', type_oid: 20, type_modifier: -1, not_null: true }];
  const names = { schema: 's', table: 't', oid: 1, kind: 'r', persistence: 'p', replica_identity: 'd' };
  return {
    ...names,
    columns,
    key: ['id'],
    may_select: true,
    row_security: false,
    rows_estimate: -1,
    pages: 0,
    toasted: false,
  };
}

/** What a look at the table may have given: edges that ascend, and pages, of any number. */
const sample = fc.record({
  rows: fc.nat({ max: 1e13 }),
  bytes: fc.nat({ max: 1e15 }),
  pages: fc.nat({ max: BLOCK_MAX }),
  chunks: fc.integer({ min: 1, max: 100 }),
  edges: fc
    .uniqueArray(int8, { maxLength: 30 })
    .map((edges) => edges.toSorted((a, b) => (a < b ? -1 : 1)).map((edge) => [String(edge)])),
});

/** A chunk as numbers: the key, or the block of a ctid (places in a block count from 1, so a bound at place 0 is the block's beginning). */
interface Span {
  readonly from: bigint | null;
  readonly to: bigint | null;
}

function spanOf(range: ChunkRange): Span {
  if (range.by === 'whole') return { from: null, to: null };
  if (range.by !== 'key' && range.by !== 'ctid') throw new Error(`not planned: ${range.by}`);
  const numberOf = (given: string | readonly string[] | null): bigint | null => {
    if (given === null) return null;
    const bound = typeof given === 'string' ? given : given.join();
    const [, digits] = (range.by === 'key' ? /^(-?\d+)$/ : /^\((\d+),0\)$/).exec(bound) ?? [];
    if (digits === undefined) throw new Error(`not a bound: ${bound}`);
    return BigInt(digits);
  };
  return { from: numberOf(range.from), to: numberOf(range.to) };
}

/** Of `places` and of every bound with its neighbours, where a chunk too many or too few would show: those that are not in exactly one. */
function misplaced(spans: readonly Span[], places: readonly bigint[]): bigint[] {
  const bounds = spans.flatMap(({ from, to }) => [from, to]).filter((bound) => bound !== null);
  const besides = bounds.flatMap((bound) => [bound - 1n, bound, bound + 1n]);
  const holds = ({ from, to }: Span, place: bigint): boolean =>
    (from === null || place >= from) && (to === null || place < to);
  return [...places, ...besides].filter((place) => spans.filter((span) => holds(span, place)).length !== 1);
}

test('every key is in one chunk', () => {
  const keys = fc.array(int8, { maxLength: 20 });
  fc.assert(
    fc.property(sample, keys, (seen, anywhere) => {
      const ways = { is_logged: false };
      const { ranges } = planChunks({
        table: table(),
        sample: { ...seen, version: 130_000, correlation: null },
        ways,
      });
      expect(ranges.length).toBeLessThanOrEqual(seen.edges.length + 1);
      expect(misplaced(ranges.map(spanOf), [INT8_MIN, INT8_MAX, ...anywhere])).toEqual([]);
    }),
  );
});

test('every ctid is in one chunk, also in pages that came after the plan', () => {
  const blocks = fc.array(fc.nat({ max: BLOCK_MAX }), { maxLength: 20 });
  fc.assert(
    fc.property(sample, blocks, (seen, anywhere) => {
      const { ranges } = planChunks({
        table: table(),
        sample: { ...seen, version: 180_000, correlation: 0 },
        ways: { is_logged: true },
      });
      expect(ranges.length).toBeLessThanOrEqual(Math.max(seen.chunks, seen.edges.length + 1));
      expect(misplaced(ranges.map(spanOf), [0, seen.pages, BLOCK_MAX, ...anywhere].map(BigInt))).toEqual([]);
    }),
  );
});
