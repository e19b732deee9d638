/**
 * How an object is divided into parts: what has been appended and not been sent, and how large the next part is.
 *
 * S3 takes 10,000 parts of 5 MiB to 5 GiB (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html). Parts grow with their number,
 * so that a small object is sent early and a large one still fits, while memory stays a small multiple of the largest part (I8).
 */
const MIB = 1024 * 1024;

export const PARTS_MAX = 10_000;
export const PART_BYTES_FIRST = 8 * MIB;
export const PART_BYTES_LAST = 32 * MIB;
/** Parts of one size before the size doubles. */
const PARTS_PER_SIZE = 2_500;

/** Bytes of part `number` (from 1): 8 MiB for the first 2500, then 16, then 32. */
export function partBytes(number: number): number {
  return Math.min(PART_BYTES_FIRST * 2 ** Math.floor((number - 1) / PARTS_PER_SIZE), PART_BYTES_LAST);
}

/** About 215 GiB. */
export const PARTS_TOTAL_BYTES_MAX = PARTS_PER_SIZE * (8 + 16 + 2 * 32) * MIB;

/** What has been appended and not taken. Buffers are kept as they are; a part that lies within one buffer is not copied. */
export class PendingParts {
  #buffers: Buffer[] = [];
  #bytes = 0;
  /** Parts taken so far: the number of the part that was taken last. */
  taken = 0;

  push(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#buffers.push(bytes);
    this.#bytes += bytes.length;
  }

  /** The next part when it is full and something follows it; else null. */
  full(): Buffer | null {
    const size = partBytes(this.taken + 1);
    return this.#bytes > size ? this.#take(size) : null;
  }

  /** All that is left, as the last part. */
  rest(): Buffer {
    return this.#take(this.#bytes);
  }

  #take(count: number): Buffer {
    const parts: Buffer[] = [];
    let used = 0;
    for (let missing = count; missing > 0; used += 1) {
      const buffer = this.#buffers[used];
      if (buffer === undefined) throw new RangeError(`${missing} of ${count} bytes are not there`);
      parts.push(buffer.subarray(0, missing));
      if (buffer.length > missing) {
        this.#buffers[used] = buffer.subarray(missing);
        break;
      }
      missing -= buffer.length;
    }
    this.#buffers = this.#buffers.slice(used);
    this.#bytes -= count;
    this.taken += 1;
    const [first] = parts;
    return parts.length === 1 && first !== undefined ? first : Buffer.concat(parts, count);
  }
}
