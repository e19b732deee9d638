/** A cut's object and what the ledger is told of it: where each stream's segments lie, there or in the object's index. */
import { describe, expect, test } from 'vitest';
import type { Share } from '../../lib/cut/share.ts';
import { cutRanges, objectsOf, placeIn } from '../../lib/stage/cut-ranges.ts';
import { segmentSource } from '../../lib/stage/frames.ts';
import type { ByteRange } from '../../lib/stage/segment.ts';
import { cutStreams, objectOf, StagedCut } from '../../lib/stage/staged-cut.ts';
import { aCut } from '../support/ledger-nouns.ts';
import { Durable, memoryStage, World } from '../support/memory-ports.ts';

const AT = '2026-01-02T03:04:05.678Z';
const SHAPE = { columns: [{ name: 'id', type_oid: 20, type_modifier: -1 }], key: [0] };

const relation = { oid: 16_400, message: 1, newest: true };
const truncate = (stream: string): Share => ({ stream, operation: 'truncate', shape: SHAPE, relation, blocks: [] });
const upsert = (stream: string, id: string): Share => ({
  stream,
  operation: 'changes',
  shape: SHAPE,
  relation,
  blocks: [{ kind: 'upsert', columns: [0], rows: 1, pieces: [Buffer.from(id), Buffer.from('\n')] }],
});

function staging() {
  const durable = new Durable();
  const stage = memoryStage(new World(), durable);
  return { durable, stage, cut: new StagedCut(stage, 'shop/cuts/1') };
}

/** `stream: first line of each block, or truncate`, of all segments of the ranges. */
async function segmentsIn(stage: ReturnType<typeof staging>['stage'], ranges: readonly ByteRange[]): Promise<string[]> {
  const seen: string[] = [];
  for (const range of ranges) {
    for await (const segment of segmentSource(stage, 'shop/cuts/1', range)) {
      const texts: string[] = [segment.header.stream];
      for (const [i] of segment.header.blocks.entries())
        for await (const text of segment.block(i)) texts.push(String(text).trim());
      seen.push(texts.join(' '));
    }
  }
  return seen;
}

describe('ranges', () => {
  test('neighbours are joined, whatever part they came with; each stream finds its own, in order', async () => {
    const { stage, cut } = staging();
    await cut.append([upsert('a', '1'), upsert('a', '2'), upsert('b', '3')], AT);
    await cut.append([upsert('b', '4'), truncate('a'), upsert('a', '5')], AT);
    const object = await cut.complete();
    expect(object.index).toBeNull();
    expect([...object.ranges].map(([stream, ranges]) => [stream, ranges.length])).toEqual([
      ['a', 2],
      ['b', 1],
    ]);
    expect(await segmentsIn(stage, object.ranges.get('a') ?? [])).toEqual(['a 1', 'a 2', 'a', 'a 5']);
    expect(await segmentsIn(stage, object.ranges.get('b') ?? [])).toEqual(['b 3', 'b 4']);
    const bytes = [...object.ranges.values()].flat().reduce((sum, [, length]) => sum + length, 0);
    expect(bytes).toBe(object.object_bytes);
  });

  test('the object is there when it is complete, and not before', async () => {
    const { durable, cut } = staging();
    await cut.append([upsert('a', '1')], AT);
    expect(durable.objects.size).toBe(0);
    const { object, object_bytes } = await cut.complete();
    expect(durable.objects.get(object)).toHaveLength(object_bytes);
  });

  test('a cut that is given up leaves none', async () => {
    const { durable, cut } = staging();
    await cut.append([upsert('a', '1')], AT);
    await cut.abandon();
    await expect(cut.append([upsert('a', '2')], AT)).rejects.toThrow(RangeError);
    expect(durable.objects.size).toBe(0);
  });
});

describe('a cut that is suspended', () => {
  test('is gone on with in another object, and its ranges are of the bytes of both', async () => {
    const { durable, stage, cut } = staging();
    await cut.append([upsert('a', '1'), upsert('b', '2')], AT);
    const { objects, state } = await cut.suspend(({ ranges }) => {
      expect([...ranges.keys()]).toEqual(['a', 'b']);
      return Buffer.from('state');
    });
    expect(objects).toEqual([{ object: 'shop/cuts/1', object_bytes: durable.objects.get('shop/cuts/1')?.length }]);
    const place = placeIn(objects, state);
    expect(durable.objects.get(place[0])?.subarray(place[1][0]).toString()).toBe('state');

    const first = new Map([['a', [[0, state[0]] as const]]]);
    const second = new StagedCut(stage, 'shop/cuts/2', { earlier: objects, ranges: first, rejected: [] });
    await second.append([upsert('a', '3')], AT);
    const done = await second.complete();
    expect(done.earlier).toEqual(objects);
    const recorded = aCut({ ...objectOf(done), streams: cutStreams(new Map(), done) });
    expect(objectsOf(recorded).map(({ object }) => object)).toEqual(['shop/cuts/1', 'shop/cuts/2']);
    const ranges = await cutRanges(stage, recorded, 'a');
    expect(ranges.map((range) => placeIn(objectsOf(recorded), range)[0])).toEqual(['shop/cuts/1', 'shop/cuts/2']);
  });

  test('a range that no object has is damage', () => {
    const objects = [
      { object: 'one', object_bytes: 10 },
      { object: 'two', object_bytes: 5 },
    ];
    expect(placeIn(objects, [4, 6])).toEqual(['one', [4, 6]]);
    expect(placeIn(objects, [10, 5])).toEqual(['two', [0, 5]]);
    expect(() => placeIn(objects, [8, 4])).toThrow('no object of it has the bytes from 8 to 12');
  });
});

describe('what the ledger is told', () => {
  const counts = new Map([['a', { changes: 7, text_bytes: 70 }]]);

  test('the ranges of each stream with its counts', async () => {
    const { cut } = staging();
    await cut.append([upsert('a', '1'), truncate('b')], AT);
    const object = await cut.complete();
    expect(cutStreams(counts, object)).toEqual({
      a: { ranges: object.ranges.get('a'), changes: 7, text_bytes: 70 },
      b: { ranges: object.ranges.get('b'), changes: 0, text_bytes: 0 },
    });
  });

  test.each([
    [4_000, false],
    [4_001, true],
  ])('of %i ranges, in an index: %s', async (ranges, isIndexed) => {
    const { stage, cut } = staging();
    const shares = Array.from({ length: ranges }, (_, i) => truncate(i % 2 ? 'b' : 'a'));
    await cut.append(shares, AT);
    const object = await cut.complete();
    expect(object.index !== null).toBe(isIndexed);
    const streams = cutStreams(counts, object);
    expect(Object.values(streams).every((stream) => (stream.ranges === undefined) === isIndexed)).toBe(true);
    const recorded = aCut({ object: object.object, index: object.index, streams });
    const found = await cutRanges(stage, recorded, 'b');
    expect(found).toEqual(object.ranges.get('b'));
    expect(found).toHaveLength(Math.floor(ranges / 2));
    expect((await segmentsIn(stage, found.slice(0, 3))).join()).toBe('b,b,b');
  });
});

describe('where a stream lies in a cut', () => {
  const object = 'shop/cuts/1';
  const indexed = (text: string) => {
    const { durable, stage } = staging();
    durable.objects.set(object, Buffer.from(`segments${text}`));
    const own = { changes: 1, text_bytes: 1 };
    return { stage, cut: aCut({ object, index: [8, text.length], streams: { a: own } }) };
  };

  test('nowhere, where it has nothing in it', async () => {
    const { stage } = staging();
    expect(await cutRanges(stage, aCut({ streams: {} }), 'a')).toEqual([]);
    expect(await cutRanges(stage, aCut({ object: null, streams: { a: { changes: 0, text_bytes: 0 } } }), 'a')).toEqual(
      [],
    );
  });

  test('where the index says', async () => {
    const { stage, cut } = indexed('{"b":[[1,2]],"a":[[0,5],[9,1]]}');
    expect(await cutRanges(stage, cut, 'a')).toEqual([
      [0, 5],
      [9, 1],
    ]);
  });

  test.each([
    ['no JSON', '{"a":[[0,5]'],
    ['no map', '[[0,5]]'],
    ['without the stream', '{"b":[[0,5]]}'],
    ['a range too short', '{"a":[[0]]}'],
    ['a negative offset', '{"a":[[-1,5]]}'],
    ['a fraction', '{"a":[[0.5,5]]}'],
    ['text for a number', '{"a":[["0",5]]}'],
  ])('an index that is %s is STAGE_CORRUPT', async (_what, text) => {
    const { stage, cut } = indexed(text);
    await expect(cutRanges(stage, cut, 'a')).rejects.toMatchObject({
      code: 'STAGE_CORRUPT',
      facts: { object, stream: 'a' },
    });
  });

  test('no ranges and no index is STAGE_CORRUPT; an object that is gone, STAGE_MISSING', async () => {
    const { stage, cut } = indexed('{}');
    await expect(cutRanges(stage, { ...cut, index: null }, 'a')).rejects.toMatchObject({ code: 'STAGE_CORRUPT' });
    await expect(cutRanges(stage, { ...cut, object: 'gone' }, 'a')).rejects.toMatchObject({ code: 'STAGE_MISSING' });
  });
});
