/**
 * Runs windows, and lets loaders work, until every selected stream has applied what the source had at the beginning. What may pass by itself is tried again
 * up to a limit (patience.ts); what a person must mend ends it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine } from '../../infra/local/engine.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { ReportStatus } from '../../lib/operate.ts';
import { Ended, type Told } from '../failure.ts';
import { counted } from '../view/text.ts';
import { isSettled, mark, needsWindow, type Remaining, remaining } from './caught-up.ts';
import { type BellFaults, isTransient, WINDOW_TRIES_MAX, windowWait } from './patience.ts';
import type { Sight, Watch } from './watch.ts';

/** While tables are copied, the slot is read so often, so that the source need not keep its log for long. */
const WINDOW_GAP_MS = 5_000;
const POLL_MS = 200;
/** Windows that find everything idle and move nothing, with growing waits in between: half a minute in all. */
const IDLE_WINDOWS_MAX = 8;
/** A window of another process is waited for: a lease runs out, and a window ends. */
const SKIPPED_WINDOWS_MAX = 120;
const SKIPPED_WAIT_MS = 1_000;

export interface CatchUp {
  readonly engine: Pick<Engine, 'window' | 'idle'>;
  readonly watch: Watch;
  readonly selected: ReadonlySet<string>;
  /** The source's position at the beginning, as it prints it. */
  readonly lsn: string;
  readonly faults: BellFaults;
  /** Somebody wants it to end. */
  readonly signal: AbortSignal;
  readonly onTrouble: (error: Told, next: string) => void;
}

export type CaughtUp =
  | { readonly outcome: 'caught_up' | 'halted'; readonly sight: Sight; readonly left: Remaining }
  | { readonly outcome: 'interrupted' };

/** Throws Ended with the error that keeps it from its end. */
export async function catchUp(options: CatchUp): Promise<CaughtUp> {
  try {
    return await new CatchingUp(options).run();
  } catch (thrown) {
    // Whatever was under way has been broken off.
    if (options.signal.aborted) return { outcome: 'interrupted' };
    throw thrown;
  }
}

class CatchingUp {
  readonly #options: CatchUp;
  #goal_cut: number | null = null;
  /** Each stream that is read by query has one run from here on, however many windows there are. */
  readonly #since_ms = Date.now();
  #idling: Promise<void> | null = null;
  #moved = '';
  #idleWindows = 0;

  constructor(options: CatchUp) {
    this.#options = options;
  }

  async run(): Promise<CaughtUp> {
    const { signal } = this.#options;
    for (let ring_all = false; !signal.aborted; ) {
      await this.#window(ring_all);
      const { sight, left } = await this.#settle();
      if (isSettled(left) && !signal.aborted) {
        return { outcome: left.halted.length > 0 ? 'halted' : 'caught_up', sight, left };
      }
      ring_all = await this.#pause(sight, left);
    }
    return { outcome: 'interrupted' };
  }

  /** One window that ended well, after as many as it takes. */
  async #window(ring_all: boolean): Promise<void> {
    const { engine, signal, onTrouble } = this.#options;
    let skipped = 0;
    for (let failures = 0; !signal.aborted; ) {
      const report = await windowReport(engine, { ring_all, runs_since_ms: this.#since_ms });
      if (report.stopped_by === 'skipped') {
        skipped += 1;
        if (skipped === SKIPPED_WINDOWS_MAX) throw this.#notCaughtUp(skipped, 'Every stream');
        await this.#wait(SKIPPED_WAIT_MS);
      } else if (report.error === null) {
        if (report.stopped_by === 'end_lsn')
          this.#goal_cut ??= (await this.#options.watch.look()).status.head?.cut ?? null;
        return;
      } else {
        failures += 1;
        if (signal.aborted) return;
        if (!isTransient(report.error.code) || failures === WINDOW_TRIES_MAX) throw new Ended(1, [report.error]);
        const wait_ms = windowWait(failures);
        onTrouble(report.error, `Trying again in ${wait_ms / 1000} s (${failures} of ${WINDOW_TRIES_MAX - 1}).`);
        await this.#wait(wait_ms);
      }
    }
  }

  /** Until all is applied, nothing runs any more, or it is time for another window. */
  async #settle(): Promise<{ sight: Sight; left: Remaining }> {
    const { watch, selected, faults, signal } = this.#options;
    const since_ms = performance.now();
    this.#awaitIdle();
    for (;;) {
      const wasIdle = this.#idling === null;
      const began_ms = performance.now();
      const sight = await watch.look();
      const left = remaining(sight.status, selected, this.#goal_cut, this.#since_ms);
      const hopeless = faults.hopeless(Date.now());
      if (hopeless) throw new Ended(1, [hopeless]);
      const now_ms = performance.now();
      const isDue = now_ms - since_ms >= WINDOW_GAP_MS && needsWindow(left, this.#goal_cut);
      if (isSettled(left) || wasIdle || isDue || signal.aborted) return { sight, left };
      await this.#wait(Math.max(POLL_MS, now_ms - began_ms));
    }
  }

  /** `#idling` is null again when nothing runs and no doorbell waits. One at a time: each asks the queues again and again. */
  #awaitIdle(): void {
    this.#idling ??= this.#idle();
  }

  async #idle(): Promise<void> {
    try {
      await this.#options.engine.idle();
    } catch {
      // A queue that cannot be asked is told by the pollers (onFault); it is asked anew after the next window.
    } finally {
      this.#idling = null;
    }
  }

  /** Whether the next window shall ring for everything: what nobody works on has been rung for in vain. Throws when nothing moves any more. */
  async #pause({ status }: Sight, left: Remaining): Promise<boolean> {
    const now = mark(status);
    const hasMoved = now !== this.#moved;
    this.#moved = now;
    this.#idleWindows = hasMoved ? 0 : this.#idleWindows + 1;
    if (hasMoved || this.#idling !== null) return false;
    if (this.#idleWindows === IDLE_WINDOWS_MAX) {
      const { last } = this.#options.faults;
      if (last) throw new Ended(1, [last]);
      const count = left.unfinished.length + left.missing.length;
      throw this.#notCaughtUp(IDLE_WINDOWS_MAX, counted(count, 'stream'));
    }
    await this.#wait(windowWait(this.#idleWindows));
    return true;
  }

  async #wait(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#options.signal }).catch(() => undefined); // Cut short when it is to end.
  }

  #notCaughtUp(windows: number, streams: string): SluiceError {
    return new SluiceError('NOT_CAUGHT_UP', { streams, windows, lsn: this.#options.lsn });
  }
}

/** A window that throws is one that failed: the engine's own faults come that way. */
async function windowReport(
  engine: CatchUp['engine'],
  options: { readonly ring_all: boolean; readonly runs_since_ms: number },
): Promise<Pick<ReportStatus, 'stopped_by' | 'error'>> {
  try {
    // What `drain` answers (functions/drain.ts).
    return (await engine.window({ break_at_end_lsn: true, ignore_schedules: true, ...options })) as ReportStatus;
  } catch (thrown) {
    if (!(thrown instanceof SluiceError)) throw thrown;
    const { code, message, remedy } = thrown;
    return { stopped_by: 'failed', error: { code, message, remedy } };
  }
}
