/**
 * The end of a deletion's line: when it was committed, to the microsecond.
 */

/** `\t2026-01-02 03:04:05.678901+00\n`, made once for the deletions of one transaction. */
export class DeletionTimes {
  #of_us = Number.NaN;
  #tail: Buffer = Buffer.alloc(0);

  tail(at_us: number): Buffer {
    if (at_us !== this.#of_us) {
      this.#of_us = at_us;
      this.#tail = Buffer.from(`\t${timestampText(at_us)}\n`);
    }
    return this.#tail;
  }
}

/** Microseconds since the Unix epoch as PostgreSQL reads a timestamptz. */
export function timestampText(at_us: number): string {
  const ms = Math.floor(at_us / 1000);
  const micros = String(at_us - ms * 1000).padStart(3, '0');
  return new Date(ms).toISOString().replace('T', ' ').replace('Z', `${micros}+00`);
}
