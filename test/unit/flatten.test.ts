/**
 * Which columns stand beside json columns, what they are called, and what a change of the table means for them (target.data_flattening_max_level).
 */
import { describe, expect, test } from 'vitest';
import {
  FLATTENED_COLUMNS_MAX,
  type FoundKey,
  flattenedNames,
  grown,
  jsonColumnsOf,
  knownAgain,
  NONE,
  nameOf,
  type SeenKind,
  withKept,
} from '../../lib/load/flatten.ts';
import { reshapeFlattened } from '../../lib/load/flatten-reshape.ts';
import { valueSql } from '../../lib/load/flatten-sql.ts';
import type { Step } from '../../lib/load/reshape.ts';
import type { Column, Flattened, FlattenedColumn, Shape } from '../../lib/shape.ts';

const JSONB = 3802;
const TEXT = 25;

function column(name: string, number?: number, type_oid = JSONB): Column {
  return { name, type_oid, type_modifier: -1, ...(number === undefined ? {} : { number }) };
}

const found = (path: string[], ...kinds: SeenKind[]): FoundKey => ({ of: 'd', path, kinds });
const beside = (name: string, path: string[], of = 'd'): FlattenedColumn => ({
  name,
  of,
  path,
  kind: 'text',
  objects: false,
});
const free = { taken: new Set<string>(), room: 1000 };
const kindsOf = ({ columns }: Flattened): Record<string, string> =>
  Object.fromEntries(columns.map(({ name, kind }) => [name, kind]));

describe('grown', () => {
  test('a kind has its type; kinds that differ, at once or later, are text', () => {
    const first = grown(
      NONE,
      [
        found(['s'], 'string'),
        found(['n'], 'number'),
        found(['a'], 'array', 'object'),
        found(['m'], 'number', 'boolean'),
      ],
      free,
    );
    expect(kindsOf(first.flattened)).toEqual({ d__s: 'text', d__n: 'numeric', d__a: 'jsonb', d__m: 'text' });
    const later = grown(
      first.flattened,
      [found(['n'], 'string'), found(['a'], 'array'), found(['s'], 'boolean')],
      free,
    );
    expect(later.retyped.map(({ name, kind }) => [name, kind])).toEqual([['d__n', 'text']]);
    expect(later.added).toEqual([]);
    // Once text, always text.
    expect(grown(later.flattened, [found(['n'], 'number')], free)).toEqual({
      flattened: later.flattened,
      added: [],
      retyped: [],
    });
  });

  test('an object needs no column where its own keys have some', () => {
    const { flattened } = grown(NONE, [found(['o', 'x'], 'number')], free);
    expect(grown(flattened, [found(['o'], 'object')], free).flattened).toEqual(flattened);
    expect(kindsOf(grown(flattened, [found(['o'], 'object', 'string')], free).flattened)).toEqual({
      d__o__x: 'numeric',
      d__o: 'text',
    });
  });

  test('no more columns than may be, and no more than there is room for; those that are known go on to grow', () => {
    const many = Array.from({ length: FLATTENED_COLUMNS_MAX + 5 }, (_, i) => found([`k${i}`], 'number'));
    const full = grown(NONE, many, free).flattened;
    expect(full.columns).toHaveLength(FLATTENED_COLUMNS_MAX);
    expect(full.is_full).toBe(true);
    expect(grown(full, [found(['k0'], 'string')], free).retyped).toHaveLength(1);
    expect(grown(NONE, many, { ...free, room: 3 }).flattened).toMatchObject({ columns: { length: 3 }, is_full: true });
    expect(grown(NONE, many.slice(0, FLATTENED_COLUMNS_MAX), free).flattened.is_full).toBe(false);
  });

  test('two keys of one name, and names that the table has', () => {
    const { flattened } = grown(
      NONE,
      [found(['a__b'], 'number'), found(['a', 'b'], 'number'), found(['t'], 'number')],
      { taken: new Set(['d__t']), room: 10 },
    );
    expect(flattened.columns.map(({ name }) => name)).toEqual([
      'd__a__b',
      expect.stringMatching(/^d__a__b_[0-9a-f]{8}$/),
      expect.stringMatching(/^d__t_[0-9a-f]{8}$/),
    ]);
  });
});

describe('nameOf', () => {
  test('is never longer than PostgreSQL takes, cut between characters, and told apart by the key', () => {
    const [a, b] = ['1', '2'].map((end) => nameOf('d', [`${'é'.repeat(60)}${end}`], new Set()));
    expect(a).toMatch(/^d__é{25}_[0-9a-f]{8}$/);
    expect(a).not.toBe(b);
    expect(nameOf('d', ['x'.repeat(60)], new Set())).toBe(`d__${'x'.repeat(60)}`);
    expect(nameOf('d', [`${'é'.repeat(60)}1`], new Set([a ?? '']))).not.toBe(a);
  });

  test('a name that was given before goes first, where it is free', () => {
    expect(nameOf('d', ['a'], new Set(), 'former')).toBe('former');
    expect(nameOf('d', ['a'], new Set(['former']), 'former')).toBe('d__a');
  });
});

test('valueSql quotes whatever a key is, and looks into objects only', () => {
  const sql = valueSql({ ...beside('c', ["it's", 'back\\slash', '"']), kind: 'numeric' }, 'j');
  expect(sql).toBe(
    `CASE WHEN jsonb_typeof(j -> 'it''s'::text ->  E'back\\\\slash'::text -> '"'::text) = 'number' THEN (j -> 'it''s'::text ->  E'back\\\\slash'::text ->> '"'::text)::numeric END`,
  );
});

const shapeOf = (columns: Column[], flattened: FlattenedColumn[]): Shape => ({
  columns,
  key: [],
  flattened: { level: 2, columns: flattened, is_full: false },
});

test('jsonColumnsOf: json, jsonb and domains over them; not what is computed, kept since it was dropped, or an array of json', () => {
  const base = { type_oid: 114, type_modifier: -1 };
  const domain = { ...column('domain', 3, 20_000), type: { kind: 'domain', schema: 's', name: 'n', base } } as const;
  const computed = { ...column('computed', 5), expression: 'x', storage: 's' } as const;
  const columns = [
    column('b', 1),
    column('j', 2, 114),
    domain,
    column('kept'),
    computed,
    column('array', 6, 3807),
    column('t', 7, TEXT),
  ];
  expect(jsonColumnsOf({ columns, key: [], generated: [computed] })).toEqual([
    { name: 'b', type: 'jsonb' },
    { name: 'j', type: 'json' },
    { name: 'domain', type: 'json' },
  ]);
});

describe('reshapeFlattened', () => {
  const before = shapeOf([column('d', 1), column('e', 2)], [beside('d__a', ['a']), beside('e__a', ['a'], 'e')]);
  const names = (shape: Shape): string[][] => [shape.columns.map(({ name }) => name), flattenedNames(shape)];
  const after = (columns: Column[]): Shape => ({ ...before, columns });

  test('names follow, also where two json columns exchange theirs', () => {
    const renamed = reshapeFlattened(
      before,
      after([column('info', 1), column('e', 2)]),
      [{ kind: 'rename', from: 'd', to: 'info' }],
      0,
    );
    expect(names(renamed.shape)).toEqual([
      ['info', 'e'],
      ['info__a', 'e__a'],
    ]);
    expect(renamed.steps).toEqual([{ kind: 'rename', from: 'd__a', to: 'info__a' }]);
    const steps: Step[] = [
      { kind: 'rename', from: 'd', to: 'p' },
      { kind: 'rename', from: 'e', to: 'd' },
      { kind: 'rename', from: 'p', to: 'e' },
    ];
    const swapped = reshapeFlattened(before, after([column('e', 1), column('d', 2)]), steps, 0);
    expect(names(swapped.shape)[1]).toEqual(['e__a', 'd__a']);
    expect(swapped.steps.length).toBe(4);
  });

  test('a column of the source takes its name', () => {
    const { shape, steps } = reshapeFlattened(
      before,
      after([...before.columns, column('d__a', 3, TEXT)]),
      [{ kind: 'add', column: column('d__a', 3, TEXT), missing: null }],
      0,
    );
    expect(flattenedNames(shape)).toEqual([expect.stringMatching(/^d__a_[0-9a-f]{8}$/), 'e__a']);
    expect(steps).toEqual([{ kind: 'rename', from: 'd__a', to: flattenedNames(shape)[0] }]);
  });

  test('go with a json column, stay with one that is kept, and make way with one that makes way', () => {
    const gone = reshapeFlattened(before, after([column('e', 2)]), [{ kind: 'drop', name: 'd' }], 0);
    expect(names(gone.shape)).toEqual([['e'], ['e__a']]);
    expect(gone.steps).toEqual([{ kind: 'drop', name: 'd__a' }]);
    const kept = reshapeFlattened(before, after([column('d'), column('e', 2)]), [], 0);
    expect(names(kept.shape)).toEqual([['d', 'e', 'd__a'], ['e__a']]);
    expect(kept.steps).toEqual([]);
    const away = reshapeFlattened(
      before,
      after([column('d_old'), column('e', 2), column('d', 3)]),
      [
        { kind: 'rename', from: 'd', to: 'd_old' },
        { kind: 'add', column: column('d', 3), missing: null },
      ],
      0,
    );
    expect(names(away.shape)).toEqual([['d_old', 'e', 'd', 'd__a_19700101_0000'], ['e__a']]);
  });

  test('go where their column is no longer json, and nothing is done where nothing has changed', () => {
    const text = reshapeFlattened(
      before,
      after([column('d', 1, TEXT), column('e', 2)]),
      [{ kind: 'retype', before: column('d', 1), column: column('d', 1, TEXT) }],
      0,
    );
    expect(text.steps).toEqual([{ kind: 'drop', name: 'd__a' }]);
    expect(reshapeFlattened(before, before, [], 0)).toEqual({ steps: [], shape: before });
  });
});

describe('a table that is copied anew', () => {
  const before = shapeOf(
    [column('d', 1), column('e', 2)],
    [beside('d__a', ['a']), beside('d__a__b', ['a', 'b']), beside('e__a', ['a'], 'e')],
  );

  test('has the columns that it had, down to the level, under the names of its json columns', () => {
    const now = { columns: [column('renamed', 1), column('e', 2, TEXT)], key: [] };
    expect(knownAgain(before, now, 1).map(({ of, name }) => [of, name])).toEqual([['renamed', 'renamed__a']]);
    // By name where a view was made anew.
    expect(knownAgain(before, { columns: [column('e', 1), column('d', 2)], key: [] }, 2).map(({ of }) => of)).toEqual([
      'd',
      'd',
      'e',
    ]);
  });

  test('keeps what stands beside a dropped column as it keeps the column, but nothing of one that is hidden', () => {
    const kept = withKept(before, { columns: [column('e', 2)], key: [] });
    expect(kept.columns.map(({ name }) => name)).toEqual(['d', 'e', 'd__a', 'd__a__b']);
    expect(withKept(before, { columns: [column('e', 2)], key: [], hidden: [1] })).toBe(before);
  });
});
