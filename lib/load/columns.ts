/**
 * Columns as the loader speaks of them: those of the key, and the metadata columns, which are Sluice's own. Pure.
 */
import { SluiceError } from '../errors.ts';
import type { Column, Shape } from '../shape.ts';

export const EXTRACTED_AT = '_sdc_extracted_at';
export const BATCHED_AT = '_sdc_batched_at';
export const DELETED_AT = '_sdc_deleted_at';
export const METADATA_COLUMNS = [EXTRACTED_AT, BATCHED_AT, DELETED_AT] as const;

/** Names of the key's columns, in the order of the shape. */
export function keyNames(shape: Shape): string[] {
  return shape.key.map((index) => columnAt(shape, index).name);
}

export function columnAt(shape: Shape, index: number): Column {
  const column = shape.columns[index];
  if (column === undefined) throw new RangeError(`column ${index} of ${shape.columns.length}`);
  return column;
}

/** A column that the source has no longer, as a table's shape keeps it. */
export function withoutNumber({ name, type_oid, type_modifier, type }: Column): Column {
  return { name, type_oid, type_modifier, ...(type === undefined ? {} : { type }) };
}

/** Throws METADATA_COLUMN_TAKEN where a source column has the name of a metadata column. */
export function assertNoMetadataNames(stream: string, shape: Shape): void {
  const taken = shape.columns.find(({ name }) => METADATA_COLUMNS.some((metadata) => metadata === name));
  if (taken) throw new SluiceError('METADATA_COLUMN_TAKEN', { stream, column: taken.name });
}
