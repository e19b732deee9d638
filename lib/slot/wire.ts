/**
 * The bytes of a replication connection: frames of the frontend/backend protocol, and the copy messages inside them.
 * Pure: no socket. The reader beside it (reader.ts) owns the socket.
 *
 * Sources: https://www.postgresql.org/docs/current/protocol-message-formats.html and
 * https://www.postgresql.org/docs/current/protocol-replication.html (Primary keepalive, XLogData, Standby status update).
 */
import { type Lsn, lsnOf } from '../lsn.ts';
import { bytesOf, PACKED_MESSAGE_BYTES_MIN, Packer, type Piece, textOf } from '../piece.ts';

/** A message's length field counts itself (4 bytes) but not its type byte. */
const FRAME_HEADER_BYTES = 5;
/** PostgreSQL's own limit of a message is MaxAllocSize, 1 GiB less one byte; a longer length means that we are out of step. */
const FRAME_BYTES_MAX = 0x40000000;
/** PostgreSQL counts microseconds from 2000-01-01 UTC. */
export const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);

/** XLogData: 'w', start LSN, current end of WAL, send time: 1 + 8 + 8 + 8 bytes, then the plugin's message. */
export const XLOG_DATA_HEADER_BYTES = 25;
/** Primary keepalive: 'k', end of WAL, send time, reply requested: 1 + 8 + 8 + 1 bytes. */
export const KEEPALIVE_BYTES = 18;

export const FRAME = {
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyBoth: 0x57, // W
  commandComplete: 0x43, // C
  error: 0x45, // E
  notice: 0x4e, // N
  parameterStatus: 0x53, // S
  readyForQuery: 0x5a, // Z
} as const;

export const COPY_XLOG_DATA = 0x77; // w
export const COPY_KEEPALIVE = 0x6b; // k

/** From here a frame is not put together, but handed on in the pieces in which it arrived. */
export const GIANT_FRAME_BYTES_MIN = 1024 * 1024;
/** Of a giant that is packed as it arrives, so much stays as it came: its head is looked at. */
const UNPACKED_BYTES = 64 * 1024;
const NO_BYTES = Buffer.alloc(0);

/**
 * Receives whole frames: the payload is `bytes[start, end)`, valid during the call only; or, for a giant, `pieces`, which may be kept.
 * Returning false stops after this frame.
 */
export type FrameSink = (
  type: number,
  bytes: Buffer,
  start: number,
  end: number,
  pieces: readonly Piece[] | null,
) => boolean;

/**
 * Cuts a byte stream into frames. A frame that lies whole in a chunk is handed on in place; one that straddles chunks is put together in a
 * buffer of exactly its size; and a giant is not put together at all, so that a row of 100 MB is in memory once, and a large one is packed as it arrives
 * (piece.ts). Chunks that are fed must not be reused: the pieces of a giant are views of them.
 */
export class FrameSplitter {
  readonly #packed_bytes_min: number;
  #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #frame: Buffer | null = null;
  #frameBytes = 0;
  #pieces: Piece[] = [];
  /** Of a giant that is packed; null: of another. */
  #packer: Packer | null = null;
  /** Of that giant, as they came. */
  #headBytes = 0;
  /** Bytes that a giant still lacks; 0: there is none. */
  #piecesWanted = 0;
  /** The sink ended the last feed, be it at the chunk's very end: what comes next waits. */
  stopped = false;

  /** From so many bytes a message is packed as it arrives. */
  constructor(packed_bytes_min = PACKED_MESSAGE_BYTES_MIN) {
    this.#packed_bytes_min = packed_bytes_min;
  }

  #stop(position: number): number {
    this.stopped = true;
    return position;
  }

  /** Bytes held for a frame that has not arrived whole. */
  get pendingBytes(): number {
    return this.#headerBytes + this.#frameBytes + bytesOf(this.#pieces);
  }

  /** Feeds `chunk` from `at`; returns the position after the last frame handed on (the chunk's end unless the sink stopped it). */
  feed(chunk: Buffer, at: number, sink: FrameSink): number {
    let position = at;
    const end = chunk.length;
    this.stopped = false;
    while (position < end) {
      if (this.#piecesWanted > 0) {
        const taken = Math.min(this.#piecesWanted, end - position);
        this.#keep(chunk.subarray(position, position + taken));
        this.#piecesWanted -= taken;
        position += taken;
        if (this.#piecesWanted > 0) return position;
        const pieces = this.#packer ? [...this.#pieces, ...this.#packer.end()] : this.#pieces;
        this.#packer = null;
        this.#pieces = [];
        this.#headerBytes = 0;
        if (!sink(this.#header.readUInt8(0), NO_BYTES, 0, 0, pieces)) return this.#stop(position);
        continue;
      }
      if (this.#frame) {
        const wanted = this.#frame.length - this.#frameBytes;
        const taken = Math.min(wanted, end - position);
        chunk.copy(this.#frame, this.#frameBytes, position, position + taken);
        this.#frameBytes += taken;
        position += taken;
        if (taken < wanted) return position;
        const frame = this.#frame;
        const type = this.#header.readUInt8(0);
        this.#frame = null;
        this.#frameBytes = 0;
        this.#headerBytes = 0;
        if (!sink(type, frame, 0, frame.length, null)) return this.#stop(position);
        continue;
      }
      if (this.#headerBytes > 0 || end - position < FRAME_HEADER_BYTES) {
        const taken = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, end - position);
        chunk.copy(this.#header, this.#headerBytes, position, position + taken);
        this.#headerBytes += taken;
        position += taken;
        if (this.#headerBytes < FRAME_HEADER_BYTES) return position;
        const payloadBytes = payloadLength(this.#header, 1);
        if (payloadBytes > 0) {
          this.#begin(payloadBytes);
          continue;
        }
        this.#headerBytes = 0;
        if (!sink(this.#header.readUInt8(0), NO_BYTES, 0, 0, null)) return this.#stop(position);
        continue;
      }
      const payloadBytes = payloadLength(chunk, position + 1);
      const payloadStart = position + FRAME_HEADER_BYTES;
      if (payloadStart + payloadBytes > end) {
        chunk.copy(this.#header, 0, position, payloadStart);
        this.#headerBytes = FRAME_HEADER_BYTES;
        this.#begin(payloadBytes);
        position = payloadStart;
        continue;
      }
      const type = chunk[position] as number;
      position = payloadStart + payloadBytes;
      if (!sink(type, chunk, payloadStart, position, null)) return this.#stop(position);
    }
    return position;
  }

  /** The head of a giant stays as it came, so that it can be looked at. */
  #keep(piece: Buffer): void {
    if (this.#packer === null) {
      this.#pieces.push(piece);
      return;
    }
    const head_bytes = Math.max(0, Math.min(UNPACKED_BYTES - this.#headBytes, piece.length));
    // A view would hold the whole chunk.
    if (head_bytes > 0) this.#pieces.push(Buffer.from(piece.subarray(0, head_bytes)));
    this.#headBytes += head_bytes;
    this.#packer.push(piece.subarray(head_bytes));
  }

  #begin(payloadBytes: number): void {
    if (payloadBytes >= GIANT_FRAME_BYTES_MIN) {
      this.#piecesWanted = payloadBytes;
      this.#headBytes = 0;
      if (payloadBytes >= this.#packed_bytes_min) this.#packer = new Packer();
      return;
    }
    this.#frame = Buffer.allocUnsafe(payloadBytes);
    this.#frameBytes = 0;
  }
}

function payloadLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32BE(at);
  if (length < 4 || length > FRAME_BYTES_MAX) throw new RangeError(`a frame of ${length} bytes`);
  return length - 4;
}

/** What is left of a message in pieces without its first `bytes`. */
export function withoutHead(pieces: readonly Piece[], bytes: number): Piece[] {
  const rest: Piece[] = [];
  let skip = bytes;
  for (const piece of pieces) {
    if (skip === 0) rest.push(piece);
    else if (piece.length > skip) rest.push(textOf(piece).subarray(skip));
    skip = Math.max(0, skip - piece.length);
  }
  return rest;
}

export function readLsn(bytes: Buffer, at: number): Lsn {
  return lsnOf(bytes.readBigUInt64BE(at));
}

/** A message of `type` with this payload. */
export function frameOf(type: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt8(type, 0);
  header.writeUInt32BE(4 + payload.length, 1);
  return Buffer.concat([header, payload]);
}

/** `Query`: runs one SQL or replication command. */
export function queryFrame(command: string): Buffer {
  const textBytes = Buffer.byteLength(command);
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + textBytes + 1);
  frame.write('Q', 0);
  frame.writeUInt32BE(4 + textBytes + 1, 1);
  frame.write(command, FRAME_HEADER_BYTES);
  return frame;
}

/** `CopyDone`: no more from us; the server answers with its own, then CommandComplete and ReadyForQuery. */
export function copyDoneFrame(): Buffer {
  return Buffer.from([FRAME.copyDone, 0, 0, 0, 4]);
}

/** `Terminate`. */
export function terminateFrame(): Buffer {
  return Buffer.from([0x58, 0, 0, 0, 4]);
}

/**
 * `Standby status update` in a CopyData: written, flushed and applied are all `lsn`, for what we report is always durable.
 * `reply`: ask the server to answer with a keepalive at once.
 */
export function statusFrame(lsn: Lsn, now_ms: number, reply: boolean): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + 34);
  frame.writeUInt8(FRAME.copyData, 0);
  frame.writeUInt32BE(4 + 34, 1);
  frame.write('r', 5);
  frame.writeBigUInt64BE(lsn, 6);
  frame.writeBigUInt64BE(lsn, 14);
  frame.writeBigUInt64BE(lsn, 22);
  frame.writeBigInt64BE(BigInt(Math.trunc(now_ms) - POSTGRES_EPOCH_MS) * 1000n, 30);
  frame.writeUInt8(reply ? 1 : 0, 38);
  return frame;
}

/** Fields of an ErrorResponse or NoticeResponse by their letter (C SQLSTATE, M message, D detail, …). */
export function errorFields(bytes: Buffer, start: number, end: number): Map<string, string> {
  const fields = new Map<string, string>();
  let position = start;
  while (position < end && bytes[position] !== 0) {
    const letter = String.fromCharCode(bytes[position] as number);
    const stop = bytes.indexOf(0, position + 1);
    if (stop < 0 || stop >= end) break;
    fields.set(letter, bytes.toString('utf8', position + 1, stop));
    position = stop + 1;
  }
  return fields;
}
