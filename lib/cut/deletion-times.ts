/**
 * The end of a deletion's line: when it was committed, to the microsecond.
 */
import { formatLsn, type Lsn } from '../lsn.ts';

/** `\t2026-01-02 03:04:05.678901+00\n`, made once for the deletions of one transaction. */
export class DeletionTimes {
  #of_us = Number.NaN;
  #lsn: Lsn | null = null;
  #tail: Buffer = Buffer.alloc(0);

  /** `lsn`: the position of its commit, before the time, where rows have that (lib/lsn-column.ts). */
  tail(at_us: number, lsn: Lsn | null = null): Buffer {
    if (at_us !== this.#of_us || lsn !== this.#lsn) {
      this.#of_us = at_us;
      this.#lsn = lsn;
      this.#tail = Buffer.from(`${lsn === null ? '' : `\t${formatLsn(lsn)}`}\t${timestampText(at_us)}\n`);
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
