/**
 * Lines of COPY TO STDOUT against their stream's schema, between the source's connection and the stage: those that are valid go on as they came (I6), the others
 * are put aside, or end the reading. After the masks (projection/lines.ts), so that what is checked is what would be staged.
 *
 * A line is held until its end has come, for it may have to be left out: one of more than ROW_BYTES_MAX cannot be checked (I8).
 * https://www.postgresql.org/docs/current/sql-copy.html (Text Format)
 */
import { Transform, type TransformCallback } from 'node:stream';
import { NEWLINE, TAB } from '../cut/copy-text.ts';
import { copiedText } from './copied-text.ts';
import type { RejectWriter } from './reject-writer.ts';
import { type RowKey, rejectedLine, shownRow } from './rejected.ts';
import { ROW_BYTES_MAX, type RowCheck } from './row-check.ts';
import { type StreamChecks, TOO_LARGE } from './stream-checks.ts';

export class CheckingLines extends Transform {
  /** Keys of the lines that were left out; no more than LEFT_OUT_MAX of them. */
  readonly leftOut: RowKey[] = [];
  #checks: StreamChecks;
  #check: RowCheck;
  #rejects: RejectWriter;
  /** Where the columns that must be read begin and end. */
  #ends: number[] = [];
  /** Of a line whose end has not come. */
  #held: Buffer[] = [];
  #held_bytes = 0;

  constructor(checks: StreamChecks, check: RowCheck, rejects: RejectWriter) {
    super();
    this.#checks = checks;
    this.#check = check;
    this.#rejects = rejects;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    void this.#answer(chunk, done);
  }

  async #answer(chunk: Buffer, done: TransformCallback): Promise<void> {
    try {
      await this.#take(chunk);
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    done();
  }

  override _flush(done: TransformCallback): void {
    done(this.#held.length === 0 ? null : new RangeError('the lines end in the middle of one'));
  }

  async #take(chunk: Buffer): Promise<void> {
    let kept = 0; // Where what is handed on begins.
    let at = 0; // Where the line begins.
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, at)) {
      const rest = chunk.subarray(at, end);
      const line = this.#held.length === 0 ? rest : Buffer.concat([...this.#held, rest]);
      const isValid = await this.#isValid(line);
      if (isValid) {
        for (const piece of this.#held) this.push(piece);
      } else {
        if (at > kept) this.push(chunk.subarray(kept, at));
        kept = end + 1;
      }
      this.#held = [];
      this.#held_bytes = 0;
      at = end + 1;
    }
    if (at > kept) this.push(chunk.subarray(kept, at));
    if (at === chunk.length) return;
    this.#held.push(chunk.subarray(at));
    this.#held_bytes += chunk.length - at;
    if (this.#held_bytes > ROW_BYTES_MAX) throw this.#checks.invalid({ columns: [], values: [] }, [TOO_LARGE]);
  }

  async #isValid(line: Buffer): Promise<boolean> {
    this.#divide(line);
    const { shape, reads } = this.#check;
    const row = shape.columns.map((_, i) => this.#text(line, i, reads[i] === true));
    const faults = this.#check.faults(row);
    if (faults.length === 0) return true;
    const key = {
      columns: shape.key.map((i) => shape.columns[i]?.name ?? ''),
      values: shape.key.map((i) => this.#text(line, i, true) ?? ''),
    };
    if (!this.#checks.rejects(shape)) throw this.#checks.invalid(key, faults);
    if (this.leftOut.length < LEFT_OUT_MAX) this.leftOut.push(key);
    const names = shape.columns.map(({ name }) => name);
    const whole = names.map((_, i) => this.#text(line, i, true));
    const { stream } = this.#checks;
    await this.#rejects.add(
      rejectedLine({ stream, operation: 'copy', key, committed_at: null, faults, row: shownRow(names, whole) }),
    );
    return false;
  }

  #divide(line: Buffer): void {
    this.#ends = [];
    for (let at = line.indexOf(TAB); at >= 0; at = line.indexOf(TAB, at + 1)) this.#ends.push(at);
    this.#ends.push(line.length);
  }

  #text(line: Buffer, column: number, isRead: boolean): string | null {
    const start = column === 0 ? 0 : (this.#ends[column - 1] as number) + 1;
    return copiedText(line, start, this.#ends[column] as number, isRead);
  }
}

/** A chunk that is given by its keys has fewer (lib/epoch/request.ts); of others nobody asks. */
const LEFT_OUT_MAX = 1_000;
