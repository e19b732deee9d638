/**
 * Goal: an epoch touches no table that is not its stream's, and goes on from the right place in the kinds that are no first sync.
 * Method: tables and rows of others are in the way; ledgers change; a backfill runs in place; the table grows while it is copied.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Epoch, Target, TargetStream } from '../../lib/ports.ts';
import type { Shape } from '../../lib/shape.ts';
import {
  applyCut,
  CHUNKS_LSN,
  chunkOf,
  epochOf,
  HELD_LSN,
  INCARNATION,
  onLoaderServer,
  rowsOf,
  streamOf,
  synchronise,
  targetOn,
} from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const SHAPE = shapeOf({ id: 'int4', a: 'text' }, ['id']);
let tables = 0;
const freshStream = (): TargetStream => streamOf({ schema: 'epoch', table: `t${++tables}` });

const chunkText = (lines: readonly Line[], shape: Shape = SHAPE) =>
  segmentOf({ shape, blocks: [{ kind: 'upsert', lines, rows: null }] });
const rowOf = (target: Target, stream: TargetStream) => target.transaction(stream, (tx) => Promise.resolve(tx.row));
const prepareFor = (target: Target, stream: TargetStream, epoch: Epoch, overlapping = false, shape: Shape = SHAPE) =>
  target.prepareEpoch(stream, epoch, epoch.plan ?? '', shape, INCARNATION, overlapping);
const finishFor = (target: Target, stream: TargetStream, epoch: Epoch) =>
  target.finishEpoch(stream, epoch, epoch.plan ?? '', CHUNKS_LSN, HELD_LSN);

describe('a table that is not this stream’s', () => {
  test.each([
    ['a table', (name: string) => `CREATE TABLE ${name} (id int)`],
    ['an empty view', (name: string) => `CREATE VIEW ${name} AS SELECT 1 AS id WHERE false`],
  ])('%s that Sluice did not make is refused, and stays', async (_what, sql) => {
    const target = targetOn(server);
    const stream = freshStream();
    await client.query(`CREATE SCHEMA IF NOT EXISTS epoch; ${sql(`epoch.${stream.target.table}`)}`);
    await expect(prepareFor(target, stream, epochOf(stream))).rejects.toMatchObject({
      code: 'TARGET_TABLE_TAKEN',
      disposition: 'halt',
      message: expect.stringContaining('Sluice did not make it'),
    });
    expect(await rowOf(target, stream)).toBe(null);
    expect((await client.query(`SELECT FROM pg_class WHERE relname LIKE '\\_sluice\\_shadow%'`)).rowCount).toBe(0);
  });

  test('one that was made while the first sync ran', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream, { chunks: 0 });
    await prepareFor(target, stream, epoch);
    await client.query(`CREATE TABLE epoch.${stream.target.table} (mine text)`);
    await expect(finishFor(target, stream, epoch)).rejects.toMatchObject({ code: 'TARGET_TABLE_TAKEN' });
    await client.query(`DROP TABLE epoch.${stream.target.table}`);
    await finishFor(target, stream, epoch);
    expect(await rowsOf(client, stream.target)).toEqual([]);
  });

  test('of another pipeline, and of another stream of this one', async () => {
    const stream = freshStream();
    await synchronise(targetOn(server), stream, SHAPE, [[['1', 'a']]]);
    const refused = {
      code: 'TARGET_TABLE_TAKEN',
      message: expect.stringContaining(`pipeline shop, stream ${stream.stream}`),
    };
    await expect(prepareFor(targetOn(server, { pipeline: 'blog' }), stream, epochOf(stream))).rejects.toMatchObject(
      refused,
    );
    const another = { ...stream, stream: 'another' };
    await expect(prepareFor(targetOn(server), another, epochOf(another))).rejects.toMatchObject(refused);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'a']]);
  });
});

describe('another ledger (I12)', () => {
  test('may not take a stream over by a first sync or a backfill, only by a reset', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    await synchronise(target, stream, SHAPE, [[['1', 'old']]], { number: 7 });
    for (const kind of ['first_sync', 'backfill'] as const) {
      const epoch = epochOf(stream, { kind });
      await expect(target.prepareEpoch(stream, epoch, 'p', SHAPE, 'chain-2', false)).rejects.toMatchObject({
        code: 'LEDGER_INCARNATION',
        facts: { found: INCARNATION, expected: 'chain-2' },
      });
    }
    expect(await rowOf(target, stream)).toMatchObject({ incarnation: INCARNATION, hold: null });
    // Its epochs count anew, from below.
    await synchronise(target, stream, SHAPE, [[['1', 'new']]], {
      number: 2,
      kind: 'reset',
      plan: 'p',
      held_cut: 3,
      incarnation: 'chain-2',
    });
    expect(await rowOf(target, stream)).toMatchObject({ incarnation: 'chain-2', applied_cut: 3, epoch: 2 });
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'new']]);
  });
});

describe('a backfill', () => {
  test('writes its rows in place, and goes on from what is applied', async () => {
    for (const options of [
      { hard_delete: true },
      { hard_delete: false, add_metadata_columns: true },
      { hard_delete: false },
    ]) {
      const target = targetOn(server, options);
      const stream = freshStream();
      await synchronise(target, stream, SHAPE, [
        [
          ['1', 'a'],
          ['2', 'b'],
        ],
      ]);
      await applyCut(target, stream, [segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['3', 'c']] }] })]);
      const epoch = epochOf(stream, { number: 2, kind: 'backfill', plan: 'fill', chunks: 2, held_cut: 999 });
      await prepareFor(target, stream, epoch);
      expect(await rowOf(target, stream)).toMatchObject({ hold: 2, applied_cut: 11 });
      await Promise.all([
        target.loadChunk(stream, epoch, chunkOf(epoch, 0), chunkText([['2', 'filled']])),
        target.loadChunk(stream, epoch, chunkOf(epoch, 1), chunkText([['4', 'filled']])),
      ]);
      expect(await target.loadChunk(stream, epoch, chunkOf(epoch, 1), chunkText([['5', 'twice']]))).toBe(false);
      await finishFor(target, stream, epoch);
      await finishFor(target, stream, epoch);
      expect(await rowsOf(client, stream.target)).toEqual([
        ['1', 'a'],
        ['2', 'filled'],
        ['3', 'c'],
        ['4', 'filled'],
      ]);
      expect(await rowOf(target, stream)).toMatchObject({
        hold: null,
        applied_cut: 11,
        epoch: 2,
        catching_up_to: CHUNKS_LSN,
      });
    }
  });

  test('of a stream that was never loaded: an error', async () => {
    const stream = freshStream();
    await expect(prepareFor(targetOn(server), stream, epochOf(stream, { kind: 'backfill' }))).rejects.toMatchObject({
      code: 'TARGET_ROW_MISSING',
    });
  });
});

describe('a table that is altered while it is copied', () => {
  test('is copied anew: a chunk with a column more or of another type is refused, as is a stray block', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream);
    await prepareFor(target, stream, epoch);
    for (const columns of [
      { id: 'int8', a: 'text' },
      { id: 'int4', a: 'text', z: 'text' },
    ] as const) {
      const chunk = chunkText([], shapeOf(columns, ['id']));
      await expect(target.loadChunk(stream, epoch, chunkOf(epoch), chunk)).rejects.toMatchObject({
        code: 'TABLE_REWRITTEN',
      });
    }
    const stray = segmentOf({ shape: SHAPE, blocks: [{ kind: 'update', columns: ['id'], lines: [] }] });
    await expect(target.loadChunk(stream, epoch, chunkOf(epoch), stray)).rejects.toMatchObject({ code: 'UNEXPECTED' });
    expect(await target.loadedChunks(stream, epoch, 'plan-1')).toEqual(new Set());
  });
});
