/**
 * The beginning of a window: the ground is looked at, the selection made, and the chain opened, or begun with its publication and slot.
 *
 * A chain is begun in an order that a crash cannot hurt: genesis in the ledger (from here a slot of our name is ours), publication, slot, and
 * the cut that says where the slot stands. Publication before slot: a slot cannot decode what was written before its publication was made.
 */

import type { Pipeline } from '../config/schema.ts';
import { isWanted, type StreamDefinition, selectTables } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import { beginChain, Chain } from '../ledger/chain.ts';
import { LSN_ZERO, type Lsn } from '../lsn.ts';
import type { Bookmark, Clock, Ground, Ledger, Log, Source, SourceTable } from '../ports.ts';
import { displayName, type TableName } from '../shape.ts';
import { groundFault } from '../slot/ground.ts';

interface OpenPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  readonly ledger: Ledger;
  readonly newId: () => string;
}

export interface OpenChain {
  readonly chain: Chain;
  readonly ground: Ground;
  readonly streams: readonly StreamDefinition[];
  /** Those that are captured when the rest has been read up to now: by the same window. */
  readonly later?: readonly StreamDefinition[];
  readonly bookmarks: readonly Bookmark[];
  /** All that the role sees on the source. */
  readonly tables: readonly SourceTable[];
  /** Where the source's log stood before its catalog was read. */
  readonly catalog_lsn: Lsn;
  /** Whether the file means a table of this name, be it there or not. */
  readonly isWanted: (name: TableName) => boolean;
}

/** Throws the first fault of the ground; and of the selection while nothing has been captured, so that nothing is changed by a wrong file. */
export async function openChain(ports: OpenPorts, pipeline: Pipeline): Promise<OpenChain> {
  const { source, ledger, clock } = ports;
  const head = await ledger.head();
  const ground = await source.look();
  const intended = head?.kind === 'genesis';
  const { replication_slot: slot, plugin, create_slot, database } = pipeline.source;
  const fault = groundFault(ground, {
    host: pipeline.source.host ?? 'embedded',
    port: pipeline.source.port,
    database,
    slot,
    plugin,
    create_slot,
    slot_intended: intended,
    head: intended ? null : head,
  });
  if (fault) throw fault;
  const bookmarks = await ledger.bookmarks();
  const tables = await source.tables();
  const selection = selectTables(tables, pipeline);
  const [selectionFault] = selection.faults;
  if (selectionFault && bookmarks.length === 0) throw selectionFault;
  for (const { code, message } of selection.faults) ports.log.warn('table_not_followed', { code, message });
  for (const { table, reason } of selection.skipped) {
    ports.log.info('table_skipped', { table: displayName(table), reason });
  }
  const { streams } = selection;
  const { flush_lsn: catalog_lsn } = ground;
  const found = { streams, bookmarks, tables, catalog_lsn, isWanted: (name: TableName) => isWanted(pipeline, name) };
  // A promotion that the slot survived goes on under a later timeline: the cuts from here on say so.
  const { system_identifier, timeline } = ground;
  if (head && !intended) return { chain: new Chain(ledger, clock, { ...head, timeline }), ground, ...found };

  const chain = head
    ? new Chain(ledger, clock, head)
    : await beginChain(ledger, clock, { incarnation: ports.newId(), system_identifier, timeline, position: LSN_ZERO });
  await source.publish(streams.map(({ table }) => table));
  const end_lsn = ground.slot ? await takeOver(source, slot) : await source.createSlot();
  await chain.append({ kind: 'slot', end_lsn });
  return { chain, ground: await source.look(), ...found };
}

/**
 * A slot that was there before the chain: what it holds is of no use, since nothing has been captured, and it may stand before the publication,
 * where it could not decode. It is moved to now.
 */
async function takeOver(source: Source, name: string): Promise<Lsn> {
  await source.advanceSlot(await source.insertLsn());
  const { slot } = await source.look();
  if (!slot) throw new SluiceError('SLOT_MISSING', { slot: name, known: false });
  return slot.confirmed_lsn;
}
