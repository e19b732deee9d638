/**
 * The slot's lease while a window lasts: renewed when a third of it has passed. Losing it ends the window; the chain is what keeps a
 * late writer harmless (I2), the lease only keeps two windows from working in vain.
 */
import type { Clock, Lease, Ledger } from '../ports.ts';

export class LeaseKeeper {
  #ledger: Pick<Ledger, 'renewLease' | 'releaseLease'>;
  #clock: Clock;
  #lease: Lease;
  #duration_ms: number;
  #renew_at_ms: number;

  constructor(ledger: Pick<Ledger, 'renewLease' | 'releaseLease'>, clock: Clock, lease: Lease, duration_ms: number) {
    this.#ledger = ledger;
    this.#clock = clock;
    this.#lease = lease;
    this.#duration_ms = duration_ms;
    this.#renew_at_ms = clock.now() + duration_ms / 3;
  }

  get token(): number {
    return this.#lease.token;
  }

  /** False: another window has it. */
  async keep(): Promise<boolean> {
    const now_ms = this.#clock.now();
    if (now_ms < this.#renew_at_ms) return true;
    this.#renew_at_ms = now_ms + this.#duration_ms / 3;
    return await this.#ledger.renewLease(this.#lease, this.#duration_ms);
  }

  release(): Promise<void> {
    return this.#ledger.releaseLease(this.#lease);
  }
}
