/**
 * Tables and what the catalog says of them, as a stream has them whose columns are projected: what is left out is not there, and what is masked has the type of
 * its mask. So neither a header in the stage nor the target learns of it: no name, no type with its labels, no default value. Pure.
 */
import type { SourceTable } from '../ports.ts';
import type { Column, Shape, TableDescription } from '../shape.ts';
import { Hasher } from './hash.ts';
import { type Projection, projectedColumn, projectionFor, REDACTED, type Treatment } from './projection.ts';

/** `table` as the stream has it; its columns remember how they are masked. */
export function projectedTable(table: SourceTable, projection: Projection | null): SourceTable {
  if (projection === null) return table;
  const { treatmentOf } = projectionFor(projection, table);
  const hidden = hiddenNumbers(table, projection);
  return {
    ...table,
    columns: table.columns.flatMap((column) => {
      const treatment = treatmentOf(column.name);
      if (treatment === 'drop') return [];
      return treatment === 'keep' ? [column] : [{ ...projectedColumn(column, treatment), mask: treatment }];
    }),
    // One that is masked is no longer computed: it comes only where the source publishes its values.
    generated: (table.generated ?? []).filter(({ name }) => treatmentOf(name) === 'keep'),
    ...(hidden.length === 0 ? {} : { hidden }),
  };
}

/** Numbers of the columns of which no value must be seen, in their order. */
export function hiddenNumbers(
  table: Pick<SourceTable, 'columns' | 'generated'>,
  projection: Projection,
): readonly number[] {
  const { treatmentOf } = projectionFor(projection, table);
  return [...table.columns, ...(table.generated ?? [])]
    .flatMap(({ name, number }) => (number === undefined || treatmentOf(name) === 'keep' ? [] : [number]))
    .toSorted((a, b) => a - b);
}

/** The name of a column that is hidden by its number, and goes by one now of which the projection says nothing; null: there is none. */
export function exposedColumn(
  table: Pick<SourceTable, 'columns' | 'generated'>,
  projection: Projection,
  hidden: ReadonlySet<number>,
): string | null {
  const { treatmentOf } = projectionFor(projection, table);
  const exposed = [...table.columns, ...(table.generated ?? [])].find(
    ({ name, number }) => number !== undefined && hidden.has(number) && treatmentOf(name) === 'keep',
  );
  return exposed?.name ?? null;
}

/** A shape as the log has it, with the places of its columns that are left. */
export function projectedShape(shape: Shape, places: readonly number[], projection: Projection): Shape {
  const columns = places.map((place) => {
    const column = shape.columns[place] as Column;
    return projectedColumn(column, projection.treatmentOf(column.name) as Exclude<Treatment, 'drop'>);
  });
  return { ...shape, columns, key: shape.key.map((place) => places.indexOf(place)) };
}

export function projectedDescription<T extends TableDescription>(described: T, projection: Projection): T {
  const hasher = new Hasher(projection.salt);
  const columns = described.columns.flatMap((column) => {
    // Of one that was dropped, the name is gone; and so is whatever the file said of it.
    const treatment = column.dropped ? 'keep' : projection.treatmentOf(column.name);
    if (treatment === 'drop') return [];
    if (treatment === 'keep') return [column];
    const { missing } = column;
    return [{ ...projectedColumn(column, treatment), missing: missing && masked(missing, treatment, hasher) }];
  });
  return { ...described, columns };
}

function masked(text: string, treatment: Exclude<Treatment, 'keep' | 'drop'>, hasher: Hasher): string | null {
  switch (treatment) {
    case 'hash':
      return hasher.hash(text);
    case 'redact':
      return REDACTED;
    case 'null':
      return null;
    default:
      return treatment satisfies never;
  }
}
