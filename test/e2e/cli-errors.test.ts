/**
 * What is wrong with a source, a target or a file: one clear error with its remedy, the right exit code, no stack, no password, and nothing changed on either
 * side.
 */
import { writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { query, startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { startSluice, type Workplace, workplace } from '../support/sluice.ts';

let source: TestPostgres;
let target: TestPostgres;
let replica: TestPostgres;
let place: Workplace;

beforeAll(async () => {
  [source, target, replica] = await Promise.all([
    startPostgres(),
    startPostgres(),
    startPostgres({ settings: { wal_level: 'replica' } }),
  ]);
  await query(source, 'CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE loose (n int)');
  await query(source, "CREATE ROLE plain LOGIN PASSWORD 'plain-secret'; GRANT SELECT ON kept TO plain");
  await query(replica, 'CREATE TABLE kept (id int PRIMARY KEY)');
  await query(target, "CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'reader-secret'");
  await query(target, 'ALTER ROLE reader SET default_transaction_read_only = on');
});

afterEach(async () => {
  await place[Symbol.asyncDispose]();
  for (const server of [source, replica, target]) {
    const found = await query(
      server,
      `SELECT (SELECT count(*)::int FROM pg_publication) AS publications,
              (SELECT count(*)::int FROM pg_replication_slots WHERE slot_type = 'logical') AS slots,
              (SELECT count(*)::int FROM pg_namespace WHERE nspname = '_sluice') AS schemas`,
    );
    expect(found).toEqual([{ publications: 0, slots: 0, schemas: 0 }]);
  }
});

afterAll(async () => {
  await Promise.all([source, target, replica].map((server) => server?.stop()));
});

/** Runs until caught up, which it cannot, with `secrets` as the passwords. */
async function fails(secrets: { SOURCE_PASSWORD?: string; TARGET_PASSWORD?: string } = {}) {
  const env = { SOURCE_PASSWORD: source.password, TARGET_PASSWORD: target.password, ...secrets };
  const args = ['run', '-c', place.config, '--state', place.state, '--until-caught-up'];
  const ended = await startSluice(args, env).ended;
  const said = ended.out + ended.err;
  const all = [...Object.values(env), 'plain-secret', 'reader-secret'].filter((secret) => secret !== '');
  for (const secret of all) expect(said).not.toContain(secret);
  expect(said).not.toMatch(/\n\s+at .*:\d+:\d+/);
  expect(ended.err.match(/^Error /gm)).toHaveLength(1);
  const [, code, remedy] = /^Error ([A-Z_]+): [^]+?\n {2}Remedy: (.+)$/m.exec(ended.err) ?? [];
  return { exit: ended.code, code, remedy };
}

describe('of the source', () => {
  test('a wrong password', async () => {
    place = await workplace(source, target, { tables: '[public.kept]' });
    expect(await fails({ SOURCE_PASSWORD: 'not this one' })).toEqual({
      exit: 1,
      code: 'AUTHENTICATION_FAILED',
      remedy: expect.stringContaining('password of the source'),
    });
  });

  test('an unknown host', async () => {
    place = await workplace({ ...source, host: 'nowhere.invalid' }, target, { tables: '[public.kept]' });
    expect(await fails()).toEqual({
      exit: 1,
      code: 'CONNECTION_FAILED',
      remedy: expect.stringContaining('Check host, port'),
    });
  });

  test('wal_level = replica', async () => {
    place = await workplace(replica, target, { tables: '[public.kept]' });
    expect(await fails({ SOURCE_PASSWORD: replica.password })).toEqual({
      exit: 1,
      code: 'WAL_LEVEL',
      remedy: expect.stringContaining("ALTER SYSTEM SET wal_level = 'logical'"),
    });
  });

  test('a role that may not replicate', async () => {
    place = await workplace({ ...source, user: 'plain' }, target, { tables: '[public.kept]' });
    expect(await fails({ SOURCE_PASSWORD: 'plain-secret' })).toEqual({
      exit: 1,
      code: 'REPLICATION_NOT_ALLOWED',
      remedy: expect.stringContaining('ALTER ROLE "plain" REPLICATION'),
    });
  });

  test('a standby', async () => {
    const standby = await startStandby(source);
    try {
      place = await workplace(standby, target, { tables: '[public.kept]' });
      expect(await fails()).toEqual({
        exit: 1,
        code: 'SOURCE_IS_STANDBY',
        remedy: expect.stringContaining('primary'),
      });
    } finally {
      await standby.stop();
    }
  });

  test('a table that is not there', async () => {
    place = await workplace(source, target, { tables: '[public.kept, public.Kept]' });
    expect(await fails()).toEqual({
      exit: 1,
      code: 'TABLE_MISSING',
      remedy: expect.stringContaining('public.kept'),
    });
  });

  test('a table without a key', async () => {
    place = await workplace(source, target, { tables: '[public.kept, public.loose]' });
    expect(await fails()).toEqual({
      exit: 1,
      code: 'TABLE_WITHOUT_KEY',
      remedy: expect.stringContaining('ALTER TABLE "public"."loose" ADD PRIMARY KEY'),
    });
  });
});

describe('of the target', () => {
  test('a wrong password', async () => {
    place = await workplace(source, target, { tables: '[public.kept]' });
    expect(await fails({ TARGET_PASSWORD: 'nor this one' })).toEqual({
      exit: 1,
      code: 'AUTHENTICATION_FAILED',
      remedy: expect.stringContaining('password of the target'),
    });
  });

  test('a role that may only read', async () => {
    place = await workplace(source, { ...target, user: 'reader' }, { tables: '[public.kept]' });
    expect(await fails({ TARGET_PASSWORD: 'reader-secret' })).toEqual({
      exit: 1,
      code: 'TARGET_READ_ONLY',
      remedy: expect.stringContaining('default_transaction_read_only'),
    });
  });
});

describe('of the pipeline file', () => {
  test('text that is no YAML', async () => {
    place = await workplace(source, target);
    await writeFile(place.config, 'pipeline: shop\ntables: [public.*\n');
    expect(await fails()).toMatchObject({ exit: 2, code: 'CONFIG_INVALID' });
  });

  test('an unknown key', async () => {
    place = await workplace(source, target, { target: '  hard_deletes: true' });
    expect(await fails()).toEqual({
      exit: 2,
      code: 'CONFIG_INVALID',
      remedy: expect.stringContaining('hard_delete'),
    });
  });

  test('a password that the environment does not have', async () => {
    place = await workplace(source, target, { tables: '[public.kept]' });
    expect(await fails({ TARGET_PASSWORD: '' })).toEqual({
      exit: 1,
      code: 'SECRET_UNREADABLE',
      remedy: expect.stringContaining('target.password'),
    });
  });

  test('no file', async () => {
    place = await workplace(source, target);
    const { code, err } = await startSluice(['run', '-c', `${place.config}.not`, '--state', place.state]).ended;
    expect(code).toBe(2);
    expect(err).toMatch(/^Error USAGE: The pipeline file .* is not there\.\n {2}Remedy: .*sluice init/);
  });
});
