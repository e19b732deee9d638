/**
 * Taking streams in (I11): publication, then the transactions that may have written before it, then the cut that captures, then the epochs.
 *
 * pgoutput judges each change by the publication as it was when the change was written. A transaction that wrote to a table before the table was
 * published, and commits later, is not in the log, and not in a snapshot taken before it commits. So, like CREATE INDEX CONCURRENTLY, the window
 * waits for whoever holds a write lock on the table after the publication is there: every later snapshot sees what they did.
 *
 * wal2json has no publication: what commits after the chain's end is in the log, whoever wrote it and when. The wait is needed all the same: a transaction
 * whose commit lies before the chain's end may not be seen by snapshots yet (it waits for a synchronous standby), and holds its locks until it is.
 */
import type { StreamDefinition } from '../config/selection.ts';
import { courseOf } from '../epoch/kinds.ts';
import { dropRequests, openAllRequested } from '../epoch/request.ts';
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { LSN_ZERO } from '../lsn.ts';
import type { Bookmark, Clock, Doorbell, Epoch, Followed, Ledger, Log, Published, Source } from '../ports.ts';
import { displayName, tableKey } from '../shape.ts';
import { ringExtract } from './announce.ts';
import { warnOfAppends } from './appends.ts';
import { followedChange, followedOf, goneFault } from './followed.ts';
import { captureAnew, haltStream } from './halt.ts';
import type { OpenChain } from './open-chain.ts';
import { isAsCaptured } from './projecting.ts';
import { capturable } from './writers.ts';

interface CapturePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/** Whom a window tells of a fault that it ends with, when it has done what can be done. */
interface CaptureRun {
  readonly run: { failsWith(fault: SluiceError): void };
}

/**
 * Captures the streams that are new, that somebody wants anew, or whose changes have been out of sight; and opens their epochs. Returns the
 * bookmarks of all captured streams. `asked`: the window shall end, and waits for nobody. `isPaused`: a new table waits with its copy (table-schedules.ts).
 */
export async function capture(
  ports: CapturePorts,
  opened: OpenChain & CaptureRun,
  asked: () => boolean = () => false,
  isPaused: (stream: string) => boolean = () => false,
): Promise<readonly Bookmark[]> {
  const { chain, streams, bookmarks } = opened;
  const known = new Map(bookmarks.map((bookmark) => [bookmark.stream, bookmark]));
  const before = await ports.source.published(streams.map(({ table }) => table));
  await releaseUnfollowed(ports, opened);
  const wanted: StreamDefinition[] = [];
  const followed = new Map<StreamDefinition, Followed>();
  for (const stream of streams) {
    const bookmark = known.get(stream.id);
    if (bookmark && isLogBased(bookmark) && !bookmark.reset_requested && !bookmark.resync_requested) {
      const now = await stillFollowed(ports, stream, bookmark, before.get(tableKey(stream.source)) ?? null);
      if (now) {
        followed.set(stream, now);
        continue;
      }
    }
    wanted.push(stream);
  }
  const publishing = streams.length > 0 ? await publish(ports, opened, wanted, followed) : null;
  if (publishing !== null) {
    const { published, altered, refused = [] } = publishing;
    for (const { table, problem, remedy } of refused) {
      ports.log.warn('updates_refused', { table: displayName(table), problem, remedy });
    }
    await keepFollowed(ports, followed, published, altered);
    // A slot that was just made has nothing of anybody. In another a table may have been seen that is not published now, and was never captured.
    const seen = opened.slot_is_new ? wanted.filter(isJudged) : wanted;
    const { free, log_from } = await capturable(ports, wanted, seen, asked);
    if (free.length > 0) {
      const cut = await chain.append({
        kind: 'captures',
        end_lsn: chain.head.end_lsn,
        captures: free.map(({ id }) => id),
      });
      for (const stream of free) {
        const now = followedOf(stream.table, published.get(tableKey(stream.source)) ?? '', stream.projection);
        const capturedAt = {
          captured_cut: cut.number,
          incarnation: cut.incarnation,
          definition: stream.table.definition ?? null,
          selection: stream.selection ?? null,
          log_from: seen.includes(stream) ? log_from : null,
        };
        await bookmarkCapture(ports, stream, known.get(stream.id) ?? null, { ...capturedAt, followed: now });
      }
      ports.log.info('captured', { cut: cut.number, tables: free.map(({ source }) => displayName(source)) });
      warnOfAppends(ports, free);
    }
  }
  const now = await ports.ledger.bookmarks();
  for (const bookmark of now) await openEpoch(ports, bookmark, known.get(bookmark.stream) ?? null, isPaused);
  await openAllRequested(ports, now);
  return now;
}

/**
 * What publishes all of them; also where nobody is new: a table that is followed may have come to need a setting, without which the source refuses its updates.
 * Null: the source refuses, or the tables that are new are locked by others, perhaps for hours (an index is built, a vacuum freezes). Nothing is captured then; but who is
 * followed already is read all the same, so that they do not hold the log for it (I10), and the window ends with the fault.
 */
async function publish(
  { source, log }: CapturePorts,
  { streams, run }: OpenChain & CaptureRun,
  wanted: readonly StreamDefinition[],
  followed: ReadonlyMap<StreamDefinition, Followed>,
): Promise<Awaited<ReturnType<Source['publish']>> | null> {
  try {
    return await source.publish(streams.map(({ table }) => table));
  } catch (thrown) {
    if (followed.size === 0 || !(thrown instanceof SluiceError)) throw thrown;
    const { code, message, remedy } = thrown;
    log.warn('capture_postponed', {
      tables: wanted.map((stream) => displayName(stream.source)),
      code,
      message,
      remedy,
    });
    run.failsWith(thrown);
    return null;
  }
}

/**
 * A stream that is no longer followed (taken out of the file, renamed, dropped, without a key) has its changes passed over from here on. Should it come
 * back, it must be captured anew: noted before the first change is passed over. Where the file still means it, and the table goes by
 * another name, or is gone, or has names that the target would cut, it halts, so that somebody hears of it.
 */
export async function releaseUnfollowed(
  ports: Pick<CapturePorts, 'clock' | 'log' | 'ledger'>,
  { streams, queries, later = [], bookmarks, tables, isWanted, unfit }: OpenChain,
): Promise<void> {
  const followed = new Set([...streams, ...queries, ...later].map(({ id }) => id));
  const left = bookmarks.filter(({ stream }) => !followed.has(stream));
  if (left.length > 0) await dropRequests(ports, (stream) => !followed.has(stream));
  for (const bookmark of left) {
    const { stream, table, reset_requested, resync_requested } = bookmark;
    // Whoever comes back is copied anew.
    if (resync_requested) await ports.ledger.updateBookmark(stream, { reset_requested: true, resync_requested: false });
    const exposure = unfit?.get(stream);
    if (exposure) {
      if (bookmark.halt?.code === exposure.code) continue;
      // What was hidden is remembered, until the file says something of it.
      await haltStream(ports, stream, exposure, { cut: null, must_reset: false }, { reset_requested: true });
      continue;
    }
    const fault = isWanted(table) ? goneFault(bookmark, tables) : null;
    if (fault) {
      // Told once: what it followed is forgotten with it.
      const at = { cut: null, must_reset: false };
      await haltStream(ports, stream, fault, at, { reset_requested: true, followed: null });
    } else if (!reset_requested) {
      await ports.ledger.updateBookmark(stream, { reset_requested: true });
      ports.log.warn('stream_released', { stream, table: displayName(table) });
    }
  }
}

/** What it follows now, where nothing has been lost since the last window; null: it must be captured anew, and that is noted. */
async function stillFollowed(
  { source, ledger, log }: CapturePorts,
  stream: StreamDefinition,
  bookmark: Bookmark,
  published: string | null,
): Promise<Followed | null> {
  const { id, table } = stream;
  const change = followedChange(bookmark.followed ?? null, table, published);
  let reason = change.kind === 'lost' ? change.reason : null;
  if (!isAsCaptured(stream, bookmark)) {
    reason = 'the pipeline file says something else of it than before (method, key, columns, masks or row filter)';
  }
  if (change.kind === 'grown' && (await source.filledBefore(change.partitions)).length > 0) {
    reason = 'a table was attached as a partition, with rows that are not in the log';
  }
  if (reason !== null || published === null) {
    // Noted before it is published again: a window that ends in between must not leave a table that looks as if nothing had been.
    await captureAnew({ ledger, log }, id, { table: displayName(table), reason });
    return null;
  }
  const seen = followedOf(table, published, stream.projection);
  // Its file stays that of its copy.
  const now = bookmark.followed ? { ...seen, file: bookmark.followed.file ?? null } : seen;
  const isNews = change.kind === 'grown' || typeof bookmark.followed?.key !== 'string';
  if (isNews || String(bookmark.followed?.hidden) !== String(seen.hidden))
    await ledger.updateBookmark(id, { followed: now });
  return now;
}

/**
 * The streams that are not captured now, after the publication was changed for others. If its settings were altered by us, nothing of theirs was passed
 * over; if not, somebody else has been at it in this moment, and the next window captures them anew.
 */
async function keepFollowed(
  { ledger, log }: CapturePorts,
  followed: ReadonlyMap<StreamDefinition, Followed>,
  published: Published,
  altered: boolean,
): Promise<void> {
  for (const [{ id, source }, before] of followed) {
    const now = published.get(tableKey(source));
    if (now === before.published) continue;
    if (altered && now !== undefined) {
      await ledger.updateBookmark(id, { followed: { ...before, published: now } });
    } else {
      await captureAnew({ ledger, log }, id, { table: displayName(source), reason: 'the publication was altered' });
    }
  }
}

/** What the log has of its rows depends on what was said of it when they were written: names of hidden columns, and filters. */
function isJudged({ projection, table }: StreamDefinition): boolean {
  return (projection ?? null) !== null || table.filter !== undefined;
}

async function bookmarkCapture(
  { ledger }: CapturePorts,
  { id, source, target }: StreamDefinition,
  known: Bookmark | null,
  at: Pick<Bookmark, 'captured_cut' | 'incarnation' | 'definition' | 'selection' | 'log_from'> & {
    readonly followed: Followed;
  },
): Promise<void> {
  if (known) {
    // It may have been read by query before.
    const followedBy = isLogBased(known) ? {} : ({ method: 'LOG_BASED', replication: null } as const);
    // A window that was faster has captured it by the same cut, or somebody has opened an epoch: what asked for the capture asks still, or is done.
    const { captured_cut, epoch } = known;
    await ledger.updateBookmark(
      id,
      { target, ...at, ...followedBy, state: 'captured', halt: null },
      { captured_cut, epoch },
    );
    return;
  }
  await ledger.addBookmark({
    stream: id,
    table: source,
    target,
    ...at,
    epoch: 0,
    state: 'captured',
    halt: null,
    reset_requested: false,
    applied_cut: at.captured_cut,
    applied_lsn: LSN_ZERO,
    applied_at_ms: 0,
    rows_copied: 0,
    changes_applied: 0,
  });
}

/**
 * Opens the epoch of a stream that has been captured since its last one. A window that died between the capture and here leaves a captured stream
 * without an epoch for this capture: found by the epoch's `held_cut`, it is opened now.
 */
async function openEpoch(
  ports: CapturePorts,
  bookmark: Bookmark,
  before: Bookmark | null,
  isPaused: (stream: string) => boolean,
): Promise<void> {
  const { ledger, clock } = ports;
  if (bookmark.state !== 'captured' || !isLogBased(bookmark)) return;
  const newest = bookmark.epoch > 0 ? await ledger.epoch(bookmark.stream, bookmark.epoch) : null;
  // One that was asked for of a stream which was captured in that moment is not of the capture, whatever it says of its cuts.
  const isOfCapture = newest !== null && courseOf(newest.kind).goes_on_from === 'held';
  if (isOfCapture && newest.held_cut >= bookmark.captured_cut) return;
  const now_ms = clock.now();
  const epoch: Epoch = {
    stream: bookmark.stream,
    number: bookmark.epoch + 1,
    kind: bookmark.epoch === 0 ? 'first_sync' : isResync(bookmark) ? 'resync' : 'reset',
    where: null,
    state: 'opened',
    plan: null,
    chunks: null,
    rows_estimate: -1,
    held_cut: bookmark.captured_cut,
    opened_at_ms: now_ms,
    rung_at_ms: now_ms,
    done_at_ms: null,
  };
  if (!(await ledger.openEpoch(epoch))) return;
  // What asked for the capture is done, if it was this window that captured: another one asks still.
  if ((bookmark.reset_requested || bookmark.resync_requested) && bookmark.captured_cut !== before?.captured_cut)
    await ledger.updateBookmark(bookmark.stream, { reset_requested: false, resync_requested: false });
  if (epoch.kind === 'first_sync' && isPaused(bookmark.stream)) return;
  await ringExtract(ports, [{ kind: 'plan', stream: bookmark.stream, epoch: epoch.number }]);
}

/** What asks for a reset, as a shape that the log does not tell of, asks for more than comparing. */
function isResync({ reset_requested, resync_requested }: Bookmark): boolean {
  return !reset_requested && resync_requested === true;
}
