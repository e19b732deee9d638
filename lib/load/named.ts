/**
 * What a segment's columns are called on the target, and which temporary table its blocks land in. Pure, for apply.ts.
 */
import type { ChunkRange } from '../ports.ts';
import type { Block } from '../stage/segment.ts';
import { keyNames } from './columns.ts';
import type { TableForm } from './sql.ts';

export interface Named {
  /** In the order of its shape; null: the table no longer has it. */
  readonly columns: readonly (string | null)[];
  readonly key: readonly string[];
}

/** The keys that a range names, in the order of the table's key. */
export function keysOf(range: ChunkRange, { shape }: TableForm, nameOf: (column: string) => string): string[][] {
  if (range.by !== 'keys') return [];
  const names = range.columns.map(nameOf);
  const places = keyNames(shape).map((name) => names.indexOf(name));
  return range.keys.map((key) => places.map((place) => String(key[place])));
}

export function namesOf(named: Named, { columns }: Block): (string | null)[] {
  return columns.map((index) => named.columns[index] ?? null);
}

export function landedKey(named: Named, block: Block): string {
  return JSON.stringify([block.kind, namesOf(named, block), block.kind === 'rekey' ? named.key : []]);
}
