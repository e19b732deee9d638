/**
 * A message of megabytes, made small, as decode/giant.ts does for pgoutput: its long strings are taken out, as the pieces in which they arrived, their
 * escapes undone where they lie, and a mark stands for each. So a row of 100 MB is in memory once (I8).
 *
 * Strings are found by their quotes alone. The one text that is not always JSON, a type's quoted name, has its quotes in pairs as well.
 */
import { SluiceError } from '../errors.ts';
import { isPacked, Packer, type Piece, textOf } from '../piece.ts';
import { GIANT_MARK, unescapeOne } from './json-bytes.ts';

/** Strings from here on are taken out. */
const GIANT_VALUE_BYTES_MIN = 64 * 1024;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** \uXXXX */
const ESCAPE_BYTES_MAX = 6;
const MARK = Buffer.from([GIANT_MARK]);
const NO_BYTES: Buffer = Buffer.alloc(0);

export interface CompactJson {
  readonly bytes: Buffer;
  /** The strings taken out, without quotes and escapes, in the order of the message. */
  readonly giants: (readonly Piece[])[];
}

/** Throws DECODE_FAILED. Overwrites `pieces`, but for those that are packed: what is taken out of these is packed again. */
export function compactGiantJson(pieces: readonly Piece[]): CompactJson {
  const kept: Buffer[] = [];
  const giants: (readonly Piece[])[] = [];
  /** The string that is open. Null: outside of strings. */
  let string: OpenString | null = null;
  /** The next byte is escaped. */
  let escaped = false;
  for (const given of pieces) {
    const piece = textOf(given);
    let from = 0;
    for (let at = 0; at < piece.length; at++) {
      const byte = piece[at];
      if (string === null) {
        if (byte !== QUOTE) continue;
        kept.push(keptText(given, piece.subarray(from, at)));
        from = at + 1;
        string = new OpenString();
      } else if (escaped) {
        escaped = false;
      } else if (byte === BACKSLASH) {
        escaped = true;
      } else if (byte === QUOTE) {
        string.push(given, piece.subarray(from, at));
        from = at + 1;
        const giant = string.giant();
        if (giant === null) kept.push(QUOTED, ...string.text, QUOTED);
        else {
          kept.push(MARK);
          giants.push(giant);
        }
        string = null;
      }
    }
    if (string === null) kept.push(keptText(given, piece.subarray(from)));
    else string.push(given, piece.subarray(from));
  }
  if (string !== null) throw fault('a string without an end');
  return { bytes: Buffer.concat(kept), giants };
}

const QUOTED = Buffer.from([QUOTE]);

/** A view of an unpacked piece would hold all of it. */
function keptText(given: Piece, text: Buffer): Buffer {
  return isPacked(given) ? Buffer.from(text) : text;
}

/** A string from after its quote: kept as it is while it is short, without its escapes from where it is long enough to be taken out. */
class OpenString {
  text: Buffer[] = [];
  #length = 0;
  #giant: Unescaping | null = null;

  push(given: Piece, text: Buffer): void {
    this.#length += text.length;
    if (this.#giant === null && this.#length < GIANT_VALUE_BYTES_MIN) {
      this.text.push(keptText(given, text));
      return;
    }
    if (this.#giant === null) {
      this.#giant = new Unescaping();
      for (const before of this.text) this.#giant.push(before, false);
      this.text = [];
    }
    this.#giant.push(text, isPacked(given));
  }

  /** Null: it is short. */
  giant(): Piece[] | null {
    return this.#giant === null ? null : this.#giant.end();
  }
}

/** Undoes escapes in each piece, in place; one that is cut by the end of a piece is put together first. */
class Unescaping {
  #texts: Piece[] = [];
  #packer: Packer | null = null;
  #head: Buffer = NO_BYTES;

  push(piece: Buffer, packs: boolean): void {
    let at = 0;
    if (this.#head.length > 0) {
      // The escape that the last piece ended in.
      const whole = Buffer.concat([this.#head, piece.subarray(0, ESCAPE_BYTES_MAX)]);
      const length = escapeLength(whole, 0, whole.length);
      if (length === null) {
        if (piece.length > ESCAPE_BYTES_MAX) throw fault('an escape without an end');
        this.#head = whole;
        return;
      }
      at = length - this.#head.length;
      unescapeOne(whole, 0, length, 0);
      this.#add(whole.subarray(0, 1), packs);
      this.#head = NO_BYTES;
    }
    const start = at;
    let to = at;
    let run = at;
    for (;;) {
      const next = piece.indexOf(BACKSLASH, run);
      const stop = next < 0 ? piece.length : next;
      if (to !== run) piece.copyWithin(to, run, stop);
      to += stop - run;
      if (next < 0) break;
      const length = escapeLength(piece, next, piece.length);
      if (length === null) {
        this.#head = Buffer.from(piece.subarray(next));
        break;
      }
      unescapeOne(piece, next, piece.length, to);
      to++;
      run = next + length;
    }
    if (to > start) this.#add(piece.subarray(start, to), packs);
  }

  end(): Piece[] {
    if (this.#head.length > 0) throw fault('an escape without an end');
    this.#endPacked();
    return this.#texts;
  }

  #add(text: Buffer, packs: boolean): void {
    if (packs) {
      this.#packer ??= new Packer();
      this.#packer.push(text);
      return;
    }
    this.#endPacked();
    this.#texts.push(text);
  }

  #endPacked(): void {
    for (const piece of this.#packer?.end() ?? []) this.#texts.push(piece);
    this.#packer = null;
  }
}

/** Null: it goes on after `end`. */
function escapeLength(bytes: Buffer, at: number, end: number): number | null {
  if (at + 1 >= end) return null;
  const length = bytes[at + 1] === 0x75 /* u */ ? ESCAPE_BYTES_MAX : 2;
  return at + length <= end ? length : null;
}

function fault(reason: string): SluiceError {
  return new SluiceError('DECODE_FAILED', { offset: 0, message: 'wal2json', reason });
}
