import { describe, expect, test } from 'vitest';
import { Damage, itemBytes, readFields, writeFields } from '../../lib/ledger/attributes.ts';
import { CUT_FIELDS } from '../../lib/ledger/items.ts';
import { ledgerKeys, sortable } from '../../lib/ledger/keys.ts';
import type { Cut } from '../../lib/ports.ts';
import { aCut } from '../support/ledger-nouns.ts';

describe('keys', () => {
  test('sort numbers as numbers', () => {
    const numbers = [0, 1, 9, 10, 99, 100, 2 ** 31, Number.MAX_SAFE_INTEGER];
    expect(numbers.map(sortable).toSorted()).toEqual(numbers.map(sortable));
  });

  test.each([-1, 0.5, Number.NaN, 2 ** 53])('refuse %d as a number', (number) => {
    expect(() => sortable(number)).toThrow(RangeError);
  });

  test('of different things never meet, whatever the names hold', () => {
    const keys = ledgerKeys('p');
    const all = [
      keys.epoch('a#1', 2),
      keys.epoch('a', 12),
      keys.chunk('a', 1, 'b#c', 0),
      keys.chunk('a#1', 0, 'b', 0),
      keys.chunk('a', 1, 'b%23c', 0),
      keys.bookmark('a#1'),
      keys.reject('a#1', 'b'),
      keys.reject('a', '1#b'),
      ledgerKeys('p#chain').cut(1),
      keys.cut(1),
    ].map(({ pk, sk }) => `${pk}\n${sk}`);
    expect(new Set(all).size).toBe(all.length);
  });

  test('keep the names that operators type', () => {
    const keys = ledgerKeys('shop');
    expect([keys.chain, keys.streams, keys.reports]).toEqual(['shop#chain', 'shop#streams', 'shop#reports']);
    expect(keys.cut(7)).toEqual({ pk: 'shop#chain', sk: '0000000000000007' });
  });
});

describe('items', () => {
  test('carry positions as PostgreSQL prints them, and plain attributes', () => {
    const item = writeFields<Cut>(CUT_FIELDS, aCut());
    expect(item).toMatchObject({
      number: { N: '1' },
      end_lsn: { S: '16/B374D848' },
      index: { NULL: true },
      streams: {
        M: {
          'public.t': {
            M: {
              ranges: { L: [{ N: '0' }, { N: '1000' }, { N: '1100' }, { N: '134' }] },
              changes: { N: '7' },
              text_bytes: { N: '4000' },
            },
          },
        },
      },
    });
  });

  test.each([
    ['an LSN of another spelling', { end_lsn: { S: '0x16' } }, 'end_lsn is not an LSN'],
    ['a kind of a newer version', { kind: { S: 'merge' } }, 'kind is not one of genesis, slot, changes, captures'],
    ['a number past what is safe', { number: { N: '9007199254740993' } }, 'number is not a whole number'],
    ['a number that is none', { number: { N: '' } }, 'number is not a whole number'],
    ['half a range', { index: { L: [{ N: '1' }] } }, 'index is not pairs of offset and bytes'],
    [
      'two ranges for one',
      { index: { L: [{ N: '1' }, { N: '1' }, { N: '1' }, { N: '1' }] } },
      'index is not one range',
    ],
    ['a stream without its counts', { streams: { M: { s: { M: {} } } } }, 'streams.s.changes is not a whole number'],
  ])('with %s are damaged', (_, change, message) => {
    const item = { ...writeFields<Cut>(CUT_FIELDS, aCut()), ...change };
    expect(() => readFields(CUT_FIELDS, item)).toThrow(message);
  });

  test('are refused when a count is no whole number', () => {
    expect(() => writeFields<Cut>(CUT_FIELDS, aCut({ object_bytes: Number.NaN }))).toThrow(Damage);
  });

  test('are measured as DynamoDB measures them', () => {
    expect(
      itemBytes({ pk: { S: 'shop' }, ä: { N: '12345' }, m: { M: { a: { BOOL: true } } }, l: { L: [{ NULL: true }] } }),
    ).toBe(2 + 4 + (2 + 5) + (1 + 3 + 1 + 1 + 1) + (1 + 3 + 1 + 1));
  });
});
