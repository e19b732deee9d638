/**
 * What follows from an epoch's kind (ports/ledger.ts has the list): where its rows go, what becomes of rows that they replace, and where the stream goes on
 * from. Pure; nobody else tells kinds apart by these. Steps that one kind alone has are asked for by its name (extract.ts, cancel.ts).
 */
import type { EpochKind } from '../ports.ts';

interface Course {
  /** Into an empty table that is swapped in, or into the stream's own. */
  readonly into: 'shadow' | 'table';
  /** In the stream's table: rows of a chunk's range that the source does not have go. */
  readonly replaces: boolean;
  /**
   * - held:    the chain, from the cut after `held_cut`: the table is of the chunks' time, whatever was applied before
   * - applied: the chain, from where it was applied up to when the hold was set
   * - none:    no chain is applied to the stream
   */
  readonly goes_on_from: 'held' | 'applied' | 'none';
  /** Into a shadow, where deletions are marked: rows that only the former table has are carried over. */
  readonly keeps_deleted: boolean;
  /** Chunks are read and loaded one after another: a later one may hold a newer row of the same key. */
  readonly in_order: boolean;
}

const COURSES: Readonly<Record<EpochKind, Course>> = {
  first_sync: { into: 'shadow', replaces: false, goes_on_from: 'held', keeps_deleted: false, in_order: false },
  reset: { into: 'shadow', replaces: false, goes_on_from: 'held', keeps_deleted: false, in_order: false },
  full_table: { into: 'shadow', replaces: false, goes_on_from: 'none', keeps_deleted: true, in_order: false },
  incremental: { into: 'table', replaces: false, goes_on_from: 'none', keeps_deleted: false, in_order: true },
  backfill: { into: 'table', replaces: false, goes_on_from: 'applied', keeps_deleted: false, in_order: false },
  repair: { into: 'table', replaces: true, goes_on_from: 'applied', keeps_deleted: false, in_order: false },
  resync: { into: 'table', replaces: true, goes_on_from: 'held', keeps_deleted: false, in_order: false },
};

export function courseOf(kind: EpochKind): Course {
  return COURSES[kind];
}
