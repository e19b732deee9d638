/** Goal: how far an epoch has come is told as soon as it can be, and never as more than it is. */
import { describe, expect, test } from 'vitest';
import { epochProgress } from '../../lib/epoch/progress.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { Chunk, Epoch } from '../../lib/ports.ts';

const EPOCH: Epoch = {
  stream: 's',
  number: 1,
  kind: 'first_sync',
  where: null,
  state: 'planned',
  plan: 'p',
  chunks: 4,
  rows_estimate: 1000,
  held_cut: 1,
  opened_at_ms: 10_000,
  rung_at_ms: 0,
  done_at_ms: null,
};

const chunk = (number: number, rows: number | null, loaded = false): Chunk => ({
  stream: 's',
  epoch: 1,
  plan: 'p',
  number,
  range: { by: 'whole' },
  staged: rows === null ? null : { object: 'o', object_bytes: 1, rows, text_bytes: rows * 100, lsn: lsnOf(1n) },
  loaded,
});
const at = (epoch: Partial<Epoch>, chunks: readonly Chunk[], now_ms = 40_000) =>
  epochProgress({ ...EPOCH, ...epoch }, chunks, now_ms);

describe('progress of an epoch', () => {
  test('counts rows and bytes, estimates the rest, and the time by the pace so far', () => {
    const chunks = [chunk(0, 250, true), chunk(1, 250), chunk(2, null), chunk(3, null)];
    expect(at({}, chunks)).toEqual({
      chunks_staged: 2,
      chunks_equal: 0,
      chunks_loaded: 1,
      rows_staged: 500,
      rows_loaded: 250,
      bytes_staged: 50_000,
      bytes_loaded: 25_000,
      rows_total: 1000,
      bytes_total: 100_000,
      percent: 25,
      seconds_left: 90,
    });
  });

  test('is exact once all is staged, whatever was estimated', () => {
    const chunks = [chunk(0, 300, true), chunk(1, 300)];
    expect(at({ chunks: 2 }, chunks)).toMatchObject({ rows_total: 600, bytes_total: 60_000, percent: 50 });
    expect(at({ chunks: 2 }, [chunk(0, 300, true), chunk(1, 0, true)])).toMatchObject({
      percent: 100,
      seconds_left: 0,
    });
  });

  test('tells the chunks of which nothing is copied', () => {
    const equal = chunk(1, 250);
    const chunks = [
      chunk(0, 250),
      { ...equal, staged: equal.staged && { ...equal.staged, object: null, text_bytes: 0 } },
    ];
    expect(at({ kind: 'resync', chunks: 2 }, chunks)).toMatchObject({
      chunks_staged: 2,
      chunks_equal: 1,
      rows_staged: 500,
    });
  });

  test('an estimate that was too small never says that all is there', () => {
    const chunks = [chunk(0, 3000, true), chunk(1, null), chunk(2, null), chunk(3, null)];
    expect(at({}, chunks)).toMatchObject({ rows_total: 3000, percent: 99 });
  });

  test('of rows that nobody can count beforehand, goes by chunks', () => {
    const chunks = [chunk(0, 5, true), chunk(1, null), chunk(2, null), chunk(3, null)];
    for (const epoch of [{ where: 'a' }, { ranges: [] }, { rows_estimate: -1 }]) {
      expect(at(epoch, chunks)).toMatchObject({ rows_total: null, bytes_total: null, percent: 25, seconds_left: 90 });
    }
  });

  test('says nothing before it is planned, and no time before anything is loaded', () => {
    expect(at({ state: 'opened', plan: null, chunks: null }, [])).toMatchObject({ percent: null, seconds_left: null });
    expect(at({}, [chunk(0, null)])).toMatchObject({ percent: 0, seconds_left: null });
    expect(at({ chunks: 0 }, [])).toMatchObject({ percent: 100, seconds_left: 0 });
  });
});
