/**
 * What `sluice status` tells of a transaction that is longer than a window (lib/window/unfinished.ts). Pure.
 */
import type { Cut, Unfinished } from '../ports.ts';

/** A transaction that windows have come to in part (lib/window/unfinished.ts). */
export type UnfinishedStatus = Pick<
  Unfinished,
  'xid' | 'changes' | 'text_bytes' | 'tables' | 'table_count' | 'windows' | 'stalled'
> & { readonly began_at: string; readonly at: string };

/** Null: there is none, or what is left of one is over. */
export function unfinishedStatus(unfinished: Unfinished | null, head: Cut): UnfinishedStatus | null {
  if (unfinished?.after_cut !== head.number || unfinished.incarnation !== head.incarnation) return null;
  const { xid, changes, text_bytes, tables, table_count, windows, stalled, began_at_ms, at_ms } = unfinished;
  return {
    xid,
    changes,
    text_bytes,
    tables,
    table_count,
    windows,
    stalled,
    began_at: new Date(began_at_ms).toISOString(),
    at: new Date(at_ms).toISOString(),
  };
}
