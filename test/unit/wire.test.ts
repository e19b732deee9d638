/**
 * Frames: what a byte stream is cut into, what we send, and what a length that cannot be right becomes. That no division of the stream makes a
 * difference is test/property/decoder.test.ts's.
 */
import { describe, expect, test } from 'vitest';
import { LSN_ZERO, lsnOf, parseLsn } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import {
  copyDoneFrame,
  errorFields,
  FRAME,
  type FrameSink,
  FrameSplitter,
  GIANT_FRAME_BYTES_MIN,
  POSTGRES_EPOCH_MS,
  queryFrame,
  readLsn,
  statusFrame,
  terminateFrame,
} from '../../lib/slot/wire.ts';
import { frame, keepalive, uint32, uint64, xlogData } from '../support/pgoutput.ts';

interface Seen {
  readonly type: string;
  readonly payload: string;
  /** In how many pieces a giant came; null: it is none. */
  readonly pieces: number | null;
}

/** Keeps what it is given; stops after the frames whose index is in `stops`. */
function collector(stops: readonly number[] = []): { readonly seen: Seen[]; readonly sink: FrameSink } {
  const seen: Seen[] = [];
  return {
    seen,
    sink: (type, bytes, start, end, pieces) => {
      const payload = pieces ? joined(pieces) : bytes.subarray(start, end);
      seen.push({
        type: String.fromCharCode(type),
        payload: payload.toString('latin1'),
        pieces: pieces?.length ?? null,
      });
      return !stops.includes(seen.length - 1);
    },
  };
}

const whole = (type: string, payload: string): Seen => ({ type, payload, pieces: null });

test('frames in one chunk are handed on in place, an empty payload too', () => {
  const chunk = Buffer.concat([
    frame('d', Buffer.from('abc')),
    frame('c', Buffer.alloc(0)),
    frame('Z', Buffer.from('I')),
  ]);
  const { seen, sink } = collector();
  const splitter = new FrameSplitter();
  let inPlace = 0;
  const end = splitter.feed(chunk, 0, (...frameOf) => {
    if (frameOf[1] === chunk) inPlace++;
    return sink(...frameOf);
  });
  expect(end).toBe(chunk.length);
  expect(seen).toEqual([whole('d', 'abc'), whole('c', ''), whole('Z', 'I')]);
  expect(inPlace).toBe(3);
  expect(splitter.pendingBytes).toBe(0);
});

test('a frame that straddles chunks waits for its last byte', () => {
  const bytes = frame('d', Buffer.from('payload'));
  const { seen, sink } = collector();
  const splitter = new FrameSplitter();
  for (const [i, byte] of bytes.entries()) {
    expect(seen).toEqual([]);
    expect(splitter.pendingBytes).toBe(i);
    expect(splitter.feed(Buffer.from([byte]), 0, sink)).toBe(1);
  }
  expect(seen).toEqual([whole('d', 'payload')]);
  expect(splitter.pendingBytes).toBe(0);
});

test('an empty frame that straddles chunks ends with its header', () => {
  const { seen, sink } = collector();
  const splitter = new FrameSplitter();
  splitter.feed(Buffer.from([0x63, 0, 0]), 0, sink);
  splitter.feed(Buffer.from([0, 4, 0x5a]), 0, sink);
  expect(seen).toEqual([whole('c', '')]);
  expect(splitter.pendingBytes).toBe(1);
});

test('a sink that stops is gone on from where it stopped', () => {
  const chunk = Buffer.concat(['a', 'b', 'c', 'd'].map((text) => frame('d', Buffer.from(text))));
  const { seen, sink } = collector([0, 2]);
  const splitter = new FrameSplitter();
  const first = splitter.feed(chunk, 0, sink);
  expect(first).toBe(6);
  const second = splitter.feed(chunk, first, sink);
  expect(second).toBe(18);
  expect(splitter.feed(chunk, second, sink)).toBe(24);
  expect(seen.map(({ payload }) => payload)).toEqual(['a', 'b', 'c', 'd']);
  expect(splitter.feed(chunk, 24, sink)).toBe(24);
});

test('a sink that stops after a frame from two chunks is gone on from in the second', () => {
  const chunk = Buffer.concat([frame('d', Buffer.from('one')), frame('d', Buffer.from('two'))]);
  const { seen, sink } = collector([0]);
  const splitter = new FrameSplitter();
  splitter.feed(chunk.subarray(0, 3), 0, sink);
  const rest = chunk.subarray(3);
  const at = splitter.feed(rest, 0, sink);
  expect(at).toBe(5);
  splitter.feed(rest, at, sink);
  expect(seen).toEqual([whole('d', 'one'), whole('d', 'two')]);
});

test('a giant that straddles chunks comes in pieces that are views of them; a frame a byte smaller is put together', () => {
  for (const payloadBytes of [GIANT_FRAME_BYTES_MIN - 1, GIANT_FRAME_BYTES_MIN]) {
    const payload = Buffer.alloc(payloadBytes, 'sluice');
    const bytes = Buffer.concat([frame('d', payload), frame('c', Buffer.alloc(0))]);
    const cuts = [0, 5, 70_000, 700_001, bytes.length];
    const { seen, sink } = collector();
    const splitter = new FrameSplitter();
    for (const [i, from] of cuts.slice(0, -1).entries()) {
      const chunk = bytes.subarray(from, cuts[i + 1]);
      expect(splitter.feed(chunk, 0, sink)).toBe(chunk.length);
    }
    expect(seen.map(({ type, pieces }) => [type, pieces])).toEqual([
      ['d', payloadBytes === GIANT_FRAME_BYTES_MIN ? 3 : null],
      ['c', null],
    ]);
    expect(seen[0]?.payload).toBe(payload.toString('latin1'));
    expect(splitter.pendingBytes).toBe(0);
  }
});

describe('a length that cannot be right', () => {
  const cases: [string, Buffer][] = [
    ['0', Buffer.concat([Buffer.from('d'), uint32(0)])],
    ['3: less than itself', Buffer.concat([Buffer.from('d'), uint32(3)])],
    ['more than a server can send', Buffer.concat([Buffer.from('d'), uint32(0x40000001)])],
    ['the greatest', Buffer.concat([Buffer.from('d'), uint32(0xffffffff)])],
  ];
  test.each(cases)('%s is a RangeError, however it arrives, and stays one', (_name, bytes) => {
    const { seen, sink } = collector();
    const atOnce = new FrameSplitter();
    expect(() => atOnce.feed(bytes, 0, sink)).toThrow(RangeError);
    const byByte = new FrameSplitter();
    for (const byte of bytes.subarray(0, 4)) byByte.feed(Buffer.from([byte]), 0, sink);
    expect(() => byByte.feed(bytes.subarray(4), 0, sink)).toThrow(RangeError);
    expect(() => byByte.feed(Buffer.from('more'), 0, sink)).toThrow(RangeError);
    expect(seen).toEqual([]);
  });

  test('the greatest length that may be is waited for', () => {
    const splitter = new FrameSplitter();
    const { seen, sink } = collector();
    splitter.feed(Buffer.concat([Buffer.from('d'), uint32(0x40000000)]), 0, sink);
    expect(seen).toEqual([]);
    expect(splitter.pendingBytes).toBe(5);
  });
});

test('the copy messages are told by their first byte and have LSNs of 64 unsigned bits', () => {
  const far = 0xfffffffffffffffen;
  const data = xlogData(Buffer.from('x'), 1n, far);
  expect(String.fromCharCode(data[5] ?? 0)).toBe('w');
  expect(readLsn(data, 14)).toBe(far);
  const alive = keepalive(far, true);
  expect(String.fromCharCode(alive[5] ?? 0)).toBe('k');
  expect(readLsn(alive, 6)).toBe(far);
  expect(alive[22]).toBe(1);
  expect(alive.length).toBe(5 + 18);
});

describe('what we send', () => {
  test('a query is its text in UTF-8, with a zero byte', () => {
    const bytes = queryFrame('SELECT ü');
    expect(bytes.toString('latin1', 0, 1)).toBe('Q');
    expect(bytes.readUInt32BE(1)).toBe(bytes.length - 1);
    expect(bytes.toString('utf8', 5, bytes.length - 1)).toBe('SELECT ü');
    expect(bytes.at(-1)).toBe(0);
  });

  test('CopyDone and Terminate are their header alone', () => {
    expect([...copyDoneFrame()]).toEqual([0x63, 0, 0, 0, 4]);
    expect([...terminateFrame()]).toEqual([0x58, 0, 0, 0, 4]);
  });

  test.each([
    ['0/0', LSN_ZERO, false],
    ['an LSN past 2^63', parseLsn('FFFFFFFF/FFFFFFFE'), true],
  ])('a status says thrice that all is durable up to %s', (_name, lsn, reply) => {
    const bytes = statusFrame(lsn, POSTGRES_EPOCH_MS + 1_234.9, reply);
    expect(bytes.length).toBe(39);
    expect(bytes.subarray(0, 6)).toEqual(Buffer.from([FRAME.copyData, 0, 0, 0, 38, 0x72]));
    for (const at of [6, 14, 22]) expect(readLsn(bytes, at)).toBe(lsn);
    expect(bytes.readBigInt64BE(30)).toBe(1_234_000n);
    expect(bytes[38]).toBe(reply ? 1 : 0);
  });

  test("PostgreSQL's epoch is the first second of 2000", () => {
    expect(new Date(POSTGRES_EPOCH_MS).toISOString()).toBe('2000-01-01T00:00:00.000Z');
  });
});

describe('fields of an error', () => {
  const fields = (text: string): Record<string, string> => {
    const bytes = Buffer.from(`<${text}>`);
    return Object.fromEntries(errorFields(bytes, 1, bytes.length - 1));
  };
  test('by their letters', () => {
    expect(fields('SERROR\0C55006\0Mreplication slot "ü" is active for PID 7\0\0')).toEqual({
      S: 'ERROR',
      C: '55006',
      M: 'replication slot "ü" is active for PID 7',
    });
  });
  test('what is cut off, or empty, is left out', () => {
    expect(fields('C55006\0Mreplica')).toEqual({ C: '55006' });
    expect(fields('')).toEqual({});
    expect(fields('\0')).toEqual({});
    expect(fields('M\0\0')).toEqual({ M: '' });
  });
});

test('readLsn reads all 64 bits', () => {
  for (const lsn of [0n, 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    expect(readLsn(uint64(lsn), 0)).toBe(lsnOf(lsn));
  }
});
