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
  chunks_max: fc.integer({ min: 1, max: 1000 }),
});

/** How many chunks a key is in. */
function chunksOfKey(ranges: readonly ChunkRange[], key: bigint): number {
  return ranges.filter(
    (range) =>
      range.by === 'whole' ||
      (range.by === 'key' &&
        (range.from === null || key >= BigInt(range.from)) &&
        (range.to === null || key < BigInt(range.to))),
  ).length;
}

/** How many chunks a row at (block, place) is in; places count from 1, so a boundary at place 0 is the block's beginning. */
function chunksOfCtid(ranges: readonly ChunkRange[], block: number): number {
  const blockOf = (bound: string): number => {
    expect(bound).toMatch(/^\(\d+,0\)$/);
    return Number(bound.slice(1, -3));
  };
  return ranges.filter(
    (range) =>
      range.by === 'whole' ||
      (range.by === 'ctid' &&
        (range.from === null || block >= blockOf(range.from)) &&
        (range.to === null || block < blockOf(range.to))),
  ).length;
}

/** Values at every boundary and beside it: where a chunk too many or too few would show. */
function edges(ranges: readonly ChunkRange[]): string[] {
  return ranges.flatMap((range) =>
    range.by === 'whole' ? [] : [range.from, range.to].filter((edge) => edge !== null),
  );
}

test('every key is in one chunk', () => {
  fc.assert(
    fc.property(
      size,
      int8,
      int8,
      fc.array(int8, { maxLength: 20 }),
      ({ rows, pages, chunk_rows, chunks_max }, a, b, keys) => {
        const bounds = a < b ? { min: String(a), max: String(b) } : { min: String(b), max: String(a) };
        const request = { table: table(rows, pages), version: 180_000, bounds, chunk_rows, chunks_max };
        const { ranges, may_overlap } = planChunks(request);
        fc.pre(!may_overlap);
        expect(ranges.length).toBeLessThanOrEqual(chunks_max);
        const besides = edges(ranges).flatMap((edge) => [BigInt(edge) - 1n, BigInt(edge), BigInt(edge) + 1n]);
        for (const key of [a, b, INT8_MIN, INT8_MAX, ...keys, ...besides]) expect(chunksOfKey(ranges, key)).toBe(1);
      },
    ),
  );
});

test('every ctid is in one chunk, also in pages that came after the plan', () => {
  const blocks = fc.array(fc.nat({ max: BLOCK_MAX }), { maxLength: 20 });
  fc.assert(
    fc.property(size, blocks, ({ rows, pages, chunk_rows, chunks_max }, anywhere) => {
      const request = { table: table(rows, pages), version: 180_000, bounds: null, chunk_rows, chunks_max };
      const { ranges } = planChunks(request);
      expect(ranges.length).toBeLessThanOrEqual(chunks_max);
      const besides = edges(ranges).flatMap((edge) => {
        const block = Number(edge.slice(1, -3));
        return [block - 1, block, block + 1];
      });
      for (const block of [0, pages, BLOCK_MAX, ...anywhere, ...besides]) expect(chunksOfCtid(ranges, block)).toBe(1);
    }),
  );
});
