/**
 * Looks at the ledger again and again while a run goes on, and tells what it sees: the streams as they stand, the cuts that have been recorded since the
 * run began, and how fast both grow.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type OperatePorts, type PipelineStatus, status } from '../../lib/operate.ts';
import type { Cut } from '../../lib/ports.ts';
import { type Progress, ProgressMaker, type Recorded } from './progress.ts';

const LOOK_MS = 500;
/** Looking takes at most a tenth of the time: a pipeline of thousands of tables is looked at less often. */
const LOOK_SHARE = 10;
const CUTS_A_LOOK_MAX = 500;

export interface Sight {
  readonly at_ms: number;
  readonly status: PipelineStatus;
  readonly progress: Progress;
}

export interface WatchOptions {
  readonly ports: Pick<OperatePorts, 'clock' | 'ledger'>;
  readonly pipeline: string;
  /** Ids of the streams to show; null: all. */
  readonly selected: ReadonlySet<string> | null;
  readonly onSight?: (sight: Sight) => void;
  /** Cuts in order, each once. */
  readonly onCuts?: (cuts: readonly Cut[]) => void;
}

export class Watch {
  readonly #options: WatchOptions;
  readonly #maker = new ProgressMaker();
  readonly #stopping = new AbortController();
  #recorded: Recorded = { cuts: 0, changes: 0, object_bytes: 0 };
  /** Number of the last cut that has been counted; null: none yet, and what was recorded before the run does not count. */
  #seen: number | null = null;
  #tables = new Map<string, string>();
  #looking: Promise<unknown> = Promise.resolve();
  #running: Promise<void> | null = null;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  /** Looks now, or right after a look that is under way: what it sees is never older than the call. */
  async look(): Promise<Sight> {
    const look = this.#looking.then(() => this.#look());
    this.#looking = look.catch(() => undefined); // The caller has the error; the next look is another try.
    return await look;
  }

  /** The table of a stream, as far as it has been seen; else its id. */
  tableOf(stream: string): string {
    return this.#tables.get(stream) ?? stream;
  }

  /** Looks until `stop`. A look that fails is told, and another follows. */
  start(onFault: (thrown: unknown) => void): void {
    this.#running ??= this.#run(onFault);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(onFault: (thrown: unknown) => void): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const began_ms = performance.now();
      await this.look().catch(onFault);
      const took_ms = performance.now() - began_ms;
      await sleep(Math.max(LOOK_MS, took_ms * LOOK_SHARE), undefined, { signal }).catch(() => undefined); // Cut short by the stop.
    }
  }

  async #look(): Promise<Sight> {
    const { ports, pipeline, selected, onSight } = this.#options;
    const seen = await status(ports, pipeline);
    const streams = seen.streams.filter(({ stream }) => selected === null || selected.has(stream));
    for (const { stream, table } of streams) this.#tables.set(stream, table);
    await this.#count(seen.head?.cut ?? null);
    const at_ms = ports.clock.now();
    const sight = {
      at_ms,
      status: { ...seen, streams },
      progress: this.#maker.make(at_ms, { head: seen.head, streams }, this.#recorded),
    };
    onSight?.(sight);
    return sight;
  }

  async #count(head: number | null): Promise<void> {
    this.#seen ??= head ?? -1;
    for (;;) {
      const cuts = await this.#options.ports.ledger.cutsAfter(this.#seen, CUTS_A_LOOK_MAX);
      const last = cuts.at(-1);
      if (!last) return;
      this.#seen = last.number;
      const staged = cuts.filter(({ object }) => object !== null);
      this.#recorded = {
        cuts: this.#recorded.cuts + staged.length,
        changes: this.#recorded.changes + staged.reduce((sum, cut) => sum + changesOf(cut), 0),
        object_bytes: this.#recorded.object_bytes + staged.reduce((sum, cut) => sum + cut.object_bytes, 0),
      };
      this.#options.onCuts?.(cuts);
      if (cuts.length < CUTS_A_LOOK_MAX) return;
    }
  }
}

export function changesOf({ streams }: Pick<Cut, 'streams'>): number {
  return Object.values(streams).reduce((sum, { changes }) => sum + changes, 0);
}
