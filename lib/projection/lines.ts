/**
 * Lines of COPY TO STDOUT, with hashes in place of the values of some columns. Runs between the source's connection and the stage, on text of any
 * chunking: a value is hashed as it passes, and never held (I8). What is not hashed is handed on as it came (I6).
 *
 * Text format (https://www.postgresql.org/docs/current/sql-copy.html): a raw tab is a delimiter and a raw newline a row's end, always; \N is NULL; COPY TO writes
 * \b \f \n \r \t \v and \\, and no other escapes.
 */

import type { Hash } from 'node:crypto';
import { Transform, type TransformCallback } from 'node:stream';
import { NEWLINE, TAB } from '../cut/copy-text.ts';
import { Hasher } from './hash.ts';

const BACKSLASH = 0x5c;
const NULL_LETTER = 0x4e; // N

/** What an escape stands for, by its letter. */
const ESCAPED: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v', '\\': '\\' };
const LETTERS = new Map(Object.entries(ESCAPED).map(([letter, text]) => [letter.charCodeAt(0), Buffer.from(text)]));

export class HashingLines extends Transform {
  #isHashed: readonly boolean[];
  #hasher: Hasher;
  #column = 0;
  /** Of the value that is being read, where it is hashed; null: nothing of it has been read. */
  #hash: Hash | null = null;
  /** The last byte was a backslash. */
  #isEscaped = false;
  #isNull = false;

  /** `hashed`: by the lines' columns, in order. */
  constructor(hashed: readonly boolean[], salt: string) {
    super();
    this.#isHashed = hashed;
    this.#hasher = new Hasher(salt);
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    try {
      const out: Buffer[] = [];
      let kept = 0; // Where what is handed on as it is begins.
      let at = 0;
      while (at < chunk.length) {
        if (!this.#isHashed[this.#column]) {
          at = this.#skip(chunk, at);
          continue;
        }
        if (at > kept) out.push(chunk.subarray(kept, at));
        at = this.#read(chunk, at, out);
        kept = at;
      }
      if (chunk.length > kept) out.push(chunk.subarray(kept));
      done(null, out.length === 1 ? out[0] : Buffer.concat(out));
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
    }
  }

  override _flush(done: TransformCallback): void {
    done(this.#column === 0 && this.#hash === null ? null : new RangeError('the lines end in the middle of one'));
  }

  /** Past the value that is not hashed, and its delimiter. */
  #skip(chunk: Buffer, from: number): number {
    for (let at = from; at < chunk.length; at++) {
      const byte = chunk[at];
      if (byte === TAB) {
        this.#column++;
        return at + 1;
      }
      if (byte === NEWLINE) {
        this.#column = 0;
        return at + 1;
      }
    }
    return chunk.length;
  }

  /** Past what the chunk has of a value that is hashed; at its end, its hash and its delimiter are put out. */
  #read(chunk: Buffer, from: number, out: Buffer[]): number {
    let run = from;
    for (let at = from; at < chunk.length; at++) {
      const byte = chunk[at] as number;
      if (this.#isEscaped) {
        this.#isEscaped = false;
        if (byte === NULL_LETTER) {
          this.#isNull = true;
        } else {
          const text = LETTERS.get(byte);
          if (text === undefined) throw new RangeError('COPY wrote an escape that it does not have');
          this.#update(text);
        }
        run = at + 1;
      } else if (byte === BACKSLASH) {
        if (at > run) this.#update(chunk.subarray(run, at));
        this.#isEscaped = true;
        run = at + 1;
      } else if (byte === TAB || byte === NEWLINE) {
        if (at > run) this.#update(chunk.subarray(run, at));
        out.push(this.#end(), chunk.subarray(at, at + 1));
        this.#column = byte === TAB ? this.#column + 1 : 0;
        return at + 1;
      }
    }
    if (!this.#isEscaped && chunk.length > run) this.#update(chunk.subarray(run));
    return chunk.length;
  }

  #update(text: Buffer): void {
    this.#hash ??= this.#hasher.begin();
    this.#hash.update(text);
  }

  #end(): Buffer {
    const isNull = this.#isNull;
    const hash = this.#hash ?? this.#hasher.begin();
    this.#hash = null;
    this.#isNull = false;
    return isNull ? Buffer.from('\\N') : Buffer.from(hash.digest('hex'));
  }
}
