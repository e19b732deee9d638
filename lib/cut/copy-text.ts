/**
 * COPY text from bytes: the escapes of https://www.postgresql.org/docs/current/sql-copy.html (Text Format).
 *
 * Only what COPY would misread is escaped: backslash, newline, carriage return, and the delimiter, tab. Everything else travels as it came, so
 * that text in is text out (I6). In a line of such text a raw tab is always a delimiter and a raw newline always a row's end: lines can be cut
 * and merged by these bytes alone.
 */
import { type Tuple, VALUE } from '../change.ts';
import { isPacked, type Piece } from '../piece.ts';

export const TAB = 0x09;
export const NEWLINE = 0x0a;
const BACKSLASH = 0x5c;
const NULL_LETTER = 0x4e; // N
const ZERO = 0x30;
export const ASCII_MAX = 0x7f;
/** Of a single byte that is no text, with both backslashes. */
export const OCTAL_BYTES = 5;

/** Letter that stands for a byte after a backslash; 0: the byte stands for itself. */
const ESCAPES = new Uint8Array(256);
ESCAPES[0x5c] = 0x5c;
ESCAPES[0x0a] = 0x6e; // n
ESCAPES[0x0d] = 0x72; // r
ESCAPES[0x09] = 0x74; // t

/** Up to here a loop over the bytes is faster than a native copy of the runs between escapes. */
const SHORT_BYTES_MAX = 48;
/** Up to here the room for a tuple is reckoned by its worst case; beyond, its escapes are counted, for the worst case is twice as large. */
const WORST_CASE_BYTES_MAX = 256 * 1024;

/** Writes column `i` of the tuple at `at`; returns the position after it. An unchanged value has no text: the caller leaves it out. */
export function writeValue(out: Buffer, at: number, tuple: Tuple, i: number): number {
  if (tuple.kind[i] !== VALUE.text) {
    out[at] = BACKSLASH;
    out[at + 1] = NULL_LETTER;
    return at + 2;
  }
  const [start, end] = [tuple.start[i] as number, tuple.end[i] as number];
  if (end - start === 1 && (tuple.bytes[start] as number) > ASCII_MAX) {
    return writeOctal(out, at, tuple.bytes[start] as number);
  }
  return writeEscaped(out, at, tuple.bytes, start, end);
}

/**
 * A single byte that is no text in UTF-8 is a `"char"` of a server before 16, which prints it as it is. Written as later ones print it and read it, `\ooo`
 * (release notes of 16; charout, charin).
 */
function writeOctal(out: Buffer, at: number, byte: number): number {
  out[at] = BACKSLASH;
  out[at + 1] = BACKSLASH;
  out[at + 2] = ZERO + (byte >> 6);
  out[at + 3] = ZERO + ((byte >> 3) & 7);
  out[at + 4] = ZERO + (byte & 7);
  return at + OCTAL_BYTES;
}

export function writeEscaped(out: Buffer, at: number, bytes: Buffer, start: number, end: number): number {
  let position = at;
  if (end - start <= SHORT_BYTES_MAX) {
    for (let i = start; i < end; i++) {
      const byte = bytes[i] as number;
      const letter = ESCAPES[byte] as number;
      if (letter === 0) {
        out[position++] = byte;
      } else {
        out[position++] = BACKSLASH;
        out[position++] = letter;
      }
    }
    return position;
  }
  let run = start;
  for (let i = start; i < end; i++) {
    const letter = ESCAPES[bytes[i] as number] as number;
    if (letter === 0) continue;
    position += bytes.copy(out, position, run, i);
    out[position++] = BACKSLASH;
    out[position++] = letter;
    run = i + 1;
  }
  return position + bytes.copy(out, position, run, end);
}

/** A giant value's pieces, escaped: a piece that needs none is handed on as it is, a packed one is escaped when it is unpacked. */
export function escapedPieces(pieces: readonly Piece[]): Piece[] {
  return pieces.map((piece) => (isPacked(piece) ? piece.changed(escapedText) : escapedText(piece)));
}

function escapedText(text: Buffer): Buffer {
  let escapes = 0;
  for (let at = 0; at < text.length; at++) if ((ESCAPES[text[at] as number] as number) !== 0) escapes++;
  if (escapes === 0) return text;
  const out = Buffer.allocUnsafe(text.length + escapes);
  writeEscaped(out, 0, text, 0, text.length);
  return out;
}

/** Bytes that the tuple's columns may take as one line, delimiters and line end included. */
export function lineBytesMax(tuple: Tuple): number {
  let text = 0;
  for (let i = 0; i < tuple.count; i++) {
    if (tuple.kind[i] === VALUE.text) text += (tuple.end[i] as number) - (tuple.start[i] as number);
  }
  const around = (OCTAL_BYTES + 1) * tuple.count + 1;
  if (text <= WORST_CASE_BYTES_MAX) return 2 * text + around;
  let escapes = 0;
  for (let i = 0; i < tuple.count; i++) {
    if (tuple.kind[i] !== VALUE.text) continue;
    const end = tuple.end[i] as number;
    for (let at = tuple.start[i] as number; at < end; at++) {
      if ((ESCAPES[tuple.bytes[at] as number] as number) !== 0) escapes++;
    }
  }
  return text + escapes + around;
}

/** Position after the field that begins at `at`: of its tab, or of the line's end. */
export function fieldEnd(bytes: Buffer, at: number, lineEnd: number): number {
  let position = at;
  while (position < lineEnd) {
    const byte = bytes[position] as number;
    if (byte === TAB || byte === NEWLINE) return position;
    position++;
  }
  return position;
}
