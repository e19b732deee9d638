/**
 * How many rows are put aside (target.on_invalid: reject; target.on_error: quarantine), for status and metrics.
 */
import type { Ledger, Reject } from '../ports.ts';

/** A row that was left out twice is two. */
export function rowsOf(rejects: readonly Pick<Reject, 'rows'>[]): number {
  return rejects.reduce((sum, { rows }) => sum + rows, 0);
}

/** Of all streams. */
export async function rejectedCount(ledger: Pick<Ledger, 'rejects'>): Promise<number> {
  return rowsOf(await ledger.rejects(null));
}
