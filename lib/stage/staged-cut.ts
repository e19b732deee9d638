/**
 * One cut on its way to being durable: its parts are compressed and uploaded one after another while the next is filled, and its object is complete
 * before the ledger hears of it (I1, I3).
 */
import type { CutStream, Stage, StageWriter } from '../ports.ts';
import { type RejectedObject, RejectWriter } from '../validation/reject-writer.ts';
import { type RejectedLine, rejectedObject } from '../validation/rejected.ts';
import type { DescribedShare } from '../window/describing.ts';
import { appendSegment } from './encode.ts';
import type { ByteRange } from './segment.ts';

/** Ranges that a cut's ledger item may carry, over all its streams: 16 bytes or so each, of the 400 KB that an item has. Beyond: the object's index. */
const ITEM_RANGES_MAX = 4_000;

/** What the ledger has to know of a cut's object. */
export interface CutObject {
  readonly object: string;
  readonly object_bytes: number;
  readonly index: ByteRange | null;
  readonly ranges: ReadonlyMap<string, readonly ByteRange[]>;
  /** Rows that were left out of it; null: none. */
  readonly rejected: RejectedObject | null;
}

export class StagedCut {
  #writer: StageWriter;
  #ranges = new Map<string, ByteRange[]>();
  #rangeCount = 0;
  #rejected: RejectWriter;

  constructor(stage: Stage, object: string) {
    this.#writer = stage.begin(object);
    this.#rejected = new RejectWriter(stage, rejectedObject(object));
  }

  /** Rows of a part that were left out, to lie in an object of their own. */
  async reject(lines: readonly RejectedLine[]): Promise<void> {
    for (const line of lines) await this.#rejected.add(line);
  }

  /** Compresses and uploads the shares of one part, in order. They are views of an arena: it is free when this resolves. */
  async append(shares: readonly DescribedShare[], extracted_at: string): Promise<void> {
    for (const { stream, operation, shape, described, blocks, commits } of shares) {
      const { range } = await appendSegment(
        this.#writer,
        {
          stream,
          operation,
          shape,
          extracted_at,
          ...(described ? { described } : {}),
          ...(commits ? { commits } : {}),
        },
        blocks.map(({ kind, columns, rows, pieces }) => ({ kind, columns, rows, slabs: givenUp(pieces) })),
      );
      this.#add(stream, range);
    }
  }

  /** Makes the objects durable. */
  async complete(): Promise<CutObject> {
    const { object } = this.#writer;
    let index: ByteRange | null = null;
    if (this.#rangeCount > ITEM_RANGES_MAX) {
      const text = Buffer.from(JSON.stringify(Object.fromEntries(this.#ranges)));
      index = [this.#writer.bytes, text.length];
      await this.#writer.append(text);
    }
    const rejected = await this.#rejected.complete();
    await this.#writer.complete();
    return { object, object_bytes: this.#writer.bytes, index, ranges: this.#ranges, rejected };
  }

  async abandon(): Promise<void> {
    await this.#rejected.abandon();
    await this.#writer.abandon();
  }

  #add(stream: string, [offset, bytes]: ByteRange): void {
    const ranges = this.#ranges.get(stream);
    const last = ranges?.at(-1);
    if (ranges && last && last[0] + last[1] === offset) {
      ranges[ranges.length - 1] = [last[0], last[1] + bytes];
      return;
    }
    if (ranges) ranges.push([offset, bytes]);
    else this.#ranges.set(stream, [[offset, bytes]]);
    this.#rangeCount++;
  }
}

/** Lets go of each piece as it is used: a giant row is not held until its last byte is compressed. */
function* givenUp(pieces: Buffer[]): Generator<Buffer, void, undefined> {
  pieces.reverse();
  for (let piece = pieces.pop(); piece !== undefined; piece = pieces.pop()) yield piece;
}

/** The streams of a cut as its ledger item names them. */
export function cutStreams(
  counts: ReadonlyMap<string, { changes: number; text_bytes: number }>,
  { index, ranges }: CutObject,
): Record<string, CutStream> {
  const streams: Record<string, CutStream> = {};
  for (const [stream, own] of ranges) {
    const { changes, text_bytes } = counts.get(stream) ?? { changes: 0, text_bytes: 0 };
    streams[stream] = index === null ? { ranges: own, changes, text_bytes } : { changes, text_bytes };
  }
  return streams;
}
