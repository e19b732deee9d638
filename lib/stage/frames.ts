/**
 * Reads the staged format (segment.ts): the segments of a byte range of an object, one after another, each block as a stream of COPY text.
 *
 * On the path it stands between the stage and the target's COPY. Bytes are trusted only after their checksum: a frame is decompressed and
 * handed on when its CRC-32 is right, and anything else is STAGE_CORRUPT, never a wrong row. One frame is held at a time (I8).
 */
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { crc32, zstdDecompress, zstdDecompressSync } from 'node:zlib';
import type { SegmentSource, Stage } from '../ports.ts';
import { parseHeader } from './header.ts';
import { RangeBytes } from './range-bytes.ts';
import { type ByteRange, FRAME_TEXT_BYTES_MAX } from './segment.ts';

/** zstd grows what it cannot compress by less than 1 in 128, plus its own header (ZSTD_COMPRESSBOUND). */
const FRAME_BYTES_MAX = FRAME_TEXT_BYTES_MAX + FRAME_TEXT_BYTES_MAX / 128 + 1024;
/** A header names at most 1664 columns of 63 bytes, and its blocks. */
const HEADER_BYTES_MAX = 4 * 1024 * 1024;
const HEADER_TEXT_BYTES_MAX = 16 * 1024 * 1024;
/** Below this a trip to the thread pool costs more than it frees. */
const SYNC_FRAME_BYTES_MAX = 16 * 1024;
/** Room for a whole frame: what is decompressed in pieces is put together by one more copy. */
const OUTPUT_BYTES = FRAME_TEXT_BYTES_MAX;

const decompressInPool = promisify(zstdDecompress);

/**
 * The segments of `object[offset, offset + bytes)`, in order. Each segment is valid until the next is asked for; blocks are read in their
 * order, each to its end, and what the consumer leaves unread is skipped (its frames' lengths are followed, its checksums are not checked).
 * A consumer that stops early closes the connection: leave the loop, or call `return()`.
 * Throws STAGE_MISSING, STAGE_CORRUPT (also where the bytes are another object's, or of another stream than `stream`), and what the stage throws.
 */
export async function* segmentSource(
  stage: Pick<Stage, 'read'>,
  object: string,
  range: ByteRange,
  stream?: string,
): AsyncGenerator<SegmentSource, void, undefined> {
  if (range[1] === 0) return;
  const bytes = new RangeBytes(await stage.read(object, range), object, range[1]);
  try {
    while (bytes.left > 0) {
      const segment = await OpenSegment.read(bytes);
      const { object: written = object, stream: own } = segment.header;
      if (written !== object) throw bytes.corrupt(`its bytes are those of ${written}`);
      if (stream !== undefined && own !== stream)
        throw bytes.corrupt(`it has a segment of ${own} where one of ${stream} is due`);
      yield segment;
      await segment.skipRest();
    }
  } finally {
    bytes.close();
  }
}

class OpenSegment implements SegmentSource {
  readonly header: SegmentSource['header'];
  readonly #bytes: RangeBytes;
  /** Blocks that have been opened, and whether the last of them has been read to its end. */
  #opened = 0;
  #ended = true;

  static async read(bytes: RangeBytes): Promise<OpenSegment> {
    const length = (await bytes.take(4)).readUInt32BE();
    if (length === 0 || length > HEADER_BYTES_MAX) throw bytes.corrupt(`a header of ${length} bytes`);
    const text = await decompress(bytes, await bytes.take(length), HEADER_TEXT_BYTES_MAX);
    return new OpenSegment(
      bytes,
      parseHeader(text, (reason) => bytes.corrupt(reason)),
    );
  }

  private constructor(bytes: RangeBytes, header: SegmentSource['header']) {
    this.#bytes = bytes;
    this.header = header;
  }

  block(index: number): Readable {
    if (index !== this.#opened || !this.#ended || index >= this.header.blocks.length) {
      throw new RangeError(`block ${index} asked for out of turn: ${this.#opened} opened, ended: ${this.#ended}`);
    }
    this.#opened += 1;
    this.#ended = false;
    const next = async (): Promise<Buffer | null> => {
      const text = await readFrame(this.#bytes);
      if (text === null) this.#ended = true;
      return text;
    };
    return new Readable({
      highWaterMark: 1,
      read() {
        void next().then(
          (text) => this.push(text),
          (error: Error) => this.destroy(error),
        );
      },
    });
  }

  async skipRest(): Promise<void> {
    if (!this.#ended)
      throw new RangeError(`block ${this.#opened - 1} of ${this.header.stream} was not read to its end`);
    for (; this.#opened < this.header.blocks.length; this.#opened += 1) {
      for (let length = -1; length !== 0; ) {
        length = (await this.#bytes.take(4)).readUInt32BE();
        if (length > FRAME_BYTES_MAX) throw this.#bytes.corrupt(`a frame of ${length} bytes`);
        if (length > 0) await this.#bytes.take(4 + length);
      }
    }
  }
}

/** The next frame's text; null at the end of the block. */
async function readFrame(bytes: RangeBytes): Promise<Buffer | null> {
  const length = (await bytes.take(4)).readUInt32BE();
  if (length === 0) return null;
  if (length > FRAME_BYTES_MAX) throw bytes.corrupt(`a frame of ${length} bytes`);
  const crc = (await bytes.take(4)).readUInt32BE();
  const frame = await bytes.take(length);
  if (crc32(frame) !== crc)
    throw bytes.corrupt(`the checksum of the frame that ends at byte ${bytes.position} is wrong`);
  const text = await decompress(bytes, frame, FRAME_TEXT_BYTES_MAX);
  if (text.length === 0) throw bytes.corrupt(`an empty frame before byte ${bytes.position}`);
  return text;
}

async function decompress(bytes: RangeBytes, frame: Buffer, text_bytes_max: number): Promise<Buffer> {
  try {
    return frame.length <= SYNC_FRAME_BYTES_MAX
      ? zstdDecompressSync(frame, { maxOutputLength: text_bytes_max })
      : await decompressInPool(frame, { maxOutputLength: text_bytes_max, chunkSize: OUTPUT_BYTES });
  } catch (error) {
    throw bytes.corrupt(
      `no zstd frame before byte ${bytes.position}: ${error instanceof Error ? error.message : 'unknown'}`,
    );
  }
}
