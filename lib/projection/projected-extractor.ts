/**
 * An Extractor for one stream of which columns are hidden, or rows left out: tables are as the stream has them, and lines have masks in place of values. What
 * lies behind it reads the source; what uses it plans, stages and makes tables, and never sees a hidden value.
 */
import { pipeline } from 'node:stream';
import { rangeColumnNames } from '../epoch/range-sql.ts';
import { SluiceError } from '../errors.ts';
import type { ChunkRange, ChunkRead, ChunkRequest, Extractor, SourceTable } from '../ports.ts';
import { displayName } from '../shape.ts';
import { HashingLines } from './lines.ts';
import type { Projection } from './projection.ts';
import { exposedColumn, projectedTable } from './table.ts';

/** `where`: the stream's row filter. `hidden`: numbers of the columns that were hidden when the stream was captured (Followed.hidden). */
export function projectedExtractor(
  extractor: Extractor,
  projection: Projection | null,
  where: string | null,
  hidden: readonly number[] = [],
): Extractor {
  if (projection === null && where === null) return extractor;
  const numbers = new Set(hidden);
  const request = (asked: ChunkRequest): ChunkRequest => ({
    ...asked,
    filter: where,
    projection,
  });
  return {
    ...extractor,
    table: async (name) => {
      const table = await extractor.table(name);
      if (table) assertHidden(table, projection, numbers);
      return table && projectedTable(table, projection);
    },
    sample: (table, asked) => extractor.sample(table, { ...asked, filter: where }),
    pages: (table, asked) => extractor.pages(table, { ...asked, filter: where }),
    readChunk: async (table, range, asked) => {
      if (isByHidden(table, range)) {
        const what =
          'rows were to be read by a key that the pipeline file hides, and the source knows them by its values only.';
        throw new SluiceError('TABLE_REWRITTEN', { stream: displayName(table), what });
      }
      const read = await extractor.readChunk(table, range, request(asked));
      try {
        // As the chunk's own transaction sees it: a column may have got another name since the epoch was planned.
        assertHidden(read.table, projection, numbers);
      } catch (error) {
        read.lines.destroy();
        throw error;
      }
      return projection === null ? read : projectedRead(read, projection);
    },
  };
}

/** Nothing is read while a hidden column goes by another name: the next window halts the stream (window/projecting.ts). Throws SOURCE_TRANSIENT. */
function assertHidden(table: SourceTable, projection: Projection | null, hidden: ReadonlySet<number>): void {
  const column = projection && exposedColumn(table, projection, hidden);
  if (column === null) return;
  const reason = `column ${column} of ${displayName(table)} has come up while its rows were read, and has values that the pipeline file hides`;
  throw new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
}

/** Bounds that are masks are none of the source's values. */
function isByHidden({ columns }: SourceTable, range: ChunkRange): boolean {
  const names = rangeColumnNames(range);
  return columns.some(({ name, mask }) => mask !== undefined && names.includes(name));
}

function projectedRead(read: ChunkRead, projection: Projection): ChunkRead {
  const table = projectedTable(read.table, projection);
  const hashed = table.columns.map(({ mask }) => mask === 'hash');
  if (!hashed.includes(true)) return { ...read, table };
  const lines = new HashingLines(hashed, projection.salt);
  // An error of either ends the other, and is thrown to whoever reads the lines.
  pipeline(read.lines, lines, () => {});
  return { ...read, table, lines };
}
