/**
 * One cut on its way to being durable: its parts are compressed and uploaded one after another while the next is filled, and its object is complete
 * before the ledger hears of it (I1, I3).
 *
 * A cut that a window does not come to the end of is suspended: its object is completed as it is, and the next window goes on with another behind it
 * (lib/window/unfinished.ts). Ranges are of the bytes of all of them, joined.
 */
import { type Piece, textOf } from '../piece.ts';
import type { Cut, CutPart, CutStream, Stage, StageWriter } from '../ports.ts';
import { type RejectedObject, RejectWriter } from '../validation/reject-writer.ts';
import { type RejectedLine, rejectedObject } from '../validation/rejected.ts';
import type { DescribedShare } from '../window/describing.ts';
import { appendSegment } from './encode.ts';
import type { ByteRange } from './segment.ts';

/** Ranges that a cut's ledger item may carry, over all its streams: 16 bytes or so each, of the 400 KB that an item has. Beyond: the object's index. */
const ITEM_RANGES_MAX = 4_000;

/** What the ledger has to know of a cut's objects. */
export interface CutObject extends StagedSoFar {
  /** The last. */
  readonly object: string;
  /** Of all of them. */
  readonly object_bytes: number;
  readonly index: ByteRange | null;
}

/** What former windows have staged of a cut. */
export interface StagedSoFar {
  readonly earlier: readonly CutPart[];
  readonly ranges: ReadonlyMap<string, readonly ByteRange[]>;
  /** Rows that were left out of it. */
  readonly rejected: readonly RejectedObject[];
}

export class StagedCut {
  #writer: StageWriter;
  #earlier: readonly CutPart[];
  /** Where this object's bytes begin among the cut's. */
  #offset: number;
  #ranges: Map<string, ByteRange[]>;
  #rangeCount: number;
  #leftOut: readonly RejectedObject[];
  #rejected: RejectWriter;

  constructor(stage: Stage, object: string, so_far: StagedSoFar | null = null) {
    this.#writer = stage.begin(object);
    this.#rejected = new RejectWriter(stage, rejectedObject(object));
    this.#earlier = so_far?.earlier ?? [];
    this.#offset = this.#earlier.reduce((sum, { object_bytes }) => sum + object_bytes, 0);
    this.#ranges = new Map([...(so_far?.ranges ?? [])].map(([stream, ranges]) => [stream, [...ranges]]));
    this.#rangeCount = [...this.#ranges.values()].reduce((sum, { length }) => sum + length, 0);
    this.#leftOut = so_far?.rejected ?? [];
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
      this.#add(stream, [this.#offset + range[0], range[1]]);
    }
  }

  /** Makes the objects durable. */
  async complete(): Promise<CutObject> {
    const { object } = this.#writer;
    let index: ByteRange | null = null;
    if (this.#rangeCount > ITEM_RANGES_MAX) {
      index = await this.#appendText(Buffer.from(JSON.stringify(Object.fromEntries(this.#ranges))));
    }
    const rejected = await this.#completeRejected();
    await this.#writer.complete();
    const object_bytes = this.#offset + this.#writer.bytes;
    return { object, object_bytes, earlier: this.#earlier, index, ranges: this.#ranges, rejected };
  }

  /** Makes the objects durable as they are, with `state` of all that is staged at the end: another window goes on behind it. */
  async suspend(
    state: (so_far: Omit<StagedSoFar, 'earlier'>) => Buffer,
  ): Promise<{ readonly objects: readonly CutPart[]; readonly state: ByteRange }> {
    const rejected = await this.#completeRejected();
    const range = await this.#appendText(state({ ranges: this.#ranges, rejected }));
    await this.#writer.complete();
    const { object, bytes: object_bytes } = this.#writer;
    return { objects: [...this.#earlier, { object, object_bytes }], state: range };
  }

  async #completeRejected(): Promise<readonly RejectedObject[]> {
    const rejected = await this.#rejected.complete();
    return rejected === null ? this.#leftOut : [...this.#leftOut, rejected];
  }

  async #appendText(text: Buffer): Promise<ByteRange> {
    const range: ByteRange = [this.#offset + this.#writer.bytes, text.length];
    await this.#writer.append(text);
    return range;
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
function* givenUp(pieces: Piece[]): Generator<Buffer, void, undefined> {
  pieces.reverse();
  for (let piece = pieces.pop(); piece !== undefined; piece = pieces.pop()) yield textOf(piece);
}

/** The objects of a cut as its ledger item names them. */
export function objectOf({
  object,
  object_bytes,
  earlier,
  index,
}: CutObject): Pick<Cut, 'object' | 'object_bytes' | 'earlier' | 'index'> {
  return { object, object_bytes, index, ...(earlier.length > 0 ? { earlier } : {}) };
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
