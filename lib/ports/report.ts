/**
 * What a window says of itself when it is over (see ports.ts); kept by the ledger.
 */
import type { Lsn } from '../lsn.ts';
import type { SlotRoom } from '../slot/room.ts';
import type { Unfinished } from './ledger.ts';

/** What one window did. Times in ms; `seconds` by stage add up to where the window's time went. */
export interface RunReport {
  readonly run: string;
  readonly started_at_ms: number;
  readonly ended_at_ms: number;
  readonly stopped_by: StopReason;
  readonly error: { readonly code: string; readonly message: string; readonly remedy: string } | null;
  readonly begin_lsn: Lsn | null;
  readonly end_lsn: Lsn | null;
  /** The source's flush position when the window began: the end that `break_at_end_lsn` stops at. */
  readonly source_lsn: Lsn | null;
  readonly cuts: number;
  readonly transactions: number;
  readonly changes: number;
  readonly text_bytes: number;
  readonly object_bytes: number;
  /** Rows that were left out because they are not valid; absent: none. */
  readonly rejected_rows?: number;
  /** The transaction that it did not come to the end of; absent: none. */
  readonly unfinished?: Pick<Unfinished, 'xid' | 'changes' | 'text_bytes' | 'tables' | 'windows' | 'stalled'>;
  /** The slot when it began; absent: it has not seen it. */
  readonly slot?: SlotRoom;
  readonly streams: Readonly<Record<string, { readonly changes: number; readonly text_bytes: number }>>;
  readonly seconds: Readonly<Record<'ground' | 'read' | 'stage' | 'record', number>>;
}

export const STOP_REASONS = [
  'end_lsn',
  'no_data',
  'max_run',
  'deadline',
  'lease_lost',
  'asked',
  'skipped',
  'failed',
] as const;
export type StopReason = (typeof STOP_REASONS)[number];
