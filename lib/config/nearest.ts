/**
 * The known name that somebody most likely meant.
 */

/** A third of a name's letters may be wrong, and at least two. */
const distanceMax = (name: string): number => Math.max(2, Math.floor(name.length / 3));
/** Beyond this length a key is no misspelt option, and comparing would only cost time. */
const NAME_MAX = 64;

/** The nearest of `names` by edit distance (a swap of neighbours counts one), else the only one that holds `name` as a word; null: none. */
export function nearestName(name: string, names: readonly string[]): string | null {
  if (name.length > NAME_MAX) return null;
  const plain = normal(name);
  let best: string | null = null;
  let bestDistance = distanceMax(plain) + 1;
  for (const candidate of names) {
    const distance = editDistance(plain, normal(candidate));
    // As many edits as letters would turn anything into anything.
    if (distance < bestDistance && distance < candidate.length) [best, bestDistance] = [candidate, distance];
  }
  if (best !== null) return best;
  const holding = names.filter((candidate) => candidate.split('_').includes(plain));
  return holding.length === 1 ? (holding[0] ?? null) : null;
}

/** camelCase, kebab-case and case are no difference worth counting. */
function normal(name: string): string {
  return name
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .replaceAll('-', '_');
}

/** Optimal string alignment: insertions, deletions, substitutions, swaps of neighbours. */
function editDistance(a: string, b: string): number {
  const width = b.length + 1;
  const rows = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: width }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  );
  const at = (i: number, j: number): number => rows[i]?.[j] ?? 0;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let distance = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + same);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) distance = Math.min(distance, at(i - 2, j - 2) + 1);
      const row = rows[i];
      if (row) row[j] = distance;
    }
  }
  return at(a.length, b.length);
}
