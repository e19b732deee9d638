/**
 * When the place in the source's log is gone for good: the slot was lost, dropped or made anew by others, or the source is another cluster. What was written
 * since cannot be read any more, by no stream.
 *
 * So each of them halts with that reason, and nothing is given up before somebody asks for it (`sluice resume --resync`). Then the window begins the chain
 * anew: a genesis in the middle of it (from here on, a slot of our name is ours), the lost slot dropped, a new one, and the `slot` cut that says where it
 * stands. No stream applies cuts past a genesis (lib/load/steps.ts): each is captured anew, and compared with its table (epoch `resync`).
 *
 * Where the ground turns out to be firm after all (the file named another slot or host by mistake), the halts end by themselves: no window has read
 * anything meanwhile. Not so where the log ended before what had been read: it grows past that position, with other changes in it.
 */
import type { Pipeline } from '../config/schema.ts';
import { isWanted } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import { Chain } from '../ledger/chain.ts';
import { isLogBased } from '../ledger/method.ts';
import { formatLsn } from '../lsn.ts';
import type { Bookmark, Clock, Cut, Ground, Ledger, Log, Source } from '../ports.ts';
import { type GroundExpectations, groundFault, isPositionLost, slotFault } from '../slot/ground.ts';
import { timelineFault } from '../slot/timelines.ts';
import { quoteLiteral } from '../sql-text.ts';
import { haltStream } from './halt.ts';

interface LostPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  readonly ledger: Ledger;
}

/** At head and ground, while another window moves them. */
const LOOKS_MAX = 5;

interface Looked {
  readonly head: Cut | null;
  readonly ground: Ground;
  readonly bookmarks: readonly Bookmark[];
}

/**
 * Head and ground as the window goes on from them: as they were looked at, where the ground is firm; after a new beginning, where one was asked for.
 * Throws the first fault of the ground, and halts the streams first where it has lost their position.
 */
export async function onFirmGround(
  ports: LostPorts,
  pipeline: Pipeline,
  looked: Looked,
  looks = 1,
): Promise<Pick<Looked, 'head' | 'ground'>> {
  const { head, ground } = looked;
  const fault =
    groundFault(ground, expectationsOf(pipeline, head)) ??
    leftBehind(looked) ??
    (head === null || isIntent(head) ? null : await timelineFault(ports.source, ground, head));
  if (fault === null) {
    await releaseHalts(ports, looked.bookmarks);
    return { head, ground };
  }
  if (head === null || !isPositionLost(fault) || (isIntent(head) && head.number === 0)) throw fault;
  // A window that lives on after its lease may have moved the chain, and then the slot, between the look at the one and at the other.
  const now = await ports.ledger.head();
  if (now?.number !== head.number) {
    if (looks >= LOOKS_MAX) throw new SluiceError('WINDOW_LOST', { cut: head.number });
    return await onFirmGround(ports, pipeline, { ...looked, head: now, ground: await ports.source.look() }, looks + 1);
  }
  const followed = looked.bookmarks.filter(isLogBased);
  const wanted = followed.filter(({ table }) => isWanted(pipeline, table));
  // Where no stream has anything to lose, nobody needs to be asked.
  if (isIntent(head) || wanted.length === 0 || wanted.some(({ resync_requested }) => resync_requested)) {
    return await beginAnew(ports, pipeline, { ...looked, head, bookmarks: followed }, fault);
  }
  for (const { stream, halt } of wanted) {
    if (isTold(halt, fault)) continue;
    await haltStream(ports, stream, fault, { cut: null, must_reset: true });
  }
  throw fault;
}

/** What the ledger expects of the source. A genesis that no slot has followed yet: any slot of the name is ours, wherever it stands. */
function expectationsOf({ source }: Pipeline, head: Cut | null): GroundExpectations {
  const intended = head !== null && isIntent(head);
  return {
    host: source.host ?? 'embedded',
    port: source.port,
    database: source.database,
    slot: source.replication_slot,
    plugin: source.plugin,
    failover: source.failover,
    create_slot: source.create_slot,
    slot_intended: intended,
    head: intended ? null : head,
  };
}

/** What is wrong with the slot of a chain that ends with `head`; null: nothing. Pure. */
export function chainSlotFault(pipeline: Pipeline, ground: Ground, head: Cut): SluiceError | null {
  return groundFault(ground, expectationsOf(pipeline, head));
}

function isIntent({ kind }: Cut): boolean {
  return kind === 'genesis';
}

/**
 * The log was found to end before the chain does, and has grown past it since. A stream that is captured anew whatever its halt says, as one that the file no
 * longer names, is no witness: its halt outlasts the new beginning.
 */
function leftBehind({ head, bookmarks }: Looked): SluiceError | null {
  const isWitness = ({ halt, reset_requested }: Bookmark): boolean =>
    halt?.code === 'CLUSTER_BEHIND' && !reset_requested;
  if (head === null || isIntent(head) || !bookmarks.some(isWitness)) return null;
  return new SluiceError('CLUSTER_BEHIND', { expected: formatLsn(head.end_lsn) });
}

/**
 * The stream's halt says as much already. One that only a reset could end stays, or it would end when this one does; a log that has ended too early is told
 * whatever else there is, for it is not seen twice.
 */
function isTold(halt: Bookmark['halt'], { code }: SluiceError): boolean {
  if (halt === null || !halt.must_reset) return false;
  if (halt.code === code || halt.code === 'CLUSTER_BEHIND') return true;
  return code !== 'CLUSTER_BEHIND' && !isPositionLost({ code: halt.code });
}

/** The position is there after all, and nothing has been read meanwhile. */
async function releaseHalts({ ledger, log }: LostPorts, bookmarks: readonly Bookmark[]): Promise<void> {
  for (const { stream, halt, resync_requested } of bookmarks) {
    if (!halt?.must_reset || resync_requested || !isPositionLost({ code: halt.code })) continue;
    await ledger.updateBookmark(stream, { halt: null });
    log.info('stream_resumed', { stream, code: halt.code });
  }
}

/** `bookmarks`: of all streams that the log is read for. */
async function beginAnew(
  { source, ledger, clock, log }: LostPorts,
  pipeline: Pipeline,
  { head, ground, bookmarks }: Looked & { readonly head: Cut },
  fault: SluiceError,
): Promise<Pick<Looked, 'head' | 'ground'>> {
  const { replication_slot: slot } = pipeline.source;
  const dropsSlot = mustDrop(pipeline, head, ground);
  // Before the chain says that the position has jumped: from then on, nothing else tells that a stream must be captured anew.
  for (const { stream, resync_requested } of bookmarks) {
    if (!resync_requested) await ledger.updateBookmark(stream, { resync_requested: true });
  }
  const chain = new Chain(ledger, clock, head);
  const { system_identifier, timeline } = ground;
  if (!isIntent(head)) {
    await chain.append({ kind: 'genesis', end_lsn: head.end_lsn, system_identifier, timeline });
    log.warn('position_given_up', { slot, code: fault.code, lsn: formatLsn(head.end_lsn), reason: fault.message });
  }
  if (!dropsSlot) return { head: chain.head, ground };
  await source.dropLostSlot();
  return { head: chain.head, ground: { ...ground, slot: null } };
}

/**
 * Whether a slot of our name is in the way. Throws what keeps a new one from being made, before anything is given up: on another cluster, a slot that works may
 * be anybody's.
 */
function mustDrop({ source }: Pipeline, head: Cut, { slot: row, system_identifier }: Ground): boolean {
  const { replication_slot: slot, plugin, database, create_slot } = source;
  const slot_intended = isIntent(head) || system_identifier === head.system_identifier;
  const fault = slotFault(row, { slot, plugin, database, create_slot, slot_intended, head: null });
  if (fault === null) return false;
  if (fault.code !== 'SLOT_LOST' || row === null) throw fault;
  if (!create_slot) {
    const names = [slot, plugin].map(quoteLiteral);
    const sql = `SELECT pg_drop_replication_slot(${names[0]}); SELECT pg_create_logical_replication_slot(${names.join(', ')});`;
    throw new SluiceError('SLOT_LOST', { ...fault.facts, sql });
  }
  const { active_pid: pid, active_application: application_name, active_client: client } = row;
  if (pid !== null) throw new SluiceError('SLOT_ACTIVE', { slot, pid, application_name, client });
  return true;
}
