/** The register of the doctor, on surveys made by hand: what no server here can easily be brought to say. */
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { selectTables } from '../../lib/config/selection.ts';
import { CHECKS, findingsOf } from '../../lib/doctor/doctor.ts';
import type { Survey } from '../../lib/doctor/finding.ts';
import type { SecondaryLimits } from '../../lib/doctor/secondary.ts';
import type { SourceSurvey } from '../../lib/doctor/survey-source.ts';
import type { ServerSeen } from '../../lib/epoch/secondary.ts';
import { SluiceError } from '../../lib/errors.ts';
import { lsnOf } from '../../lib/lsn.ts';
import { sourceTable } from '../support/source-tables.ts';

const SLOT = {
  plugin: 'pgoutput',
  database: 'shop',
  active_pid: null,
  active_application: null,
  active_client: null,
  confirmed_lsn: lsnOf(100n),
  wal_status: 'reserved',
  safe_wal_bytes: null,
  invalidation_reason: null,
};

const SOURCE: SourceSurvey = {
  ground: {
    version: 180_004,
    system_identifier: '1',
    timeline: 1,
    in_recovery: false,
    wal_level: 'logical',
    encoding: 'UTF8',
    user: 'sluice',
    may_replicate: true,
    flush_lsn: lsnOf(1000n),
    slot: SLOT,
  },
  tables: [],
  selection: { streams: [], faults: [], skipped: [] },
  publication: null,
  types: new Map(),
  owned: new Set(),
  rights: { creates_in_database: true, owns_publication: false },
  limits: {
    slots_max: 10,
    slots_used: 1,
    senders_max: 10,
    senders_used: 0,
    slot_wal_keep_mb: 1024,
    wal_sender_timeout_ms: 60_000,
    idle_slot_timeout_seconds: 0,
    slot_wal_bytes: 0,
  },
};

const SURVEY: Survey = {
  pipeline: readPipeline(
    'pipeline: shop\nsource: { host: a, user: u, database: shop }\ntables: [public.t]\ntarget: { host: b, user: u, database: d }',
    'shop.yaml',
  ),
  chain: undefined,
  source: SOURCE,
  replication: null,
  target: {
    server: {
      version: 180_004,
      system_identifier: '2',
      in_recovery: false,
      read_only: false,
      encoding: 'UTF8',
      user: 'loader',
      database: 'd',
      creates_in_database: true,
    },
    schemas: [],
    tables: [],
    types_lacking: [],
    streams: null,
  },
};

const find = (source: Partial<SourceSurvey>, more: Partial<Survey> = {}) =>
  findingsOf({ ...SURVEY, ...more, source: { ...SOURCE, ...source } }).map(({ check, severity }) => [check, severity]);

test('every check has a name of its own, and a healthy survey has no findings', () => {
  const names = CHECKS.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^[a-z]+(_[a-z]+)*$/);
  expect(find({})).toEqual([]);
});

test('a side that cannot be reached is said once, and nothing is guessed about it', () => {
  const facts = { side: 'source', host: 'a', port: 5432, reason: 'x' };
  const unreachable = new SluiceError('CONNECTION_FAILED', facts);
  const findings = findingsOf({ ...SURVEY, source: unreachable, replication: unreachable, target: unreachable });
  expect(findings.map(({ check }) => check)).toEqual(['source_connection', 'target_connection']);
  expect(findings[0]).toEqual({
    check: 'source_connection',
    severity: 'error',
    subject: 'source',
    code: 'CONNECTION_FAILED',
    problem: unreachable.message,
    remedy: unreachable.remedy,
  });
});

test('errors come before warnings, and warnings before what is only good to know', () => {
  const { ground, limits } = SOURCE;
  const found = find({
    ground: { ...ground, slot: null, wal_level: 'replica' },
    limits: { ...limits, slot_wal_keep_mb: -1 },
  });
  expect(found).toEqual([
    ['source_server', 'error'],
    ['slot_wal', 'warning'],
    ['slot', 'info'],
  ]);
});

test('a table that is paused (tables[].schedule) is told with how long the stage keeps what waits, one that is read by query is only said', () => {
  const pipeline = readPipeline(
    'pipeline: shop\nsource: { host: a, user: u, database: shop }\ntables:\n  - { table: public.t, schedule: { paused: true } }\n  - { table: public.q, replication_method: FULL_TABLE, schedule: { paused: true } }\n  - { table: public.s, schedule: { every: 1 hour } }\ntarget: { host: b, user: u, database: d, stage_retention_days: 9 }',
    'shop.yaml',
  );
  const tables = ['t', 'q', 's'].map((table, i) => ({ ...sourceTable(`public.${table}`), oid: 100 + i }));
  const findings = findingsOf({
    ...SURVEY,
    pipeline,
    source: { ...SOURCE, tables, selection: selectTables(tables, pipeline) },
  }).filter(({ check }) => check === 'tables_paused');
  expect(findings.map(({ severity, subject }) => [severity, subject])).toEqual([
    ['warning', 'table public.t'],
    ['info', 'table public.q'],
  ]);
  expect(findings[0]?.problem).toContain('keeps them for 9 days');
});

describe('the slot', () => {
  const { ground, limits } = SOURCE;
  test.each([
    ['is read by somebody', { ground: { ...ground, slot: { ...SLOT, active_pid: 7 } } }, [['slot', 'warning']]],
    [
      'is about to be lost',
      { ground: { ...ground, slot: { ...SLOT, wal_status: 'unreserved' } } },
      [['slot_wal', 'warning']],
    ],
    ['is lost', { ground: { ...ground, slot: { ...SLOT, wal_status: 'lost' } } }, [['slot', 'error']]],
    ['holds much', { limits: { ...limits, slot_wal_bytes: 1e12 } }, [['slot_wal', 'warning']]],
    [
      'cannot be limited before 13',
      { ground: { ...ground, version: 120_022 }, limits: { ...limits, slot_wal_keep_mb: null } },
      [['slot_wal', 'warning']],
    ],
    [
      'is cut off by a short timeout before 12',
      {
        ground: { ...ground, version: 110_022 },
        limits: { ...limits, slot_wal_keep_mb: null, wal_sender_timeout_ms: 1000 },
      },
      [
        ['slot_wal', 'warning'],
        ['wal_sender_timeout', 'warning'],
      ],
    ],
    [
      'does not tell of TRUNCATE before 11',
      { ground: { ...ground, version: 100_023 }, limits: { ...limits, slot_wal_keep_mb: null } },
      [
        ['slot_wal', 'warning'],
        ['source_truncate', 'info'],
      ],
    ],
    [
      'is the one that keeps the last sender busy',
      { ground: { ...ground, slot: { ...SLOT, active_pid: 7 } }, limits: { ...limits, senders_used: 10 } },
      [['slot', 'warning']],
    ],
  ])('%s', (_, source, expected) => expect(find(source)).toEqual(expected));

  test('has survived a promotion: a word of warning', () => {
    const chain = {
      kind: 'changes',
      end_lsn: lsnOf(100n),
      system_identifier: '1',
      timeline: 1,
      incarnation: 'i',
    } as const;
    expect(find({ ground: { ...ground, timeline: 2 } }, { chain })).toEqual([['source_cluster', 'warning']]);
    expect(find({}, { chain })).toEqual([]);
  });
});

test('where a plain publication would not do, the SQL for an owner locks the tables on a server that needs it', () => {
  const table = {
    schema: 'public',
    table: 't',
    oid: 5,
    kind: 'r',
    persistence: 'p',
    replica_identity: 'd',
    columns: [],
    key: ['id'],
    may_select: true,
    row_security: false,
    rows_estimate: 0,
    pages: 0,
  };
  const [options] = readPipeline('pipeline: shop\ntables: [public.t]', 'shop.yaml').tables;
  if (!options) throw new RangeError('no entry');
  const stream = { id: 't', source: table, target: table, table, options };
  const publication = {
    revision: '1.7',
    all_tables: false,
    silent: [],
    via_root: false,
    generated_columns: null,
    tables: [],
    members: [],
    partial: [],
  };
  const remedy = (version: number): string | null => {
    const source = {
      ...SOURCE,
      ground: { ...SOURCE.ground, version },
      publication,
      selection: { ...SOURCE.selection, streams: [stream] },
    };
    return findingsOf({ ...SURVEY, source }).find(({ check }) => check === 'publication')?.remedy ?? null;
  };
  const add = 'ALTER PUBLICATION "sluice_shop" ADD TABLE ONLY "public"."t"';
  expect(remedy(180_004)).toContain(`run: ${add}`);
  expect(remedy(140_017)).toContain(`BEGIN; LOCK TABLE ONLY "public"."t" IN SHARE ROW EXCLUSIVE MODE; ${add}; COMMIT`);
});

describe('tables that are only appended to', () => {
  const log = sourceTable('public.log', { key: [] });
  const keyed = sourceTable('public.keyed', {});
  const selection = selectTables(
    [log, keyed],
    readPipeline(
      'pipeline: shop\nsource: { host: a, user: u, database: shop }\ntables: [public.*]\ntarget: { host: b, user: u, database: d, primary_key_required: false }',
      'shop.yaml',
    ),
  );
  const owned = new Set([log.oid, keyed.oid]);
  const state = (name: string, silent: string[]) => ({
    revision: '1.1',
    all_tables: false,
    silent,
    via_root: false,
    generated_columns: null,
    tables: [{ schema: 'public', table: name, entries: 'r1' }],
    members: [],
    partial: [],
  });

  test('are said to be, and get a publication of their own', () => {
    const found = findingsOf({ ...SURVEY, source: { ...SOURCE, selection, owned } });
    expect(found.map(({ check, severity, subject }) => [check, severity, subject])).toEqual([
      ['tables_append_only', 'warning', 'table public.log'],
      ['publication', 'info', 'publication sluice_shop'],
      ['publication', 'info', 'publication sluice_shop_append'],
    ]);
    expect(found[0]?.remedy).toContain('ALTER TABLE "public"."log" REPLICA IDENTITY FULL');
  });

  test('and one that holds updates is a fault, with the SQL that mends it', () => {
    const publication = state('keyed', []);
    const right = { state: state('log', ['update', 'delete']), owned: true };
    expect(find({ selection, owned, publication, append_publication: right })).toEqual([
      ['tables_append_only', 'warning'],
    ]);
    const wrong = { ...right, state: state('log', []) };
    const found = findingsOf({
      ...SURVEY,
      source: { ...SOURCE, selection, owned, publication, append_publication: wrong },
    });
    expect(found[0]).toMatchObject({ severity: 'error', code: 'PUBLICATION_INCOMPLETE' });
    expect(found[0]?.remedy).toContain(`SET (publish = 'insert, truncate')`);
  });
});

describe('the replica', () => {
  const server: ServerSeen = {
    started_at: 'then',
    system_identifier: '1',
    timeline: 1,
    in_recovery: true,
    lsn: lsnOf(900n),
  };
  const limits: SecondaryLimits = {
    lag_seconds: 2,
    standby_delay_ms: 30_000,
    apply_delay_ms: 0,
    feedback: true,
    sorts_otherwise: false,
  };
  const refused = new SluiceError('CONNECTION_FAILED', { side: 'source', host: 'r', port: 5432, reason: 'x' });
  const error = (check: string) => [[check, 'error']];
  const warning = [['replica_limits', 'warning']];

  test.each<readonly [string, Survey['secondary'], unknown]>([
    ['is well', { server, limits }, []],
    ['is not there', null, []],
    ['cannot be reached', refused, error('replica_connection')],
    ['is of another cluster', { server: { ...server, system_identifier: '2' }, limits }, error('replica_server')],
    ['is the primary', { server: { ...server, in_recovery: false }, limits }, error('replica_server')],
    ['does not say where it is', { server: { ...server, lsn: null }, limits }, error('replica_server')],
    ['is far behind', { server, limits: { ...limits, lag_seconds: 4000 } }, warning],
    ['waits on purpose', { server, limits: { ...limits, lag_seconds: 4000, apply_delay_ms: 4_000_000 } }, warning],
    ['breaks queries off', { server, limits: { ...limits, feedback: false } }, warning],
    ['lets queries end', { server, limits: { ...limits, feedback: false, standby_delay_ms: -1 } }, []],
    ['sorts otherwise', { server, limits: { ...limits, sorts_otherwise: true } }, warning],
  ])('%s', (_, secondary, expected) => {
    expect(find({}, { secondary: secondary ?? null })).toEqual(expected);
  });
});

test('source.debug_lsn: tables without a key, and tables that have a column of its name', () => {
  const pipeline = readPipeline(
    'pipeline: shop\nsource: { host: a, user: u, database: shop, debug_lsn: true }\ntables: [public.*]\ntarget: { host: b, user: u, database: d, primary_key_required: false }',
    'shop.yaml',
  );
  const column = { name: '_sdc_lsn', type_oid: 25, type_modifier: -1, not_null: false };
  const tables = [
    sourceTable('public.t'),
    sourceTable('public.bag', { oid: 2, key: [], replica_identity: 'f' }),
    sourceTable('public.taken', { oid: 3, columns: [...sourceTable('public.t').columns, column] }),
  ];
  const source = { ...SOURCE, tables, selection: selectTables(tables, pipeline) };
  const found = findingsOf({ ...SURVEY, pipeline, source }).filter(({ check }) => check === 'debug_lsn');
  expect(found.map(({ severity, subject, code = null }) => [severity, subject, code])).toEqual([
    ['error', 'table public.taken', 'METADATA_COLUMN_TAKEN'],
    ['info', 'table public.bag', null],
  ]);
  const off = findingsOf({ ...SURVEY, source }).filter(({ check }) => check === 'debug_lsn');
  expect(off).toEqual([]);
});

describe('json_schema', () => {
  const options = (json_schema: string, on_invalid = 'halt') =>
    readPipeline(
      `pipeline: shop\nsource: { host: a, user: u, database: shop }\ntables: [{ table: public.t, json_schema: ${json_schema}, columns: { exclude: [note] } }]\ntarget: { host: b, user: u, database: d, validate_records: true, on_invalid: ${on_invalid}, primary_key_required: false }`,
      'shop.yaml',
    );
  const findings = (pipeline: ReturnType<typeof options>, key: readonly string[] = ['id']) => {
    const column = { type_oid: 23, type_modifier: -1, not_null: true };
    const columns = ['id', 'quantity', 'note'].map((name, i) => ({ ...column, name, number: i + 1 }));
    const table = sourceTable('public.t', { columns, key, replica_identity: 'f' });
    const selection = selectTables([table], pipeline);
    return findingsOf({ ...SURVEY, pipeline, source: { ...SOURCE, selection } }).filter(({ check }) =>
      ['json_schema', 'on_invalid'].includes(check),
    );
  };

  test('that requires a column which is not there, or is left out, fits no row', () => {
    const found = findings(options('{ required: [quantitiy, note, id], properties: { id: {}, qantity: {} } }'));
    expect(found.map(({ severity, problem, remedy }) => [severity, problem.split(',')[0], remedy])).toEqual([
      ['error', 'Its JSON Schema requires column quantitiy', 'Did you mean quantity?'],
      ['error', 'Its JSON Schema requires column note', 'Correct the schema (tables.json_schema).'],
      ['warning', 'Its JSON Schema speaks of column qantity', 'Did you mean quantity?'],
    ]);
    expect(findings(options('{ required: [quantity] }'))).toEqual([]);
  });

  test('rows of a table without a key cannot be put aside', () => {
    expect(findings(options('{}', 'reject'), [])).toMatchObject([{ check: 'on_invalid', severity: 'warning' }]);
    expect(findings(options('{}', 'halt'), [])).toEqual([]);
  });
});
