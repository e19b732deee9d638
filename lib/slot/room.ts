/**
 * How much the source may still write before it gives the slot up (max_slot_wal_keep_size), and when that is little enough for a warning. Pure.
 * https://www.postgresql.org/docs/current/view-pg-replication-slots.html (wal_status, safe_wal_size)
 */
import type { SlotRow } from '../ports.ts';

/** Less than that is time to act; under a small limit, less than half of it. */
export const SAFE_WAL_BYTES_MIN = 2 * 1024 ** 3;
const LIMIT_SHARE_MIN = 1 / 2;

export interface SlotRoom {
  /** WAL that the source keeps for the slot; null: not known. */
  readonly kept_wal_bytes: number | null;
  /** That it can still write until the slot may be lost; 0: it may be any moment. Null: no limit. */
  readonly safe_wal_bytes: number | null;
  readonly at_risk: boolean;
}

export function slotRoom(
  slot: Pick<SlotRow, 'wal_status' | 'safe_wal_bytes' | 'kept_wal_bytes' | 'wal_limit_bytes'>,
): SlotRoom {
  const { wal_status, safe_wal_bytes: safe, kept_wal_bytes = null, wal_limit_bytes = null } = slot;
  const isNearlyLost = wal_status === 'unreserved' || wal_status === 'lost';
  // Negative, where it has used up more than its limit and lives until the next checkpoint.
  const safe_wal_bytes = wal_status === 'lost' ? 0 : safe === null ? null : Math.max(safe, 0);
  const enough = Math.min(SAFE_WAL_BYTES_MIN, wal_limit_bytes === null ? Infinity : wal_limit_bytes * LIMIT_SHARE_MIN);
  return {
    kept_wal_bytes,
    safe_wal_bytes,
    at_risk: isNearlyLost || (safe_wal_bytes !== null && safe_wal_bytes < enough),
  };
}
