/**
 * `_sdc_lsn`, the column of `source.debug_lsn`: where in the source's log the last change of a row was committed. It is Sluice's own, goes from the fold to the
 * target through shapes like any other, and is the last of their columns.
 *
 * No column of a source has its number (InvalidAttrNumber), by which it is told from one that the source has under the same name. Copies have no position in the
 * log: their lines lack it. Pure.
 */
import type { Pipeline, TableConfig } from './config/schema.ts';
import { SluiceError } from './errors.ts';
import type { SourceTable } from './ports.ts';
import type { Column, Shape } from './shape.ts';

/** pg_type.dat: pg_lsn. */
const PG_LSN_OID = 3220;

export const LSN_COLUMN = { name: '_sdc_lsn', type_oid: PG_LSN_OID, type_modifier: -1, number: 0 } as const;

export function isLsnColumn({ number }: Pick<Column, 'number'>): boolean {
  return number === LSN_COLUMN.number;
}

export function hasLsnColumn({ columns }: Pick<Shape, 'columns'>): boolean {
  return columns.some(isLsnColumn);
}

/** Behind all others, so that the places of the key stay what they are. */
export function withLsnColumn<S extends Shape>(shape: S): S {
  return { ...shape, columns: [...shape.columns.filter((column) => !isLsnColumn(column)), LSN_COLUMN] };
}

export function withoutLsnColumn<S extends Shape>(shape: S): S {
  return hasLsnColumn(shape) ? { ...shape, columns: shape.columns.filter((column) => !isLsnColumn(column)) } : shape;
}

/**
 * Whether rows of the table get it: where they come by the log, and have a key. Copies of a row without one are told apart by nothing, and may be of several
 * transactions.
 */
export function wantsLsnColumn(
  { source }: { readonly source: Pick<Pipeline['source'], 'debug_lsn'> },
  { replication_method }: Pick<TableConfig, 'replication_method'>,
  { key }: Pick<SourceTable, 'key'>,
): boolean {
  return source.debug_lsn && replication_method === 'LOG_BASED' && key.length > 0;
}

/** Throws METADATA_COLUMN_TAKEN where a shape that has it has another column of its name. */
export function assertLsnNameFree(stream: string, shape: Shape): void {
  if (!hasLsnColumn(shape)) return;
  const others = [...shape.columns.filter((column) => !isLsnColumn(column)), ...(shape.generated ?? [])];
  if (others.some(({ name }) => name === LSN_COLUMN.name))
    throw new SluiceError('METADATA_COLUMN_TAKEN', { stream, column: LSN_COLUMN.name });
}
