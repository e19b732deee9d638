/**
 * The key of one row as COPY text, by which a fold knows it: the same bytes for the same key, made anew in the same room for each row.
 */
import { type Tuple, VALUE } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { textOf } from '../piece.ts';
import type { Shape } from '../shape.ts';
import { OCTAL_BYTES, TAB, writeEscaped, writeValue } from './copy-text.ts';

const ROOM_MIN = 256;

export class KeyText {
  /** `bytes[0, end)` is the key. */
  bytes: Buffer = Buffer.allocUnsafeSlow(ROOM_MIN);
  end = 0;
  readonly #shape: Shape;

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  /** Throws DECODE_FAILED where a column of the key has no value. */
  read(tuple: Tuple): void {
    const room = this.#bytesMax(tuple);
    if (room > this.bytes.length) this.bytes = Buffer.allocUnsafeSlow(Math.max(room, this.bytes.length * 2));
    let at = 0;
    for (const i of this.#shape.key) {
      at = writeValue(this.bytes, at, tuple, i);
      // An index keeps its keys compressed: one of many equal letters may be this large.
      for (const piece of tuple.giants?.get(i) ?? []) at = writeEscaped(this.bytes, at, textOf(piece), 0, piece.length);
      this.bytes[at++] = TAB;
    }
    this.end = at - 1;
  }

  equals({ bytes, end }: KeyText): boolean {
    return this.end === end && this.bytes.compare(bytes, 0, end, 0, this.end) === 0;
  }

  #bytesMax(tuple: Tuple): number {
    let bytes = 0;
    for (const i of this.#shape.key) {
      if (tuple.kind[i] !== VALUE.text) {
        const reason = `no value for key column ${this.#shape.columns[i]?.name}`;
        throw new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason });
      }
      bytes += 2 * ((tuple.end[i] as number) - (tuple.start[i] as number)) + OCTAL_BYTES + 1;
      for (const piece of tuple.giants?.get(i) ?? []) bytes += 2 * piece.length;
    }
    return bytes;
  }
}
