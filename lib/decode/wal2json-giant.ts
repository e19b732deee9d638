/**
 * A message of megabytes, made small, as decode/giant.ts does for pgoutput: its long strings are taken out, as the pieces in which they arrived, their
 * escapes undone where they lie, and a mark stands for each. So a row of 100 MB is in memory once (I8).
 *
 * Strings are found by their quotes alone. The one text that is not always JSON, a type's quoted name, has its quotes in pairs as well.
 */
import { SluiceError } from '../errors.ts';
import { GIANT_MARK, unescapeOne } from './json-bytes.ts';

/** Strings from here on are taken out. */
const GIANT_VALUE_BYTES_MIN = 64 * 1024;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** \uXXXX */
const ESCAPE_BYTES_MAX = 6;
const MARK = Buffer.from([GIANT_MARK]);

export interface CompactJson {
  readonly bytes: Buffer;
  /** The strings taken out, without quotes and escapes, in the order of the message. */
  readonly giants: (readonly Buffer[])[];
}

/** Throws DECODE_FAILED. Overwrites `pieces`. */
export function compactGiantJson(pieces: readonly Buffer[]): CompactJson {
  const kept: Buffer[] = [];
  const giants: (readonly Buffer[])[] = [];
  /** Of the string that is open: its pieces, from after its quote. Null: outside of strings. */
  let string: Buffer[] | null = null;
  let length = 0;
  /** The next byte is escaped. */
  let escaped = false;
  for (const piece of pieces) {
    let from = 0;
    for (let at = 0; at < piece.length; at++) {
      const byte = piece[at];
      if (string === null) {
        if (byte !== QUOTE) continue;
        kept.push(piece.subarray(from, at));
        from = at + 1;
        string = [];
        length = 0;
      } else if (escaped) {
        escaped = false;
      } else if (byte === BACKSLASH) {
        escaped = true;
      } else if (byte === QUOTE) {
        string.push(piece.subarray(from, at));
        length += at - from;
        from = at + 1;
        if (length >= GIANT_VALUE_BYTES_MIN) {
          kept.push(MARK);
          giants.push(unescapePieces(string));
        } else {
          kept.push(QUOTED, ...string, QUOTED);
        }
        string = null;
      }
    }
    if (string === null) {
      kept.push(piece.subarray(from));
    } else {
      string.push(piece.subarray(from));
      length += piece.length - from;
    }
  }
  if (string !== null) throw fault('a string without an end');
  return { bytes: Buffer.concat(kept), giants };
}

const QUOTED = Buffer.from([QUOTE]);

/** Undoes escapes in each piece, in place; one that is cut by the end of a piece is put together first. */
function unescapePieces(pieces: readonly Buffer[]): Buffer[] {
  const texts: Buffer[] = [];
  let head: Buffer = Buffer.alloc(0);
  for (const [i, piece] of pieces.entries()) {
    let at = 0;
    if (head.length > 0) {
      // The escape that the last piece ended in.
      const whole = Buffer.concat([head, piece.subarray(0, ESCAPE_BYTES_MAX)]);
      const one = Buffer.alloc(1);
      const length = escapeLength(whole, 0, whole.length);
      if (length === null) {
        head = whole;
        if (piece.length > ESCAPE_BYTES_MAX || i === pieces.length - 1) throw fault('an escape without an end');
        continue;
      }
      const text = Buffer.from(whole.subarray(0, length));
      unescapeOne(text, 0, length, 0);
      text.copy(one, 0, 0, 1);
      texts.push(one);
      at = length - head.length;
      head = Buffer.alloc(0);
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
        head = Buffer.from(piece.subarray(next));
        break;
      }
      unescapeOne(piece, next, piece.length, to);
      to++;
      run = next + length;
    }
    if (to > start) texts.push(piece.subarray(start, to));
  }
  if (head.length > 0) throw fault('an escape without an end');
  return texts;
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
