/**
 * Commit positions beside the rows of a fold, where `source.debug_lsn` asks for them (lib/lsn-column.ts): the text that each row written now ends with, and, by
 * entry, the position of each deletion.
 *
 * Below the fold. A table whose rows do not have them has none of this.
 */
import { formatLsn, LSN_ZERO, type Lsn, lsnOf } from '../lsn.ts';

/** `FFFFFFFF/FFFFFFFF`, and a delimiter. */
export const POSITION_BYTES_MAX = 18;

export class CommitPositions {
  #at: Lsn = LSN_ZERO;
  /** Of the transaction whose changes are folded now. */
  text: Buffer = Buffer.from(formatLsn(LSN_ZERO));
  #deleted = new BigUint64Array(32);

  get at(): Lsn {
    return this.#at;
  }

  set at(lsn: Lsn) {
    if (lsn === this.#at) return;
    this.#at = lsn;
    this.text = Buffer.from(formatLsn(lsn));
  }

  /** Entry `index` was deleted by this transaction. */
  noteDeleted(index: number): void {
    if (index >= this.#deleted.length) {
      const grown = new BigUint64Array(Math.max(index + 1, this.#deleted.length * 2));
      grown.set(this.#deleted);
      this.#deleted = grown;
    }
    this.#deleted[index] = this.#at;
  }

  /** Where entry `index` was deleted last. */
  deletedAt(index: number): Lsn {
    return lsnOf(this.#deleted[index] ?? LSN_ZERO);
  }
}
