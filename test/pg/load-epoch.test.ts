/**
 * Goal: an epoch's steps on the target are idempotent and safe side by side.
 * Method: steps twice, in parallel, in the wrong order, and with another plan.
 */
import { Readable } from 'node:stream';
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import type { Epoch, Target, TargetStream } from '../../lib/ports.ts';
import type { Shape, TableName } from '../../lib/shape.ts';
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

/** What is left of an epoch that should be over: plans of the stream, and shadow tables that no plan knows. */
async function leftovers({ stream }: TargetStream): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT plan AS name FROM _sluice.plans WHERE stream = $1 UNION ALL
     SELECT relname FROM pg_class WHERE relname LIKE '\\_sluice\\_shadow%' AND relkind = 'r' AND relname NOT IN (SELECT shadow FROM _sluice.plans WHERE shadow IS NOT NULL)`,
    [stream],
  );
  return rows.map(({ name }) => name);
}

async function keyOf(table: TableName): Promise<string | undefined> {
  const { rows } = await client.query<{ key: string }>(
    `SELECT conname || ' ' || pg_get_constraintdef(oid) AS key FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'p'`,
    [`${table.schema}.${table.table}`],
  );
  return rows[0]?.key;
}

describe('a first sync', () => {
  test('ends with rows, key, metadata, statistics, and a row that says where to go on', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream, { chunks: 2 });
    await prepareFor(target, stream, epoch);
    expect(await rowOf(target, stream)).toMatchObject({
      hold: 1,
      incarnation: INCARNATION,
      applied_cut: 10,
      shape: SHAPE,
    });
    expect(await target.loadChunk(stream, epoch, chunkOf(epoch, 0), chunkText([['1', 'a']]))).toBe(true);
    expect(
      await target.loadChunk(
        stream,
        epoch,
        chunkOf(epoch, 1),
        chunkText([
          ['2', null],
          ['3', ''],
        ]),
      ),
    ).toBe(true);
    expect((await client.query(`SELECT 1 FROM pg_class WHERE relname = $1`, [stream.target.table])).rowCount).toBe(0);
    await finishFor(target, stream, epoch);

    expect(await rowsOf(client, stream.target)).toEqual([
      ['1', 'a'],
      ['2', null],
      ['3', ''],
    ]);
    expect(
      await rowsOf(
        client,
        stream.target,
        `("_sdc_extracted_at" AT TIME ZONE 'UTC')::text, "_sdc_batched_at" IS NULL, "_sdc_deleted_at"`,
      ),
    ).toEqual(Array.from({ length: 3 }, () => ['2026-01-02 03:04:05.678', 'f', null]));
    expect(await keyOf(stream.target)).toBe(`${stream.target.table}_pkey PRIMARY KEY (id)`);
    expect(await rowOf(target, stream)).toEqual({
      incarnation: INCARNATION,
      target: stream.target,
      made: true,
      metadata: true,
      shape: SHAPE,
      hold: null,
      epoch: 1,
      applied_cut: 10,
      applied_lsn: HELD_LSN,
      catching_up_to: CHUNKS_LSN,
      together: false,
      halt: null,
      quarantined: false,
    });
    const { rows } = await client.query(
      `SELECT reltuples::int4 AS n, (SELECT count(*)::int4 FROM pg_attrdef WHERE adrelid = c.oid) AS defaults, relpersistence AS kept FROM pg_class c WHERE oid = $1::regclass`,
      [`epoch.${stream.target.table}`],
    );
    expect(rows).toEqual([{ n: 3, defaults: 0, kept: 'p' }]);
    expect(await leftovers(stream)).toEqual([]);
    expect(target.events).toEqual([
      { event: 'epoch_swapped', facts: expect.objectContaining({ stream: stream.stream, epoch: 1 }) },
    ]);
  });

  test('chunks in parallel and each three times: one of the three loads it', async () => {
    for (const overlapping of [false, true]) {
      const target = targetOn(server);
      const stream = freshStream();
      const epoch = epochOf(stream, { chunks: 4 });
      await prepareFor(target, stream, epoch, overlapping);
      const lines = (number: number): Line[] =>
        Array.from({ length: 500 }, (_, i) => [`${number * 500 + i}`, 'x'.repeat(50)]);
      const numbers = [0, 1, 2, 3].flatMap((number) => [number, number, number]);
      const loaded = await Promise.all(
        numbers.map((number) => target.loadChunk(stream, epoch, chunkOf(epoch, number), chunkText(lines(number)))),
      );
      expect(loaded.filter(Boolean)).toHaveLength(4);
      expect(await target.loadedChunks(stream, epoch, 'plan-1')).toEqual(new Set([0, 1, 2, 3]));
      await finishFor(target, stream, epoch);
      expect(await rowsOf(client, stream.target, 'count(*), count(DISTINCT id)')).toEqual([['2000', '2000']]);
      expect(await target.loadedChunks(stream, epoch, 'plan-1')).toEqual(new Set([0, 1, 2, 3]));
    }
  });

  test('chunks that overlap: a row that was read twice is there once', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    await synchronise(
      target,
      stream,
      SHAPE,
      [
        [
          ['1', 'a'],
          ['2', 'old'],
        ],
        [
          ['2', 'new'],
          ['3', 'c'],
        ],
      ],
      { overlapping: true },
    );
    expect(await rowsOf(client, stream.target)).toEqual([
      ['1', 'a'],
      ['2', 'old'],
      ['3', 'c'],
    ]);
    expect(await rowsOf(client, stream.target, '"_sdc_extracted_at" IS NULL')).toEqual([['f'], ['f'], ['f']]);
    // The chain repairs either row.
    await applyCut(target, stream, [segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['2', 'new']] }] })]);
    expect(await rowsOf(client, stream.target, 'a')).toEqual([['a'], ['c'], ['new']]);
  });

  test('of an empty table', async () => {
    const target = targetOn(server, { hard_delete: false });
    const stream = freshStream();
    await synchronise(target, stream, SHAPE, []);
    expect(await rowsOf(client, stream.target)).toEqual([]);
    expect(await keyOf(stream.target)).toContain('PRIMARY KEY');
  });

  test('without metadata columns', async () => {
    const target = targetOn(server, { hard_delete: false });
    const stream = freshStream();
    await synchronise(target, stream, SHAPE, [[['1', 'a']]]);
    expect((await client.query(`SELECT * FROM epoch.${stream.target.table}`)).rows).toEqual([{ id: 1, a: 'a' }]);
  });

  test('a chunk that breaks leaves nothing, and is loaded when it comes again', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream);
    await prepareFor(target, stream, epoch);
    const broken = chunkText([['1', 'a']]);
    const failing = { ...broken, block: () => Readable.from([Buffer.from('1\ta\n'), Buffer.from('x\tb\n')]) };
    await expect(target.loadChunk(stream, epoch, chunkOf(epoch), failing)).rejects.toMatchObject({
      code: 'TARGET_REJECTS',
      message: expect.stringContaining('column id, line 2'),
    });
    expect(await target.loadedChunks(stream, epoch, 'plan-1')).toEqual(new Set());
    await expect(finishFor(target, stream, epoch)).rejects.toMatchObject({
      code: 'EPOCH_INCOMPLETE',
      disposition: 'retry',
    });
    expect(await target.loadChunk(stream, epoch, chunkOf(epoch), broken)).toBe(true);
    await finishFor(target, stream, epoch);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'a']]);
  });

  test('loaders that make everything at once do not disturb each other', async () => {
    await client.query('CREATE DATABASE race');
    const target = targetOn(server, { database: 'race' });
    const streams = Array.from({ length: 8 }, freshStream);
    await Promise.all(streams.flatMap((stream) => [1, 2].map(() => prepareFor(target, stream, epochOf(stream)))));
    for (const stream of streams) expect(await rowOf(target, stream)).toMatchObject({ hold: 1 });
  });
});

describe('the hold', () => {
  test('keeps cuts away until the epoch is finished', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream, { chunks: 0 });
    await prepareFor(target, stream, epoch);
    const segment = segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['1', 'a']] }] });
    await expect(applyCut(target, stream, [segment])).rejects.toMatchObject({
      code: 'UNEXPECTED',
      message: expect.stringContaining('held by 1'),
    });
    await expect(
      target.transaction(stream, (tx) => tx.advance({ cut: 11, lsn: lsnOf(1n), caught_up: true })),
    ).rejects.toMatchObject({ code: 'UNEXPECTED' });
    await finishFor(target, stream, epoch);
    await applyCut(target, stream, [segment]);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'a']]);
  });

  test('a load that is under way ends first', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    await synchronise(target, stream, SHAPE, [[]]);
    const entered = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const loading = target.transaction(stream, async (tx) => {
      entered.resolve();
      await release.promise;
      await tx.advance({ cut: 11, lsn: lsnOf(11n), caught_up: true });
    });
    await entered.promise;
    const preparing = prepareFor(target, stream, epochOf(stream, { number: 2, kind: 'reset', plan: 'plan-2' }));
    release.resolve();
    await Promise.all([loading, preparing]);
    expect(await rowOf(target, stream)).toMatchObject({ applied_cut: 11, hold: 2 });
  });
});

describe('again, late, and out of order', () => {
  test('every step twice', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream);
    await prepareFor(target, stream, epoch);
    expect(await target.loadChunk(stream, epoch, chunkOf(epoch), chunkText([['1', 'a']]))).toBe(true);
    await prepareFor(target, stream, epoch);
    expect(await target.loadChunk(stream, epoch, chunkOf(epoch), chunkText([['1', 'a']]))).toBe(false);
    await finishFor(target, stream, epoch);
    await applyCut(target, stream, [
      segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['1', 'changed']] }] }),
    ]);
    await finishFor(target, stream, epoch);
    await prepareFor(target, stream, epoch);
    expect(await target.loadChunk(stream, epoch, chunkOf(epoch), chunkText([['2', 'late']]))).toBe(false);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'changed']]);
    expect(await rowOf(target, stream)).toMatchObject({ hold: null, applied_cut: 11 });
    expect(await leftovers(stream)).toEqual([]);
  });

  test('two plans of one epoch: that which is finished wins, and nothing of the other is left', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const [first, second] = [epochOf(stream, { plan: 'first' }), epochOf(stream, { plan: 'second' })];
    await prepareFor(target, stream, first);
    await prepareFor(target, stream, second);
    await target.loadChunk(stream, first, chunkOf(first), chunkText([['1', 'first']]));
    await target.loadChunk(
      stream,
      second,
      chunkOf(second),
      chunkText([
        ['1', 'second'],
        ['2', 'second'],
      ]),
    );
    expect(await target.loadedChunks(stream, first, 'first')).toEqual(new Set([0]));
    expect(await target.loadChunk(stream, first, chunkOf(second, 1), chunkText([]))).toBe(false);
    await finishFor(target, stream, first);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'first']]);
    expect(await leftovers(stream)).toEqual([]);
    expect(await target.loadChunk(stream, second, chunkOf(second, 1), chunkText([['3', 'late']]))).toBe(false);
    await finishFor(target, stream, second);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'first']]);
  });

  test('a newer epoch takes over from one that was never finished; the older one is over then', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const [old, now] = [epochOf(stream), epochOf(stream, { number: 2, kind: 'reset', plan: 'plan-2' })];
    await prepareFor(target, stream, old);
    await target.loadChunk(stream, old, chunkOf(old), chunkText([['1', 'old']]));
    await prepareFor(target, stream, now);
    await prepareFor(target, stream, old);
    expect(await target.loadChunk(stream, old, chunkOf(old, 1), chunkText([['2', 'old']]))).toBe(false);
    expect(await rowOf(target, stream)).toMatchObject({ hold: 2 });
    await target.loadChunk(stream, now, chunkOf(now), chunkText([['1', 'now']]));
    await finishFor(target, stream, now);
    await finishFor(target, stream, old);
    expect(await rowsOf(client, stream.target)).toEqual([['1', 'now']]);
    expect(await leftovers(stream)).toEqual([]);
  });

  test('finished without having been prepared: an error, not a silent success', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    await expect(finishFor(target, stream, epochOf(stream))).rejects.toMatchObject({ code: 'UNEXPECTED' });
    expect(await target.loadChunk(stream, epochOf(stream), chunkOf(epochOf(stream)), chunkText([]))).toBe(false);
  });

  test('two finishers at once', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream);
    await prepareFor(target, stream, epoch);
    await target.loadChunk(
      stream,
      epoch,
      chunkOf(epoch),
      chunkText(Array.from({ length: 20_000 }, (_, i) => [`${i}`, 'x'])),
    );
    await Promise.all([1, 2, 3, 4].map(() => finishFor(target, stream, epoch)));
    expect(await rowsOf(client, stream.target, 'count(*)')).toEqual([['20000']]);
    expect(await rowOf(target, stream)).toMatchObject({ hold: null, epoch: 1 });
  });
});
