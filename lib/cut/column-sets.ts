/**
 * Which columns the partial rows of a share have (I7): each different set once, by number, so that rows with the same set make one block.
 */
export interface ColumnSet {
  /** By column: 1, the rows have it. */
  readonly has: Uint8Array;
  readonly columns: readonly number[];
}

export class ColumnSets {
  #sets: ColumnSet[] = [];

  get size(): number {
    return this.#sets.length;
  }

  at(number: number): ColumnSet {
    return this.#sets[number] as ColumnSet;
  }

  /** The number of the set that `present` marks; it is copied where it is new. */
  numberOf(present: Uint8Array): number {
    const known = this.#sets.findIndex(({ has }) => has.every((flag, i) => flag === present[i]));
    if (known >= 0) return known;
    const columns: number[] = [];
    for (let i = 0; i < present.length; i++) if (present[i] === 1) columns.push(i);
    this.#sets.push({ has: Uint8Array.from(present), columns });
    return this.#sets.length - 1;
  }
}
