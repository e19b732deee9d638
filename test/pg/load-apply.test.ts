/**
 * Goal: upserts, updates, deletes and TRUNCATE do to a table what lib/stage/segment.ts says, in both delete modes.
 * Method: a stream is synchronised with a few rows, segments are applied, and the table's text is compared.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Shape } from '../../lib/shape.ts';
import {
  DELETED_AT,
  HARD,
  PLAIN,
  THREE_ROWS as ROWS,
  THREE_COLUMNS as SHAPE,
  SOFT,
  threeRows,
} from '../support/loaded-stream.ts';
import { applyCut, onLoaderServer, streamOf, type TargetFor, targetOn } from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { EXTRACTED_AT, type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const streamWith = (options: TargetFor, shape?: Shape, rows?: readonly Line[]) =>
  threeRows(server, client, options, shape, rows);

describe('insert', () => {
  const block = (...lines: Line[]) => ({ kind: 'insert', lines }) as const;

  test.each([HARD, SOFT, PLAIN])('brings rows of new keys: %o', async (options) => {
    const { apply, rows } = await streamWith(options);
    await apply({ blocks: [block(['4', 'a4', null], ['5', '', 'b5'])], extracted_at: '2026-05-06T07:08:09.000Z' });
    const columns = options === PLAIN ? 'id, a, b' : `id, a, b, ("_sdc_extracted_at" AT TIME ZONE 'UTC')::text`;
    expect((await rows(columns)).slice(3)).toEqual(
      [
        ['4', 'a4', null, '2026-05-06 07:08:09'],
        ['5', '', 'b5', '2026-05-06 07:08:09'],
      ].map((row) => (options === PLAIN ? row.slice(0, 3) : row)),
    );
  });

  test.each([HARD, SOFT, PLAIN])('replaces what the target has all the same, and goes on: %o', async (options) => {
    const { apply, rows } = await streamWith(options);
    await apply(
      { blocks: [block(['4', 'a4', 'b4'], ['2', 'new', null])] },
      {
        blocks: [
          { kind: 'delete', columns: ['id'], lines: [['1', DELETED_AT]] },
          block(['5', 'a5', 'b5'], ['4', 'again', null]),
        ],
      },
    );
    expect(await rows()).toEqual([
      ...(options === HARD ? [] : [['1', 'a1', 'b1']]),
      ['2', 'new', null],
      ['3', 'a3', 'b3'],
      ['4', 'again', null],
      ['5', 'a5', 'b5'],
    ]);
  });

  test('what another index refuses is refused, and nothing of it is there', async () => {
    const { apply, rows, table } = await streamWith(HARD);
    await client.query(`CREATE UNIQUE INDEX ON ${table.schema}.${table.table} (a)`);
    await expect(apply({ blocks: [block(['4', 'a3', 'b4'])] })).rejects.toMatchObject({ facts: { sqlstate: '23505' } });
    expect(await rows()).toHaveLength(3);
  });
});

describe('upsert', () => {
  test.each([HARD, SOFT, PLAIN])('inserts what is missing and replaces what is there: %o', async (options) => {
    const { apply, rows } = await streamWith(options);
    await apply({
      blocks: [
        {
          kind: 'upsert',
          lines: [
            ['2', 'new', null],
            ['4', '', 'b4'],
          ],
        },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'new', null],
      ['3', 'a3', 'b3'],
      ['4', '', 'b4'],
    ]);
  });

  test('a table with nothing but its key', async () => {
    const { apply, rows } = await streamWith(PLAIN, shapeOf({ id: 'int4' }, ['id']), [['1']]);
    await apply({
      blocks: [
        { kind: 'upsert', lines: [['1'], ['2']] },
        { kind: 'update', columns: ['id'], lines: [['9']] },
      ],
    });
    expect(await rows()).toEqual([['1'], ['2']]);
  });

  test('metadata columns say when the rows were read and when they were written', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [{ kind: 'upsert', lines: [['2', 'x', 'y']] }], extracted_at: '2026-05-06T07:08:09.000Z' });
    const columns = `id, ("_sdc_extracted_at" AT TIME ZONE 'UTC')::text, "_sdc_batched_at" > now() - interval '1 minute', "_sdc_deleted_at"`;
    expect(await rows(columns)).toEqual([
      ['1', '2026-01-02 03:04:05.678', 't', null],
      ['2', '2026-05-06 07:08:09', 't', null],
      ['3', '2026-01-02 03:04:05.678', 't', null],
    ]);
    expect(EXTRACTED_AT).toBe('2026-01-02T03:04:05.678Z');
  });
});

describe('delete', () => {
  test('hard: removes the rows, and leaves alone a key that is not there', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({
      blocks: [
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['77', DELETED_AT],
          ],
        },
      ],
    });
    expect(await rows('id')).toEqual([['1'], ['3']]);
  });

  test('soft: marks the rows with the time of the commit; they keep their last values', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({
      blocks: [
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['77', DELETED_AT],
          ],
        },
      ],
    });
    expect(await rows()).toEqual(ROWS);
    expect(await deleted()).toEqual([['2', '2026-01-01 00:00:00.000001']]);
  });

  test('soft: a row that was written and then deleted keeps what was written', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({
      blocks: [
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['3', DELETED_AT],
            ['4', DELETED_AT],
          ],
        },
        {
          kind: 'upsert',
          lines: [
            ['2', 'last', 'words'],
            ['4', 'short', 'life'],
          ],
        },
        { kind: 'update', columns: ['id', 'b'], lines: [['3', 'last']] },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'last', 'words'],
      ['3', 'a3', 'last'],
      ['4', 'short', 'life'],
    ]);
    expect((await deleted()).map(([id]) => id)).toEqual(['2', '3', '4']);
  });

  test.each([
    ['upsert', { kind: 'upsert', lines: [['2', 'back', 'b2']] }],
    ['update', { kind: 'update', columns: ['id', 'a'], lines: [['2', 'back']] }],
  ] as const)('soft: a row that comes back by %s is undeleted', async (_kind, block) => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({ blocks: [{ kind: 'delete', lines: [['2', DELETED_AT]] }] });
    await apply({ blocks: [block] });
    expect(await deleted()).toEqual([]);
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'back', 'b2'],
      ['3', 'a3', 'b3'],
    ]);
  });

  test('without metadata columns deletions are read and not applied', async () => {
    const { table, apply, rows } = await streamWith(PLAIN);
    const segment = segmentOf({
      shape: SHAPE,
      blocks: [
        { kind: 'delete', lines: [['2', DELETED_AT]] },
        { kind: 'upsert', lines: [['4', 'a4', 'b4']] },
      ],
    });
    await apply({ blocks: [{ kind: 'delete', lines: [['1', DELETED_AT]] }] });
    expect(await rows('id')).toEqual([['1'], ['2'], ['3']]);
    const target = targetOn(server, PLAIN);
    await applyCut(target, streamOf(table), [segment]);
    expect(await rows('id')).toEqual([['1'], ['2'], ['3'], ['4']]);
    expect(segment.finished).toEqual([0, 1]);
  });
});

describe('update', () => {
  test('writes the columns it has and leaves the others; a key that is not there is left alone', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({
      blocks: [
        {
          kind: 'update',
          columns: ['id', 'a'],
          lines: [
            ['1', 'x'],
            ['77', 'x'],
          ],
        },
        { kind: 'update', columns: ['id', 'b'], lines: [['2', null]] },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'x', 'b1'],
      ['2', 'a2', null],
      ['3', 'a3', 'b3'],
    ]);
  });

  test('many sets of columns, and the same set again in the next segment of the transaction', async () => {
    const names = ['c0', 'c1', 'c2', 'c3', 'c4'];
    const shape = shapeOf(Object.fromEntries([['id', 'int4'], ...names.map((name) => [name, 'text'])]), ['id']);
    const { apply, rows } = await streamWith(
      HARD,
      shape,
      names.map((_, i) => [`${i}`, 'v', 'v', 'v', 'v', 'v']),
    );
    const segment = (value: string) => ({
      blocks: names.map((name, i) => ({ kind: 'update' as const, columns: ['id', name], lines: [[`${i}`, value]] })),
    });
    await apply(segment('first'), segment('second'));
    expect(await rows()).toEqual(names.map((_, i) => [`${i}`, ...names.map((_, j) => (i === j ? 'second' : 'v'))]));
  });
});

describe('truncate', () => {
  const truncate = { operation: 'truncate', extracted_at: '2026-05-06T07:08:09.000Z' } as const;
  const after = { blocks: [{ kind: 'upsert', lines: [['9', 'a9', 'b9']] }] } as const;

  test('hard: empties the table at its place in the order', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [{ kind: 'upsert', lines: [['8', 'a8', 'b8']] }] }, truncate, after);
    expect(await rows('id')).toEqual([['9']]);
  });

  test('soft: marks every row that is not marked yet', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({ blocks: [{ kind: 'delete', lines: [['2', DELETED_AT]] }] });
    await apply(truncate, after);
    expect(await rows('id')).toEqual([['1'], ['2'], ['3'], ['9']]);
    expect(await deleted()).toEqual([
      ['1', '2026-05-06 07:08:09'],
      ['2', '2026-01-01 00:00:00.000001'],
      ['3', '2026-05-06 07:08:09'],
    ]);
  });

  test('soft without metadata columns, and ignore: nothing', async () => {
    for (const options of [PLAIN, { ...HARD, on_truncate: 'ignore' }, { ...SOFT, on_truncate: 'ignore' }] as const) {
      const { apply, rows } = await streamWith(options);
      await apply(truncate, after);
      expect(await rows('id')).toEqual([['1'], ['2'], ['3'], ['9']]);
    }
  });

  test('halt: an error, and nothing of the transaction is there', async () => {
    const { apply, rows } = await streamWith({ ...HARD, on_truncate: 'halt' });
    await expect(apply(after, truncate)).rejects.toMatchObject({ code: 'TRUNCATE_HALTED', disposition: 'halt' });
    expect(await rows()).toEqual(ROWS);
  });
});
