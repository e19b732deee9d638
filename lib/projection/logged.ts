/**
 * A table as its Relation message has it, projected, for OpenCut. Pure.
 *
 * The log names columns and does not number them. A hidden column that is renamed comes under a name of which the file says nothing: so where one is missing,
 * and there is a name that the catalog did not have, the stream is copied anew before a value is taken; what became of the column is then known by its number
 * (window/projecting.ts, window/describing.ts).
 */
import type { CapturedStream } from '../cut/captured.ts';
import { SluiceError } from '../errors.ts';
import { displayName, type Shape } from '../shape.ts';
import { projectedShape } from './table.ts';
import { TupleProjection } from './tuple.ts';

export interface ProjectedLog {
  readonly shape: Shape;
  readonly tuples: TupleProjection;
  /** Why no row may be taken by it; null: nothing. */
  readonly fault: SluiceError | null;
}

/** Null: nothing of the stream is hidden. */
export function projectedLog(logged: Shape, stream: CapturedStream): ProjectedLog | null {
  const { projection } = stream;
  if (!projection) return null;
  const tuples = new TupleProjection(logged.columns, projection);
  const shape = projectedShape(logged, tuples.places, projection);
  const rewritten = (what: string): SluiceError =>
    new SluiceError('TABLE_REWRITTEN', { stream: displayName(stream), what });
  const isOpen = logged.key.every((place) =>
    ['keep', 'hash'].includes(projection.treatmentOf(logged.columns[place]?.name ?? '')),
  );
  if (!isOpen) return { shape, tuples, fault: rewritten('its key has a column that the pipeline file hides.') };
  const names = new Set(logged.columns.map(({ name }) => name));
  const { columns, hidden } = stream.known ?? { columns: names, hidden: [] };
  const isMissing = hidden.some((name) => !names.has(name));
  const isNew = logged.columns.some(({ name }) => !columns.has(name));
  const fault =
    isMissing && isNew ? rewritten('a column that the pipeline file hides is gone, or has another name.') : null;
  return { shape, tuples, fault };
}
