/**
 * The Extractor as one stream sees the source: a table that is read by query alone has the key that the file names, and its generated columns among the others
 * (lib/config/queryable.ts). What plans, stages and compares need not know of it.
 */
import { byQuery, isByQuery, type QueryOptions } from '../config/queryable.ts';
import type { Extractor } from '../ports.ts';

/** `options`: what the file says of the stream; null: it says nothing any more, and its epoch ends as a table of the log. */
export function queryExtractor(extractor: Extractor, options: QueryOptions | null): Extractor {
  if (options === null || !isByQuery(options)) return extractor;
  return {
    ...extractor,
    table: async (name) => {
      const table = await extractor.table(name);
      return table && byQuery(table, options.key_properties);
    },
  };
}
