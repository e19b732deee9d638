/**
 * The extractor for one stream, as the pipeline file has it: its columns projected, its rows filtered. The step before anything of an epoch is read.
 */
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import { isLogBased } from '../ledger/method.ts';
import { wantsLsnColumn } from '../lsn-column.ts';
import type { Bookmark, Extractor, SourceTable } from '../ports.ts';
import { chosenBy, isAsCaptured, type SaltPort, saltFor } from '../window/projecting.ts';
import { projectedExtractor } from './projected-extractor.ts';

/** Null: the file does not mean the stream any more, or says something else of it than when it was captured, so that its rows would be of two kinds. */
export async function chosenExtractor(
  ports: SaltPort,
  extractor: Extractor,
  pipeline: Pipeline,
  bookmark: Bookmark,
): Promise<Extractor | null> {
  const options = streamOptions(pipeline, bookmark.table);
  if (options === null) return null;
  const { selection, projection } = chosenBy(options, await saltFor(ports, pipeline));
  if (!isAsCaptured({ selection }, bookmark)) return null;
  const chosen = projectedExtractor(extractor, projection, options.where, bookmark.followed?.hidden);
  const wantsLsn = (table: SourceTable): boolean => isLogBased(bookmark) && wantsLsnColumn(pipeline, options, table);
  // Chunks are of the table as the source has it: the column that they lack is made with the target's table, and stays NULL.
  return {
    ...chosen,
    table: async (name) => {
      const table = await chosen.table(name);
      return table && wantsLsn(table) ? { ...table, lsn: true } : table;
    },
  };
}
