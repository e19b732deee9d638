/**
 * What stands for a value that is hashed: SHA-256 of the salt and PostgreSQL's text of the value (its output function, under PINNED_SETTINGS), in
 * hexadecimal. The same for the log and for copies, so that the same value is the same hash wherever it is met.
 */
import { createHash, type Hash } from 'node:crypto';

/** A SHA-256 in hexadecimal. */
export const HASH_CHARACTERS = 64;

export class Hasher {
  readonly #salted: Hash;

  constructor(salt: string) {
    this.#salted = createHash('sha256').update(salt, 'utf8');
  }

  /** For a value that comes in pieces. */
  begin(): Hash {
    return this.#salted.copy();
  }

  hash(text: Buffer | string): string {
    return this.begin().update(text).digest('hex');
  }
}
