/** KeyTable: keys by their bytes, numbered in the order of first sight; hashes that collide, growth, and keys that only look alike. */
import { describe, expect, test } from 'vitest';
import { KeyTable } from '../../lib/cut/key-table.ts';

const add = (table: KeyTable, key: string | Buffer): number => {
  // Not at the beginning of its buffer: as a key lies in a message.
  const bytes = Buffer.concat([Buffer.from('..'), Buffer.from(key), Buffer.from('..')]);
  return table.add(bytes, 2, bytes.length - 2);
};
const find = (table: KeyTable, key: string | Buffer): number => table.find(Buffer.from(key), 0, Buffer.byteLength(key));
const keyAt = (table: KeyTable, index: number): string =>
  table.keys.toString('latin1', table.keyStart(index), table.keyEnd(index));

/** FNV-1a and a mix, as key-table.ts says: to find keys whose whole hashes are equal. */
function hash(key: Buffer): number {
  let value = 0x811c9dc5;
  for (const byte of key) value = Math.imul(value ^ byte, 0x01000193);
  value ^= value >>> 15;
  value = Math.imul(value, 0x2c1b3c6d);
  return value ^ (value >>> 12);
}

/** Pairs of different keys of four bytes with equal hashes, by the birthday paradox. */
function collisions(count: number): (readonly [Buffer, Buffer])[] {
  const seen = new Map<number, Buffer>();
  const pairs: (readonly [Buffer, Buffer])[] = [];
  for (let i = 1; pairs.length < count; i++) {
    if (i > 2_000_000)
      throw new Error('no collision: the hash of this test is not that of the table any more, or has changed');
    const key = Buffer.alloc(4);
    key.writeUInt32BE(Math.imul(i, 0x9e3779b1) >>> 0);
    const own = hash(key);
    const other = seen.get(own);
    if (other) pairs.push([other, key]);
    else seen.set(own, key);
  }
  return pairs;
}

test('an empty table has nothing, not even the empty key', () => {
  const table = new KeyTable();
  expect([table.size, table.keyBytes, find(table, ''), find(table, 'a')]).toEqual([0, 0, -1, -1]);
});

test('keys are numbered in the order of first sight, and found again', () => {
  const table = new KeyTable();
  expect(['a', 'b', '', 'a', 'ab', 'b', ''].map((key) => add(table, key))).toEqual([0, 1, 2, 0, 3, 1, 2]);
  expect(['a', 'b', '', 'ab', 'c'].map((key) => find(table, key))).toEqual([0, 1, 2, 3, -1]);
  expect([0, 1, 2, 3].map((index) => keyAt(table, index))).toEqual(['a', 'b', '', 'ab']);
  expect(table.keyBytes).toBe(4);
});

test('keys that are beginnings of others, or the same bytes divided elsewhere, are others', () => {
  const table = new KeyTable();
  const keys = [
    '1\t12',
    '11\t2',
    '1',
    '1\t',
    '1\t1',
    '\\N',
    '\\\\N',
    '\t',
    '\t\t',
    Buffer.from([0]),
    Buffer.from([0, 0]),
  ];
  expect(keys.map((key) => add(table, key))).toEqual(keys.map((_, i) => i));
  expect(keys.map((key) => find(table, key))).toEqual(keys.map((_, i) => i));
});

describe('equal hashes', () => {
  const pairs = collisions(3);
  test.each(pairs)('%o and %o are two keys', (a, b) => {
    expect(hash(a)).toBe(hash(b));
    const table = new KeyTable();
    expect([add(table, a), find(table, b), add(table, b), add(table, a), find(table, a), find(table, b)]).toEqual([
      0, -1, 1, 0, 0, 1,
    ]);
  });

  test('also after the table has grown', () => {
    const table = new KeyTable();
    const keys = pairs.flat();
    for (const key of keys) add(table, key);
    for (let i = 0; i < 10_000; i++) add(table, `k${i}`);
    expect(keys.map((key) => find(table, key))).toEqual(keys.map((_, i) => i));
    expect(table.size).toBe(keys.length + 10_000);
  });
});

test('it grows in keys and in their bytes', () => {
  const table = new KeyTable();
  const keys = Array.from({ length: 5_000 }, (_, i) => `${i}-${'x'.repeat(i % 50)}`);
  keys.push('y'.repeat(100_000));
  for (const [i, key] of keys.entries()) expect(add(table, key)).toBe(i);
  for (const [i, key] of keys.entries()) {
    expect(find(table, key)).toBe(i);
    expect(keyAt(table, i)).toBe(key);
  }
  expect(table.keyBytes).toBe(keys.reduce((sum, key) => sum + key.length, 0));
});

test('what is added does not depend on the buffer that it came from', () => {
  const table = new KeyTable();
  const reused = Buffer.from('one');
  table.add(reused, 0, 3);
  reused.write('two');
  expect([find(table, 'one'), find(table, 'two'), table.add(reused, 0, 3)]).toEqual([0, -1, 1]);
});
