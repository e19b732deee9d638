/**
 * Items of the ledger for thousands of streams with names of 63 bytes: they fit what DynamoDB takes, and are read back as they were. And the other limits of
 * services that names and numbers could meet: a message of SQS, the parts of an upload.
 */
import { describe, expect, test } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import {
  type Attributes,
  Damage,
  type FieldCodecs,
  itemBytes,
  PACKED_BYTES_MIN,
  readFields,
  writeFields,
} from '../../lib/ledger/attributes.ts';
import { bellBody, bellGroup, RING_BYTES_MAX, RINGS_MAX } from '../../lib/ledger/bells.ts';
import { CUT_FIELDS, REPORT_FIELDS } from '../../lib/ledger/items.ts';
import { ITEM_BYTES_MAX } from '../../lib/ledger/table.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { Cut, RunReport } from '../../lib/ports.ts';
import { PARTS_MAX, PARTS_TOTAL_BYTES_MAX, partBytes } from '../../lib/stage/parts.ts';

const STREAMS = 10_000;
/** Names that differ at their end only, as generated ones do, or all over. */
const ids = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => {
    const table = i % 2 === 0 ? `${'t'.repeat(58)}${i}` : String(Math.imul(i, 0x9e3779b1) >>> 0).repeat(6);
    return streamId({ schema: 's'.repeat(63), table: table.slice(0, 63) });
  });

function cutOf(count: number, ranges: number): Cut {
  let offset = 0;
  const streams = ids(count).map((id, i) => {
    const own = Array.from({ length: ranges }, () => {
      offset += 12_345 + i;
      return [offset, 12_345 + i] as const;
    });
    return [id, { ...(ranges > 0 ? { ranges: own } : {}), changes: 1000 + i, text_bytes: 100_000 + 7 * i }];
  });
  return {
    number: 123_456,
    kind: 'changes',
    begin_lsn: lsnOf(0x12_3456_7890n),
    end_lsn: lsnOf(0x12_3456_8000n),
    committed_at_ms: 1_760_000_000_000,
    recorded_at_ms: 1_760_000_000_001,
    object: `own/cuts/${'1'.repeat(60)}`,
    object_bytes: offset,
    index: ranges > 0 ? null : [offset, 400_000],
    streams: Object.fromEntries(streams),
    captures: [],
    incarnation: 'incarnation',
    system_identifier: '7300000000000000000',
    timeline: 1,
  };
}

/** What the item counts, and what is read of it. */
function stored<T extends object>(fields: FieldCodecs<T>, value: T): { bytes: number; read: T; item: Attributes } {
  const item = writeFields(fields, value);
  return { bytes: itemBytes(item), read: readFields(fields, item), item };
}

describe('an item of the ledger', () => {
  test.each([
    ['a cut of 4,000 streams with a range each: as many as stand in an item', cutOf(4_000, 1)],
    ['a cut of 10,000 streams whose ranges stand in its index', cutOf(STREAMS, 0)],
    ['the capture of 10,000 streams', { ...cutOf(0, 0), kind: 'captures', captures: ids(STREAMS) } as const],
  ])('%s', (_, cut) => {
    const { bytes, read } = stored(CUT_FIELDS, cut);
    expect(bytes).toBeLessThan(ITEM_BYTES_MAX);
    expect(read).toEqual(cut);
  });

  test('a report of a window that had changes of 10,000 streams', () => {
    const report: RunReport = {
      run: 'run',
      started_at_ms: 1,
      ended_at_ms: 2,
      stopped_by: 'end_lsn',
      error: null,
      begin_lsn: lsnOf(1n),
      end_lsn: lsnOf(2n),
      source_lsn: lsnOf(2n),
      cuts: 1,
      transactions: 1,
      changes: 1,
      text_bytes: 1,
      object_bytes: 1,
      streams: Object.fromEntries(ids(STREAMS).map((id, i) => [id, { changes: i, text_bytes: 1000 * i }])),
      seconds: { ground: 1, read: 1, stage: 1, record: 1 },
    };
    const { bytes, read } = stored(REPORT_FIELDS, report);
    expect(bytes).toBeLessThan(ITEM_BYTES_MAX);
    expect(read).toEqual(report);
  });

  test('what is small is not packed, what is packed is bytes of its own', () => {
    const small = stored(CUT_FIELDS, cutOf(10, 1));
    expect(small.item.streams).toHaveProperty('M');
    const large = stored(CUT_FIELDS, cutOf(1_000, 1));
    expect(large.item.streams?.B).toBeInstanceOf(Uint8Array);
    expect(Buffer.isBuffer(large.item.streams?.B)).toBe(false);
    expect(large.bytes).toBeLessThan(PACKED_BYTES_MIN);
    expect(large.read.streams).toEqual(cutOf(1_000, 1).streams);
  });

  test.each([
    ['no zstd', new Uint8Array([1, 2, 3])],
    ['nothing', new Uint8Array()],
  ])('packed bytes that are %s are damage', (_, B) => {
    const { item } = stored(CUT_FIELDS, cutOf(1, 1));
    expect(() => readFields(CUT_FIELDS, { ...item, streams: { B } })).toThrow(Damage);
  });
});

test('ten bells of the longest names are one batch of messages', () => {
  const id = ids(2).map((stream) =>
    bellBody('p'.repeat(40), { kind: 'chunk', stream, epoch: 1e15, plan: 'f'.repeat(36), chunk: 1e15 }),
  );
  expect(Math.max(...id.map((body) => Buffer.byteLength(body))) * RINGS_MAX).toBeLessThan(RING_BYTES_MAX);
  const group = bellGroup({ kind: 'chunk', stream: ids(1)[0] ?? '', epoch: 1, plan: 'p', chunk: 1e15 });
  expect(group.length).toBeLessThanOrEqual(128);
});

test('an upload’s parts are as many as S3 takes, and hold 200 GiB', () => {
  let bytes = 0;
  for (let number = 1; number <= PARTS_MAX; number += 1) bytes += partBytes(number);
  expect(bytes).toBe(PARTS_TOTAL_BYTES_MAX);
  expect(bytes).toBeGreaterThan(200 * 1024 ** 3);
});
