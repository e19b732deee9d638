/**
 * Theorem: whatever a table holds when its chunks are read, each row is in exactly one of them: the chunks are disjoint and cover every
 * key from the least to the greatest int8, and every ctid, however many rows came or moved since the plan was made.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { planChunks } from '../../lib/epoch/plan.ts';
import type { ChunkRange, SourceTable } from '../../lib/ports.ts';

const INT8_MIN = -(2n ** 63n);
const INT8_MAX = 2n ** 63n - 1n;
const BLOCK_MAX = 2 ** 32 - 2;

const int8 = fc.oneof(fc.bigInt({ min: INT8_MIN, max: INT8_MAX }), fc.constantFrom(INT8_MIN, -1n, 0n, 1n, INT8_MAX));

function table(rows_estimate: number, pages: number): SourceTable {
  const columns = [{ name: 'id', type_oid: 20, type_modifier: -1, not_null: true }];
  const names = { schema: 's', table: 't', oid: 1, kind: 'r', persistence: 'p', replica_identity: 'd' };
  return {
    ...names,
    columns,
    key: ['id'],
    may_select: true,
    row_security: false,
    rows_estimate,
    pages,
    toasted: false,
  };
}

const size = fc.record({
  rows: fc.double({ min: -1, max: 1e13, noNaN: true }).map(Math.round),
  pages: fc.nat({ max: BLOCK_MAX }),
  chunk_rows: fc.integer({ min: 1, max: 10_000_000 }),
  chunks_max: fc.integer({ min: 1, max: 100 }),
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
    fc.property(size, int8, int8, keys, ({ rows, pages, chunk_rows, chunks_max }, a, b, anywhere) => {
      const bounds = a < b ? { min: String(a), max: String(b) } : { min: String(b), max: String(a) };
      const { ranges } = planChunks({ table: table(rows, pages), version: 130_000, bounds, chunk_rows, chunks_max });
      expect(ranges.length).toBeLessThanOrEqual(chunks_max);
      expect(misplaced(ranges.map(spanOf), [a, b, INT8_MIN, INT8_MAX, ...anywhere])).toEqual([]);
    }),
  );
});

test('every ctid is in one chunk, also in pages that came after the plan', () => {
  const blocks = fc.array(fc.nat({ max: BLOCK_MAX }), { maxLength: 20 });
  fc.assert(
    fc.property(size, blocks, ({ rows, pages, chunk_rows, chunks_max }, anywhere) => {
      const { ranges } = planChunks({
        table: table(rows, pages),
        version: 180_000,
        bounds: null,
        chunk_rows,
        chunks_max,
      });
      expect(ranges.length).toBeLessThanOrEqual(chunks_max);
      expect(misplaced(ranges.map(spanOf), [0, pages, BLOCK_MAX, ...anywhere].map(BigInt))).toEqual([]);
    }),
  );
});
