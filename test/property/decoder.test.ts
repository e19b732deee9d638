/**
 * Theorem 1: however the bytes of a replication connection are divided on their way, the same calls come out.
 * Theorem 2: of bytes that are not as a server wrote them come right calls or a typed error (SluiceError, RangeError), never another error, never
 * more calls than there are bytes, and never no end.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { SluiceError } from '../../lib/errors.ts';
import { FrameSplitter, GIANT_FRAME_BYTES_MIN, withoutHead, XLOG_DATA_HEADER_BYTES } from '../../lib/slot/wire.ts';
import * as pg from '../support/pgoutput.ts';
import { property } from '../support/property.ts';

/** A run that takes longer has lost its way. */
const RUN_MS_MAX = 5_000;

/** Feeds chunks as the reader does: frame by frame, each of which holds one message of the plugin. `stopEvery`: the sink stops there. */
function read(chunks: readonly Buffer[], stopEvery = Number.POSITIVE_INFINITY): pg.Call[] {
  const { calls, sink } = pg.recorder();
  const decoder = new PgoutputDecoder(sink);
  const splitter = new FrameSplitter();
  let frames = 0;
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const next = splitter.feed(chunk, at, (_type, bytes, start, end, pieces) => {
        frames++;
        if (pieces) decoder.decodeGiant(withoutHead(pieces, XLOG_DATA_HEADER_BYTES));
        else decoder.decode(bytes, Math.min(start + XLOG_DATA_HEADER_BYTES, end), end);
        return frames % stopEvery !== 0;
      });
      if (next <= at) throw new Error(`no progress at ${at} of ${chunk.length}`);
      at = next;
    }
  }
  return calls;
}

function divided(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const edges = [0, ...[...cuts].sort((a, b) => a - b), bytes.length];
  return edges.slice(1).map((to, i) => bytes.subarray(edges[i], to));
}

const columns = [{ name: 'k', key: true }, { name: 'v' }];
const SMALL = Buffer.concat(
  [
    pg.begin(0x80000001, 5n),
    pg.relation({ id: 7, columns }),
    pg.insert(7, ['', null]),
    pg.update(7, ['2', pg.UNCHANGED], { key: ['1', null] }),
    pg.truncate([7]),
    pg.commit(2n ** 63n),
  ].map((message) => pg.xlogData(message)),
);

test('a small stream, divided at every byte, and at every two', () => {
  const expected = JSON.stringify(plain(read([SMALL])));
  expect(read([SMALL])).toHaveLength(6);
  for (let i = 0; i <= SMALL.length; i++) {
    for (let j = i; j <= SMALL.length; j++) {
      const calls = read([SMALL.subarray(0, i), SMALL.subarray(i, j), SMALL.subarray(j)]);
      if (JSON.stringify(plain(calls)) !== expected) expect({ i, j, calls }).toEqual({ i, j, calls: read([SMALL]) });
    }
  }
  expect(JSON.stringify(plain(read([...SMALL].map((byte) => Buffer.from([byte])))))).toBe(expected);
});

/** Comparable by text: JSON has no bigint. */
function plain(calls: readonly pg.Call[]): unknown[] {
  return calls.map((call) => ('end_lsn' in call ? { ...call, end_lsn: String(call.end_lsn) } : call));
}

const uint32 = fc.oneof(fc.nat(0xffffffff), fc.constantFrom(0, 0x7fffffff, 0x80000000, 0xffffffff));
const field: fc.Arbitrary<pg.Field> = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom<pg.Field[]>(null, pg.UNCHANGED, '', '\\N'),
);
const row = fc.array(field, { maxLength: 6 });
const old: fc.Arbitrary<pg.Old> = fc.oneof(
  row.map((key) => ({ key })),
  row.map((full) => ({ full })),
);
const word = fc.string({ maxLength: 8 }).map((text) => text.replaceAll('\0', ''));
const message: fc.Arbitrary<Buffer> = fc.oneof(
  fc.tuple(uint32, fc.bigInt({ min: 0n, max: 2n ** 53n })).map(([xid, at_us]) => pg.begin(xid, at_us)),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((lsn) => pg.commit(lsn)),
  fc
    .tuple(uint32, word, word, fc.constantFrom('d', 'n', 'f', 'i'), fc.array(word, { maxLength: 5 }))
    .map(([id, schema, table, identity, names]) =>
      pg.relation({ id, schema, table, identity, columns: names.map((name) => ({ name, key: name < 'm' })) }),
    ),
  fc.tuple(uint32, row).map(([id, values]) => pg.insert(id, values)),
  fc.tuple(uint32, row, fc.option(old, { nil: undefined })).map(([id, values, image]) => pg.update(id, values, image)),
  fc.tuple(uint32, old).map(([id, image]) => pg.del(id, image)),
  fc.array(uint32, { maxLength: 4 }).map((ids) => pg.truncate(ids)),
  fc.tuple(word, fc.uint8Array({ maxLength: 40 })).map(([prefix, content]) => pg.message(prefix, Buffer.from(content))),
  word.map((text) => pg.origin(1n, text)),
  fc.tuple(uint32, word, word).map(([oid, schema, name]) => pg.type(oid, schema, name)),
);

property(
  'a stream divided anywhere, by a sink that stops anywhere, gives the calls of the whole',
  fc
    .tuple(fc.array(message, { minLength: 1, maxLength: 30 }), fc.integer({ min: 1, max: 9 }))
    .chain(([messages, stopEvery]) => {
      const bytes = Buffer.concat(messages.map((one) => pg.xlogData(one)));
      const cuts = fc.array(fc.nat(bytes.length), { maxLength: 60 });
      return fc.record({ bytes: fc.constant(bytes), stopEvery: fc.constant(stopEvery), cuts });
    }),
  ({ bytes, stopEvery, cuts }) => {
    expect(read(divided(bytes, cuts), stopEvery)).toEqual(read([bytes]));
  },
);

property(
  'a row of megabytes gives the same values in pieces as it does whole',
  fc.record({
    small: row,
    sizes: fc.array(fc.integer({ min: 0, max: 700_000 }), { minLength: 1, maxLength: 3 }),
    kind: fc.constantFrom('insert', 'update', 'full', 'delete'),
    cuts: fc.array(fc.nat(1_000_000), { maxLength: 20 }),
  }),
  ({ small, sizes, kind, cuts }) => {
    const values: pg.Row = [
      ...small,
      ...sizes.map((size, i) => Buffer.alloc(size, `${i}\t`)),
      Buffer.alloc(GIANT_FRAME_BYTES_MIN),
    ];
    const messages = {
      insert: pg.insert(1, values),
      update: pg.update(1, values, { key: small }),
      full: pg.update(1, small, { full: values }),
      delete: pg.del(1, { full: values }),
    };
    const bytes = Buffer.concat([messages[kind], pg.insert(2, small)].map((one) => pg.xlogData(one)));
    // Cut at least once within the giant, or it would come in one piece.
    const pieces = divided(bytes, [...cuts.map((cut) => Math.floor((cut / 1_000_000) * bytes.length)), 1000]);
    expect(read(pieces)).toEqual(read([bytes]));
  },
);

/** Damage: bytes written over, taken out, put in, and the end cut off. */
const damage = fc.array(
  fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
    how: fc.constantFrom('over', 'out', 'in', 'cut'),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }),
  }),
  { minLength: 1, maxLength: 4 },
);

function damaged(whole: Buffer, wounds: readonly { at: number; how: string; bytes: Uint8Array }[]): Buffer {
  let bytes = whole;
  for (const wound of wounds) {
    const at = Math.floor(wound.at * bytes.length);
    const after = wound.how === 'in' ? at : wound.how === 'cut' ? bytes.length : at + wound.bytes.length;
    const put = wound.how === 'over' || wound.how === 'in' ? wound.bytes : new Uint8Array();
    bytes = Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(after)]);
  }
  return bytes;
}

/** Runs `work`: a typed error, or calls, in bounded time. */
function typedOrRight(bytes: number, work: () => pg.Call[]): void {
  const began_ms = performance.now();
  try {
    expect(work().length).toBeLessThanOrEqual(bytes);
  } catch (error) {
    if (!(error instanceof SluiceError && error.code === 'DECODE_FAILED') && !(error instanceof RangeError))
      throw error;
  }
  expect(performance.now() - began_ms).toBeLessThan(RUN_MS_MAX);
}

property('a damaged message is DECODE_FAILED or a message', fc.tuple(message, damage), ([whole, wounds]) => {
  const bytes = damaged(whole, wounds);
  const { calls, sink } = pg.recorder();
  const decoder = new PgoutputDecoder(sink);
  typedOrRight(bytes.length + 1, () => {
    try {
      decoder.decode(bytes, 0, bytes.length);
    } catch (error) {
      // Within a message nothing but the decoder's own error.
      expect(error).toBeInstanceOf(SluiceError);
      expect(calls).toEqual([]);
    }
    return calls;
  });
});

property(
  'a damaged giant is DECODE_FAILED or a message',
  fc.tuple(row, fc.integer({ min: 65_000, max: 70_000 }), damage, fc.array(fc.nat(70_000), { maxLength: 5 })),
  ([small, size, wounds, cuts]) => {
    const bytes = damaged(pg.update(1, [...small, Buffer.alloc(size)], { full: small }), wounds);
    const { calls, sink } = pg.recorder();
    typedOrRight(bytes.length + 1, () => {
      new PgoutputDecoder(sink).decodeGiant(
        divided(
          bytes,
          cuts.map((cut) => cut % (bytes.length + 1)),
        ).filter((piece) => piece.length > 0),
      );
      return calls;
    });
  },
);

property(
  'a damaged stream, and mere noise, are read to a typed error or to their end',
  fc
    .oneof(
      fc
        .tuple(fc.array(message, { minLength: 1, maxLength: 10 }), damage)
        .map(([messages, wounds]) => damaged(Buffer.concat(messages.map((one) => pg.xlogData(one))), wounds)),
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    )
    .chain((bytes) => fc.record({ bytes: fc.constant(bytes), cuts: fc.array(fc.nat(bytes.length), { maxLength: 8 }) })),
  ({ bytes, cuts }) => {
    typedOrRight(bytes.length, () => read(divided(bytes, cuts)));
  },
);
