/**
 * Goal: a transaction that no single window can read to its end comes over in several, from real servers, with either reader and either plugin: in one cut, each change
 * once, with keys and without, over changes of the table, TRUNCATE, and values that are not in the log.
 *
 * Method: windows whose deadline passes after so many looks at the clock, each further in than the last, then one without; both sides are compared.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RunReport } from '../../lib/ports.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const WINDOW_MS = 120_000;
/** On a machine that has other things to do. */
const PATIENCE = { timeout: 480_000 };
/** Rows of the transaction's larger half. */
const ROWS = Number(process.env.SLUICE_LONG_TRANSACTION_ROWS ?? 8_000);

const TABLES = `
  CREATE TABLE t (id int PRIMARY KEY, v text, n numeric); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
  CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
  CREATE TABLE gone (id int PRIMARY KEY);
  INSERT INTO t SELECT i, repeat(md5(i::text), 100), i FROM generate_series(1, 200) i;
  INSERT INTO keyless SELECT i % 10, 'same' FROM generate_series(1, 100) i;
  INSERT INTO gone SELECT generate_series(1, 100);`;

const TRANSACTION = [
  'BEGIN',
  `INSERT INTO t SELECT i, 'row ' || i, i FROM generate_series(1001, 1000 + ${ROWS / 4}) i`,
  'UPDATE t SET n = -n WHERE id <= 200',
  "INSERT INTO keyless SELECT i % 7, 'same' FROM generate_series(1, 1000) i",
  'DELETE FROM keyless WHERE a = 3',
  'TRUNCATE gone',
  'INSERT INTO gone SELECT generate_series(1000, 1500)',
  "ALTER TABLE t ADD late date DEFAULT '2001-02-03'",
  'SAVEPOINT s',
  `UPDATE t SET v = v || '!', late = NULL WHERE id > 1000 AND id % 2 = 0`,
  'ROLLBACK TO s',
  `UPDATE t SET v = v || '?' WHERE id > 1000`,
  'UPDATE t SET id = -id WHERE id % 50 = 0',
  "UPDATE keyless SET b = 'other' WHERE a = 5",
  'DELETE FROM gone WHERE id % 3 = 0',
  `INSERT INTO t SELECT i, repeat('x', 90), i FROM generate_series(900001, 900000 + ${ROWS / 2}) i`,
  'COMMIT',
];

/** A window whose time is over after so many looks at it. */
async function windowOf({ line }: FreshLine, looks: number): Promise<RunReport> {
  let seen = 0;
  const asked = (): boolean => {
    if (++seen === looks) line.passTime(2 * WINDOW_MS);
    return false;
  };
  return await line.windowWith({ asked });
}

/** Windows that end inside the transaction, until one has come to its end. */
async function readInWindows(made: FreshLine): Promise<RunReport[]> {
  const reports: RunReport[] = [];
  for (let looks = 6; ; looks = Math.ceil(looks * 1.6)) {
    const report = await windowOf(made, looks);
    reports.push(report);
    if (report.cuts > 0) return reports;
    expect(reports.length).toBeLessThan(30);
  }
}

/** `recopied`: the log has no TRUNCATE, so that a window finds the table's new file and has it copied anew, behind which the cut begins anew. */
async function expectOneCut(made: FreshLine, recopied = false): Promise<void> {
  const { from, line } = made;
  await made.settle();
  await from.query("INSERT INTO t VALUES (0, 'before', 0)");
  for (const sql of TRANSACTION) await from.query(sql);
  await from.query("INSERT INTO t VALUES (999999999, 'after', 0)");
  const reports = await readInWindows(made);
  const unfinished = reports.slice(0, -1).flatMap((report) => report.unfinished ?? []);
  expect(unfinished.length).toBeGreaterThan(1);
  const long = line.durable.chain.filter(({ earlier }) => earlier !== undefined);
  expect(long).toHaveLength(1);
  const begunAnew = line.log.lines.filter(({ event }) => event === 'transaction_begun_anew');
  const objects = unfinished.filter(({ stalled }) => !stalled).length;
  expect(begunAnew).toHaveLength(recopied ? 1 : 0);
  expect((long[0]?.earlier ?? []).length).toBe(recopied ? objects - 1 : objects);
  const changes = reports.flatMap(({ streams }) => Object.values(streams)).reduce((sum, own) => sum + own.changes, 0);
  expect(unfinished.at(-1)?.changes).toBeLessThan(changes);
  await made.equal();
}

describe('a transaction longer than a window', () => {
  let source: TestPostgres;
  let target: TestPostgres;
  beforeAll(async () => {
    [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  });
  afterAll(async () => {
    await Promise.all([source?.stop(), target?.stop()]);
  });

  test.each(['stream', 'peek'])('pgoutput, slot_reader: %s', PATIENCE, async (reader) => {
    const target_options = 'primary_key_required: false';
    await using made = await freshLine({ source, target }, TABLES, {
      source: `slot_reader: ${reader}`,
      target: target_options,
    });
    await expectOneCut(made);
  });

  test('one that is committed under the other reader is gone on with', PATIENCE, async () => {
    await using made = await freshLine({ source, target }, TABLES, { target: 'primary_key_required: false' });
    await made.settle();
    for (const sql of TRANSACTION) await made.from.query(sql);
    const { unfinished } = await windowOf(made, 12);
    expect(unfinished?.changes).toBeGreaterThan(0);
    made.line.configure({ source: 'slot_reader: peek' });
    await made.equal();
    expect(made.line.durable.chain.filter(({ earlier }) => earlier?.length === 1)).toHaveLength(1);
  });

  test(
    'rows that are left out stay so, and an update that rests on one in an earlier window does too',
    PATIENCE,
    async () => {
      const sql = `CREATE TABLE t (id int PRIMARY KEY, v text, n int); ALTER TABLE t ALTER v SET STORAGE EXTERNAL`;
      const schema = '{ type: object, properties: { n: { type: integer, minimum: 0 } } }';
      await using made = await freshLine({ source, target }, sql, {
        tables: `[{ table: public.t, json_schema: ${schema} }]`,
        target: 'validate_records: true, on_invalid: reject',
      });
      await made.settle();
      await made.from.query(`BEGIN;
      INSERT INTO t SELECT i, repeat(md5(i::text), 100), i FROM generate_series(1, 200) i;
      UPDATE t SET n = -1 WHERE id = 7; INSERT INTO t SELECT i, 'x', i FROM generate_series(1001, 21000) i;
      UPDATE t SET n = 1 WHERE id = 7; INSERT INTO t SELECT i, 'y', i FROM generate_series(31001, 51000) i; COMMIT`);
      const reports = await readInWindows(made);
      expect(reports.length).toBeGreaterThan(2);
      await made.settle();
      const rejected = [...made.line.durable.rejects.values()].reduce((sum, { rows }) => sum + rows, 0);
      expect(rejected).toBe(2);
      const { rows } = await made.to.query<{ count: string; id: number[] }>(
        'SELECT count(*), array_agg(n) FILTER (WHERE id = 7) AS id FROM t',
      );
      expect(rows[0]).toEqual({ count: '40200', id: [7] });
    },
  );
});

describe.skipIf(skipDebian)(suiteName('a transaction longer than a window, by wal2json'), () => {
  let source: TestPostgres;
  let target: TestPostgres;
  beforeAll(async () => {
    [source, target] = await Promise.all([startDebianPostgres(), startPostgres()]);
  });
  afterAll(async () => {
    await Promise.all([source?.stop(), target?.stop()]);
  });

  test.each([
    ['2', 'stream', false],
    ['2', 'peek', false],
    ['1', 'stream', true],
  ])('format %s, slot_reader: %s', PATIENCE, async (_format, reader, old_wal2json) => {
    const options = {
      source: `plugin: wal2json, slot_reader: ${reader}`,
      target: 'primary_key_required: false',
      old_wal2json,
    };
    await using made = await freshLine({ source, target }, TABLES, options);
    await expectOneCut(made, old_wal2json);
  });
});
