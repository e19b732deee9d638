/**
 * What a doorbell makes the loader do: apply the chain to a stream (I4, I5, I9), load a chunk, finish an epoch.
 *
 * The target's row is the truth; bookmarks are brought up after it and may lag. Everything here may run twice, late, or out of turn.
 */
import { SluiceError } from '../errors.ts';
import { LSN_ZERO, type Lsn, lsnMax } from '../lsn.ts';
import type {
  Bookmark,
  Clock,
  Cut,
  Doorbell,
  Epoch,
  Ledger,
  LoadBell,
  Log,
  Stage,
  Target,
  TargetRow,
  TargetStream,
} from '../ports.ts';
import { displayName } from '../shape.ts';
import { cutRanges } from '../stage/cut-ranges.ts';
import { segmentSource } from '../stage/frames.ts';
import { ringLoad } from '../window/announce.ts';

/** Cuts of one target transaction, and the COPY text in them. */
const CUTS_MAX = 200;
const TEXT_BYTES_MAX = 256 * 1024 * 1024;

interface StepPorts {
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
export async function applyCuts(ports: StepPorts, bookmark: Bookmark, limits: LoadLimits): Promise<LoadOutcome> {
  const { ledger, clock } = ports;
  if (bookmark.state === 'captured' || bookmark.state === 'syncing') return { ...NOTHING, outcome: 'held' };
  let cuts = 0;
  let changes = 0;
  for (;;) {
    const step = await applyOnce(ports, bookmark, limits);
    if (step === 'held') return { ...NOTHING, outcome: 'held', cuts, changes };
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
  readonly more: boolean;
}

/** One target transaction. */
async function applyOnce(ports: StepPorts, bookmark: Bookmark, limits: LoadLimits): Promise<Step | 'held'> {
  const { ledger, target, stage, clock } = ports;
  const { stream } = bookmark;
  return await target.transaction(streamOf(bookmark), async (tx) => {
    // The ledger says that it was loaded: a target without its row has been restored or replaced (I12).
    if (!tx.row) throw new SluiceError('TARGET_ROW_MISSING', { stream: displayName(bookmark.table) });
    if (tx.row.hold !== null) return 'held';
    assertOurs(bookmark, tx.row);
    const { applied_cut, catching_up_to } = tx.row;
    const cuts = await ledger.cutsAfter(applied_cut, CUTS_MAX);
    assertNoGap(bookmark, applied_cut, cuts);
    let last: Cut | null = null;
    let changes = 0;
    let text_bytes = 0;
    for (const cut of cuts) {
      if (last && (text_bytes >= TEXT_BYTES_MAX || clock.now() >= limits.deadline_ms)) break;
      const own = cut.streams[stream];
      if (own && cut.object !== null) {
        try {
          for (const range of await cutRanges(stage, cut, stream)) {
            for await (const segment of segmentSource(stage, cut.object, range)) await tx.apply(segment);
          }
        } catch (error) {
          throw inCut(error, cut);
        }
        changes += own.changes;
        text_bytes += own.text_bytes;
      }
      last = cut;
    }
    const { cut, lsn } = last ? { cut: last.number, lsn: last.end_lsn } : { cut: applied_cut, lsn: tx.row.applied_lsn };
    const caughtUp = catching_up_to === null || lsn >= catching_up_to;
    // Also where no cut is left: an idle source's position does not move past the chunks'.
    if (last || (caughtUp && catching_up_to !== null)) await tx.advance({ cut, lsn, caught_up: caughtUp });
    const done = cuts.filter((cut) => last !== null && cut.number <= last.number).length;
    const more = done < cuts.length || done === CUTS_MAX;
    return { cut, lsn, cuts: done, changes, caught_up: caughtUp, more };
  });
}

/** The cut's number goes into the facts of a fault, so that the halt can name it. */
function inCut(error: unknown, cut: Cut): unknown {
  if (!(error instanceof SluiceError) || error.facts.cut !== undefined) return error;
  return new SluiceError(error.code, { ...error.facts, cut: cut.number }, { cause: error.cause });
}

function assertOurs({ table, incarnation }: Bookmark, row: TargetRow): void {
  if (row.incarnation === incarnation) return;
  const facts = { stream: displayName(table), found: row.incarnation, expected: incarnation };
  throw new SluiceError('LEDGER_INCARNATION', facts);
}

/** A gap is seen, never skipped (I4). */
function assertNoGap({ table }: Bookmark, applied: number, cuts: readonly Cut[]): void {
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
): Promise<LoadOutcome> {
  const { ledger, target, stage } = ports;
  const { stream } = bookmark;
  const epoch = await ledger.epoch(stream, bell.epoch);
  if (!epoch || epoch.state !== 'planned' || epoch.plan !== bell.plan || bookmark.epoch !== bell.epoch) return NOTHING;
  const chunk = await ledger.chunk(stream, bell.epoch, bell.plan, bell.chunk);
  if (!chunk?.staged) return NOTHING;
  const { object, object_bytes, rows } = chunk.staged;
  if (!chunk.loaded) {
    // Where nothing was staged, the mark is all.
    for await (const segment of object === null ? [] : segmentSource(stage, object, [0, object_bytes])) {
      const overlapping = chunk.range.by === 'ctid';
      const { shape } = segment.header;
      await target.prepareEpoch(streamOf(bookmark), epoch, bell.plan, shape, bookmark.incarnation, overlapping);
      await target.loadChunk(streamOf(bookmark), epoch, chunk, segment);
    }
    await ledger.markChunkLoaded(chunk);
  }
  const loaded = await target.loadedChunks(streamOf(bookmark), epoch, bell.plan);
  if (loaded.size === epoch.chunks) await finishEpoch(ports, bookmark, bell.epoch);
  return { ...NOTHING, outcome: 'loaded', rows };
}

/** Ends an epoch whose chunks are all in: the swap, and then the chain goes on from the cut that captured the stream. */
export async function finishEpoch(ports: StepPorts, bookmark: Bookmark, number: number): Promise<LoadOutcome> {
  const { ledger, target, clock, log } = ports;
  const { stream } = bookmark;
  const epoch = await ledger.epoch(stream, number);
  if (!epoch || epoch.state !== 'planned' || epoch.plan === null || bookmark.epoch !== number) return NOTHING;
  const chunks = await ledger.chunks(stream, number, epoch.plan);
  const loaded = await target.loadedChunks(streamOf(bookmark), epoch, epoch.plan);
  if (chunks.length === 0 || chunks.some((chunk) => chunk.staged === null || !loaded.has(chunk.number))) {
    // Who rang was too early, or the mirror was ahead: what is missing is rung for again.
    await ringLoad(
      ports,
      chunks
        .filter((chunk) => chunk.staged !== null && !loaded.has(chunk.number))
        .map((chunk) => ({ kind: 'chunk', stream, epoch: number, plan: chunk.plan, chunk: chunk.number })),
    );
    return NOTHING;
  }
  const lsn = chunks.reduce<Lsn>((newest, { staged }) => lsnMax(newest, staged?.lsn ?? LSN_ZERO), LSN_ZERO);
  const rows = chunks.reduce((sum, { staged }) => sum + (staged?.rows ?? 0), 0);
  const held = await heldCut(ledger, epoch, bookmark);
  await target.finishEpoch(streamOf(bookmark), epoch, epoch.plan, lsn, held.end_lsn);
  const done_at_ms = clock.now();
  // Captured anew meanwhile: the stream waits for the next epoch, and does not catch up.
  await ledger.updateBookmark(
    stream,
    {
      state: 'catching_up',
      applied_cut: epoch.held_cut,
      applied_lsn: held.end_lsn,
      applied_at_ms: done_at_ms,
      rows_copied: rows,
    },
    captureOf(bookmark),
  );
  await ledger.updateEpoch({ ...epoch, state: 'done', done_at_ms }, 'planned');
  log.info('epoch_done', { stream, epoch: number, chunks: chunks.length, rows });
  await ringLoad(ports, [{ kind: 'cuts', stream, cut: epoch.held_cut }]);
  return { ...NOTHING, outcome: 'finished', rows };
}

/** Changes whenever the stream is captured anew, or synchronised anew. */
function captureOf({ captured_cut, epoch }: Bookmark): Pick<Bookmark, 'captured_cut' | 'epoch'> {
  return { captured_cut, epoch };
}

async function heldCut(ledger: Ledger, { held_cut }: Epoch, { table }: Bookmark): Promise<Cut> {
  const [cut] = await ledger.cutsAfter(held_cut - 1, 1);
  if (cut?.number === held_cut) return cut;
  throw new SluiceError('LEDGER_GAP', { stream: displayName(table), applied: held_cut - 1, expected: held_cut });
}

function streamOf({ stream, target }: Bookmark): TargetStream {
  return { stream, target };
}
