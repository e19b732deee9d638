/**
 * What a person asks of a pipeline: how it stands, to go on after a halt, to synchronise a stream anew. All of it is read from and written to
 * the ledger; no database is asked.
 *
 * Beside the path: nothing here moves a row. A window or a loader acts on what is written here.
 */

import { nearestName } from './config/nearest.ts';
import { findStreams } from './config/stream-selector.ts';
import { endEpoch } from './epoch/cancel.ts';
import { type EpochProgress, epochProgress } from './epoch/progress.ts';
import { SluiceError } from './errors.ts';
import { type ChainPart, type StreamLag, scheduledSeconds, streamLag } from './ledger/lag.ts';
import { isLogBased } from './ledger/method.ts';
import { type UnfinishedStatus, unfinishedStatus } from './ledger/unfinished-status.ts';
import { formatLsn } from './lsn.ts';
import type {
  Bookmark,
  Clock,
  Cut,
  Doorbell,
  Epoch,
  Halt,
  Ledger,
  Log,
  ReplicationMethod,
  RunReport,
  StreamState,
} from './ports.ts';
import { displayName } from './shape.ts';
import { isPositionLost } from './slot/ground.ts';
import { rowsOf } from './validation/rejected-count.ts';
import { ringEpochWork } from './window/announce.ts';

/** Cuts that are looked at for lags. Who is further behind than these has its lag from the oldest of them, or none told. */
const STATUS_CUTS_MAX = 1_000;
const STATUS_REPORTS = 10;

export interface EpochStatus extends EpochProgress {
  readonly number: number;
  readonly kind: Epoch['kind'];
  readonly state: Epoch['state'];
  /** Null until it is planned. */
  readonly chunks: number | null;
  /** The condition of a backfill. */
  readonly where: string | null;
  /** The source's own estimate; -1: it has none. */
  readonly rows_estimate: number;
  readonly opened_at: string;
}

export interface StreamStatus {
  readonly stream: string;
  readonly table: string;
  readonly target: string;
  readonly state: StreamState;
  readonly halt: (Omit<Halt, 'at_ms'> & { readonly at: string }) | null;
  /** How it is followed. */
  readonly method: ReplicationMethod;
  /** Read by query: what had been committed then is there. Null: not yet, or it is followed by the log. */
  readonly as_of: string | null;
  /** Somebody asked for a reset: the next window begins it. */
  readonly reset_requested: boolean;
  /** Somebody asked for a resync: the next window makes a new slot and begins it. */
  readonly resync_requested: boolean;
  readonly applied_cut: number;
  readonly applied_lsn: string;
  readonly applied_at: string | null;
  /** Of a table that is loaded, or read by query, at times of its own; null: at each window. `next_at` null: paused, or never again. */
  readonly schedule: { readonly paused: boolean; readonly next_at: string | null } | null;
  /** Null while it is synchronised, and where it is too far behind to tell. */
  readonly lag: StreamLag | null;
  readonly rows_copied: number;
  readonly changes_applied: number;
  /** Rows that were left out because they are not valid, and neither loaded again nor discarded. */
  readonly rejected_rows: number;
  /** Number of the newest epoch; 0: none yet. */
  readonly epoch_number: number;
  /** The epoch that is under way; null: none. */
  readonly epoch: EpochStatus | null;
  /** The last one that could not go on, or was cancelled, and nothing has been synchronised since. */
  readonly given_up: (Omit<NonNullable<Bookmark['given_up']>, 'at_ms'> & { readonly at: string }) | null;
}

/** One window's report; times as ISO 8601, positions as PostgreSQL prints them. */
export type ReportStatus = Omit<RunReport, 'started_at_ms' | 'ended_at_ms' | 'begin_lsn' | 'end_lsn' | 'source_lsn'> & {
  readonly started_at: string;
  readonly ended_at: string;
  readonly begin_lsn: string | null;
  readonly end_lsn: string | null;
  readonly source_lsn: string | null;
};

/** How a pipeline stands, ready for JSON. */
export interface PipelineStatus {
  readonly pipeline: string;
  readonly at: string;
  /** The newest cut; null: no window has been there yet. */
  readonly head: {
    readonly cut: number;
    readonly lsn: string;
    readonly committed_at: string | null;
    readonly recorded_at: string;
  } | null;
  /** Longer than a window: each goes on behind the last. Null: there is none. */
  readonly unfinished: UnfinishedStatus | null;
  /** In the order of their tables' names. */
  readonly streams: readonly StreamStatus[];
  /** The newest first. */
  readonly reports: readonly ReportStatus[];
}

export interface OperatePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/** The snapshot that `sluice status` prints. Items are read one after another: it is true of no single moment. */
export async function status(ports: Pick<OperatePorts, 'clock' | 'ledger'>, pipeline: string): Promise<PipelineStatus> {
  const { ledger, clock } = ports;
  const bookmarks = await ledger.bookmarks();
  const head = await ledger.head();
  const part = await chainPart(ledger, bookmarks, head);
  const now_ms = clock.now();
  const rejects = Map.groupBy(await ledger.rejects(null), ({ stream }) => stream);
  const streams: StreamStatus[] = [];
  for (const bookmark of bookmarks) {
    const epoch = await epochStatus(ledger, bookmark, now_ms);
    const lag = head && isApplying(bookmark) ? streamLag(bookmark, part, head, now_ms) : null;
    streams.push({ ...streamStatus(bookmark, lag, epoch), rejected_rows: rowsOf(rejects.get(bookmark.stream) ?? []) });
  }
  return {
    pipeline,
    at: iso(now_ms),
    head: head && {
      cut: head.number,
      lsn: formatLsn(head.end_lsn),
      committed_at: head.committed_at_ms === null ? null : iso(head.committed_at_ms),
      recorded_at: iso(head.recorded_at_ms),
    },
    unfinished: head && unfinishedStatus(await ledger.unfinished(), head),
    streams: streams.sort((a, b) => (a.table < b.table ? -1 : 1)),
    reports: (await ledger.reports(STATUS_REPORTS)).map(reportStatus),
  };
}

/**
 * How long the oldest change that a live stream has not applied has been waiting, halted streams left out; of a table that is loaded at times of its own, since
 * that time. Null where no stream can tell.
 */
export async function appliedLagSeconds(ports: Pick<OperatePorts, 'clock' | 'ledger'>): Promise<number | null> {
  const head = await ports.ledger.head();
  if (!head) return null;
  const live = (await ports.ledger.bookmarks())
    .filter(isLogBased)
    .filter(({ halt, state }) => halt === null && state === 'live');
  const part = await chainPart(ports.ledger, live, head);
  const now_ms = ports.clock.now();
  const lags = live.map(
    (bookmark) => scheduledSeconds(bookmark, now_ms) ?? streamLag(bookmark, part, head, now_ms)?.seconds ?? null,
  );
  // Who is too far behind to tell must not hide the others.
  const known = lags.filter((seconds) => seconds !== null);
  return known.length === 0 && lags.length > 0 ? null : Math.max(0, ...known);
}

/** What was done about one stream. */
export interface Resumed {
  readonly stream: string;
  readonly table: string;
  /** False: it was not halted. */
  readonly resumed: boolean;
}

/**
 * Clears the halt of every stream that `named` (id, table or glob) means, and rings for it. Nothing is skipped: what halted it is tried again.
 * Throws USAGE for a name that means none, and for a stream whose changes were passed over, which only a reset can mend; nothing is changed then.
 */
export async function resume(ports: OperatePorts, named: string): Promise<Resumed[]> {
  const { ledger, log } = ports;
  const streams = await streamsOf(ledger, named);
  const lost = streams.find(({ halt }) => halt?.must_reset);
  if (lost) {
    throw new SluiceError('USAGE', mustReset(lost));
  }
  const head = await ledger.head();
  const results: Resumed[] = [];
  for (const bookmark of streams) {
    const { stream, table, halt } = bookmark;
    if (halt !== null) {
      if (!isLogBased(bookmark) && halt.code === 'TARGET_REJECTS') await readAnew(ledger, bookmark);
      await ledger.updateBookmark(stream, { halt: null });
      log.info('stream_resumed', { stream, code: halt.code });
    }
    // Also one that is not halted: nobody rings for what the ledger holds to be applied, and a target may have been restored.
    await ring(ports, bookmark, head);
    results.push({ stream, table: displayName(table), resumed: halt !== null });
  }
  return results;
}

/** Rows that the target has refused stay what they are in the stage. Where they came by query, the next window reads them again, as the source has them by then. */
async function readAnew(ledger: Ledger, { stream, epoch: number }: Bookmark): Promise<void> {
  const epoch = number > 0 ? await ledger.epoch(stream, number) : null;
  if (epoch) await endEpoch(ledger, epoch, 'The target refused its rows.');
}

/** What to do about a stream that cannot simply go on. */
function mustReset({ stream, table, halt }: Bookmark): { readonly problem: string; readonly remedy: string } {
  const name = displayName(table);
  if (halt && isPositionLost(halt)) {
    return {
      problem: `${name} cannot go on, and no other stream can: their place in the source's log is gone. ${halt.message}`,
      remedy: 'Have them compared with the source, over a new slot: sluice resume --resync',
    };
  }
  return {
    problem: `${name} cannot go on: changes of it have been passed over since it halted.`,
    remedy: `Synchronise it anew: sluice backfill ${stream} --reset`,
  };
}

/**
 * Asks for all streams that the log is read for to be brought up again after the slot was lost: the next window makes a new one, takes them in anew and has
 * each compared with its table. They stay halted until then. Throws USAGE where no window has found the position lost: nothing is changed then.
 */
export async function requestResync(
  ports: Pick<OperatePorts, 'ledger' | 'log'>,
): Promise<{ readonly stream: string; readonly table: string }[]> {
  const streams = (await ports.ledger.bookmarks()).filter(isLogBased);
  if (!streams.some(({ halt }) => halt !== null && isPositionLost(halt))) {
    throw new SluiceError('USAGE', {
      problem: 'No window has found the replication slot gone, so there is nothing to resynchronise.',
      remedy: 'Run a window first. Where a table differs from the source for another reason: sluice verify --repair',
    });
  }
  for (const { stream } of streams) {
    await ports.ledger.updateBookmark(stream, { resync_requested: true });
    ports.log.info('resync_requested', { stream });
  }
  return streams.map(({ stream, table }) => ({ stream, table: displayName(table) }));
}

/**
 * Asks for every stream that one of `named` means to be synchronised anew: the next window captures it and opens the epoch, and a halt ends with
 * that. Throws USAGE for a name that means none; nothing is changed then.
 */
export async function requestResets(
  ports: Pick<OperatePorts, 'ledger' | 'log'>,
  named: readonly string[],
): Promise<{ readonly stream: string; readonly table: string }[]> {
  const streams = await namedStreams(ports.ledger, named);
  for (const { stream } of streams) {
    await ports.ledger.updateBookmark(stream, { reset_requested: true });
    ports.log.info('reset_requested', { stream });
  }
  return streams.map(({ stream, table }) => ({ stream, table: displayName(table) }));
}

/** Each stream once, in the order of the names. Throws USAGE for a name that means none. */
export async function namedStreams(ledger: Ledger, named: readonly string[]): Promise<Bookmark[]> {
  const streams = new Map<string, Bookmark>();
  for (const name of named) {
    for (const bookmark of await streamsOf(ledger, name)) streams.set(bookmark.stream, bookmark);
  }
  return [...streams.values()];
}

/** Throws USAGE for a name that means no stream. */
export async function streamsOf(ledger: Ledger, named: string): Promise<Bookmark[]> {
  const known = (await ledger.bookmarks()).map((bookmark) => ({
    id: bookmark.stream,
    source: bookmark.table,
    bookmark,
  }));
  const found = findStreams(named, known).map(({ bookmark }) => bookmark);
  if (found.length > 0) return found;
  const nearest = nearestName(
    named,
    known.map(({ source }) => displayName(source)),
  );
  throw new SluiceError('USAGE', {
    problem: `No stream of this pipeline is called ${named}.`,
    remedy: nearest ? `Did you mean ${nearest}?` : '`sluice status` lists the streams.',
  });
}

/** A stream that is synchronised is rung for what its epoch lacks, another one for its cuts. */
async function ring(ports: OperatePorts, { stream, state, epoch: number }: Bookmark, head: Cut | null): Promise<void> {
  const epoch = state === 'captured' || state === 'syncing' ? await ports.ledger.epoch(stream, number) : null;
  if (epoch) await ringEpochWork(ports, epoch);
  else if (head) await ports.doorbell.ringLoad([{ kind: 'cuts', stream, cut: head.number }]);
}

function isApplying(bookmark: Bookmark): boolean {
  return isLogBased(bookmark) && (bookmark.state === 'catching_up' || bookmark.state === 'live');
}

/** The chain from the stream that is furthest behind. */
async function chainPart(ledger: Ledger, bookmarks: readonly Bookmark[], head: Cut | null): Promise<ChainPart> {
  const applied = bookmarks.filter(isApplying).map(({ applied_cut }) => applied_cut);
  if (!head || applied.length === 0) return { cuts: [], complete: true };
  const cuts = await ledger.cutsAfter(Math.min(...applied), STATUS_CUTS_MAX);
  return { cuts, complete: cuts.length < STATUS_CUTS_MAX };
}

async function epochStatus(
  ledger: Ledger,
  { stream, epoch: number, state }: Bookmark,
  now_ms: number,
): Promise<EpochStatus | null> {
  if (number === 0 || state === 'live' || state === 'catching_up') return null;
  const epoch = await ledger.epoch(stream, number);
  if (!epoch) return null;
  const chunks = epoch.plan === null ? [] : await ledger.chunks(stream, number, epoch.plan);
  return {
    number,
    kind: epoch.kind,
    state: epoch.state,
    chunks: epoch.chunks,
    ...epochProgress(epoch, chunks, now_ms),
    where: epoch.where,
    rows_estimate: epoch.rows_estimate,
    opened_at: iso(epoch.opened_at_ms),
  };
}

function streamStatus(
  bookmark: Bookmark,
  lag: StreamLag | null,
  epoch: EpochStatus | null,
): Omit<StreamStatus, 'rejected_rows'> {
  const { halt } = bookmark;
  return {
    stream: bookmark.stream,
    table: displayName(bookmark.table),
    target: displayName(bookmark.target),
    state: halt ? 'halted' : bookmark.state,
    halt: halt && {
      code: halt.code,
      message: halt.message,
      remedy: halt.remedy,
      cut: halt.cut,
      must_reset: halt.must_reset,
      at: iso(halt.at_ms),
    },
    method: bookmark.method ?? 'LOG_BASED',
    as_of: isLogBased(bookmark) || bookmark.as_of_ms === undefined ? null : iso(bookmark.as_of_ms),
    reset_requested: bookmark.reset_requested,
    resync_requested: bookmark.resync_requested ?? false,
    applied_cut: bookmark.applied_cut,
    applied_lsn: formatLsn(bookmark.applied_lsn),
    applied_at: bookmark.applied_at_ms === 0 ? null : iso(bookmark.applied_at_ms),
    schedule: bookmark.schedule
      ? {
          paused: bookmark.schedule.paused,
          next_at: bookmark.schedule.next_ms === null ? null : iso(bookmark.schedule.next_ms),
        }
      : null,
    lag,
    rows_copied: bookmark.rows_copied,
    changes_applied: bookmark.changes_applied,
    epoch_number: bookmark.epoch,
    epoch,
    given_up: bookmark.given_up
      ? {
          epoch: bookmark.given_up.epoch,
          kind: bookmark.given_up.kind,
          reason: bookmark.given_up.reason,
          at: iso(bookmark.given_up.at_ms),
        }
      : null,
  };
}

export function reportStatus(report: RunReport): ReportStatus {
  const { run, started_at_ms, ended_at_ms, begin_lsn, end_lsn, source_lsn, ...rest } = report;
  return {
    run,
    started_at: iso(started_at_ms),
    ended_at: iso(ended_at_ms),
    begin_lsn: begin_lsn === null ? null : formatLsn(begin_lsn),
    end_lsn: end_lsn === null ? null : formatLsn(end_lsn),
    source_lsn: source_lsn === null ? null : formatLsn(source_lsn),
    ...rest,
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
