/**
 * Keeps a `sluice run --continuous` going: starts it, armed with a failpoint or not, starts it again when it has died or given up, and reads what it says.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, type WriteStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { allPoints, deathLog, deathsIn, failpointEnvironment, passedIn } from '../support/failpoints.ts';
import { seeded } from '../support/seeded.ts';
import type { Workplace } from '../support/sluice.ts';
import { type Sample, slopePerMinute, tally } from './figures.ts';
import type { Frozen } from './frozen.ts';

export interface RunnerOptions {
  readonly place: Workplace;
  readonly frozen: Frozen;
  /** Of the file of deaths. */
  readonly directory: string;
  readonly seed: number;
  readonly began_ms: number;
  /** Takes all that the processes say. */
  readonly transcript: WriteStream;
}

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it said last to a person. */
  readonly words: readonly string[];
}

export interface RunnerCounts {
  starts: number;
  /** Ended by itself with an error, as it does where a server cannot be reached at the start. */
  given_up: number;
  /** Killed at a failpoint: how often at each. */
  readonly kills_by_point: Record<string, number>;
  /** Killed because they did not come to their failpoint. */
  kills_by_clock: number;
  windows: number;
  windows_failed: number;
  loads: number;
  extracts: number;
  changes_loaded: number;
  rows_copied: number;
  cuts_loaded: number;
  halts: string[];
  /** Errors that were met and gone on from, by code. */
  readonly errors: Record<string, number>;
}

/** An ordinary failpoint is met within this; what is not is for kills by the clock. */
const N_MAX = 6;
/** How much more often a point is drawn that has been seen. */
const PASSED_WEIGHT = 20;
const ARMED_MS_MIN = 5_000;
const ARMED_MS_MAX = 20_000;
const RESTART_MS = 200;
const SAMPLE_MS = 1_000;
/** What is sampled earlier is the launcher; and after that, threads that start one by one. */
const START_MS = 2_000;
const WARM_MS = 15_000;
/** Of processes that live shorter, no growth is told. */
const LONG_MS = 90_000;
const WORDS_MAX = 20;
const LAST_WORDS_MAX = 20;

export class Runner {
  readonly counts: RunnerCounts = {
    starts: 0,
    given_up: 0,
    kills_by_point: {},
    kills_by_clock: 0,
    windows: 0,
    windows_failed: 0,
    loads: 0,
    extracts: 0,
    changes_loaded: 0,
    rows_copied: 0,
    cuts_loaded: 0,
    halts: [],
    errors: {},
  };
  readonly rss: Sample[] = [];
  /** Growth of each process that lived for long enough, once it was warm. */
  readonly slopes: { readonly lived_ms: number; readonly bytes_per_minute: number }[] = [];
  /** The last words of runs that ended with an error. */
  readonly last_words: string[] = [];
  readonly #options: RunnerOptions;
  readonly #random: () => number;
  readonly #points: readonly string[];
  #child: ChildProcess | null = null;
  readonly #missed = new Map<string, number>();
  #arming = 0;
  #stopping = false;
  #kept: Promise<void> = Promise.resolve();

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#random = seeded(options.seed);
    this.#points = allPoints();
  }

  /** `share` of the processes that are started from now on are armed with a failpoint, each with another. */
  arm(share: number): void {
    this.#arming = share;
  }

  start(): void {
    this.#kept = this.#keep();
  }

  /** Kills the process as it is; false: there is none. */
  kill(signal: NodeJS.Signals): boolean {
    if (this.#child === null) return false;
    this.#child.kill(signal);
    return true;
  }

  get is_running(): boolean {
    return this.#child !== null;
  }

  /** Ends it cleanly, and starts none. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#child?.kill('SIGTERM');
    await this.#kept;
  }

  async #keep(): Promise<void> {
    while (!this.#stopping) {
      const log = deathLog(this.#options.directory);
      const deaths = deathsIn(log).length;
      const ended = await this.#run(log);
      const [point] = deathsIn(log).slice(deaths);
      if (point !== undefined) tally(this.counts.kills_by_point, point);
      else if (ended.signal === null && ended.code !== 0 && !this.#stopping) {
        this.counts.given_up += 1;
        this.last_words.push(ended.words.join('\n'));
        if (this.last_words.length > LAST_WORDS_MAX) this.last_words.shift();
      }
      if (!this.#stopping) await sleep(RESTART_MS);
    }
  }

  async #run(log: string): Promise<Ended> {
    const { place, frozen, began_ms, transcript } = this.#options;
    const at = this.#nextPoint();
    const n = 1 + Math.floor(this.#random() ** 2 * N_MAX);
    const armed = this.#random() < this.#arming;
    const child = spawn(
      process.execPath,
      [frozen.launcher, 'run', '--continuous', '-c', place.config, '--state', place.state],
      {
        env: {
          ...process.env,
          ...place.env,
          ...(armed ? failpointEnvironment({ at, n, log }, frozen.root) : {}),
          SLUICE_DEBUG: '1',
          NO_COLOR: '1',
        },
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    this.counts.starts += 1;
    this.#child = child;
    // One that does not come to its point dies all the same, some time after it has begun to work.
    const patience_ms = ARMED_MS_MIN + this.#random() * (ARMED_MS_MAX - ARMED_MS_MIN);
    let impatience: NodeJS.Timeout | undefined;
    const words: string[] = [];
    const said = createInterface({ input: child.stderr });
    said.on('line', (line) => {
      transcript.write(`${line}\n`);
      if (this.#hear(line)) {
        if (armed) impatience ??= setTimeout(() => this.#miss(at, child), patience_ms);
        return;
      }
      words.push(line);
      if (words.length > WORDS_MAX) words.shift();
    });
    const started_ms = Date.now();
    const warm: Sample[] = [];
    const watch = setInterval(() => {
      const value = residentBytes(child.pid);
      const at_ms = Date.now();
      if (value === null || at_ms - started_ms < START_MS) return;
      const sample = { at_ms: at_ms - began_ms, value };
      this.rss.push(sample);
      if (at_ms - started_ms > WARM_MS) warm.push(sample);
    }, SAMPLE_MS);
    const [[code, signal]] = (await Promise.all([once(child, 'exit'), once(said, 'close')])) as [
      [number | null, NodeJS.Signals | null],
      unknown,
    ];
    clearInterval(watch);
    clearTimeout(impatience);
    this.#child = null;
    transcript.write(`--- ended: ${signal ?? code}\n`);
    const lived_ms = Date.now() - started_ms;
    const bytes_per_minute = slopePerMinute(warm);
    if (lived_ms >= LONG_MS && bytes_per_minute !== null) this.slopes.push({ lived_ms, bytes_per_minute });
    return { code, signal, words };
  }

  #miss(point: string, child: ChildProcess): void {
    this.#missed.set(point, (this.#missed.get(point) ?? 0) + 1);
    this.counts.kills_by_clock += 1;
    child.kill('SIGKILL');
  }

  /** Mostly of those that processes come past here; the others are tried too, those that nobody came to more and more seldom. */
  #nextPoint(): string {
    const passed = new Set(passedIn(deathLog(this.#options.directory)));
    const kills = this.counts.kills_by_point;
    const weight = (point: string): number =>
      (passed.has(point) ? PASSED_WEIGHT : 1) / (1 + (this.#missed.get(point) ?? 0) + (kills[point] ?? 0)) ** 2;
    let left = this.#random() * this.#points.reduce((sum, point) => sum + weight(point), 0);
    return this.#points.find((point) => (left -= weight(point)) < 0) ?? '';
  }

  /** Whether it was a line of a function's log, as SLUICE_DEBUG shows them. */
  #hear(line: string): boolean {
    const [, text] = /^[\d:]+ {2}\w+: (\{.*\})$/.exec(line) ?? [];
    if (text === undefined) return false;
    const fact = JSON.parse(text) as Record<string, unknown>;
    const { counts } = this;
    const number = (name: string): number => (typeof fact[name] === 'number' ? fact[name] : 0);
    if (typeof fact.windows_succeeded === 'number') {
      counts.windows += fact.windows_succeeded;
      counts.windows_failed += 1 - fact.windows_succeeded;
    }
    const fault = (fact.error ?? fact) as { code?: unknown };
    if (fact.event !== 'loaded' && typeof fault.code === 'string') tally(counts.errors, fault.code);
    if (fact.event === 'stream_halted') counts.halts.push(`${String(fact.code)}: ${String(fact.message)}`);
    if (fact.event === 'loaded' && fact.outcome !== 'nothing') {
      counts.loads += 1;
      counts.cuts_loaded += number('cuts');
      counts.changes_loaded += number('changes');
      counts.rows_copied += number('rows');
    }
    if (fact.event === 'extracted' && fact.outcome !== 'nothing') counts.extracts += 1;
    return true;
  }
}

/** Null: there is no such process any more. */
function residentBytes(pid: number | undefined): number | null {
  try {
    const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return kilobytes === undefined ? null : Number(kilobytes) * 1024;
  } catch {
    return null;
  }
}
