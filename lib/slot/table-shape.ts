/**
 * The shape of a table as the catalog has it: of a chunk's rows, and of a change of shape that no change of rows has told of.
 */
import { withLsnColumn } from '../lsn-column.ts';
import type { SourceTable } from '../ports.ts';
import type { Shape } from '../shape.ts';

export function tableShape(table: SourceTable): Shape {
  const columns = table.columns.map(({ name, number, type_oid, type_modifier, type }) => ({
    name,
    type_oid,
    type_modifier,
    ...(number === undefined ? {} : { number }),
    ...(type === undefined ? {} : { type }),
  }));
  const key = columns.flatMap(({ name }, i) => (table.key.includes(name) ? [i] : []));
  const shape: Shape = {
    columns,
    key,
    ...(table.filenode === undefined ? {} : { filenode: table.filenode }),
    ...(table.definition === undefined ? {} : { definition: table.definition }),
    ...(table.greatest === undefined ? {} : { greatest: table.greatest }),
    ...(table.hidden === undefined ? {} : { hidden: table.hidden }),
    ...(table.generated === undefined || table.generated.length === 0 ? {} : { generated: table.generated }),
  };
  return table.lsn === true ? withLsnColumn(shape) : shape;
}
