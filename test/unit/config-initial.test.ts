/**
 * What `sluice init` writes: valid as it is, with what it says in comments valid too, and no secret in it, whatever the source is called.
 */
import { describe, expect, test } from 'vitest';
import { parseConnectionUrl } from '../../lib/config/connection-url.ts';
import { initialPipeline, pipelineName } from '../../lib/config/initial-pipeline.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { selectTables } from '../../lib/config/selection.ts';
import { SluiceError } from '../../lib/errors.ts';
import { sourceTable } from '../support/source-tables.ts';

const connection = {
  host: 'db.internal',
  port: 5433,
  user: 'sluice',
  database: 'Web_Shop',
  ssl_mode: 'disable',
  ssl_ca: null,
} as const;

const tables = [
  sourceTable('public.orders', { rows_estimate: 1200 }),
  sourceTable('public.items', { rows_estimate: 34 }),
  sourceTable('public.report', { kind: 'v' }),
  sourceTable('Odd.X"y.t', { schema: 'Odd.X"y', table: 't\n- a.b', rows_estimate: -1 }),
];

const written = () => initialPipeline({ connection, has_password: true, tables, name: null });

test('the file is valid, and selects what it says', () => {
  const { text, name, followed, skipped } = written();
  const pipeline = readPipeline(text, 'pipeline.yaml');
  expect(name).toBe('web-shop');
  expect(pipeline).toMatchObject({
    pipeline: 'web-shop',
    source: {
      host: 'db.internal',
      port: 5433,
      user: 'sluice',
      password: { from: 'env', name: 'SOURCE_PASSWORD' },
      database: 'Web_Shop',
      ssl: { mode: 'disable' },
    },
    target: { host: null },
    schedule: { kind: 'every', every_seconds: 300 },
  });
  const { streams, faults } = selectTables(tables, pipeline);
  expect(faults).toEqual([]);
  expect(streams).toHaveLength(followed);
  expect(followed).toBe(3);
  expect(skipped).toEqual([{ table: 'public.report', reason: expect.stringContaining('is a view') as string }]);
});

test('what the log does not have is suggested to be read by query, in entries that are valid', () => {
  const suggested = (method: string): string =>
    written()
      .text.replace(new RegExp(`^  # (- .*${method}.*)$`, 'mu'), '  $1')
      .replaceAll('COLUMN', 'id');
  for (const method of ['FULL_TABLE', 'INCREMENTAL']) {
    const { streams, faults } = selectTables(tables, readPipeline(suggested(method), 'pipeline.yaml'));
    expect(faults).toEqual([]);
    expect(streams.map(({ source, options }) => [source.table, options.replication_method])).toContainEqual([
      'report',
      method,
    ]);
  }
});

test('its comments say what was found', () => {
  const { text } = written();
  expect(text).toContain('  # 2 tables, about 1,234 rows: orders, items\n  - public.*\n');
  expect(text).toContain('  # 1 table, never analysed: t - a.b\n');
  expect(text).toContain('public.report is a view');
  expect(text).toContain('# replication_slot: sluice_web_shop');
  expect(text).toContain('  # - { table: public.report, replication_method: FULL_TABLE }\n');
  expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(120);
});

test('what stands in its comments is valid once it is uncommented', () => {
  const lines = written().text.split('\n');
  const uncommented = lines
    .map((line) => line.replace(/^# (target:|  .*)$/, '$1').replace(/^( *)# ([a-z_]+: \S+)$/, '$1$2'))
    .join('\n');
  const pipeline = readPipeline(uncommented, 'pipeline.yaml');
  expect(pipeline.source.ssl.mode).toBe('require');
  expect(pipeline.target).toMatchObject({
    host: 'warehouse.internal',
    default_target_schema: 'replica',
    on_truncate: 'apply',
  });
});

test('without a password, without tables, with TLS and an odd address it is valid too', () => {
  const odd = { ...connection, host: '::1', user: 'o\'x "y"', ssl_mode: 'verify-full', ssl_ca: './a b.pem' } as const;
  const { text, followed } = initialPipeline({ connection: odd, has_password: false, tables: [], name: 'mine' });
  const pipeline = readPipeline(text, 'pipeline.yaml');
  expect(followed).toBe(0);
  expect(pipeline.pipeline).toBe('mine');
  expect(pipeline.source).toMatchObject({
    host: '::1',
    user: 'o\'x "y"',
    password: null,
    ssl: { mode: 'verify-full', ca: { from: 'file', path: './a b.pem' } },
  });
  expect(pipeline.tables.map((entry) => entry.table)).toEqual(['public.*']);
});

test.each([
  ['shop', 'shop'],
  ['Web_Shop', 'web-shop'],
  ['2024_shop', 'shop'],
  ['__a__b__', 'a-b'],
  ['Größe', 'gr-e'],
  ['商店', 'pipeline'],
  ['a-'.repeat(60), `${'a-'.repeat(19)}a`],
])('database %s names pipeline %s', (database, name) => {
  expect(pipelineName(database)).toBe(name);
  expect(readPipeline(`pipeline: ${name}\ntables: [a.b]\n`, 'p').pipeline).toBe(name);
});

describe('a connection URL', () => {
  test.each([
    [
      'postgresql://u@h',
      { host: 'h', port: 5432, user: 'u', password: null, database: 'u', ssl_mode: 'disable', ssl_ca: null },
    ],
    ['postgres://u:p%40s%2Fs@h:1/d%20b', { host: 'h', port: 1, user: 'u', password: 'p@s/s', database: 'd b' }],
    ['postgres://u@[::1]:6/d', { host: '::1', port: 6 }],
    ['postgres://u@h/d?sslmode=verify-full&sslrootcert=ca.pem', { ssl_mode: 'verify-full', ssl_ca: 'ca.pem' }],
    ['postgres://u@h/d?sslrootcert=ca.pem', { ssl_mode: 'verify-ca', ssl_ca: 'ca.pem' }],
    ['postgres://u@h/d?sslmode=prefer', { ssl_mode: 'disable' }],
    ['postgres://u@h/d?sslrootcert=system', { ssl_mode: 'verify-full', ssl_ca: null }],
    ['postgres://u@h/d?sslmode=verify-full', { ssl_mode: 'verify-full', ssl_ca: null }],
  ])('%s', (url, parts) => {
    expect(parseConnectionUrl(url)).toMatchObject(parts);
  });

  test.each([
    ['', 'no connection URL'],
    ['shop', 'no connection URL'],
    ['mysql://u:hunter2@h/d', 'no connection URL'],
    ['postgres://u:hunter2@h:port/d', 'no connection URL'],
    ['postgres:///d', 'no host'],
    ['postgres://:hunter2@h/d', 'no user'],
    ['postgres://u:hunter2%@h/d', 'a % that begins no code'],
    ['postgres://u:hunter2@h/d?sslmode=on', 'sslmode "on" is not known'],
    ['postgres://u:hunter2@h/d?sslmode=verify-ca', 'names no authority'],
    ['postgres://u:hunter2@h/d?sslmode=disable&sslrootcert=ca.pem', 'its sslmode promises no TLS'],
    ['postgres://u:hunter2@h/d?sslmode=prefer&sslrootcert=ca.pem', 'its sslmode promises no TLS'],
    ['postgres://u:hunter2@h/d?sslmode=require&sslrootcert=system', 'needs sslmode=verify-full'],
    ['postgres://u:hunter2@h/d?options=-c', 'parameter "options" of the URL is not known'],
  ])('%s is refused: %s', (url, reason) => {
    let error: unknown;
    try {
      parseConnectionUrl(url);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SluiceError);
    const { code, message, remedy } = error as SluiceError;
    expect(code).toBe('USAGE');
    expect(message).toContain(reason);
    expect(message + remedy).not.toContain('hunter2');
  });
});
