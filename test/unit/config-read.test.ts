/**
 * What a pipeline file that is right becomes: every default, every form, YAML and JSON alike.
 */
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { defaultPublicationName, defaultSlotName, loadersAtOnce } from '../../lib/config/schema.ts';

const read = (text: string) => readPipeline(text, 'pipeline.yaml');
const withSource = (lines: string) =>
  `pipeline: shop\ntables: [public.*]\nsource:\n  host: h\n  user: u\n  database: d\n${lines}`;
const withTarget = (lines: string) => withSource('').replace('source:', 'target:') + lines;

const NO_SSL = { mode: 'disable', ca: null, cert: null, key: null, key_password: null, server_name: null };
const EMBEDDED = {
  host: null,
  port: 5432,
  user: 'postgres',
  password: null,
  database: 'postgres',
  connect_timeout_seconds: 30,
  application_name: 'sluice/shop',
  ssl: NO_SSL,
  ssh: null,
};

/** Of `tables`, where no more is said. */
const ENTRY = {
  replication_method: 'LOG_BASED',
  replication_key: null,
  lookback: null,
  key_properties: null,
  columns: null,
  mask: {},
  where: null,
  target_schema: null,
  target_table: null,
  json_schema: null,
  schedule: null,
};

test('the least that a file can say has every default', () => {
  expect(read('pipeline: shop\ntables: [public.*]\n')).toEqual({
    pipeline: 'shop',
    source: {
      ...EMBEDDED,
      plugin: 'pgoutput',
      slot_reader: 'stream',
      replication_slot: 'sluice_postgres',
      publication_name: 'sluice_postgres',
      create_slot: true,
      failover: false,
      logical_poll_total_seconds: 10_800,
      break_at_end_lsn: false,
      max_run_seconds: 43_200,
      itersize: 20_000,
      batch_fetch_limit: 20_000,
      query_chunk_rows: null,
      wal_sender_timeout: 3_600_000,
      debug_lsn: false,
      fold_partitions: true,
      use_secondary: false,
      secondary_host: null,
      secondary_port: 5432,
    },
    tables: [{ ...ENTRY, table: 'public.*' }],
    mask_salt: null,
    target: {
      ...EMBEDDED,
      default_target_schema: null,
      schema_mapping: {},
      default_target_schema_select_permissions: [],
      hard_delete: false,
      add_metadata_columns: false,
      validate_records: false,
      on_invalid: 'halt',
      on_error: 'halt',
      quarantine_rows_max: 1_000,
      consistency: 'stream',
      batch_size_rows: 10_000,
      batch_flush_interval: 60,
      batch_flush_min_time_gap: 60,
      flush_all_streams: false,
      parallelism: 0,
      max_parallelism: 16,
      stage_retention_days: 14,
      primary_key_required: true,
      on_truncate: 'apply',
      custom_types: 'create',
      data_flattening_max_level: 0,
      on_type_change: 'widen',
      on_drop_column: 'keep',
      indices: {},
    },
    schedule: { kind: 'every', every_seconds: 300, anchor: null, timezone: 'UTC', paused: false },
  });
});

test('how a table is read by query', () => {
  const { tables, source } = read(`pipeline: shop
source: { host: h, user: u, database: d, batch_fetch_limit: 500 }
tables:
  - { table: a.b, replication_method: INCREMENTAL, replication_key: updated_at, lookback: 10 minutes, key_properties: [id, 'n m'] }
  - { table: a.c, replication_method: INCREMENTAL, replication_key: id, lookback: 100 }
  - { table: a.d, replication_method: FULL_TABLE }
`);
  expect([source.itersize, source.batch_fetch_limit, source.query_chunk_rows]).toEqual([500, 500, 500]);
  expect(tables).toEqual([
    {
      ...ENTRY,
      table: 'a.b',
      replication_method: 'INCREMENTAL',
      replication_key: 'updated_at',
      lookback: '10 minutes',
      key_properties: ['id', 'n m'],
    },
    { ...ENTRY, table: 'a.c', replication_method: 'INCREMENTAL', replication_key: 'id', lookback: '100' },
    { ...ENTRY, table: 'a.d', replication_method: 'FULL_TABLE' },
  ]);
});

test('slot_reader is the stream; a token of IAM has no walsender, and the file may say either', () => {
  const reader = (more: string) =>
    read(`pipeline: p\ntables: [public.*]\nsource: { host: h, user: u, database: d, ${more} }`).source.slot_reader;
  expect(reader('')).toBe('stream');
  expect(reader('slot_reader: peek')).toBe('peek');
  expect(reader('password: { iam: true, region: eu-central-1 }, ssl: true')).toBe('peek');
});

test('wal2json follows partitions each by itself', () => {
  const plugin = (more: string) =>
    read(`pipeline: shop\ntables: [public.*]\nsource: { host: h, user: u, database: d${more} }\n`).source;
  expect(plugin(', plugin: wal2json')).toMatchObject({ plugin: 'wal2json', fold_partitions: false });
  expect(plugin('')).toMatchObject({ plugin: 'pgoutput', fold_partitions: true });
});

test('what is said is kept, and names that depend on it follow', () => {
  const { source, target, tables } = read(`
pipeline: web-shop
source:
  host: db.internal
  port: 6543
  user: sluice
  password: \${env:SOURCE_PASSWORD}
  database: Web-Shop
  connect_timeout_seconds: -1
  create_slot: false
  break_at_end_lsn: true
  wal_sender_timeout: 0
  debug_lsn: true
  use_secondary: true
  secondary_host: replica.internal
target:
  host: ::1
  user: loader
  password: { secret: prod/warehouse, key: password }
  database: analytics
  application_name: nightly
  schema_mapping: { public: shop }
  hard_delete: true
  parallelism: -1
  on_truncate: halt
tables:
  - { table: 'public."a.b"', target_schema: x, target_table: y }
`);
  expect(source).toMatchObject({
    host: 'db.internal',
    port: 6543,
    password: { from: 'env', name: 'SOURCE_PASSWORD' },
    connect_timeout_seconds: 0,
    application_name: 'sluice/web-shop',
    replication_slot: 'sluice_web_shop',
    publication_name: 'sluice_web_shop',
    create_slot: false,
    break_at_end_lsn: true,
    wal_sender_timeout: 0,
    debug_lsn: true,
    use_secondary: true,
    secondary_host: 'replica.internal',
    secondary_port: 6543,
  });
  expect(target).toMatchObject({
    host: '::1',
    password: { from: 'secret', name: 'prod/warehouse', key: 'password' },
    application_name: 'nightly',
    schema_mapping: { public: 'shop' },
    hard_delete: true,
    add_metadata_columns: true,
    parallelism: -1,
    on_truncate: 'halt',
  });
  expect(tables).toEqual([{ ...ENTRY, table: 'public."a.b"', target_schema: 'x', target_table: 'y' }]);
});

test('JSON says the same as YAML', () => {
  const file = {
    pipeline: 'shop',
    source: { host: 'h', user: 'u', database: 'd', password: { secret: 'arn:aws:secretsmanager:x' } },
    tables: ['public.*', { table: 'a.b', target_table: 'c' }],
    schedule: { cron: '0 6 * * ? *', timezone: 'Europe/Zurich' },
  };
  const pipeline = read(JSON.stringify(file, null, 2));
  expect(pipeline.source.password).toEqual({ from: 'secret', name: 'arn:aws:secretsmanager:x', key: null });
  expect(pipeline.tables.map((entry) => entry.table)).toEqual(['public.*', 'a.b']);
  expect(pipeline.schedule).toEqual({ kind: 'cron', cron: '0 6 * * ? *', timezone: 'Europe/Zurich', paused: false });
});

test('an anchor of YAML stands for what it names', () => {
  const pipeline = read(`pipeline: shop
source: &server { host: h, user: u, database: a }
target: *server
tables: [public.*]
`);
  expect(pipeline.target).toMatchObject({ host: 'h', user: 'u', database: 'a' });
});

describe('ssl', () => {
  test.each([
    ['ssl: true', { ...NO_SSL, mode: 'require' }],
    ['ssl: false', NO_SSL],
    ['ssl: {}', { ...NO_SSL, mode: 'require' }],
    ['ssl: { ca: ./ca.pem }', { ...NO_SSL, mode: 'verify-ca', ca: { from: 'file', path: './ca.pem' } }],
    ['ssl: { ca: "${env:CA}", mode: require }', { ...NO_SSL, mode: 'require', ca: { from: 'env', name: 'CA' } }],
    [
      'ssl: { mode: verify-full, ca: "-----BEGIN CERTIFICATE-----\\nx", server_name: db }',
      {
        ...NO_SSL,
        mode: 'verify-full',
        ca: { from: 'text', pem: '-----BEGIN CERTIFICATE-----\nx' },
        server_name: 'db',
      },
    ],
    [
      'ssl: { cert: c.pem, key: { secret: k }, key_password: "${env:P}" }',
      {
        ...NO_SSL,
        mode: 'require',
        cert: { from: 'file', path: 'c.pem' },
        key: { from: 'secret', name: 'k', key: null },
        key_password: { from: 'env', name: 'P' },
      },
    ],
  ])('%s', (line, ssl) => {
    expect(read(withSource(`  ${line}\n`)).source.ssl).toEqual(ssl);
  });
});

describe('metadata columns', () => {
  test.each([
    ['', false, false],
    ['  add_metadata_columns: true\n', false, true],
    ['  hard_delete: true\n', true, true],
    ['  hard_delete: true\n  add_metadata_columns: true\n', true, true],
    ['  hard_delete: false\n  add_metadata_columns: false\n', false, false],
  ])('%j', (lines, hard_delete, add_metadata_columns) => {
    expect(read(withTarget(lines)).target).toMatchObject({ hard_delete, add_metadata_columns });
  });
});

describe('names of slot and publication', () => {
  test.each([
    ['shop', 'sluice_shop'],
    ['Web-Shop 2', 'sluice_web_shop_2'],
    ['Größe', 'sluice_gr__e'],
    ['😀', 'sluice__'],
    ['x'.repeat(63), `sluice_${'x'.repeat(56)}`],
  ])('%s', (database, name) => {
    expect(defaultSlotName(database)).toBe(name);
    expect(defaultPublicationName(database)).toBe(name);
    expect(Buffer.byteLength(name)).toBeLessThanOrEqual(63);
  });
});

describe('loaders at once', () => {
  const { target } = read('pipeline: shop\ntables: [public.*]\n');
  test.each([
    [0, 16, 5, 5],
    [0, 16, 50, 16],
    [0, 16, 0, 1],
    [-1, 16, 50, 4],
    [-1, 2, 50, 2],
    [3, 16, 50, 3],
    [32, 16, 50, 16],
  ])('parallelism %i of %i for %i streams on 4 cores: %i', (parallelism, max_parallelism, streams, loaders) => {
    expect(loadersAtOnce({ ...target, parallelism, max_parallelism }, streams, 4)).toBe(loaders);
  });
});
