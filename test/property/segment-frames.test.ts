/**
 * Goal: what encodeSegment writes, segmentSource reads back as it was, however the bytes are divided on their way; and of bytes that are not
 * as they were written no wrong text is handed on, no error is untyped, and nothing hangs.
 * Method: random segments, whose bytes arrive in random pieces, or truncated, or with one byte changed.
 */
import { Readable } from 'node:stream';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import type { Stage } from '../../lib/ports.ts';
import { encodeSegment, type SegmentHead } from '../../lib/stage/encode.ts';
import { segmentSource } from '../../lib/stage/frames.ts';
import { BLOCK_KINDS, type BlockKind, FRAME_TEXT_BYTES_MAX } from '../../lib/stage/segment.ts';
import { property } from '../support/property.ts';

interface TestBlock {
  readonly kind: BlockKind;
  readonly columns: readonly number[];
  readonly rows: number | null;
  readonly slabs: readonly Buffer[];
}

interface TestSegment {
  readonly head: SegmentHead;
  readonly blocks: readonly TestBlock[];
}

const slab = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
const block = (columns: number): fc.Arbitrary<TestBlock> =>
  fc.record({
    kind: fc.constantFrom(...BLOCK_KINDS),
    columns: fc.array(fc.nat(columns - 1), { maxLength: 4 }),
    rows: fc.option(fc.nat()),
    slabs: fc.array(slab, { maxLength: 5 }),
  });
const inOrder = (blocks: TestBlock[]) =>
  blocks.toSorted((a, b) => BLOCK_KINDS.indexOf(a.kind) - BLOCK_KINDS.indexOf(b.kind));

const segment: fc.Arbitrary<TestSegment> = fc.integer({ min: 1, max: 6 }).chain((columns) =>
  fc.record({
    head: fc.record({
      stream: fc.string({ minLength: 1 }),
      operation: fc.constant('changes' as const),
      shape: fc.record({
        columns: fc.array(
          fc.record({
            name: fc.string({ minLength: 1 }),
            type_oid: fc.nat(0xffffffff),
            type_modifier: fc.integer(),
          }),
          { minLength: columns, maxLength: columns },
        ),
        key: fc.array(fc.nat(columns - 1), { minLength: 1, maxLength: 3 }),
      }),
      extracted_at: fc
        .date({ min: new Date(0), max: new Date(2 ** 43), noInvalidDate: true })
        .map((at) => at.toISOString()),
    }),
    blocks: fc.array(block(columns), { maxLength: 4 }).map(inOrder),
  }),
);

async function encoded(segments: readonly TestSegment[]): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (const { head, blocks } of segments) for await (const piece of encodeSegment(head, blocks)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** A stage with one object whose bytes come in pieces of the given sizes, over and over. */
function stageOf(
  bytes: Buffer,
  sizes: readonly number[] = [bytes.length],
): Pick<Stage, 'read'> & { readonly readable: () => Readable } {
  let readable: Readable | undefined;
  return {
    read: (_object, [offset, count]) => {
      const range = bytes.subarray(offset, offset + count);
      function* pieces() {
        for (let at = 0, i = 0; at < range.length; i += 1) {
          const size = sizes[i % sizes.length] ?? 1;
          yield range.subarray(at, at + size);
          at += size;
        }
      }
      readable = Readable.from(pieces(), { objectMode: false });
      return Promise.resolve(readable);
    },
    readable: () => readable ?? expect.fail('nothing was read'),
  };
}

async function decoded(stage: Pick<Stage, 'read'>, bytes: number) {
  const segments: { header: unknown; texts: Buffer[] }[] = [];
  for await (const source of segmentSource(stage, 'object', [0, bytes])) {
    const texts: Buffer[] = [];
    for (const index of source.header.blocks.keys()) texts.push(Buffer.concat(await source.block(index).toArray()));
    segments.push({ header: source.header, texts });
  }
  return segments;
}

const asRead = ({ head, blocks }: TestSegment) => ({
  header: { version: 1, ...head, blocks: blocks.map(({ kind, columns, rows }) => ({ kind, columns, rows })) },
  texts: blocks.map(({ slabs }) => Buffer.concat(slabs)),
});

describe('segments', () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 });
  property(
    'come back as they were, in pieces of any size',
    fc.tuple(fc.array(segment, { minLength: 1, maxLength: 3 }), sizes),
    async ([segments, sizes]) => {
      const bytes = await encoded(segments);
      expect(await decoded(stageOf(bytes, sizes), bytes.length)).toEqual(segments.map(asRead));
    },
  );

  test('come back when the bytes are divided at any one place', async () => {
    const withSlabs = segment.filter(({ blocks }) => blocks.some(({ slabs }) => slabs.length > 1));
    const [example] = fc.sample(withSlabs, { numRuns: 1, seed: 7 });
    if (!example) throw new Error('no example');
    const bytes = await encoded([example]);
    for (let at = 1; at < bytes.length; at += 1) {
      expect(await decoded(stageOf(bytes, [at, bytes.length]), bytes.length)).toEqual([asRead(example)]);
    }
  });

  property(
    'that are cut short are STAGE_CORRUPT, wherever',
    fc.tuple(segment, fc.nat(), fc.boolean()),
    async ([one, at, rangeKnows]) => {
      const bytes = await encoded([one]);
      const short = bytes.subarray(0, at % bytes.length);
      // Either the object is shorter than its range, or the range itself ends early.
      const range = rangeKnows ? Math.max(short.length, 1) : bytes.length;
      const fault = await decoded(stageOf(short), range).catch((error: unknown) => error);
      expect(fault).toBeInstanceOf(SluiceError);
      expect(fault).toMatchObject({ code: 'STAGE_CORRUPT' });
    },
  );

  property(
    'with a changed byte give the right text or STAGE_CORRUPT',
    fc.tuple(segment, fc.nat(), fc.integer({ min: 1, max: 255 })),
    async ([one, at, mask]) => {
      const bytes = await encoded([one]);
      const damaged = Buffer.from(bytes);
      const place = at % bytes.length;
      damaged[place] = (damaged[place] ?? 0) ^ mask;
      const result = await decoded(stageOf(damaged), damaged.length).catch((error: unknown) => error);
      if (result instanceof SluiceError) expect(result.code).toBe('STAGE_CORRUPT');
      else expect(result).toEqual([asRead(one)]);
    },
  );

  property('that are garbage are STAGE_CORRUPT', fc.uint8Array({ minLength: 1, maxLength: 200 }), async (garbage) => {
    const bytes = Buffer.from(garbage);
    await expect(decoded(stageOf(bytes), bytes.length)).rejects.toMatchObject({ code: 'STAGE_CORRUPT' });
  });
});

describe('a consumer', () => {
  const head: SegmentHead = {
    stream: 'public.t',
    operation: 'changes',
    shape: { columns: [{ name: 'id', type_oid: 20, type_modifier: -1 }], key: [0] },
    extracted_at: '2026-01-01T00:00:00.000Z',
  };
  const big = Buffer.alloc(FRAME_TEXT_BYTES_MAX * 2 + 17, 'abcdefghij\n');
  const blocks: TestBlock[] = [
    { kind: 'delete', columns: [0], rows: 1, slabs: [Buffer.from('1\t2026-01-01 00:00:00+00\n')] },
    { kind: 'upsert', columns: [0], rows: null, slabs: [big.subarray(0, 1000), big.subarray(1000)] },
  ];

  test('gets a block that is larger than a frame, a frame at a time', async () => {
    const bytes = await encoded([{ head, blocks }]);
    const sizes: number[] = [];
    for await (const source of segmentSource(stageOf(bytes, [65536]), 'o', [0, bytes.length])) {
      await source.block(0).toArray();
      const pieces: Buffer[] = [];
      for await (const piece of source.block(1) as AsyncIterable<Buffer>) pieces.push(piece);
      sizes.push(...pieces.map(({ length }) => length));
      expect(Buffer.concat(pieces).equals(big)).toBe(true);
    }
    expect(sizes).toEqual([FRAME_TEXT_BYTES_MAX, FRAME_TEXT_BYTES_MAX, 17]);
  });

  test('that leaves blocks unread comes to the next segment', async () => {
    const bytes = await encoded([
      { head, blocks },
      { head: { ...head, stream: 'public.u' }, blocks },
    ]);
    const streams: string[] = [];
    for await (const source of segmentSource(stageOf(bytes), 'o', [0, bytes.length])) {
      streams.push(source.header.stream);
      if (streams.length === 1) await source.block(0).toArray();
    }
    expect(streams).toEqual(['public.t', 'public.u']);
  });

  test('that stops early closes the stream', async () => {
    const bytes = await encoded([{ head, blocks }]);
    const stage = stageOf(bytes, [1024]);
    for await (const source of segmentSource(stage, 'o', [0, bytes.length])) {
      await source.block(0).toArray();
      const open = source.block(1);
      await open[Symbol.asyncIterator]().next();
      open.destroy();
      break;
    }
    expect(stage.readable().destroyed).toBe(true);
  });

  test('that stops while the stage stalls is not held', async () => {
    const bytes = await encoded([{ head, blocks }]);
    const stalled = new Readable({ read() {} });
    stalled.push(bytes.subarray(0, 300));
    const segments = segmentSource({ read: () => Promise.resolve(stalled) }, 'o', [0, bytes.length]);
    const first = await segments.next();
    if (first.done) throw new Error('no segment');
    await first.value.block(0).toArray();
    const open = first.value.block(1);
    open.read();
    open.destroy();
    await segments.return();
    expect(stalled.destroyed).toBe(true);
  });

  test('that asks for a block out of turn is told so', async () => {
    const bytes = await encoded([{ head, blocks }]);
    for await (const source of segmentSource(stageOf(bytes), 'o', [0, bytes.length])) {
      expect(() => source.block(1)).toThrow(RangeError);
      const open = source.block(0);
      expect(() => source.block(1)).toThrow(RangeError);
      await open.toArray();
      await source.block(1).toArray();
    }
  });

  test('gets the error of the stage as it is', async () => {
    const bytes = await encoded([{ head, blocks }]);
    const fault = new SluiceError('AWS_TRANSIENT', { service: 'S3', operation: 'GetObject', reason: 'test' });
    const broken = Readable.from(
      (async function* () {
        yield bytes.subarray(0, 200);
        await Promise.resolve();
        throw fault;
      })(),
      { objectMode: false },
    );
    await expect(decoded({ read: () => Promise.resolve(broken) }, bytes.length)).rejects.toBe(fault);
  });
});
