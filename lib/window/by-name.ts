/**
 * How a stream is captured where the log knows tables by their names only (wal2json): what it has of another table that went by the name before would be
 * replayed over the copy. So the slot is first read up to now without the streams that are to be captured; then they are captured, from there on.
 *
 * On the path before the capture, as window/appends.ts is for pgoutput. pgoutput tells tables apart by their OIDs.
 */
import type { Pipeline } from '../config/schema.ts';
import type { StreamDefinition } from '../config/selection.ts';
import type { Source } from '../ports.ts';
import { tableKey } from '../shape.ts';
import { followedChange } from './followed.ts';
import type { OpenChain } from './open-chain.ts';

/**
 * The window as it must be gone through first. Null: no stream is to be captured, or nothing has been written since the chain's end, or the chain has
 * only begun.
 */
export async function beforeNames(
  { source }: { readonly source: Source },
  pipeline: Pipeline,
  opened: OpenChain,
): Promise<OpenChain | null> {
  const { chain, ground, streams, bookmarks } = opened;
  if (pipeline.source.plugin !== 'wal2json' || bookmarks.length === 0) return null;
  const known = new Map(bookmarks.map((bookmark) => [bookmark.stream, bookmark]));
  const published = await source.published(streams.map(({ table }) => table));
  const isWanted = ({ id, source: name, table }: StreamDefinition): boolean => {
    const bookmark = known.get(id);
    if (!bookmark || bookmark.reset_requested || bookmark.resync_requested) return true;
    return followedChange(bookmark.followed ?? null, table, published.get(tableKey(name)) ?? null).kind === 'lost';
  };
  const later = streams.filter(isWanted);
  if (later.length === 0) return null;
  const flush_lsn = await source.insertLsn();
  if (chain.head.end_lsn >= flush_lsn) return null;
  return {
    ...opened,
    streams: streams.filter((stream) => !later.includes(stream)),
    later,
    ground: { ...ground, flush_lsn },
  };
}
