/**
 * Which streams a load moves together (consistency: transaction): pure, by the rows that the target holds.
 *
 * On the path it stands between the lock of the streams' rows and the cuts that are applied to them. Streams that move together are all at one cut, their
 * place. Others join where they meet: one that is a little behind is brought up in the same transaction, one that is ahead waits until the others have come
 * to it, and one that is far behind comes up alone first, so that nobody waits for it.
 */
import type { Lsn } from '../lsn.ts';
import type { Cut, TargetRow } from '../ports.ts';

/** Who is further behind than this comes up alone: its cuts would be all that the transaction applies. */
export const JOIN_CUTS_MAX = 20;

/** A stream that nothing holds, and that has caught up. */
export interface Standing {
  readonly stream: string;
  readonly applied_cut: number;
  /** The last load moved it with the others. */
  readonly together: boolean;
}

export interface Muster {
  /** Cut that the others come to: who has moves with them. */
  readonly place: number;
  /** Moved by this transaction, those that are ahead from where they are. */
  readonly members: readonly Standing[];
  /** Cut after which the members' begin. */
  readonly from: number;
  /** Have to come up alone. */
  readonly behind: readonly Standing[];
}

/** Null: there is nobody. Where no load has moved any together yet, the one that is furthest ahead says where they meet. */
export function muster(standing: readonly Standing[]): Muster | null {
  if (standing.length === 0) return null;
  const moved = standing.filter(({ together }) => together);
  const place = Math.max(...(moved.length > 0 ? moved : standing).map(({ applied_cut }) => applied_cut));
  const members = standing.filter(({ applied_cut }) => applied_cut >= place - JOIN_CUTS_MAX);
  const from = Math.min(...members.map(({ applied_cut }) => applied_cut));
  return { place, members, from, behind: standing.filter((stream) => !members.includes(stream)) };
}

/** Of the next cuts, those until the stream has caught up and is at the others' place; null: there are no others. */
export function untilMet(cuts: readonly Cut[], row: TargetRow, place: number | null): readonly Cut[] {
  const hasMet = (cut: number, lsn: Lsn): boolean =>
    (row.catching_up_to === null || lsn >= row.catching_up_to) && (place === null || cut >= place);
  if (hasMet(row.applied_cut, row.applied_lsn)) return [];
  const end = cuts.findIndex(({ number, end_lsn }) => hasMet(number, end_lsn));
  return end === -1 ? cuts : cuts.slice(0, end + 1);
}
