/**
 * Goal: an epoch in place writes its chunks' rows into the stream's own table beside what is applied, takes away what it replaces and nothing else, and leaves
 * a stream that goes on from where its course says.
 * Method: each course on a table that was synchronised, with rows that match, differ, are missing and are left over; twice, cancelled, and late.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import type { ChunkRange, Epoch, Target, TargetStream } from '../../lib/ports.ts';
import {
  applyCut,
  chunkOf,
  epochOf,
  HELD_LSN,
  INCARNATION,
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

const SHAPE = shapeOf({ id: 'int4', tenant: 'text', a: 'text' }, ['id', 'tenant']);
const LSN: Lsn = lsnOf(0x3000n);
let tables = 0;

/** A table of rows 1 to 6, applied up to cut 11. */
async function loaded(options: TargetFor = {}): Promise<{ target: Target; stream: TargetStream }> {
  const target = targetOn(server, options);
  const stream = streamOf({ schema: 'place', table: `t${++tables}` });
  const rows: Line[] = [1, 2, 3, 4, 5, 6].map((id) => [`${id}`, 'x', `old ${id}`]);
  await synchronise(target, stream, SHAPE, [rows]);
  await applyCut(target, stream, []);
  return { target, stream };
}

const rowOf = (target: Target, stream: TargetStream) => target.transaction(stream, (tx) => Promise.resolve(tx.row));
const textOf = (lines: readonly Line[]) => segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines, rows: null }] });
const inPlace = (stream: TargetStream, kind: Epoch['kind'], change: Partial<Epoch> = {}): Epoch =>
  epochOf(stream, { number: 2, kind, plan: 'plan-2', held_cut: 40, ...change });

async function bring(target: Target, stream: TargetStream, epoch: Epoch, range: ChunkRange, lines: readonly Line[]) {
  await target.prepareEpoch(stream, epoch, epoch.plan ?? '', SHAPE, INCARNATION, false);
  return await target.loadChunk(stream, epoch, chunkOf(epoch, 0, { range }), textOf(lines));
}
const finish = (target: Target, stream: TargetStream, epoch: Epoch) =>
  target.finishEpoch(stream, epoch, epoch.plan ?? '', LSN, HELD_LSN);

const KEYS: ChunkRange = {
  by: 'keys',
  columns: ['tenant', 'id'],
  keys: [
    ['x', '2'],
    ['x', '3'],
    ["y'", '9'],
  ],
};

describe('a repair by keys', () => {
  test('brings, changes and takes away exactly these, and goes on from what is applied', async () => {
    const { target, stream } = await loaded();
    const before = await rowOf(target, stream);
    const epoch = inPlace(stream, 'repair');
    expect(
      await bring(target, stream, epoch, KEYS, [
        ['2', 'x', 'new'],
        ['9', "y'", 'added'],
      ]),
    ).toBe(true);
    expect(await rowOf(target, stream)).toMatchObject({ hold: 2, applied_cut: before?.applied_cut });
    await finish(target, stream, epoch);
    expect(await rowsOf(client, stream.target)).toEqual([
      ['1', 'x', 'old 1'],
      ['2', 'x', 'new'],
      ['4', 'x', 'old 4'],
      ['5', 'x', 'old 5'],
      ['6', 'x', 'old 6'],
      ['9', "y'", 'added'],
    ]);
    const { applied_cut, applied_lsn } = before ?? {};
    expect(await rowOf(target, stream)).toMatchObject({
      hold: null,
      epoch: 2,
      applied_cut,
      applied_lsn,
      catching_up_to: LSN,
    });
  });

  test('with soft deletes marks what is gone, once, and brings back what was marked', async () => {
    const { target, stream } = await loaded({ hard_delete: false, add_metadata_columns: true });
    const epoch = inPlace(stream, 'repair');
    await bring(target, stream, epoch, KEYS, [['2', 'x', 'new']]);
    await finish(target, stream, epoch);
    const marked = await rowsOf(client, stream.target, 'id, a, "_sdc_deleted_at"::text');
    expect(marked.filter(([, , at]) => at !== null)).toEqual([['3', 'old 3', expect.stringContaining('2026-01-02')]]);
    const again = inPlace(stream, 'repair', { number: 3, plan: 'plan-3' });
    await bring(target, stream, again, KEYS, [['3', 'x', 'back']]);
    await finish(target, stream, again);
    expect(await rowsOf(client, stream.target, 'id, a, "_sdc_deleted_at" IS NULL')).toContainEqual(['3', 'back', 't']);
  });

  test('where rows are kept after their deletion without a mark, they are kept here', async () => {
    const { target, stream } = await loaded({ hard_delete: false, add_metadata_columns: false });
    const epoch = inPlace(stream, 'repair');
    await bring(target, stream, epoch, KEYS, [['2', 'x', 'new']]);
    await finish(target, stream, epoch);
    expect((await rowsOf(client, stream.target)).map(([id]) => id)).toEqual(['1', '2', '3', '4', '5', '6']);
  });
});

test('a range of keys: rows in it that did not come are gone, those outside are not touched', async () => {
  const { target, stream } = await loaded();
  const epoch = inPlace(stream, 'resync');
  const range: ChunkRange = { by: 'key', columns: ['id'], from: ['2'], to: ['5'] };
  await bring(target, stream, epoch, range, [['3', 'x', 'new']]);
  await finish(target, stream, epoch);
  expect((await rowsOf(client, stream.target)).map(([id, , a]) => [id, a])).toEqual([
    ['1', 'old 1'],
    ['3', 'new'],
    ['5', 'old 5'],
    ['6', 'old 6'],
  ]);
  // A resync is of the held cut's time, whatever was applied before.
  expect(await rowOf(target, stream)).toMatchObject({ applied_cut: 40, applied_lsn: HELD_LSN, catching_up_to: LSN });
});

test('a backfill writes what came and takes nothing away', async () => {
  const { target, stream } = await loaded();
  const epoch = inPlace(stream, 'backfill', { where: 'id < 5' });
  await bring(target, stream, epoch, { by: 'key', columns: ['id'], from: null, to: null }, [
    ['3', 'x', 'new'],
    ['7', 'z', 'added'],
  ]);
  await finish(target, stream, epoch);
  expect((await rowsOf(client, stream.target)).map(([id, , a]) => [id, a])).toEqual([
    ['1', 'old 1'],
    ['2', 'old 2'],
    ['3', 'new'],
    ['4', 'old 4'],
    ['5', 'old 5'],
    ['6', 'old 6'],
    ['7', 'added'],
  ]);
});

test('ranges that say nothing about rows of the target take nothing away', async () => {
  const { target, stream } = await loaded();
  const epoch = inPlace(stream, 'repair');
  await expect(bring(target, stream, epoch, { by: 'ctid', from: null, to: null }, [['1', 'x', 'n']])).rejects.toThrow(
    /says nothing about the target/,
  );
  expect((await rowsOf(client, stream.target)).length).toBe(6);
  await target.cancelEpoch(stream, epoch, () => Promise.resolve(null));
});

test('a second epoch beside an unfinished catching up does not bring the end of it nearer', async () => {
  const { target, stream } = await loaded();
  for (const [number, lsn] of [
    [2, lsnOf(0x9000n)],
    [3, lsnOf(0x4000n)],
  ] as const) {
    const epoch = inPlace(stream, 'backfill', { number, plan: `plan-${number}` });
    await bring(target, stream, epoch, { by: 'whole' }, [['1', 'x', `n${number}`]]);
    await target.finishEpoch(stream, epoch, epoch.plan ?? '', lsn, HELD_LSN);
  }
  expect(await rowOf(target, stream)).toMatchObject({ catching_up_to: lsnOf(0x9000n) });
});

describe('cancelled', () => {
  test('what was loaded stays and is caught up to; a late chunk, plan and end change nothing', async () => {
    const { target, stream } = await loaded();
    const epoch = inPlace(stream, 'backfill', { chunks: 2 });
    await bring(target, stream, epoch, { by: 'whole' }, [['1', 'x', 'new']]);
    const asked: number[][] = [];
    const lsnOfLoaded = (chunks: ReadonlySet<number>): Promise<Lsn | null> => {
      asked.push([...chunks]);
      return Promise.resolve(LSN);
    };
    await target.cancelEpoch(stream, epoch, lsnOfLoaded);
    await target.cancelEpoch(stream, epoch, lsnOfLoaded);
    expect(asked).toEqual([[0]]);
    expect(await rowOf(target, stream)).toMatchObject({ hold: null, epoch: 2, applied_cut: 11, catching_up_to: LSN });
    expect(await target.loadChunk(stream, epoch, chunkOf(epoch, 1), textOf([['2', 'x', 'late']]))).toBe(false);
    await bring(target, stream, epoch, { by: 'whole' }, [['2', 'x', 'late']]);
    await finish(target, stream, epoch);
    expect(await rowOf(target, stream)).toMatchObject({ hold: null, epoch: 2, applied_cut: 11, catching_up_to: LSN });
    expect((await rowsOf(client, stream.target)).slice(0, 2).map(([, , a]) => a)).toEqual(['new', 'old 2']);
  });

  test('before it was prepared: it never will be', async () => {
    const { target, stream } = await loaded();
    const epoch = inPlace(stream, 'backfill', { state: 'opened', plan: null });
    await target.cancelEpoch(stream, epoch, () => Promise.reject(new Error('nothing was loaded')));
    await target.prepareEpoch(stream, epoch, 'plan-2', SHAPE, INCARNATION, false);
    expect(await rowOf(target, stream)).toMatchObject({ hold: null, epoch: 2, catching_up_to: null });
  });
});

test('a table that no first sync has made takes no rows in place', async () => {
  const target = targetOn(server);
  const stream = streamOf({ schema: 'place', table: `t${++tables}` });
  const first = epochOf(stream, {});
  const epoch = inPlace(stream, 'backfill');
  await expect(bring(target, stream, epoch, { by: 'whole' }, [])).rejects.toMatchObject({ code: 'TARGET_ROW_MISSING' });
  await target.prepareEpoch(stream, first, 'plan-1', SHAPE, INCARNATION, false);
  await expect(bring(target, stream, epoch, { by: 'whole' }, [])).rejects.toMatchObject({ code: 'TARGET_ROW_MISSING' });
});
