/**
 * `COPY … TO STDOUT` as a stream of its text, for tables of any size: a query of `pg` that reads the socket itself while the copy lasts (I6, I8).
 *
 * The server sends a message for each row. Here their texts go side by side into slabs as large as a frame of the stage, so that what comes after has an
 * object for every 4 MiB and not for every row. A slab is handed on when it is full, or at the end.
 * https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY, protocol-message-formats.html
 */
import { Readable } from 'node:stream';
import type { Connection, Submittable } from 'pg';
import { FRAME_TEXT_BYTES_MAX } from '../stage/segment.ts';

/** Type byte and length; the length counts itself and not the type. */
const HEADER_BYTES = 5;
const LENGTH_BYTES = 4;

const COPY_DATA = 0x64; // d
const COPY_DONE = 0x63; // c
/** May come at any time, and say nothing of the copy: CopyOutResponse, ParameterStatus, NoticeResponse, NotificationResponse. */
const BESIDE = new Set([0x48, 0x53, 0x4e, 0x41]);

type DataListener = (chunk: Buffer) => void;

/** Ends when the server has sent all of it; `rows` is known when the statement after it has been answered. An error of the server destroys the stream. */
export class CopyOut extends Readable implements Submittable {
  rows = 0;
  readonly #sql: string;
  #connection: Connection | null = null;
  /** What `pg` reads the socket with, while it does not. */
  #listener: DataListener | null = null;
  readonly #readable = (): void => this.#pump();
  #wanted = false;
  #pumping = false;
  #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  #type = 0;
  /** Bytes of the message's payload that have not arrived. */
  #payloadLeft = 0;
  #slab: Buffer | null = null;
  #slabBytes = 0;

  constructor(sql: string) {
    super({ highWaterMark: 1 });
    this.#sql = sql;
  }

  /** Called by `pg`, when it is this query's turn. */
  submit(connection: Connection): void {
    this.#connection = connection;
    const { stream } = connection;
    const [listener, ...others] = stream.listeners('data') as DataListener[];
    if (listener === undefined || others.length > 0) throw new Error('somebody else reads the connection');
    this.#listener = listener;
    stream.removeListener('data', listener);
    stream.pause();
    stream.on('readable', this.#readable);
    connection.query(this.#sql);
    this.#pump();
  }

  override _read(): void {
    this.#wanted = true;
    this.#pump();
  }

  handleError(error: Error): void {
    this.#giveBack(null);
    this.destroy(error);
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.rows = Number(/^COPY (\d+)$/.exec(text)?.[1] ?? 0);
  }

  handleReadyForQuery(): void {
    // The next query's turn.
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#wanted && this.#listener !== null) {
      const chunk = this.#connection?.stream.read() as Buffer | null;
      if (chunk === null) break;
      this.#take(chunk);
    }
    this.#pumping = false;
  }

  #take(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payloadLeft > 0) {
        const bytes = Math.min(this.#payloadLeft, chunk.length - at);
        if (this.#type === COPY_DATA) this.#keep(chunk, at, at + bytes);
        this.#payloadLeft -= bytes;
        at += bytes;
        continue;
      }
      const missing = HEADER_BYTES - this.#headerBytes;
      let type: number;
      let length: number;
      if (missing === HEADER_BYTES && chunk.length - at >= HEADER_BYTES) {
        type = chunk[at] as number;
        length = chunk.readUInt32BE(at + 1);
        at += HEADER_BYTES;
      } else {
        const bytes = Math.min(missing, chunk.length - at);
        chunk.copy(this.#header, this.#headerBytes, at, at + bytes);
        this.#headerBytes += bytes;
        at += bytes;
        if (this.#headerBytes < HEADER_BYTES) return;
        this.#headerBytes = 0;
        type = this.#header[0] as number;
        length = this.#header.readUInt32BE(1);
      }
      if (type !== COPY_DATA && !BESIDE.has(type)) {
        this.#end(type, length, chunk.subarray(at));
        return;
      }
      this.#type = type;
      this.#payloadLeft = length - LENGTH_BYTES;
    }
  }

  #keep(chunk: Buffer, from: number, to: number): void {
    for (let at = from; at < to; ) {
      this.#slab ??= Buffer.allocUnsafeSlow(FRAME_TEXT_BYTES_MAX);
      const bytes = Math.min(to - at, FRAME_TEXT_BYTES_MAX - this.#slabBytes);
      chunk.copy(this.#slab, this.#slabBytes, at, at + bytes);
      this.#slabBytes += bytes;
      at += bytes;
      if (this.#slabBytes === FRAME_TEXT_BYTES_MAX) this.#handOn();
    }
  }

  #handOn(): void {
    if (this.#slab === null) return;
    this.#wanted = this.push(this.#slab.subarray(0, this.#slabBytes));
    this.#slab = null;
    this.#slabBytes = 0;
  }

  /** CopyDone; or an error or anything else that `pg` is to understand. */
  #end(type: number, length: number, rest: Buffer): void {
    if (type === COPY_DONE) {
      this.#handOn();
      this.#giveBack(rest);
      this.push(null);
      return;
    }
    const header = Buffer.alloc(HEADER_BYTES);
    header[0] = type;
    header.writeUInt32BE(length, 1);
    this.#giveBack(Buffer.concat([header, rest]));
  }

  /** The connection is `pg`'s again. */
  #giveBack(rest: Buffer | null): void {
    const listener = this.#listener;
    const stream = this.#connection?.stream;
    if (listener === null || stream === undefined) return;
    this.#listener = null;
    stream.removeListener('readable', this.#readable);
    stream.on('data', listener);
    if (rest !== null && rest.length > 0) listener(rest);
    // `listener` may have paused it; a stream that was read by `readable` flows again only when it is told to, and after this turn.
    process.nextTick(() => stream.resume());
  }
}
