/**
 * How fast a total grows, from looks at it: over the last seconds, so that the figure is steady and yet of now. No clock: times come in.
 */

/** Long enough that a look now and then gives a steady figure, short enough that a change of pace shows. */
const SPAN_MS = 10_000;
const LOOKS_MAX = 256;

interface Look {
  readonly at_ms: number;
  readonly total: number;
}

export class Meter {
  #looks: Look[] = [];

  add(at_ms: number, total: number): void {
    this.#looks.push({ at_ms, total });
    // The last look before the span stays: the span begins with it.
    const first = this.#looks.findLastIndex((look) => look.at_ms <= at_ms - SPAN_MS);
    this.#looks = this.#looks.slice(Math.max(0, first, this.#looks.length - LOOKS_MAX));
  }

  /** 0 where there is nothing to compare yet; never negative. */
  get per_second(): number {
    const [first] = this.#looks;
    const last = this.#looks.at(-1);
    if (!first || !last || last.at_ms <= first.at_ms) return 0;
    return Math.max(0, ((last.total - first.total) * 1000) / (last.at_ms - first.at_ms));
  }
}

/** Seconds until `left` more are done at this rate; null: nobody can tell. */
export function secondsLeft(left: number, per_second: number): number | null {
  if (left <= 0) return 0;
  return per_second > 0 ? left / per_second : null;
}
