/**
 * Writes the staged format (segment.ts): one stream's COPY text, cut into frames, compressed and checksummed.
 *
 * On the path it stands between the cut (or a chunk's COPY) and the stage's writer. Text is never parsed, not even for its lines: a frame
 * may end anywhere. What is held is one frame of text and its compressed form, however long the text is (I8).
 */
import { promisify } from 'node:util';
import { constants, crc32, zstdCompress, zstdCompressSync } from 'node:zlib';
import type { StageWriter } from '../ports.ts';
import { type Block, type ByteRange, FRAME_TEXT_BYTES_MAX, SEGMENT_VERSION, type SegmentHeader } from './segment.ts';

/** A header as the caller knows it; the version and the blocks are added here. */
export type SegmentHead = Omit<SegmentHeader, 'version' | 'blocks'>;

/**
 * A block with its COPY text, in pieces of any size. `slabs` is walked once, in order, and is not held: what it yields may be collected as soon as
 * its frame has been written. A slab must not change before that; who reuses buffers waits until the segment is written.
 */
export interface BlockText extends Block {
  readonly slabs: Iterable<Buffer> | AsyncIterable<Buffer>;
}

/** What `appendSegment` wrote: where it lies in the object, and how much COPY text it holds. */
export interface WrittenSegment {
  readonly range: ByteRange;
  readonly text_bytes: number;
}

/** Below this a trip to the thread pool costs more than the compression itself (0.08 ms for 10 kB against 0.3 ms). */
const SYNC_TEXT_BYTES_MAX = 32 * 1024;
/**
 * Output of one call into zstd. With the default of 16 KiB a frame of 4 MiB takes twice as long; with room for all of it no less than with this, and
 * memory beside the heap is what the collector is kept busy with.
 */
const OUTPUT_BYTES = 512 * 1024;
/** Level 1: 415 MiB/s at a ratio of 3.2 on COPY text; more costs time and saves little. */
const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
/** The header has no CRC of its own in the format: zstd's checksum stands in for it. */
const ZSTD_CHECKED = { params: { ...ZSTD.params, [constants.ZSTD_c_checksumFlag]: 1 } };

const FRAME_HEAD_BYTES = 8;
const BLOCK_END = Buffer.alloc(4);

const compressInPool = promisify(zstdCompress);

/**
 * The bytes of one segment, in order. `slabs` of a block may be a Readable: its error is thrown here.
 * A consumer that stops early closes the slabs it was reading.
 */
export async function* encodeSegment(
  head: SegmentHead,
  blocks: readonly BlockText[],
): AsyncGenerator<Buffer, void, undefined> {
  yield encodeHeader(head, blocks);
  for (const block of blocks) {
    for await (const text of framesOf(block.slabs)) yield await encodeFrame(text);
    yield BLOCK_END;
  }
}

/** Encodes one segment straight into an object. Resolves when all of it has been appended. */
export async function appendSegment(
  writer: StageWriter,
  head: SegmentHead,
  blocks: readonly BlockText[],
): Promise<WrittenSegment> {
  const offset = writer.bytes;
  let text_bytes = 0;
  const counted = blocks.map((block) => ({
    ...block,
    slabs: counting(block.slabs, (bytes) => {
      text_bytes += bytes;
    }),
  }));
  for await (const piece of encodeSegment({ ...head, object: writer.object }, counted)) await writer.append(piece);
  return { range: [offset, writer.bytes - offset], text_bytes };
}

/**
 * Encodes a chunk of an epoch: one upsert block of whole rows, as `lines` (COPY TO STDOUT) brings them. The number of rows is not known when
 * the header is written, so the header says null.
 */
export async function appendChunk(
  writer: StageWriter,
  head: SegmentHead,
  lines: AsyncIterable<Buffer>,
): Promise<WrittenSegment> {
  const columns = head.shape.columns.map((_, index) => index);
  return await appendSegment(writer, head, [{ kind: 'upsert', columns, rows: null, slabs: lines }]);
}

function encodeHeader(head: SegmentHead, blocks: readonly Block[]): Buffer {
  const header: SegmentHeader = {
    version: SEGMENT_VERSION,
    stream: head.stream,
    ...(head.object === undefined ? {} : { object: head.object }),
    operation: head.operation,
    shape: head.shape,
    ...(head.described === undefined ? {} : { described: head.described }),
    ...(head.commits ? { commits: head.commits } : {}),
    extracted_at: head.extracted_at,
    blocks: blocks.map(({ kind, columns, rows }) => ({ kind, columns, rows })),
  };
  const compressed = zstdCompressSync(Buffer.from(JSON.stringify(header)), ZSTD_CHECKED);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(compressed.length);
  return Buffer.concat([length, compressed]);
}

async function encodeFrame(text: readonly Buffer[]): Promise<Buffer> {
  const [first] = text;
  const joined = text.length === 1 && first !== undefined ? first : Buffer.concat(text);
  const compressed =
    joined.length <= SYNC_TEXT_BYTES_MAX
      ? zstdCompressSync(joined, ZSTD)
      : await compressInPool(joined, { ...ZSTD, chunkSize: OUTPUT_BYTES });
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUInt32BE(compressed.length, 0);
  head.writeUInt32BE(crc32(compressed), 4);
  return Buffer.concat([head, compressed]);
}

/** Groups slabs into frames of FRAME_TEXT_BYTES_MAX; a slab that does not fit is divided, without copying. */
async function* framesOf(slabs: BlockText['slabs']): AsyncGenerator<Buffer[], void, undefined> {
  let frame: Buffer[] = [];
  let room = FRAME_TEXT_BYTES_MAX;
  for await (const slab of slabs) {
    for (let at = 0; at < slab.length; ) {
      const piece = slab.subarray(at, at + room);
      frame.push(piece);
      at += piece.length;
      room -= piece.length;
      if (room === 0) {
        yield frame;
        frame = [];
        room = FRAME_TEXT_BYTES_MAX;
      }
    }
  }
  if (frame.length > 0) yield frame;
}

async function* counting(
  slabs: BlockText['slabs'],
  count: (bytes: number) => void,
): AsyncGenerator<Buffer, void, undefined> {
  for await (const slab of slabs) {
    count(slab.length);
    yield slab;
  }
}
