/**
 * The extractor for one stream, as the pipeline file has it: its columns projected, its rows filtered. The step before anything of an epoch is read.
 */
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import type { Bookmark, Extractor } from '../ports.ts';
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
  return projectedExtractor(extractor, projection, options.where, bookmark.followed?.hidden);
}
