/**
 * What a stream followed, held against what is there now: followedChange and goneFault. Goal: nothing that went past the log is taken for nothing, and
 * nothing that is in the log makes a stream be copied anew.
 */
import { describe, expect, test } from 'vitest';
import type { Partition, SourceTable } from '../../lib/ports.ts';
import { followedChange, followedOf, goneFault } from '../../lib/window/followed.ts';
import { sourceTable } from '../support/source-tables.ts';

const HELD = '5.100 r7';
const unnumbered = sourceTable('public.t', { oid: 1 });
const plain = { ...unnumbered, columns: unnumbered.columns.map((column, i) => ({ ...column, number: i + 1 })) };
const partition = (oid: number, mark = 'm'): Partition => ({ oid, mark });
const root = (...partitions: Partition[]): SourceTable => ({ ...plain, kind: 'p', partitions });
/** What is found when `before` was followed and `now` is there. */
const change = (before: SourceTable, now: SourceTable, held: string | null = HELD) =>
  followedChange(followedOf(before, HELD), now, held);
const lost = (reason: string) => ({ kind: 'lost', reason: expect.stringContaining(reason) as string });

describe('a table', () => {
  test.each([
    ['as it was', plain, HELD, { kind: 'none' }],
    [
      'with other estimates and another identity',
      { ...plain, rows_estimate: 9, replica_identity: 'f' },
      HELD,
      { kind: 'none' },
    ],
    ['without its key', { ...plain, key: [] }, HELD, lost('another key, or none')],
    [
      'with a key of another name, which is the same column',
      {
        ...plain,
        key: ['renamed'],
        columns: plain.columns.map((column) => ({
          ...column,
          name: plain.key.includes(column.name) ? 'renamed' : column.name,
        })),
      },
      HELD,
      { kind: 'none' },
    ],
    ['out of the publication', plain, null, lost('not in the publication')],
    ['published another way', plain, '5.101 r7', lost('publication was altered')],
    ['another one under its name', { ...plain, oid: 2 }, HELD, lost('dropped')],
    ['made a partitioned one', root(), HELD, lost('partitioned')],
  ])('%s', (_, now, held, expected) => expect(change(plain, now, held)).toEqual(expected));

  test('that nobody has looked at before is taken as it is, if it is published', () => {
    expect(followedChange(null, plain, HELD)).toEqual({ kind: 'none' });
    expect(followedChange(null, plain, null).kind).toBe('lost');
  });
});

describe('a tree of partitions', () => {
  test.each<[string, Partition[], Partition[], unknown]>([
    ['as it was', [partition(3), partition(4)], [partition(3), partition(4)], { kind: 'none' }],
    ['still without any', [], [], { kind: 'none' }],
    ['grown from nothing', [], [partition(3)], { kind: 'grown', partitions: [3] }],
    ['grown', [partition(3)], [partition(3), partition(40)], { kind: 'grown', partitions: [40] }],
    ['with one that is gone', [partition(3), partition(4)], [partition(4)], lost('detached or dropped')],
    ['with none left', [partition(3)], [], lost('detached or dropped')],
    ['with one gone and one come', [partition(3)], [partition(4)], lost('detached or dropped')],
    ['with one of other rows', [partition(3)], [partition(3, 'n')], lost('truncated by itself')],
    ['grown, with one of other rows', [partition(3)], [partition(3, 'n'), partition(4)], lost('truncated by itself')],
  ])('%s', (_, before, now, expected) => expect(change(root(...before), root(...now))).toEqual(expected));

  test('of very many partitions is remembered in little, and every change of it counts as lost', () => {
    const many = Array.from({ length: 5_000 }, (_, i) => partition(16_384 + i, `${i}.700`));
    expect(followedOf(root(...many), HELD).partitions?.length).toBeLessThan(80);
    expect(change(root(...many), root(...many))).toEqual({ kind: 'none' });
    expect(change(root(...many), root(...many, partition(99_999))).kind).toBe('lost');
    expect(change(root(...many.slice(0, 10)), root(...many)).kind).toBe('lost');
  });

  test('of two thousand still knows each, in less than 40 KB', () => {
    const many = Array.from({ length: 2_000 }, (_, i) => partition(4_294_900_000 + i, `${i}.700`));
    expect(followedOf(root(...many.slice(1)), HELD).partitions?.length).toBeLessThan(40_000);
    expect(change(root(...many.slice(1)), root(...many))).toEqual({ kind: 'grown', partitions: [4_294_900_000] });
  });
});

describe('a table that cannot be found under its name', () => {
  const bookmark = { table: { schema: 'public', table: 't' }, followed: followedOf(plain, HELD) };
  test.each<[string, SourceTable[], string | null]>([
    ['has another name', [sourceTable('public.u', { oid: 1 })], 'TABLE_RENAMED'],
    ['is in another schema', [sourceTable('old.t', { oid: 1 })], 'TABLE_RENAMED'],
    [
      'has another name, and another has its',
      [sourceTable('public.u', { oid: 1 }), sourceTable('public.t', { oid: 2 })],
      'TABLE_RENAMED',
    ],
    ['is gone', [sourceTable('public.u', { oid: 2 })], 'TABLE_DROPPED'],
    ['was made anew, and something keeps it from being followed', [sourceTable('public.t', { oid: 2 })], null],
    ['is there, and something keeps it from being followed', [plain], null],
  ])('%s', (_, tables, code) => expect(goneFault(bookmark, tables)?.code ?? null).toBe(code));

  test('of which nothing is known says nothing', () => {
    expect(goneFault({ table: bookmark.table, followed: null }, [])).toBeNull();
    expect(goneFault({ table: bookmark.table }, [])).toBeNull();
  });
});
