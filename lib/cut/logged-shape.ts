/**
 * The shape of a table as its Relation message has it, for OpenCut: columns by the log, the key by the log or, where every column identifies, by the catalog.
 * Pure.
 */
import type { Relation } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { type Column, displayName, type Shape } from '../shape.ts';
import type { CapturedStream } from './captured.ts';

/** The key is what identifies a row in the log; under REPLICA IDENTITY FULL every column does, and the catalog's primary key is taken. */
export function shapeOf(relation: Relation, captured: CapturedStream): Shape | SluiceError {
  // wal2json's log tells the numbers, pgoutput's does not.
  const columns: Column[] = relation.columns.map(({ name, type_oid, type_modifier, number }) => ({
    name,
    type_oid,
    type_modifier,
    ...(number === undefined ? {} : { number }),
  }));
  if (captured.keyless) return { columns, key: [] };
  const isKey =
    relation.replica_identity === 'f'
      ? (i: number) => captured.key.includes(columns[i]?.name ?? '')
      : (i: number) => relation.columns[i]?.identity === true;
  const key = columns.map((_, i) => i).filter(isKey);
  if (key.length === 0) {
    const change = 'it no longer has a key (primary key or replica identity index)';
    return new SluiceError('SHAPE_CHANGED', { stream: displayName(captured), change });
  }
  return { columns, key };
}
