/**
 * planChunks: which way a table is cut, and when it is not. That chunks cover everything is test/property/plan.test.ts's, and test/pg/plan.test.ts's
 * on real servers.
 */
import { describe, expect, test } from 'vitest';
import { mayBeCut, type PlanRequest, type PlanWays, planChunks, rangeColumns } from '../../lib/epoch/plan.ts';
import type { SourceTable, TableSample } from '../../lib/ports.ts';
import type { SourceType } from '../../lib/shape.ts';

const INT4 = 23;
const INT8 = 20;
const TEXT = 25;
const UUID = 2950;
const REGCLASS = 2205;
const LOGGED: PlanWays = { is_logged: true };

function column(name: string, type_oid: number, type?: SourceType) {
  return { name, type_oid, type_modifier: -1, not_null: true, ...(type === undefined ? {} : { type }) };
}

function table(overrides: Partial<SourceTable> = {}): SourceTable {
  return {
    schema: 'public',
    table: 't',
    oid: 1,
    kind: 'r',
    persistence: 'p',
    replica_identity: 'd',
    columns: [column('id', INT8), column('tenant', INT4), { ...column('name', TEXT), not_null: false }],
    key: ['id'],
    may_select: true,
    row_security: false,
    rows_estimate: 1000,
    pages: 50,
    toasted: false,
    ...overrides,
  };
}

const SAMPLE: TableSample = {
  version: 180_004,
  rows: 1000,
  bytes: 400_000,
  pages: 50,
  chunks: 4,
  edges: [['251'], ['501'], ['751']],
  correlation: 1,
};

function plan({ sample = {}, ...overrides }: Partial<Omit<PlanRequest, 'sample'>> & { sample?: Partial<TableSample> }) {
  return planChunks({
    table: table(),
    ways: LOGGED,
    ...overrides,
    sample: { ...SAMPLE, ...sample },
  });
}

const BY_KEY = {
  may_overlap: false,
  ranges: [
    { by: 'key', columns: ['id'], from: null, to: ['251'] },
    { by: 'key', columns: ['id'], from: ['251'], to: ['501'] },
    { by: 'key', columns: ['id'], from: ['501'], to: ['751'] },
    { by: 'key', columns: ['id'], from: ['751'], to: null },
  ],
};
const BY_CTID = {
  may_overlap: true,
  ranges: [
    { by: 'ctid', from: null, to: '(12,0)' },
    { by: 'ctid', from: '(12,0)', to: '(25,0)' },
    { by: 'ctid', from: '(25,0)', to: '(37,0)' },
    { by: 'ctid', from: '(37,0)', to: null },
  ],
};
const WHOLE = { may_overlap: false, ranges: [{ by: 'whole' }] };

describe('a table is cut', () => {
  test('at the edges of its key, open at both ends', () => {
    expect(plan({})).toEqual(BY_KEY);
    expect(plan({ sample: { correlation: -0.99 } })).toEqual(BY_KEY);
    expect(plan({ sample: { correlation: null } })).toEqual(BY_KEY);
  });

  test('by ctid where ranges of its key would lie all over it', () => {
    expect(plan({ sample: { correlation: 0.02 } })).toEqual(BY_CTID);
    expect(plan({ sample: { correlation: -0.2 } })).toEqual(BY_CTID);
  });

  test('by ctid where its key has no order of its own', () => {
    expect(plan({ table: table({ columns: [column('id', REGCLASS)] }), sample: { edges: [] } })).toEqual(BY_CTID);
  });
});

describe('by ctid it is not cut', () => {
  const random = { correlation: 0 };

  test('before 14, where each chunk would read the whole table', () => {
    expect(plan({ sample: { ...random, version: 130_022 } })).toEqual(BY_KEY);
  });

  test('where a row that moves may be incomplete in the log', () => {
    for (const toasted of [true, undefined]) {
      const moving = { ...table(), toasted } as SourceTable;
      expect(plan({ sample: random, table: moving })).toEqual(BY_KEY);
      expect(plan({ sample: random, table: { ...moving, replica_identity: 'f' } })).toEqual(BY_CTID);
    }
  });

  test('where there is no log to bring what moves, or ranges of keys are asked for', () => {
    expect(plan({ sample: random, ways: { is_logged: false } })).toEqual(BY_KEY);
    expect(plan({ sample: random, ways: { is_logged: true, only_keys: true } })).toEqual(BY_KEY);
  });

  test('where it is partitioned: each partition has pages of its own', () => {
    expect(plan({ sample: random, table: table({ kind: 'p' }) })).toEqual(BY_KEY);
  });
});

describe('a table is one chunk', () => {
  test.each([
    ['without a key', table({ key: [] })],
    ['a view', table({ kind: 'v' })],
    ['a materialized view', table({ kind: 'm' })],
    ['a foreign table', table({ kind: 'f' })],
  ])('%s', (_, uncut) => {
    expect(mayBeCut({ table: uncut, ways: LOGGED })).toBe(false);
    expect(plan({ table: uncut })).toEqual(WHOLE);
  });

  test('that is small, that nobody looked into, or that has no rows in all its pages', () => {
    expect(plan({ sample: { chunks: 1 } })).toEqual(WHOLE);
    expect(planChunks({ table: table(), sample: null, ways: LOGGED })).toEqual(WHOLE);
    expect(plan({ sample: { edges: [] }, ways: { is_logged: false } })).toEqual(WHOLE);
    expect(plan({ sample: { pages: 1, correlation: 0, edges: [] } })).toEqual(WHOLE);
  });
});

describe('rangeColumns', () => {
  test('are those of the key, in its order, up to the first that has no order to be compared by', () => {
    const columns = [column('a', TEXT), column('b', UUID), column('r', REGCLASS), column('c', INT4)];
    expect(rangeColumns(table({ columns, key: ['b', 'a'] }))).toEqual(['b', 'a']);
    expect(rangeColumns(table({ columns, key: ['c', 'r', 'a'] }))).toEqual(['c']);
    expect(rangeColumns(table({ columns, key: ['r', 'a'] }))).toEqual([]);
    expect(rangeColumns(table({ columns, key: [] }))).toEqual([]);
  });

  test('are no columns without NOT NULL, and none whose values are masked: bounds lie in the ledger', () => {
    const columns = [column('a', TEXT), { ...column('b', UUID), not_null: false }, column('c', INT4)];
    expect(rangeColumns(table({ columns, key: ['a', 'b', 'c'] }))).toEqual(['a']);
    const masked = columns.map((known) => (known.name === 'c' ? { ...known, mask: 'hash' as const } : known));
    expect(rangeColumns(table({ columns: masked, key: ['a', 'c'] }))).toEqual(['a']);
    expect(rangeColumns(table({ columns: masked, key: ['c', 'a'] }))).toEqual([]);
  });

  test('may be enums and domains, not types that are compared by operators of their own', () => {
    const name = { schema: 'public', name: 'x' };
    const base = { type_oid: INT4, type_modifier: -1 };
    const is = (type: SourceType) => rangeColumns(table({ columns: [column('id', 20_000, type)] })).length === 1;
    expect(is({ ...name, kind: 'enum', labels: ['a'] })).toBe(true);
    expect(is({ ...name, kind: 'domain', base })).toBe(true);
    expect(is({ ...name, kind: 'domain', base: { ...base, type_oid: REGCLASS } })).toBe(false);
    expect(is({ ...name, kind: 'named', extension: 'citext' })).toBe(false);
    expect(is({ ...name, kind: 'composite', attributes: [] })).toBe(false);
    expect(is({ kind: 'array', element: base })).toBe(false);
  });
});
