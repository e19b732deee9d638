/** What a segment's shape asks of a table: steps, names, or a copy. */
import { describe, expect, test } from 'vitest';
import { type Reshaping, reshape, sameShape } from '../../lib/load/reshape.ts';
import type { Column, DescribedColumn, Shape, TableDescription } from '../../lib/shape.ts';

const INT = 23;
const TEXT = 25;
const NOW = Date.UTC(2026, 10, 21, 9, 5, 59);

const column = (name: string, number?: number, type_oid = TEXT): Column => ({
  name,
  type_oid,
  type_modifier: -1,
  ...(number === undefined ? {} : { number }),
});
/** `id` is the key, and the rest what is given. */
const table = (...columns: Column[]): Shape => ({
  columns: [column('id', 1, INT), ...columns],
  key: [0],
  filenode: 'f1',
  definition: 'd1',
});
const segment = (...columns: Column[]): Shape => ({ columns: [column('id', undefined, INT), ...columns], key: [0] });
const catalog = (
  columns: (Column & Partial<DescribedColumn>)[],
  change: Partial<TableDescription> = {},
): TableDescription => ({
  oid: 16_400,
  filenode: 'f1',
  definition: 'd2',
  columns: [column('id', 1, INT), ...columns].map((of, i) => ({
    dropped: false,
    generated: '' as const,
    missing: null,
    ...of,
    number: of.number ?? i + 1,
  })),
  ...change,
});
const gone = (number: number): Column & Partial<DescribedColumn> => ({
  ...column(`........pg.dropped.${number}........`, number, 0),
  dropped: true,
});

const ask = (change: Partial<Reshaping>) =>
  reshape({
    stream: 's',
    table: table(column('a', 2)),
    segment: segment(column('a')),
    described: undefined,
    catching_up: false,
    on_type_change: 'widen',
    on_drop_column: 'keep',
    now_ms: NOW,
    ...change,
  });
const rewritten = (what: string) =>
  expect.objectContaining({ code: 'TABLE_REWRITTEN', message: expect.stringContaining(what) });
const thrownBy = (act: () => unknown): unknown => {
  try {
    act();
  } catch (error) {
    return error;
  }
  return null;
};

describe('live', () => {
  test('nothing has happened', () => {
    const asked = ask({ described: catalog([column('a', 2)], { definition: 'd1' }) });
    expect(asked).toMatchObject({ steps: [], names: ['id', 'a'] });
    expect(ask({})).toMatchObject({ steps: [], names: ['id', 'a'] });
  });

  test('rename, drop, add and change of type at once; numbers are what a column is known by', () => {
    const found = ask({
      table: table(column('a', 2), column('b', 3), column('c', 4)),
      segment: segment(column('x'), column('c', undefined, INT), column('d')),
      described: catalog([column('x', 2), gone(3), column('c', 4, INT), { ...column('d', 5), missing: 'm' }]),
      on_drop_column: 'drop',
    });
    expect(found.steps).toEqual([
      { kind: 'drop', name: 'b' },
      { kind: 'rename', from: 'a', to: 'x' },
      expect.objectContaining({ kind: 'retype', column: expect.objectContaining({ name: 'c', type_oid: INT }) }),
      { kind: 'add', column: column('d', 5), missing: 'm' },
    ]);
    expect(found.names).toEqual(['id', 'x', 'c', 'd']);
    expect(found.shape).toMatchObject({ key: [0], filenode: 'f1' });
    expect(found.shape.columns.map(({ name, number }) => [name, number])).toEqual([
      ['id', 1],
      ['x', 2],
      ['c', 4],
      ['d', 5],
    ]);
  });

  test('a column that is kept makes way under a name with the time, in UTC, as long as a name may be', () => {
    const long = 'ä'.repeat(30);
    const found = ask({
      table: table(column(long, 2), column('b', 3), column(`b_20261121_0905`)),
      segment: segment(column('b', undefined, INT), column(long, undefined, INT)),
      described: catalog([
        gone(2),
        gone(3),
        { ...column('b', 4, INT), missing: '1' },
        { ...column(long, 5, INT), missing: '2' },
      ]),
    });
    const short = `${'ä'.repeat(24)}_20261121_0905`;
    expect(Buffer.byteLength(short)).toBeLessThanOrEqual(63);
    expect(found.steps.slice(0, 2)).toEqual([
      { kind: 'rename', from: long, to: short },
      { kind: 'rename', from: 'b', to: 'b_20261121_0905_2' },
    ]);
    expect(found.shape.columns.map(({ name, number }) => [name, number])).toEqual([
      ['id', 1],
      [short, undefined],
      ['b_20261121_0905_2', undefined],
      ['b_20261121_0905', undefined],
      ['b', 4],
      [long, 5],
    ]);
  });

  test('names that columns exchange pass through names that nothing has', () => {
    const found = ask({
      table: table(column('a', 2), column('b', 3), column('c', 4)),
      segment: segment(column('b'), column('c'), column('a')),
      described: catalog([column('b', 2), column('c', 3), column('a', 4)]),
    });
    const names = new Map([
      [2, 'a'],
      [3, 'b'],
      [4, 'c'],
    ]);
    for (const step of found.steps) {
      if (step.kind !== 'rename') throw new Error(step.kind);
      expect([...names.values()]).not.toContain(step.to);
      const [number] = [...names].find(([, name]) => name === step.from) ?? [];
      names.set(number as number, step.to);
    }
    expect([...names]).toEqual([
      [2, 'b'],
      [3, 'c'],
      [4, 'a'],
    ]);
  });

  test.each<[string, Partial<Reshaping>]>([
    [
      'what older rows have in it is not known',
      {
        segment: segment(column('a'), column('n')),
        described: catalog([column('a', 2), column('n', 3)], { filenode: 'f2', definition: 'd1' }),
      },
    ],
    [
      'the type of column a',
      { segment: segment(column('a', undefined, INT)), described: catalog([column('a', 2, INT)], { filenode: 'f2' }) },
    ],
    ['written anew by a change of its definition', { described: catalog([column('a', 2)], { filenode: 'f2' }) }],
    ['its key was (id) and is (a)', { segment: { ...segment(column('a')), key: [1] } }],
    ['may be others by now', { described: catalog([gone(2), column('a', 3)]) }],
    ['may be others by now', { segment: segment(column('a'), column('n')) }],
    ['which is computed', { described: catalog([column('a', 2), { ...column('g', 3), generated: 's' }]) }],
    [
      'no longer is',
      {
        table: { ...table(column('a', 2)), generated: [{ ...column('g', 3), expression: 'a', storage: 's' }] },
        segment: segment(column('a'), column('g')),
        described: catalog([column('a', 2), column('g', 3)]),
      },
    ],
  ])('%s: TABLE_REWRITTEN', (what, change) => {
    expect(thrownBy(() => ask(change))).toEqual(rewritten(what));
  });

  test('rows that were moved, and not altered, are as they were', () => {
    const moved = catalog([column('a', 2)], { filenode: 'f2', definition: 'd1' });
    expect(ask({ described: moved }).steps).toEqual([]);
  });

  test('on_type_change halt', () => {
    const change = { segment: segment(column('a', undefined, INT)), described: catalog([column('a', 2, INT)]) };
    expect(ask(change).steps).toHaveLength(1);
    expect(thrownBy(() => ask({ ...change, on_type_change: 'halt' }))).toMatchObject({ code: 'SHAPE_CHANGED' });
  });

  test('a column that the publication leaves out stays as it is', () => {
    expect(ask({ segment: segment(), described: catalog([column('a', 2)], { definition: 'd1' }) })).toMatchObject({
      steps: [],
      names: ['id'],
    });
  });

  test('what the source computes and the log has all the same is computed on the target', () => {
    const computed = { ...column('g', 3), expression: 'a', storage: 's' as const };
    const found = ask({
      table: { ...table(column('a', 2)), generated: [computed] },
      segment: segment(column('a'), column('g')),
      described: catalog([column('a', 2), { ...column('g', 3), generated: 's' }]),
    });
    expect(found).toMatchObject({ steps: [], names: ['id', 'a', null] });
  });
});

describe('while it catches up', () => {
  const older = (change: Partial<Reshaping>) => ask({ catching_up: true, ...change });

  test('nothing is dropped or renamed, and columns are found by number', () => {
    const found = older({
      table: table(column('new name', 2), column('c', 4)),
      segment: segment(column('old name'), column('b')),
      described: catalog([column('old name', 2), column('b', 3)]),
    });
    expect(found).toMatchObject({ steps: [], names: ['id', 'new name', null] });
  });

  test('a column that is newer than the table is added, and one that came and went is not', () => {
    const described = catalog([column('a', 2), gone(3), { ...column('d', 4), missing: 'm' }]);
    expect(older({ segment: segment(column('a'), column('d')), described }).steps).toMatchObject([
      { kind: 'add', missing: 'm' },
    ]);
    const before = catalog([column('a', 2), column('b', 3)]);
    const copied = table(column('a', 2), column('d', 4));
    expect(older({ table: copied, segment: segment(column('a'), column('b')), described: before })).toMatchObject({
      steps: [],
      names: ['id', 'a', null],
    });
  });

  test('a segment that is older than a column of the table', () => {
    const copied = table(column('a', 2), column('d', 3));
    const described = catalog([column('a', 2), column('d', 3)]);
    expect(older({ table: copied, segment: segment(column('a')), described })).toMatchObject({
      steps: [],
      names: ['id', 'a'],
    });
  });

  test('one that looks neither as the catalog nor as the table cannot be told', () => {
    const asked = { table: table(column('x', 2)), segment: segment(column('b')), described: catalog([column('x', 2)]) };
    expect(thrownBy(() => older(asked))).toEqual(rewritten('may be others by now'));
  });

  test('another type is not of this table', () => {
    const change = { segment: segment(column('a', undefined, INT)), described: catalog([column('a', 2, INT)]) };
    expect(thrownBy(() => older(change))).toEqual(rewritten('the type of column a'));
  });
});

describe('shapes of the catalog', () => {
  const shape = table(column('a', 2));

  test('are the same by number, name, type and key; what is kept on the target does not count', () => {
    expect(sameShape({ ...shape, columns: [...shape.columns, column('kept')] }, shape)).toBe(true);
    expect(sameShape(shape, table(column('a', 3)))).toBe(false);
    expect(sameShape(shape, table(column('b', 2)))).toBe(false);
    expect(sameShape(shape, table(column('a', 2, INT)))).toBe(false);
    expect(sameShape(shape, table(column('a', 2), column('b', 3)))).toBe(false);
    expect(sameShape(shape, { ...shape, key: [1] })).toBe(false);
  });
});
