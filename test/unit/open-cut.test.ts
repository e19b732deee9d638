/**
 * OpenCut: which changes it takes, when a share or a part ends, and what a table may do to itself meanwhile. That shares mean what happened is
 * test/property/fold.test.ts's.
 */
import { describe, expect, test } from 'vitest';
import { OpenCut } from '../../lib/cut/open-cut.ts';
import { PART_TEXT_BYTES_MAX } from '../../lib/cut/part-limits.ts';
import type { Share } from '../../lib/cut/share.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { SluiceError } from '../../lib/errors.ts';
import { LSN_ZERO, lsnOf } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import * as pg from '../support/pgoutput.ts';
import { assertWellFormed } from '../support/shares.ts';

const COLUMNS = [{ name: 'id', key: true }, { name: 'v' }, { name: 'w' }];
const A = 1;
const B = 2;

function open({ hard_delete = true, due = () => false }: { hard_delete?: boolean; due?: () => boolean } = {}) {
  const streams = [
    { stream: 'a', schema: 'public', table: 'a', key: ['id'] },
    { stream: 'b', schema: 'public', table: 'b', key: ['id'] },
  ];
  const cut = new OpenCut({ streams, hard_delete, isDue: due });
  const decoder = new PgoutputDecoder(cut);
  const feed = (...messages: readonly Buffer[]): void => {
    for (const message of messages) decoder.decode(message, 0, message.length);
  };
  const feedGiant = (message: Buffer): void => decoder.decodeGiant([message.subarray(0, 9), message.subarray(9)]);
  return { cut, feed, feedGiant };
}

const describeTable = (id: number, table: string, more: Partial<pg.RelationOf> = {}): Buffer =>
  pg.relation({ id, table, columns: COLUMNS, ...more });

/** `stream kind(columns): lines` of each block. */
function told(shares: readonly Share[], hard_delete = true): string[] {
  return shares.flatMap((share) => {
    if (share.operation === 'truncate') return [`${share.stream} truncate`];
    assertWellFormed(share, hard_delete);
    return share.blocks.map(({ kind, columns, pieces }) => {
      const text = joined(pieces).toString().replaceAll('\n', '|').replaceAll('\t', ',');
      return `${share.stream} ${kind}(${columns.join()}): ${text}`;
    });
  });
}

test('tables that are not captured are passed over, and count for nothing', () => {
  const { cut, feed } = open();
  feed(pg.begin(), describeTable(9, 'other'), pg.insert(9, ['1', 'x', 'y']), pg.truncate([9]));
  feed(describeTable(8, 'a', { schema: 'elsewhere' }), pg.insert(8, ['1', 'x', 'y']), pg.commit(50n));
  expect([cut.changes, cut.hasChanges, cut.takePart(), cut.transactions, cut.end_lsn]).toEqual([0, false, [], 1, 50n]);
});

test('changes are counted as they come, whatever folding leaves of them', () => {
  const { cut, feed } = open();
  feed(pg.begin(1, 1_700_000_000_123_999n), describeTable(A, 'a'), describeTable(B, 'b'));
  feed(pg.insert(A, ['1', 'x', 'y']), pg.update(A, ['1', 'z', 'y']), pg.del(A, { key: ['1', null, null] }));
  feed(pg.insert(B, ['1', 'x', 'y']), pg.truncate([A, B]), pg.commit(7n));
  expect([cut.changes, cut.committed_at_ms]).toEqual([6, 1_700_000_000_123]);
  expect(cut.counts).toEqual(
    new Map([
      ['a', { changes: 4, text_bytes: 12 }],
      ['b', { changes: 2, text_bytes: 6 }],
    ]),
  );
  expect(told(cut.takePart())).toEqual([
    'a delete(0): 1,2023-11-14 22:13:20.123999+00|',
    'a truncate',
    'b insert(0,1,2): 1,x,y|',
    'b truncate',
  ]);
  cut.restart();
  expect([cut.changes, cut.text_bytes, cut.transactions, cut.committed_at_ms, cut.counts.size]).toEqual([
    0,
    0,
    0,
    null,
    0,
  ]);
  expect(cut.end_lsn).toBe(7n);
});

test('the next cut cannot begin before the last part was taken', () => {
  const { cut, feed } = open();
  feed(pg.begin(), describeTable(A, 'a'), pg.insert(A, ['1', 'x', 'y']), pg.commit(7n));
  expect(() => cut.restart()).toThrow(SluiceError);
  cut.takePart();
  cut.restart();
});

describe('positions', () => {
  test('a commit ends a transaction, and asks whether the cut ends too', () => {
    let due = false;
    const { cut, feed } = open({ due: () => due });
    feed(pg.begin());
    expect([cut.inTransaction, cut.end_lsn]).toEqual([true, LSN_ZERO]);
    feed(pg.commit(10n));
    expect([cut.inTransaction, cut.isDue, cut.end_lsn]).toEqual([false, false, 10n]);
    due = true;
    feed(pg.begin(), pg.commit(20n));
    expect(cut.isDue).toBe(true);
  });

  test('a keepalive moves the end between transactions, never back, never within one', () => {
    const { cut, feed } = open();
    cut.keepalive(lsnOf(30n));
    cut.keepalive(lsnOf(20n));
    expect(cut.end_lsn).toBe(30n);
    feed(pg.begin());
    cut.keepalive(lsnOf(90n));
    expect(cut.end_lsn).toBe(30n);
    feed(pg.commit(40n));
    expect(cut.end_lsn).toBe(40n);
  });
});

describe('a table that changes', () => {
  test('described again as it was, another share begins: it may be another table that looks the same', () => {
    const { cut, feed } = open();
    feed(
      describeTable(A, 'a'),
      pg.insert(A, ['1', 'x', 'y']),
      describeTable(A, 'a'),
      pg.update(A, ['1', 'z', pg.UNCHANGED]),
    );
    const shares = cut.takePart();
    expect(told(shares)).toEqual(['a insert(0,1,2): 1,x,y|', 'a update(0,1): 1,z|']);
    const [first, second] = shares.map(({ relation }) => relation);
    expect(first).toMatchObject({ oid: A, newest: false });
    expect(second).toMatchObject({ oid: A, newest: true });
    feed(pg.insert(A, ['2', 'x', 'y']));
    expect(cut.takePart().map(({ relation }) => relation)).toEqual([second]);
  });

  test.each<[string, pg.RelationOf['columns']]>([
    ['a column more', [...COLUMNS, { name: 'z' }]],
    ['another type', COLUMNS.map((column) => ({ ...column, type_oid: 23 }))],
    ['another modifier', COLUMNS.map((column) => ({ ...column, type_modifier: 9 }))],
    ['another key', COLUMNS.map((column) => ({ ...column, key: true }))],
    ['another name of a column', COLUMNS.map(({ name, ...rest }) => ({ ...rest, name: name.toUpperCase() }))],
  ])('%s: what was before is in a share of the old shape, first', (_what, columns) => {
    const { cut, feed } = open();
    const row = columns.map((_, i) => String(i));
    feed(
      describeTable(A, 'a'),
      pg.insert(A, ['0', 'x', 'y']),
      pg.relation({ id: A, table: 'a', columns }),
      pg.insert(A, row),
    );
    const shares = cut.takePart();
    expect(shares.map(({ shape }) => shape.columns.map(({ name, type_oid }) => [name, type_oid]))).toEqual([
      COLUMNS.map(({ name }) => [name, 25]),
      columns.map(({ name, type_oid }) => [name, type_oid ?? 25]),
    ]);
    expect(told(shares)).toHaveLength(2);
  });

  test('made anew under its name, it goes on after what the old one left', () => {
    const { cut, feed } = open();
    feed(
      describeTable(A, 'a'),
      pg.insert(A, ['1', 'x', 'y']),
      describeTable(77, 'a'),
      pg.insert(77, ['1', 'new', 'y']),
    );
    expect(told(cut.takePart())).toEqual(['a insert(0,1,2): 1,x,y|', 'a insert(0,1,2): 1,new,y|']);
    feed(pg.insert(77, ['2', 'x', 'y']));
    expect(told(cut.takePart())).toEqual(['a insert(0,1,2): 2,x,y|']);
  });

  test.each([
    ['a name that is not captured', 'c', []],
    ['the name of another stream', 'b', ['b insert(0,1,2): 2,x,y|']],
  ])('renamed to %s, it keeps what it did before under its old one', (_what, name, after) => {
    const { cut, feed } = open();
    feed(describeTable(A, 'a'), pg.insert(A, ['1', 'x', 'y']), describeTable(A, name), pg.insert(A, ['2', 'x', 'y']));
    expect(told(cut.takePart())).toEqual(['a insert(0,1,2): 1,x,y|', ...after]);
  });

  test.each<[string, Partial<pg.RelationOf>]>([
    ['without a key', { columns: [{ name: 'id' }, { name: 'v' }, { name: 'w' }] }],
    [
      'REPLICA IDENTITY FULL, without the column of the key',
      { identity: 'f', columns: [{ name: 'x' }, { name: 'v' }, { name: 'w' }] },
    ],
  ])('%s, it cannot be followed: a fault, and its changes are passed over', (_what, more) => {
    const { cut, feed } = open();
    feed(pg.begin(), describeTable(A, 'a'), pg.insert(A, ['1', 'x', 'y']));
    expect([...cut.faults]).toEqual([]);
    feed(describeTable(A, 'a', more), pg.insert(A, ['2', 'x', 'y']), pg.commit(5n));
    expect([...cut.faults].map(([stream, fault]) => [stream, fault.code, fault.facts.stream])).toEqual([
      ['a', 'SHAPE_CHANGED', 'public.a'],
    ]);
    expect(told(cut.takePart())).toEqual(['a insert(0,1,2): 1,x,y|']);
    expect(cut.changes).toBe(1);
  });

  test('under REPLICA IDENTITY FULL the key is that of the catalog', () => {
    const { cut, feed } = open();
    feed(
      describeTable(A, 'a', { identity: 'f' }),
      pg.update(A, ['1', pg.UNCHANGED, 'n'], { full: ['1', 'toast', 'o'] }),
    );
    const shares = cut.takePart();
    expect(shares[0]?.shape.key).toEqual([0]);
    expect(told(shares)).toEqual(['a upsert(0,1,2): 1,toast,n|']);
  });
});

describe('what the log may not say', () => {
  test.each<[string, Buffer[], RegExp]>([
    ['a relation that was not described', [pg.insert(5, ['1'])], /relation 5 was not described/],
    ['a TRUNCATE of one', [pg.truncate([5])], /relation 5/],
    [
      'more columns than the relation has',
      [describeTable(A, 'a'), pg.insert(A, ['1', 'x', 'y', 'z'])],
      /4 columns where the relation has 3/,
    ],
    ['fewer columns', [describeTable(A, 'a'), pg.del(A, { key: ['1'] })], /1 columns/],
    ['a key that is NULL', [describeTable(A, 'a'), pg.insert(A, [null, 'x', 'y'])], /no value for key column id/],
    [
      'a key that is unchanged and nowhere',
      [describeTable(A, 'a'), pg.update(A, [pg.UNCHANGED, 'x', 'y'])],
      /no value for key column id/,
    ],
  ])('%s is DECODE_FAILED', (_what, messages, reason) => {
    const { feed } = open();
    expect(() => feed(...messages)).toThrow(
      expect.objectContaining({ code: 'DECODE_FAILED', message: expect.stringMatching(reason) }),
    );
  });
});

describe('parts', () => {
  test('a part is full by its text', () => {
    const { cut, feed } = open();
    feed(describeTable(A, 'a'));
    const value = 'x'.repeat(1024 * 1024);
    for (let i = 0; !cut.partIsFull; i++) {
      expect(i * value.length).toBeLessThan(PART_TEXT_BYTES_MAX);
      feed(pg.insert(A, [String(i), value, '']));
    }
    expect(cut.text_bytes).toBeGreaterThanOrEqual(PART_TEXT_BYTES_MAX);
    const shares = cut.takePart();
    expect(cut.partIsFull).toBe(false);
    // A part may lie on its way while the next is filled.
    feed(pg.insert(A, ['next', 'y'.repeat(1000), '']));
    expect(told(shares)[0]?.endsWith(`${value},|`)).toBe(true);
    expect(told(cut.takePart())).toEqual([`a insert(0,1,2): next,${'y'.repeat(1000)},|`]);
  });

  test('a hot row is one row, and its part is full all the same when its former lines have filled it', () => {
    const { cut, feed } = open();
    feed(describeTable(A, 'a'));
    const value = 'x'.repeat(1024 * 1024);
    let updates = 0;
    for (; !cut.partIsFull; updates++) feed(pg.update(A, ['1', value, String(updates)]));
    expect(updates).toBe(PART_TEXT_BYTES_MAX / value.length);
    expect(told(cut.takePart())).toEqual([`a upsert(0,1,2): 1,${value},${updates - 1}|`]);
  });

  test('a part is full by its keys, which a deletion has without a line', () => {
    const { cut, feed } = open();
    feed(describeTable(A, 'a'));
    const message = pg.del(A, { key: ['000000', null, null] });
    const keyAt = message.indexOf('000000');
    let deletes = 0;
    for (; !cut.partIsFull && deletes <= 400_000; deletes++) {
      message.write(String(deletes).padStart(6, '0'), keyAt);
      feed(message);
    }
    expect([deletes, cut.text_bytes]).toEqual([400_000, 0]);
    cut.takePart();
    expect(cut.partIsFull).toBe(false);
  });

  test('a part is full by the text of its keys', () => {
    const { cut, feed } = open();
    feed(describeTable(A, 'a'));
    let deletes = 0;
    for (; !cut.partIsFull && deletes < 20_000; deletes++)
      feed(pg.del(A, { key: [String(deletes).padStart(2_600, 'k'), null, null] }));
    expect(deletes).toBeLessThan(13_000);
    cut.takePart();
    expect(cut.partIsFull).toBe(false);
  });

  test('a part is full by its barriers', () => {
    const { cut, feed } = open();
    feed(describeTable(A, 'a'));
    let truncates = 0;
    for (; !cut.partIsFull && truncates <= 4_000; truncates++) feed(pg.truncate([A]));
    expect(truncates).toBe(4_000);
    expect(cut.takePart()).toHaveLength(4_000);
  });

  test('a share ends when it has too many different sets of columns', () => {
    const { cut, feed } = open();
    const columns = [{ name: 'id', key: true }, ...Array.from({ length: 7 }, (_, i) => ({ name: `c${i}` }))];
    feed(pg.relation({ id: A, table: 'a', columns }));
    for (let set = 1; set < 128; set++) {
      feed(pg.update(A, [String(set), ...Array.from({ length: 7 }, (_, i) => (set & (1 << i) ? pg.UNCHANGED : 'v'))]));
    }
    const shares = cut.takePart();
    expect(shares.map(({ blocks }) => blocks.length)).toEqual([64, 63]);
    expect(told(shares)).toHaveLength(127);
  });
});

describe('rows of megabytes', () => {
  const giant = 'g\t'.repeat(40_000);
  const written = giant.replaceAll('\t', '\\t');

  test('each has a share of its own, in order', () => {
    const { cut, feed, feedGiant } = open();
    feed(describeTable(A, 'a'), pg.insert(A, ['1', 'x', 'y']));
    feedGiant(pg.update(A, ['1', giant, pg.UNCHANGED]));
    feed(pg.update(A, ['1', pg.UNCHANGED, 'z']));
    feedGiant(pg.insert(A, ['2', giant, null]));
    feed(pg.del(A, { key: ['2', null, null] }));
    expect(told(cut.takePart())).toEqual([
      'a insert(0,1,2): 1,x,y|',
      `a update(0,1): 1,${written}|`,
      'a update(0,2): 1,z|',
      `a upsert(0,1,2): 2,${written},\\N|`,
      'a delete(0): 2,1970-01-01 00:00:00.000000+00|',
    ]);
    expect(cut.counts.get('a')?.text_bytes).toBeGreaterThan(2 * giant.length);
  });

  test('one that moves without all of its values', () => {
    const { cut, feed, feedGiant } = open();
    feed(describeTable(A, 'a'), pg.update(A, ['1', 'x', 'y']));
    feedGiant(pg.update(A, ['2', giant, pg.UNCHANGED], { key: ['1', null, null] }));
    expect(told(cut.takePart())).toEqual([
      'a upsert(0,1,2): 1,x,y|',
      `a rekey(0,1): 1,2,${written}|`,
      'a delete(0): 1,1970-01-01 00:00:00.000000+00|',
    ]);
  });

  test('the old row has them where the new one leaves them out', () => {
    const { cut, feed, feedGiant } = open();
    feed(describeTable(A, 'a', { identity: 'f' }));
    for (const id of ['1', '2']) feedGiant(pg.update(A, [id, pg.UNCHANGED, 'n'], { full: [id, giant, 'o'] }));
    expect(told(cut.takePart())).toEqual([`a upsert(0,1,2): 1,${written},n|`, `a upsert(0,1,2): 2,${written},n|`]);
  });

  test('a key of that size is a key', () => {
    const { cut, feed, feedGiant } = open();
    feed(describeTable(A, 'a'));
    feedGiant(pg.insert(A, [giant, 'x', 'y']));
    feedGiant(pg.del(A, { key: [giant, null, null] }));
    feedGiant(pg.del(A, { key: [`${giant}2`, null, null] }));
    expect(told(cut.takePart())).toEqual([
      `a upsert(0,1,2): ${written},x,y|`,
      `a delete(0): ${written},1970-01-01 00:00:00.000000+00|${written}2,1970-01-01 00:00:00.000000+00|`,
    ]);
  });

  test('they fill a part', () => {
    const { cut, feed, feedGiant } = open();
    feed(describeTable(A, 'a'));
    const value = 'x'.repeat(PART_TEXT_BYTES_MAX / 4);
    for (let i = 0; i < 3; i++) feedGiant(pg.insert(A, [String(i), value, '']));
    expect(cut.partIsFull).toBe(false);
    feedGiant(pg.insert(A, ['3', value, '']));
    expect(cut.partIsFull).toBe(true);
    expect(cut.takePart()).toHaveLength(4);
    expect(cut.partIsFull).toBe(false);
  });
});
