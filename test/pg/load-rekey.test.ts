/**
 * Goal: a change of key whose log lacks values does what lib/stage/segment.ts says, also where the key is only spelled anew.
 * Method: a stream is synchronised with a few rows, segments are applied, and the table's text is compared.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Shape } from '../../lib/shape.ts';
import { DELETED_AT, HARD, PLAIN, THREE_ROWS as ROWS, SOFT, threeRows } from '../support/loaded-stream.ts';
import { onLoaderServer, type TargetFor } from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const streamWith = (options: TargetFor, shape?: Shape, rows?: readonly Line[]) =>
  threeRows(server, client, options, shape, rows);

describe('rekey', () => {
  const rekey = (...lines: Line[]) => ({ kind: 'rekey' as const, columns: ['id', 'a'], lines });

  test.each([HARD, SOFT])('takes what is absent from the row of the old key: %o', async (options) => {
    const { apply, rows, deleted } = await streamWith(options);
    await apply({ blocks: [rekey(['2', '20', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    const hard = options === HARD;
    expect(await rows()).toEqual(
      [['1', 'a1', 'b1'], ...(hard ? [] : [['2', 'a2', 'b2']]), ['20', 'moved', 'b2'], ['3', 'a3', 'b3']].sort(
        (x, y) => Number(x[0]) - Number(y[0]),
      ),
    );
    if (!hard) expect((await deleted()).map(([id]) => id)).toEqual(['2']);
  });

  test('without metadata columns the row of the old key stays', async () => {
    const { apply, rows } = await streamWith(PLAIN);
    await apply({ blocks: [rekey(['2', '20', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    expect(await rows('id, b')).toEqual([
      ['1', 'b1'],
      ['2', 'b2'],
      ['3', 'b3'],
      ['20', 'b2'],
    ]);
  });

  test('a row of the new key that is there already gets what the log has and keeps the rest', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [rekey(['2', '3', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['3', 'moved', 'b3'],
    ]);
  });

  test('with the new row there, the old one need not be', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [rekey(['77', '3', 'moved']), { kind: 'delete', lines: [['77', DELETED_AT]] }] });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', 'moved', 'b3'],
    ]);
  });

  test('with neither row there, none is made: nobody knows its absent values', async () => {
    const segment = {
      blocks: [rekey(['77', '78', 'moved']), { kind: 'delete' as const, lines: [['77', DELETED_AT]] }],
    };
    const { apply, rows } = await streamWith(HARD);
    await apply(segment);
    expect(await rows()).toEqual(ROWS);
  });

  test('soft: a row that was only kept since its deletion makes way for the one that moves there', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({ blocks: [{ kind: 'delete', lines: [['3', DELETED_AT]] }] });
    await apply({ blocks: [rekey(['2', '3', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', 'moved', 'b2'],
    ]);
    expect((await deleted()).map(([id]) => id)).toEqual(['2']);
  });

  test('goes before what the same segment does to the new key', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({
      blocks: [
        rekey(['2', '20', 'moved'], ['3', '30', 'moved']),
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['3', DELETED_AT],
            ['30', DELETED_AT],
          ],
        },
        { kind: 'update', columns: ['id', 'a'], lines: [['20', 'later']] },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['20', 'later', 'b2'],
    ]);
  });

  test('composite key: either half may change', async () => {
    const shape = shapeOf({ x: 'text', v: 'text', y: 'int4', w: 'text' }, ['x', 'y']);
    const { apply, rows } = await streamWith(HARD, shape, [
      ['a,b', 'v', '1', 'w1'],
      ['a', 'v', '2', 'w2'],
    ]);
    await apply({
      blocks: [
        {
          kind: 'rekey',
          columns: ['x', 'v', 'y'],
          lines: [
            ['a,b', '1', 'a', 'V', '1'],
            ['a', '2', 'a', 'V', '22'],
          ],
        },
        {
          kind: 'delete',
          lines: [
            ['a,b', '1', DELETED_AT],
            ['a', '2', DELETED_AT],
          ],
        },
      ],
    });
    expect(await rows()).toEqual([
      ['a', 'V', '1', 'w1'],
      ['a', 'V', '22', 'w2'],
    ]);
  });
});

describe('a key that is spelled anew and equal to what it was', () => {
  const shape = shapeOf({ id: 'numeric', a: 'text', b: 'text' }, ['id']);
  const row: Line[] = [['1.0', 'a', 'b']];

  test.each([HARD, SOFT])('by a change of key with an absent value: %o', async (options) => {
    const { apply, rows, deleted } = await streamWith(options, shape, row);
    await apply({
      blocks: [
        { kind: 'rekey', columns: ['id', 'a'], lines: [['1.0', '1.00', 'moved']] },
        { kind: 'delete', lines: [['1.0', DELETED_AT]] },
      ],
    });
    expect(await rows()).toEqual([['1.00', 'moved', 'b']]);
    expect(await deleted()).toEqual([]);
  });

  test.each([HARD, SOFT])('by a delete and an insert: %o', async (options) => {
    const { apply, rows, deleted } = await streamWith(options, shape, row);
    await apply({
      blocks: [
        { kind: 'delete', lines: [['1.0', DELETED_AT]] },
        { kind: 'upsert', lines: [['1.00', 'moved', 'c']] },
      ],
    });
    expect(await rows()).toEqual([['1.00', 'moved', 'c']]);
    expect(await deleted()).toEqual([]);
  });
});
