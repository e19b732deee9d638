/**
 * What the pipeline file says of the rows of the selected streams: their projections, filters, and the digest by which a stream is known to have been captured
 * under another file. And which streams must not be read as they are: a filter that the source cannot publish, or a hidden column that has another name by now.
 *
 * On the path between the selection and the capture; the salt of the hashes is read here, and goes no further than the hashes.
 */
import type { Pipeline, TableConfig } from '../config/schema.ts';
import type { Selection, StreamDefinition } from '../config/selection.ts';
import { SELECTION_OF_OLD, selectionDigest } from '../config/stream-options.ts';
import { SluiceError } from '../errors.ts';
import type { Bookmark, Source } from '../ports.ts';
import { projectionFor, projectionOf } from '../projection/projection.ts';
import { exposedColumn } from '../projection/table.ts';
import { displayName, tableKey } from '../shape.ts';
import { publishedFilter, rowFilterFault } from '../slot/row-filter.ts';

export interface SaltPort {
  /** The pipeline's `mask_salt`; null: the file names none. Throws SECRET_UNREADABLE. */
  readonly mask_salt?: () => Promise<string | null>;
}

/** What of the file decides how one stream is read. */
export type Chosen = Required<Pick<StreamDefinition, 'selection' | 'projection'>>;

/** Of any table that the entry means. */
export function chosenBy(options: TableConfig, salt: string | null): Chosen {
  return { selection: selectionDigest(options, salt), projection: projectionOf(options, salt) };
}

/** Null where nothing is hashed: a secret that nobody needs is not asked for. */
export async function saltFor(port: SaltPort, pipeline: Pick<Pipeline, 'tables'>): Promise<string | null> {
  const isNeeded = pipeline.tables.some(({ mask }) => Object.values(mask).includes('hash'));
  return isNeeded ? ((await port.mask_salt?.()) ?? null) : null;
}

export interface ChosenSelection extends Selection {
  /** By stream: why one is not followed, or not any further. */
  readonly unfit: ReadonlyMap<string, SluiceError>;
}

/** The selection with what the file says of each stream's rows; streams that must not be read are faults in it. */
export async function chosenSelection(
  ports: SaltPort & { readonly source: Pick<Source, 'filterFaults'> },
  pipeline: Pipeline,
  selection: Selection,
  { version, bookmarks }: { readonly version: number; readonly bookmarks: readonly Bookmark[] },
): Promise<ChosenSelection> {
  const salt = await saltFor(ports, pipeline);
  const known = new Map(bookmarks.map((bookmark) => [bookmark.stream, bookmark]));
  const streams: StreamDefinition[] = [];
  const unfit = new Map<string, SluiceError>();
  for (const selected of selection.streams) {
    const { selection: digest, projection } = chosenBy(selected.options, salt);
    const chosen = {
      ...selected,
      selection: digest,
      projection: projection && projectionFor(projection, selected.table),
    };
    const stream = { ...chosen, table: filtered(chosen, known.get(chosen.id) ?? null) };
    const fault = rowFilterFault(stream, version) ?? exposedFault(stream, known.get(stream.id) ?? null);
    if (fault) unfit.set(stream.id, fault);
    else streams.push(stream);
  }
  const refused = await ports.source.filterFaults?.(streams.map(({ table }) => table));
  const followed: StreamDefinition[] = [];
  for (const stream of streams) {
    const fault = refused?.get(tableKey(stream.source));
    if (fault) unfit.set(stream.id, fault);
    else followed.push(stream);
  }
  return { ...selection, streams: followed, faults: [...selection.faults, ...unfit.values()], unfit };
}

/** The table with the filter that it is published with. One that was published with a filter, and shall have none from here on, says so. */
function filtered(stream: StreamDefinition, bookmark: Bookmark | null): StreamDefinition['table'] {
  const filter = publishedFilter(stream);
  if (filter === null && (bookmark === null || isAsCaptured(stream, bookmark))) return stream.table;
  return { ...stream.table, filter };
}

/** Whether it was captured as the file has it now. */
export function isAsCaptured(
  { selection }: Pick<StreamDefinition, 'selection'>,
  bookmark: Pick<Bookmark, 'selection'>,
): boolean {
  return selection === undefined || (bookmark.selection ?? SELECTION_OF_OLD) === selection;
}

/**
 * A column that was hidden when the stream was captured, and goes by a name now of which the same file says nothing. Whoever wrote the file did not mean its
 * values to be seen.
 */
function exposedFault(stream: StreamDefinition & Chosen, bookmark: Bookmark | null): SluiceError | null {
  const { table, projection } = stream;
  if (!projection || !bookmark || !isAsCaptured(stream, bookmark)) return null;
  const column = exposedColumn(table, projection, new Set(bookmark.followed?.hidden));
  return column === null ? null : new SluiceError('COLUMN_EXPOSED', { table: displayName(table), column });
}
