/**
 * What a person asks of a pipeline: how it stands, to go on after a halt, to synchronise a stream anew. All of it is read from and written to
 * the ledger; no database is asked.
 *
 * Beside the path: nothing here moves a row. A window or a loader acts on what is written here.
 */

import { nearestName } from './config/nearest.ts';
import { findStreams } from './config/stream-selector.ts';
import { SluiceError } from './errors.ts';
import { type ChainPart, type StreamLag, streamLag } from './ledger/lag.ts';
import { formatLsn } from './lsn.ts';
import type { Bookmark, Clock, Cut, Doorbell, Epoch, Halt, Ledger, Log, RunReport, StreamState } from './ports.ts';
import { displayName } from './shape.ts';
import { ringEpochWork } from './window/announce.ts';

/** Cuts that are looked at for lags. Who is further behind than these has its lag from the oldest of them, or none told. */
const STATUS_CUTS_MAX = 1_000;
const STATUS_REPORTS = 10;

export interface EpochStatus {
  readonly number: number;
  readonly kind: Epoch['kind'];
  readonly state: Epoch['state'];
  /** Null until it is planned. */
  readonly chunks: number | null;
  readonly chunks_staged: number;
  readonly chunks_loaded: number;
  readonly rows_staged: number;
  readonly rows_loaded: number;
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
  /** Somebody asked for a reset: the next window begins it. */
  readonly reset_requested: boolean;
  readonly applied_cut: number;
  readonly applied_lsn: string;
  readonly applied_at: string | null;
  /** Null while it is synchronised, and where it is too far behind to tell. */
  readonly lag: StreamLag | null;
  readonly rows_copied: number;
  readonly changes_applied: number;
  /** Number of the newest epoch; 0: none yet. */
  readonly epoch_number: number;
  /** The epoch that is under way; null: none. */
  readonly epoch: EpochStatus | null;
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
  const streams: StreamStatus[] = [];
  for (const bookmark of bookmarks) {
    const epoch = await epochStatus(ledger, bookmark);
    const lag = head && isApplying(bookmark) ? streamLag(bookmark, part, head, now_ms) : null;
    streams.push(streamStatus(bookmark, lag, epoch));
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
    streams: streams.sort((a, b) => (a.table < b.table ? -1 : 1)),
    reports: (await ledger.reports(STATUS_REPORTS)).map(reportStatus),
  };
}

/** How long the oldest change that a live stream has not applied has been waiting, halted streams left out; null where no stream can tell. */
export async function appliedLagSeconds(ports: Pick<OperatePorts, 'clock' | 'ledger'>): Promise<number | null> {
  const head = await ports.ledger.head();
  if (!head) return null;
  const live = (await ports.ledger.bookmarks()).filter(({ halt, state }) => halt === null && state === 'live');
  const part = await chainPart(ports.ledger, live, head);
  const lags = live.map((bookmark) => streamLag(bookmark, part, head, ports.clock.now()));
  // Who is too far behind to tell must not hide the others.
  const known = lags.filter((lag) => lag !== null);
  return known.length === 0 && lags.length > 0 ? null : Math.max(0, ...known.map(({ seconds }) => seconds));
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
    throw new SluiceError('USAGE', {
      problem: `${displayName(lost.table)} cannot go on: changes of it have been passed over since it halted.`,
      remedy: `Synchronise it anew: sluice backfill ${lost.stream} --reset`,
    });
  }
  const head = await ledger.head();
  const results: Resumed[] = [];
  for (const bookmark of streams) {
    const { stream, table, halt } = bookmark;
    if (halt !== null) {
      await ledger.updateBookmark(stream, { halt: null });
      log.info('stream_resumed', { stream, code: halt.code });
      await ring(ports, bookmark, head);
    }
    results.push({ stream, table: displayName(table), resumed: halt !== null });
  }
  return results;
}

/**
 * Asks for every stream that one of `named` means to be synchronised anew: the next window captures it and opens the epoch, and a halt ends with
 * that. Throws USAGE for a name that means none; nothing is changed then.
 */
export async function requestResets(
  ports: Pick<OperatePorts, 'ledger' | 'log'>,
  named: readonly string[],
): Promise<{ readonly stream: string; readonly table: string }[]> {
  const streams = new Map<string, Bookmark>();
  for (const name of named) {
    for (const bookmark of await streamsOf(ports.ledger, name)) streams.set(bookmark.stream, bookmark);
  }
  for (const stream of streams.keys()) {
    await ports.ledger.updateBookmark(stream, { reset_requested: true });
    ports.log.info('reset_requested', { stream });
  }
  return [...streams.values()].map(({ stream, table }) => ({ stream, table: displayName(table) }));
}

async function streamsOf(ledger: Ledger, named: string): Promise<Bookmark[]> {
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

function isApplying({ state }: Bookmark): boolean {
  return state === 'catching_up' || state === 'live';
}

/** The chain from the stream that is furthest behind. */
async function chainPart(ledger: Ledger, bookmarks: readonly Bookmark[], head: Cut | null): Promise<ChainPart> {
  const applied = bookmarks.filter(isApplying).map(({ applied_cut }) => applied_cut);
  if (!head || applied.length === 0) return { cuts: [], complete: true };
  const cuts = await ledger.cutsAfter(Math.min(...applied), STATUS_CUTS_MAX);
  return { cuts, complete: cuts.length < STATUS_CUTS_MAX };
}

async function epochStatus(ledger: Ledger, { stream, epoch: number, state }: Bookmark): Promise<EpochStatus | null> {
  if (number === 0 || state === 'live' || state === 'catching_up') return null;
  const epoch = await ledger.epoch(stream, number);
  if (!epoch) return null;
  const chunks = epoch.plan === null ? [] : await ledger.chunks(stream, number, epoch.plan);
  const staged = chunks.filter((chunk) => chunk.staged !== null);
  const loaded = staged.filter((chunk) => chunk.loaded);
  const rows = (of: typeof chunks) => of.reduce((sum, chunk) => sum + (chunk.staged?.rows ?? 0), 0);
  return {
    number,
    kind: epoch.kind,
    state: epoch.state,
    chunks: epoch.chunks,
    chunks_staged: staged.length,
    chunks_loaded: loaded.length,
    rows_staged: rows(staged),
    rows_loaded: rows(loaded),
    rows_estimate: epoch.rows_estimate,
    opened_at: iso(epoch.opened_at_ms),
  };
}

function streamStatus(bookmark: Bookmark, lag: StreamLag | null, epoch: EpochStatus | null): StreamStatus {
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
    reset_requested: bookmark.reset_requested,
    applied_cut: bookmark.applied_cut,
    applied_lsn: formatLsn(bookmark.applied_lsn),
    applied_at: bookmark.applied_at_ms === 0 ? null : iso(bookmark.applied_at_ms),
    lag,
    rows_copied: bookmark.rows_copied,
    changes_applied: bookmark.changes_applied,
    epoch_number: bookmark.epoch,
    epoch,
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
