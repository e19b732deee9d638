/**
 * Goal: a type of the target follows the source's, and nothing is guessed. Method: definitions before and after, and the statements between them.
 */
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { generatedSql } from '../../lib/load/generated.ts';
import { isInexact } from '../../lib/load/sql.ts';
import { lostAttribute, renamedLabels, typesDiffer } from '../../lib/load/type-history.ts';
import { type FoundType, gapsBetween, type MadeType, type Moment, stepsTo } from '../../lib/load/type-steps.ts';
import { mayChangeUnseen, type Shape, type SourceType } from '../../lib/shape.ts';
import { assembleTypes, type TypeRow } from '../../lib/slot/types.ts';

const NAME = { schema: 'shop', name: 'mo"od' } as const;
const SQL = '"shop"."mo""od"';

const enumOf = (...labels: string[]): MadeType => ({ ...NAME, kind: 'enum', labels });
const compositeOf = (...names: string[]): MadeType => ({
  ...NAME,
  kind: 'composite',
  attributes: names.map((name) => ({ name, type_oid: 23, type_modifier: -1 })),
});
const found = (change: Partial<FoundType>): FoundType => ({
  oid: '20000',
  kind: 'e',
  array: '20001',
  labels: null,
  attributes: null,
  base: null,
  ...change,
});

const COPY: Moment = { at: 'copy', renamed: [] };
const CHANGE: Moment = { at: 'change', renamed: [] };

const steps = (type: MadeType, has: FoundType | null, parts: readonly string[] = [], moment = COPY): unknown => {
  try {
    const { together, alone } = stepsTo('s', type, parts, has, moment);
    return [...together, ...alone];
  } catch (error) {
    return error instanceof SluiceError ? error.code : error;
  }
};

describe('enums', () => {
  const labels = (has: readonly string[], ...wanted: string[]): unknown =>
    steps(enumOf(...wanted), found({ labels: has }));

  test.each<[string, readonly string[], readonly string[], readonly string[]]>([
    ['the same', ['a', 'b'], ['a', 'b'], []],
    ['behind the last', ['a'], ['a', 'b', 'c'], ["'b' AFTER 'a'", "'c' AFTER 'b'"]],
    ['before the first', ['b'], ['a', 'b'], ["'a' BEFORE 'b'"]],
    ['two before the first', ['c'], ['a', 'b', 'c'], ["'a' BEFORE 'c'", "'b' AFTER 'a'"]],
    ['between', ['a', 'c'], ['a', 'b', 'c'], ["'b' AFTER 'a'"]],
    ['to one without labels', [], ['a', 'b'], ["'a'", "'b' AFTER 'a'"]],
    ['older than the target’s: nothing is taken away', ['a', 'b', 'c'], ['a', 'c'], []],
    ['quotes and backslashes', ["it's"], ["it's", 'a\\b'], [" E'a\\\\b' AFTER 'it''s'"]],
  ])('a label: %s', (_, has, wanted, expected) => {
    const sql = expected.map((place) => `ALTER TYPE ${SQL} ADD VALUE IF NOT EXISTS ${place}`);
    expect(labels(has, ...wanted)).toEqual(sql);
  });

  test('what may be a renamed label, other labels and another order halt', () => {
    expect(labels(['a', 'b', 'c'], 'a', 'x', 'c')).toBe('TYPE_UNFOLLOWED');
    expect(labels(['a', 'b'], 'x', 'y')).toBe('TYPE_TAKEN');
    expect(labels(['b', 'a'], 'a', 'b')).toBe('TYPE_TAKEN');
    expect(steps(enumOf('a'), found({ kind: 'd', base: 'integer' }))).toBe('TYPE_TAKEN');
  });

  test('a label that is known to have been renamed', () => {
    const renamed = [{ type: NAME, from: 'a', to: 'x' }];
    const at = (has: readonly string[], moment: Partial<Moment>): unknown =>
      steps(enumOf('x', 'b'), found({ labels: has }), [], { ...CHANGE, renamed, ...moment });
    expect(at(['a', 'b'], {})).toEqual([`ALTER TYPE ${SQL} RENAME VALUE 'a' TO 'x'`]);
    expect(at(['x', 'b'], {})).toEqual([]);
    expect(at(['a', 'b'], { renamed: [{ type: { schema: 's', name: 'other' }, from: 'a', to: 'x' }] })).toBe(
      'TABLE_REWRITTEN',
    );
  });

  test('a halt names both SQLs', () => {
    const halted = (): unknown => stepsTo('s', enumOf('x', 'b'), [], found({ labels: ['a', 'b'] }), COPY);
    expect(halted).toThrow(/label x stands where the target has a/);
    try {
      halted();
    } catch (error) {
      const { remedy } = error as SluiceError;
      expect(remedy).toContain(`ALTER TYPE ${SQL} RENAME VALUE 'a' TO 'x'`);
      expect(remedy).toContain(`ADD VALUE 'x' AFTER 'a'`);
    }
  });
});

describe('composites', () => {
  const attributes = (has: readonly string[], ...wanted: string[]): unknown =>
    steps(
      compositeOf(...wanted),
      found({ kind: 'c', attributes: has.map((name) => [name, 'integer'] as const) }),
      wanted.map(() => 'integer'),
    );

  test.each<[string, readonly string[], readonly string[], unknown]>([
    ['the same', ['a', 'b'], ['a', 'b'], []],
    ['added', ['a'], ['a', 'b', 'c'], ['ADD ATTRIBUTE "b" integer, ADD ATTRIBUTE "c" integer']],
    ['dropped', ['a', 'b', 'c'], ['a', 'c'], ['DROP ATTRIBUTE "b"']],
    ['dropped and added', ['a', 'b', 'c'], ['a', 'c', 'd'], ['DROP ATTRIBUTE "b", ADD ATTRIBUTE "d" integer']],
    ['renamed before another', ['a', 'b'], ['x', 'b'], ['RENAME ATTRIBUTE "a" TO "x"']],
    ['renamed or another, at the end', ['a', 'b'], ['a', 'x'], 'TYPE_UNFOLLOWED'],
    ['in another order', ['a', 'b'], ['b', 'a'], 'TYPE_TAKEN'],
    ['one of two replaced at the end', ['a', 'b', 'c'], ['a', 'x'], 'TYPE_UNFOLLOWED'],
    ['not its last', ['b'], ['a', 'b'], 'TYPE_TAKEN'],
  ])('an attribute: %s', (_, has, wanted, expected) => {
    const sql = Array.isArray(expected) ? expected.map((action) => `ALTER TYPE ${SQL} ${action}`) : expected;
    expect(attributes(has, ...wanted)).toEqual(sql);
  });

  test('beside changes nothing is taken away: the definition may be the older one', () => {
    const has = found({ kind: 'c', attributes: ['a', 'b', 'c'].map((name) => [name, 'integer'] as const) });
    const at = (...wanted: string[]): unknown =>
      steps(
        compositeOf(...wanted),
        has,
        wanted.map(() => 'integer'),
        CHANGE,
      );
    expect(at('a')).toEqual([]);
    expect(at('a', 'c')).toEqual([]);
    expect(at('z', 'a')).toBe('TABLE_REWRITTEN');
    expect(at('a', 'b', 'x')).toBe('TABLE_REWRITTEN');
  });

  test('one of another type at the end cannot be the same', () => {
    const has = found({
      kind: 'c',
      attributes: [
        ['a', 'integer'],
        ['b', 'integer'],
      ],
    });
    expect(steps(compositeOf('a', 'x'), has, ['integer', 'text'])).toEqual([
      `ALTER TYPE ${SQL} DROP ATTRIBUTE "b", ADD ATTRIBUTE "x" text`,
    ]);
  });

  test('another type under a name, and the row of a table, are taken', () => {
    const has = found({ kind: 'c', attributes: [['a', 'text']] });
    expect(steps(compositeOf('a'), has, ['integer'])).toBe('TYPE_TAKEN');
    expect(steps(compositeOf('a'), found({ kind: 'c' }), ['integer'])).toBe('TYPE_TAKEN');
  });
});

test('what is missing is made; a domain over another base is taken', () => {
  const domain: MadeType = { ...NAME, kind: 'domain', base: { type_oid: 1700, type_modifier: -1 } };
  expect(steps(domain, null, ['numeric(10,2)'])).toEqual([`CREATE DOMAIN ${SQL} AS numeric(10,2)`]);
  expect(steps(domain, found({ kind: 'd', base: 'numeric(10,2)' }), ['numeric(10,2)'])).toEqual([]);
  expect(steps(domain, found({ kind: 'd', base: 'text' }), ['numeric(10,2)'])).toBe('TYPE_TAKEN');
  expect(steps(enumOf('a', "b'"), null)).toEqual([`CREATE TYPE ${SQL} AS ENUM ('a', 'b''')`]);
  expect(steps(compositeOf('a', 'b'), null, ['integer', 'text[]'])).toEqual([
    `CREATE TYPE ${SQL} AS ("a" integer, "b" text[])`,
  ]);
});

test('gaps between two lists', () => {
  expect(gapsBetween(['a', 'k', 'b'], ['x', 'k'])).toEqual([
    { has: ['a'], wanted: ['x'], last: false },
    { has: ['b'], wanted: [], last: true },
  ]);
  expect(gapsBetween(['a', 'b'], ['b', 'a'])).toBeNull();
  expect(gapsBetween([], [])).toEqual([]);
});

describe('history', () => {
  const shapeOf = (type: SourceType): Shape => {
    const element = { type_oid: 20_000, type_modifier: -1, type };
    const array: SourceType = { kind: 'array', element };
    return { columns: [{ name: 'c', type_oid: 20_001, type_modifier: -1, type: array }], key: [] };
  };
  const labels = (before: readonly string[], now: readonly string[]): unknown =>
    renamedLabels(shapeOf(enumOf(...before)), shapeOf(enumOf(...now))).map(({ from, to }) => `${from}→${to}`);
  const lost = (before: MadeType, now: MadeType): unknown => lostAttribute(shapeOf(before), shapeOf(now));

  test('a label is known to be renamed where as many stand in its place', () => {
    expect(labels(['a', 'b', 'c'], ['a', 'x', 'c', 'd'])).toEqual(['b→x']);
    expect(labels(['a', 'b'], ['x', 'y'])).toEqual(['a→x', 'b→y']);
    expect(labels(['a', 'b'], ['x', 'y', 'b'])).toEqual([]);
    expect(labels(['a'], ['a', 'b'])).toEqual([]);
  });

  test('an attribute is lost where it was dropped, not where it was renamed', () => {
    const typed = (...attributes: [name: string, type_oid: number][]): MadeType => ({
      ...NAME,
      kind: 'composite',
      attributes: attributes.map(([name, type_oid]) => ({ name, type_oid, type_modifier: -1 })),
    });
    expect(lost(compositeOf('a', 'b'), compositeOf('a', 'b', 'c'))).toBeNull();
    expect(lost(compositeOf('a', 'b'), compositeOf('x', 'b', 'c'))).toBeNull();
    expect(lost(compositeOf('a', 'b'), compositeOf('b'))).toBe('attribute a of type shop.mo"od');
    expect(lost(compositeOf('a', 'b'), compositeOf('b', 'c'))).toBe('attribute a of type shop.mo"od');
    expect(lost(typed(['a', 23], ['b', 25]), typed(['a', 23], ['x', 23]))).toBe('attribute b of type shop.mo"od');
  });

  test('what may change without a word in the log', () => {
    expect(mayChangeUnseen(shapeOf(enumOf('a')).columns)).toBe(true);
    expect(mayChangeUnseen(shapeOf({ ...NAME, kind: 'named', extension: 'citext' }).columns)).toBe(false);
    expect(typesDiffer(shapeOf(enumOf('a')), shapeOf(enumOf('a')))).toBe(false);
    expect(typesDiffer(shapeOf(enumOf('a')), shapeOf(enumOf('a', 'b')))).toBe(true);
    expect(typesDiffer(shapeOf(enumOf('a', 'b')), shapeOf(enumOf('b', 'a')))).toBe(true);
  });

  test('a definition that comes back from jsonb is the same, though its fields come in another order', () => {
    const { kind, name, schema, labels } = { ...NAME, kind: 'enum', labels: ['a', 'b'] } as const;
    const kept = { kind, name, labels, schema } as const;
    expect(typesDiffer(shapeOf(enumOf('a', 'b')), shapeOf(kept))).toBe(false);
  });
});

describe('keys and generated columns', () => {
  test('equal values may be written differently: as of the base, the elements, or nobody can tell', () => {
    const use = (type: SourceType) => ({ type_oid: 20_000, type_modifier: -1, type });
    const numeric = { type_oid: 1700, type_modifier: -1 };
    const text = { type_oid: 25, type_modifier: -1 };
    const domain = (base: typeof text): SourceType => ({ ...NAME, kind: 'domain', base });
    expect(isInexact(use(domain(numeric)))).toBe(true);
    expect(isInexact(use(domain(text)))).toBe(false);
    expect(isInexact(use({ kind: 'array', element: use(domain(numeric)) }))).toBe(true);
    expect(isInexact(use({ kind: 'array', element: use(enumOf('a')) }))).toBe(false);
    expect(isInexact(use(enumOf('a')))).toBe(false);
    expect(isInexact(use(compositeOf('a')))).toBe(true);
    expect(isInexact(use({ ...NAME, kind: 'named', extension: 'citext' }))).toBe(true);
    expect(isInexact({ type_oid: 20_000, type_modifier: -1 })).toBe(true);
    expect(isInexact(text)).toBe(false);
  });

  test('a virtual column is stored on a server that has no such kind', () => {
    const column = { name: 'g', type_oid: 23, type_modifier: -1, expression: 'a + 1', storage: 'v' } as const;
    expect(generatedSql(column, 'integer', 180_000)).toBe('"g" integer GENERATED ALWAYS AS (a + 1\n) VIRTUAL');
    expect(generatedSql(column, 'integer', 170_000)).toMatch(/STORED$/);
    expect(generatedSql({ ...column, storage: 's' }, 'integer', 180_000)).toMatch(/STORED$/);
  });
});

describe('assembling', () => {
  const row = (oid: number, change: Partial<TypeRow>): TypeRow => ({
    oid: String(oid),
    schema: 's',
    name: `t${oid}`,
    kind: 'b',
    extension: null,
    element: null,
    base: '0',
    base_modifier: -1,
    labels: null,
    attributes: null,
    ...change,
  });

  test('a type comes with all that it is made of', () => {
    const rows = [
      row(20_001, { kind: 'c', attributes: [['d', 20_002, -1]] }),
      row(20_002, { kind: 'd', base: '20003', base_modifier: 7 }),
      row(20_003, { element: '20004' }),
      row(20_004, { kind: 'e', labels: ['x'] }),
      row(20_005, { kind: 'e', labels: ['x'], extension: 'lib' }),
      row(20_006, { kind: 'c' }),
    ];
    const types = assembleTypes(rows, [20_001, 20_005, 20_006, 99_999]);
    const element = {
      type_oid: 20_004,
      type_modifier: -1,
      type: { kind: 'enum', schema: 's', name: 't20004', labels: ['x'] },
    };
    const base = { type_oid: 20_003, type_modifier: 7, type: { kind: 'array', element } };
    const d = {
      name: 'd',
      type_oid: 20_002,
      type_modifier: -1,
      type: { kind: 'domain', schema: 's', name: 't20002', base },
    };
    expect([...types]).toEqual([
      [20_001, { kind: 'composite', schema: 's', name: 't20001', attributes: [d] }],
      [20_005, { kind: 'named', schema: 's', name: 't20005', extension: 'lib' }],
      [20_006, { kind: 'named', schema: 's', name: 't20006', extension: null }],
    ]);
  });

  test('what goes too deep is known by its name', () => {
    const rows = Array.from({ length: 100 }, (_, i) => row(20_000 + i, { kind: 'd', base: String(20_001 + i) }));
    let [type, depth]: [SourceType | undefined, number] = [assembleTypes(rows, [20_000]).get(20_000), 0];
    while (type?.kind === 'domain') [type, depth] = [type.base.type, depth + 1];
    expect(type?.kind).toBe('named');
    expect(depth).toBeLessThan(50);
  });
});
