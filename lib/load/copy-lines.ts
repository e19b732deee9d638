/**
 * COPY text as lines, in batches of a bounded size: for rows that are looked at one by one because some of them are refused (divert.ts). In text format a newline
 * ends a line and nothing else (https://www.postgresql.org/docs/current/sql-copy.html), so they are cut without reading values.
 */
import type { Readable } from 'node:stream';
import { NEWLINE, TAB } from '../cut/copy-text.ts';
import { asSluiceError, SluiceError } from '../errors.ts';
import { copiedText } from '../validation/copied-text.ts';

/** The text of a block of the log is hardly more (PART_TEXT_BYTES_MAX), so that it is one batch; a row that is larger is a batch of its own. */
const BATCH_BYTES_MAX = 12 * 1024 * 1024;

export class Lines {
  readonly text: Buffer;
  /** Of each line: where it begins. One more at the end: where the text ends. */
  readonly #starts: readonly number[];

  /** `text` ends with a newline, or is empty. */
  constructor(text: Buffer) {
    this.text = text;
    const starts = [0];
    for (let end = text.indexOf(NEWLINE); end >= 0; end = text.indexOf(NEWLINE, end + 1)) starts.push(end + 1);
    this.#starts = starts;
  }

  get count(): number {
    return this.#starts.length - 1;
  }

  /** Lines [from, to) as they came. */
  slice(from: number, to: number): Buffer {
    return this.text.subarray(this.#starts[from], this.#starts[to]);
  }

  /** The fields of a line; null: NULL. */
  fields(line: number): (string | null)[] {
    return this.raw(line).map((field) => copiedText(field, 0, field.length, true));
  }

  /** As they came. */
  raw(line: number): Buffer[] {
    const bytes = this.slice(line, line + 1);
    const fields: Buffer[] = [];
    let start = 0;
    for (let end = bytes.indexOf(TAB); end >= 0; end = bytes.indexOf(TAB, start)) {
      fields.push(bytes.subarray(start, end));
      start = end + 1;
    }
    fields.push(bytes.subarray(start, bytes.length - 1));
    return fields;
  }
}

/** Throws what the source throws, and STAGE_CORRUPT where it ends in the middle of a line. */
export async function* batchesOf(stream: string, source: Readable): AsyncGenerator<Lines, void, undefined> {
  let pieces: Buffer[] = [];
  let bytes = 0;
  let hasLine = false;
  try {
    for await (const piece of source as AsyncIterable<Buffer>) {
      pieces.push(piece);
      bytes += piece.length;
      hasLine ||= piece.includes(NEWLINE);
      if (bytes < BATCH_BYTES_MAX || !hasLine) continue;
      const text = Buffer.concat(pieces);
      const end = text.lastIndexOf(NEWLINE) + 1;
      yield new Lines(text.subarray(0, end));
      pieces = [text.subarray(end)];
      bytes = text.length - end;
      hasLine = false;
    }
  } catch (error) {
    throw asSluiceError(error);
  }
  const text = Buffer.concat(pieces);
  if (text.length === 0) return;
  if (text.at(-1) !== NEWLINE) {
    throw new SluiceError('STAGE_CORRUPT', { object: `(a segment of ${stream})`, stream, reason: 'a line has no end' });
  }
  yield new Lines(text);
}
