/**
 * Rows of the log, projected: columns that are left out are gone, and masks stand for values, before the cut has seen them (I6: a value that is kept stays the
 * bytes that came). Made for one description of a table; the tuple that it hands over is its own, and holds until the next call.
 *
 * A giant value that is hashed is read piece by piece and never put together (I8). What is unchanged (I7) stays absent, but for what is always NULL.
 */
import { type Tuple, VALUE } from '../change.ts';
import { ASCII_MAX } from '../cut/copy-text.ts';
import { type Piece, textOf } from '../piece.ts';
import type { Column } from '../shape.ts';
import { HASH_CHARACTERS, Hasher } from './hash.ts';
import { type Projection, REDACTED, type Treatment } from './projection.ts';

const BYTES_MIN = 1024;
const REDACTED_BYTES = Buffer.from(REDACTED);

export class TupleProjection {
  /** Places of the columns that are not left out. */
  readonly places: readonly number[];
  /** Columns of the table. */
  readonly count: number;
  #treatments: readonly Treatment[];
  #writes: boolean;
  #hasher: Hasher;
  /** What is written lies here, until the next change. */
  #room: Buffer = Buffer.alloc(0);

  constructor(columns: readonly Column[], projection: Projection) {
    this.count = columns.length;
    const all = columns.map(({ name }) => projection.treatmentOf(name));
    this.places = all.flatMap((treatment, place) => (treatment === 'drop' ? [] : [place]));
    this.#treatments = this.places.map((place) => all[place] as Treatment);
    this.#writes = this.#treatments.some((treatment) => treatment === 'hash' || treatment === 'redact');
    this.#hasher = new Hasher(projection.salt);
  }

  /** Fills `to`, which must not be `from`. */
  project(from: Tuple, to: Tuple): Tuple {
    if (this.#writes) this.#reserve(this.#bytesMax(from));
    this.#write(from, to, 0);
    return to;
  }

  /** Both rows of a change. They lie in one buffer, as they came: the fold completes the one by the other. */
  projectBoth(old: Tuple, oldTo: Tuple, row: Tuple, rowTo: Tuple): void {
    if (this.#writes) this.#reserve(this.#bytesMax(old) + this.#bytesMax(row));
    this.#write(row, rowTo, this.#write(old, oldTo, 0));
  }

  #reserve(bytes: number): void {
    if (this.#room.length < bytes)
      this.#room = Buffer.allocUnsafeSlow(Math.max(bytes, BYTES_MIN, this.#room.length * 2));
  }

  /** Returns where in the buffer it ends. */
  #write(from: Tuple, to: Tuple, begin: number): number {
    to.count = this.places.length;
    to.giants = null;
    // Where nothing is written, what is kept stays where it is.
    const out = this.#writes ? this.#room : null;
    to.bytes = out ?? from.bytes;
    let at = begin;
    for (let i = 0; i < this.places.length; i++) {
      const place = this.places[i] as number;
      const treatment = this.#treatments[i] as Treatment;
      const kind = treatment === 'null' ? VALUE.null : (from.kind[place] as number);
      to.kind[i] = kind;
      to.start[i] = at;
      to.end[i] = at;
      if (kind !== VALUE.text) continue;
      const [start, end] = [from.start[place] as number, from.end[place] as number];
      const giant = from.giants?.get(place);
      if (treatment === 'keep') {
        if (giant) (to.giants ??= new Map()).set(i, giant);
        if (out === null) {
          to.start[i] = start;
          to.end[i] = end;
          continue;
        }
        at += from.bytes.copy(out, at, start, end);
      } else if (out !== null) {
        at +=
          treatment === 'hash'
            ? out.write(this.#hash(from, start, end, giant), at, 'latin1')
            : REDACTED_BYTES.copy(out, at);
      }
      to.end[i] = at;
    }
    return at;
  }

  #bytesMax(from: Tuple): number {
    let bytes = 0;
    for (let i = 0; i < this.places.length; i++) {
      const place = this.places[i] as number;
      if (from.kind[place] !== VALUE.text) continue;
      bytes +=
        this.#treatments[i] === 'keep' ? (from.end[place] as number) - (from.start[place] as number) : HASH_CHARACTERS;
    }
    return bytes;
  }

  #hash({ bytes }: Tuple, start: number, end: number, giant: readonly Piece[] | undefined): string {
    if (giant) {
      const hash = this.#hasher.begin();
      for (const piece of giant) hash.update(textOf(piece));
      return hash.digest('hex');
    }
    // A "char" of a server before 16 that is no text (copy-text.ts): copies print it as later servers do.
    if (end - start === 1 && (bytes[start] as number) > ASCII_MAX) {
      return this.#hasher.hash(`\\${(bytes[start] as number).toString(8)}`);
    }
    return this.#hasher.hash(bytes.subarray(start, end));
  }
}
