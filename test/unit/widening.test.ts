/** Which types hold all that others held, and what a copy keeps of the table that it replaces. */
import { describe, expect, test } from 'vitest';
import { carried, keyPairs } from '../../lib/load/carry.ts';
import { isWidening } from '../../lib/load/widening.ts';
import type { Column, Shape } from '../../lib/shape.ts';

const [INT2, INT4, INT8, FLOAT4, FLOAT8, TEXT, JSON_OID, JSONB, DATE] = [21, 23, 20, 700, 701, 25, 114, 3802, 1082];
const type = (type_oid: number | undefined = TEXT, type_modifier = -1) => ({ type_oid, type_modifier });
const varchar = (length: number) => type(1043, length + 4);
const numeric = (precision: number, scale: number) => type(1700, ((precision << 16) | (scale & 0x7ff)) + 4);

describe('a type', () => {
  test.each([
    ['int2 → int4', type(INT2), type(INT4)],
    ['int4 → int8', type(INT4), type(INT8)],
    ['int8 → numeric', type(INT8), type(1700)],
    ['int4 → text', type(INT4), type(TEXT)],
    ['date → varchar', type(DATE), type(1043)],
    ['float4 → float8', type(FLOAT4), type(FLOAT8)],
    ['varchar(10) → varchar(20)', varchar(10), varchar(20)],
    ['varchar(10) → varchar', varchar(10), type(1043)],
    ['numeric(8,2) → numeric(12,2)', numeric(8, 2), numeric(12, 2)],
    ['numeric(8,2) → numeric(10,4)', numeric(8, 2), numeric(10, 4)],
    ['numeric(8,2) → numeric', numeric(8, 2), type(1700)],
    ['numeric(3,-2) → numeric(5,0)', numeric(3, -2), numeric(5, 0)],
  ])('%s holds all', (_what, before, now) => {
    expect(isWidening(before, now)).toBe(true);
  });

  test.each([
    ['int8 → int4', type(INT8), type(INT4)],
    ['text → int4', type(TEXT), type(INT4)],
    ['int4 → numeric(8,2)', type(INT4), numeric(8, 2)],
    ['varchar(20) → varchar(10)', varchar(20), varchar(10)],
    ['varchar → varchar(10)', type(1043), varchar(10)],
    ['text → varchar(10)', type(TEXT), varchar(10)],
    ['numeric(8,2) → numeric(8,3)', numeric(8, 2), numeric(8, 3)],
    ['numeric(8,2) → numeric(12,1)', numeric(8, 2), numeric(12, 1)],
    ['numeric(3,-2) → numeric(4,0)', numeric(3, -2), numeric(4, 0)],
    ['float8 → float4', type(FLOAT8), type(FLOAT4)],
    ['json → jsonb', type(JSON_OID), type(JSONB)],
  ])('%s does not', (_what, before, now) => {
    expect(isWidening(before, now)).toBe(false);
  });
});

describe('what is carried into a copy', () => {
  const column = (name: string, number?: number, of = type(TEXT)): Column => ({
    name,
    ...of,
    ...(number === undefined ? {} : { number }),
  });
  const shape = (...columns: Column[]): Shape => ({ columns: [column('id', 1, type(INT4)), ...columns], key: [0] });
  const now_ms = Date.UTC(2026, 0, 2, 3, 4);
  const names = (table: Shape, plan: Shape, options = {}) =>
    carried(table, plan, { on_type_change: 'widen', on_drop_column: 'keep', gone_at_ms: null, now_ms, ...options }).map(
      ({ column: { name }, as }) => [name, as],
    );

  test('columns that are kept already, those that are dropped, and values that the new type does not hold', () => {
    const table = shape(
      column('wide', 2, type(INT4)),
      column('narrow', 3),
      column('dropped', 4),
      column('kept'),
      column('name'),
    );
    const plan = shape(column('wide', 2, type(INT8)), column('narrow', 3, type(INT4)), column('name', 5));
    expect(names(table, plan)).toEqual([
      ['narrow', 'narrow_20260102_0304'],
      ['dropped', 'dropped'],
      ['kept', 'kept'],
      ['name', 'name_20260102_0304'],
    ]);
    expect(names(table, plan, { on_drop_column: 'drop' }).map(([name]) => name)).toEqual(['narrow', 'kept', 'name']);
    expect(names(table, plan, { on_type_change: 'halt' }).map(([name]) => name)).toEqual(['dropped', 'kept', 'name']);
  });

  test('rows are the same by the same key, whatever it is called; by another they are not', () => {
    const renamed: Shape = { columns: [column('ident', 1, type(INT8)), column('v', 2)], key: [0] };
    expect(keyPairs(shape(column('v', 2)), renamed)).toEqual([{ old: 'id', now: 'ident', bySight: true }]);
    expect(keyPairs(shape(column('v', 2)), { ...renamed, key: [1] })).toBeNull();
    expect(keyPairs(shape(column('v', 2)), { ...renamed, key: [0, 1] })).toBeNull();
    expect(keyPairs({ ...shape(), key: [] }, { ...shape(), key: [] })).toBeNull();
  });
});
