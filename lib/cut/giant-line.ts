/**
 * A row with values of megabytes as a line in pieces: what is small is gathered, what is giant stays where it arrived (I8).
 */
import { type Tuple, VALUE } from '../change.ts';
import type { Piece } from '../piece.ts';
import { escapedPieces, lineBytesMax, NEWLINE, TAB, writeValue } from './copy-text.ts';

/** The present columns as a line in pieces: small values gathered, giants between them as they arrived. `last`: text of a column that is no value of the row. */
export function giantLine(row: Tuple, last: Buffer | null = null): Piece[] {
  const pieces: Piece[] = [];
  const small = Buffer.allocUnsafe(lineBytesMax(row) + (last === null ? 0 : last.length + 1));
  let from = 0;
  let at = 0;
  for (let i = 0; i < row.count; i++) {
    if (row.kind[i] === VALUE.unchanged) continue;
    const giant = row.giants?.get(i);
    if (giant) {
      pieces.push(small.subarray(from, at));
      for (const piece of escapedPieces(giant)) pieces.push(piece);
      from = at;
    } else {
      at = writeValue(small, at, row, i);
    }
    small[at++] = TAB;
  }
  if (last !== null) {
    at += last.copy(small, at);
    small[at++] = TAB;
  }
  small[at - 1] = NEWLINE;
  pieces.push(small.subarray(from, at));
  return pieces;
}
