/**
 * How long a row takes from its commit on the source until it is seen in the target. Positions and times come in.
 */
import type { Lsn } from '../../lib/lsn.ts';

/** Commits that are waited for, and lags that are kept: what is beyond is left out, the oldest first. */
const WAITING_MAX = 50_000;
const LAGS_KEPT_MAX = 50_000;

export class LagMeter {
  #waiting: { readonly lsn: Lsn; readonly at_ms: number }[] = [];
  #lags_ms: number[] = [];

  /** A commit that ends before `lsn`; they come in about their order. */
  committed(lsn: Lsn, at_ms: number): void {
    if (this.#waiting.length < WAITING_MAX) this.#waiting.push({ lsn, at_ms });
  }

  /** Everything up to `lsn` has been seen in the target at `at_ms`. */
  seen(lsn: Lsn, at_ms: number): void {
    const arrived = this.#waiting.filter((commit) => commit.lsn <= lsn);
    if (arrived.length === 0) return;
    this.#waiting = this.#waiting.filter((commit) => commit.lsn > lsn);
    this.#lags_ms.push(...arrived.map((commit) => Math.max(0, at_ms - commit.at_ms)));
    if (this.#lags_ms.length > LAGS_KEPT_MAX) this.#lags_ms = this.#lags_ms.slice(-LAGS_KEPT_MAX);
  }

  /** Seconds that `share` of the commits took at most; null: none has arrived yet. */
  quantile(share: number): number | null {
    const sorted = this.#lags_ms.toSorted((a, b) => a - b);
    const lag_ms = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
    return lag_ms === undefined ? null : lag_ms / 1000;
  }
}
