/**
 * Waits until the chain has been applied to a stream up to a position of the source, as the ledger tells; and has the chain move meanwhile, where nobody
 * else does. Its bookmark mirrors what is applied and may lag: it says too little, never too much.
 */
import type { Lsn } from '../lsn.ts';
import type { Bookmark, Clock, Ledger } from '../ports.ts';

export interface ChainPorts {
  readonly clock: Clock;
  readonly ledger: Pick<Ledger, 'head' | 'bookmark' | 'cutsAfter' | 'epochRequests'>;
  /** Runs a window up to where the source stands now; null: an engine is at work, and its schedule decides. */
  readonly advance: (() => Promise<void>) | null;
  /** How long nothing may move until the wait is given up, ms. */
  readonly idle_ms_max: number;
}

/** Why there is nothing to wait for. */
export type Stuck = 'gone' | 'halted' | 'paused' | 'late';

const POLL_MS = 200;
const CUTS_A_LOOK_MAX = 500;

export class Passage {
  readonly #ports: ChainPorts;

  constructor(ports: ChainPorts) {
    this.#ports = ports;
  }

  /** Resolves with null when the stream is live and has applied everything up to `lsn`. Throws what `advance` throws. */
  async passed(stream: string, lsn: Lsn): Promise<Stuck | null> {
    let goal: number | null = null;
    return await this.#await(stream, async (bookmark) => {
      const head = await this.#ports.ledger.head();
      if (goal === null && head !== null && head.end_lsn >= lsn) goal = head.number;
      // Past the goal, a chain that moves on says nothing of a stream that does not.
      if (goal === null) return { done: false, needs_window: true, mark: head?.end_lsn };
      if (!isLive(bookmark)) return { done: false, needs_window: true };
      return { done: await this.#hasApplied(bookmark, goal), needs_window: false };
    });
  }

  /** Resolves with null when nothing that was asked for waits, and the stream is live. */
  async quiet(stream: string): Promise<Stuck | null> {
    return await this.#await(stream, async (bookmark) => {
      const requests = await this.#ports.ledger.epochRequests(stream);
      const done = requests.length === 0 && isLive(bookmark);
      return { done, needs_window: !done, mark: requests.length };
    });
  }

  /** Number of the stream's newest epoch while it is live: another one, or null, and what was read of the target in between is of two times. */
  async liveEpoch(stream: string): Promise<number | null> {
    const bookmark = await this.#ports.ledger.bookmark(stream);
    return bookmark !== null && isLive(bookmark) ? bookmark.epoch : null;
  }

  async #await(
    stream: string,
    look: (bookmark: Bookmark) => Promise<{ done: boolean; needs_window: boolean; mark?: unknown }>,
  ): Promise<Stuck | null> {
    const { clock, ledger, advance, idle_ms_max } = this.#ports;
    let moved_ms = clock.now();
    let seen = '';
    for (;;) {
      const bookmark = await ledger.bookmark(stream);
      if (bookmark === null) return 'gone';
      if (bookmark.halt !== null) return 'halted';
      const { done, needs_window, mark } = await look(bookmark);
      if (done) return null;
      const { applied_cut, state, epoch, rows_copied, schedule } = bookmark;
      // Somebody else's windows leave it alone until a person says otherwise.
      if (advance === null && schedule?.paused && (state === 'captured' || !needs_window)) return 'paused';
      const now = [applied_cut, state, epoch, rows_copied, String(mark)].join();
      if (now !== seen) moved_ms = clock.now();
      else if (clock.now() - moved_ms > idle_ms_max) return 'late';
      seen = now;
      if (needs_window) await advance?.();
      await clock.sleep(POLL_MS);
    }
  }

  /** No cut up to `goal` has changes of the stream that are not applied. */
  async #hasApplied({ stream, applied_cut }: Bookmark, goal: number): Promise<boolean> {
    for (let after = applied_cut; after < goal; ) {
      const cuts = await this.#ports.ledger.cutsAfter(after, CUTS_A_LOOK_MAX);
      const last = cuts.at(-1);
      if (cuts.some(({ number, streams }) => number <= goal && Object.hasOwn(streams, stream))) return false;
      if (last === undefined) return true;
      after = last.number;
    }
    return true;
  }
}

function isLive({ state, halt, reset_requested, resync_requested }: Bookmark): boolean {
  return state === 'live' && halt === null && !reset_requested && resync_requested !== true;
}
