/**
 * Figures, and what they are held against: ratios of one run first, for they are the same on a machine of another speed.
 */

export interface Figure {
  readonly work: string;
  readonly who: string;
  /** Null: it is not installed. */
  readonly value: number | null;
  readonly unit: 'rows/s' | 'changes/s' | 's' | 'ms' | 'MiB' | 'KB' | 'US$';
}

export interface Comparison {
  readonly work: string;
  readonly what: string;
  readonly who: string;
  /** Null: a limit, `goal`, in the figure's own unit. */
  readonly peer: string | null;
  readonly goal: number;
  /** The ratio, or the figure, is to be at least the goal, or at most. */
  readonly wants: 'least' | 'most';
}

export interface Result {
  readonly comparison: Comparison;
  /** Median over the runs; null: the peer is not installed. */
  readonly value: number | null;
  readonly isMet: boolean | null;
}

export function median(figures: readonly number[]): number {
  const sorted = figures.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The median of each figure over the runs, in the order of the first. */
export function medians(runs: readonly (readonly Figure[])[]): Figure[] {
  const byName = new Map<string, Figure[]>();
  for (const figure of runs.flat()) {
    const name = `${figure.work}\n${figure.who}`;
    byName.set(name, [...(byName.get(name) ?? []), figure]);
  }
  return [...byName.values()].flatMap((figures) => {
    const [first] = figures;
    const values = figures.flatMap(({ value }) => value ?? []);
    return first ? [{ ...first, value: values.length === 0 ? null : median(values) }] : [];
  });
}

/** Each ratio is one of figures of the same run; those whose workload was not run are left out. */
export function compared(runs: readonly (readonly Figure[])[], comparisons: readonly Comparison[]): Result[] {
  return comparisons.flatMap((comparison) => {
    const { work, who, peer, goal, wants } = comparison;
    const found = (figures: readonly Figure[], name: string): Figure | undefined =>
      figures.find((figure) => figure.work === work && figure.who === name);
    const ours = runs.filter((figures) => found(figures, who) !== undefined);
    if (ours.length === 0) return [];
    const values = ours.flatMap((figures) => {
      const value = found(figures, who)?.value ?? null;
      const other = peer === null ? 1 : (found(figures, peer)?.value ?? null);
      return value === null || other === null ? [] : [value / other];
    });
    const value = values.length === 0 ? null : median(values);
    return [{ comparison, value, isMet: value === null ? null : wants === 'least' ? value >= goal : value <= goal }];
  });
}
