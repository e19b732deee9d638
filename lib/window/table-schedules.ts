/**
 * Tables with a schedule of their own, in one window: which streams wait for their time, and what is done when it has come.
 *
 * Followed by the log, a table's changes are staged by every window (I10), and its doorbell is rung once for each time of its schedule: when the log has
 * been read up to that time, so that the load has what had been committed then. What it was rung for is remembered in the bookmark, and rung for again until it
 * is applied (I9). Read by query, its run is opened at that time. A table without a schedule goes by the pipeline's: windows that run for others are no run of it.
 */
import type { ScheduleConfig } from '../config/schedule.ts';
import { scheduleOf } from '../config/schedule.ts';
import type { Pipeline } from '../config/schema.ts';
import type { StreamDefinition } from '../config/selection.ts';
import { dueFrom, nextTime } from '../config/times.ts';
import { isLogBased } from '../ledger/method.ts';
import type { Bookmark, BookmarkSchedule, Clock, Cut, Doorbell, Epoch, Ledger, Log, StopReason } from '../ports.ts';
import { ringLoad } from './announce.ts';
import type { OpenChain } from './open-chain.ts';

/** While a window lasts, streams that cannot be served yet are looked at again after this long. */
const LOOK_AGAIN_MS = 30_000;

interface SchedulePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

interface Scheduled {
  readonly schedule: ScheduleConfig;
  readonly due_ms: number | null;
}

export class TableSchedules {
  #ports: SchedulePorts;
  /** Every stream that the window knows, with its schedule; null: it has none of its own. */
  #own: ReadonlyMap<string, ScheduleConfig | null>;
  #pipeline: ScheduleConfig;
  #isIgnored: boolean;
  /** Whether windows run that are not meant for all. */
  #isMixed: boolean;
  #logged = new Map<string, Scheduled>();
  /** Of these, those that are being copied: until they have caught up, they are rung for like all. */
  #unsettled = new Set<string>();
  #unsettledAt_ms = 0;
  #queriesDue_ms: number | null = null;
  #began_ms = 0;
  #head: number;
  /** All that was committed before this time has been read and recorded. */
  #read_ms = Number.NEGATIVE_INFINITY;
  #isServing = false;
  #queries: ReadonlySet<string>;
  #isWanted: OpenChain['isWanted'];

  /** `ignored`: this window serves all, as if no table had a schedule. */
  constructor(
    ports: SchedulePorts,
    pipeline: Pick<Pipeline, 'tables' | 'schedule'>,
    opened: OpenChain,
    ignored: boolean,
  ) {
    const { streams, later = [], queries, chain } = opened;
    this.#ports = ports;
    this.#own = new Map([...streams, ...later, ...queries].map((stream) => [stream.id, ownSchedule(stream)]));
    this.#pipeline = pipeline.schedule;
    this.#isIgnored = ignored;
    this.#isMixed = !ignored && pipeline.tables.some(({ schedule }) => schedule !== null);
    this.#queries = new Set(queries.map(({ id }) => id));
    this.#head = chain.head.number;
    this.#isWanted = opened.isWanted;
  }

  /** What the file says of schedules now goes into the bookmarks. Returns them as they are then. */
  async begin(bookmarks: readonly Bookmark[]): Promise<readonly Bookmark[]> {
    const now_ms = this.#ports.clock.now();
    this.#began_ms = now_ms;
    const begun: Bookmark[] = [];
    for (const bookmark of bookmarks) {
      const schedule = this.#own.get(bookmark.stream);
      // Out of sight for this window, or taken out of the file: then what is staged of it still is loaded, and at once.
      if (schedule === undefined && this.#isWanted(bookmark.table)) begun.push(bookmark);
      else begun.push(await this.#noted(bookmark, schedule ? standOf(bookmark, schedule, now_ms) : null));
    }
    for (const [stream, schedule] of this.#own) {
      if (schedule === null || this.#isIgnored || this.#queries.has(stream)) continue;
      const bookmark = begun.find((known) => known.stream === stream);
      this.#logged.set(stream, { schedule, due_ms: this.#dueFrom(schedule, bookmark?.schedule?.served_ms ?? now_ms) });
      if (bookmark?.state !== 'live') this.#unsettled.add(stream);
    }
    this.#unsettledAt_ms = now_ms;
    return begun;
  }

  /** Whether the stream's changes wait for its own time to be loaded. */
  waits(stream: string): boolean {
    return this.#logged.has(stream) && !this.#unsettled.has(stream);
  }

  /** Whether nothing of the stream shall be copied that nobody has asked for. */
  isPaused(stream: string): boolean {
    return !this.#isIgnored && (this.#own.get(stream)?.paused ?? false);
  }

  recorded({ number, committed_at_ms }: Pick<Cut, 'number' | 'committed_at_ms'>): void {
    this.#head = number;
    this.#read_ms = Math.max(this.#read_ms, committed_at_ms ?? this.#read_ms);
  }

  /** The server has nothing more, and all that it had is recorded. */
  quiet(): void {
    this.#read_ms = this.#ports.clock.now();
  }

  /** The window ends; it began at `started_at_ms`. */
  ended(reason: StopReason, started_at_ms: number): void {
    if (reason === 'end_lsn' || reason === 'no_data') this.#read_ms = Math.max(this.#read_ms, started_at_ms);
  }

  /** Rings for the streams whose time has come. */
  async serve(): Promise<void> {
    // Called from where cuts are recorded, and from where it is quiet: whoever comes second has nothing to do.
    if (this.#isServing) return;
    this.#isServing = true;
    try {
      const now_ms = this.#ports.clock.now();
      if (this.#unsettled.size > 0 && now_ms - this.#unsettledAt_ms >= LOOK_AGAIN_MS) await this.#settle(now_ms);
      for (const [stream, { schedule, due_ms }] of this.#logged) {
        // What is committed later than this is loaded for the next time, however late it is now.
        const until_ms = Math.min(this.#read_ms, now_ms);
        if (due_ms === null || due_ms > until_ms) continue;
        const served = await this.#serveStream(stream, schedule, until_ms);
        const next_ms = served ? this.#dueFrom(schedule, until_ms) : now_ms + LOOK_AGAIN_MS;
        this.#logged.set(stream, { schedule, due_ms: next_ms });
      }
    } finally {
      this.#isServing = false;
    }
  }

  /** Whether a window that lasts shall look at the runs again; then they are looked at (`runIsDue`), each anew. */
  runsAreDue(): boolean {
    const now_ms = this.#ports.clock.now();
    if (!this.#isMixed || this.#queriesDue_ms === null || this.#queriesDue_ms > now_ms) return false;
    this.#queriesDue_ms = null;
    return true;
  }

  /** A stream's last run has not ended: whether the next is due is looked at again. */
  runHasNotEnded(): void {
    this.#lookAt(this.#ports.clock.now() + LOOK_AGAIN_MS);
  }

  /** Whether a stream that is read by query is to have a run now. `last`: its last run; null: none, or one that is not complete. `asked`: it begins anew. */
  runIsDue(bookmark: Bookmark, last: Epoch | null, asked: boolean): boolean {
    if (!this.#isMixed) return true;
    const own = this.#own.get(bookmark.stream) ?? null;
    if (own?.paused) return asked;
    if (last === null || asked) return true;
    const schedule = own ?? { ...this.#pipeline, paused: false };
    const opened_ms = isRun(last) ? last.opened_at_ms : 0;
    const due_ms = this.#dueFrom(schedule, Math.max(servedMs(bookmark), opened_ms));
    const isDue = due_ms !== null && due_ms <= this.#ports.clock.now();
    if (!isDue) this.#lookAt(due_ms);
    return isDue;
  }

  /** A run was opened at `opened_at_ms`. */
  async runOpened(bookmark: Bookmark, opened_at_ms: number): Promise<void> {
    const own = this.#own.get(bookmark.stream) ?? null;
    if (own === null) {
      if (this.#isMixed) this.#lookAt(this.#dueFrom({ ...this.#pipeline, paused: false }, opened_at_ms));
      return;
    }
    this.#lookAt(this.#dueFrom(own, opened_at_ms));
    await this.#noted(bookmark, noteOf(own, opened_at_ms, null));
  }

  async #settle(now_ms: number): Promise<void> {
    this.#unsettledAt_ms = now_ms;
    for (const stream of this.#unsettled) {
      if ((await this.#ports.ledger.bookmark(stream))?.state === 'live') this.#unsettled.delete(stream);
    }
  }

  #lookAt(due_ms: number | null): void {
    if (due_ms === null) return;
    this.#queriesDue_ms = Math.min(this.#queriesDue_ms ?? due_ms, due_ms);
  }

  #dueFrom(schedule: ScheduleConfig, served_ms: number): number | null {
    return dueFrom(schedule, served_ms, this.#began_ms);
  }

  /** For what was committed until `until_ms`. False: it cannot be loaded yet, or waits for a person. */
  async #serveStream(stream: string, schedule: ScheduleConfig, until_ms: number): Promise<boolean> {
    const { ledger, log } = this.#ports;
    const cut = this.#head;
    const bookmark = await ledger.bookmark(stream);
    if (bookmark === null || bookmark.halt !== null || bookmark.state !== 'live' || !isLogBased(bookmark)) return false;
    // First what it is to be loaded up to: where nobody hears the bell, the next window rings again.
    await this.#noted(bookmark, noteOf(schedule, until_ms, cut));
    log.info('table_due', { stream, cut });
    await ringLoad(this.#ports, [{ kind: 'cuts', stream, cut }]);
    return true;
  }

  async #noted(bookmark: Bookmark, schedule: BookmarkSchedule | null): Promise<Bookmark> {
    if (isSame(bookmark.schedule ?? null, schedule)) return bookmark;
    await this.#ports.ledger.updateBookmark(bookmark.stream, { schedule });
    return { ...bookmark, schedule };
  }
}

function ownSchedule({ options }: StreamDefinition): ScheduleConfig | null {
  return options.schedule === null ? null : scheduleOf(options.schedule);
}

/** Where a stream with a schedule stands at the beginning of a window. */
function standOf(bookmark: Bookmark, schedule: ScheduleConfig, now_ms: number): BookmarkSchedule {
  const logged = isLogBased(bookmark);
  const cut = logged ? (bookmark.schedule?.cut ?? bookmark.applied_cut) : null;
  // A copy has what was there while it was made: its time begins when it is done.
  const served_ms = logged && bookmark.state !== 'live' ? now_ms : servedMs(bookmark);
  return noteOf(schedule, served_ms, cut);
}

function servedMs(bookmark: Bookmark): number {
  const { schedule, as_of_ms = 0, applied_at_ms } = bookmark;
  return Math.max(schedule?.served_ms ?? 0, isLogBased(bookmark) ? (schedule ? 0 : applied_at_ms) : as_of_ms);
}

function noteOf(schedule: ScheduleConfig, served_ms: number, cut: number | null): BookmarkSchedule {
  const { paused } = schedule;
  return { served_ms, next_ms: paused ? null : nextTime(schedule, served_ms), paused, cut };
}

function isSame(a: BookmarkSchedule | null, b: BookmarkSchedule | null): boolean {
  if (a === null || b === null) return a === b;
  return a.served_ms === b.served_ms && a.next_ms === b.next_ms && a.paused === b.paused && a.cut === b.cut;
}

function isRun({ kind }: Epoch): boolean {
  return kind === 'full_table' || kind === 'incremental' || kind === 'reset';
}
