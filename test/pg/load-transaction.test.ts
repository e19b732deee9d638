/**
 * Goal: a load's transaction holds the stream's row, is whole or not at all, and no failure of either side hangs it or leaves a connection.
 * Method: two loaders at once, sources that break, servers that refuse, backends that die; then the rows and the connections are looked at.
 */
import { Readable } from 'node:stream';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { SegmentSource, TargetTransaction } from '../../lib/ports.ts';
import {
  applyCut,
  connectionsLeft,
  INCARNATION,
  rowsOf,
  streamOf,
  synchronise,
  type TargetFor,
  targetOn,
} from '../support/loading.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

beforeAll(async () => {
  server = await startPostgres();
  client = await server.connect();
});
afterEach(async () => {
  expect(await connectionsLeft(client)).toBe(0);
});
afterAll(async () => {
  await server.stop();
});

const SHAPE = shapeOf({ id: 'int4', a: 'text' }, ['id']);
let tables = 0;

async function streamWith(lines: Line[], options: TargetFor = {}) {
  const table = { schema: 'tx', table: `t${++tables}` };
  const stream = streamOf(table);
  const target = targetOn(server, options);
  await synchronise(target, stream, SHAPE, [lines]);
  return { table, stream, target };
}

const upsert = (...lines: Line[]) => segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines }] });
const at = (cut: number) => ({ cut, lsn: lsnOf(BigInt(cut)), caught_up: true });
const appliedCut = (tx: TargetTransaction) => Promise.resolve(tx.row?.applied_cut);

describe('the row', () => {
  test('where nothing was ever prepared: null, no error, and nothing is made', async () => {
    await client.query('CREATE DATABASE empty');
    const target = targetOn(server, { database: 'empty' });
    const stream = streamOf({ schema: 'tx', table: 'none' });
    expect(await target.transaction(stream, (tx) => Promise.resolve(tx.row))).toBe(null);
    expect(await target.loadedChunks(stream, { number: 1 } as never, 'p')).toEqual(new Set());
    const empty = await server.connect('empty');
    expect((await empty.query(`SELECT 1 FROM pg_namespace WHERE nspname IN ('_sluice', 'tx')`)).rowCount).toBe(0);
    await empty.end();
  });

  test('of another stream or pipeline is not seen', async () => {
    const { stream, target } = await streamWith([]);
    expect(await target.transaction({ ...stream, stream: 'another' }, (tx) => Promise.resolve(tx.row))).toBe(null);
    expect(await targetOn(server, { pipeline: 'blog' }).transaction(stream, (tx) => Promise.resolve(tx.row))).toBe(
      null,
    );
  });

  test('says what is applied', async () => {
    const { stream, target } = await streamWith([]);
    const first = await target.transaction(stream, async (tx) => {
      await tx.advance({ cut: 11, lsn: lsnOf(0xabcdef0123n), caught_up: false });
      return tx.row;
    });
    expect(first).toMatchObject({
      incarnation: INCARNATION,
      applied_cut: 10,
      applied_lsn: 0x1000n,
      hold: null,
      catching_up_to: 0x2000n,
      shape: SHAPE,
    });
    const second = await target.transaction(stream, async (tx) => {
      await tx.advance(at(12));
      return tx.row;
    });
    expect(second).toMatchObject({ applied_cut: 11, applied_lsn: 0xabcdef0123n, catching_up_to: 0x2000n });
    expect(await target.transaction(stream, (tx) => Promise.resolve(tx.row))).toMatchObject({
      applied_cut: 12,
      catching_up_to: null,
    });
  });

  test('is locked: a second loader waits, and then sees what the first one applied', async () => {
    const { table, stream, target } = await streamWith([]);
    const order: string[] = [];
    const entered = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const first = target.transaction(stream, async (tx) => {
      entered.resolve();
      await release.promise;
      await tx.apply(upsert(['1', 'first']));
      await tx.advance(at(11));
      order.push('first');
    });
    await entered.promise;
    const second = target.transaction(stream, async (tx) => {
      order.push('second');
      if ((tx.row?.applied_cut ?? 0) < 11) await tx.apply(upsert(['1', 'second']));
      return tx.row?.applied_cut;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(order).toEqual([]);
    release.resolve();
    await first;
    expect(await second).toBe(11);
    expect(order).toEqual(['first', 'second']);
    expect(await rowsOf(client, table)).toEqual([['1', 'first']]);
  });

  test('never goes back', async () => {
    const { stream, target } = await streamWith([]);
    await expect(target.transaction(stream, (tx) => tx.advance(at(9)))).rejects.toMatchObject({ code: 'UNEXPECTED' });
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('with another target than it was loaded into: an error that names both', async () => {
    const { stream, target } = await streamWith([]);
    const moved = { ...stream, target: { schema: 'tx', table: 'elsewhere' } };
    await expect(target.transaction(moved, appliedCut)).rejects.toMatchObject({
      code: 'TARGET_TABLE_MOVED',
      message: expect.stringContaining('tx.elsewhere'),
    });
  });
});

describe('whole or not at all', () => {
  test('what work throws comes out as it is, and nothing of it is there', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const thrown = new RangeError('mine');
    const failing = target.transaction(stream, async (tx) => {
      await tx.apply(upsert(['1', 'changed'], ['2', 'new']));
      await tx.advance(at(11));
      throw thrown;
    });
    await expect(failing).rejects.toBe(thrown);
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('an error that work has swallowed still fails the transaction', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const swallowing = target.transaction(stream, async (tx) => {
      await tx.apply(upsert(['2', 'new']));
      await tx.apply(upsert(['not a number', 'x'])).catch(() => undefined);
    });
    await expect(swallowing).rejects.toMatchObject({ code: 'UNEXPECTED' });
    const advancing = target.transaction(stream, async (tx) => {
      await tx.apply(upsert(['not a number', 'x'])).catch(() => undefined);
      await tx.advance(at(11));
    });
    await expect(advancing).rejects.toBeInstanceOf(SluiceError);
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
    expect(await target.transaction(stream, appliedCut)).toBe(10);
  });

  test('several cuts of several segments in one', async () => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    await target.transaction(stream, async (tx) => {
      for (let cut = 11; cut <= 15; cut++) await tx.apply(upsert(['1', `cut ${cut}`], [`${cut}`, 'new']));
      await tx.advance(at(15));
    });
    expect(await rowsOf(client, table)).toEqual([
      ['1', 'cut 15'],
      ...[11, 12, 13, 14, 15].map((cut) => [`${cut}`, 'new']),
    ]);
  });
});

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
    await client.query(`ALTER TABLE tx.${table.table} ADD CONSTRAINT short CHECK (length(a) < 4)`);
    const checked: unknown = await applyCut(target, stream, [upsert(['1', CANARY])]).catch((thrown: unknown) => thrown);
    expect(checked).toMatchObject({ code: 'TARGET_REJECTS', message: expect.stringContaining('constraint short') });
    expectWithout(checked, CANARY);
    await client.query(`ALTER TABLE tx.${table.table} DROP CONSTRAINT short;
      CREATE FUNCTION tx.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', NEW.a USING HINT = NEW.a; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON tx.${table.table} FOR EACH ROW EXECUTE FUNCTION tx.refuse()`);
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
    await client.query(`DROP TABLE tx.${table.table}`);
    await expect(applyCut(target, stream, [upsert(['1', 'a'])])).rejects.toMatchObject({
      code: 'TARGET_REJECTS',
      message: expect.stringContaining('undefined_table'),
    });
  });

  test('no connection at all', async () => {
    const nowhere = targetOn({ ...server, port: 1 });
    await expect(nowhere.transaction(streamOf({ schema: 'tx', table: 'x' }), appliedCut)).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringContaining('ECONNREFUSED'),
    });
    const wrong = targetOn(server, { user: 'nobody', password: 'x' });
    await expect(wrong.transaction(streamOf({ schema: 'tx', table: 'x' }), appliedCut)).rejects.toMatchObject({
      code: 'AUTHENTICATION_FAILED',
    });
    const missing = targetOn(server, { database: 'no_such' });
    await expect(missing.transaction(streamOf({ schema: 'tx', table: 'x' }), appliedCut)).rejects.toMatchObject({
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
    const fresh = streamOf({ schema: 'tx', table: 'fresh' });
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
      expect((fault as SluiceError).remedy).toBe(`Run: ${sql}`);
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
    await client.query(`CREATE ROLE guarded LOGIN PASSWORD 'g'; GRANT ALL ON SCHEMA tx, _sluice TO guarded;
      GRANT ALL ON ALL TABLES IN SCHEMA tx, _sluice TO guarded; ALTER TABLE tx.${table.table} ENABLE ROW LEVEL SECURITY;
      CREATE POLICY none ON tx.${table.table} USING (false)`);
    const guarded = targetOn(server, { user: 'guarded', password: 'g' });
    const update = segmentOf({ shape: SHAPE, blocks: [{ kind: 'update', columns: ['id', 'a'], lines: [['1', 'b']] }] });
    await expect(applyCut(guarded, stream, [update])).rejects.toMatchObject({ code: 'TARGET_NOT_ALLOWED' });
  });
});

describe('a shape', () => {
  const GROWN = shapeOf({ id: 'int4', n: [1700, ((6 << 16) | 2) + 4], a: 'text', z: [16_999, -1] }, ['id']);

  test('with more columns: the table gets them, and the row says so', async () => {
    const { table, stream, target } = await streamWith([['1', 'a1']]);
    const grown = segmentOf({ shape: GROWN, blocks: [{ kind: 'upsert', lines: [['2', '1.50', 'a2', 'z2']] }] });
    await applyCut(target, stream, [upsert(['3', 'a3']), grown, segmentOf({ shape: GROWN, operation: 'changes' })]);
    expect(await rowsOf(client, table, 'id, a, n, z')).toEqual(
      [
        ['2', 'a2', '1.50', 'z2'],
        ['3', 'a3', null, null],
        ['1', 'a1', null, null],
      ].sort((x, y) => Number(x[0]) - Number(y[0])),
    );
    const row = await target.transaction(stream, (tx) => Promise.resolve(tx.row));
    expect(row?.shape.columns.map(({ name }) => name)).toEqual(['id', 'a', 'n', 'z']);
    expect(row?.shape.key).toEqual([0]);
  });

  test('with fewer columns: those that are there are kept, and carried along by a change of key', async () => {
    const { table, stream, target } = await streamWith([['1', 'a1']]);
    await applyCut(target, stream, [
      segmentOf({ shape: GROWN, blocks: [{ kind: 'upsert', lines: [['2', '1.50', 'a2', 'z2']] }] }),
    ]);
    const fewer = shapeOf({ id: 'int4', a: 'text' }, ['id']);
    await applyCut(target, stream, [
      segmentOf({
        shape: fewer,
        blocks: [
          { kind: 'rekey', columns: ['id'], lines: [['2', '20']] },
          { kind: 'delete', lines: [['2', '2026-01-01 00:00:00+00']] },
          { kind: 'upsert', lines: [['1', 'new']] },
        ],
      }),
    ]);
    expect(await rowsOf(client, table, 'id, a, n, z')).toEqual([
      ['1', 'new', null, null],
      ['20', 'a2', '1.50', 'z2'],
    ]);
  });

  test.each([
    ['another type', shapeOf({ id: 'int4', a: 'varchar' }, ['id']), 'column a'],
    ['another modifier', shapeOf({ id: 'int4', a: [25, 10] }, ['id']), 'modifier 10'],
    ['another key', shapeOf({ id: 'int4', a: 'text' }, ['a']), 'its key was (id) and is (a)'],
    ['a longer key', shapeOf({ id: 'int4', a: 'text' }, ['id', 'a']), 'its key was (id) and is (id, a)'],
  ])('with %s: SHAPE_CHANGED, and nothing is done', async (_what, shape, text) => {
    const { table, stream, target } = await streamWith([['1', 'a']]);
    const changed = segmentOf({ shape, blocks: [{ kind: 'upsert', lines: [['2', 'b']] }] });
    await expect(applyCut(target, stream, [changed])).rejects.toMatchObject({
      code: 'SHAPE_CHANGED',
      disposition: 'halt',
      message: expect.stringContaining(text),
    });
    expect(await rowsOf(client, table)).toEqual([['1', 'a']]);
  });

  test('with the key in another order of columns', async () => {
    const target = targetOn(server);
    const table = { schema: 'tx', table: `t${++tables}` };
    const stream = streamOf(table);
    const before = shapeOf({ x: 'text', y: 'text', v: 'text', w: 'text' }, ['x', 'y']);
    await synchronise(target, stream, before, [[['1', '2', 'v', 'w']]]);
    const after = shapeOf({ y: 'text', x: 'text', v: 'text', w: 'text' }, ['x', 'y']);
    await applyCut(target, stream, [
      segmentOf({
        shape: after,
        blocks: [
          { kind: 'rekey', columns: ['y', 'x', 'v'], lines: [['2', '1', '22', '11', 'V']] },
          { kind: 'delete', lines: [['2', '1', '2026-01-01 00:00:00+00']] },
        ],
      }),
    ]);
    expect(await rowsOf(client, table)).toEqual([['11', '22', 'V', 'w']]);
  });

  test('metadata columns that are turned on later are added; turned off later, they are kept true', async () => {
    const { table, stream } = await streamWith(
      [
        ['1', 'a'],
        ['2', 'b'],
      ],
      { hard_delete: false },
    );
    const soft = targetOn(server, { hard_delete: false, add_metadata_columns: true });
    const deletion = (id: string) =>
      segmentOf({ shape: SHAPE, blocks: [{ kind: 'delete', lines: [[id, '2026-01-01 00:00:00+00']] }] });
    await applyCut(soft, stream, [deletion('1')]);
    await applyCut(targetOn(server, { hard_delete: false }), stream, [deletion('2'), upsert(['1', 'back'])]);
    expect(await rowsOf(client, table, 'id, a, "_sdc_deleted_at" IS NULL')).toEqual([
      ['1', 'back', 't'],
      ['2', 'b', 'f'],
    ]);
  });

  test('with the name of a metadata column: refused before anything is made', async () => {
    const shape = shapeOf({ id: 'int4', _sdc_deleted_at: 'timestamptz' }, ['id']);
    const stream = streamOf({ schema: 'tx', table: `t${++tables}` });
    await expect(synchronise(targetOn(server), stream, shape, [[]])).rejects.toMatchObject({
      code: 'METADATA_COLUMN_TAKEN',
    });
    await synchronise(targetOn(server, { hard_delete: false }), stream, shape, [[['1', null]]]);
    expect(await rowsOf(client, stream.target, 'id')).toEqual([['1']]);

    const grown = await streamWith([]);
    await expect(
      applyCut(grown.target, grown.stream, [
        segmentOf({ shape: shapeOf({ id: 'int4', a: 'text', _sdc_batched_at: 'text' }, ['id']) }),
      ]),
    ).rejects.toMatchObject({ code: 'METADATA_COLUMN_TAKEN' });
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
