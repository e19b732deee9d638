/**
 * A cursor over one message of JSON as PostgreSQL's escape_json writes it: finds names and values by their bytes and makes nothing of them (I6).
 * Bare and strict: what does not fit is DECODE_FAILED with the offset.
 *
 * A string's escapes are undone where it lies (`unescape`): they only ever shrink, and the message is nobody else's.
 */
import { SluiceError } from '../errors.ts';

/** Stands, bare, for a string that was taken out of a giant message: outside of strings no JSON has it, and inside it is escaped. */
export const GIANT_MARK = 0x01;

export const JSON_KIND = { null: 0, bare: 1, string: 2, giant: 3 } as const;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const NULL = Buffer.from('null');
/** What stands for the letter after a backslash; 0: no such escape. */
const ESCAPED = new Uint8Array(128);
for (const [letter, code] of Object.entries({ '"': 0x22, '\\': 0x5c, '/': 0x2f, b: 8, f: 12, n: 10, r: 13, t: 9 })) {
  ESCAPED[letter.charCodeAt(0)] = code;
}

export class JsonBytes {
  bytes: Buffer = Buffer.alloc(0);
  at = 0;
  end = 0;
  #start = 0;
  /** Of the last scalar: a JSON_KIND, and where its text lies (of a string: without the quotes). */
  kind: number = JSON_KIND.null;
  from = 0;
  to = 0;
  /** The string has escapes. */
  escaped = false;
  /** The last giant's number, and how many have been read. */
  giant = 0;
  giants = 0;

  over(bytes: Buffer, start: number, end: number): void {
    this.bytes = bytes;
    this.#start = start;
    this.at = start;
    this.end = end;
    this.giants = 0;
  }

  /** True, and past it: `byte` comes next. */
  take(byte: number): boolean {
    if (this.at >= this.end || this.bytes[this.at] !== byte) return false;
    this.at++;
    return true;
  }

  expect(byte: number): void {
    if (!this.take(byte)) throw this.fault(`not ${JSON.stringify(String.fromCharCode(byte))}`);
  }

  /** True, and past it: `text` comes next. */
  takeText(text: Buffer): boolean {
    const stop = this.at + text.length;
    if (stop > this.end || this.bytes.compare(text, 0, text.length, this.at, stop) !== 0) return false;
    this.at = stop;
    return true;
  }

  expectText(text: Buffer): void {
    if (!this.takeText(text)) throw this.fault(`not ${text.toString()}`);
  }

  /** A string, a number, a boolean, null, or a giant's mark. */
  scalar(): void {
    const byte = this.bytes[this.at];
    if (byte === QUOTE) return this.string();
    this.escaped = false;
    this.from = this.at;
    if (byte === GIANT_MARK) {
      this.at++;
      this.to = this.at;
      this.kind = JSON_KIND.giant;
      this.giant = this.giants++;
      return;
    }
    while (this.at < this.end && isBare(this.bytes[this.at] as number)) this.at++;
    if (this.at === this.from) throw this.fault('no value');
    this.to = this.at;
    const isNull = this.to - this.from === 4 && this.bytes.compare(NULL, 0, 4, this.from, this.to) === 0;
    this.kind = isNull ? JSON_KIND.null : JSON_KIND.bare;
  }

  string(): void {
    const { bytes, end } = this;
    this.expect(QUOTE);
    this.from = this.at;
    this.escaped = false;
    let at = this.at;
    while (at < end) {
      const byte = bytes[at];
      if (byte === QUOTE) {
        this.to = at;
        this.at = at + 1;
        this.kind = JSON_KIND.string;
        return;
      }
      if (byte === BACKSLASH) {
        this.escaped = true;
        at++;
      }
      at++;
    }
    throw this.fault('a string without an end');
  }

  /** The string that comes next, as text: of names, never of values. */
  name(): string {
    this.string();
    const raw = this.bytes.subarray(this.from, this.to);
    if (!this.escaped) return raw.toString();
    const copy = Buffer.from(raw);
    return copy.toString('utf8', 0, unescape(copy, 0, copy.length));
  }

  integer(): number {
    this.scalar();
    const value = this.kind === JSON_KIND.bare ? Number(this.bytes.toString('latin1', this.from, this.to)) : Number.NaN;
    if (!Number.isSafeInteger(value)) throw this.fault('no integer');
    return value;
  }

  /** Passes over any value. */
  skip(): void {
    let depth = 0;
    do {
      const byte = this.bytes[this.at];
      if (byte === 0x7b || byte === 0x5b) {
        depth++;
        this.at++;
      } else if (byte === 0x7d || byte === 0x5d) {
        depth--;
        this.at++;
      } else if (byte === COMMA || byte === 0x3a) {
        this.at++;
      } else {
        this.scalar();
      }
    } while (depth > 0 && this.at < this.end);
    if (depth !== 0) throw this.fault('an end that is missing');
  }

  /** Passes over everything before `text`, which must come. */
  skipTo(text: Buffer): void {
    const found = this.bytes.indexOf(text, this.at);
    if (found < 0 || found + text.length > this.end) throw this.fault(`no ${text.toString()}`);
    this.at = found;
  }

  finish(): void {
    if (this.at !== this.end) throw this.fault(`${this.end - this.at} bytes too many`);
  }

  fault(reason: string): SluiceError {
    return new SluiceError('DECODE_FAILED', { offset: this.at - this.#start, message: 'wal2json', reason });
  }
}

/** Undoes the escapes of `[start, end)` in place; returns where the text ends now. */
export function unescape(bytes: Buffer, start: number, end: number): number {
  let to = bytes.indexOf(BACKSLASH, start);
  if (to < 0 || to >= end) return end;
  let at = to;
  while (at < end) {
    const byte = bytes[at] as number;
    if (byte !== BACKSLASH) {
      bytes[to++] = byte;
      at++;
      continue;
    }
    const length = unescapeOne(bytes, at, end, to);
    to++;
    at += length;
  }
  return to;
}

/** Undoes the escape at `at` into one byte at `to`; returns the escape's length. escape_json writes \uXXXX for control characters only. */
export function unescapeOne(bytes: Buffer, at: number, end: number, to: number): number {
  const letter = bytes[at + 1] as number;
  if (letter === 0x75 /* u */ && at + 6 <= end) {
    const code = Number.parseInt(bytes.toString('latin1', at + 2, at + 6), 16);
    if (code < 0x80) {
      bytes[to] = code;
      return 6;
    }
  } else if (at + 2 <= end && letter < 128 && ESCAPED[letter] !== 0) {
    bytes[to] = ESCAPED[letter] as number;
    return 2;
  }
  throw new SluiceError('DECODE_FAILED', {
    offset: at,
    message: 'wal2json',
    reason: 'an escape that PostgreSQL does not write',
  });
}

/** Of a number, true, false or null. */
function isBare(byte: number): boolean {
  return byte !== COMMA && byte !== 0x7d && byte !== 0x5d && byte !== QUOTE && byte > 0x20;
}
