/**
 * What a segment of a table without a key means, once more: the words of lib/stage/segment.ts, carried out copy by copy on a bag of rows in memory.
 */
import type { Share } from '../../lib/cut/share.ts';
import { BLOCK_KINDS } from '../../lib/stage/segment.ts';
import { parseLines, segmentText, type Value } from './shares.ts';

/** Copies by row (its values as JSON). */
export type Bag = Map<string, number>;

export interface Copies {
  readonly alive: Bag;
  /** Soft deletes: what stays, by row and the time of the mark. */
  readonly marked: Bag;
}

export const emptyCopies = (alive: Bag = new Map()): Copies => ({ alive: new Map(alive), marked: new Map() });

export function change(bag: Bag, row: string, by: number): void {
  const copies = (bag.get(row) ?? 0) + by;
  if (copies < 0) throw new Error(`${-copies} copies of ${row} are missing`);
  if (copies === 0) bag.delete(row);
  else bag.set(row, copies);
}

export const rowOf = (values: readonly Value[]): string => JSON.stringify(values);

/** Throws where a copy is to go that is not there, and where the segment is not what the page says. */
export function applyCopies(copies: Copies, share: Share, hard_delete: boolean): void {
  const { alive, marked } = copies;
  if (share.operation === 'truncate') {
    if (!hard_delete) for (const [row, count] of alive) change(marked, row, count);
    alive.clear();
    return;
  }
  const { shape, blocks } = segmentText(share);
  const order = blocks.map(({ kind }) => BLOCK_KINDS.indexOf(kind));
  if (order.some((place, i) => place <= (order[i - 1] ?? -1))) throw new Error('blocks out of order, or two of a kind');
  for (const [i, { kind, text }] of blocks.entries()) {
    const lines = parseLines(text);
    if (lines.length === 0 || lines.length !== share.blocks[i]?.rows) throw new Error(`${kind}: not as many as told`);
    const seen = new Set<string>();
    for (const line of lines) {
      const row = rowOf(line.slice(0, shape.columns.length));
      const [number, at] = [Number(line.at(-1)), kind === 'erase' ? line.at(-2) : undefined];
      if (line.length !== shape.columns.length + (at === undefined ? 1 : 2))
        throw new Error(`${kind}: ${line.length} fields`);
      if (!Number.isInteger(number) || number < 1 || seen.has(row))
        throw new Error(`${kind}: ${number} copies of ${row}`);
      seen.add(row);
      if (kind === 'add') change(alive, row, number);
      else if (kind === 'remove' || kind === 'erase') change(alive, row, -number);
      else throw new Error(`a block of ${kind}`);
      if (kind === 'erase' && !hard_delete) change(marked, row, number);
    }
  }
}
