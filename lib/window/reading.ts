/**
 * The reading half of a window: pulls from the slot into the open cut, and says what is to be done next. It decides; `pipeline.ts` acts.
 */

import type { CapturedStream } from '../cut/captured.ts';
import { cutIsDue } from '../cut/due.ts';
import { OpenCut } from '../cut/open-cut.ts';
import type { LogDecoder } from '../decode/log-decoder.ts';
import { unprinted, unprintedFault } from '../decode/wal2json-warnings.ts';
import { type Lsn, lsnBytesBetween } from '../lsn.ts';
import { bytesOf, headOf } from '../piece.ts';
import type { Clock, SlotReader, SlotSink, StopReason } from '../ports.ts';
import { PassingOver, type ReadSoFar, type StagedRead } from './passing-over.ts';
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
  /** What of the first cut is staged already. */
  readonly staged?: StagedRead | null;
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
  #passing: PassingOver;
  /** The message that the decoder keeps, which has not come to the cut. */
  #kept: { readonly letter: number | undefined; readonly bytes: number } | null = null;
  /** Since when somebody wants it to end; null: nobody does. */
  #askedAt_ms: number | null = null;
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
    this.#passing = new PassingOver(this.cut, options.reader.dialect, options.staged ?? null);
    this.#sink = {
      change: (bytes, start, end) => {
        const letter = bytes[start];
        this.#decoder.decode(bytes, start, end);
        this.#count(letter, end - start);
        return !this.cut.isDue && !this.cut.partIsFull && !this.#decoder.waits;
      },
      giantChange: (pieces) => {
        this.#decoder.decodeGiant(pieces);
        this.#count(headOf(pieces, 1)[0], bytesOf(pieces));
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
    if (this.#kept !== null) this.#passing.count(this.#kept.letter, this.#kept.bytes);
    this.#kept = null;
    const now_ms = clock.now();
    if (cut.changes > before) {
      this.#dataAt_ms = now_ms;
      this.#quiet_lsn = null;
    }
    this.#passing.look();
    const isDue = cut.isDue || this.#cutIsDue(got === 'nothing');
    cut.isDue = false;
    if (this.isPassing && got === 'data') return 'more';
    if (isDue && cut.hasChanges && !this.isAmid) return 'cut';
    if (cut.partIsFull) return 'part';
    if (got === 'data') return 'more';
    // One question at a time: a server that was busy would answer all of them at once, and seem to stand still.
    if (!this.#awaitsKeepalive) reader.askKeepalive();
    this.#awaitsKeepalive = true;
    if (this.#quiet_lsn === null && now_ms - this.#dataAt_ms >= no_data_ms) this.#quiet_lsn = await flushLsn();
    return this.#emptyCutIsDue(now_ms) ? 'empty' : 'quiet';
  }

  /** In a transaction, or before the place up to which the cut is staged: it cannot end here. */
  get isAmid(): boolean {
    return this.cut.inTransaction || this.isPassing;
  }

  /** Nothing has come, and no word of how far the server is: it decodes what is not for us, or a transaction that it has not begun to send. */
  get isStill(): boolean {
    return this.cut.end_lsn === this.#options.from && !this.isAmid && this.read.messages === 0;
  }

  /** What comes is staged already. */
  get isPassing(): boolean {
    return this.#passing.isOn;
  }

  /** How far the cut has been read. */
  get read(): ReadSoFar {
    return this.#passing.read;
  }

  /** Why the window ends here; null: it goes on. */
  stopReason(): StopReason | null {
    const { reader, clock, from, started_at_ms, end_lsn, max_run_ms, deadline_ms, asked } = this.#options;
    const now_ms = clock.now();
    const isAsked = asked();
    if (isAsked) this.#askedAt_ms ??= now_ms;
    return stopReason(
      {
        now_ms,
        started_at_ms,
        position: this.cut.end_lsn,
        standstill: this.#standstill,
        inTransaction: this.isAmid,
        isFirst: (reader.isBusy ?? false) && this.cut.end_lsn === from,
      },
      {
        end_lsn,
        quiet_lsn: this.#quiet_lsn,
        max_run_ms,
        deadline_ms,
        asked: isAsked,
        asked_at_ms: this.#askedAt_ms,
      },
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
    this.#passing.restart();
    this.cut.restart();
  }

  #count(letter: number | undefined, bytes: number): void {
    if (this.#decoder.waits) this.#kept = { letter, bytes };
    else this.#passing.count(letter, bytes);
  }

  #cutIsDue(quiet: boolean): boolean {
    const { changes, text_bytes } = this.cut;
    const age_ms = this.#options.clock.now() - this.#cutSince_ms;
    return cutIsDue({ changes, text_bytes, age_ms }, quiet, this.#options.cut_age_ms_max);
  }

  #emptyCutIsDue(now_ms: number): boolean {
    return (
      !this.isAmid &&
      !this.cut.hasChanges &&
      now_ms - this.#recordedAt_ms >= EMPTY_CUT_AFTER_MS &&
      lsnBytesBetween(this.#recorded, this.cut.end_lsn) >= EMPTY_CUT_WAL_BYTES_MIN
    );
  }
}
