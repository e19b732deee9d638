/**
 * The slot by calls of a function, over an ordinary connection (port SlotReader): no walsender, so that a token of IAM will do, and a backlog comes faster.
 *
 * A call (peek-sql.ts) decodes whole transactions from where the slot stands, up to a number of messages and to a position; it moves nothing. What a former call
 * has handed over is passed over (passed-over.ts). Between two calls the slot is moved to what was confirmed, and only there (I1). Each call is bounded by
 * messages, and from 11 on by bytes of log, and so is what the source spools on its disk (I8); but a transaction is never cut, and comes in one call whatever
 * its size.
 */
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn, lsnBytesBetween, lsnMax, lsnOf } from '../lsn.ts';
import { headOf, type Piece } from '../piece.ts';
import type { Clock, SlotDialect, SlotReader, SlotSink } from '../ports.ts';
import { HEAD_BYTES_MIN, type PassedOver, passedOver } from './passed-over.ts';
import type { CallSink, PeekCall } from './peek-call.ts';
import { openPeekSession, type PeekOptions, type PeekSession } from './peek-session.ts';
import { Wake } from './wake.ts';

/** Of a call: about what a cut holds. Many small calls cost the source more, large ones more of its disk. */
const CALL_MESSAGES = 500_000;
/** Of log in a call where it is full of what we want; where it is others', each call may have twice as much as the last. */
const CALL_WAL_BYTES = 256 * 1024 * 1024;
const CALL_WAL_BYTES_MAX = 64 * 1024 * 1024 * 1024;
/** The log is others' where less than this share of it has come to us. */
const WANTED_SHARE_MIN = 1 / 8;
/** After a call, what it handed over is given this long to be confirmed: what is not comes again in the next, to be passed over. */
const CONFIRM_WAIT_MS = 2_000;
/** Of a call's messages; less of them is not worth waiting for. */
const UNCONFIRMED_SHARE_MAX = 0.25;
/** The slot is moved between two calls where that saves at least so much. */
const ADVANCE_MESSAGES_MIN = 1_000;
const ADVANCE_WAL_BYTES_MIN = 1024 * 1024;
/** With nothing to read: between two looks at where the log ends. A call that has cost the source much is not made again at once. */
const PAUSE_MS_MIN = 250;
const PAUSE_MS_MAX = 5_000;
const PAUSE_PER_CALL = 4;
const CLOSE_WAIT_MS_MAX = 5_000;
/** What is not moved at the end of a window is moved at the beginning of the next. */
const CLOSE_ADVANCE_MS_MAX = 10_000;

export interface PeekReaderOptions extends PeekOptions {
  /** Everything up to here is durable with us; changes of later commits are handed over. */
  readonly from: Lsn;
  /** CALL_MESSAGES and CALL_WAL_BYTES where they are not said. */
  readonly call_messages?: number;
  readonly call_wal_bytes?: number;
}

/** Opens the slot. Throws what connecting throws, SLOT_ACTIVE, SLOT_MISSING, SLOT_LOST, REPLICATION_NOT_ALLOWED, PLUGIN_MISSING, SLOT_STREAM_FAILED. */
export async function openPeekReader(options: PeekReaderOptions): Promise<SlotReader> {
  const session = await openPeekSession(options);
  return new PeekReader(session, options);
}

/** A call in the making or under way. */
interface OpenCall {
  readonly call: PeekCall;
  readonly upto: Lsn;
  readonly messages_max: number;
  readonly began_ms: number;
  /** The log goes on past `upto`. */
  readonly more: boolean;
}

class PeekReader implements SlotReader {
  readonly dialect: SlotDialect;
  #session: PeekSession;
  #clock: Clock;
  #callMessages: number;
  #callWalBytesMin: number;
  #callWalBytes: number;
  #passed: PassedOver;
  /** Everything up to here has been handed over. */
  #position: Lsn;
  #confirmed: Lsn;
  /** Messages between where the slot stands and `position`, at most. */
  #held = 0;
  #open: OpenCall | null = null;
  /** What is asked between two calls. */
  #work: Promise<void> | null = null;
  #failure: SluiceError | null = null;
  /** Not before: the next call, or look. */
  #next_ms = 0;
  #awaitsConfirm = false;
  #paused_ms = PAUSE_MS_MIN;
  #asked = false;
  /** A keepalive for the sink. */
  #answer: Lsn | null = null;
  /** Messages for the sink, before those of the call. */
  #due: (Buffer | readonly Piece[])[] = [];
  #callEnded = false;
  readonly #wake = new Wake();
  #closing: Promise<void> | null = null;
  /** Another connection is there to end a call. */
  #cancels = false;

  constructor(session: PeekSession, { clock, from, call_messages, call_wal_bytes }: PeekReaderOptions) {
    this.#session = session;
    this.dialect = session.dialect;
    this.#clock = clock;
    this.#callMessages = call_messages ?? CALL_MESSAGES;
    this.#callWalBytesMin = call_wal_bytes ?? CALL_WAL_BYTES;
    this.#callWalBytes = this.#callWalBytesMin;
    this.#position = from;
    this.#confirmed = from;
    this.#passed = passedOver(this.dialect, from);
    // What stands before `from` is of a former window.
    if (session.confirmed_lsn < from) this.#held = Number.POSITIVE_INFINITY;
  }

  /** A call that is broken off has brought nothing. */
  get isBusy(): boolean {
    return this.#open !== null;
  }

  async read(sink: SlotSink, wait_ms: number): Promise<'data' | 'nothing'> {
    const until_ms = this.#clock.now() + wait_ms;
    for (;;) {
      if (this.#failure) throw this.#failure;
      if (this.#closing) throw new SluiceError('SLOT_STREAM_FAILED', { reason: 'it was closed' });
      if (this.#handOver(sink)) return 'data';
      if (this.#failure) throw this.#failure;
      // The cut may end here: the next call begins when its messages are confirmed.
      if (this.#callEnded) {
        this.#callEnded = false;
        return 'nothing';
      }
      const now_ms = this.#clock.now();
      const isIdle = this.#open === null && this.#work === null;
      if (isIdle && now_ms >= this.#next_ms) this.#work = this.#proceed();
      if (now_ms >= until_ms) return 'nothing';
      const wakes_ms = isIdle && this.#work === null ? Math.min(until_ms, this.#next_ms) : until_ms;
      await this.#wake.wait(wakes_ms - now_ms);
    }
  }

  askKeepalive(): void {
    this.#asked = true;
  }

  confirm(lsn: Lsn): void {
    if (lsn > this.#confirmed) this.#confirmed = lsn;
    if (!this.#awaitsConfirm || this.#confirmed < this.#position) return;
    this.#awaitsConfirm = false;
    this.#next_ms = 0;
    this.#wake.awaken();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const until_ms = this.#clock.now() + CLOSE_WAIT_MS_MAX;
    // A call may end by what has arrived already.
    const isBusy = (): boolean => {
      if (this.#open) this.#pull(this.#open.call, NOBODY);
      return this.#work !== null || (this.#open !== null && !this.#open.call.ended);
    };
    if (this.#failure === null && isBusy()) {
      this.#cancels = true;
      const cancelled = (): void => {
        this.#cancels = false;
        this.#wake.awaken();
      };
      // Where no other connection can be had, the call ends when its own is closed, or the next window ends it.
      this.#session.cancel().then(cancelled, cancelled);
      while (isBusy() && this.#clock.now() < until_ms) await this.#wake.wait(until_ms - this.#clock.now());
    }
    if (this.#failure === null && !isBusy() && this.#confirmed > this.#session.confirmed_lsn) {
      await this.#session.advanceSoon(this.#confirmed, CLOSE_ADVANCE_MS_MAX);
    }
    await this.#session.close();
    while (this.#cancels && this.#clock.now() < until_ms) await this.#wake.wait(until_ms - this.#clock.now());
  }

  /** Between two calls: moves the slot, looks how far the log goes, and makes the next call. */
  async #proceed(): Promise<void> {
    try {
      this.#awaitsConfirm = false;
      await this.#session.renew();
      if (this.#advancePays()) {
        await this.#session.advance(this.#confirmed);
        if (this.#confirmed >= this.#position) this.#held = 0;
      }
      const end = await this.#session.end();
      this.#refuseMoved();
      if (this.#closing === null) this.#begin(end);
    } catch (error) {
      this.#failure ??= this.#session.fault(error);
    } finally {
      this.#work = null;
      this.#wake.awaken();
    }
  }

  #advancePays(): boolean {
    const at = this.#session.confirmed_lsn;
    if (this.#confirmed <= at) return false;
    return this.#held >= ADVANCE_MESSAGES_MIN || lsnBytesBetween(at, this.#confirmed) >= ADVANCE_WAL_BYTES_MIN;
  }

  /** Between calls anybody may move the slot, and what lies in between comes in no call of ours. The next window finds it so as well (ground.ts). */
  #refuseMoved(): void {
    const { slot, confirmed_lsn } = this.#session;
    if (confirmed_lsn <= this.#position) return;
    const facts = { slot, confirmed: formatLsn(confirmed_lsn), ledger: formatLsn(this.#confirmed) };
    throw new SluiceError('SLOT_ADVANCED', facts);
  }

  #begin(end: Lsn | null): void {
    if (end === null || end <= this.#position) {
      if (this.#asked) this.#answer = this.#position;
      this.#asked = false;
      this.#next_ms = this.#clock.now() + this.#paused_ms;
      return;
    }
    const farthest = lsnOf(this.#position + BigInt(this.#callWalBytes));
    const upto = end > farthest && this.#session.movesAnywhere ? farthest : end;
    const messages_max = this.#callMessages + (Number.isFinite(this.#held) ? this.#held : 0);
    this.#passed.begin(this.#position);
    const call = this.#session.call(upto, messages_max, () => this.#wake.awaken());
    this.#open = { call, upto, messages_max, began_ms: this.#clock.now(), more: end > upto };
  }

  /** Whether there was anything. */
  #handOver(sink: SlotSink): boolean {
    if (this.#due.length > 0) {
      this.#handDue(sink);
      return true;
    }
    if (this.#open) {
      const { call } = this.#open;
      const had = call.waits;
      if (had) this.#pull(call, this.#sinkOf(sink));
      if (call.ended && !call.waits) this.#ended(this.#open);
      if (had || this.#answer === null) return had;
    }
    if (this.#answer === null) return false;
    sink.keepalive(this.#answer);
    this.#answer = null;
    return true;
  }

  #pull(call: PeekCall, sink: CallSink): void {
    try {
      call.pull(sink);
    } catch (error) {
      // What was received makes no sense; what the sink throws is its own.
      if (!(error instanceof RangeError)) throw error;
      this.#failure ??= this.#session.fault(error);
    }
  }

  /** False: the sink wants no more in this read. */
  #handDue(sink: SlotSink): boolean {
    for (;;) {
      const next = this.#due.shift();
      if (next === undefined) return true;
      const goes = Buffer.isBuffer(next) ? sink.change(next, 0, next.length) : sink.giantChange(next);
      if (!goes) return false;
    }
  }

  #sinkOf(sink: SlotSink): CallSink {
    return {
      message: (bytes, start, end) => {
        const before = this.#passed.take(bytes, start, end);
        if (before === null) return true;
        if (before.length === 0) return sink.change(bytes, start, end);
        this.#due.push(...before, Buffer.from(bytes.subarray(start, end)));
        return this.#handDue(sink);
      },
      giant: (pieces) => {
        const head = headOf(pieces, HEAD_BYTES_MIN);
        const before = this.#passed.take(head, 0, head.length);
        if (before === null) return true;
        if (before.length === 0) return sink.giantChange(pieces);
        this.#due.push(...before, pieces);
        return this.#handDue(sink);
      },
      warning: (text) => sink.warning?.(text),
    };
  }

  /** All of the call has been handed over. */
  #ended({ call, upto, messages_max, began_ms, more }: OpenCall): void {
    this.#open = null;
    if (call.error !== null) {
      this.#failure ??= this.#session.fault(call.error);
      return;
    }
    const now_ms = this.#clock.now();
    const isCut = call.messages >= messages_max;
    const from = this.#position;
    this.#held = call.messages;
    this.#position = lsnMax(this.#passed.position, isCut ? from : upto);
    this.#callEnded = true;
    if (!isCut) {
      this.#answer = this.#position;
      this.#asked = false;
      const isOthers = call.bytes < lsnBytesBetween(from, upto) * WANTED_SHARE_MIN;
      this.#callWalBytes =
        more && isOthers ? Math.min(this.#callWalBytes * 2, CALL_WAL_BYTES_MAX) : this.#callWalBytesMin;
    }
    const cost_ms = (call.decoded_at_ms ?? now_ms) - began_ms;
    this.#paused_ms = Math.min(Math.max(cost_ms * PAUSE_PER_CALL, PAUSE_MS_MIN), PAUSE_MS_MAX);
    const worth = Math.max(this.#callMessages * UNCONFIRMED_SHARE_MAX, ADVANCE_MESSAGES_MIN);
    this.#awaitsConfirm = this.#confirmed < this.#position && this.#held >= worth;
    if (this.#awaitsConfirm) this.#next_ms = now_ms + CONFIRM_WAIT_MS;
    else this.#next_ms = isCut || more ? now_ms : now_ms + this.#paused_ms;
  }
}

/** Takes all, and keeps nothing of it. */
const NOBODY: CallSink = { message: () => true, giant: () => true, warning: () => {} };
