/**
 * What an open cut gives up of itself: one stream's share of a part, with the description that its rows were read by.
 */
import { isPacked } from '../piece.ts';
import type { Shape } from '../shape.ts';
import type { CommitSpan } from '../stage/segment.ts';
import type { FoldedBlock } from './fold.ts';

/** One stream's share of a part, ready to be encoded as a segment. */
export interface Share {
  readonly stream: string;
  readonly operation: 'changes' | 'truncate';
  readonly shape: Shape;
  /** The description that its rows were read by. */
  readonly relation: DescribedBy;
  /** Of a table without a key: SegmentHeader.commits. */
  readonly commits?: CommitSpan;
  /** It has no rows, and is there for its shape. */
  readonly tells?: boolean;
  readonly blocks: readonly FoldedBlock[];
}

/** One Relation message of the log, as a share remembers it. */
export interface DescribedBy {
  /** OID of the table. */
  readonly oid: number;
  /** Counts the messages of the window. */
  readonly message: number;
  /** No later message of this table has been read. */
  readonly newest: boolean;
}

/** Some row of them is so large that nothing is read while it is held (I8). */
export function holdsGiants(shares: readonly Pick<Share, 'blocks'>[]): boolean {
  return shares.some(({ blocks }) => blocks.some(({ pieces }) => pieces.some(isPacked)));
}

export interface StreamCount {
  changes: number;
  text_bytes: number;
}
