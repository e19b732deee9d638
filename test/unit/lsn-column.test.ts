/**
 * `_sdc_lsn` (source.debug_lsn): what the fold writes of it, and what becomes of the target's column when segments have it, have it no longer, or never had it.
 */
import { describe, expect, test } from 'vitest';
import { Tuple, VALUE } from '../../lib/change.ts';
import { Arena } from '../../lib/cut/arena.ts';
import { Fold } from '../../lib/cut/fold.ts';
import { SluiceError } from '../../lib/errors.ts';
import { reshapeTable } from '../../lib/load/reshape-table.ts';
import { lsnOf } from '../../lib/lsn.ts';
import { LSN_COLUMN, withLsnColumn, withoutLsnColumn } from '../../lib/lsn-column.ts';
import { joined } from '../../lib/piece.ts';
import type { Shape } from '../../lib/shape.ts';
import { shapeOf } from '../support/segments.ts';

const SHAPE = shapeOf({ id: 'int4', v: 'text', big: 'text' }, ['id']);
const OWN = withLsnColumn(SHAPE);

/** `undefined` is unchanged (I7). */
function tuple(...values: readonly (string | null | undefined)[]): Tuple {
  const row = new Tuple();
  row.bytes = Buffer.from(values.map((value) => value ?? '').join(''));
  row.count = values.length;
  let at = 0;
  for (const [i, value] of values.entries()) {
    row.kind[i] = value === undefined ? VALUE.unchanged : value === null ? VALUE.null : VALUE.text;
    row.start[i] = at;
    at += Buffer.byteLength(value ?? '');
    row.end[i] = at;
  }
  return row;
}

const NO_OLD = tuple();

function blocksOf(fold: Fold): Record<string, { columns: readonly number[]; text: string }> {
  return Object.fromEntries(
    fold.blocks().map(({ kind, columns, pieces }) => [kind, { columns, text: joined(pieces).toString() }]),
  );
}

function foldOf(shape: Shape, keepsDeleted = false): Fold {
  return new Fold(new Arena(1024 * 1024), shape, keepsDeleted);
}

describe('the fold', () => {
  test('a row has the position of its last change, whole or not, merged or not', () => {
    const fold = foldOf(OWN);
    fold.commit_lsn = lsnOf(0x10n);
    fold.insert(tuple('1', 'a', 'x'));
    fold.insert(tuple('2', 'b', 'y'));
    fold.commit_lsn = lsnOf(0x1_0000_0020n);
    fold.update('none', NO_OLD, tuple('1', 'c', undefined)); // merged with its whole line
    fold.update('none', NO_OLD, tuple('3', 'd', undefined)); // partial
    fold.commit_lsn = lsnOf(0x1_0000_0030n);
    fold.update('none', NO_OLD, tuple('3', 'e', undefined)); // merged with its partial line
    expect(blocksOf(fold)).toEqual({
      insert: { columns: [0, 1, 2, 3], text: '1\tc\tx\t1/20\n2\tb\ty\t0/10\n' },
      update: { columns: [0, 1, 3], text: '3\te\t1/30\n' },
    });
  });

  test('a deletion has its own, before its time; a change of key has it in both', () => {
    const fold = foldOf(OWN, true);
    fold.committedAt_us = 0;
    fold.commit_lsn = lsnOf(1n);
    fold.delete(tuple('7', null, null), 0);
    fold.commit_lsn = lsnOf(2n);
    fold.delete(tuple('8', null, null), 0);
    fold.update('key', tuple('9', null, null), tuple('10', 'z', undefined));
    expect(blocksOf(fold)).toEqual({
      rekey: { columns: [0, 1, 3], text: '9\t10\tz\t0/2\n' },
      delete: {
        columns: [0, 3],
        text: ['7\t0/1', '8\t0/2', '9\t0/2'].map((line) => `${line}\t1970-01-01 00:00:00.000000+00\n`).join(''),
      },
    });
  });

  test('many deletions, each of a transaction of its own', () => {
    const fold = foldOf(OWN);
    for (let i = 1; i <= 500; i++) {
      fold.commit_lsn = lsnOf(BigInt(i));
      fold.delete(tuple(String(i), null, null), 0);
    }
    const lines = blocksOf(fold).delete?.text.split('\n').slice(0, -1) ?? [];
    expect(lines.map((line) => line.split('\t').slice(0, 2).join(' '))).toEqual(
      Array.from({ length: 500 }, (_, i) => `${i + 1} 0/${(i + 1).toString(16).toUpperCase()}`),
    );
  });

  test('a shape without it has none of it', () => {
    const fold = foldOf(SHAPE);
    fold.commit_lsn = lsnOf(16n);
    fold.insert(tuple('1', 'a', 'x'));
    fold.delete(tuple('2', null, null), 0);
    expect(blocksOf(fold)).toEqual({
      delete: { columns: [0], text: '2\t1970-01-01 00:00:00.000000+00\n' },
      insert: { columns: [0, 1, 2], text: '1\ta\tx\n' },
    });
  });
});

describe('the target', () => {
  const asked = {
    stream: 'public.t',
    described: undefined,
    on_type_change: 'widen',
    on_drop_column: 'keep',
    now_ms: 0,
  } as const;
  const on = (table: Shape, segment: Shape, more: { catching_up?: boolean; is_copy?: boolean } = {}) =>
    reshapeTable({ ...asked, table, segment, catching_up: false, is_copy: false, ...more });

  test('gets the column with the first segment that has it, also while it catches up', () => {
    for (const catching_up of [false, true]) {
      const { steps, shape, names, is_changed } = on(SHAPE, OWN, { catching_up });
      expect(steps).toEqual([{ kind: 'add', column: LSN_COLUMN, missing: null }]);
      expect(shape.columns.at(-1)).toEqual(LSN_COLUMN);
      expect([names, is_changed]).toEqual([['id', 'v', 'big', '_sdc_lsn'], true]);
    }
  });

  test('keeps it, and what else happens happens beside it', () => {
    const { steps, shape, names, is_changed } = on(OWN, OWN);
    expect([steps, names, is_changed]).toEqual([[], ['id', 'v', 'big', '_sdc_lsn'], false]);
    expect(shape.key).toEqual([0]);
    expect(shape.columns.at(-1)).toEqual(LSN_COLUMN);
  });

  test('drops it with the first segment that has it no longer, whatever on_drop_column says; not for a copy, and not for what may be older', () => {
    const { steps, shape, is_changed } = on(OWN, SHAPE);
    expect([steps, is_changed]).toEqual([[{ kind: 'drop', name: '_sdc_lsn' }], true]);
    expect(shape.columns.map(({ name }) => name)).toEqual(['id', 'v', 'big']);
    for (const more of [{ catching_up: true }, { is_copy: true }]) {
      const kept = on(OWN, SHAPE, more);
      expect([kept.steps, kept.names]).toEqual([[], ['id', 'v', 'big']]);
      expect(kept.shape.columns.at(-1)).toEqual(LSN_COLUMN);
    }
  });

  test('halts where a column of the source has its name; and without the option that is a column as any other', () => {
    const taken = shapeOf({ id: 'int4', _sdc_lsn: 'text' }, ['id']);
    const fault = (): unknown => on(taken, withLsnColumn(taken));
    expect(fault).toThrow(SluiceError);
    expect(fault).toThrow(/_sdc_lsn/);
    expect(on(taken, taken).steps).toEqual([]);
    expect(withoutLsnColumn(taken)).toBe(taken);
  });
});
