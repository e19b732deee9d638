/** planChunks: which way a table is cut, and when it is not. That chunks cover everything is test/property/plan.test.ts's. */
import { describe, expect, test } from 'vitest';
import { type PlanRequest, planChunks, rangeColumn } from '../../lib/epoch/plan.ts';
import type { SourceTable } from '../../lib/ports.ts';

const INT4 = 23;
const INT8 = 20;
const TEXT = 25;

function table(overrides: Partial<SourceTable> = {}): SourceTable {
  const columns = [
    { name: 'id', type_oid: INT8, type_modifier: -1, not_null: true },
    { name: 'tenant', type_oid: INT4, type_modifier: -1, not_null: true },
    { name: 'name', type_oid: TEXT, type_modifier: -1, not_null: false },
  ];
  return {
    schema: 'public',
    table: 't',
    oid: 1,
    kind: 'r',
    persistence: 'p',
    replica_identity: 'd',
    columns,
    key: ['id'],
    may_select: true,
    row_security: false,
    rows_estimate: 1000,
    pages: 50,
    toasted: false,
    ...overrides,
  };
}

function plan(overrides: Partial<PlanRequest> = {}) {
  return planChunks({
    table: table(),
    version: 180_004,
    bounds: { min: '1', max: '1000' },
    chunk_rows: 250,
    chunks_max: 64,
    ...overrides,
  });
}

describe('an integer key', () => {
  test('is cut between its bounds, open at both ends', () => {
    expect(plan()).toEqual({
      may_overlap: false,
      ranges: [
        { by: 'key', columns: ['id'], from: null, to: ['251'] },
        { by: 'key', columns: ['id'], from: ['251'], to: ['501'] },
        { by: 'key', columns: ['id'], from: ['501'], to: ['751'] },
        { by: 'key', columns: ['id'], from: ['751'], to: null },
      ],
    });
  });

  test('that spans all of int8 is cut without losing a digit', () => {
    const { ranges } = plan({ bounds: { min: '-9223372036854775808', max: '9223372036854775807' } });
    expect(ranges.map((range) => range.by === 'key' && range.to)).toEqual([
      '-4611686018427387904',
      '0',
      '4611686018427387904',
      null,
    ]);
  });

  test('has no more chunks than values, and none where it has one value', () => {
    expect(plan({ bounds: { min: '7', max: '8' } }).ranges).toHaveLength(2);
    expect(plan({ table: table({ toasted: true }), bounds: { min: '7', max: '7' } }).ranges).toEqual([{ by: 'whole' }]);
  });

  test('that is sparse makes no more than chunks_max', () => {
    const sparse = table({ rows_estimate: 1e12 });
    expect(plan({ table: sparse, bounds: { min: '1', max: '1000000000000000' } }).ranges).toHaveLength(64);
  });
});

describe('any other key', () => {
  const byName = table({ key: ['name'] });

  test('is cut by ctid, the last chunk open', () => {
    expect(plan({ table: byName, bounds: null })).toEqual({
      may_overlap: true,
      ranges: [
        { by: 'ctid', from: null, to: '(12,0)' },
        { by: 'ctid', from: '(12,0)', to: '(25,0)' },
        { by: 'ctid', from: '(25,0)', to: '(37,0)' },
        { by: 'ctid', from: '(37,0)', to: null },
      ],
    });
  });

  test('is not cut before 14, where each chunk would read the whole table', () => {
    expect(plan({ table: byName, bounds: null, version: 130_022 }).ranges).toEqual([{ by: 'whole' }]);
  });

  test('is not cut by ctid where a row that moves may be incomplete in the log', () => {
    for (const toasted of [true, undefined]) {
      const moving = { ...byName, toasted } as SourceTable;
      expect(plan({ table: moving, bounds: null }).ranges).toEqual([{ by: 'whole' }]);
      expect(plan({ table: { ...moving, replica_identity: 'f' }, bounds: null }).may_overlap).toBe(true);
    }
  });

  test('of several columns is cut by ctid, or by the first where that is an integer', () => {
    const composite = table({ key: ['tenant', 'name'] });
    const bounds = { min: '1', max: '3' };
    expect(plan({ table: composite, bounds }).ranges[0]?.by).toBe('ctid');
    expect(plan({ table: { ...composite, toasted: true }, bounds }).ranges).toEqual([
      { by: 'key', columns: ['tenant'], from: null, to: ['2'] },
      { by: 'key', columns: ['tenant'], from: ['2'], to: ['3'] },
      { by: 'key', columns: ['tenant'], from: ['3'], to: null },
    ]);
  });
});

describe('a small table', () => {
  test.each([
    ['empty', { rows_estimate: 0, pages: 0 }],
    ['never analysed and empty', { rows_estimate: -1, pages: 0 }],
    ['of one chunk', { rows_estimate: 250 }],
  ])('%s is read whole', (_, size) => {
    expect(plan({ table: table(size), bounds: null }).ranges).toEqual([{ by: 'whole' }]);
  });

  test('a table that was never analysed is judged by its pages', () => {
    expect(plan({ table: table({ rows_estimate: -1, pages: 10 }) }).ranges).toHaveLength(4);
  });
});

test('rangeColumn is the first column of the key, where it is an integer', () => {
  expect(rangeColumn(table())).toBe('id');
  expect(rangeColumn(table({ key: ['tenant', 'name'] }))).toBe('tenant');
  expect(rangeColumn(table({ key: ['name', 'id'] }))).toBeNull();
  expect(rangeColumn(table({ key: [] }))).toBeNull();
});
