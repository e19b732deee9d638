/**
 * Finds the few rows of many that the target refuses: O(k log n) tries for k of n. Pure; what a try is, the caller knows (divert.ts, refill.ts).
 *
 * A row may be refused only because another is not there yet (a foreign key to its own table, a value that changes hands). So a half that failed is tried again once
 * something of the other half is in.
 */

/** Applies rows [from, to) as one set. Null: they are in. What is refused leaves nothing behind. */
export type Try<Refusal> = (from: number, to: number) => Promise<Refusal | null>;

export interface Search<Refusal> {
  readonly attempt: Try<Refusal>;
  /** A single row is refused. Throws to end the search. */
  readonly refuse: (row: number, refusal: Refusal) => void;
}

/** All of [from, to) is applied but for what is refused. */
export async function applyAllBut<Refusal>(search: Search<Refusal>, from: number, to: number): Promise<void> {
  if (from >= to) return;
  const refusal = await search.attempt(from, to);
  if (refusal !== null) await divide(search, from, to, refusal);
}

/** Of rows that were refused together. Resolves with whether any of them is in now. */
async function divide<Refusal>(search: Search<Refusal>, from: number, to: number, refusal: Refusal): Promise<boolean> {
  if (to - from === 1) {
    search.refuse(from, refusal);
    return false;
  }
  const middle = from + Math.floor((to - from) / 2);
  const left = await search.attempt(from, middle);
  const right = await search.attempt(middle, to);
  if (right === null) {
    const again = left && (await search.attempt(from, middle));
    if (again !== null) await divide(search, from, middle, again);
    return true;
  }
  if (left === null || (await divide(search, from, middle, left))) {
    const again = await search.attempt(middle, to);
    if (again !== null) await divide(search, middle, to, again);
    return true;
  }
  return await divide(search, middle, to, right);
}
