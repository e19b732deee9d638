/**
 * Goal: a table follows the shape of its segments as far as it can, and says so where it cannot.
 * Method: segments of other shapes are applied to a loaded table.
 */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { loadedStream, TWO_COLUMNS as SHAPE, upsertOf as upsert } from '../support/loaded-stream.ts';
import {
  applyCut,
  connectionsLeft,
  rowsOf,
  streamOf,
  synchronise,
  type TargetFor,
  targetOn,
} from '../support/loading.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

beforeAll(async () => {
  server = await startPostgres();
  client = await server.connect();
});
afterEach(async () => {
  expect(await connectionsLeft(client)).toBe(0);
});
afterAll(async () => {
  await server.stop();
});

let tables = 0;

const streamWith = (lines: readonly Line[], options?: TargetFor) => loadedStream(server, lines, options);

describe('a shape', () => {
  const GROWN = shapeOf({ id: 'int4', n: [1700, ((6 << 16) | 2) + 4], a: 'text', z: [16_999, -1] }, ['id']);

  test('with more columns: the table gets them, and the row says so', async () => {
    const { table, stream, target } = await streamWith([['1', 'a1']]);
    const grown = segmentOf({ shape: GROWN, blocks: [{ kind: 'upsert', lines: [['2', '1.50', 'a2', 'z2']] }] });
    await applyCut(target, stream, [upsert(['3', 'a3']), grown, segmentOf({ shape: GROWN, operation: 'changes' })]);
    expect(await rowsOf(client, table, 'id, a, n, z')).toEqual(
      [
        ['2', 'a2', '1.50', 'z2'],
        ['3', 'a3', null, null],
        ['1', 'a1', null, null],
      ].sort((x, y) => Number(x[0]) - Number(y[0])),
    );
    const row = await target.transaction(stream, (tx) => Promise.resolve(tx.row));
    expect(row?.shape.columns.map(({ name }) => name)).toEqual(['id', 'a', 'n', 'z']);
    expect(row?.shape.key).toEqual([0]);
  });

  test('with fewer columns: those that are there are kept, and carried along by a change of key', async () => {
    const { table, stream, target } = await streamWith([['1', 'a1']]);
    await applyCut(target, stream, [
      segmentOf({ shape: GROWN, blocks: [{ kind: 'upsert', lines: [['2', '1.50', 'a2', 'z2']] }] }),
    ]);
    const fewer = shapeOf({ id: 'int4', a: 'text' }, ['id']);
    await applyCut(target, stream, [
      segmentOf({
        shape: fewer,
        blocks: [
          { kind: 'rekey', columns: ['id'], lines: [['2', '20']] },
          { kind: 'delete', lines: [['2', '2026-01-01 00:00:00+00']] },
          { kind: 'upsert', lines: [['1', 'new']] },
        ],
      }),
    ]);
    expect(await rowsOf(client, table, 'id, a, n, z')).toEqual([
      ['1', 'new', null, null],
      ['20', 'a2', '1.50', 'z2'],
    ]);
  });

  test.each([
    ['another type', shapeOf({ id: 'int4', a: 'varchar' }, ['id']), 'column a'],
    ['another modifier', shapeOf({ id: 'int4', a: [25, 10] }, ['id']), 'modifier 10'],
    ['another key', shapeOf({ id: 'int4', a: 'text' }, ['a']), 'its key was (id) and is (a)'],
    ['a longer key', shapeOf({ id: 'int4', a: 'text' }, ['id', 'a']), 'its key was (id) and is (id, a)'],
  ])('with %s: SHAPE_CHANGED, and nothing is done', async (_what, shape, text) => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const changed = segmentOf({ shape, blocks: [{ kind: 'upsert', lines: [['2', 'b']] }] });
    await expect(applyCut(target, stream, [changed])).rejects.toMatchObject({
      code: 'SHAPE_CHANGED',
      disposition: 'halt',
      message: expect.stringContaining(text),
    });
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
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

    const grown = await streamWith([]);
    await expect(
      applyCut(grown.target, grown.stream, [
        segmentOf({ shape: shapeOf({ id: 'int4', a: 'text', _sdc_batched_at: 'text' }, ['id']) }),
      ]),
    ).rejects.toMatchObject({ code: 'METADATA_COLUMN_TAKEN' });
  });
});
