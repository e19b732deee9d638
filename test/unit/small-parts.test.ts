/** Small parts of the path: work that runs one behind, names and literals in SQL, shapes, positions in the log. */
import { describe, expect, test } from 'vitest';
import { formatLsn, LSN_ZERO, lsnBytesBetween, lsnMax, lsnOf, parseLsn } from '../../lib/lsn.ts';
import { displayName, tableKey } from '../../lib/shape.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../../lib/sql-text.ts';
import { OneBehind } from '../../lib/window/one-behind.ts';

describe('positions', () => {
  test.each([
    ['0/0', 0n],
    ['0/1', 1n],
    ['0/FFFFFFFF', 2n ** 32n - 1n],
    ['1/0', 2n ** 32n],
    ['16/B374D848', 0x16b374d848n],
    ['7FFFFFFF/FFFFFFFF', 2n ** 63n - 1n],
    ['80000000/0', 2n ** 63n],
    ['FFFFFFFF/FFFFFFFF', 2n ** 64n - 1n],
  ])('%s, both ways', (text, position) => {
    expect(parseLsn(text)).toBe(position);
    expect(formatLsn(lsnOf(position))).toBe(text);
  });

  test.each([
    ['lower case', '16/b374d848', 0x16b374d848n],
    ['leading zeros', '00000016/0000000A', 0x160000000an],
  ])('%s is read', (_how, text, position) => {
    expect(parseLsn(text)).toBe(position);
  });

  test.each([
    '',
    '/',
    '0',
    '0/',
    '/0',
    '0/0/0',
    '123456789/0',
    '0/123456789',
    'g/0',
    '-1/0',
    '0x1/0',
    ' 0/0',
    '0/0\n',
    '1_0/0',
  ])('%j is none', (text) => {
    expect(() => parseLsn(text)).toThrow(RangeError);
  });

  test('a number of 64 unsigned bits is one, and no other', () => {
    for (const position of [-1n, 2n ** 64n]) expect(() => lsnOf(position)).toThrow(RangeError);
    expect(lsnOf(0n)).toBe(LSN_ZERO);
  });

  test('they compare by position, not by text', () => {
    const [nine, ten] = [parseLsn('9/0'), parseLsn('10/0')];
    expect([lsnMax(nine, ten), lsnMax(ten, nine), lsnMax(nine, nine)]).toEqual([ten, ten, nine]);
    expect(lsnBytesBetween(nine, ten)).toBe(7 * 2 ** 32);
    expect(lsnBytesBetween(ten, nine)).toBe(0);
    expect(lsnBytesBetween(ten, ten)).toBe(0);
  });
});

describe('text of others in SQL', () => {
  test.each([
    ['name', '"name"'],
    ['Na me', '"Na me"'],
    ['"', '""""'],
    ['a"b""c', '"a""b""""c"'],
    ["it's", '"it\'s"'],
    ['back\\slash', '"back\\slash"'],
    ['new\nline;--', '"new\nline;--"'],
    ['ü😀', '"ü😀"'],
  ])('identifier %j', (name, expected) => {
    expect(quoteIdentifier(name)).toBe(expected);
  });

  test.each([
    ['', "''"],
    ['text', "'text'"],
    ["it's", "'it''s'"],
    ["''", "''''''"],
    ['\\', " E'\\\\'"],
    ["\\'", " E'\\\\'''"],
    ['"', "'\"'"],
    ['new\nline', "'new\nline'"],
    ['$1', "'$1'"],
  ])('literal %j', (value, expected) => {
    expect(quoteLiteral(value)).toBe(expected);
  });

  test('a zero byte is in neither, and a name is not empty', () => {
    for (const name of ['', '\0', 'a\0b']) expect(() => quoteIdentifier(name)).toThrow(RangeError);
    expect(() => quoteLiteral('a\0b')).toThrow(RangeError);
    // Not even in the message.
    expect(() => quoteLiteral('secret\0')).not.toThrow('secret');
  });

  test('a table is two identifiers', () => {
    expect(quoteTable({ schema: 'a.b', table: 'c"d' })).toBe('"a.b"."c""d"');
  });
});

describe('names of tables', () => {
  test('tables that are displayed alike are told apart', () => {
    const twins = [
      { schema: 'a.b', table: 'c' },
      { schema: 'a', table: 'b.c' },
    ] as const;
    expect(twins.map(displayName)).toEqual(['a.b.c', 'a.b.c']);
    expect(new Set(twins.map(tableKey)).size).toBe(2);
  });
});

describe('work that runs one behind', () => {
  test('nothing was begun: settled', async () => {
    await new OneBehind().settled();
  });

  test('it begins at once, and settled waits for its end', async () => {
    const behind = new OneBehind();
    const { promise, resolve } = Promise.withResolvers<void>();
    const seen: string[] = [];
    void behind.start(async () => {
      seen.push('begun');
      await promise;
      seen.push('ended');
    });
    const settled = behind.settled().then(() => seen.push('settled'));
    expect(seen).toEqual(['begun']);
    resolve();
    await settled;
    expect(seen).toEqual(['begun', 'ended', 'settled']);
  });

  test('a failure is met by whoever waits, again and again, and is not unhandled before', async () => {
    const behind = new OneBehind();
    void behind.start(() => Promise.reject(new Error('staging failed')));
    await new Promise((resolve) => setImmediate(resolve));
    await expect(behind.settled()).rejects.toThrow('staging failed');
    await expect(behind.settled()).rejects.toThrow('staging failed');
  });
});
