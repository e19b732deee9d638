/**
 * pgoutput messages: each kind at the limits of its types, and each thing that can be wrong with one. Divided streams and random damage are
 * test/property/decoder.test.ts's.
 */
import { describe, expect, test } from 'vitest';
import { TUPLE_COLUMNS_MAX } from '../../lib/change.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { SluiceError } from '../../lib/errors.ts';
import * as pg from '../support/pgoutput.ts';

const UINT32_MAX = 0xffffffff;
const LSN_MAX = 0xffffffffffffffffn;

/** What one message becomes, decoded from the middle of a larger buffer. */
function decode(...messages: readonly Buffer[]): pg.Call[] {
  const { calls, sink } = pg.recorder();
  const decoder = new PgoutputDecoder(sink);
  for (const message of messages) {
    const around = Buffer.concat([Buffer.from('IIII'), message, Buffer.from('\0\0NNNN')]);
    decoder.decode(around, 4, 4 + message.length);
  }
  return calls;
}

/** As `decode`; the fault's facts where it throws one. */
function faultOf(message: Buffer): { message: unknown; offset: number; reason: unknown } {
  try {
    const calls = decode(message);
    throw new Error(
      `decoded as ${JSON.stringify(calls, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}`,
    );
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    expect(error.code).toBe('DECODE_FAILED');
    return { message: error.facts.message, offset: Number(error.facts.offset), reason: error.facts.reason };
  }
}

const wide = Array.from({ length: TUPLE_COLUMNS_MAX }, (_, i) =>
  i % 3 === 0 ? `value ${i}` : i % 3 === 1 ? null : pg.UNCHANGED,
);
const odd: pg.Row = ['', null, pg.UNCHANGED, '\\N', '\0', '\t\n\r\\', 'ü😀', Buffer.from([0, 255, 254])];

describe('at the limits of its types', () => {
  test.each([
    [0, 0n],
    [1, 1_700_000_000_123_456n],
    [0x80000000, -1n],
    [UINT32_MAX, BigInt(Date.UTC(2000, 0, 1)) * 1000n],
    // Exact as long as microseconds fit a double: until 2255.
    [7, BigInt(Date.UTC(2255, 0, 1)) * 1000n + 999_999n],
  ])('begin of transaction %i at %i', (xid, at_us) => {
    expect(decode(pg.begin(xid, at_us, LSN_MAX))).toEqual([{ call: 'begin', xid, committed_at_us: Number(at_us) }]);
  });

  test.each([0n, 1n, 2n ** 32n, 2n ** 63n - 1n, 2n ** 63n, LSN_MAX])('commit that ends at %i', (end_lsn) => {
    // The other position in it, the commit record's own, is another.
    expect(decode(pg.commit(end_lsn, 5n, 3n))).toEqual([{ call: 'commit', end_lsn }]);
  });

  test('a relation with unsigned ids, signed modifiers, and a namespace that is left empty for pg_catalog', () => {
    const columns = [
      { name: 'id', key: true, type_oid: UINT32_MAX, type_modifier: -2147483648 },
      { name: 'weird "näme"\t', type_oid: 0x80000000, type_modifier: -1 },
      { name: 'n', type_oid: 1700, type_modifier: 2147483647 },
    ];
    expect(decode(pg.relation({ id: UINT32_MAX, schema: '', table: 'T.a b', identity: 'i', columns }))).toEqual([
      {
        call: 'relation',
        relation: {
          id: UINT32_MAX,
          schema: 'pg_catalog',
          table: 'T.a b',
          replica_identity: 'i',
          columns: columns.map(({ name, type_oid, type_modifier, key }) => ({
            name,
            type_oid,
            type_modifier,
            identity: key ?? false,
          })),
        },
      },
    ]);
  });

  test.each([0, 1, TUPLE_COLUMNS_MAX])('a relation of %i columns', (count) => {
    const columns = Array.from({ length: count }, (_, i) => ({ name: `c${i}` }));
    const [call] = decode(pg.relation({ id: 1, columns }));
    expect(call?.call === 'relation' && call.relation.columns.map(({ name }) => name)).toEqual(
      columns.map(({ name }) => name),
    );
  });

  test('only the lowest flag of a column says that it identifies', () => {
    const message = pg.relation({ id: 1, columns: [{ name: 'a', key: true }] });
    const flagAt = message.indexOf(Buffer.from('\0\x01\x01a\0')) + 2;
    for (const [flags, identity] of [
      [0xff, true],
      [0xfe, false],
    ] as const) {
      message[flagAt] = flags;
      const [call] = decode(message);
      expect(call?.call === 'relation' && call.relation.columns[0]?.identity).toBe(identity);
    }
  });

  test.each([
    ['the empty string, NULL, unchanged, and bytes that mean something elsewhere', odd],
    ['as many columns as a tuple can have', wide],
    ['no columns', []],
  ])('a row with %s', (_name, row) => {
    const id = 0x80000001;
    expect(decode(pg.insert(id, row))).toEqual([{ call: 'insert', id, row: pg.expectedTuple(row) }]);
    expect(decode(pg.update(id, row))).toEqual([
      { call: 'update', id, image: 'none', old: null, row: pg.expectedTuple(row) },
    ]);
  });

  test('an update with the old key, and one with the old row', () => {
    const old: pg.Row = ['7', null, null];
    const row: pg.Row = ['8', 'x', pg.UNCHANGED];
    const expected = { call: 'update', id: 9, old: pg.expectedTuple(old), row: pg.expectedTuple(row) };
    expect(decode(pg.update(9, row, { key: old }))).toEqual([{ ...expected, image: 'key' }]);
    expect(decode(pg.update(9, row, { full: old }))).toEqual([{ ...expected, image: 'full' }]);
  });

  test('a deletion by key, and one with the old row', () => {
    const expected = { call: 'delete', id: UINT32_MAX, old: pg.expectedTuple(odd) };
    expect(decode(pg.del(UINT32_MAX, { key: odd }))).toEqual([{ ...expected, image: 'key' }]);
    expect(decode(pg.del(UINT32_MAX, { full: odd }))).toEqual([{ ...expected, image: 'full' }]);
  });

  test.each([[[]], [[1]], [[UINT32_MAX, 0, 0x80000000]], [Array.from({ length: 5000 }, (_, i) => i)]])(
    'a TRUNCATE of several tables, whatever its options',
    (ids) => {
      for (const options of [0, 1, 2, 3])
        expect(decode(pg.truncate(ids, options))).toEqual([{ call: 'truncate', ids }]);
    },
  );

  test.each([
    ['type', pg.type(UINT32_MAX, '', 'mood')],
    ['origin', pg.origin(LSN_MAX, 'node\tä')],
    ['message', pg.message('prefix', Buffer.alloc(3000, 7), false, LSN_MAX)],
    ['message without content', pg.message('', Buffer.alloc(0))],
  ])('%s is passed over', (_name, message) => {
    expect(decode(message, pg.commit(1n))).toEqual([{ call: 'commit', end_lsn: 1n }]);
  });

  test('the buffers of one row are used for the next', () => {
    const rows: pg.Row[] = [['a', 'long value', null], ['b'], [pg.UNCHANGED, '', 'x']];
    expect(decode(...rows.map((row) => pg.insert(1, row)))).toEqual(
      rows.map((row) => ({ call: 'insert', id: 1, row: pg.expectedTuple(row) })),
    );
  });
});

const columns = [{ name: 'id', key: true }, { name: 'v' }];
const MESSAGES: Readonly<Record<string, Buffer>> = {
  begin: pg.begin(1, 2n, 3n),
  commit: pg.commit(1n, 2n, 3n),
  relation: pg.relation({ id: 1, columns }),
  insert: pg.insert(1, odd),
  update: pg.update(1, odd),
  'update with old key': pg.update(1, odd, { key: ['1', null] }),
  'update with old row': pg.update(1, odd, { full: odd }),
  'delete by key': pg.del(1, { key: ['1', null] }),
  'delete with old row': pg.del(1, { full: odd }),
  truncate: pg.truncate([1, 2, 3]),
  type: pg.type(1, 'public', 'mood'),
  origin: pg.origin(1n, 'node'),
  message: pg.message('prefix', Buffer.from('content')),
};

describe('malformed', () => {
  test.each(Object.entries(MESSAGES))('%s, cut off at every byte', (name, message) => {
    let before = 0;
    for (let bytes = 0; bytes < message.length; bytes++) {
      const { offset, message: told } = faultOf(message.subarray(0, bytes));
      expect(told).toBe(bytes === 0 ? 'empty' : name.split(' ')[0]);
      // The field that is not there: never past the end, and never going back as more of the message is there.
      expect(offset).toBeLessThanOrEqual(bytes);
      expect(offset).toBeGreaterThanOrEqual(before);
      before = offset;
    }
    expect(decode(message).length).toBeLessThanOrEqual(1);
  });

  test.each(Object.entries(MESSAGES))('%s, with a byte too many', (_name, message) => {
    const { offset } = faultOf(Buffer.concat([message, Buffer.from([0])]));
    expect(offset).toBeGreaterThan(0);
    expect(offset).toBeLessThanOrEqual(message.length);
  });

  /** The bytes of an insert up to its first column. */
  const insertHead = (count: number): Buffer =>
    Buffer.concat([Buffer.from('I'), pg.uint32(1), Buffer.from('N'), pg.int16(count)]);
  const relationHead = (count: number): Buffer =>
    Buffer.concat([Buffer.from('R'), pg.uint32(1), Buffer.from('s\0t\0d'), pg.int16(count)]);
  const cases: [string, Buffer, number, RegExp][] = [
    ['a negative count of columns', insertHead(-1), 8, /-1 columns/],
    ['the least count of columns', insertHead(-32768), 8, /-32768 columns/],
    ['a column more than there can be', insertHead(TUPLE_COLUMNS_MAX + 1), 8, /1665 columns/],
    ['a negative count in a relation', relationHead(-1), 12, /-1 columns/],
    ['a column more in a relation', relationHead(TUPLE_COLUMNS_MAX + 1), 12, /1665 columns/],
    [
      'a value whose length is all ones',
      Buffer.concat([insertHead(1), Buffer.from('t'), pg.uint32(UINT32_MAX), Buffer.from('abc')]),
      13,
      /4294967295 bytes/,
    ],
    [
      'a value one byte longer than what is left',
      Buffer.concat([insertHead(1), Buffer.from('t'), pg.uint32(4), Buffer.from('abc')]),
      13,
      /4 bytes/,
    ],
    [
      'a second value whose length is beyond the end',
      Buffer.concat([insertHead(2), Buffer.from('nt'), Buffer.from([0, 0])]),
      10,
      /length beyond the end/,
    ],
    ['a binary value', Buffer.concat([insertHead(1), Buffer.from('b'), pg.uint32(0)]), 9, /kind 98/],
    ['an unknown kind of column', Buffer.concat([insertHead(1), Buffer.from('x')]), 9, /kind 120/],
    ['an insert of an old image', pg.insert(1, ['1']).fill('K', 5, 6), 6, /image of type 75/],
    ['an update of an unknown image', pg.update(1, ['1']).fill('X', 5, 6), 6, /image of type 88/],
    ['a delete of a new image', pg.del(1, { key: ['1'] }).fill('N', 5, 6), 6, /image of type 78/],
    [
      'an update whose second image is old too',
      pg.update(1, [null], { key: [null] }).fill('K', 9, 10),
      10,
      /image of type 75/,
    ],
    ['a TRUNCATE of more relations than it names', pg.truncate([1]).fill(255, 1, 5), 6, /4294967295 relations/],
    [
      'a TRUNCATE of fewer relations than it names',
      pg.truncate([1, 2]).fill(Buffer.from([0, 0, 0, 1]), 1, 5),
      6,
      /1 relations/,
    ],
    ['a message longer than it is', pg.message('p', Buffer.from('x')).fill(255, 12, 16), 16, /4294967295 bytes/],
    [
      'a name without its zero byte',
      Buffer.concat([Buffer.from('O'), pg.uint64(1n), Buffer.from('name')]),
      9,
      /without an end/,
    ],
  ];
  test.each(cases)('%s', (_name, message, offset, reason) => {
    const fault = faultOf(message);
    expect(fault.reason).toMatch(reason);
    expect(fault.offset).toBe(offset);
  });

  test('every other letter is unknown', () => {
    const known = new Set('BCORYIUDTM'.split('').map((letter) => letter.charCodeAt(0)));
    for (let letter = 0; letter < 256; letter++) {
      if (known.has(letter)) continue;
      const fault = faultOf(Buffer.concat([Buffer.from([letter]), pg.insert(1, ['1'])]));
      expect(fault).toMatchObject({ message: 'foreign', offset: 1 });
      expect(fault.reason).toContain(String(letter));
    }
  });

  test('a decoder that has failed decodes the next message', () => {
    const { calls, sink } = pg.recorder();
    const decoder = new PgoutputDecoder(sink);
    const bad = insertHead(2);
    expect(() => decoder.decode(bad, 0, bad.length)).toThrow(SluiceError);
    const good = pg.insert(1, ['a']);
    decoder.decode(good, 0, good.length);
    expect(calls).toEqual([{ call: 'insert', id: 1, row: pg.expectedTuple(['a']) }]);
  });
});
