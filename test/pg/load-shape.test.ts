/**
 * Goal: a table follows the shape of its segments as far as it can, and says so where it cannot.
 * Method: segments of other shapes are applied to a loaded table.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Column, Shape, TableName } from '../../lib/shape.ts';
import { quoteTable } from '../../lib/sql-text.ts';
import { loadedStream, TWO_COLUMNS as SHAPE, upsertOf as upsert } from '../support/loaded-stream.ts';
import {
  applyCut,
  onLoaderServer,
  rowsOf,
  streamOf,
  synchronise,
  type TargetFor,
  targetOn,
} from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

let tables = 0;

const streamWith = (lines: readonly Line[], options?: TargetFor) => loadedStream(server, lines, options);

/** `shape` as the catalog has it: columns numbered in order, those of `gone` after them and dropped. */
function described(
  shape: Shape,
  {
    filenode = 'f1',
    missing = {},
    dropped = [],
  }: { filenode?: string; missing?: Readonly<Record<string, string>>; dropped?: readonly number[] } = {},
) {
  const live = shape.columns.map((column, i) => ({
    ...column,
    number: column.number ?? i + 1,
    dropped: false,
    generated: '' as const,
    missing: missing[column.name] ?? null,
  }));
  const gone = dropped.map((number) => ({
    name: `gone ${number}`,
    type_oid: 0,
    type_modifier: -1,
    number,
    dropped: true,
    generated: '' as const,
    missing: null,
  }));
  const columns = [...live, ...gone].sort((a, b) => a.number - b.number);
  return { oid: 16_400, filenode, columns, current: true };
}

describe('a shape', () => {
  const BEFORE: Shape = { ...shapeOf({ id: 'int4', a: 'text' }, ['id']), filenode: 'f1' };
  const GROWN = shapeOf({ id: 'int4', a: 'text', n: [1700, ((6 << 16) | 2) + 4], z: [16_999, -1] }, ['id']);

  const streamOfShape = async (lines: readonly Line[], options?: TargetFor) => {
    const loaded = await loadedStream(server, lines, options, BEFORE);
    await applyCut(loaded.target, loaded.stream, []); // It has caught up with its copy.
    return loaded;
  };
  const columnsOf = async (table: TableName): Promise<string[]> => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT attname || ' ' || format_type(atttypid, atttypmod) AS name FROM pg_attribute
        WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname !~ '^_sdc_' ORDER BY attnum`,
      [quoteTable(table)],
    );
    return rows.map(({ name }) => name);
  };

  test('with more columns: the table gets them with what older rows have, and the row says so', async () => {
    const { table, stream, target } = await streamOfShape([['1', 'a1']]);
    const grown = segmentOf({
      shape: GROWN,
      described: described(GROWN, { missing: { n: '7.00', z: "it's" }, filenode: 'other' }),
      blocks: [{ kind: 'upsert', lines: [['2', 'a2', '1.50', 'z2']] }],
    });
    await applyCut(target, stream, [upsert(['3', 'a3']), grown, segmentOf({ shape: GROWN, operation: 'changes' })]);
    expect(await rowsOf(client, table, 'id, a, n, z')).toEqual([
      ['1', 'a1', '7.00', "it's"],
      ['2', 'a2', '1.50', 'z2'],
      ['3', 'a3', '7.00', "it's"],
    ]);
    const { rowCount } = await client.query('SELECT FROM pg_attrdef WHERE adrelid = $1::regclass', [quoteTable(table)]);
    expect(rowCount).toBe(0);
    const row = await target.transaction(stream, (tx) => Promise.resolve(tx.row));
    expect(row?.shape.columns.map(({ name, number }) => [name, number])).toEqual([
      ['id', 1],
      ['a', 2],
      ['n', 3],
      ['z', 4],
    ]);
    expect(row?.shape).toMatchObject({ key: [0], filenode: 'f1' });
  });

  test('what older rows have is NULL where the file is the same, and not known where it is another', async () => {
    const { table, stream, target } = await streamOfShape([['1', 'a1']]);
    const grown = (filenode: string) =>
      segmentOf({
        shape: GROWN,
        described: described(GROWN, { filenode }),
        blocks: [{ kind: 'upsert', lines: [['2', 'a2', null, 'z2']] }],
      });
    await expect(applyCut(target, stream, [grown('f2')])).rejects.toMatchObject({
      code: 'TABLE_REWRITTEN',
      disposition: 'recopy',
      message: expect.stringContaining('column n was added'),
    });
    expect(await columnsOf(table)).toEqual(['id integer', 'a text']);
    await applyCut(target, stream, [grown('f1')]);
    expect(await rowsOf(client, table, 'id, a, n, z')).toEqual([
      ['1', 'a1', null, null],
      ['2', 'a2', null, 'z2'],
    ]);
  });

  test.each([
    ['keep', ['id integer', 'a text', 'n numeric(6,2)', 'z text']],
    ['drop', ['id integer', 'a text', 'z text']],
  ] as const)(
    'with fewer columns, on_drop_column %s: and a change of key carries along what is there',
    async (on_drop_column, expected) => {
      const { table, stream, target } = await streamOfShape([['1', 'a1']], { on_drop_column });
      await applyCut(target, stream, [
        segmentOf({
          shape: GROWN,
          described: described(GROWN),
          blocks: [{ kind: 'upsert', lines: [['2', 'a2', '1.50', 'z2']] }],
        }),
      ]);
      const fewer: Shape = { columns: [0, 1, 3].map((i) => GROWN.columns[i] as Column), key: [0] };
      const numbered = {
        ...fewer,
        columns: fewer.columns.map((column, i) => ({ ...column, number: [1, 2, 4][i] as number })),
      };
      await applyCut(target, stream, [
        segmentOf({
          shape: fewer,
          described: described(numbered, { dropped: [3] }),
          blocks: [
            { kind: 'rekey', columns: ['id'], lines: [['2', '20']] },
            { kind: 'delete', lines: [['2', '2026-01-01 00:00:00+00']] },
            { kind: 'upsert', lines: [['1', 'new', 'z1']] },
          ],
        }),
      ]);
      expect(await columnsOf(table)).toEqual(expected);
      expect(await rowsOf(client, table, 'id, a, z')).toEqual([
        ['1', 'new', 'z1'],
        ['20', 'a2', 'z2'],
      ]);
      if (on_drop_column === 'drop') return;
      expect(await rowsOf(client, table, 'id, n')).toEqual([
        ['1', null],
        ['20', '1.50'],
      ]);
      const row = await target.transaction(stream, (tx) => Promise.resolve(tx.row));
      expect(row?.shape.columns.map(({ name, number }) => [name, number])).toEqual([
        ['id', 1],
        ['a', 2],
        ['n', undefined],
        ['z', 4],
      ]);
    },
  );

  const varchar = (length: number): Shape => shapeOf({ id: 'int4', a: [1043, length + 4] }, ['id']);

  test('with another type of rows that were not written anew: in place; on_type_change halt: SHAPE_CHANGED', async () => {
    const { table, stream, target } = await streamOfShape([['1', 'a']]);
    const wider = segmentOf({
      shape: varchar(20),
      described: described(varchar(20)),
      blocks: [{ kind: 'upsert', lines: [['2', 'b']] }],
    });
    const halting = targetOn(server, { on_type_change: 'halt' });
    await expect(applyCut(halting, stream, [wider])).rejects.toMatchObject({
      code: 'SHAPE_CHANGED',
      disposition: 'halt',
    });
    expect(await columnsOf(table)).toEqual(['id integer', 'a text']);
    await applyCut(target, stream, [wider]);
    expect(await columnsOf(table)).toEqual(['id integer', 'a character varying(20)']);
    expect(await rowsOf(client, table)).toEqual([
      ['1', 'a'],
      ['2', 'b'],
    ]);
  });

  test('in one transaction before and after a change of type: each block lands as the table is by then', async () => {
    const { table, stream, target } = await streamOfShape([['1', 'a']]);
    const of = (length: number, value: string) =>
      segmentOf({
        shape: varchar(length),
        described: described(varchar(length)),
        blocks: [{ kind: 'upsert', lines: [['2', value]] }],
      });
    await applyCut(target, stream, [of(3, 'abc'), of(5, 'abcde')]);
    expect(await rowsOf(client, table)).toEqual([
      ['1', 'a'],
      ['2', 'abcde'],
    ]);
  });

  test.each([
    ['another type and file', varchar(20), 'f2', 'the type of column a'],
    ['another key', shapeOf({ id: 'int4', a: 'text' }, ['a']), 'f1', 'its key was (id) and is (a)'],
    ['a longer key', shapeOf({ id: 'int4', a: 'text' }, ['id', 'a']), 'f1', 'its key was (id) and is (id, a)'],
  ])('with %s: TABLE_REWRITTEN, and nothing is done', async (_what, shape, filenode, text) => {
    const { table, stream, target } = await streamOfShape([['1', 'a']]);
    const changed = segmentOf({
      shape,
      described: described(shape, { filenode }),
      blocks: [{ kind: 'upsert', lines: [['2', 'b']] }],
    });
    await expect(applyCut(target, stream, [upsert(['5', 'before']), changed])).rejects.toMatchObject({
      code: 'TABLE_REWRITTEN',
      disposition: 'recopy',
      message: expect.stringContaining(text),
    });
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
  });

  test('a column that something else on the target is built on: TARGET_DEPENDENTS', async () => {
    const { table, stream, target } = await streamOfShape([['1', 'a']]);
    await client.query(`CREATE VIEW loaded.built_on AS SELECT a FROM ${quoteTable(table)}`);
    const wider = segmentOf({ shape: varchar(20), described: described(varchar(20)) });
    await expect(applyCut(target, stream, [wider])).rejects.toMatchObject({ code: 'TARGET_DEPENDENTS' });
    await client.query('DROP VIEW loaded.built_on');
    await applyCut(target, stream, [wider]);
  });

  test('with the key in another order of columns', async () => {
    const target = targetOn(server);
    const table = { schema: 'tx', table: `s${++tables}` };
    const stream = streamOf(table);
    const before = shapeOf({ x: 'text', y: 'text', v: 'text', w: 'text' }, ['x', 'y']);
    await synchronise(target, stream, before, [[['1', '2', 'v', 'w']]]);
    const after = shapeOf({ y: 'text', x: 'text', v: 'text', w: 'text' }, ['x', 'y']);
    await applyCut(target, stream, [
      segmentOf({
        shape: after,
        blocks: [
          { kind: 'rekey', columns: ['y', 'x', 'v'], lines: [['2', '1', '22', '11', 'V']] },
          { kind: 'delete', lines: [['2', '1', '2026-01-01 00:00:00+00']] },
        ],
      }),
    ]);
    expect(await rowsOf(client, table)).toEqual([['11', '22', 'V', 'w']]);
  });

  test('metadata columns that are turned on later are added; turned off later, they are kept true', async () => {
    const { table, stream } = await streamWith(
      [
        ['1', 'a'],
        ['2', 'b'],
      ],
      { hard_delete: false },
    );
    const soft = targetOn(server, { hard_delete: false, add_metadata_columns: true });
    const deletion = (id: string) =>
      segmentOf({ shape: SHAPE, blocks: [{ kind: 'delete', lines: [[id, '2026-01-01 00:00:00+00']] }] });
    await applyCut(soft, stream, [deletion('1')]);
    await applyCut(targetOn(server, { hard_delete: false }), stream, [deletion('2'), upsert(['1', 'back'])]);
    expect(await rowsOf(client, table, 'id, a, "_sdc_deleted_at" IS NULL')).toEqual([
      ['1', 'back', 't'],
      ['2', 'b', 'f'],
    ]);
  });

  test('with the name of a metadata column: refused before anything is made', async () => {
    const shape = shapeOf({ id: 'int4', _sdc_deleted_at: 'timestamptz' }, ['id']);
    const stream = streamOf({ schema: 'tx', table: `s${++tables}` });
    await expect(synchronise(targetOn(server), stream, shape, [[]])).rejects.toMatchObject({
      code: 'METADATA_COLUMN_TAKEN',
    });
    await synchronise(targetOn(server, { hard_delete: false }), stream, shape, [[['1', null]]]);
    expect(await rowsOf(client, stream.target, 'id')).toEqual([['1']]);

    const grown = await streamOfShape([]);
    const taken = shapeOf({ id: 'int4', a: 'text', _sdc_batched_at: 'text' }, ['id']);
    await expect(
      applyCut(grown.target, grown.stream, [segmentOf({ shape: taken, described: described(taken) })]),
    ).rejects.toMatchObject({ code: 'METADATA_COLUMN_TAKEN' });
  });
});
