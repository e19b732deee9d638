/**
 * What an open cut has of one stream: the table as the log has described it last, and the share that is being folded; and a share that has ended. For OpenCut.
 */
import { type Tuple, VALUE } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { hasLsnColumn, withLsnColumn } from '../lsn-column.ts';
import { type ProjectedLog, projectedLog } from '../projection/logged.ts';
import type { TupleProjection } from '../projection/tuple.ts';
import { displayName, type Shape } from '../shape.ts';
import type { CommitSpan } from '../stage/segment.ts';
import { LogCheck } from '../validation/log-check.ts';
import type { CapturedStream } from './captured.ts';
import type { Fold } from './fold.ts';
import { Multiset } from './multiset.ts';
import type { Share } from './share.ts';

export interface OpenStream {
  readonly captured: CapturedStream;
  /** OID of the table, and the number of the Relation message that described it last. */
  readonly oid: number;
  message: number;
  shape: Shape;
  chars: readonly number[]; // charColumns(shape)
  /** What is hidden of its rows; null: nothing. */
  tuples: TupleProjection | null;
  /** Why none of its rows may be taken; null: nothing. */
  fault: SluiceError | null;
  /** Null: any row is taken. */
  check: LogCheck | null;
  fold: Fold | Multiset | null;
  /** Of its last share. */
  expected: { readonly keys: number; readonly keyBytes: number };
}

const NOTHING_EXPECTED = { keys: 0, keyBytes: 0 };

/** A share that has ended; without a fold it is a TRUNCATE, or tells of a shape. */
export interface Sealed {
  readonly stream: OpenStream;
  /** What the stream had when it ended. */
  readonly message: number;
  readonly shape: Shape;
  readonly fold: Fold | Multiset | null;
  readonly tells?: boolean;
  readonly commits?: CommitSpan;
}

/** A stream that no row has come of. */
export function noRows(captured: CapturedStream, oid: number, message: number, shape: Shape): OpenStream {
  const nothing = { chars: [], tuples: null, fault: null, check: null, fold: null, expected: NOTHING_EXPECTED };
  return { captured, oid, message, shape, ...nothing };
}

/** The table as the stream has it: without what is hidden of it, and with the position of each row's commit where that is wanted. */
export function opened(
  logged: Shape,
  captured: CapturedStream,
): Pick<ProjectedLog, 'shape'> & Partial<ProjectedLog> & Pick<OpenStream, 'check'> {
  const found = projectedLog(logged, captured) ?? { shape: logged };
  const check = captured.checks ? new LogCheck(captured.checks, found.shape) : null;
  return captured.lsn === true ? { ...found, check, shape: withLsnColumn(found.shape) } : { ...found, check };
}

/** `count`: columns of a row of it in the log. */
export function assertCount({ tuples, shape }: OpenStream, count: number): void {
  const columns = tuples?.count ?? shape.columns.length - (hasLsnColumn(shape) ? 1 : 0);
  if (count === columns) return;
  const reason = `${count} columns where the relation has ${columns}`;
  throw new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason });
}

/** The row as the stream has it, in `into` where something of it is hidden. */
export function projected({ tuples }: OpenStream, logged: Tuple, into: Tuple): Tuple {
  return tuples === null ? logged : tuples.project(logged, into);
}

/** Bytes that lie beside the arena. */
export function giantBytes(row: Tuple): number {
  if (row.giants === null) return 0;
  let bytes = 0;
  for (const pieces of row.giants.values()) for (const piece of pieces) bytes += piece.length;
  return bytes;
}

/** Some value of it is not in the log (I7). */
export function isTorn(row: Tuple): boolean {
  return row.kind.subarray(0, row.count).includes(VALUE.unchanged);
}

/** Of an insert that is torn: an update has brought the row into the filter, and pgoutput tells of it as an insert. */
export function tornFault(stream: CapturedStream): SluiceError {
  const what = 'a row has come into its row filter by an update, and the log does not have its unchanged values.';
  return new SluiceError('TABLE_REWRITTEN', { stream: displayName(stream), what });
}

/** As it is given up. */
export function shareOf({ stream, message, shape, fold, tells, commits }: Sealed): Share {
  const relation = { oid: stream.oid, message, newest: message === stream.message };
  const share = { stream: stream.captured.stream, shape, relation, ...(commits ? { commits } : {}) };
  if (tells) return { ...share, operation: 'changes', tells, blocks: [] };
  return fold === null
    ? { ...share, operation: 'truncate', blocks: [] }
    : { ...share, operation: 'changes', blocks: fold.blocks(), ...(fold instanceof Multiset ? fold.span : {}) };
}
