/**
 * Goal: an epoch's steps on the target are idempotent, safe side by side, and end right after a crash at any point.
 * Method: steps twice, in parallel, in the wrong order, with another plan or ledger; and with the connection cut at each statement in turn.
 */
import { Readable } from 'node:stream';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import type { Epoch, Target, TargetStream } from '../../lib/ports.ts';
import type { Shape, TableName } from '../../lib/shape.ts';
import {
  applyCut,
  CHUNKS_LSN,
  chunkOf,
  connectionsLeft,
  epochOf,
  HELD_LSN,
  INCARNATION,
  rowsOf,
  streamOf,
  synchronise,
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
     SELECT relname FROM pg_class WHERE relname LIKE '\\_sluice\\_shadow%' AND relkind = 'r' AND relname NOT IN (SELECT shadow FROM _sluice.plans)`,
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
    expect(await leftovers(stream)).toEqual([]);
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
      const grown = shapeOf({ id: 'int4', a: 'text', z: 'text' }, ['id']);
      const epoch = epochOf(stream, { number: 2, kind: 'backfill', plan: 'fill', chunks: 2, held_cut: 999 });
      await prepareFor(target, stream, epoch, false, grown);
      expect(await rowOf(target, stream)).toMatchObject({ hold: 2, applied_cut: 11 });
      await Promise.all([
        target.loadChunk(stream, epoch, chunkOf(epoch, 0), chunkText([['2', 'filled', 'z']], grown)),
        target.loadChunk(stream, epoch, chunkOf(epoch, 1), chunkText([['4', 'filled', 'z']], grown)),
      ]);
      expect(await target.loadChunk(stream, epoch, chunkOf(epoch, 1), chunkText([['5', 'twice', 'z']], grown))).toBe(
        false,
      );
      await finishFor(target, stream, epoch);
      await finishFor(target, stream, epoch);
      expect(await rowsOf(client, stream.target, 'id, a, z')).toEqual([
        ['1', 'a', null],
        ['2', 'filled', 'z'],
        ['3', 'c', null],
        ['4', 'filled', 'z'],
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

describe('a table that grows while it is copied', () => {
  test('chunks with and without the new column, in parallel', async () => {
    for (const overlapping of [false, true]) {
      const target = targetOn(server);
      const stream = freshStream();
      const epoch = epochOf(stream, { chunks: 6 });
      const grown = shapeOf({ id: 'int4', a: 'text', z: 'text' }, ['id']);
      await prepareFor(target, stream, epoch, overlapping);
      await Promise.all(
        [0, 1, 2, 3, 4, 5].map((number) =>
          target.loadChunk(
            stream,
            epoch,
            chunkOf(epoch, number),
            number % 2 === 0 ? chunkText([[`${number}`, 'a']]) : chunkText([[`${number}`, 'a', 'z']], grown),
          ),
        ),
      );
      await finishFor(target, stream, epoch);
      expect(await rowsOf(client, stream.target)).toEqual(
        [0, 1, 2, 3, 4, 5].map((n) => [`${n}`, 'a', n % 2 === 0 ? null : 'z']),
      );
      expect((await rowOf(target, stream))?.shape).toEqual(grown);
    }
  });

  test('a chunk with another type or a stray block is refused', async () => {
    const target = targetOn(server);
    const stream = freshStream();
    const epoch = epochOf(stream);
    await prepareFor(target, stream, epoch);
    const changed = shapeOf({ id: 'int8', a: 'text' }, ['id']);
    await expect(target.loadChunk(stream, epoch, chunkOf(epoch), chunkText([], changed))).rejects.toMatchObject({
      code: 'SHAPE_CHANGED',
    });
    const stray = segmentOf({ shape: SHAPE, blocks: [{ kind: 'update', columns: ['id'], lines: [] }] });
    await expect(target.loadChunk(stream, epoch, chunkOf(epoch), stray)).rejects.toMatchObject({ code: 'UNEXPECTED' });
    expect(await target.loadedChunks(stream, epoch, 'plan-1')).toEqual(new Set());
  });
});

describe('a crash at any statement', () => {
  /** Cuts the connection at the `nth` statement of all that a target sends: before it goes out, or when its answer is on the way. */
  function cutAt(nth: number, when: 'before' | 'after') {
    let seen = 0;
    const onClient = (opened: pg.Client): void => {
      const query = opened.query.bind(opened) as (...args: unknown[]) => unknown;
      opened.query = ((...args: unknown[]) => {
        if (seen++ !== nth) return query(...args);
        if (when === 'before') opened.connection.stream.destroy();
        const answer = query(...args);
        if (when === 'after' && answer instanceof Promise) {
          return answer.then(() => {
            opened.connection.stream.destroy();
            throw Object.assign(new Error('read'), { code: 'ECONNRESET' });
          });
        }
        return answer;
      }) as pg.Client['query'];
    };
    return { onClient, wasCut: () => seen > nth };
  }

  const STATEMENTS_MAX = 60;
  const SIDE_BY_SIDE = 6;

  test.each(['before', 'after'] as const)('cut %s it: doing it all again ends right', async (when) => {
    const whole = targetOn(server);
    /** One reset of its own table, cut at its `nth` statement and then done again. */
    const crashAt = async (nth: number): Promise<{ crashed: boolean; wasCut: boolean }> => {
      const stream = freshStream();
      await synchronise(whole, stream, SHAPE, [
        [
          ['1', 'old'],
          ['9', 'old'],
        ],
      ]);
      const { onClient, wasCut } = cutAt(nth, when);
      const reset = { number: 2, kind: 'reset', plan: 'again', held_cut: 20 } as const;
      const chunks: Line[][] = [[['1', 'new']], [['2', 'new']]];
      const crashed = await synchronise(targetOn(server, { onClient }), stream, SHAPE, chunks, reset).then(
        () => false,
        () => true,
      );
      await synchronise(whole, stream, SHAPE, chunks, reset);
      expect(await rowsOf(client, stream.target)).toEqual([
        ['1', 'new'],
        ['2', 'new'],
      ]);
      expect(await rowOf(whole, stream)).toMatchObject({ hold: null, epoch: 2, applied_cut: 20, made: true });
      return { crashed, wasCut: wasCut() };
    };
    let cuts = 0;
    for (let nth = 0; ; nth += SIDE_BY_SIDE) {
      expect(nth).toBeLessThan(STATEMENTS_MAX);
      const tried = await Promise.all(Array.from({ length: SIDE_BY_SIDE }, (_, i) => crashAt(nth + i)));
      cuts += tried.filter(({ crashed }) => crashed).length;
      if (tried.some(({ wasCut }) => !wasCut)) break;
    }
    expect(await leftovers(streamOf({ schema: 'epoch', table: 'none' }))).toEqual([]);
    expect(cuts).toBeGreaterThan(15);
  });
});
