/**
 * Where a cut's lines lie until they are staged: one buffer, filled from its start, given back whole. Allocation per cut, not per row (I8).
 */
const NO_BYTES = Buffer.alloc(0);
/** Beyond the capacity it grows in steps, for more rows may follow: each step copies it. */
const OVERGROWTH = 1.25;

export class Arena {
  readonly capacity: number;
  #bytes: Buffer = NO_BYTES;
  #used = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get bytes(): Buffer {
    return this.#bytes;
  }

  get used(): number {
    return this.#used;
  }

  /**
   * Makes room for `size` bytes after `used`. The capacity is taken with the first row: a window that finds nothing needs none. More than that is
   * taken only for a row that is larger than what is left of it.
   */
  reserve(size: number): void {
    const needed = this.#used + size;
    if (needed <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(
      Math.max(needed > this.capacity ? Math.ceil(needed * OVERGROWTH) : 0, this.capacity),
    );
    this.#bytes.copy(grown, 0, 0, this.#used);
    this.#bytes = grown;
  }

  /** Takes what was written up to `end` (a position in `bytes`). */
  commit(end: number): void {
    this.#used = end;
  }

  /** Empties it; what a giant row made it grow to is let go. */
  reset(): void {
    this.#used = 0;
    if (this.#bytes.length > this.capacity) this.#bytes = NO_BYTES;
  }
}
