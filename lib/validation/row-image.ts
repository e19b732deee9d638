/**
 * A row of the log as text by column, with what it leaves unchanged taken from its old image where the log has that: as the fold will complete it (I7). Pure.
 */
import { type OldImage, type Tuple, VALUE } from '../change.ts';
import { ASCII_MAX } from '../cut/copy-text.ts';
import { joined } from '../piece.ts';
import type { Shape } from '../shape.ts';
import type { RowKey } from './rejected.ts';
import type { ColumnText } from './row-check.ts';

export interface RowImage {
  readonly row: Tuple;
  readonly oldImage: OldImage;
  /** Looked at where there is an old image. */
  readonly old: Tuple;
}

/** An old row as a row. */
export function imageOf(row: Tuple): RowImage {
  return { row, oldImage: 'none', old: row };
}

/** The tuple that has the value of column `i`; null: neither does. */
function holderOf({ row, oldImage, old }: RowImage, shape: Shape, i: number): Tuple | null {
  if (row.kind[i] !== VALUE.unchanged) return row;
  if (oldImage === 'none' || old.kind[i] !== VALUE.text) return null;
  return oldImage === 'full' || shape.key.includes(i) ? old : null;
}

export function isPartial(image: RowImage, shape: Shape): boolean {
  return shape.columns.some((_, i) => holderOf(image, shape, i) === null);
}

/** Bytes of all its values. */
export function imageBytes(image: RowImage, shape: Shape): number {
  let bytes = 0;
  for (const i of shape.columns.keys()) {
    const tuple = holderOf(image, shape, i);
    if (tuple?.kind[i] !== VALUE.text) continue;
    bytes += (tuple.end[i] as number) - (tuple.start[i] as number);
    for (const piece of tuple.giants?.get(i) ?? []) bytes += piece.length;
  }
  return bytes;
}

export function textOf(image: RowImage, shape: Shape, i: number): ColumnText {
  const tuple = holderOf(image, shape, i);
  if (tuple === null) return undefined;
  return tuple.kind[i] === VALUE.text ? valueText(tuple, i) : null;
}

/** Without its value, where that is not needed: empty for text. */
export function presenceOf(image: RowImage, shape: Shape, i: number): ColumnText {
  const tuple = holderOf(image, shape, i);
  if (tuple === null) return undefined;
  return tuple.kind[i] === VALUE.text ? '' : null;
}

function valueText({ bytes, start, end, giants }: Tuple, i: number): string {
  const giant = giants?.get(i);
  if (giant) return joined(giant).toString('utf8');
  const [from, to] = [start[i] as number, end[i] as number];
  // A "char" of a server before 16 that is no text, as later ones print it (copy-text.ts).
  if (to - from === 1 && (bytes[from] as number) > ASCII_MAX) return `\\${(bytes[from] as number).toString(8)}`;
  return bytes.toString('utf8', from, to);
}

export function keyOf(image: RowImage, shape: Shape): RowKey {
  return {
    columns: shape.key.map((i) => shape.columns[i]?.name ?? ''),
    values: shape.key.map((i) => textOf(image, shape, i) ?? ''),
  };
}
