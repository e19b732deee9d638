/**
 * What a doorbell of an epoch makes the loader do: load a chunk, finish the epoch (I4, I11). Those of cuts are in steps.ts.
 *
 * The target is the truth: what it has is found there, and the ledger is brought up after it. Everything here may run twice, late, or out of turn.
 */
import { replicationAfter } from '../epoch/incremental.ts';
import { courseOf } from '../epoch/kinds.ts';
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { LSN_ZERO, type Lsn, lsnMax } from '../lsn.ts';
import type { Bookmark, Chunk, Cut, Epoch, Ledger, LoadBell } from '../ports.ts';
import { displayName } from '../shape.ts';
import { segmentSource } from '../stage/frames.ts';
import { forgetCovered } from '../validation/forget.ts';
import { ringExtract, ringLoad } from '../window/announce.ts';
import { assertChunkOver } from './agreement.ts';
import { withCare } from './quarantine.ts';
import { captureOf, type LoadLimits, type LoadOutcome, NOTHING, openNext, type StepPorts, streamOf } from './steps.ts';

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

async function heldCut(ledger: Ledger, { held_cut }: Epoch, { table }: Bookmark): Promise<Cut> {
  const [cut] = await ledger.cutsAfter(held_cut - 1, 1);
  if (cut?.number === held_cut) return cut;
  throw new SluiceError('LEDGER_GAP', { stream: displayName(table), applied: held_cut - 1, expected: held_cut });
}
