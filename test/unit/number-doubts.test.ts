/** Numbers that wal2json prints as null: what is asked of the source, when, and by which key; whatever happens to the row or its table before. */
import { describe, expect, test } from 'vitest';
import type { SpecialNumbersQuery } from '../../lib/ports.ts';
import { expectedTuple, type Row, UNCHANGED } from '../support/pgoutput.ts';
import { catalogOf, change1, change2, type Decoding, decoding, type PrintedColumn } from '../support/wal2json.ts';

const T = { schema: 'public', table: 't' };
const ID: PrintedColumn = { name: 'id', type: 'integer', type_oid: 23, number: 1 };
const V: PrintedColumn = { name: 'v', type: 'text', type_oid: 25, number: 2 };
const N: PrintedColumn = { name: 'n', type: 'numeric', type_oid: 1700, number: 3 };
const LATE: PrintedColumn = { name: 'late', type: 'date', type_oid: 1082, number: 4 };
const COLUMNS = [ID, V, N];
/** Rows in doubt at one time. */
const ROWS_MAX = 4_500;
const text = (row: Row) => expectedTuple(row);

/** A value left out: unchanged. */
const of = (columns: readonly PrintedColumn[], ...values: readonly (string | null | undefined)[]): PrintedColumn[] =>
  columns.map((column, i) => (values[i] === undefined ? column : { ...column, value: values[i] }));

interface Asking extends Decoding {
  readonly queries: SpecialNumbersQuery[];
  /** What was told of what was found. */
  readonly told: () => unknown[];
}

/** Every row that is asked for has NaN in every column. */
function asking(
  format: 1 | 2,
  key: readonly string[],
  more: Parameters<typeof catalogOf>[2] = {},
  later = catalogOf(COLUMNS, key, more),
): Asking {
  const queries: SpecialNumbersQuery[] = [];
  const lookUp = (query: SpecialNumbersQuery) => {
    queries.push(query);
    return Promise.resolve(query.rows.map((_, row) => ({ row, values: query.columns.map(() => 'NaN') })));
  };
  const made = decoding(format, [catalogOf(COLUMNS, key, more)], [later], false, { lookUp, rows_max: ROWS_MAX });
  const told = (): unknown[] => made.calls.filter((call) => call.call === 'update' && call.image === 'none');
  return { ...made, queries, told };
}

const insert = (format: 1 | 2, row: readonly PrintedColumn[]) =>
  format === 2 ? change2('I', T, { row }) : change1('insert', T, { row });
const update = (format: 1 | 2, row: readonly PrintedColumn[], old: readonly PrintedColumn[]) =>
  format === 2 ? change2('U', T, { row, old }) : change1('update', T, { row, old });
const remove = (format: 1 | 2, old: readonly PrintedColumn[]) =>
  format === 2 ? change2('D', T, { old }) : change1('delete', T, { old });

describe.each([1, 2] as const)('format %i', (format) => {
  test('rows in doubt are settled under the description that they came by, before another one is told', async () => {
    const { feed, decoder, calls, queries } = asking(format, ['id']);
    await feed(insert(format, of(COLUMNS, '1', 'a', 'NaN')), insert(format, of(COLUMNS, '2', 'b', '7')));
    expect(queries).toEqual([]);
    const wider = [...COLUMNS, LATE];
    await feed(insert(format, of(wider, '3', 'c', 'NaN', '2001-02-03')));
    await decoder.settle();
    expect(queries).toMatchObject([
      { key: [1], columns: [3], rows: [['1']] },
      { key: [1], columns: [3], rows: [['3']] },
    ]);
    expect(calls).toMatchObject([
      { call: 'relation' },
      { call: 'insert', row: text(['1', 'a', null]) },
      { call: 'insert', row: text(['2', 'b', '7']) },
      { call: 'update', row: text(['1', UNCHANGED, 'NaN']) },
      { call: 'relation' },
      { call: 'insert', row: text(['3', 'c', null, '2001-02-03']) },
      { call: 'update', row: text(['3', UNCHANGED, 'NaN', UNCHANGED]) },
    ]);
  });

  test('a row that lacks a column tells of another description as well', async () => {
    const { feed, decoder, queries, calls } = asking(format, ['id']);
    await feed(insert(format, of(COLUMNS, '1', 'a', 'NaN')), insert(format, of([ID, N], '2', 'NaN')));
    await decoder.settle();
    expect(queries.map(({ rows }) => rows)).toEqual([[['1']], [['2']]]);
    expect(calls.map(({ call }) => call)).toEqual(['relation', 'insert', 'update', 'relation', 'insert', 'update']);
  });

  test('rows in doubt are settled before something else identifies them', async () => {
    const later = catalogOf(COLUMNS, ['v'], { replica_identity: 'i' });
    const { feed, decoder, queries } = asking(format, ['id'], {}, later);
    await feed(insert(format, of(COLUMNS, '1', 'a', 'NaN')));
    // Of another row: v identifies it.
    await feed(remove(format, of([V], 'b')), insert(format, of(COLUMNS, '2', 'c', 'NaN')));
    await decoder.settle();
    expect(queries).toMatchObject([
      { key: [1], rows: [['1']] },
      { key: [2], rows: [['c']] },
    ]);
  });

  test.each(['d', 'f'])(
    'a row that goes to another key is asked for there only (replica identity %s)',
    async (identity) => {
      const { feed, decoder, queries } = asking(format, ['id'], { replica_identity: identity });
      const old = (...values: (string | null)[]) => of(identity === 'f' ? COLUMNS : [ID], ...values);
      await feed(insert(format, of(COLUMNS, '1', 'a', 'NaN')));
      await feed(update(format, of(COLUMNS, '9', undefined, 'NaN'), old('1', 'a', 'NaN')));
      await decoder.settle();
      expect(queries.map(({ rows }) => rows)).toEqual([[['9']]]);
    },
  );

  test('a row that is deleted, or has a number by now, is not asked for', async () => {
    const { feed, decoder, queries } = asking(format, ['id']);
    await feed(
      insert(format, of(COLUMNS, '1', 'a', 'NaN')),
      insert(format, of(COLUMNS, '2', 'a', 'NaN')),
      insert(format, of(COLUMNS, '3', 'a', 'NaN')),
      remove(format, of([ID], '1')),
      update(format, of(COLUMNS, '2', undefined, '5'), of([ID], '2')),
    );
    await decoder.settle();
    await decoder.settle();
    expect(queries.map(({ rows }) => rows)).toEqual([[['3']]]);
  });

  test('a key that an update leaves out is that of the old row', async () => {
    const { feed, decoder, queries } = asking(format, ['v']);
    const key = 'k'.repeat(3000);
    await feed(
      insert(format, of(COLUMNS, '1', key, 'NaN')),
      insert(format, of(COLUMNS, '2', 'other', 'NaN')),
      update(format, of(COLUMNS, '3', undefined, '-Infinity'), of([V], key)),
    );
    await decoder.settle();
    expect(queries.map(({ rows }) => rows)).toEqual([[['other'], [key]]]);
  });
});

test('so many rows are settled before more is decoded, by queries of a bounded size', async () => {
  const { feed, queries, told } = asking(2, ['id']);
  const messages = Array.from({ length: ROWS_MAX }, (_, id) => insert(2, of([ID, N], String(id), 'NaN')));
  await feed(...messages.slice(0, -1));
  expect(queries).toEqual([]);
  await feed(...messages.slice(-1));
  expect(queries.flatMap(({ rows }) => rows.map(([id]) => Number(id)))).toEqual(messages.map((_, id) => id));
  expect(queries.map(({ rows }) => rows.length)).toEqual([2_000, 2_000, 500]);
  expect(told()).toHaveLength(ROWS_MAX);
});
