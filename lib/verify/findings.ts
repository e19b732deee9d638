/**
 * What is found of one stream, counted, with a bounded number of keys to show. Keys only: no other value of a row is kept. Pure.
 */
import type { NotCompared } from './compared.ts';

/** Keys that a report shows of each kind. */
export const KEYS_SHOWN_MAX = 20;

/**
 * - differing: the row is on both sides, and not the same
 * - missing:   the target lacks it
 * - extra:     the source does not have it
 */
export const FINDING_KINDS = ['differing', 'missing', 'extra'] as const;
export type FindingKind = (typeof FINDING_KINDS)[number];

/** Rows, and the first few of their keys: the texts of the key's columns. Empty where rows have no key. */
export interface Found {
  readonly rows: number;
  readonly keys: readonly (readonly string[])[];
}

export class Tally {
  #rows = 0;
  readonly #keys: (readonly string[])[] = [];

  add(key: readonly string[] | null, rows = 1): void {
    this.#rows += rows;
    if (key !== null && this.#keys.length < KEYS_SHOWN_MAX) this.#keys.push(key);
  }

  get found(): Found {
    return { rows: this.#rows, keys: this.#keys };
  }
}

/**
 * - equal:     every row that could be compared is the same
 * - different: findings
 * - repaired:  there were findings; they were brought again, and are the same now
 * - undecided: no findings, and keys that changed whenever they were looked at
 * - skipped:   not compared, for a reason that is no fault of its rows
 * - failed:    could not be compared, or not to the end
 */
export type Outcome = 'equal' | 'different' | 'repaired' | 'undecided' | 'skipped' | 'failed';

export interface StreamFindings extends Readonly<Record<FindingKind, Found>> {
  readonly stream: string;
  /** `schema.table`, on the source. */
  readonly table: string;
  readonly target: string;
  readonly outcome: Outcome;
  /** Why it was skipped, or what is to be known of the comparison, as sentences. */
  readonly remarks: readonly string[];
  readonly error: { readonly code: string; readonly message: string; readonly remedy: string } | null;
  /** Rows of the source, as they were read. */
  readonly rows: number;
  /** Names of the key's columns; empty: rows were compared as a bag. */
  readonly key: readonly string[];
  /** Keys that changed whenever they were looked at; or, with `failed`, that the chain did not come past. */
  readonly undecided: Found;
  /** Rows that the target keeps after they were deleted on the source, as the file says: no findings. */
  readonly kept: number;
  /** Findings that were mended. */
  readonly repaired: number;
  readonly not_compared: readonly { readonly column: string; readonly why: NotCompared }[];
}
