/**
 * Goal: a load's transaction holds the stream's row, and is whole or not at all.
 * Method: two loaders at once, and work that throws; then the rows are looked at.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { TargetTransaction } from '../../lib/ports.ts';
import { loadedStream, TWO_COLUMNS as SHAPE, upsertOf as upsert } from '../support/loaded-stream.ts';
import { INCARNATION, onLoaderServer, rowsOf, streamOf, type TargetFor, targetOn } from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const streamWith = (lines: readonly Line[], options?: TargetFor) => loadedStream(server, lines, options);
const at = (cut: number) => ({ cut, lsn: lsnOf(BigInt(cut)), caught_up: true });
const appliedCut = (tx: TargetTransaction) => Promise.resolve(tx.row?.applied_cut);

describe('the row', () => {
  test('where nothing was ever prepared: null, no error, and nothing is made', async () => {
    await client.query('CREATE DATABASE empty');
    const target = targetOn(server, { database: 'empty' });
    const stream = streamOf({ schema: 'tx', table: 'none' });
    expect(await target.transaction(stream, (tx) => Promise.resolve(tx.row))).toBe(null);
    expect(await target.loadedChunks(stream, { number: 1 } as never, 'p')).toEqual(new Set());
    const empty = await server.connect('empty');
    expect((await empty.query(`SELECT 1 FROM pg_namespace WHERE nspname IN ('_sluice', 'tx')`)).rowCount).toBe(0);
    await empty.end();
  });

  test('of another stream or pipeline is not seen', async () => {
    const { stream, target } = await streamWith([]);
    expect(await target.transaction({ ...stream, stream: 'another' }, (tx) => Promise.resolve(tx.row))).toBe(null);
    expect(await targetOn(server, { pipeline: 'blog' }).transaction(stream, (tx) => Promise.resolve(tx.row))).toBe(
      null,
    );
  });

  test('says what is applied', async () => {
    const { stream, target } = await streamWith([]);
    const first = await target.transaction(stream, async (tx) => {
      await tx.advance({ cut: 11, lsn: lsnOf(0xabcdef0123n), caught_up: false });
      return tx.row;
    });
    expect(first).toMatchObject({
      incarnation: INCARNATION,
      applied_cut: 10,
      applied_lsn: 0x1000n,
      hold: null,
      catching_up_to: 0x2000n,
      shape: SHAPE,
    });
    const second = await target.transaction(stream, async (tx) => {
      await tx.advance(at(12));
      return tx.row;
    });
    expect(second).toMatchObject({ applied_cut: 11, applied_lsn: 0xabcdef0123n, catching_up_to: 0x2000n });
    expect(await target.transaction(stream, (tx) => Promise.resolve(tx.row))).toMatchObject({
      applied_cut: 12,
      catching_up_to: null,
    });
  });

  test('is locked: a second loader waits, and then sees what the first one applied', async () => {
    const { table, stream, target } = await streamWith([]);
    const order: string[] = [];
    const entered = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const first = target.transaction(stream, async (tx) => {
      entered.resolve();
      await release.promise;
      await tx.apply(upsert(['1', 'first']));
      await tx.advance(at(11));
      order.push('first');
    });
    await entered.promise;
    const second = target.transaction(stream, async (tx) => {
      order.push('second');
      if ((tx.row?.applied_cut ?? 0) < 11) await tx.apply(upsert(['1', 'second']));
      return tx.row?.applied_cut;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(order).toEqual([]);
    release.resolve();
    await first;
    expect(await second).toBe(11);
    expect(order).toEqual(['first', 'second']);
    expect(await rowsOf(client, table)).toEqual([['1', 'first']]);
  });

  test('never goes back', async () => {
    const { stream, target } = await streamWith([]);
    await expect(target.transaction(stream, (tx) => tx.advance(at(9)))).rejects.toMatchObject({ code: 'UNEXPECTED' });
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('with another target than it was loaded into: an error that names both', async () => {
    const { stream, target } = await streamWith([]);
    const moved = { ...stream, target: { schema: 'tx', table: 'elsewhere' } };
    await expect(target.transaction(moved, appliedCut)).rejects.toMatchObject({
      code: 'TARGET_TABLE_MOVED',
      message: expect.stringContaining('tx.elsewhere'),
    });
  });
});

describe('whole or not at all', () => {
  test('what work throws comes out as it is, and nothing of it is there', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const thrown = new RangeError('mine');
    const failing = target.transaction(stream, async (tx) => {
      await tx.apply(upsert(['1', 'changed'], ['2', 'new']));
      await tx.advance(at(11));
      throw thrown;
    });
    await expect(failing).rejects.toBe(thrown);
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('an error that work has swallowed still fails the transaction', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const swallowing = target.transaction(stream, async (tx) => {
      await tx.apply(upsert(['2', 'new']));
      await tx.apply(upsert(['not a number', 'x'])).catch(() => undefined);
    });
    await expect(swallowing).rejects.toMatchObject({ code: 'UNEXPECTED' });
    const advancing = target.transaction(stream, async (tx) => {
      await tx.apply(upsert(['not a number', 'x'])).catch(() => undefined);
      await tx.advance(at(11));
    });
    await expect(advancing).rejects.toBeInstanceOf(SluiceError);
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('several cuts of several segments in one', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    await target.transaction(stream, async (tx) => {
      for (let cut = 11; cut <= 15; cut++) await tx.apply(upsert(['1', `cut ${cut}`], [`${cut}`, 'new']));
      await tx.advance(at(15));
    });
    expect(await rowsOf(client, table)).toEqual([
      ['1', 'cut 15'],
      ...[11, 12, 13, 14, 15].map((cut) => [`${cut}`, 'new']),
    ]);
  });
});
