/**
 * What a doorbell of cuts makes the loader do: apply the chain to a stream (I4, I5, I9). Those of an epoch are in epoch-steps.ts.
 *
 * The target's row is the truth; bookmarks are brought up after it and may lag. Everything here may run twice, late, or out of turn.
 */
import { openRequested, repairOf, requestEpoch } from '../epoch/request.ts';
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import type { Lsn } from '../lsn.ts';
import type {
  Bookmark,
  Clock,
  Cut,
  Doorbell,
  DoubtfulKeys,
  Ledger,
  Log,
  Stage,
  Target,
  TargetStream,
  TargetTransaction,
} from '../ports.ts';
import { displayName } from '../shape.ts';
import { cutRanges, objectsOf, placeIn } from '../stage/cut-ranges.ts';
import { segmentSource } from '../stage/frames.ts';
import { ringLoad } from '../window/announce.ts';
import { captureAnew } from '../window/halt.ts';
import { assertAgrees, assertFollows, assertHeld, isSetBack, ringSetBack } from './agreement.ts';
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

export const NOTHING: LoadOutcome = { outcome: 'nothing', cuts: 0, changes: 0, rows: 0 };

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

/** The stream is free: what waits for it has its turn. */
export async function openNext(ports: StepPorts, stream: string): Promise<void> {
  const now = await ports.ledger.bookmark(stream);
  if (now !== null) await openRequested(ports, now);
}

/** Changes whenever the stream is captured anew, or synchronised anew. */
export function captureOf({ captured_cut, epoch }: Bookmark): Pick<Bookmark, 'captured_cut' | 'epoch'> {
  return { captured_cut, epoch };
}

export function streamOf({ stream, target }: Bookmark): TargetStream {
  return { stream, target };
}
