/**
 * `sluice init` against a real server: it finds the tables that can be followed, writes a file that selects exactly those, and changes nothing.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { registerInit } from '../../cli/init.ts';
import type { CliIo } from '../../cli/io.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { selectTables } from '../../lib/config/selection.ts';
import { SluiceError } from '../../lib/errors.ts';
import { clientConfig, connectClient } from '../../lib/postgres/connection.ts';
import { serverVersion } from '../../lib/postgres/session.ts';
import { displayName } from '../../lib/shape.ts';
import { type CatalogRow, tableOf, tablesSql } from '../../lib/slot/catalog.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const SCHEMA_SQL = `
  CREATE TABLE public.orders (id int PRIMARY KEY, note text);
  INSERT INTO public.orders SELECT n, 'x' FROM generate_series(1, 500) AS n;
  CREATE TABLE public.no_key (note text);
  CREATE VIEW public.recent AS SELECT * FROM public.orders;
  CREATE SCHEMA "Odd.Schema";
  CREATE TABLE "Odd.Schema"."a""b
c" (id int PRIMARY KEY);
  ANALYZE;
`;

let server: TestPostgres;
let directory: string;
let out: string[];
let url: URL;

async function sluice(args: readonly string[], env: CliIo['env'] = {}): Promise<void> {
  const program = new Command().exitOverride();
  registerInit(program, {
    out: (line) => out.push(line),
    err: () => {},
    env,
    connect: (endpoint) => connectClient(() => new Client(clientConfig(endpoint)), endpoint),
  });
  await program.parseAsync(['init', ...args], { from: 'user' });
}

async function failure(promise: Promise<void>): Promise<SluiceError> {
  const error: unknown = await promise.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  if (error instanceof SluiceError) return error;
  throw error;
}

beforeAll(async () => {
  server = await startPostgres();
  directory = await mkdtemp(join(tmpdir(), 'sluice-init-'));
  const client = await server.connect();
  await client.query(SCHEMA_SQL);
  await client.end();
  url = new URL(`postgresql://${server.host}:${server.port}/${server.database}`);
  url.username = server.user;
  url.password = server.password;
});

afterAll(async () => {
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

beforeEach(() => {
  out = [];
});

test('writes a file that selects what can be followed', async () => {
  const file = join(directory, 'pipeline.yaml');
  await sluice([url.href, '--output', file, '--name', 'shop']);

  const text = await readFile(file, 'utf8');
  expect(text).not.toContain(server.password);
  expect(text).toContain('  # 1 table, about 500 rows: orders\n  - public.*\n');
  expect(text).toContain('public.no_key has no primary key');
  expect(text).toContain('public.recent is a view');
  expect(out.join('\n')).toContain('2 tables to follow, 2 left out');
  expect(out.join('\n')).toContain('set SOURCE_PASSWORD');

  const pipeline = readPipeline(text, file);
  expect(pipeline.pipeline).toBe('shop');
  const client = await server.connect();
  const { rows } = await client.query<CatalogRow>(tablesSql(await serverVersion(client), false));
  const { streams, faults } = selectTables(rows.map(tableOf), pipeline);
  const made = await client.query(
    'SELECT slot_name FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication',
  );
  await client.end();
  expect(faults).toEqual([]);
  expect(streams.map(({ source }) => displayName(source))).toEqual(['Odd.Schema.a"b\nc', 'public.orders']);
  expect(made.rows).toEqual([]);
});

test('takes the password from the environment, and tells the result as JSON', async () => {
  const file = join(directory, 'json.yaml');
  const bare = new URL(url);
  bare.password = '';
  await sluice([bare.href, '-o', file, '--json'], { SOURCE_PASSWORD: server.password });
  expect(JSON.parse(out.join('\n'))).toEqual({
    file,
    pipeline: 'postgres',
    tables: 2,
    skipped: [
      { table: 'public.no_key', reason: expect.stringContaining('no primary key') as string },
      { table: 'public.recent', reason: expect.stringContaining('is a view') as string },
    ],
  });
});

test('writes to standard output', async () => {
  await sluice([url.href, '-o', '-']);
  expect(readPipeline(out.join('\n'), '-').source.port).toBe(server.port);
});

describe('refuses', () => {
  test('to overwrite a file, unless it is told to', async () => {
    const file = join(directory, 'mine.yaml');
    await writeFile(file, 'mine');
    const error = await failure(sluice([url.href, '-o', file]));
    expect([error.code, error.remedy]).toEqual(['USAGE', expect.stringContaining('--force')]);
    expect(await readFile(file, 'utf8')).toBe('mine');
    await sluice([url.href, '-o', file, '--force']);
    expect(await readFile(file, 'utf8')).toContain('pipeline: postgres');
  });

  test.each([
    ['a directory that is not there', ['-o', '/nowhere/pipeline.yaml'], 'USAGE', 'cannot be written (ENOENT)'],
    ['a name that is none', ['-o', '-', '--name', 'Web Shop'], 'CONFIG_INVALID', 'pipeline must be'],
  ])('%s', async (_name, args, code, message) => {
    const error = await failure(sluice([url.href, ...args]));
    expect(error.code).toBe(code);
    expect(error.message).toContain(message);
    expect(out).toEqual([]);
  });

  test('certificates that cannot be read, before it connects', async () => {
    const error = await failure(sluice([`${url.href}?sslrootcert=/nowhere/ca.pem`, '-o', '-']));
    expect([error.code, error.message]).toEqual(['USAGE', expect.stringContaining('ENOENT')]);
  });

  test('a wrong password, and writes nothing', async () => {
    const file = join(directory, 'never.yaml');
    const wrong = new URL(url);
    wrong.password = 'hunter2';
    const error = await failure(sluice([wrong.href, '-o', file]));
    expect(error.code).toBe('AUTHENTICATION_FAILED');
    expect(error.message + error.remedy).not.toContain('hunter2');
    await expect(readFile(file)).rejects.toThrow('ENOENT');
  });
});
