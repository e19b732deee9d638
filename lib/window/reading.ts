/**
 * The reading half of a window: pulls from the slot into the open cut, and says what is to be done next. It decides; `pipeline.ts` acts.
 */

import type { CapturedStream } from '../cut/captured.ts';
import { cutIsDue } from '../cut/due.ts';
import { OpenCut } from '../cut/open-cut.ts';
import type { LogDecoder } from '../decode/log-decoder.ts';
import { unprinted, unprintedFault } from '../decode/wal2json-warnings.ts';
import { type Lsn, lsnBytesBetween } from '../lsn.ts';
import type { Clock, SlotReader, SlotSink, StopReason } from '../ports.ts';
import { stopReason } from './stop.ts';

/** A read that finds nothing comes back after this long, to look at the clock and to ask for a keepalive. */
const READ_WAIT_MS = 200;
/** With nothing for us, the position is recorded this often while a window lasts, if it has moved this far. */
const EMPTY_CUT_AFTER_MS = 10_000;
const EMPTY_CUT_WAL_BYTES_MIN = 16 * 1024 * 1024;

export interface ReadingOptions {
  readonly reader: SlotReader;
  /** Of the plugin that the reader reads. */
  readonly decoder: (cut: OpenCut) => LogDecoder;
  readonly clock: Clock;
  readonly streams: readonly CapturedStream[];
  /** OpenCutOptions. */
  readonly catalog_lsn?: Lsn;
  readonly hard_delete: boolean;
  /** Where the chain ends: where the reading begins. */
  readonly from: Lsn;
  readonly started_at_ms: number;
  /** Stop at or past it; null: go on. */
  readonly end_lsn: Lsn | null;
  readonly no_data_ms: number;
  readonly max_run_ms: number;
  readonly deadline_ms: number;
  readonly cut_age_ms_max: number;
  readonly asked: () => boolean;
  /** Where the source's log stands now: asked once when there has been no data for `no_data_ms`. */
  readonly flushLsn: () => Promise<Lsn>;
}

/**
 * - `part`:  the cut's part is full and must be staged before more is read
 * - `cut`:   the cut ends here, at a commit
 * - `empty`: nothing for us up to here, and the position has moved enough to be recorded
 * - `more`:  read on; `quiet` tells that there was nothing to read
 */
export type Step = 'part' | 'cut' | 'empty' | 'more' | 'quiet';

export class Reading {
  readonly cut: OpenCut;
  #options: ReadingOptions;
  #decoder: LogDecoder;
  #standstill = 0;
  #keepalive_lsn: Lsn | null = null;
  /** A keepalive has been asked for and has not come. */
  #awaitsKeepalive = false;
  #quiet_lsn: Lsn | null = null;
  #dataAt_ms: number;
  #cutSince_ms: number;
  #recorded: Lsn;
  #recordedAt_ms: number;
  #sink: SlotSink;
  /** Streams of which the log has left out a change: told once. */
  #unprinted = new Set<string>();

  constructor(options: ReadingOptions) {
    const now_ms = options.clock.now();
    this.#options = options;
    this.#dataAt_ms = now_ms;
    this.#cutSince_ms = now_ms;
    this.#recorded = options.from;
    this.#recordedAt_ms = now_ms;
    this.cut = new OpenCut({
      streams: options.streams,
      ...(options.catalog_lsn === undefined ? {} : { catalog_lsn: options.catalog_lsn }),
      hard_delete: options.hard_delete,
      isDue: () => this.#cutIsDue(false) || this.stopReason() !== null,
    });
    this.cut.end_lsn = options.from;
    this.#decoder = options.decoder(this.cut);
    this.#sink = {
      change: (bytes, start, end) => {
        this.#decoder.decode(bytes, start, end);
        return !this.cut.isDue && !this.cut.partIsFull && !this.#decoder.waits;
      },
      giantChange: (pieces) => {
        this.#decoder.decodeGiant(pieces);
        return !this.cut.isDue && !this.cut.partIsFull && !this.#decoder.waits;
      },
      keepalive: (walEnd) => {
        this.#awaitsKeepalive = false;
        // One that reads again what lies before our position comes nearer, answer by answer.
        const stands = walEnd <= this.cut.end_lsn && walEnd === this.#keepalive_lsn;
        this.#standstill = stands ? this.#standstill + 1 : Number(walEnd <= this.cut.end_lsn);
        this.#keepalive_lsn = walEnd;
        this.cut.keepalive(walEnd);
      },
      warning: (text) => {
        for (const stream of unprinted(text, options.streams)) {
          if (this.#unprinted.has(stream.stream)) continue;
          this.#unprinted.add(stream.stream);
          this.cut.faults.set(stream.stream, unprintedFault(stream));
        }
      },
    };
  }

  /** Reads once. Throws what the reader and the decoder throw. */
  async next(): Promise<Step> {
    const { cut } = this;
    const { reader, clock, no_data_ms, flushLsn } = this.#options;
    const before = cut.changes;
    // A cut's age counts from the read that brings its first change, not from the end of the last cut: that may be hours ago.
    if (before === 0) this.#cutSince_ms = clock.now();
    const got = await reader.read(this.#sink, READ_WAIT_MS);
    if (this.#decoder.waits) await this.#decoder.proceed();
    const now_ms = clock.now();
    if (cut.changes > before) {
      this.#dataAt_ms = now_ms;
      this.#quiet_lsn = null;
    }
    const isDue = cut.isDue || this.#cutIsDue(got === 'nothing');
    cut.isDue = false;
    if (isDue && cut.hasChanges && !cut.inTransaction) return 'cut';
    if (cut.partIsFull) return 'part';
    if (got === 'data') return 'more';
    // One question at a time: a server that was busy would answer all of them at once, and seem to stand still.
    if (!this.#awaitsKeepalive) reader.askKeepalive();
    this.#awaitsKeepalive = true;
    if (this.#quiet_lsn === null && now_ms - this.#dataAt_ms >= no_data_ms) this.#quiet_lsn = await flushLsn();
    return this.#emptyCutIsDue(now_ms) ? 'empty' : 'quiet';
  }

  /** Why the window ends here; null: it goes on. */
  stopReason(): StopReason | null {
    const { reader, clock, from, started_at_ms, end_lsn, max_run_ms, deadline_ms, asked } = this.#options;
    return stopReason(
      {
        now_ms: clock.now(),
        started_at_ms,
        position: this.cut.end_lsn,
        standstill: this.#standstill,
        inTransaction: this.cut.inTransaction,
        isFirst: (reader.isBusy ?? false) && this.cut.end_lsn === from,
      },
      { end_lsn, quiet_lsn: this.#quiet_lsn, max_run_ms, deadline_ms, asked: asked() },
    );
  }

  /** What the log left out is looked up and given to the cut: before its part is taken. */
  async settle(): Promise<void> {
    await this.#decoder.settle();
  }

  /** Begins the next cut. */
  restart(): void {
    this.#recorded = this.cut.end_lsn;
    this.#recordedAt_ms = this.#options.clock.now();
    this.#cutSince_ms = this.#recordedAt_ms;
    this.cut.restart();
  }

  #cutIsDue(quiet: boolean): boolean {
    const { changes, text_bytes } = this.cut;
    const age_ms = this.#options.clock.now() - this.#cutSince_ms;
    return cutIsDue({ changes, text_bytes, age_ms }, quiet, this.#options.cut_age_ms_max);
  }

  #emptyCutIsDue(now_ms: number): boolean {
    return (
      !this.cut.inTransaction &&
      !this.cut.hasChanges &&
      now_ms - this.#recordedAt_ms >= EMPTY_CUT_AFTER_MS &&
      lsnBytesBetween(this.#recorded, this.cut.end_lsn) >= EMPTY_CUT_WAL_BYTES_MIN
    );
  }
}
