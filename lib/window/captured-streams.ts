/**
 * What a window reads from the slot: the streams that the chain has captured and the selection still holds, each with how its changes are followed. A
 * stream that was taken out of the file is no longer read.
 */
import type { StreamDefinition } from '../config/selection.ts';
import type { CapturedStream } from '../cut/captured.ts';
import type { Keyless } from '../cut/multiset.ts';
import { LSN_MAX, LSN_ZERO, lsnMax } from '../lsn.ts';
import type { Bookmark, Ledger, SourceTable } from '../ports.ts';
import { hiddenNumbers } from '../projection/table.ts';
import { isAppendOnly } from '../slot/append-publication.ts';
import { isAsCaptured } from './projecting.ts';

/** `captured`: the bookmarks of what the chain has captured. `key_may_go`: a table that loses its key is followed without one. */
export async function capturedStreams(
  ledger: Pick<Ledger, 'epoch' | 'chunks'>,
  streams: readonly StreamDefinition[],
  captured: readonly Bookmark[],
  key_may_go: boolean,
): Promise<CapturedStream[]> {
  const known = new Map(captured.map((bookmark) => [bookmark.stream, bookmark]));
  const found: CapturedStream[] = [];
  for (const stream of streams) {
    const { id, source, table } = stream;
    const bookmark = known.get(id);
    // One that waits to be captured as the file has it by now: its table is that of the former file.
    if (!bookmark || !isAsCaptured(stream, bookmark)) continue;
    const keyless = await keylessOf(ledger, table, bookmark);
    const { schema, table: name } = source;
    const hidden = hiddenOf(stream);
    found.push({
      stream: id,
      schema,
      table: name,
      key: table.key,
      key_may_go,
      oid: table.oid,
      ...keyless,
      ...hidden,
      filtered: typeof table.filter === 'string',
      ...(table.lsn === true ? { lsn: true } : {}),
      ...(bookmark.log_from ? { log_from: bookmark.log_from } : {}),
    });
  }
  return found;
}

/** What of its columns is hidden; nothing where it is nothing. */
function hiddenOf({ table, projection }: StreamDefinition): Pick<CapturedStream, 'projection' | 'known'> {
  if (!projection) return {};
  const columns = [...table.columns, ...(table.generated ?? [])].map(({ name }) => name);
  const hidden = table.columns.map(({ name }) => name).filter((name) => projection.treatmentOf(name) !== 'keep');
  const known = { columns: new Set(columns), hidden, numbers: new Set(hiddenNumbers(table, projection)) };
  return { projection, known };
}

/**
 * How changes of a table without a key are followed; nothing where it has one. Until it is known what its copy has, any transaction may be in it; once the
 * stream is live, none that is still to come.
 */
async function keylessOf(
  ledger: Pick<Ledger, 'epoch' | 'chunks'>,
  table: SourceTable,
  { stream, state, epoch: number }: Bookmark,
): Promise<{ readonly keyless?: Keyless }> {
  if (table.key.length > 0) return {};
  const rows = isAppendOnly(table) ? 'append' : 'multiset';
  if (state !== 'catching_up') return { keyless: { rows, apart_before: state === 'live' ? LSN_ZERO : LSN_MAX } };
  const epoch = await ledger.epoch(stream, number);
  const chunks = epoch?.plan == null ? [] : await ledger.chunks(stream, number, epoch.plan);
  const copied = chunks.flatMap(({ staged }) => staged?.lsn ?? []).reduce(lsnMax, LSN_ZERO);
  return { keyless: { rows, apart_before: copied > LSN_ZERO ? copied : LSN_MAX } };
}
