/**
 * The lease of a slot: at most one window at a time may believe that it holds it (design §3, Window). One item, one conditional write.
 *
 *     time ───────────────────────────────────────────────────────────────────────────────────────────────►
 *     A  take ── token 7 ── renew ── renew ── (killed)  ·  ·  ·  until_ms
 *     B               take: held_by A          take: held_by A     ╵ take ── token 8 ──────── release
 *     A (its process wakes up)                                          renew: false, it stops
 *     C                                                                                          take ── token 9
 *
 * The token only grows, release included, so that a holder's leftovers on the source can be told from its successor's. Expiry compares
 * clocks of two machines: that is why the chain, not the lease, is what keeps a late writer from doing harm (I2).
 */
import type { Clock, Lease, LeaseHeld } from '../ports.ts';
import { text, whole } from './attributes.ts';
import type { Keys } from './keys.ts';
import { type Expression, type LedgerTable, readItem } from './table.ts';

const LEASE_FIELDS = { owner: text, token: whole, until_ms: whole };

const OWNER = { '#owner': 'owner' };
const TOKEN = { '#token': 'token' };

const leaseIsUnused = 'attribute_not_exists(pk)';
const leaseHasExpired = 'until_ms <= :now';
const leaseIsOwn = '#owner = :owner';
const leaseIsThisHolding = '#owner = :owner AND #token = :token';

/** Attempts when the lease is refused and then seen to be free: somebody released it in between. */
const TAKE_ATTEMPTS_MAX = 3;

export function leases(table: LedgerTable, keys: Keys, clock: Clock) {
  const holding = (lease: Lease): Expression => ({
    text: leaseIsThisHolding,
    names: { ...OWNER, ...TOKEN },
    values: { ':owner': { S: lease.owner }, ':token': { N: String(lease.token) } },
  });

  return {
    async takeLease(name: string, owner: string, duration_ms: number): Promise<Lease | LeaseHeld> {
      for (let attempt = 1; ; attempt += 1) {
        const now = clock.now();
        const taken = await table.update(
          keys.lease(name),
          {
            text: 'SET #owner = :owner, until_ms = :until, #token = if_not_exists(#token, :zero) + :one',
            names: { ...OWNER, ...TOKEN },
            values: {
              ':owner': { S: owner },
              ':until': { N: String(now + duration_ms) },
              ':zero': { N: '0' },
              ':one': { N: '1' },
            },
          },
          {
            text: `${leaseIsUnused} OR ${leaseHasExpired} OR ${leaseIsOwn}`,
            values: { ':now': { N: String(now) } },
          },
        );
        if (taken) return { name, ...readItem(LEASE_FIELDS, taken) };

        const item = await table.get(keys.lease(name));
        const held = item && readItem(LEASE_FIELDS, item);
        if ((held && held.until_ms > now) || attempt === TAKE_ATTEMPTS_MAX) {
          return { held_by: held?.owner ?? 'another window', until_ms: held?.until_ms ?? now };
        }
      }
    },

    /** A lease that has expired and that nobody took is still its holder's: the token says so. */
    async renewLease(lease: Lease, duration_ms: number): Promise<boolean> {
      const until = { ':until': { N: String(clock.now() + duration_ms) } };
      const renewed = await table.update(
        keys.lease(lease.name),
        { text: 'SET until_ms = :until', values: until },
        holding(lease),
      );
      return renewed !== null;
    },

    /** Frees it at once. Taken by another meanwhile: nothing to free. */
    async releaseLease(lease: Lease): Promise<void> {
      await table.update(
        keys.lease(lease.name),
        { text: 'SET until_ms = :released', values: { ':released': { N: '0' } } },
        holding(lease),
      );
    },
  };
}
