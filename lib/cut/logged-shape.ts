/**
 * The shape of a table as its Relation message has it, for OpenCut: columns by the log, the key by the log or, where every column identifies, by the catalog.
 * A name that the target would cut is a fault. Pure.
 */
import { type Relation, type Tuple, VALUE } from '../change.ts';
import { nameFault } from '../config/followable.ts';
import { SluiceError } from '../errors.ts';
import { type Column, displayName, type Shape } from '../shape.ts';
import type { CapturedStream } from './captured.ts';
import { ASCII_MAX } from './copy-text.ts';

/** The key is what identifies a row in the log; under REPLICA IDENTITY FULL every column does, and the catalog's primary key is taken. */
export function loggedShape(relation: Relation, captured: CapturedStream): Shape | SluiceError {
  // wal2json's log tells the numbers, pgoutput's does not.
  const columns: Column[] = relation.columns.map(({ name, type_oid, type_modifier, number }) => ({
    name,
    type_oid,
    type_modifier,
    ...(number === undefined ? {} : { number }),
  }));
  const long = nameFault(relation);
  if (long) return long;
  if (captured.keyless) return { columns, key: [] };
  const isKey =
    relation.replica_identity === 'f'
      ? (i: number) => captured.key.includes(columns[i]?.name ?? '')
      : (i: number) => relation.columns[i]?.identity === true;
  const key = columns.map((_, i) => i).filter(isKey);
  if (key.length === 0) {
    const change = 'it no longer has a key (primary key or replica identity index)';
    if (captured.key_may_go) return new SluiceError('TABLE_REWRITTEN', { stream: displayName(captured), what: change });
    return new SluiceError('SHAPE_CHANGED', { stream: displayName(captured), change });
  }
  return { columns, key };
}

/** `"char"`, one byte. */
const CHAR_OID = 18;

/** Places of the columns of that type. */
export function charColumns(shape: Shape): readonly number[] {
  return shape.columns.flatMap(({ type_oid }, i) => (type_oid === CHAR_OID ? [i] : []));
}

/**
 * The fault of a row that has, in a column of that type, the letter that a server before 16 has made of its byte, where its encoding is not UTF8: which byte
 * it was it does not tell. The byte itself, as of a source in UTF8, is written by copy-text.ts.
 */
export function charFault(row: Tuple, chars: readonly number[], stream: CapturedStream): SluiceError | null {
  const hasLetter = chars.some((i) => {
    const [start, end] = [row.start[i] as number, row.end[i] as number];
    return row.kind[i] === VALUE.text && end - start > 1 && (row.bytes[start] as number) > ASCII_MAX;
  });
  if (!hasLetter) return null;
  const what = 'have a "char" above 127, of which a server before 16 that is not in UTF8 logs a letter';
  return new SluiceError('ROWS_UNKNOWN', { stream: displayName(stream), rows: 1, what });
}
