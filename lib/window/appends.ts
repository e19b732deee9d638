/**
 * How the first tables that are only appended to come in: their publication is a second one (slot/append-publication.ts), and a slot cannot decode by a
 * publication that was made after the position it reads from. So the slot is first read up to past the making, by the first publication alone; then the
 * tables are captured, and from there on both are named.
 */
import type { Pipeline } from '../config/schema.ts';
import type { StreamDefinition } from '../config/selection.ts';
import type { Ledger, Log, Source } from '../ports.ts';
import { displayName, tableKey } from '../shape.ts';
import { fullIdentitySql, isAppendOnly } from '../slot/append-publication.ts';
import type { OpenChain } from './open-chain.ts';

/**
 * The window as it must be gone through first: without these streams, up to the position that the slot must have reached before they may be captured. Null:
 * it stands past it, or there are none. A publication that some stream is followed by, and that is the same since, was there before.
 */
export async function beforeAppends(
  { source }: { readonly source: Source },
  pipeline: Pipeline,
  opened: OpenChain,
): Promise<OpenChain | null> {
  if (pipeline.source.plugin !== 'pgoutput') return null;
  const { chain, ground, streams, bookmarks } = opened;
  const appends = streams.filter(({ table }) => isAppendOnly(table));
  if (appends.length === 0) return null;
  const tables = appends.map(({ table }) => table);
  const known = new Map(bookmarks.map((bookmark) => [bookmark.stream, bookmark]));
  const published = await source.published(tables);
  const isFollowed = ({ id, source: table }: StreamDefinition): boolean => {
    const text = published.get(tableKey(table));
    return text !== undefined && known.get(id)?.followed?.published === text;
  };
  if (appends.some(isFollowed)) return null;
  await source.publish(tables);
  const flush_lsn = await source.insertLsn();
  if (chain.head.end_lsn >= flush_lsn) return null;
  const others = streams.filter((stream) => !appends.includes(stream));
  return { ...opened, streams: others, ground: { ...ground, flush_lsn } };
}

/** Says of each of these streams that has been captured what is not followed of it. */
export function warnOfAppends({ log }: { readonly log: Log }, streams: readonly StreamDefinition[]): void {
  for (const { table } of streams.filter((stream) => isAppendOnly(stream.table))) {
    const remedy = `${fullIdentitySql(table)} makes its updates and deletes followed, or a primary key.`;
    log.warn('append_only', { table: displayName(table), remedy });
  }
}

/** The window as it goes on from there. */
export async function lookAgain(
  { source, ledger }: { readonly source: Source; readonly ledger: Ledger },
  opened: OpenChain,
): Promise<OpenChain> {
  return { ...opened, slot_is_new: false, ground: await source.look(), bookmarks: await ledger.bookmarks() };
}
