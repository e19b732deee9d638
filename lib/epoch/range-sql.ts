/**
 * A chunk's range as conditions on a table's rows. Pure text, for the source, which a chunk is read from, and for the target, where it is compared with.
 *
 * Values are literals without a type: each takes that of the column that it is compared with, and is compared as that column is, collation
 * and all. So a range by key covers what the server's own index covers; on another server, that is so for types that have no collation.
 * https://www.postgresql.org/docs/current/functions-comparisons.html (Row Constructor Comparison), typeconv-oper.html
 */
import type { ChunkRange } from '../ports.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';

const CTID = /^\(\d{1,10},\d{1,5}\)$/;

/** To be joined by AND; none: every row. `nameOf`: how a column of the range is called there. Throws RangeError for a ctid that is none. */
export function rangeConditions(
  range: ChunkRange,
  nameOf: (column: string) => string = (column) => quoteIdentifier(column),
): string[] {
  switch (range.by) {
    case 'whole':
      return [];
    case 'key': {
      const row = rowOf(range.columns.map(nameOf));
      return [
        ...(range.from === null ? [] : [`${row} >= ${literals(range.from)}`]),
        ...(range.to === null ? [] : [`${row} < ${literals(range.to)}`]),
      ];
    }
    case 'ctid':
      return [
        ...(range.from === null ? [] : [`ctid >= ${ctid(range.from)}`]),
        ...(range.to === null ? [] : [`ctid < ${ctid(range.to)}`]),
      ];
    case 'keys': {
      if (range.keys.length === 0) return ['false'];
      return [`${rowOf(range.columns.map(nameOf))} IN (${range.keys.map(literals).join(', ')})`];
    }
    case 'page': {
      const column = nameOf(range.column);
      return [
        ...(range.from === null ? [] : [`${column} ${range.inclusive ? '>=' : '>'} ${quoteLiteral(range.from)}`]),
        ...(range.to === null ? [] : [`${column} <= ${quoteLiteral(range.to)}`]),
        ...(range.from === null && range.to === null ? [`${column} IS NOT NULL`] : []),
      ];
    }
    case 'nulls':
      return [`${nameOf(range.column)} IS NULL`];
    default:
      return range satisfies never;
  }
}

/** Names of the columns that a range is about. */
export function rangeColumnNames(range: ChunkRange): readonly string[] {
  if ('columns' in range) return range.columns;
  return 'column' in range ? [range.column] : [];
}

/** A row of one column is no row in SQL's grammar. */
function rowOf(items: readonly string[]): string {
  return items.length === 1 ? String(items[0]) : `(${items.join(', ')})`;
}

function literals(values: readonly string[]): string {
  return rowOf(values.map(quoteLiteral));
}

function ctid(text: string): string {
  if (!CTID.test(text)) throw new RangeError(`not a ctid: ${JSON.stringify(text)}`);
  return `${quoteLiteral(text)}::pg_catalog.tid`;
}
