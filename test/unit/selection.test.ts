/**
 * Which tables become streams: names, globs and overrides; what cannot be followed; and that no two streams meet in one target table.
 */
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import type { Pipeline } from '../../lib/config/schema.ts';
import { isWanted, type Selection, selectTables } from '../../lib/config/selection.ts';
import { streamId } from '../../lib/config/stream-id.ts';
import { findStreams } from '../../lib/config/stream-selector.ts';
import type { SourceTable } from '../../lib/ports.ts';
import { displayName } from '../../lib/shape.ts';
import { sourceTable } from '../support/source-tables.ts';

type Entry = string | Readonly<Record<string, unknown>>;

function pipelineOf(entries: readonly Entry[], target: object = {}, source: object = {}): Pipeline {
  const server = { host: 'db', user: 'Copy', database: 'd' };
  const file = {
    pipeline: 'p',
    source: { ...server, ...source },
    target: { ...server, host: 'wh', ...target },
    tables: entries,
  };
  return readPipeline(JSON.stringify(file), 'p');
}

/** `source → target` of every stream. */
function moves({ streams }: Selection): string[] {
  return streams.map(({ source, target }) => `${displayName(source)} → ${displayName(target)}`);
}

const codes = ({ faults }: Selection): string[] => faults.map((fault) => fault.code);
const named = (...names: string[]): SourceTable[] => names.map((name) => sourceTable(name));

const ALL = named('public.orders', 'public.items', 'public.order_lines', 'sales.orders', 'Sales.Orders');

describe('names and globs', () => {
  test.each<[Entry[], string[]]>([
    [['public.orders'], ['public.orders']],
    [['public.*'], ['public.items', 'public.order_lines', 'public.orders']],
    [['*.orders'], ['public.orders', 'sales.orders']],
    [['public.order?'], ['public.orders']],
    [['public.order*'], ['public.order_lines', 'public.orders']],
    [['?ales.*'], ['Sales.Orders', 'sales.orders']],
    [['*.*'], ['Sales.Orders', 'public.items', 'public.order_lines', 'public.orders', 'sales.orders']],
    [['public.items', 'public.items', 'public.it*'], ['public.items']],
    [['Sales.Orders'], ['Sales.Orders']],
    [['"Sales"."Orders"'], ['Sales.Orders']],
  ])('%j takes %j', (entries, names) => {
    const selection = selectTables(ALL, pipelineOf(entries));
    expect(selection.streams.map(({ source }) => displayName(source))).toEqual(names);
    expect(selection.faults).toEqual([]);
  });

  test('in quotes nothing is a wildcard, and a dot is part of the name', () => {
    const tables = [sourceTable('s.t', { table: 'a.b' }), sourceTable('s.t', { table: 'a*' }), ...named('s.ab')];
    const taken = (entry: string) =>
      selectTables(tables, pipelineOf([entry])).streams.map(({ source }) => source.table);
    expect(taken('s."a.b"')).toEqual(['a.b']);
    expect(taken('s."a*"')).toEqual(['a*']);
    expect(taken('s.a*')).toEqual(['a*', 'a.b', 'ab']);
  });

  test('a regular expression in a name is no pattern', () => {
    const tables = [sourceTable('s.t', { table: '[a-z]+(x' }), ...named('s.a')];
    expect(selectTables(tables, pipelineOf(['s.[a-z]+(x'])).streams.map(({ source }) => source.table)).toEqual([
      '[a-z]+(x',
    ]);
  });

  test('schemas of the system and of Sluice are in no glob', () => {
    const tables = named('_sluice.streams', 'pg_catalog.pg_class', 'pg_temp_3.x', 'information_schema.x', 'public.a');
    const selection = selectTables(tables, pipelineOf(['*.*']));
    expect(moves(selection)).toEqual(['public.a → public.a']);
    expect(selection.skipped).toEqual([]);
  });

  test('a stream carries the table and its id', () => {
    const [table] = named('public.orders');
    const pipeline = pipelineOf(['public.*']);
    const { streams } = selectTables(table ? [table] : [], pipeline);
    expect(streams).toEqual([
      {
        id: 'public.orders-86a1f739',
        source: { schema: 'public', table: 'orders' },
        target: { schema: 'public', table: 'orders' },
        table,
        options: pipeline.tables[0],
      },
    ]);
  });
});

describe('where a table goes', () => {
  test.each<[string, Entry[], object, string[]]>([
    ['as the source', ['public.items'], {}, ['public.items → public.items']],
    ['default schema', ['public.items'], { default_target_schema: 'x' }, ['public.items → x.items']],
    [
      'mapping before the default',
      ['public.items', 'sales.orders'],
      { default_target_schema: 'x', schema_mapping: { public: 'y' } },
      ['public.items → y.items', 'sales.orders → x.orders'],
    ],
    [
      'entry before the mapping',
      [{ table: 'public.items', target_schema: 'z', target_table: 'i' }],
      { schema_mapping: { public: 'y' } },
      ['public.items → z.i'],
    ],
    [
      'a later entry overrides for its table',
      ['public.*', { table: 'public.items', target_table: 'i' }],
      {},
      ['public.items → public.i', 'public.order_lines → public.order_lines', 'public.orders → public.orders'],
    ],
    [
      'a later glob overrides an earlier name',
      [
        { table: 'public.items', target_table: 'i' },
        { table: 'public.i*', target_schema: 'x' },
      ],
      {},
      ['public.items → x.items'],
    ],
    [
      'a schema of an odd name',
      ['public.items'],
      { schema_mapping: { toString: 'x' } },
      ['public.items → public.items'],
    ],
  ])('%s', (_name, entries, target, expected) => {
    const selection = selectTables(ALL, pipelineOf(entries, target));
    expect(selection.faults).toEqual([]);
    expect(moves(selection)).toEqual(expected);
  });
});

describe('what cannot be followed', () => {
  const cases: [string, Partial<SourceTable>, string, string][] = [
    ['a view', { kind: 'v' }, 'TABLE_KIND', 'is a view'],
    ['a materialized view', { kind: 'm' }, 'TABLE_KIND', 'is a materialized view'],
    ['a foreign table', { kind: 'f' }, 'TABLE_KIND', 'is a foreign table'],
    ['a partitioned table below 13', { kind: 'p' }, 'TABLE_KIND', 'from PostgreSQL 13 on'],
    ['a kind of a later version', { kind: 'X' }, 'TABLE_KIND', 'relkind X'],
    ['an unlogged table', { persistence: 'u' }, 'TABLE_KIND', 'is an unlogged table'],
    ['a temporary table', { persistence: 't' }, 'TABLE_KIND', 'is a temporary table'],
    ['a table without a key', { key: [] }, 'TABLE_WITHOUT_KEY', 'has no primary key'],
    ['a table whose identity is nothing', { replica_identity: 'n' }, 'TABLE_IDENTITY', 'REPLICA IDENTITY NOTHING'],
    [
      'a table that is FULL with a virtual column',
      {
        replica_identity: 'f',
        generated: [{ name: 'g', type_oid: 23, type_modifier: -1, number: 3, expression: '1', storage: 'v' }],
      },
      'TABLE_IDENTITY',
      'virtual generated column g',
    ],
    ['a table with a generated key', { key: ['id', 'made'] }, 'TABLE_IDENTITY', 'column made of its key is generated'],
    ['a table that may not be read', { may_select: false }, 'TABLE_UNREADABLE', 'may not read public.x'],
    ['a table with row security', { row_security: true }, 'TABLE_ROW_SECURITY', 'hides rows of public.x from Copy'],
  ];

  test.each(cases)('%s is a fault when it is named', (_name, over, code, message) => {
    const selection = selectTables(
      [sourceTable('public.x', over), ...named('public.y')],
      pipelineOf(['public.*', 'public.x']),
    );
    expect(codes(selection)).toEqual([code]);
    expect(selection.faults[0]?.message).toContain(message);
    expect(selection.skipped).toEqual([]);
  });

  test.each(cases)('%s is left out of a glob, which says so', (_name, over, _code, message) => {
    const selection = selectTables([sourceTable('public.x', over), ...named('public.y')], pipelineOf(['public.*']));
    expect(selection.faults).toEqual([]);
    expect(moves(selection)).toEqual(['public.y → public.y']);
    expect(selection.skipped).toMatchObject([
      { table: { schema: 'public', table: 'x' }, reason: expect.stringContaining(message) as string },
    ]);
  });

  test('without a key, and without an old row, they are followed where no key is required', () => {
    const tables = [
      sourceTable('public.bag', { key: [], replica_identity: 'f' }),
      sourceTable('public.log', { key: [] }),
      sourceTable('public.nothing', { key: [], replica_identity: 'n' }),
    ];
    const selection = selectTables(tables, pipelineOf(['public.*'], { primary_key_required: false }));
    expect([moves(selection).length, selection.faults, selection.skipped]).toEqual([3, [], []]);
    expect(selectTables(tables, pipelineOf(['public.bag'])).faults[0]?.remedy).toContain('primary_key_required: false');
  });

  test('the remedies carry the SQL, with names quoted', () => {
    const remedy = (over: Partial<SourceTable>): string | undefined =>
      selectTables([sourceTable('public.x', { table: 'X y', ...over })], pipelineOf(['public.X y'])).faults[0]?.remedy;
    expect(remedy({ may_select: false })).toContain(
      'GRANT USAGE ON SCHEMA "public" TO "Copy"; GRANT SELECT ON "public"."X y" TO "Copy";',
    );
    expect(remedy({ row_security: true })).toContain('ALTER ROLE "Copy" BYPASSRLS');
    expect(remedy({ key: [] })).toContain('ALTER TABLE "public"."X y" ADD PRIMARY KEY');
    expect(remedy({ replica_identity: 'n' })).toContain('ALTER TABLE "public"."X y" REPLICA IDENTITY DEFAULT');
  });

  test('REPLICA IDENTITY FULL and an identity index are followed', () => {
    const tables = [
      sourceTable('public.f', { replica_identity: 'f' }),
      sourceTable('public.i', { replica_identity: 'i' }),
    ];
    expect(moves(selectTables(tables, pipelineOf(['public.*'])))).toHaveLength(2);
  });

  test('a name that is missing is a fault, with the spelling that is there', () => {
    const { faults } = selectTables(ALL, pipelineOf(['public.Orders', 'public.nothing']));
    expect(faults.map((fault) => [fault.code, fault.message, fault.remedy])).toEqual([
      [
        'TABLE_MISSING',
        'The source has no table public.Orders.',
        expect.stringContaining('Did you mean public.orders?'),
      ],
      ['TABLE_MISSING', 'The source has no table public.nothing.', expect.stringContaining('Check its schema')],
    ]);
  });

  test('a glob that takes nothing is a fault, and says why', () => {
    const views = Array.from({ length: 5 }, (_, i) => sourceTable(`v.v${i}`, { kind: 'v' }));
    const { faults, streams } = selectTables([...ALL, ...views], pipelineOf(['public.*', 'nope.*', 'v.*']));
    expect(streams).toHaveLength(3);
    expect(faults.map((fault) => [fault.code, fault.message])).toEqual([
      ['NOTHING_SELECTED', 'No table of the source matches nope.*.'],
      [
        'NOTHING_SELECTED',
        'No table that matches v.* can be followed: v.v0 is a view; its changes are not in the log. v.v1 is a view; its changes are not in the log. v.v2 is a view; its changes are not in the log. 2 more.',
      ],
    ]);
  });

  test('a source without tables selects nothing', () => {
    expect(codes(selectTables([], pipelineOf(['public.*', 'public.a'])))).toEqual([
      'NOTHING_SELECTED',
      'TABLE_MISSING',
    ]);
  });
});

describe('targets that collide', () => {
  test('two streams in one table', () => {
    const selection = selectTables(ALL, pipelineOf(['*.orders'], { default_target_schema: 'x' }));
    expect(codes(selection)).toEqual(['TARGET_TABLE_TAKEN']);
    expect(selection.faults[0]?.message).toContain('public.orders and sales.orders would both be written to it.');
  });

  test('names that differ only in case, or in where the dot is, do not', () => {
    const tables = [
      ...named('Sales.Orders', 'sales.orders'),
      sourceTable('a.b', { schema: 'a', table: 'b.c' }),
      sourceTable('a.b', { schema: 'a.b', table: 'c' }),
    ];
    expect(selectTables(tables, pipelineOf(['*.*'])).faults).toEqual([]);
  });

  test('a replicated table of the source itself', () => {
    const same = { host: 'DB' };
    expect(codes(selectTables(ALL, pipelineOf(['public.i*'], same)))).toEqual(['TARGET_TABLE_TAKEN']);
    expect(codes(selectTables(ALL, pipelineOf(['public.i*'], { ...same, default_target_schema: 'x' })))).toEqual([]);
    expect(codes(selectTables(ALL, pipelineOf(['*.*'], { ...same, schema_mapping: { sales: 'public' } })))).toContain(
      'TARGET_TABLE_TAKEN',
    );
    expect(codes(selectTables(ALL, pipelineOf(['public.i*'], { ...same, port: 5433 })))).toEqual([]);
    expect(codes(selectTables(ALL, pipelineOf(['public.i*'], { ...same, database: 'e' })))).toEqual([]);
  });
});

describe('tables that are read by query', () => {
  const columns = ['id', 'k', 'doc'].map((name, i) => ({
    name,
    type_oid: [23, 1184, 114][i] ?? 25,
    type_modifier: -1,
    not_null: false,
    number: i + 1,
  }));
  const full = (more: object = {}) => ({ table: 'public.t', replication_method: 'FULL_TABLE' as const, ...more });
  const runs = (more: object = {}) => ({
    table: 'public.t',
    replication_method: 'INCREMENTAL' as const,
    replication_key: 'k',
    ...more,
  });
  const select = (entry: object, table: Partial<SourceTable> = {}) =>
    selectTables([sourceTable('public.t', { columns, ...table })], pipelineOf([entry as Entry]));

  test.each(['r', 'p', 'v', 'm', 'f'])('of kind %s', (kind) => {
    expect(select(full(), { kind, key: [] }).streams.map(({ table }) => table.key)).toEqual([[]]);
    expect(select(full({ key_properties: ['id'] }), { kind, key: [] }).streams[0]?.table.key).toEqual(['id']);
  });

  test('the key is the primary one, whatever identifies rows in the log', () => {
    const [stream] = select(full(), { key: [], primary_key: ['id'], replica_identity: 'n' }).streams;
    expect(stream?.table.key).toEqual(['id']);
  });

  test('generated columns are columns like others', () => {
    const generated = [
      { name: 'g', type_oid: 23, type_modifier: -1, number: 2, expression: 'id * 2', storage: 's' as const },
    ];
    const [stream] = select(full(), { generated }).streams;
    expect(stream?.table.columns.map(({ name }) => name).toSorted()).toEqual(['doc', 'g', 'id', 'k']);
  });

  test.each([
    [runs({ replication_key: 'nope' }), {}, 'TABLE_COLUMN_MISSING'],
    [full({ key_properties: ['nope'] }), {}, 'TABLE_COLUMN_MISSING'],
    [runs({ replication_key: 'doc' }), {}, 'REPLICATION_KEY'],
    [runs({ lookback: '5' }), {}, 'REPLICATION_KEY'],
    [runs({ replication_key: 'id', lookback: '5 minutes' }), {}, 'REPLICATION_KEY'],
    [runs({ mask: { k: 'null' } }), {}, 'REPLICATION_KEY'],
    [runs({ columns: { include: ['id'] } }), {}, 'REPLICATION_KEY'],
    [runs(), { key: [], primary_key: [] }, 'TABLE_WITHOUT_KEY'],
    [full(), { may_select: false }, 'TABLE_UNREADABLE'],
    [full(), { row_security: true }, 'TABLE_ROW_SECURITY'],
    [full(), { persistence: 't' }, 'TABLE_KIND'],
  ])('%j of %j: %s', (entry, table, code) => {
    expect(codes(select(entry, table))).toEqual([code]);
  });

  test('a view that the log is asked for names what can read it', () => {
    const [fault] = select({ table: 'public.t' }, { kind: 'v' }).faults;
    expect(fault?.remedy).toContain('replication_method: FULL_TABLE');
  });
});

describe('streams by argument', () => {
  const { streams } = selectTables(ALL, pipelineOf(['*.*']));
  const found = (argument: string) => findStreams(argument, streams).map(({ source }) => displayName(source));

  test.each([
    ['public.orders', ['public.orders']],
    [streamId({ schema: 'sales', table: 'orders' }), ['sales.orders']],
    [streamId({ schema: 'Sales', table: 'Orders' }), ['Sales.Orders']],
    ['public.order*', ['public.order_lines', 'public.orders']],
    ['"Sales"."Orders"', ['Sales.Orders']],
    ['orders', []],
    ['public.nothing', []],
    ['', []],
  ])('%j finds %j', (argument, names) => {
    expect(found(argument)).toEqual(names);
  });
});

describe('a stream id', () => {
  test.each([
    [{ schema: 'public', table: 'orders' }, 'public.orders-'],
    [{ schema: 'Odd Schema', table: 'ta"ble/..' }, 'odd_schema.ta_ble_..-'],
    [{ schema: 'größe', table: '商店' }, 'gr__e.__-'],
    [{ schema: 's'.repeat(63), table: 't' }, `${'s'.repeat(40)}-`],
  ])('%j begins with %s', (name, slug) => {
    expect(streamId(name)).toMatch(/^[a-z0-9_.-]{1,40}-[0-9a-f]{8}$/);
    expect(streamId(name).slice(0, -8)).toBe(slug);
  });
});

describe('partitioned tables', () => {
  const root = sourceTable('public.m', { oid: 1, kind: 'p', partitions: [2, 3, 4].map((oid) => ({ oid, mark: 'x' })) });
  const leaf = sourceTable('public.m_1', { oid: 2, partition_of: [1] });
  const sub = sourceTable('public.m_2', {
    oid: 3,
    kind: 'p',
    partition_of: [1],
    partitions: [{ oid: 4, mark: 'x' }],
  });
  const deep = sourceTable('other.m_2_a', { oid: 4, partition_of: [3, 1] });
  const tree = [root, leaf, sub, deep, sourceTable('public.plain', { oid: 9 })];
  const names = ({ streams }: Selection): string[] => streams.map(({ source }) => displayName(source));
  const select = (entries: readonly Entry[], tables = tree, source: object = {}) =>
    selectTables(tables, pipelineOf(entries, {}, source));

  test.each<[Entry[], string[]]>([
    [['public.*'], ['public.m', 'public.plain']],
    [['*.*'], ['public.m', 'public.plain']],
    [['public.m', 'public.m_*'], ['public.m']],
    // No root is taken: each by itself.
    [['public.m_?'], ['public.m_1', 'public.m_2']],
    [['*.m_*'], ['public.m_1', 'public.m_2']],
    [['other.*'], ['other.m_2_a']],
    [['public.m_1'], ['public.m_1']],
  ])('%j takes %j: what is below a table that is taken comes with it, in silence', (entries, expected) => {
    const selection = select(entries);
    expect(names(selection)).toEqual(expected);
    expect([selection.faults, selection.skipped]).toEqual([[], []]);
  });

  test.each<[Entry[]]>([[['public.m', 'public.m_1']], [['public.*', 'other.m_2_a']], [['public.m_2', 'other.m_2_a']]])(
    '%j names a table and one of its partitions',
    (entries) => {
      const selection = select(entries);
      expect(codes(selection)).toEqual(['CONFIG_INVALID']);
      expect(selection.faults[0]?.remedy).toContain('fold_partitions: false');
    },
  );

  test('fold_partitions: false: each partition is a table, and what is partitioned is left out or a fault', () => {
    const off = { fold_partitions: false };
    const selection = select(['*.*'], tree, off);
    expect(names(selection)).toEqual(['other.m_2_a', 'public.m_1', 'public.plain']);
    expect(selection.skipped.map(({ table }) => table.table)).toEqual(['m', 'm_2']);
    expect(selection.skipped[0]?.reason).toContain('source.fold_partitions is false');
    expect(codes(select(['public.m'], tree, off))).toEqual(['TABLE_KIND']);
  });

  test('one that cannot be followed is left out once, and its partitions with it', () => {
    const keyless = tree.map((table) => (table === root ? { ...root, key: [] } : table));
    const selection = select(['*.*'], keyless);
    expect(names(selection)).toEqual(['public.plain']);
    expect(selection.skipped.map(({ table }) => table.table)).toEqual(['m']);
    expect(codes(select(['public.m*'], keyless))).toEqual(['NOTHING_SELECTED']);
  });

  test.each<[string, Partial<SourceTable>, Partial<SourceTable>, string | null]>([
    ['the same', {}, {}, null],
    ['more than the key', {}, { replica_identity: 'i', key: ['note', 'id'] }, null],
    ['every column', {}, { replica_identity: 'f', key: [] }, null],
    ['nothing', {}, { replica_identity: 'n' }, 'ALTER TABLE "public"."m_1" REPLICA IDENTITY DEFAULT'],
    ['an index without the key', {}, { replica_identity: 'i', key: ['note'] }, 'REPLICA IDENTITY DEFAULT'],
    [
      'the primary key, where the root has an index',
      { replica_identity: 'i', key: ['note'] },
      {},
      'REPLICA IDENTITY FULL',
    ],
    ['the key, where the root has every column', { replica_identity: 'f' }, {}, 'REPLICA IDENTITY FULL'],
    ['every column, as the root', { replica_identity: 'f' }, { replica_identity: 'f' }, null],
    ['that of a foreign table', {}, { kind: 'f' }, 'Detach public.m_1'],
    ['that of an unlogged table', {}, { persistence: 'u' }, 'ALTER TABLE "public"."m_1" SET LOGGED'],
  ])('a partition whose identity is %s', (_, ofRoot, ofLeaf, remedy) => {
    const tables = [
      { ...root, partitions: [{ oid: 2, mark: 'x' }], ...ofRoot },
      { ...leaf, ...ofLeaf },
    ];
    const { faults } = select(['public.m'], tables);
    if (remedy === null) expect(faults).toEqual([]);
    else expect(faults.map((fault) => fault.remedy)).toEqual([expect.stringContaining(remedy)]);
  });
});

test('a name is wanted that an entry means, be it there or not', () => {
  const pipeline = pipelineOf(['public.*', 'sales.orders']);
  const wanted = (name: string): boolean => {
    const { schema, table } = sourceTable(name);
    return isWanted(pipeline, { schema, table });
  };
  expect(['public.gone', 'sales.orders', 'sales.other', 'pg_catalog.x'].map(wanted)).toEqual([
    true,
    true,
    false,
    false,
  ]);
});
