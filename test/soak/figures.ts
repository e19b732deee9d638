/** Series over time, and what is told of them. Pure. */

export interface Sample {
  /** Since the soak began. */
  readonly at_ms: number;
  readonly value: number;
}

export interface Quarter {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Least, median and greatest value of each quarter of `length_ms`; null: a quarter without a sample. */
export function quarters(samples: readonly Sample[], length_ms: number): (Quarter | null)[] {
  return [0, 1, 2, 3].map((quarter) => {
    const [from_ms, to_ms] = [(quarter * length_ms) / 4, ((quarter + 1) * length_ms) / 4];
    const values = samples
      .filter(({ at_ms }) => at_ms >= from_ms && (at_ms < to_ms || quarter === 3))
      .map(({ value }) => value)
      .toSorted((a, b) => a - b);
    const [min, max] = [values[0], values.at(-1)];
    const median = values[Math.floor(values.length / 2)];
    return min === undefined || max === undefined || median === undefined ? null : { min, median, max };
  });
}

/** Least squares: how much `value` grows in a minute; null: fewer than two moments. */
export function slopePerMinute(samples: readonly Sample[]): number | null {
  const n = samples.length;
  const mean = (of: (sample: Sample) => number): number => samples.reduce((sum, one) => sum + of(one), 0) / n;
  const [x, y] = [mean(({ at_ms }) => at_ms / 60_000), mean(({ value }) => value)];
  let [above, below] = [0, 0];
  for (const { at_ms, value } of samples) {
    above += (at_ms / 60_000 - x) * (value - y);
    below += (at_ms / 60_000 - x) ** 2;
  }
  return n < 2 || below === 0 ? null : above / below;
}

/** Adds one to a count by name. */
export function tally(counts: Record<string, number>, name: string, more = 1): void {
  counts[name] = (counts[name] ?? 0) + more;
}
