/**
 * Goal: no failure of the source's bytes or of the target hangs a load, leaves a connection or half a cut, or lets a row's value out.
 * Method: streams that break, servers that refuse, backends and sockets that die; then the error, the rows and the connections are looked at.
 */
import { Readable } from 'node:stream';
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { SegmentSource, TargetTransaction } from '../../lib/ports.ts';
import { loadedStream, TWO_COLUMNS as SHAPE, upsertOf as upsert } from '../support/loaded-stream.ts';
import {
  applyCut,
  onLoaderServer,
  rowsOf,
  streamOf,
  synchronise,
  type TargetFor,
  targetOn,
} from '../support/loading.ts';
import { startStandby, type TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const streamWith = (lines: readonly Line[], options?: TargetFor) => loadedStream(server, lines, options);
const at = (cut: number) => ({ cut, lsn: lsnOf(BigInt(cut)), caught_up: true });
const appliedCut = (tx: TargetTransaction) => Promise.resolve(tx.row?.applied_cut);

describe('a source that breaks', () => {
  const broken = (segment: SegmentSource, text: string, error: Error): SegmentSource => ({
    header: segment.header,
    block: () =>
      Readable.from(
        (async function* () {
          yield Buffer.from(text);
          await new Promise((resolve) => setTimeout(resolve, 10));
          throw error;
        })(),
      ),
  });

  test.each([
    ['at once', ''],
    ['after rows', '1\tx\n2\ty\n'],
    ['in the middle of much', '7\t'.padEnd(1_000_000, 'x')],
  ])('its error comes out: %s', async (_when, text) => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const error = new SluiceError('STAGE_CORRUPT', { object: 'o', reason: 'a CRC does not match' });
    await expect(applyCut(target, stream, [broken(upsert(), text, error)])).rejects.toBe(error);
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
  });

  test('an error of its network is not taken for one of the target', async () => {
    const { stream, target } = await streamWith([]);
    const error = Object.assign(new Error('read'), { code: 'ECONNRESET' });
    await expect(applyCut(target, stream, [broken(upsert(), '1\tx\n', error)])).rejects.toMatchObject({
      code: 'UNEXPECTED',
      cause: error,
    });
  });

  test('one that is destroyed without a word', async () => {
    const { stream, target } = await streamWith([]);
    const silent = new Readable({ read() {} });
    silent.push('1\tx\n');
    setTimeout(() => silent.destroy(), 20);
    await expect(applyCut(target, stream, [{ header: upsert().header, block: () => silent }])).rejects.toBeInstanceOf(
      SluiceError,
    );
  });

  test('fewer lines than its header tells of', async () => {
    const { table, stream, target } = await streamWith([]);
    const short = segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines: [['1', 'a']], rows: 2 }] });
    await expect(applyCut(target, stream, [short])).rejects.toMatchObject({ code: 'STAGE_CORRUPT' });
    expect(await rowsOf(client, table)).toEqual([]);
  });
});

describe('a target that breaks', () => {
  const CANARY = 'canary-7f3a';

  test('a value it cannot read: rejected with column and line, without the value', async () => {
    const { stream, target } = await streamWith([]);
    const error: unknown = await applyCut(target, stream, [upsert(['1', 'x'], [CANARY, 'y'])]).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ code: 'TARGET_REJECTS', facts: { sqlstate: '22P02' } });
    expect(String(error)).toContain('column id, line 2');
    expectWithout(error, CANARY);
  });

  test('a constraint of its own: rejected by name; a trigger that quotes the row: without it', async () => {
    const { table, stream, target } = await streamWith([]);
    await client.query(`ALTER TABLE loaded.${table.table} ADD CONSTRAINT short CHECK (length(a) < 4)`);
    const checked: unknown = await applyCut(target, stream, [upsert(['1', CANARY])]).catch((thrown: unknown) => thrown);
    expect(checked).toMatchObject({ code: 'TARGET_REJECTS', message: expect.stringContaining('constraint short') });
    expectWithout(checked, CANARY);
    await client.query(`ALTER TABLE loaded.${table.table} DROP CONSTRAINT short;
      CREATE FUNCTION loaded.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', NEW.a USING HINT = NEW.a; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON loaded.${table.table} FOR EACH ROW EXECUTE FUNCTION loaded.refuse()`);
    const raised: unknown = await applyCut(target, stream, [upsert(['1', CANARY])]).catch((thrown: unknown) => thrown);
    expect(raised).toMatchObject({ code: 'TARGET_REJECTS', facts: { sqlstate: 'P0001' } });
    expectWithout(raised, CANARY);
  });

  test('in the middle of a large COPY: its error comes out, and the source is closed', async () => {
    const { stream, target } = await streamWith([]);
    let given = 0;
    const endless = Readable.from(
      (function* () {
        for (;;) {
          yield Buffer.from(given++ === 50 ? 'x\ty\n' : `${given}\t${'y'.repeat(10_000)}\n`);
        }
      })(),
    );
    const header = { ...upsert().header, blocks: [{ kind: 'upsert' as const, columns: [0, 1], rows: null }] };
    await expect(applyCut(target, stream, [{ header, block: () => endless }])).rejects.toMatchObject({
      code: 'TARGET_REJECTS',
    });
    expect(endless.destroyed).toBe(true);
  });

  test('a backend that is ended, in a COPY and between statements: transient', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const end = () =>
      client.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice/test-load'",
      );
    const slow = Readable.from(
      (async function* () {
        yield Buffer.from('2\tb\n');
        await end();
        for (;;) {
          yield Buffer.from('3\tc\n');
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      })(),
    );
    await expect(applyCut(target, stream, [{ header: upsert().header, block: () => slow }])).rejects.toMatchObject({
      code: 'TARGET_TRANSIENT',
      disposition: 'retry',
    });
    const between = target.transaction(stream, async (tx) => {
      await end();
      await new Promise((resolve) => setTimeout(resolve, 50));
      await tx.advance(at(11));
    });
    await expect(between).rejects.toMatchObject({ disposition: 'retry' });
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('a socket that is gone, in a COPY and at the commit', async () => {
    const { stream } = await streamWith([]);
    let last: pg.Client | undefined;
    const target = targetOn(server, { onClient: (opened) => (last = opened) });
    const cut = () => last?.connection.stream.destroy();
    const slow = Readable.from(
      (async function* () {
        yield Buffer.from('2\tb\n');
        cut();
        await new Promise((resolve) => setTimeout(resolve, 20));
        yield Buffer.from('3\tb\n');
      })(),
    );
    await expect(applyCut(target, stream, [{ header: upsert().header, block: () => slow }])).rejects.toMatchObject({
      code: 'TARGET_TRANSIENT',
    });
    const committing = target.transaction(stream, async (tx) => {
      await tx.advance(at(11));
      cut();
    });
    await expect(committing).rejects.toMatchObject({ code: 'TARGET_TRANSIENT' });
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('the table is gone: rejected, with its name', async () => {
    const { table, stream, target } = await streamWith([]);
    await client.query(`DROP TABLE loaded.${table.table}`);
    await expect(applyCut(target, stream, [upsert(['1', 'a'])])).rejects.toMatchObject({
      code: 'TARGET_REJECTS',
      message: expect.stringContaining('undefined_table'),
    });
  });

  test('no connection at all', async () => {
    const nowhere = targetOn({ ...server, port: 1 });
    await expect(nowhere.transaction(streamOf({ schema: 'loaded', table: 'x' }), appliedCut)).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringContaining('ECONNREFUSED'),
    });
    const wrong = targetOn(server, { user: 'nobody', password: 'x' });
    await expect(wrong.transaction(streamOf({ schema: 'loaded', table: 'x' }), appliedCut)).rejects.toMatchObject({
      code: 'AUTHENTICATION_FAILED',
    });
    const missing = targetOn(server, { database: 'no_such' });
    await expect(missing.transaction(streamOf({ schema: 'loaded', table: 'x' }), appliedCut)).rejects.toMatchObject({
      code: 'DATABASE_MISSING',
    });
  });
});

describe('a target that may not be written', () => {
  test('read-only role, and a standby', async () => {
    const { stream, target } = await streamWith([]);
    await client.query(
      `CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'r'; ALTER ROLE reader SET default_transaction_read_only = on`,
    );
    const reader = targetOn(server, { user: 'reader', password: 'r' });
    await expect(reader.transaction(stream, appliedCut)).rejects.toMatchObject({
      code: 'TARGET_READ_ONLY',
      disposition: 'halt',
    });
    const fresh = streamOf({ schema: 'loaded', table: 'fresh' });
    await expect(synchronise(reader, fresh, SHAPE, [[]])).rejects.toMatchObject({ code: 'TARGET_READ_ONLY' });
    const standby = await startStandby(server);
    try {
      await expect(targetOn(standby).transaction(stream, appliedCut)).rejects.toMatchObject({
        code: 'TARGET_READ_ONLY',
      });
    } finally {
      await standby.stop();
    }
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('missing rights: which one, and the SQL that gives it', async () => {
    await client.query("CREATE ROLE weak LOGIN PASSWORD 'w'");
    await client.query('CREATE DATABASE weak');
    await client.query('REVOKE TEMPORARY ON DATABASE weak FROM PUBLIC');
    const admin = await server.connect('weak');
    const target = targetOn(server, { user: 'weak', password: 'w', database: 'weak' });
    const stream = streamOf({ schema: 'sh op', table: 't' });
    const load = async () => {
      await synchronise(target, stream, SHAPE, [[['1', 'a']]]);
      await applyCut(target, stream, [upsert(['2', 'b'])]);
    };
    const given: string[] = [];
    // Each fault's remedy is run as it stands; then the next thing is missing.
    for (;;) {
      const fault: unknown = await load().then(
        () => null,
        (thrown: unknown) => thrown,
      );
      if (fault === null) break;
      expect(fault).toMatchObject({ code: 'TARGET_NOT_ALLOWED', disposition: 'halt' });
      const sql = String((fault as SluiceError).facts.sql);
      expect((fault as SluiceError).remedy).toBe(`Run: ${sql}; then: sluice resume ${stream.stream}`);
      expect(given).not.toContain(sql);
      given.push(sql);
      await admin.query(sql);
    }
    expect(given).toEqual([
      'GRANT CREATE ON DATABASE "weak" TO "weak"',
      'GRANT TEMPORARY ON DATABASE "weak" TO "weak"',
    ]);

    await admin.query('ALTER TABLE "sh op".t OWNER TO postgres');
    await expect(load()).rejects.toMatchObject({
      code: 'TARGET_NOT_ALLOWED',
      facts: { sql: 'GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON "sh op"."t" TO "weak"' },
    });
    await admin.end();
  });

  test('a policy that would hide rows is an error', async () => {
    const { table, stream } = await streamWith([['1', 'a']]);
    await client.query(`CREATE ROLE guarded LOGIN PASSWORD 'g'; GRANT ALL ON SCHEMA loaded, _sluice TO guarded;
      GRANT ALL ON ALL TABLES IN SCHEMA loaded, _sluice TO guarded; ALTER TABLE loaded.${table.table} ENABLE ROW LEVEL SECURITY;
      CREATE POLICY none ON loaded.${table.table} USING (false)`);
    const guarded = targetOn(server, { user: 'guarded', password: 'g' });
    const update = segmentOf({ shape: SHAPE, blocks: [{ kind: 'update', columns: ['id', 'a'], lines: [['1', 'b']] }] });
    await expect(applyCut(guarded, stream, [update])).rejects.toMatchObject({ code: 'TARGET_NOT_ALLOWED' });
  });
});

function expectWithout(error: unknown, canary: string): void {
  expect(error).toBeInstanceOf(SluiceError);
  const seen: unknown[] = [];
  for (let at = error; at instanceof Error; at = at.cause) {
    seen.push(at.message, at.stack, ...Object.values(at), at instanceof SluiceError ? at.remedy : '');
  }
  expect(JSON.stringify(seen)).not.toContain(canary);
}
