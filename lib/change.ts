/**
 * What a decoder makes of the log: calls, in the order of the log, on a ChangeSink. Values stay bytes where they arrived (I6): a tuple is
 * positions into the message's buffer, reused from call to call, so that a row costs no object.
 */
import type { Lsn } from './lsn.ts';
import type { Piece } from './piece.ts';
import type { Column } from './shape.ts';

/** MaxTupleAttributeNumber (access/htup_details.h): no tuple has more columns. */
export const TUPLE_COLUMNS_MAX = 1664;

/** What is known of a column's value. `unchanged` is a TOASTed value that was not written again: absent, and never NULL (I7). */
export const VALUE = { null: 0x6e /* n */, unchanged: 0x75 /* u */, text: 0x74 /* t */ } as const;

/** Columns of one row image: `kind[i]` is a VALUE, and a text value is `bytes[start[i], end[i])`. Valid during the call that hands it over. */
export class Tuple {
  bytes: Buffer = Buffer.alloc(0);
  count = 0;
  readonly kind = new Uint8Array(TUPLE_COLUMNS_MAX);
  readonly start = new Int32Array(TUPLE_COLUMNS_MAX);
  readonly end = new Int32Array(TUPLE_COLUMNS_MAX);
  /** Giant values by column, in pieces that may be kept; such a column is of kind text, with nothing in `bytes`. Null: there is none. */
  giants: Map<number, readonly Piece[]> | null = null;
}

export interface RelationColumn extends Column {
  /** Part of the replica identity. */
  readonly identity: boolean;
}

/** A table as the log describes it, ahead of its first change and whenever that description may have changed. */
export interface Relation {
  readonly id: number;
  readonly schema: string;
  readonly table: string;
  /** pg_class.relreplident: d, n, f, i. */
  readonly replica_identity: string;
  readonly columns: readonly RelationColumn[];
}

/** What stands in an `old` tuple: nothing, the replica identity's columns (others are NULL placeholders), or the whole row. */
export type OldImage = 'none' | 'key' | 'full';

export interface ChangeSink {
  /** `committed_at_us`: microseconds since the Unix epoch. `commit_lsn`: where the commit record begins, or any position before its end. */
  begin(xid: number, committed_at_us: number, commit_lsn: Lsn): void;
  /** `end_lsn` is past the commit record: the position from which the next transaction follows. */
  commit(end_lsn: Lsn): void;
  relation(relation: Relation): void;
  insert(relation: number, row: Tuple): void;
  update(relation: number, oldImage: OldImage, old: Tuple, row: Tuple): void;
  delete(relation: number, oldImage: 'key' | 'full', old: Tuple): void;
  truncate(relations: readonly number[]): void;
}
