/**
 * The beginning of a window: the ground is looked at, the selection made, and the chain opened, or begun with its publication and slot.
 *
 * A chain is begun in an order that a crash cannot hurt: genesis in the ledger (from here a slot of our name is ours), publication, slot, and
 * the cut that says where the slot stands. Publication before slot: a slot cannot decode what was written before its publication was made. Where a slot was
 * lost, the chain is begun anew in the same order, in its middle (lost-slot.ts).
 */

import { isByQuery } from '../config/queryable.ts';
import type { Pipeline } from '../config/schema.ts';
import { isWanted, type StreamDefinition, selectTables } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import { beginChain, Chain } from '../ledger/chain.ts';
import { LSN_ZERO, type Lsn, lsnMax } from '../lsn.ts';
import type { Bookmark, Clock, Cut, Ground, Ledger, Log, Source, SourceTable } from '../ports.ts';
import { displayName, type TableName } from '../shape.ts';
import { isPositionLost, readingFault } from '../slot/ground.ts';
import { onFirmGround } from './lost-slot.ts';
import { chosenSelection, type SaltPort } from './projecting.ts';

interface OpenPorts extends SaltPort {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  readonly ledger: Ledger;
  readonly newId: () => string;
}

export interface OpenChain {
  readonly chain: Chain;
  readonly ground: Ground;
  /** Those that the log is read for. */
  readonly streams: readonly StreamDefinition[];
  /** Those that are read by query alone. */
  readonly queries: readonly StreamDefinition[];
  /** There is no slot, and none is needed. */
  readonly slotless: boolean;
  /** The slot was made, or moved to now, a moment ago: it has nothing that is older. */
  readonly slot_is_new?: boolean;
  /** The slot is gone, and with it everything but `queries`: what the window ends with. */
  readonly lost?: SluiceError;
  /** Those that are captured when the rest has been read up to now: by the same window. */
  readonly later?: readonly StreamDefinition[];
  readonly bookmarks: readonly Bookmark[];
  /** All that the role sees on the source. */
  readonly tables: readonly SourceTable[];
  /** Where the source's log stood before its catalog was read. */
  readonly catalog_lsn: Lsn;
  /** By stream: why it is not followed any further, though the file means it. */
  readonly unfit?: ReadonlyMap<string, SluiceError>;
  /** Whether the file means a table of this name, be it there or not. */
  readonly isWanted: (name: TableName) => boolean;
}

/** Throws the first fault of the ground; and of the selection while nothing has been captured, so that nothing is changed by a wrong file. */
export async function openChain(ports: OpenPorts, pipeline: Pipeline): Promise<OpenChain> {
  const { source, ledger, clock } = ports;
  // The ground first: the catalog that is read after it is no older.
  const looked = { head: await ledger.head(), ground: await source.look(), bookmarks: await ledger.bookmarks() };
  const unreadable = readingFault(looked.ground);
  if (unreadable) throw unreadable;
  const tables = await source.tables();
  const selected = selectTables(tables, pipeline);
  const selection = await chosenSelection(ports, pipeline, selected, {
    version: looked.ground.version,
    bookmarks: looked.bookmarks,
  });
  const [selectionFault] = selection.faults;
  if (selectionFault && looked.bookmarks.length === 0) throw selectionFault;
  for (const { code, message } of selection.faults) ports.log.warn('table_not_followed', { code, message });
  for (const { table, reason } of selection.skipped) {
    ports.log.info('table_skipped', { table: displayName(table), reason });
  }
  const streams = selection.streams.filter(({ options }) => !isByQuery(options));
  const queries = selection.streams.filter(({ options }) => isByQuery(options));
  const { flush_lsn: catalog_lsn } = looked.ground;
  const { unfit } = selection;
  const seen = {
    streams,
    queries,
    tables,
    catalog_lsn,
    unfit,
    isWanted: (name: TableName) => isWanted(pipeline, name),
  };
  if (streams.length === 0 && !hasSlot(looked.head)) return { ...(await withoutSlot(ports, looked)), ...seen };

  const firm = await onFirmGround(ports, pipeline, looked).catch((error: unknown) => lostSlot(error, queries));
  if (firm instanceof SluiceError) return { ...(await withoutSlot(ports, looked)), ...seen, streams: [], lost: firm };
  const { head, ground } = firm;
  const intended = head?.kind === 'genesis';
  // Read again: halts may have ended, and a resync been noted.
  const found = { ...seen, bookmarks: await ledger.bookmarks(), slotless: false };
  // A promotion that the slot survived goes on under a later timeline: the cuts from here on say so.
  const { system_identifier, timeline } = ground;
  if (head && !intended) return { chain: new Chain(ledger, clock, { ...head, timeline }), ground, ...found };

  const chain = head
    ? new Chain(ledger, clock, head)
    : await beginChain(ledger, clock, { incarnation: ports.newId(), system_identifier, timeline, position: LSN_ZERO });
  await source.publish(streams.map(({ table }) => table));
  // A slot that was there before: what it holds is of no use, since nothing has been captured, and it may stand before the publication, where it could not
  // decode. It is read from now on. Moved only by whoever has recorded that: another window may be at it as well, and its position would be passed over.
  const { slot } = ground;
  const end_lsn = slot ? lsnMax(await source.insertLsn(), slot.confirmed_lsn) : await source.createSlot();
  await chain.append({ kind: 'slot', end_lsn, system_identifier, timeline });
  if (slot) await source.advanceSlot(end_lsn);
  return { chain, ground: await source.look(), ...found, slot_is_new: true };
}

/** What is read by query does not need the slot, as long as the server is the same. Throws the others. */
function lostSlot(error: unknown, queries: readonly StreamDefinition[]): SluiceError {
  const isOfSlot = error instanceof SluiceError && isPositionLost(error) && error.code.startsWith('SLOT_');
  if (isOfSlot && queries.length > 0) return error;
  throw error;
}

/** Once there is a slot it must be read, whether anything is followed by it or not: it keeps the source's log. */
function hasSlot(head: Cut | null): boolean {
  return head !== null && head.kind !== 'genesis';
}

/** The chain of a pipeline that only reads by query is its genesis: the source is asked for nothing but rows, and may be a standby. */
async function withoutSlot(
  { ledger, clock, newId }: OpenPorts,
  {
    head,
    ground,
    bookmarks,
  }: { readonly head: Cut | null; readonly ground: Ground; readonly bookmarks: readonly Bookmark[] },
): Promise<Pick<OpenChain, 'chain' | 'ground' | 'bookmarks' | 'slotless'>> {
  const { system_identifier, timeline } = ground;
  const chain = head
    ? new Chain(ledger, clock, head)
    : await beginChain(ledger, clock, { incarnation: newId(), system_identifier, timeline, position: LSN_ZERO });
  return { chain, ground, bookmarks, slotless: true };
}
