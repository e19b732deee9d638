/**
 * The bytes of one range of a staged object, taken in exact counts. Pulls: nothing is read ahead of what is asked for but the piece that
 * the stage's stream handed over. Ends that come too early are STAGE_CORRUPT.
 */
import type { Readable } from 'node:stream';
import { SluiceError } from '../errors.ts';

export class RangeBytes {
  readonly #readable: Readable;
  readonly #pieces: AsyncIterator<Buffer>;
  readonly #object: string;
  readonly #bytes: number;
  #piece: Buffer = Buffer.alloc(0);
  #taken = 0;

  constructor(readable: Readable, object: string, bytes: number) {
    this.#readable = readable;
    this.#pieces = readable[Symbol.asyncIterator]();
    this.#object = object;
    this.#bytes = bytes;
  }

  /** Bytes of the range that have not been taken. */
  get left(): number {
    return this.#bytes - this.#taken;
  }

  /** Bytes taken: the offset in the range of what is taken next. */
  get position(): number {
    return this.#taken;
  }

  corrupt(reason: string): SluiceError {
    return new SluiceError('STAGE_CORRUPT', { object: this.#object, reason });
  }

  /** Exactly `count` bytes; without a copy when they came in one piece. */
  async take(count: number): Promise<Buffer> {
    if (count > this.left) throw this.corrupt(`${count} bytes are due at byte ${this.#taken}, ${this.left} are left`);
    const parts: Buffer[] = [];
    for (let missing = count; missing > 0; ) {
      if (this.#piece.length === 0) await this.#pull();
      const part = this.#piece.subarray(0, missing);
      this.#piece = this.#piece.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    this.#taken += count;
    const [first] = parts;
    return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts, count);
  }

  /** Gives the stream back. Safe to call twice. */
  close(): void {
    this.#readable.destroy();
  }

  async #pull(): Promise<void> {
    const { done, value } = await this.#pieces.next();
    if (done) throw this.corrupt(`it ends before byte ${this.#bytes} of its range`);
    this.#piece = value;
  }
}
