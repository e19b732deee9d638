/**
 * Taking streams in (I11): publication, then the transactions that may have written before it, then the cut that captures, then the epochs.
 *
 * pgoutput judges each change by the publication as it was when the change was written. A transaction that wrote to a table before the table was
 * published, and commits later, is not in the log, and not in a snapshot taken before it commits. So, like CREATE INDEX CONCURRENTLY, the window
 * waits for whoever holds a write lock on the table after the publication is there: every later snapshot sees what they did.
 */
import type { StreamDefinition } from '../config/selection.ts';
import { LSN_ZERO } from '../lsn.ts';
import type { Bookmark, Clock, Doorbell, Epoch, Ledger, Log, Source } from '../ports.ts';
import { displayName, tableKey } from '../shape.ts';
import { ringExtract } from './announce.ts';
import type { OpenChain } from './open-chain.ts';

/** Writers are waited for this long; the next window tries again. */
const WRITERS_WAIT_MS_MAX = 30_000;
const WRITERS_POLL_MS = 200;

interface CapturePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/**
 * Captures the streams that are new, that somebody wants anew, or whose changes have been out of sight; and opens their epochs. Returns the
 * bookmarks of all captured streams.
 */
export async function capture(
  ports: CapturePorts,
  { chain, ground, streams, bookmarks }: OpenChain,
): Promise<readonly Bookmark[]> {
  const known = new Map(bookmarks.map((bookmark) => [bookmark.stream, bookmark]));
  const published = new Set(ground.publication?.map(tableKey));
  await releaseUnfollowed(ports, streams, bookmarks);
  const wanted: StreamDefinition[] = [];
  for (const stream of streams) {
    const bookmark = known.get(stream.id);
    if (bookmark && !bookmark.reset_requested) {
      if (published.has(tableKey(stream.source))) continue;
      // Noted before it is published again: a window that ends in between must not leave a table that looks as if it had never been away.
      await ports.ledger.updateBookmark(stream.id, { reset_requested: true });
      ports.log.warn('left_publication', { table: displayName(stream.source) });
    }
    wanted.push(stream);
  }
  if (wanted.length > 0 && (await writersHaveEnded(ports, streams, wanted))) {
    const cut = await chain.append({
      kind: 'captures',
      end_lsn: chain.head.end_lsn,
      captures: wanted.map(({ id }) => id),
    });
    for (const stream of wanted) {
      await bookmarkCapture(ports, stream, known.get(stream.id) ?? null, cut.number, cut.incarnation);
    }
    ports.log.info('captured', { cut: cut.number, tables: wanted.map(({ source }) => displayName(source)) });
  }
  const now = await ports.ledger.bookmarks();
  for (const bookmark of now) await openEpoch(ports, bookmark, known.get(bookmark.stream) ?? null);
  return now;
}

/**
 * A stream that is no longer followed (taken out of the file, dropped, without a key) has its changes passed over from here on. Should it come back, it
 * must be captured anew: noted before the first change is passed over.
 */
async function releaseUnfollowed(
  { ledger, log }: CapturePorts,
  streams: readonly StreamDefinition[],
  bookmarks: readonly Bookmark[],
): Promise<void> {
  const followed = new Set(streams.map(({ id }) => id));
  for (const { stream, table, reset_requested } of bookmarks) {
    if (followed.has(stream) || reset_requested) continue;
    await ledger.updateBookmark(stream, { reset_requested: true });
    log.warn('stream_released', { stream, table: displayName(table) });
  }
}

/** Publishes, then waits until every transaction that may have written unpublished has ended. False: one has not, within the limit. */
async function writersHaveEnded(
  { source, clock, log }: CapturePorts,
  streams: readonly StreamDefinition[],
  wanted: readonly StreamDefinition[],
): Promise<boolean> {
  await source.publish(streams.map((stream) => stream.source));
  const tables = wanted.map(({ table }) => table);
  const before = new Set((await source.writers(tables)).map(({ transaction }) => transaction));
  const until_ms = clock.now() + WRITERS_WAIT_MS_MAX;
  while (before.size > 0) {
    const now = await source.writers(tables);
    const open = now.filter(({ transaction }) => before.has(transaction));
    if (open.length === 0) return true;
    if (clock.now() >= until_ms) {
      log.warn('capture_waits_for_writers', {
        tables: wanted.map((stream) => displayName(stream.source)),
        processes: open.map(({ pid, transaction }) => pid ?? `prepared transaction ${transaction}`),
        remedy: 'End or commit these transactions; the next window tries again.',
      });
      return false;
    }
    await clock.sleep(WRITERS_POLL_MS);
  }
  return true;
}

async function bookmarkCapture(
  { ledger }: CapturePorts,
  { id, source, target }: StreamDefinition,
  known: Bookmark | null,
  captured_cut: number,
  incarnation: string,
): Promise<void> {
  if (known) {
    await ledger.updateBookmark(id, { target, captured_cut, incarnation, state: 'captured', halt: null });
    return;
  }
  await ledger.addBookmark({
    stream: id,
    table: source,
    target,
    captured_cut,
    epoch: 0,
    state: 'captured',
    halt: null,
    reset_requested: false,
    incarnation,
    applied_cut: captured_cut,
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
async function openEpoch(ports: CapturePorts, bookmark: Bookmark, before: Bookmark | null): Promise<void> {
  const { ledger, clock } = ports;
  if (bookmark.state !== 'captured') return;
  const newest = bookmark.epoch > 0 ? await ledger.epoch(bookmark.stream, bookmark.epoch) : null;
  if (newest && newest.held_cut >= bookmark.captured_cut) return;
  const now_ms = clock.now();
  const epoch: Epoch = {
    stream: bookmark.stream,
    number: bookmark.epoch + 1,
    kind: bookmark.epoch === 0 ? 'first_sync' : 'reset',
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
  if (bookmark.reset_requested && bookmark.captured_cut !== before?.captured_cut)
    await ledger.updateBookmark(bookmark.stream, { reset_requested: false });
  await ringExtract(ports, [{ kind: 'plan', stream: bookmark.stream, epoch: epoch.number }]);
}
