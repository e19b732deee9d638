/**
 * Changes of a table's shape that no change of its rows has told of.
 *
 * The log describes a table ahead of the next change of its rows. A column that is added with a default to a table to which nobody writes for a month would
 * be missing on the target for that month. So each window compares the catalog's definition of every table with the one that the chain has told last,
 * and tells of the new one by a segment without rows, in its place in the order: when everything has been read that was written before the catalog
 * was looked at.
 */
import type { StreamDefinition } from '../config/selection.ts';
import type { CapturedStream } from '../cut/captured.ts';
import type { OpenCut } from '../cut/open-cut.ts';
import type { Lsn } from '../lsn.ts';
import type { Bookmark, Ground, Ledger, Source } from '../ports.ts';
import { GENERATED_PUBLISHED_SINCE } from '../postgres/versions.ts';
import { projectedTable } from '../projection/table.ts';
import { tableShape } from '../slot/table-shape.ts';

export interface ShapeNews {
  readonly streams: readonly StreamDefinition[];
  /** Past every change that was written to these tables in their former shapes. */
  readonly lsn: Lsn;
}

interface Seen {
  readonly streams: readonly StreamDefinition[];
  readonly captured: readonly Bookmark[];
  readonly ground: Pick<Ground, 'version'>;
}

/** Null: there are none. Must be asked after the catalog was read, for the position to be past what it shows. */
export async function shapeNews(
  { source }: { readonly source: Pick<Source, 'insertLsn'> },
  { streams, captured, ground }: Seen,
  plugin: string,
): Promise<ShapeNews | null> {
  const known = new Map(captured.map((bookmark) => [bookmark.stream, bookmark]));
  const changed = streams.filter(({ id, table }) => {
    const bookmark = known.get(id);
    if (!bookmark || bookmark.reset_requested || table.definition === undefined) return false;
    // Which columns the log brings is not known here where it may bring generated ones: these tables tell of themselves at their next change.
    const mayBring = plugin !== 'pgoutput' || ground.version >= GENERATED_PUBLISHED_SINCE;
    if (mayBring && table.generated?.some(({ storage }) => storage === 's')) return false;
    return bookmark.definition !== table.definition;
  });
  return changed.length === 0 ? null : { streams: changed, lsn: await source.insertLsn() };
}

/** The chain has told of them. */
export async function rememberTold(
  { ledger }: { readonly ledger: Pick<Ledger, 'updateBookmark'> },
  streams: readonly StreamDefinition[],
): Promise<void> {
  for (const { id, table } of streams) await ledger.updateBookmark(id, { definition: table.definition ?? null });
}

/** Tells of shapes in their place in the order: when everything has been read that was written in the former ones. Returns of whose. */
export function tellNews(
  cut: OpenCut,
  streams: readonly CapturedStream[],
  news: ShapeNews | null,
): readonly StreamDefinition[] {
  if (news === null || cut.end_lsn < news.lsn) return [];
  for (const { id, table } of news.streams) {
    const stream = streams.find((captured) => captured.stream === id);
    if (stream) cut.tell(stream, table.oid, tableShape(projectedTable(table, stream.projection ?? null)));
  }
  return news.streams;
}
