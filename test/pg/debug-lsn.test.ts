/**
 * source.debug_lsn: each row tells where its last change was committed, as the source's own functions tell it; copies tell nothing; and switching it on and off
 * on a running pipeline changes that column alone.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestBackfills } from '../../lib/epoch/backfill.ts';
import { requestResets, resume } from '../../lib/operate.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { verifyLine } from '../support/verifying.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const SOFT = 'hard_delete: false, add_metadata_columns: true';
const ON = 'debug_lsn: true';

interface Position {
  readonly id: number;
  readonly lsn: string | null;
}

/** `sql` as one transaction. Its commit record lies between the two positions. */
async function committed(client: pg.Client, sql: string): Promise<readonly [string, string]> {
  const position = async (): Promise<string> =>
    (await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0]?.lsn ?? '';
  const before = await position();
  await client.query(`BEGIN; ${sql}; COMMIT`);
  return [before, await position()];
}

async function positions(client: pg.Client, table = 't'): Promise<Position[]> {
  const sql = `SELECT id, _sdc_lsn::text AS lsn FROM ${table} ORDER BY id`;
  return (await client.query<Position>(sql)).rows;
}

/** Ids of rows whose position lies in the bracket. */
async function within(client: pg.Client, [from, to]: readonly [string, string]): Promise<number[]> {
  const { rows } = await client.query<{ id: number }>(
    'SELECT id FROM t WHERE _sdc_lsn > $1::pg_lsn AND _sdc_lsn < $2::pg_lsn ORDER BY id',
    [from, to],
  );
  return rows.map(({ id }) => id);
}

async function columnsIn(client: pg.Client, table: string): Promise<string[]> {
  const { rows } = await client.query<{ column: string }>(
    `SELECT attname || ' ' || format_type(atttypid, atttypmod) AS column FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
    [table],
  );
  return rows.map(({ column }) => column);
}

const line = (
  sql: string,
  source_lines: string,
  target_lines = 'hard_delete: true',
  from = source,
): Promise<FreshLine> =>
  freshLine({ source: from, target }, sql, { tables: '[public.*]', source: source_lines, target: target_lines });

/** A row that is copied, one that is made, some that are changed: each has the position of its last commit. */
async function tellsPositions(run: FreshLine): Promise<void> {
  await run.settle();
  expect(await columnsIn(run.to, 't')).toContain('_sdc_lsn pg_lsn');
  expect((await positions(run.to)).map(({ lsn }) => lsn)).toEqual([null, null, null, null, null]);

  const first = await committed(run.from, "INSERT INTO t VALUES (6, 'new', 'x'); UPDATE t SET v = 'w' WHERE id = 2");
  // Two transactions of one cut: the row has the later. Neither has the TOASTed value, and the third moves such a row.
  await committed(run.from, "UPDATE t SET v = 'a' WHERE id = 3");
  const later = await committed(run.from, "UPDATE t SET v = 'b' WHERE id = 3");
  const moved = await committed(run.from, 'UPDATE t SET id = 40 WHERE id = 4; DELETE FROM t WHERE id = 5');
  await run.equal();
  expect(await within(run.to, first)).toEqual([2, 6]);
  expect(await within(run.to, later)).toEqual([3]);
  expect(await within(run.to, moved)).toEqual([40]);
  expect((await positions(run.to))[0]).toEqual({ id: 1, lsn: null });
}

const TABLE = `CREATE TABLE t (id int PRIMARY KEY, v text, big text);
  INSERT INTO t SELECT i, 'v', repeat(md5(i::text), 400) FROM generate_series(1, 5) i`;

describe('source.debug_lsn', () => {
  test('the position of the commit of each row, and none in a copy', async () => {
    await using run = await line(TABLE, ON);
    await tellsPositions(run);
  });

  describe.skipIf(skipDebian)(suiteName('by wal2json'), () => {
    test('source.debug_lsn', async () => {
      await using debian = await startDebianPostgres();
      await using run = await line(TABLE, `${ON}, plugin: wal2json`, 'hard_delete: true', debian);
      await tellsPositions(run);
    });
  });

  test('a soft deletion is a change of its row, and so is what brings it back', async () => {
    await using run = await line(TABLE, ON, SOFT);
    await run.settle();
    const gone = await committed(run.from, 'DELETE FROM t WHERE id IN (1, 2)');
    await run.settle();
    expect(await within(run.to, gone)).toEqual([1, 2]);
    const back = await committed(run.from, "INSERT INTO t VALUES (2, 'again', 'x')");
    await run.settle();
    expect(await within(run.to, gone)).toEqual([1]);
    expect(await within(run.to, back)).toEqual([2]);
  });

  test('switched on later: the column comes with the next changes, and nothing is copied anew', async () => {
    await using run = await line(TABLE, 'debug_lsn: false');
    await run.settle();
    const { epoch } = run.line.bookmark('public.t');
    run.line.configure({ source: ON });
    await run.settle();
    expect(await columnsIn(run.to, 't')).not.toContain('_sdc_lsn pg_lsn');
    const at = await committed(run.from, "UPDATE t SET v = 'w' WHERE id = 2");
    await run.equal();
    expect(await within(run.to, at)).toEqual([2]);
    expect((await positions(run.to)).filter(({ lsn }) => lsn === null)).toHaveLength(4);
    expect(run.line.bookmark('public.t').epoch).toBe(epoch);
  });

  test('switched off later: the column goes with the next changes, also where dropped columns are kept', async () => {
    await using run = await line(TABLE, ON, 'hard_delete: true, on_drop_column: keep');
    await run.settle();
    await run.from.query("UPDATE t SET v = 'w'");
    await run.settle();
    run.line.configure({ source: 'debug_lsn: false' });
    await run.from.query("UPDATE t SET v = 'x'");
    await run.equal();
    expect((await columnsIn(run.to, 't')).some((column) => column.startsWith('_sdc_lsn'))).toBe(false);
    expect(run.line.bookmark('public.t').epoch).toBe(1);
  });

  test('switched off under a view that is built on it: the stream halts and says so, and goes on when the view is gone', async () => {
    await using run = await line(TABLE, ON);
    await run.settle();
    await run.to.query('CREATE VIEW newest AS SELECT max(_sdc_lsn) FROM t');
    run.line.configure({ source: 'debug_lsn: false' });
    await run.from.query("UPDATE t SET v = 'x'");
    await expect(run.settle()).rejects.toThrow(/TARGET_DEPENDENTS/);
    await run.to.query('DROP VIEW newest');
    await resume(run.line.ports(), 'public.t');
    await run.equal();
    expect((await columnsIn(run.to, 't')).some((column) => column.startsWith('_sdc_lsn'))).toBe(false);
  });

  test('it stays through changes of the shape, a reset and a TRUNCATE, and verify does not compare it', async () => {
    await using run = await line(TABLE, ON);
    await run.settle();
    await run.from.query(
      "UPDATE t SET v = 'w' WHERE id = 1; ALTER TABLE t ADD n int DEFAULT 7; ALTER TABLE t RENAME v TO w",
    );
    await run.equal();
    expect((await positions(run.to))[0]?.lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    const at = await committed(run.from, 'UPDATE t SET n = 8 WHERE id = 2; ALTER TABLE t DROP COLUMN n');
    await run.equal();
    expect(await within(run.to, at)).toEqual([2]);
    expect((await verifyLine(run)).t).toMatchObject({ outcome: 'equal' });

    await requestResets(run.line.ports(), ['public.t']);
    await run.equal();
    expect((await positions(run.to)).map(({ lsn }) => lsn)).toEqual([null, null, null, null, null]);
    const after = await committed(run.from, 'TRUNCATE t');
    const again = await committed(run.from, "INSERT INTO t VALUES (1, 'x', 'y')");
    await run.equal();
    expect(await within(run.to, [after[0], again[1]])).toEqual([1]);
  });

  test('a value of megabytes beside it', async () => {
    await using run = await line('CREATE TABLE t (id int PRIMARY KEY, v text, big text)', ON);
    await run.settle();
    const at = await committed(run.from, "INSERT INTO t SELECT 1, 'v', repeat(md5('x'), 400000)");
    await run.equal();
    expect(await within(run.to, at)).toEqual([1]);
    const moved = await committed(run.from, 'UPDATE t SET id = 2');
    await run.equal();
    expect(await within(run.to, moved)).toEqual([2]);
  });

  test('beside hidden columns, flattened json, rows that are checked, and REPLICA IDENTITY FULL', async () => {
    await using run = await freshLine(
      { source, target },
      `CREATE TABLE t (id int PRIMARY KEY, secret text, doc jsonb, big text); ALTER TABLE t REPLICA IDENTITY FULL;
       INSERT INTO t SELECT i, 's', '{"a": 1}', repeat(md5(i::text), 400) FROM generate_series(1, 3) i`,
      {
        tables: '[{ table: public.t, columns: { exclude: [secret] }, mask: { big: hash } }]',
        source: ON,
        target: 'hard_delete: true, data_flattening_max_level: 1, validate_records: true, on_invalid: reject',
      },
    );
    await run.settle();
    const at = await committed(run.from, `UPDATE t SET doc = '{"a": 2, "b": "x"}' WHERE id = 2`);
    await run.settle();
    expect(await within(run.to, at)).toEqual([2]);
    const { rows } = await run.to.query(
      'SELECT id, doc::text, doc__a::text AS a, doc__b AS b, length(big) AS big FROM t ORDER BY id',
    );
    expect(rows).toEqual([
      { id: 1, doc: '{"a": 1}', a: '1', b: null, big: 64 },
      { id: 2, doc: '{"a": 2, "b": "x"}', a: '2', b: 'x', big: 64 },
      { id: 3, doc: '{"a": 1}', a: '1', b: null, big: 64 },
    ]);
  });

  test('a backfill in place leaves positions as they are', async () => {
    await using run = await line(TABLE, ON);
    await run.settle();
    const at = await committed(run.from, "UPDATE t SET v = 'w' WHERE id = 2");
    await run.settle();
    await run.to.query("UPDATE t SET v = 'by hand' WHERE id IN (2, 3)");
    await requestBackfills(run.line.ports(), ['public.t'], 'id < 4', async () => undefined);
    await run.equal();
    expect(await within(run.to, at)).toEqual([2]);
    expect((await positions(run.to)).filter(({ lsn }) => lsn === null)).toHaveLength(4);
  });

  test('not for tables without a key', async () => {
    await using run = await line(
      'CREATE TABLE bag (a int); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES (1)',
      ON,
      'hard_delete: true, primary_key_required: false',
    );
    await run.settle();
    await run.from.query('INSERT INTO bag VALUES (2)');
    await run.equal();
    expect((await columnsIn(run.to, 'bag')).some((column) => column.startsWith('_sdc_lsn'))).toBe(false);
  });

  test('a source column of its name halts the stream alone', async () => {
    await using run = await line(
      'CREATE TABLE t (id int PRIMARY KEY, _sdc_lsn text); CREATE TABLE u (id int PRIMARY KEY)',
      ON,
    );
    await expect(run.settle()).rejects.toThrow(/METADATA_COLUMN_TAKEN: .*_sdc_lsn/);
    run.line.configure({ source: 'debug_lsn: false' });
    expect(run.line.bookmark('public.u').halt).toBeNull();
  });
});
