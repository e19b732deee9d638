/**
 * What a segment's shape asks of the target's table: nothing, more columns, or what cannot be followed here. Pure.
 *
 * Columns are known by name. One that the segment lacks stays on the target and is not written; one with another type, and another key, are
 * SHAPE_CHANGED.
 */
import { SluiceError } from '../errors.ts';
import { type Column, type Shape, sameShape } from '../shape.ts';

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

/** Columns that `segment` has and `table` lacks, in the segment's order. Throws SHAPE_CHANGED. */
export function growthOf(stream: string, table: Shape, segment: Shape): Column[] {
  if (sameShape(table, segment)) return [];
  const changed = (change: string): SluiceError => new SluiceError('SHAPE_CHANGED', { stream, change });
  const before = keyNames(table);
  const now = keyNames(segment);
  if (before.length !== now.length || now.some((name) => !before.includes(name))) {
    throw changed(`its key was (${before.join(', ')}) and is (${now.join(', ')})`);
  }
  const known = new Map(table.columns.map((column) => [column.name, column]));
  const added: Column[] = [];
  for (const column of segment.columns) {
    const old = known.get(column.name);
    if (old === undefined) added.push(column);
    else if (!sameType(old, column)) {
      const types = `${typeText(old)} and is ${typeText(column)}`;
      throw changed(`the type of column ${column.name} was ${types}`);
    }
  }
  return added;
}

export function sameType(a: Column, b: Column): boolean {
  return a.type_oid === b.type_oid && a.type_modifier === b.type_modifier;
}

/** The table's shape with `added` behind it. The key's indexes stay. */
export function grownShape(table: Shape, added: readonly Column[]): Shape {
  return { columns: [...table.columns, ...added], key: table.key };
}

/** Throws METADATA_COLUMN_TAKEN where a source column has the name of a metadata column. */
export function assertNoMetadataNames(stream: string, shape: Shape): void {
  const taken = shape.columns.find(({ name }) => METADATA_COLUMNS.some((metadata) => metadata === name));
  if (taken) throw new SluiceError('METADATA_COLUMN_TAKEN', { stream, column: taken.name });
}

function typeText({ type_oid, type_modifier }: Column): string {
  return type_modifier === -1 ? `type ${type_oid}` : `type ${type_oid} with modifier ${type_modifier}`;
}
