/**
 * Doorbells (I9): which stream is rung when, as cuts are recorded, and again at each window for what was recorded and is not applied.
 *
 * A bell that cannot be rung costs time and no data, so it never fails a window: it is logged, and the next window rings again.
 */
import type { TargetConfig } from '../config/schema.ts';
import { type BatchOptions, batchesDue, type PendingBatch } from '../cut/due.ts';
import { courseOf } from '../epoch/kinds.ts';
import { asSluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import type {
  Bookmark,
  Clock,
  Cut,
  Doorbell,
  Epoch,
  ExtractBell,
  Ledger,
  LoadBell,
  Log,
  StopReason,
} from '../ports.ts';
import type { TableSchedules } from './table-schedules.ts';
import { isHeldBack, waitsForItsTime } from './waiting.ts';

/** The newest cuts are looked at for who has something in them. */
const RING_CUTS_MAX = 250;
/** Who is further behind than this is rung without looking: also a stream without changes, so that old cuts can be pruned. */
const QUIET_CUTS_MAX = 200;
/** The outstanding work of an epoch is rung for again after this long. */
const EPOCH_RING_AGAIN_MS = 120_000;

interface AnnouncePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/** Of `target`; seconds. */
type BatchSettings = Pick<
  TargetConfig,
  'batch_size_rows' | 'batch_flush_interval' | 'batch_flush_min_time_gap' | 'flush_all_streams' | 'consistency'
>;

export class Announcer {
  #ports: AnnouncePorts;
  #options: BatchOptions;
  /** Of the streams that are rung for at times of their own. */
  #schedules: TableSchedules;
  #pending = new Map<string, PendingBatch>();
  #rung_at_ms = new Map<string, number>();

  constructor(ports: AnnouncePorts, target: BatchSettings, schedules: TableSchedules) {
    this.#ports = ports;
    this.#options = {
      batch_size_rows: target.batch_size_rows,
      batch_flush_interval_ms: target.batch_flush_interval * 1000,
      batch_flush_min_time_gap_ms: target.batch_flush_min_time_gap * 1000,
      flush_all_streams: target.flush_all_streams,
      together: target.consistency === 'transaction',
    };
    this.#schedules = schedules;
  }

  /** Takes note of a recorded cut, and rings for the batches that are due. */
  async recorded(cut: Cut): Promise<void> {
    const now_ms = this.#ports.clock.now();
    for (const [stream, { changes }] of Object.entries(cut.streams)) {
      if (this.#schedules.waits(stream)) continue;
      const before = this.#pending.get(stream);
      this.#pending.set(stream, {
        rows: (before?.rows ?? 0) + changes,
        cut: cut.number,
        since_ms: before?.since_ms ?? now_ms,
      });
    }
    await this.#ring(batchesDue(this.#pending, this.#rung_at_ms, now_ms, this.#options));
    this.#schedules.recorded(cut);
    await this.#schedules.serve();
  }

  /** Rings for what has become due by time. `isAllRecorded`: nothing that was read waits to be recorded. */
  async tick(isAllRecorded: boolean): Promise<void> {
    if (isAllRecorded) this.#schedules.quiet();
    await this.#schedules.serve();
    if (this.#pending.size === 0) return;
    await this.#ring(batchesDue(this.#pending, this.#rung_at_ms, this.#ports.clock.now(), this.#options));
  }

  /** The end of a window, which began at `started_at_ms`, rings for all, but for those whose time has not come. */
  async ringAll(reason: StopReason, started_at_ms: number): Promise<void> {
    this.#schedules.ended(reason, started_at_ms);
    await this.#schedules.serve();
    await this.#ring([...this.#pending.keys()]);
  }

  async #ring(streams: readonly string[]): Promise<void> {
    if (streams.length === 0) return;
    const now_ms = this.#ports.clock.now();
    const bells: CutsBell[] = [];
    for (const stream of streams) {
      const batch = this.#pending.get(stream);
      if (!batch) continue;
      bells.push({ kind: 'cuts', stream, cut: batch.cut });
      this.#pending.delete(stream);
      this.#rung_at_ms.set(stream, now_ms);
    }
    await ringLoad(this.#ports, this.#options.together ? oneFor(bells) : bells);
  }
}

type CutsBell = LoadBell & { readonly kind: 'cuts' };

/** Whoever is rung for loads all streams together: the others would wait for him, to find nothing left. */
function oneFor(bells: readonly CutsBell[]): CutsBell[] {
  const [first] = bells;
  return first ? [{ ...first, cut: Math.max(...bells.map(({ cut }) => cut)) }] : [];
}

/** Rings for everything that was recorded and is not applied, and for the open work of epochs. `all`: also what was rung for a moment ago. */
export async function ringAgain(
  ports: AnnouncePorts,
  bookmarks: readonly Bookmark[],
  head: Cut,
  all: boolean,
  /** Streams that have caught up are loaded together, whichever is rung for. */
  together = false,
  /** Also for what waits for a time of its table's own. */
  unscheduled = false,
): Promise<void> {
  const applying = bookmarks
    .filter(isLogBased)
    .filter(({ halt, state }) => halt === null && (state === 'catching_up' || state === 'live'))
    .filter((bookmark) => unscheduled || !waitsForItsTime(bookmark));
  const oldest = Math.min(head.number, ...applying.map(({ applied_cut }) => applied_cut));
  const from = Math.max(oldest, head.number - RING_CUTS_MAX);
  const cuts = from < head.number ? await ports.ledger.cutsAfter(from, RING_CUTS_MAX) : [];
  const live: CutsBell[] = [];
  const behind: CutsBell[] = [];
  for (const { stream, applied_cut, state } of applying) {
    const newest = cuts.findLast((cut) => cut.number > applied_cut && cut.streams[stream] !== undefined);
    if (newest || state === 'catching_up' || head.number - applied_cut > QUIET_CUTS_MAX) {
      const bells = state === 'catching_up' ? behind : live;
      bells.push({ kind: 'cuts', stream, cut: newest?.number ?? head.number });
    }
  }
  await ringLoad(ports, [...behind, ...(together ? oneFor(live) : live)]);
  for (const bookmark of bookmarks) {
    if (
      bookmark.halt === null &&
      bookmark.epoch > 0 &&
      (bookmark.state === 'captured' || bookmark.state === 'syncing')
    ) {
      await ringEpoch(ports, bookmark, all, unscheduled);
    }
  }
}

/** At the end of a window: a stream that catches up may have had nothing in it, and learns of the new position all the same. */
export async function ringCatchingUp(
  ports: Pick<AnnouncePorts, 'log' | 'doorbell'>,
  bookmarks: readonly Bookmark[],
  head: Cut,
): Promise<void> {
  const behind = bookmarks.filter(({ halt, state }) => halt === null && state === 'catching_up');
  await ringLoad(
    ports,
    behind.map(({ stream }) => ({ kind: 'cuts', stream, cut: head.number })),
  );
}

/** At the end of a window: streams that have halted in it, so that a loader tells readers of the target (load/note-halts.ts). */
export async function ringHalted(
  ports: Pick<AnnouncePorts, 'log' | 'doorbell'>,
  bookmarks: readonly Bookmark[],
  since_ms: number,
): Promise<void> {
  const halted = bookmarks.filter(({ halt }) => halt !== null && halt.at_ms >= since_ms);
  await ringLoad(
    ports,
    halted.map(({ stream, applied_cut }) => ({ kind: 'cuts', stream, cut: applied_cut })),
  );
}

async function ringEpoch(ports: AnnouncePorts, bookmark: Bookmark, all: boolean, unscheduled: boolean): Promise<void> {
  const { stream } = bookmark;
  const epoch = await ports.ledger.epoch(stream, bookmark.epoch);
  const now_ms = ports.clock.now();
  if (!epoch || (!all && now_ms - epoch.rung_at_ms < EPOCH_RING_AGAIN_MS)) return;
  if (!unscheduled && isHeldBack(bookmark, epoch)) return;
  // One that waits for the epoch of its last capture.
  if (epoch.state === 'done' && bookmark.state === 'captured') return;
  await ports.ledger.updateEpoch({ ...epoch, rung_at_ms: now_ms }, epoch.state);
  await ringEpochWork(ports, epoch);
}

/** Rings for whatever an epoch still lacks: its plan, chunks to extract, chunks to load, its end. */
export async function ringEpochWork(ports: AnnouncePorts, epoch: Epoch): Promise<void> {
  const { stream, number, plan } = epoch;
  switch (epoch.state) {
    case 'opened':
      return await ringExtract(ports, [{ kind: 'plan', stream, epoch: number }]);
    case 'planned': {
      if (plan === null) return;
      const chunks = await ports.ledger.chunks(stream, number, plan);
      const open = chunks.filter(({ loaded }) => !loaded);
      // One after another: whoever has loaded one rings for the next.
      const due = courseOf(epoch.kind).in_order ? open.toSorted((a, b) => a.number - b.number).slice(0, 1) : open;
      const unstaged = due.filter(({ staged }) => staged === null);
      const unloaded = due.filter(({ staged }) => staged !== null);
      await ringExtract(
        ports,
        unstaged.map((chunk) => ({ kind: 'chunk', stream, epoch: number, plan, chunk: chunk.number })),
      );
      await ringLoad(
        ports,
        unloaded.map((chunk) => ({ kind: 'chunk', stream, epoch: number, plan, chunk: chunk.number })),
      );
      if (unstaged.length + unloaded.length === 0) await ringLoad(ports, [{ kind: 'finish', stream, epoch: number }]);
      return;
    }
    case 'cancelled':
    case 'done':
      return await ringLoad(ports, [{ kind: 'finish', stream, epoch: number }]);
    default:
      epoch.state satisfies never;
  }
}

export async function ringLoad(
  ports: Pick<AnnouncePorts, 'log' | 'doorbell'>,
  bells: readonly LoadBell[],
): Promise<void> {
  if (bells.length === 0) return;
  try {
    await ports.doorbell.ringLoad(bells);
  } catch (error) {
    const { code, message } = asSluiceError(error);
    ports.log.warn('doorbell_not_rung', { queue: 'load', bells: bells.length, code, message });
  }
}

export async function ringExtract(
  ports: Pick<AnnouncePorts, 'log' | 'doorbell'>,
  bells: readonly ExtractBell[],
): Promise<void> {
  if (bells.length === 0) return;
  try {
    await ports.doorbell.ringExtract(bells);
  } catch (error) {
    const { code, message } = asSluiceError(error);
    ports.log.warn('doorbell_not_rung', { queue: 'extract', bells: bells.length, code, message });
  }
}
