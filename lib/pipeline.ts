/**
 * The straight line:
 *
 *     slot ─► decode ─► cut ─► stage ─► record ─► announce ─► load ─► target
 *       ▲                                 │
 *       └────────── confirm ◄─────────────┘
 *
 * `drain` is one window of it, up to the doorbell (I1–I3, I10); `extract` reads a stream by query into the same stage (I11); `load` applies what a
 * doorbell points at (I4, I5, I9). All branching of the path is here; what is called decides (pure) or acts (an adapter), not both.
 */
import type { Pipeline } from './config/schema.ts';
import { streamOptions } from './config/stream-options.ts';
import { holdsGiants } from './cut/share.ts';
import { planEpoch, readChunk } from './epoch/extract.ts';
import { queryExtractor } from './epoch/stream-extractor.ts';
import { asSluiceError, type SluiceError } from './errors.ts';
import { finishEpoch, loadChunk } from './load/epoch-steps.ts';
import { noteHalts } from './load/note-halts.ts';
import { applyCuts, type LoadLimits, type LoadOutcome, type StepPorts } from './load/steps.ts';
import { loadTogether } from './load/together.ts';
import type {
  Clock,
  Comparer,
  Doorbell,
  ExtractBell,
  Extractor,
  Ledger,
  LoadBell,
  Log,
  RunReport,
  Source,
  Stage,
  StopReason,
  Target,
} from './ports.ts';
import { chosenExtractor } from './projection/chosen-extractor.ts';
import { cutStreams, objectOf, StagedCut } from './stage/staged-cut.ts';
import { checkedExtractor } from './validation/checked-extractor.ts';
import { checkedStreams, type SchemaPort } from './validation/checked-streams.ts';
import { recordedWith } from './validation/reject-writer.ts';
import { Announcer, ringAgain, ringCatchingUp, ringHalted } from './window/announce.ts';
import { beforeAppends, lookAgain } from './window/appends.ts';
import { beforeNames } from './window/by-name.ts';
import { capture } from './window/capture.ts';
import { capturedStreams } from './window/captured-streams.ts';
import { Describing } from './window/describing.ts';
import { followFailover } from './window/failover.ts';
import { freeSlot } from './window/free-slot.ts';
import { haltOrThrow, stopStream } from './window/halt.ts';
import { LeaseKeeper } from './window/lease-keeper.ts';
import { OneBehind } from './window/one-behind.ts';
import { type OpenChain, openChain } from './window/open-chain.ts';
import { openReading } from './window/open-reading.ts';
import type { SaltPort } from './window/projecting.ts';
import { prune } from './window/prune.ts';
import { endSlotless, openRuns, openRunsDue } from './window/queries.ts';
import { RunLog } from './window/run-log.ts';
import { rememberTold, shapeNews, tellNews } from './window/shape-news.ts';
import { unlessOvertaken } from './window/slot-in-place.ts';
import { TableSchedules } from './window/table-schedules.ts';
import { logsTruncate, noteTruncated } from './window/truncated.ts';

export interface DrainPorts extends SaltPort, SchemaPort {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: Source;
  readonly stage: Stage;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
  /** Names that are never used twice, and numbers in [0, 1): passed in so that a test can replay them. */
  readonly newId: () => string;
  readonly random: () => number;
}

export interface Window {
  readonly run: string;
  /** Who holds the lease. */
  readonly owner: string;
  readonly lease_ms: number;
  /** The function's deadline less its margin, ms since the Unix epoch. */
  readonly deadline_ms: number;
  /** Overrides the pipeline's. */
  readonly break_at_end_lsn?: boolean;
  /** Ring for the work of epochs even if it was rung for a moment ago: whoever was rung is gone. */
  readonly ring_all?: boolean;
  /** Streams that are read by query have their run only if their last was opened before this time, ms since the Unix epoch. Left out: each has one. */
  readonly runs_since_ms?: number;
  /** Tables are loaded and read by query as if none had a schedule of its own, or were paused. */
  readonly ignore_schedules?: boolean;
  /** ReadBy. */
  readonly objects_max?: number;
  /** Shall the window end now? */
  readonly asked?: () => boolean;
}

/** One window. The report says how it ended, well or with an error, and is saved; only a ledger that cannot be reached is thrown. */
export async function drain(ports: DrainPorts, pipeline: Pipeline, window: Window): Promise<RunReport> {
  const { ledger, clock, log } = ports;
  const run = new RunLog(clock, window.run);
  const lease = await ledger.takeLease(pipeline.source.replication_slot, window.owner, window.lease_ms);
  if ('held_by' in lease) {
    log.info('window_skipped', { held_by: lease.held_by, until: new Date(lease.until_ms).toISOString() });
    return run.report('skipped', null);
  }
  const keeper = new LeaseKeeper(ledger, clock, lease, window.lease_ms);
  let stopped_by: StopReason = 'failed';
  let error: SluiceError | null = null;
  try {
    const opened = await run.timed('ground', () => openChain(ports, pipeline));
    run.sawSlot(opened.ground.slot, log);
    const schedules = new TableSchedules(ports, pipeline, opened, window.ignore_schedules ?? false);
    const noted = await schedules.begin(opened.bookmarks);
    await openRuns(ports, opened, schedules, window.runs_since_ms ?? null);
    const together = pipeline.target.consistency === 'transaction';
    await ringAgain(ports, noted, opened.chain.head, window.ring_all ?? false, together, window.ignore_schedules);
    if (opened.lost) throw opened.lost;
    stopped_by = opened.slotless
      ? await endSlotless(ports, opened)
      : await drainLog(ports, pipeline, window, { run, keeper, schedules, ...opened });

    const bookmarks = await ledger.bookmarks();
    await prune(ports, pipeline, bookmarks, opened.chain.head);
    await ringCatchingUp(ports, bookmarks, opened.chain.head);
    await ringHalted(ports, bookmarks, run.started_at_ms);
    if (run.fault) throw run.fault;
  } catch (thrown) {
    error = asSluiceError(thrown);
    stopped_by = 'failed';
    log.error('window_failed', { code: error.code, message: error.message, remedy: error.remedy });
  } finally {
    await keeper.release();
  }
  const report = run.report(stopped_by, error);
  await ledger.saveReport(report);
  return report;
}

export interface OpenWindow extends OpenChain {
  readonly run: RunLog;
  readonly keeper: LeaseKeeper;
  readonly schedules: TableSchedules;
}

/** The slot, from where the chain ends; twice, where it must be read to its end before some streams can be captured. */
async function drainLog(ports: DrainPorts, pipeline: Pipeline, window: Window, open: OpenWindow): Promise<StopReason> {
  const { replication_slot: slot, application_name } = pipeline.source;
  await freeSlot(ports, open.ground, { slot, application_name, token: open.keeper.token });
  await followFailover(ports, pipeline, open.ground);
  const early = (await beforeAppends(ports, pipeline, open)) ?? (await beforeNames(ports, pipeline, open));
  if (!early) return await drainSlot(ports, pipeline, window, open);
  const stopped_by = await drainSlot(ports, pipeline, { ...window, break_at_end_lsn: true }, { ...open, ...early });
  if (stopped_by !== 'end_lsn') return stopped_by;
  return await drainSlot(ports, pipeline, window, { ...open, ...(await lookAgain(ports, open)) });
}

const NO_DEADLINE =
  'The source was decoding all that time, and sent nothing. If it comes again, the next window does no better: sluice run --stack NAME -c FILE has no deadline.';

/** capture, then slot ─► decode ─► cut ─► stage ─► record ─► confirm, announce: until it is time to stop. */
async function drainSlot(ports: DrainPorts, pipeline: Pipeline, window: Window, open: OpenWindow): Promise<StopReason> {
  const { clock, source, stage } = ports;
  const { run, keeper, chain, ground } = open;
  const { target } = pipeline;
  const captured = await capture(ports, open, window.asked, (stream) => open.schedules.isPaused(stream));
  const followed = await capturedStreams(ports.ledger, open.streams, captured, !target.primary_key_required);
  const streams = await checkedStreams(ports, pipeline, followed, { captured, head: chain.head.number });
  const news = await shapeNews(ports, { ...open, captured }, pipeline.source.plugin);
  const { reader, reading, unfinished } = await openReading(ports, pipeline, window, {
    ...open,
    followed: streams,
    captured,
    news,
  });
  const { cut } = reading;
  const describing = new Describing(source, streams);
  const announcer = new Announcer(ports, target, open.schedules);
  /** What is taken from the cut is staged and recorded while the next is read; `settled` before anything else is taken. */
  const behind = new OneBehind();
  const incomplete = new Set<StagedCut>();
  let staged: StagedCut | null = null;

  /** Streams whose changes have been passed over are halted before a position past these changes is recorded. */
  const haltFaulty = async (): Promise<void> => {
    await behind.settled();
    for (const [stream, fault] of cut.faults) await stopStream(ports, stream, fault);
    cut.faults.clear();
  };

  const takePart = async () => {
    // What is looked up is given to the cut, and may find a fault of a stream.
    await reading.settle();
    await haltFaulty();
    staged ??= new StagedCut(
      stage,
      objectName(pipeline, 'cuts', chain.head.number + 1, ports.newId()),
      unfinished.take(),
    );
    incomplete.add(staged);
    await staged.reject(cut.rejected.take());
    return { into: staged, shares: cut.takePart(), extracted_at: new Date(clock.now()).toISOString() };
  };

  const stagePart = async (): Promise<void> => {
    const { into, shares, extracted_at } = await takePart();
    const append = async () => into.append(await describing.describe(shares), extracted_at);
    await behind.start(() => run.timed('stage', append), holdsGiants(shares));
  };

  const finishCut = async (): Promise<void> => {
    const { into, shares, extracted_at } = await takePart();
    const { end_lsn, committed_at_ms, counts, transactions } = cut;
    staged = null;
    reading.restart();
    const finish = async (): Promise<void> => {
      const object = await run.timed('stage', async () => {
        await into.append(await describing.describe(shares), extracted_at);
        return await into.complete();
      });
      const streams = cutStreams(counts, object);
      const next = { kind: 'changes', end_lsn, committed_at_ms, ...objectOf(object), streams } as const;
      const record = () => run.timed('record', () => chain.append(next));
      const number = chain.head.number + 1;
      const kept = await recordedWith(ports.ledger, object.rejected, number, clock.now(), record);
      const { recorded } = kept;
      run.rejected(kept.rejected_rows);
      incomplete.delete(into);
      // Only now (I1).
      reader.confirm(recorded.end_lsn);
      run.recorded(recorded, transactions);
      await announcer.recorded(recorded);
    };
    await behind.start(finish, holdsGiants(shares));
  };

  /** Inside a transaction: what is staged of it stays, for the next window to go on behind it. */
  const suspendCut = async (): Promise<void> => {
    if (reading.isPassing || !unfinished.hasRoom(chain.head)) return run.unfinished(await unfinished.stall());
    if (reading.read.messages === 0) return;
    const { into, shares, extracted_at } = await takePart();
    await run.timed('stage', async () => into.append(await describing.describe(shares), extracted_at));
    run.unfinished(await unfinished.suspend(into, reading, chain.head));
    incomplete.delete(into);
  };

  /** There was nothing for us up to here: recorded and confirmed too, so that the slot of idle tables moves while others write. */
  const finishEmptyCut = async (): Promise<void> => {
    await haltFaulty();
    const { end_lsn, transactions } = cut;
    unfinished.take();
    reading.restart();
    if (end_lsn <= chain.head.end_lsn) return;
    const recorded = await run.timed('record', () => chain.append({ kind: 'changes', end_lsn }));
    reader.confirm(recorded.end_lsn);
    run.recorded(recorded, transactions);
  };

  try {
    if (!logsTruncate(ground.version, reader.dialect)) {
      await noteTruncated(ports, { ...open, captured }, target.on_truncate);
    }
    let reason: StopReason | null = null;
    while (reason === null) {
      const step = await run.timed('read', () => reading.next());
      if (step === 'cut') await finishCut();
      else if (step === 'part') await stagePart();
      else if (step === 'empty') await finishEmptyCut();
      else if (step === 'quiet') await announcer.tick(behind.isFree && !cut.hasChanges && !reading.isAmid);
      await openRunsDue(ports, open, open.schedules);
      reason = (await keeper.keep()) ? reading.stopReason() : 'lease_lost';
    }
    if (reason === 'deadline' && reading.isStill) ports.log.warn('window_came_to_nothing', { remedy: NO_DEADLINE });
    if (reading.isAmid && reason !== 'lease_lost') await suspendCut();
    else if (reason !== 'lease_lost') {
      // What is looked up is of the shape that the log has shown: it stands before a newer one is told.
      await reading.settle();
      const told = tellNews(cut, streams, news);
      await (cut.hasChanges ? finishCut() : finishEmptyCut());
      await behind.settled();
      await rememberTold(ports, told);
    }
    await behind.settled();
    await announcer.ringAll(reason, run.started_at_ms);
    return reason;
  } catch (thrown) {
    throw await unlessOvertaken(ports, chain.head, await unfinished.failed(thrown));
  } finally {
    await behind.settled().catch(() => {}); // It is what is being thrown, or it came after that.
    await reader.close();
    for (const abandoned of incomplete) await abandoned.abandon();
  }
}

export interface ExtractPorts extends SaltPort, SchemaPort {
  readonly clock: Clock;
  readonly log: Log;
  readonly extractor: Extractor;
  readonly comparer: Comparer;
  readonly stage: Stage;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
  readonly target: Target;
  readonly newId: () => string;
}

export interface ExtractReport {
  readonly stream: string;
  readonly outcome: 'planned' | 'staged' | 'nothing' | 'halted';
  readonly rows: number;
  readonly chunks: number;
}

/** query ─► stage ─► record ─► announce: one step of an epoch. Throws what is worth another try, and faults of the ground. */
export async function extract(given: ExtractPorts, pipeline: Pipeline, bell: ExtractBell): Promise<ExtractReport> {
  const { stream } = bell;
  const nothing = { stream, outcome: 'nothing', rows: 0, chunks: 0 } as const;
  const bookmark = await given.ledger.bookmark(stream);
  const epoch = await given.ledger.epoch(stream, bell.epoch);
  if (!bookmark || !epoch || bookmark.halt !== null || bookmark.epoch !== bell.epoch) return nothing;
  try {
    const options = streamOptions(pipeline, bookmark.table);
    const extractor = await chosenExtractor(given, queryExtractor(given.extractor, options), pipeline, bookmark);
    // The file says something else of it by now: the next window captures it anew.
    if (extractor === null) return nothing;
    const ports = { ...given, extractor };
    if (bell.kind === 'plan') {
      const { itersize, query_chunk_rows: chunk_rows } = pipeline.source;
      const paging = { itersize, chunk_rows, lookback: options?.lookback ?? null };
      const chunks = await planEpoch(ports, bookmark, epoch, paging);
      return { ...nothing, outcome: chunks === null ? 'nothing' : 'planned', chunks: chunks ?? 0 };
    }
    const object = objectName(pipeline, `chunks/${stream}/${bell.epoch}`, bell.chunk, ports.newId());
    const checked = { ...ports, extractor: await checkedExtractor(ports, pipeline, bell, object) };
    const rows = await readChunk(checked, bookmark, epoch, bell, object);
    return {
      ...nothing,
      outcome: rows === null ? 'nothing' : 'staged',
      rows: rows ?? 0,
      chunks: rows === null ? 0 : 1,
    };
  } catch (thrown) {
    return { ...nothing, outcome: await haltOrThrow(given, bookmark, asSluiceError(thrown), bell.epoch) };
  }
}

export type LoadPorts = StepPorts;

export type LoadReport = LoadOutcome & { readonly stream: string };

/** load ─► target: everything after the applied cut, in order; or one chunk; or the end of an epoch. Throws as `extract` does. */
export async function load(ports: LoadPorts, bell: LoadBell, limits: LoadLimits): Promise<LoadReport> {
  const { stream } = bell;
  if (bell.kind === 'cuts' && limits.consistency === 'transaction') {
    return { stream, ...(await loadTogether(ports, bell, limits)) };
  }
  const nothing = { stream, outcome: 'nothing', cuts: 0, changes: 0, rows: 0 } as const;
  const bookmark = await ports.ledger.bookmark(stream);
  if (!bookmark) return nothing;
  if (bookmark.halt !== null) {
    await noteHalts(ports, [bookmark]);
    return { ...nothing, outcome: 'halted' };
  }
  try {
    switch (bell.kind) {
      case 'cuts':
        return { stream, ...(await applyCuts(ports, bookmark, limits)) };
      case 'chunk':
        return { stream, ...(await loadChunk(ports, bookmark, bell, limits)) };
      case 'finish':
        return { stream, ...(await finishEpoch(ports, bookmark, bell.epoch, limits)) };
      default:
        return bell satisfies never;
    }
  } catch (thrown) {
    const epoch = bell.kind === 'cuts' ? null : bell.epoch;
    const fault = asSluiceError(thrown);
    const outcome = await haltOrThrow(ports, bookmark, fault, epoch);
    if (outcome === 'halted') await noteHalts(ports, [{ stream, halt: fault }]);
    return { ...nothing, outcome };
  }
}

function objectName(pipeline: Pipeline, folder: string, number: number, id: string): string {
  return `${pipeline.pipeline}/${folder}/${String(number).padStart(12, '0')}-${id}`;
}
