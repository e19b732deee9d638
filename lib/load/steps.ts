/**
 * What a doorbell makes the loader do: apply the chain to a stream (I4, I5, I9), load a chunk, finish an epoch.
 *
 * The target's row is the truth; bookmarks are brought up after it and may lag. Everything here may run twice, late, or out of turn.
 */
import { replicationAfter } from '../epoch/incremental.ts';
import { courseOf } from '../epoch/kinds.ts';
import { openRequested, repairOf, requestEpoch } from '../epoch/request.ts';
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { LSN_ZERO, type Lsn, lsnMax } from '../lsn.ts';
import type {
  Bookmark,
  Chunk,
  Clock,
  Cut,
  Doorbell,
  DoubtfulKeys,
  Epoch,
  Ledger,
  LoadBell,
  Log,
  Stage,
  Target,
  TargetStream,
  TargetTransaction,
} from '../ports.ts';
import { displayName } from '../shape.ts';
import { cutRanges, objectsOf, placeIn } from '../stage/cut-ranges.ts';
import { segmentSource } from '../stage/frames.ts';
import { forgetCovered } from '../validation/forget.ts';
import { ringExtract, ringLoad } from '../window/announce.ts';
import { captureAnew } from '../window/halt.ts';
import { assertAgrees, assertChunkOver, assertFollows, assertHeld, isSetBack, ringSetBack } from './agreement.ts';
import { untilMet } from './muster.ts';
import { type Care, type Refusals, withCare } from './quarantine.ts';

/** Cuts of one target transaction, and the COPY text in them. */
export const CUTS_MAX = 200;
export const TEXT_BYTES_MAX = 256 * 1024 * 1024;

export interface StepPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly stage: Stage;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
  readonly target: Target;
}

export interface LoadLimits {
  /** The function's deadline less its margin, ms since the Unix epoch. Asked again before each cut: it may be brought forward. */
  readonly deadline_ms: number;
  /** How streams move (target.consistency). Left out: each for itself. */
  readonly consistency?: 'stream' | 'transaction';
  /** What becomes of rows that the target refuses. Left out: the stream halts, and which row it was is not looked for. */
  readonly refusals?: Refusals;
}

/** Of one stream. */
interface StreamLimits extends LoadLimits {
  /** It stops as soon as it has caught up and is where the others are that move together (together.ts). */
  readonly meets_others?: boolean;
}

export interface LoadOutcome {
  /**
   * - applied: rows or marks were written   - nothing: everything was applied already
   * - held: an epoch has the stream         - halted: it waits for a person
   * - loaded: a chunk                       - finished: an epoch
   */
  readonly outcome: 'applied' | 'nothing' | 'held' | 'halted' | 'loaded' | 'finished';
  readonly cuts: number;
  readonly changes: number;
  readonly rows: number;
}

const NOTHING: LoadOutcome = { outcome: 'nothing', cuts: 0, changes: 0, rows: 0 };

/** Applies everything after the applied cut, in order, as far as the time goes. */
export async function applyCuts(ports: StepPorts, bookmark: Bookmark, limits: StreamLimits): Promise<LoadOutcome> {
  const { ledger, clock } = ports;
  if (bookmark.state === 'captured' || bookmark.state === 'syncing') return { ...NOTHING, outcome: 'held' };
  // No cut has anything of a stream that is read by query.
  if (!isLogBased(bookmark)) return NOTHING;
  let cuts = 0;
  let changes = 0;
  for (;;) {
    const step = await applyOnce(ports, bookmark, limits);
    if (step === 'held') return { ...NOTHING, outcome: 'held', cuts, changes };
    // Once: the bookmark stays what it was.
    if (step.set_back !== null && cuts === 0) await ringSetBack(ports, bookmark, step.set_back);
    cuts += step.cuts;
    changes += step.changes;
    // Nothing else sets the state: a window may have captured the stream anew since the bookmark was read.
    const becomesLive = step.caught_up && bookmark.state === 'catching_up';
    // Also where nothing was to be done: a loader that died after its commit has left the mirror behind.
    if (step.cuts > 0 || step.cut !== bookmark.applied_cut || becomesLive) {
      const mirror = {
        applied_cut: step.cut,
        applied_lsn: step.lsn,
        applied_at_ms: clock.now(),
        changes_applied: bookmark.changes_applied + changes,
        ...(becomesLive ? { state: 'live' as const } : {}),
      };
      // Captured anew meanwhile: the bookmark tells of the new capture, and this of the one before.
      if (!(await ledger.updateBookmark(bookmark.stream, mirror, captureOf(bookmark)))) {
        return { ...NOTHING, outcome: cuts > 0 ? 'applied' : 'nothing', cuts, changes };
      }
    }
    if (step.doubtful) {
      await readAgain(ports, bookmark, step.doubtful, step.cuts > 0);
      return { ...NOTHING, outcome: 'applied', cuts, changes };
    }
    if (!step.more) return { ...NOTHING, outcome: cuts > 0 ? 'applied' : 'nothing', cuts, changes };
    if (clock.now() >= limits.deadline_ms) {
      await ringLoad(ports, [{ kind: 'cuts', stream: bookmark.stream, cut: step.cut }]);
      return { ...NOTHING, outcome: 'applied', cuts, changes };
    }
  }
}

interface Step {
  /** Where the stream stands now. */
  readonly cut: number;
  readonly lsn: Lsn;
  /** Cuts that were applied; 0: nothing was to be done. */
  readonly cuts: number;
  readonly changes: number;
  readonly caught_up: boolean;
  /** It would have caught up, but for these. */
  readonly doubtful: DoubtfulKeys | null;
  readonly more: boolean;
  /** Cut at which it stood, where the ledger had seen it further on; else null. */
  readonly set_back: number | null;
}

/** Has the keys read again that nobody can be sure of: the stream stands at the end of what it was to catch up with, and goes on catching up. */
async function readAgain(
  ports: StepPorts,
  { stream, table, epoch: number }: Bookmark,
  { columns, keys }: DoubtfulKeys,
  /** Something has been applied with them. */
  isNews: boolean,
): Promise<void> {
  const facts = { stream, table: displayName(table) };
  if (keys === null) {
    const reason = 'too many rows changed their key while it was copied, and the log does not hold all of their values';
    await captureAnew(ports, stream, { table: facts.table, reason });
    return;
  }
  const pending = await ports.ledger.epochRequests(stream);
  // What waits already has them, or the next look at the doubts asks again.
  if (pending.some(({ kind }) => kind === 'repair')) return await openNext(ports, stream);
  // Given up a moment ago, and nothing has become of it since.
  const newest = await ports.ledger.epoch(stream, number);
  if (!isNews && newest?.state === 'cancelled') return;
  ports.log.info('keys_read_again', { ...facts, keys: keys.length });
  for (const wanted of repairOf(columns, keys)) await requestEpoch(ports, stream, wanted);
}

/** One target transaction. */
async function applyOnce(ports: StepPorts, bookmark: Bookmark, limits: StreamLimits): Promise<Step | 'held'> {
  return await withCare(ports, bookmark.stream, limits.refusals, (care) => applyWith(care, ports, bookmark, limits));
}

async function applyWith(
  care: Care,
  ports: StepPorts,
  bookmark: Bookmark,
  limits: StreamLimits,
): Promise<Step | 'held'> {
  const { ledger, target, stage, clock } = ports;
  const { stream } = bookmark;
  return await target.transaction(streamOf(bookmark), async (tx) => {
    // The ledger says that it was loaded: a target without its row has been restored or replaced (I12).
    if (!tx.row) throw new SluiceError('TARGET_ROW_MISSING', { stream: displayName(bookmark.table) });
    if (tx.row.hold !== null) {
      await assertHeld(ports, bookmark, tx.row.hold);
      return 'held';
    }
    assertAgrees(bookmark, tx.row);
    const { applied_cut, catching_up_to } = tx.row;
    const after = await ledger.cutsAfter(applied_cut, CUTS_MAX);
    await assertFollows(ports, bookmark, tx.row, after);
    const next = beforeJump(after);
    assertNoGap(bookmark, applied_cut, next);
    const cuts = limits.meets_others ? untilMet(next, tx.row, await tx.place()) : next;
    await care.divert(tx, stream);
    let last: Cut | null = null;
    let changes = 0;
    let text_bytes = 0;
    let committed_at_ms: number | null = null;
    for (const cut of cuts) {
      if (last && (text_bytes >= TEXT_BYTES_MAX || clock.now() >= limits.deadline_ms)) break;
      const own = await applyCut(stage, cut, stream, tx);
      changes += own?.changes ?? 0;
      text_bytes += own?.text_bytes ?? 0;
      committed_at_ms = cut.committed_at_ms ?? committed_at_ms;
      last = cut;
    }
    const { cut, lsn } = last ? { cut: last.number, lsn: last.end_lsn } : { cut: applied_cut, lsn: tx.row.applied_lsn };
    const caughtUp = catching_up_to === null || lsn >= catching_up_to;
    // Also where no cut is left: an idle source's position does not move past the chunks'.
    const advances = last !== null || (caughtUp && catching_up_to !== null) || tx.row.halt != null;
    const doubtful = advances ? await tx.advance({ cut, lsn, caught_up: caughtUp, committed_at_ms }) : null;
    const done = cuts.filter((cut) => last !== null && cut.number <= last.number).length;
    const more = done < cuts.length || done === CUTS_MAX;
    const set_back = isSetBack(bookmark, tx.row) ? applied_cut : null;
    return { cut, lsn, cuts: done, changes, caught_up: caughtUp && doubtful === null, doubtful, more, set_back };
  });
}

/** Applies what one cut has of the stream; null: nothing. */
export async function applyCut(
  stage: Stage,
  cut: Cut,
  stream: string,
  tx: Pick<TargetTransaction, 'apply'>,
): Promise<Cut['streams'][string] | null> {
  const own = cut.streams[stream];
  if (!own || cut.object === null) return null;
  try {
    const objects = objectsOf(cut);
    for (const range of await cutRanges(stage, cut, stream)) {
      for await (const segment of segmentSource(stage, ...placeIn(objects, range), stream)) await tx.apply(segment);
    }
  } catch (error) {
    throw inCut(error, cut, stream);
  }
  return own;
}

/** Past a genesis the chain follows another slot, and what was written in between is not in it: a stream that is to go on there is captured anew. */
export function beforeJump(cuts: readonly Cut[]): readonly Cut[] {
  const jump = cuts.findIndex(({ kind }) => kind === 'genesis');
  return jump === -1 ? cuts : cuts.slice(0, jump);
}

/** The cut's number and the stream go into the facts of a fault, so that the halt and its remedy can name them. */
function inCut(error: unknown, cut: Cut, stream: string): unknown {
  if (!(error instanceof SluiceError) || error.facts.cut !== undefined) return error;
  return new SluiceError(error.code, { stream, ...error.facts, cut: cut.number }, { cause: error.cause });
}

/** A gap is seen, never skipped (I4). */
export function assertNoGap({ table }: Bookmark, applied: number, cuts: readonly Cut[]): void {
  let expected = applied + 1;
  for (const cut of cuts) {
    if (cut.number !== expected) throw new SluiceError('LEDGER_GAP', { stream: displayName(table), applied, expected });
    expected++;
  }
}

/** Loads one chunk, and finishes the epoch when it was the last. */
export async function loadChunk(
  ports: StepPorts,
  bookmark: Bookmark,
  bell: LoadBell & { kind: 'chunk' },
  limits: Pick<LoadLimits, 'refusals'> = {},
): Promise<LoadOutcome> {
  const { ledger, target, stage } = ports;
  const { stream } = bookmark;
  const epoch = await ledger.epoch(stream, bell.epoch);
  if (!epoch || epoch.state !== 'planned' || epoch.plan !== bell.plan || bookmark.epoch !== bell.epoch) return NOTHING;
  const chunk = await ledger.chunk(stream, bell.epoch, bell.plan, bell.chunk);
  if (!chunk?.staged) return NOTHING;
  const { object, object_bytes, rows } = chunk.staged;
  if (!chunk.loaded) {
    if (object === null) await target.loadChunk(streamOf(bookmark), epoch, chunk, null);
    await withCare(ports, stream, limits.refusals, async (care) => {
      for await (const segment of object === null ? [] : segmentSource(stage, object, [0, object_bytes], stream)) {
        const overlapping = chunk.range.by === 'ctid';
        const { shape } = segment.header;
        await target.prepareEpoch(streamOf(bookmark), epoch, bell.plan, shape, bookmark.incarnation, overlapping);
        const aside = await care.aside(stream, { epoch: bell.epoch, plan: bell.plan, chunk: bell.chunk });
        await target.loadChunk(streamOf(bookmark), epoch, chunk, segment, aside);
      }
    });
    await ledger.markChunkLoaded(chunk);
  }
  const loaded = await target.loadedChunks(streamOf(bookmark), epoch, bell.plan);
  if (chunk.loaded && !loaded.has(chunk.number)) await assertChunkOver(ports, bookmark, bell.epoch);
  if (loaded.size === epoch.chunks) await finishEpoch(ports, bookmark, bell.epoch, limits);
  else if (courseOf(epoch.kind).in_order) {
    // A run may have thousands of pages: the next one is known without a look at all of them. Where it is in already, each window rings for what is not.
    await ringExtract(ports, [{ kind: 'chunk', stream, epoch: bell.epoch, plan: bell.plan, chunk: bell.chunk + 1 }]);
  }
  return { ...NOTHING, outcome: 'loaded', rows };
}

/** Ends an epoch whose chunks are all in: the swap, and then the chain goes on from the cut that captured the stream. */
export async function finishEpoch(
  ports: StepPorts,
  bookmark: Bookmark,
  number: number,
  limits: Pick<LoadLimits, 'refusals'> = {},
): Promise<LoadOutcome> {
  const { ledger, target, clock, log } = ports;
  const { stream } = bookmark;
  const epoch = await ledger.epoch(stream, number);
  if (!epoch || bookmark.epoch !== number) return NOTHING;
  if (epoch.state === 'cancelled') return await endCancelled(ports, bookmark, epoch);
  if (epoch.state === 'done') return await endDone(ports, bookmark);
  if (epoch.state !== 'planned' || epoch.plan === null) return NOTHING;
  const chunks = await ledger.chunks(stream, number, epoch.plan);
  const loaded = await target.loadedChunks(streamOf(bookmark), epoch, epoch.plan);
  if (chunks.length !== epoch.chunks || chunks.some((chunk) => chunk.staged === null || !loaded.has(chunk.number))) {
    // Who rang was too early, or the mirror was ahead: what is missing is rung for again.
    await ringLoad(
      ports,
      chunks
        .filter((chunk) => chunk.staged !== null && !loaded.has(chunk.number))
        .map((chunk) => ({ kind: 'chunk', stream, epoch: number, plan: chunk.plan, chunk: chunk.number })),
    );
    return NOTHING;
  }
  // What the target had already is not copied (resync).
  const equal = chunks.filter(({ staged }) => staged?.object === null);
  const copied = chunks.filter(({ staged }) => staged?.object !== null);
  const rows = copied.reduce((sum, { staged }) => sum + (staged?.rows ?? 0), 0);
  const { goes_on_from } = courseOf(epoch.kind);
  // In place, the stream goes on from what was applied, which the hold has kept still.
  const isLogged = isLogBased(bookmark);
  const held_lsn =
    goes_on_from === 'applied' || !isLogged ? bookmark.applied_lsn : (await heldCut(ledger, epoch, bookmark)).end_lsn;
  const lsn = isLogged ? newestOf(chunks) : null;
  const { plan } = epoch;
  await withCare(ports, stream, limits.refusals, async (care) => {
    const aside = await care.aside(stream, { epoch: number, plan, chunk: null });
    await target.finishEpoch(streamOf(bookmark), epoch, plan, lsn, held_lsn, aside);
  });
  const done_at_ms = clock.now();
  const ended: Partial<Bookmark> =
    goes_on_from === 'applied'
      ? { rows_copied: bookmark.rows_copied + rows }
      : {
          applied_cut: epoch.held_cut,
          applied_lsn: held_lsn,
          applied_at_ms: done_at_ms,
          rows_copied: courseOf(epoch.kind).into === 'shadow' ? rows : bookmark.rows_copied + rows,
        };
  const state = isLogged ? 'catching_up' : 'live';
  const read = isLogged ? {} : { ...replicationAfter(bookmark, epoch), as_of_ms: epoch.opened_at_ms };
  // Captured anew since it was opened, or in this moment: the stream waits for the epoch of that, and does not catch up.
  if (!isLogged || epoch.held_cut >= bookmark.captured_cut) {
    await ledger.updateBookmark(stream, { ...ended, ...read, state, given_up: null }, captureOf(bookmark));
  }
  await forgetCovered(ports, epoch);
  await ledger.updateEpoch({ ...epoch, state: 'done', done_at_ms }, 'planned');
  const compared = epoch.kind === 'resync' ? { chunks_equal: equal.length } : {};
  log.info('epoch_done', { stream, epoch: number, kind: epoch.kind, chunks: chunks.length, ...compared, rows });
  if (isLogged) await ringLoad(ports, [{ kind: 'cuts', stream, cut: epoch.held_cut }]);
  await openNext(ports, stream);
  return { ...NOTHING, outcome: 'finished', rows };
}

/** Whoever planned the epoch has said so when it was over already, and after whoever ended it: nobody else takes that back. */
async function endDone(ports: StepPorts, bookmark: Bookmark): Promise<LoadOutcome> {
  const { stream, applied_cut } = bookmark;
  if (bookmark.state !== 'syncing') return NOTHING;
  const isLogged = isLogBased(bookmark);
  await ports.ledger.updateBookmark(stream, { state: isLogged ? 'catching_up' : 'live' }, captureOf(bookmark));
  if (isLogged) await ringLoad(ports, [{ kind: 'cuts', stream, cut: applied_cut }]);
  return { ...NOTHING, outcome: 'finished' };
}

/** An epoch in place that was cancelled: the stream goes on from what was applied. */
async function endCancelled(ports: StepPorts, bookmark: Bookmark, epoch: Epoch): Promise<LoadOutcome> {
  const { ledger, target, log } = ports;
  const { stream, state } = bookmark;
  const { into, goes_on_from } = courseOf(epoch.kind);
  if (state !== 'syncing' || into !== 'table' || goes_on_from === 'held') return NOTHING;
  await target.cancelEpoch(streamOf(bookmark), epoch, async (loaded) => {
    const chunks = epoch.plan === null ? [] : await ledger.chunks(stream, epoch.number, epoch.plan);
    return newestOf(chunks.filter(({ number }) => loaded.has(number)));
  });
  const given_up = { epoch: epoch.number, kind: epoch.kind, reason: epoch.reason ?? '', at_ms: ports.clock.now() };
  const now = isLogBased(bookmark) ? 'catching_up' : 'live';
  await ledger.updateBookmark(stream, { state: now, given_up }, captureOf(bookmark));
  log.info('epoch_cancelled', { stream, epoch: epoch.number, reason: epoch.reason ?? null });
  await ringLoad(ports, [{ kind: 'cuts', stream, cut: bookmark.applied_cut }]);
  await openNext(ports, stream);
  return { ...NOTHING, outcome: 'finished' };
}

function newestOf(chunks: readonly Chunk[]): Lsn {
  return chunks.reduce<Lsn>((newest, { staged }) => lsnMax(newest, staged?.lsn ?? LSN_ZERO), LSN_ZERO);
}

/** The stream is free: what waits for it has its turn. */
async function openNext(ports: StepPorts, stream: string): Promise<void> {
  const now = await ports.ledger.bookmark(stream);
  if (now !== null) await openRequested(ports, now);
}

/** Changes whenever the stream is captured anew, or synchronised anew. */
export function captureOf({ captured_cut, epoch }: Bookmark): Pick<Bookmark, 'captured_cut' | 'epoch'> {
  return { captured_cut, epoch };
}

async function heldCut(ledger: Ledger, { held_cut }: Epoch, { table }: Bookmark): Promise<Cut> {
  const [cut] = await ledger.cutsAfter(held_cut - 1, 1);
  if (cut?.number === held_cut) return cut;
  throw new SluiceError('LEDGER_GAP', { stream: displayName(table), applied: held_cut - 1, expected: held_cut });
}

export function streamOf({ stream, target }: Bookmark): TargetStream {
  return { stream, target };
}
