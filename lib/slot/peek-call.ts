/**
 * One call of the reader by calls (peek-reader.ts): COPY of the function's rows, as a query of `pg` that reads the socket itself while it lasts.
 *
 * The server sends a message for each row (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY); a row is one message of the output plugin,
 * and is handed on where it lies in the chunk that came from the socket. The caller pulls: between pulls at most a little is read ahead (I8).
 */
import type { Connection, Submittable } from 'pg';
import { bytesOf, headOf, type Piece } from '../piece.ts';
import * as wire from './wire.ts';

const READ_AHEAD_BYTES_MAX = 512 * 1024;

/** https://www.postgresql.org/docs/current/sql-copy.html (Binary Format): signature, flags, length of the header's extension. */
const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const HEADER_BYTES = SIGNATURE.length + 8;
/** Number of columns; -1 ends the rows. */
const COUNT_BYTES = 2;
const COUNT_END = -1;
/** And length of the one column. */
const ROW_HEAD_BYTES = COUNT_BYTES + 4;
/** CopyOutResponse. */
const COPY_OUT = 0x48; // H

type DataListener = (chunk: Buffer) => void;

/** Receives the plugin's messages; returning false stops the pull after this one. */
export interface CallSink {
  /** `bytes[start, end)`, valid during the call only. */
  message(bytes: Buffer, start: number, end: number): boolean;
  /** A message of a megabyte or more; the pieces may be kept. */
  giant(pieces: readonly Piece[]): boolean;
  warning(text: string): void;
}

export class PeekCall implements Submittable {
  /** Messages that have been pulled. */
  messages = 0;
  bytes = 0;
  /** The server has said that all is sent, or why not, and all of it has been pulled. */
  ended = false;
  error: unknown = null;
  /** When the server had decoded: ms since the Unix epoch; null: it has not. */
  decoded_at_ms: number | null = null;
  readonly #sql: string;
  readonly #now: () => number;
  readonly #news: () => void;
  #connection: Connection | null = null;
  /** What `pg` reads the socket with, while it does not. */
  #listener: DataListener | null = null;
  #splitter = new wire.FrameSplitter();
  #chunks: Buffer[] = [];
  /** How much of the first chunk has been handed on. */
  #chunkAt = 0;
  #queuedBytes = 0;
  #begun = false;
  #rowsEnded = false;
  /** The frame that `pg` is to understand. */
  #last: Buffer | null = null;
  #sink: CallSink | null = null;

  /** `news` is called when there is something to pull, and at the end. */
  constructor(sql: string, now: () => number, news: () => void) {
    this.#sql = sql;
    this.#now = now;
    this.#news = news;
  }

  /** Called by `pg`, when it is this query's turn. */
  submit(connection: Connection): void {
    this.#connection = connection;
    const { stream } = connection;
    const [listener, ...others] = stream.listeners('data') as DataListener[];
    if (listener === undefined || others.length > 0) throw new Error('somebody else reads the connection');
    this.#listener = listener;
    stream.removeListener('data', listener);
    stream.on('data', this.#arrived);
    connection.query(this.#sql);
  }

  /** Something has arrived that has not been pulled. */
  get waits(): boolean {
    return this.#chunks.length > 0;
  }

  /** Hands on what has arrived, until the sink says stop. Throws RangeError where it is not what a server sends. */
  pull(sink: CallSink): void {
    this.#sink = sink;
    try {
      while (this.#chunks.length > 0 && this.#last === null) {
        const chunk = this.#chunks[0] as Buffer;
        this.#chunkAt = this.#splitter.feed(chunk, this.#chunkAt, this.#onFrame);
        if (this.#chunkAt < chunk.length) break;
        this.#chunks.shift();
        this.#chunkAt = 0;
        this.#queuedBytes -= chunk.length;
        if (this.#splitter.stopped) break;
      }
    } finally {
      this.#sink = null;
    }
    const stream = this.#connection?.stream;
    if (this.#last !== null) this.#giveBack(this.#last);
    else if (stream?.isPaused() && this.#queuedBytes < READ_AHEAD_BYTES_MAX) stream.resume();
  }

  handleError(error: Error): void {
    this.error ??= error;
    this.#finish();
  }

  handleCommandComplete(): void {
    this.#finish();
  }

  handleReadyForQuery(): void {
    // The next query's turn.
  }

  #finish(): void {
    this.ended = true;
    this.#giveBack(null);
    this.#news();
  }

  readonly #arrived = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes >= READ_AHEAD_BYTES_MAX) this.#connection?.stream.pause();
    this.#news();
  };

  #onFrame: wire.FrameSink = (type, bytes, start, end, pieces) => {
    if (pieces) return this.#onGiant(type, pieces);
    switch (type) {
      case wire.FRAME.copyData:
        return this.#onCopyData(bytes, start, end);
      case COPY_OUT:
      case wire.FRAME.parameterStatus:
        return true;
      case wire.FRAME.notice:
        this.#sink?.warning(wire.errorFields(bytes, start, end).get('M') ?? '');
        return true;
      case wire.FRAME.copyDone:
        if (!this.#rowsEnded) throw new RangeError('a copy without its end');
        this.#last = Buffer.alloc(0);
        return false;
      case wire.FRAME.error:
        this.#last = wire.frameOf(type, bytes.subarray(start, end));
        return false;
      default:
        throw new RangeError(`a message of type ${type} in a copy`);
    }
  };

  #onCopyData(bytes: Buffer, start: number, end: number): boolean {
    this.decoded_at_ms ??= this.#now();
    let at = start;
    if (!this.#begun) {
      at = this.#afterHeader(bytes, start, end);
      if (at === end) return true;
    }
    if (end - at === COUNT_BYTES && bytes.readInt16BE(at) === COUNT_END) {
      this.#rowsEnded = true;
      return true;
    }
    const head_bytes = at + ROW_HEAD_BYTES;
    if (this.#rowsEnded || head_bytes > end) throw new RangeError(`a row of ${end - at} bytes`);
    this.#checkRow(bytes, at, end - head_bytes);
    this.#count(end - head_bytes);
    return this.#sink?.message(bytes, head_bytes, end) ?? false;
  }

  #onGiant(type: number, pieces: readonly Piece[]): boolean {
    this.decoded_at_ms ??= this.#now();
    const head = headOf(pieces, HEADER_BYTES + ROW_HEAD_BYTES);
    if (type !== wire.FRAME.copyData) throw new RangeError(`a giant message of type ${type}`);
    const at = this.#begun ? 0 : this.#afterHeader(head, 0, head.length);
    const payload_bytes = bytesOf(pieces) - (at + ROW_HEAD_BYTES);
    this.#checkRow(head, at, payload_bytes);
    this.#count(payload_bytes);
    return this.#sink?.giant(wire.withoutHead(pieces, at + ROW_HEAD_BYTES)) ?? false;
  }

  /** The header stands before the first row, in the same message. */
  #afterHeader(bytes: Buffer, start: number, end: number): number {
    const at = start + HEADER_BYTES;
    if (at > end || SIGNATURE.compare(bytes, start, start + SIGNATURE.length) !== 0) {
      throw new RangeError('a copy without its header');
    }
    if (bytes.readUInt32BE(at - 4) !== 0) throw new RangeError('a copy with an extended header');
    this.#begun = true;
    return at;
  }

  #checkRow(bytes: Buffer, at: number, payload_bytes: number): void {
    const columns = bytes.readInt16BE(at);
    const length = bytes.readInt32BE(at + COUNT_BYTES);
    if (columns !== 1 || length !== payload_bytes) {
      throw new RangeError(`a row of ${columns} columns and ${length} bytes where there are ${payload_bytes}`);
    }
  }

  #count(payload_bytes: number): void {
    this.messages++;
    this.bytes += payload_bytes;
  }

  /** The connection is `pg`'s again, with `frame` and what has come after it. */
  #giveBack(frame: Buffer | null): void {
    const listener = this.#listener;
    const stream = this.#connection?.stream;
    if (listener === null || stream === undefined) return;
    this.#listener = null;
    stream.removeListener('data', this.#arrived);
    stream.on('data', listener);
    const [first, ...others] = this.#chunks;
    const rest = [...(frame === null ? [] : [frame]), ...(first ? [first.subarray(this.#chunkAt)] : []), ...others];
    this.#chunks = [];
    this.#queuedBytes = 0;
    if (frame !== null) listener(Buffer.concat(rest));
    stream.resume();
  }
}
