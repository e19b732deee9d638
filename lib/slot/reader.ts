/**
 * The slot, open: START_REPLICATION over a socket that `pg` has connected and authenticated (port SlotReader).
 *
 * `pg` does what it is good at (TLS, SCRAM, start-up) and then hands its socket over: from there the bytes are read by our own frame
 * splitter, pulled by the caller, so that a slow stage slows the server down instead of filling memory (I8). Acknowledgements are only those
 * that `confirm` was given (I1): what has merely arrived is never acknowledged.
 */
import type { Duplex } from 'node:stream';
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import { headOf, type Piece } from '../piece.ts';
import type { Clock, SlotDialect, SlotReader, SlotSink } from '../ports.ts';
import { closeClient } from '../postgres/connection.ts';
import { sourceFault } from '../postgres/faults.ts';
import { isAtWork, SILENCE_MS_MAX } from '../postgres/silence.ts';
import type { TableName } from '../shape.ts';
import { refusesOptions } from './plugin-options.ts';
import { slotFault } from './slot-fault.ts';
import { type StartCommand, startPgoutput, startWal2json } from './start-replication.ts';
import { Wake } from './wake.ts';
import * as wire from './wire.ts';

/** Read ahead of the caller: enough to keep the socket busy while a burst is decoded, little enough to be no cost. */
const READ_AHEAD_BYTES_MAX = 512 * 1024;
/**
 * The walsender sends each message by itself, and each wakes us. Where it has been caught up with, it is left alone for a moment, so that the next read brings many:
 * fewer system calls here, and no waking there.
 */
const GATHER_MS = 5;
/** What a read of less than this tells: it has been caught up with. */
const GATHERED_BYTES_MIN = 256 * 1024;
const OPEN_WAIT_MS_MAX = 60_000;
const CLOSE_WAIT_MS_MAX = 5_000;
/** wal_sender_timeout can be set by a session (release notes of 12). */
const WAL_SENDER_TIMEOUT_SINCE = 120_000;

export interface SlotReaderOptions {
  /** Connected with `replication: 'database'`, nothing asked of it yet. It is ours from here on, and closed by us. */
  readonly client: Client;
  readonly clock: Clock;
  readonly slot: string;
  /** pgoutput where it is not said. */
  readonly plugin?: 'pgoutput' | 'wal2json';
  /** Of pgoutput. */
  readonly publication: string;
  /** Of wal2json: the tables that are wanted; left out: all. */
  readonly tables?: readonly TableName[] | undefined;
  /** A second one, of tables that are only appended to; it must have been there at `from`. */
  readonly append_publication?: string | null;
  /** Everything up to here is durable with us; changes of later commits are sent. */
  readonly from: Lsn;
  /** Session setting of the connection, from 12 on. */
  readonly wal_sender_timeout_ms: number;
  /**
   * How long the server may be silent although it was asked for a word, and is not at work: SILENCE_MS_MAX where it is not said. Before 15 it has no word
   * while it passes over a transaction that is not for us, however long that takes.
   */
  readonly silence_ms?: number;
}

/** Opens the slot. Throws SLOT_ACTIVE when another reader has it, SLOT_LOST, PUBLICATION_LATE, REPLICATION_NOT_ALLOWED, SLOT_STREAM_FAILED. */
export async function openSlotReader(options: SlotReaderOptions): Promise<SlotReader> {
  const { client, slot, publication, from } = options;
  let version: number;
  try {
    version = await prepareSession(client, options.wal_sender_timeout_ms);
    // A role's own setting may hide what the plugin warns of.
    if (options.plugin === 'wal2json') await client.query('SET client_min_messages = warning');
  } catch (error) {
    await closeClient(client);
    throw sourceFault(error, `open replication slot ${slot}`);
  }
  const reader = new SocketSlotReader(takeSocket(client), options, version);
  const { append_publication: more = null } = options;
  const commands =
    options.plugin === 'wal2json'
      ? startWal2json(slot, from, options.tables ?? null)
      : startPgoutput(slot, from, version, [publication, ...(more === null ? [] : [more])]);
  await reader.start(commands, OPEN_WAIT_MS_MAX);
  return reader;
}

/** Returns the server's version number. */
async function prepareSession(client: Client, wal_sender_timeout_ms: number): Promise<number> {
  const { rows } = await client.query<{ server_version_num: string }>('SHOW server_version_num');
  const version = Number(rows[0]?.server_version_num);
  if (version >= WAL_SENDER_TIMEOUT_SINCE) {
    await client.query(`SET wal_sender_timeout = ${Math.trunc(wal_sender_timeout_ms)}`);
  }
  return version;
}

/** pg's own connection, as far as it is used here: the only place that reaches behind its public interface. */
function takeSocket(client: Client): Duplex {
  const { connection } = client as unknown as { connection: { stream: Duplex } };
  const socket = connection.stream;
  socket.pause();
  socket.removeAllListeners('data');
  // pg reports the end of the connection as an 'error' of the client; from here on the reader sees to it.
  client.removeAllListeners('error');
  client.on('error', () => {});
  return socket;
}

class SocketSlotReader implements SlotReader {
  dialect: SlotDialect = { plugin: 'pgoutput' };
  #client: Client;
  #socket: Duplex;
  #clock: Clock;
  #slot: string;
  #version: number;
  #splitter = new wire.FrameSplitter();
  #chunks: Buffer[] = [];
  /** How much of the first chunk has been handed on. */
  #chunkAt = 0;
  #queuedBytes = 0;
  /** Bytes that came in this turn of the event loop. */
  #turnBytes = 0;
  /** The socket is left alone for a moment. */
  #gathers = false;
  #confirmed: Lsn;
  #copying = false;
  #ready = false;
  #ended = false;
  #failure: SluiceError | null = null;
  #mayRefuse = false;
  #refused = false;
  #sink: SlotSink | null = null;
  readonly #wake = new Wake();
  #closing: Promise<void> | null = null;
  readonly #silence_ms: number;
  /** Since when a word is waited for that the server was asked for; null: it is not. */
  #asked_ms: number | null = null;
  /** It has been silent for too long, and is asked on another connection whether it is at work. */
  #judging = false;

  constructor(socket: Duplex, options: SlotReaderOptions, version: number) {
    this.#client = options.client;
    this.#socket = socket;
    this.#clock = options.clock;
    this.#slot = options.slot;
    this.#confirmed = options.from;
    this.#version = version;
    this.#silence_ms = options.silence_ms ?? SILENCE_MS_MAX;
    socket.on('data', (chunk: Buffer) => {
      this.#asked_ms = null;
      this.#chunks.push(chunk);
      this.#queuedBytes += chunk.length;
      if (this.#turnBytes === 0) setImmediate(this.#gather);
      this.#turnBytes += chunk.length;
      if (this.#queuedBytes >= READ_AHEAD_BYTES_MAX) socket.pause();
      this.#wake.awaken();
    });
    socket.on('error', (error: Error) => this.#fail(error.message));
    socket.on('close', () => {
      this.#ended = true;
      this.#wake.awaken();
    });
  }

  /** Begins with the first of `commands` that the plugin takes; an older one refuses options that it does not know. */
  async start(commands: readonly StartCommand[], wait_ms: number): Promise<void> {
    this.#socket.resume();
    const until_ms = this.#clock.now() + wait_ms;
    for (const [i, { sql, dialect }] of commands.entries()) {
      this.#mayRefuse = i + 1 < commands.length;
      this.#refused = false;
      this.#ready = false;
      this.dialect = dialect;
      this.#socket.write(wire.queryFrame(sql));
      await this.#answer(until_ms, wait_ms);
      if (!this.#refused) return;
    }
  }

  /** Waits until the copying has begun, or, where the command was refused and may be, until the server is ready for another. */
  async #answer(until_ms: number, wait_ms: number): Promise<void> {
    while (!this.#copying) {
      this.#process();
      if (this.#copying || (this.#refused && this.#ready)) return;
      if (this.#ended || this.#ready) this.#fail('the connection was closed');
      if (this.#clock.now() >= until_ms) this.#fail(`no answer to START_REPLICATION in ${wait_ms} ms`);
      if (this.#failure) {
        await this.close();
        throw this.#failure;
      }
      await this.#wake.wait(Math.min(1_000, until_ms - this.#clock.now()));
    }
  }

  async read(sink: SlotSink, wait_ms: number): Promise<'data' | 'nothing'> {
    if (this.#chunks.length === 0 && !this.#failure && !this.#ended && wait_ms > 0) await this.#wake.wait(wait_ms);
    const had = this.#chunks.length > 0;
    this.#sink = sink;
    try {
      this.#process();
    } finally {
      this.#sink = null;
    }
    if (!had && this.#asked_ms !== null) this.#limitSilence(this.#clock.now() - this.#asked_ms);
    if (this.#failure) throw this.#failure;
    if (!this.#copying || (this.#ended && !had)) {
      throw new SluiceError('SLOT_STREAM_FAILED', { reason: 'the server closed it' });
    }
    return had ? 'data' : 'nothing';
  }

  #limitSilence(silent_ms: number): void {
    if (silent_ms < this.#silence_ms) return;
    // It does not answer that question either.
    if (silent_ms >= 2 * this.#silence_ms) this.#failSilent();
    if (!this.#judging) void this.#judge(this.#asked_ms);
  }

  async #judge(asked_ms: number | null): Promise<void> {
    this.#judging = true;
    const works = await isAtWork(this.#client);
    this.#judging = false;
    if (this.#asked_ms !== asked_ms) return; // It has spoken.
    if (works) this.#asked_ms = this.#clock.now();
    else this.#failSilent();
  }

  #failSilent(): void {
    this.#fail(`the server has not answered for ${this.#silence_ms} ms`);
  }

  askKeepalive(): void {
    this.#asked_ms ??= this.#clock.now();
    this.#report(true);
  }

  confirm(lsn: Lsn): void {
    if (lsn > this.#confirmed) this.#confirmed = lsn;
    this.#report(false);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const socket = this.#socket;
    if (socket.destroyed || this.#ended) return;
    if (this.#copying && !this.#failure) {
      socket.write(wire.copyDoneFrame());
      const until_ms = this.#clock.now() + CLOSE_WAIT_MS_MAX;
      while (!this.#ready && !this.#ended && !this.#failure && this.#clock.now() < until_ms) {
        this.#process();
        if (this.#ready) break;
        await this.#wake.wait(until_ms - this.#clock.now());
      }
    }
    this.#chunks = [];
    this.#chunkAt = 0;
    this.#queuedBytes = 0;
    this.#gathers = false;
    socket.resume();
    if (socket.writable) socket.end(wire.terminateFrame());
    const until_ms = this.#clock.now() + CLOSE_WAIT_MS_MAX;
    while (!this.#ended && this.#clock.now() < until_ms) {
      this.#chunks = [];
      await this.#wake.wait(until_ms - this.#clock.now());
    }
    socket.destroy();
  }

  #report(reply: boolean): void {
    if (!this.#ended && this.#socket.writable) {
      this.#socket.write(wire.statusFrame(this.#confirmed, this.#clock.now(), reply));
    }
  }

  /** Hands on every whole frame that has arrived; the answer to START_REPLICATION ends a round. */
  #process(): void {
    try {
      while (this.#chunks.length > 0) {
        const chunk = this.#chunks[0] as Buffer;
        this.#chunkAt = this.#splitter.feed(chunk, this.#chunkAt, this.#onFrame);
        if (this.#chunkAt < chunk.length) break;
        this.#chunks.shift();
        this.#chunkAt = 0;
        this.#queuedBytes -= chunk.length;
        // Where the sink has enough, or the answer ends the round, another chunk may be there already.
        if (this.#splitter.stopped) break;
      }
    } catch (error) {
      if (error instanceof SluiceError) this.#failure ??= error;
      else if (error instanceof RangeError) this.#fail(error.message);
      else throw error;
    }
    this.#resume();
  }

  #resume(): void {
    if (!this.#ended && !this.#gathers && this.#socket.isPaused()) this.#socket.resume();
  }

  #gather = (): void => {
    const isCaughtUp = this.#turnBytes < GATHERED_BYTES_MIN;
    this.#turnBytes = 0;
    if (!isCaughtUp || !this.#copying || this.#ended || this.#closing !== null) return;
    this.#gathers = true;
    this.#socket.pause();
    setTimeout(() => {
      this.#gathers = false;
      if (this.#queuedBytes < READ_AHEAD_BYTES_MAX) this.#resume();
    }, GATHER_MS);
  };

  #onFrame: wire.FrameSink = (type, bytes, start, end, pieces) => {
    if (pieces) return this.#onGiant(type, pieces);
    switch (type) {
      case wire.FRAME.copyData:
        return this.#sink ? this.#onCopyData(this.#sink, bytes, start, end) : true;
      case wire.FRAME.copyBoth:
        // What follows in the same chunk belongs to the first read.
        this.#copying = true;
        return false;
      case wire.FRAME.error:
        this.#onError(wire.errorFields(bytes, start, end));
        break;
      case wire.FRAME.copyDone:
      case wire.FRAME.commandComplete:
      case wire.FRAME.parameterStatus:
        break;
      case wire.FRAME.notice:
        this.#sink?.warning?.(wire.errorFields(bytes, start, end).get('M') ?? '');
        break;
      case wire.FRAME.readyForQuery:
        this.#ready = true;
        this.#copying = false;
        break;
      default:
        throw new RangeError(`a message of type ${type} in the stream`);
    }
    return true;
  };

  #onError(fields: Map<string, string>): void {
    if (!this.#copying && this.#mayRefuse && refusesOptions(fields.get('C') ?? '')) this.#refused = true;
    else this.#failure ??= slotFault(this.#slot, fields, this.#version);
  }

  /** Only a change can be this large. */
  #onGiant(type: number, pieces: readonly Piece[]): boolean {
    if (!this.#sink) return true;
    const header = headOf(pieces, wire.XLOG_DATA_HEADER_BYTES);
    if (type !== wire.FRAME.copyData || header[0] !== wire.COPY_XLOG_DATA) {
      throw new RangeError(`a giant message of type ${type}`);
    }
    return this.#sink.giantChange(wire.withoutHead(pieces, wire.XLOG_DATA_HEADER_BYTES));
  }

  #onCopyData(sink: SlotSink, bytes: Buffer, start: number, end: number): boolean {
    const kind = bytes[start];
    if (kind === wire.COPY_XLOG_DATA && end - start >= wire.XLOG_DATA_HEADER_BYTES) {
      return sink.change(bytes, start + wire.XLOG_DATA_HEADER_BYTES, end);
    }
    if (kind === wire.COPY_KEEPALIVE && end - start >= wire.KEEPALIVE_BYTES) {
      const walEnd = wire.readLsn(bytes, start + 1);
      if (bytes[start + 17] === 1) this.#report(false);
      sink.keepalive(walEnd);
      return true;
    }
    throw new RangeError(`a copy message of kind ${kind} and ${end - start} bytes`);
  }

  #fail(reason: string): void {
    this.#failure ??= new SluiceError('SLOT_STREAM_FAILED', { reason });
    this.#wake.awaken();
  }
}
