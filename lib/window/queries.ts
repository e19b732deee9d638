/**
 * Streams that are read by query alone (FULL_TABLE, INCREMENTAL): no cut has anything of them, so a window only opens their epochs. Each window is a run of
 * theirs, if the run before is done; from the plan on, an epoch goes the way of all others.
 *
 * A stream is made, or begun anew, and an epoch opened, by one conditional write each; a window that dies in between is gone on with by the next.
 * What the file says of a stream's rows is remembered by its digest: under another method, replication key, key, choice of columns or filter, the table is
 * copied anew, and that is said.
 */
import type { StreamDefinition } from '../config/selection.ts';
import { endEpoch } from '../epoch/cancel.ts';
import { courseOf } from '../epoch/kinds.ts';
import { openAllRequested } from '../epoch/request.ts';
import type { Bookmark, Clock, Cut, Doorbell, Epoch, Ledger, Log, StopReason } from '../ports.ts';
import { displayName, tableKey } from '../shape.ts';
import { ringEpochWork, ringExtract } from './announce.ts';
import { releaseUnfollowed } from './capture.ts';
import { followedOf } from './followed.ts';
import type { OpenChain } from './open-chain.ts';
import type { TableSchedules } from './table-schedules.ts';

interface QueryPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/**
 * Opens the runs of this window: of all, but for those whose table's time has not come. `since_ms`: only of streams whose last run was opened before this
 * time, so that several windows make one run; null: of all.
 */
export async function openRuns(
  ports: QueryPorts,
  opened: OpenChain,
  schedules: TableSchedules,
  since_ms: number | null,
): Promise<void> {
  // Read again, one by one: runs end while the window goes on.
  for (const stream of opened.queries) {
    await openRun(ports, opened.chain.head, stream, await ports.ledger.bookmark(stream.id), schedules, since_ms);
  }
}

/** The same while a window lasts, when the time of one has come. */
export async function openRunsDue(ports: QueryPorts, opened: OpenChain, schedules: TableSchedules): Promise<void> {
  if (schedules.runsAreDue()) await openRuns(ports, opened, schedules, null);
}

/** All that a window has to do where there is no slot to read: what the file no longer means is let go, and what somebody asked for begins. */
export async function endSlotless(ports: QueryPorts, opened: OpenChain): Promise<StopReason> {
  await releaseUnfollowed(ports, opened);
  await openAllRequested(ports, await ports.ledger.bookmarks());
  return 'end_lsn';
}

async function openRun(
  ports: QueryPorts,
  head: Cut,
  stream: StreamDefinition,
  known: Bookmark | null,
  schedules: TableSchedules,
  since_ms: number | null,
): Promise<void> {
  const { ledger, clock, log } = ports;
  const begun = await begin(ports, head, stream, known);
  const { epoch: number } = begun;
  const newest = number > 0 ? await ledger.epoch(begun.stream, number) : null;
  if (begun.halt !== null) return;
  if (newest && (newest.state === 'opened' || newest.state === 'planned')) {
    schedules.runHasNotEnded();
    // Whoever opened it died before it could say so, or whoever ended it: others ring only for streams that are being read.
    if (begun.state === 'live' && (await isReading(ledger, begun, number))) await ringEpochWork(ports, newest);
    return;
  }
  // A window that saw the epoch a moment before it ended has noted that the stream is being read, after the loader had noted that it is live: nobody else takes that back.
  if (newest?.state === 'done' && begun.state === 'syncing') {
    const { stream: id, captured_cut } = begun;
    await ledger.updateBookmark(id, { state: 'live' }, { captured_cut, epoch: number });
  }
  // The bookmark may be a moment older than the epoch, and say that it is being read still.
  const hadRun = begun.state !== 'captured' && newest !== null && newest.state !== 'cancelled';
  if (hadRun && since_ms !== null && newest.opened_at_ms >= since_ms) return;
  if (!schedules.runIsDue(begun, hadRun ? newest : null, begun.state === 'captured' && newest !== null)) return;
  const now_ms = clock.now();
  const epoch: Epoch = {
    stream: begun.stream,
    number: number + 1,
    kind: kindOf(begun, newest),
    where: null,
    state: 'opened',
    plan: null,
    chunks: null,
    rows_estimate: -1,
    held_cut: head.number,
    opened_at_ms: now_ms,
    rung_at_ms: now_ms,
    done_at_ms: null,
  };
  if (!(await ledger.openEpoch(epoch)) || !(await isReading(ledger, begun, epoch.number))) return;
  log.info('epoch_opened', { stream: begun.stream, epoch: epoch.number, kind: epoch.kind });
  await schedules.runOpened(begun, now_ms);
  await ringExtract(ports, [{ kind: 'plan', stream: begun.stream, epoch: epoch.number }]);
}

/** The first copy and each of FULL_TABLE into a shadow; one that begins anew gives up what was there, as a reset does. */
function kindOf({ method, state }: Bookmark, newest: Epoch | null): Epoch['kind'] {
  if (newest === null) return 'full_table';
  if (state === 'captured') return 'reset';
  // A copy that was given up has left no table, or the former one: it is made once more.
  if (newest.state === 'cancelled' && courseOf(newest.kind).into === 'shadow') return newest.kind;
  return method === 'INCREMENTAL' ? 'incremental' : 'full_table';
}

async function isReading(ledger: Ledger, { stream, captured_cut }: Bookmark, epoch: number): Promise<boolean> {
  return await ledger.updateBookmark(stream, { state: 'syncing' }, { captured_cut, epoch });
}

/** The stream's bookmark: a new one, the one that is known, or that one begun anew. */
async function begin(
  ports: QueryPorts,
  head: Cut,
  stream: StreamDefinition,
  known: Bookmark | null,
): Promise<Bookmark> {
  const { ledger, log } = ports;
  const { id, source, target, table, options } = stream;
  const now = {
    target,
    captured_cut: head.number,
    incarnation: head.incarnation,
    state: 'captured',
    halt: null,
    reset_requested: false,
    resync_requested: false,
    applied_cut: head.number,
    applied_lsn: head.end_lsn,
    followed: followedOf(table, '', stream.projection),
    method: options.replication_method,
    selection: stream.selection ?? null,
    replication: options.replication_key === null ? null : { key: options.replication_key, value: null },
  } satisfies Partial<Bookmark>;
  if (known === null) {
    const bookmark = {
      stream: id,
      table: source,
      epoch: 0,
      applied_at_ms: 0,
      rows_copied: 0,
      changes_applied: 0,
      ...now,
    };
    await ledger.addBookmark(bookmark);
    log.info('captured', { cut: head.number, tables: [displayName(source)], method: now.method });
    return bookmark;
  }
  const reason = reasonToBeginAnew(known, now);
  if (reason === null) return known;
  // Whatever is being read is not what is wanted any more.
  const running = known.epoch > 0 ? await ledger.epoch(id, known.epoch) : null;
  if (running) await endEpoch(ledger, running, reason);
  await ledger.updateBookmark(id, now);
  log.warn('stream_begins_anew', { stream: id, table: displayName(source), reason });
  return { ...known, ...now };
}

type Begun = Pick<Bookmark, 'target' | 'incarnation' | 'method' | 'selection' | 'replication'>;

/** A sentence without its subject; null: it goes on. */
function reasonToBeginAnew(known: Bookmark, now: Begun): string | null {
  const before = known.method ?? 'LOG_BASED';
  if (before !== now.method) return `replication_method is ${now.method} now, before it was ${before}`;
  if ((known.replication?.key ?? null) !== (now.replication?.key ?? null)) {
    return `replication_key is ${now.replication?.key} now, before it was ${known.replication?.key}`;
  }
  if (known.selection !== now.selection) return 'the file says otherwise of its key, its columns or its rows';
  if (tableKey(known.target) !== tableKey(now.target)) return `it goes to ${displayName(now.target)} now`;
  if (known.incarnation !== now.incarnation) return 'the ledger was begun anew';
  return known.reset_requested ? 'somebody asked for it, or its table had another shape, or was out of sight' : null;
}
