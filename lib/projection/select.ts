/**
 * The columns of a chunk's query (epoch/extractor.ts): what is left out is not read, and what is redacted or NULL is so before it leaves the server. What is
 * hashed is read as it is: the log has PostgreSQL's text of it, which no expression gives for every type (bpchar, bool); lines.ts makes the hash. Pure.
 */
import type { SourceColumn, SourceTable } from '../ports.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';
import { type Projection, projectionFor, REDACTED } from './projection.ts';

/** Expressions in the order of the columns of `projectedTable(table, projection)`. `plain`: how a column's own value is read. */
export function selectList(
  table: Pick<SourceTable, 'columns' | 'generated'>,
  projection: Projection | null,
  plain: (column: SourceColumn) => string,
): string {
  if (projection === null) return table.columns.map(plain).join(', ');
  const { treatmentOf } = projectionFor(projection, table);
  return table.columns
    .flatMap((column) => {
      const treatment = treatmentOf(column.name);
      switch (treatment) {
        case 'drop':
          return [];
        case 'keep':
        case 'hash':
          return [plain(column)];
        case 'null':
          return ['NULL'];
        case 'redact':
          // IS NOT NULL would be false for a row of which a field is NULL.
          return [`CASE WHEN ${quoteIdentifier(column.name)} IS DISTINCT FROM NULL THEN ${quoteLiteral(REDACTED)} END`];
        default:
          return treatment satisfies never;
      }
    })
    .join(', ');
}
