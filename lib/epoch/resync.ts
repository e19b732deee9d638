/**
 * An epoch that brings a stream up again after the log was lost (window/lost-slot.ts): every range of the table is compared between the source and the held
 * target, and copied only where it differs.
 *
 * On the path these are two steps of `extract.ts`: before the plan, whether the stream can be compared at all; before a chunk is read, whether it need be. As
 * with every epoch the chain goes on from the capture, up to past the newest snapshot: that of a comparison counts like that of a copy.
 */
import type { Bookmark, Chunk, Comparer, Epoch, Extractor, Ledger, Log, SourceTable } from '../ports.ts';

interface ResyncPorts {
  readonly log: Log;
  readonly extractor: Extractor;
  readonly ledger: Ledger;
  readonly comparer: Comparer;
}

/**
 * The epoch as it is to be planned: as it is, or as a reset where the tables cannot be compared. Null: somebody else has planned it meanwhile. A table that is gone
 * is the planner's to find.
 */
export async function comparedOrReset(ports: ResyncPorts, bookmark: Bookmark, epoch: Epoch): Promise<Epoch | null> {
  const { extractor, ledger, comparer, log } = ports;
  const { stream, target, incarnation } = bookmark;
  const table = await extractor.table(bookmark.table);
  const reason = table && (await comparer.obstacle({ stream, target }, table, incarnation));
  if (reason === null) return epoch;
  const reset: Epoch = { ...epoch, kind: 'reset' };
  if (!(await ledger.updateEpoch(reset, 'opened'))) return null;
  log.warn('resync_copies_anew', { stream, epoch: epoch.number, reason });
  return reset;
}

/** The chunk as it is staged where the target has its rows already; null: it must be copied. */
export async function heldChunk(
  { comparer }: Pick<ResyncPorts, 'comparer'>,
  { stream, target }: Bookmark,
  chunk: Chunk,
  table: SourceTable,
): Promise<Chunk | null> {
  const equal = await comparer.equalRows({ stream, target }, table, chunk.range);
  return equal && { ...chunk, staged: { object: null, object_bytes: 0, text_bytes: 0, ...equal } };
}
