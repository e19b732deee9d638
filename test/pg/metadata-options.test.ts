/** hard_delete and add_metadata_columns by the whole line: what becomes of deleted rows, and what happens to a table that is there when either is switched on or off. */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);

afterAll(async () => {
  await source?.stop();
  await target?.stop();
});

const TABLE = `CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
  INSERT INTO t SELECT i, 'v' || i, repeat('b', 3000) FROM generate_series(1, 6) i`;
const METADATA = ['_sdc_batched_at', '_sdc_deleted_at', '_sdc_extracted_at'];

async function columns(to: pg.Client): Promise<string[]> {
  const { rows } = await to.query<{ name: string }>(
    `SELECT column_name::text AS name FROM information_schema.columns WHERE table_name = 't' AND column_name LIKE '\\_sdc%' ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

/** `id v`, with a mark where the row is kept since its deletion. */
async function rows(to: pg.Client): Promise<string[]> {
  const { rows: found } = await to.query<{ row: string }>(
    `SELECT concat_ws(' ', id, v, CASE WHEN length(big) <> 3000 THEN 'cut' END, CASE WHEN to_jsonb(t) ->> '_sdc_deleted_at' IS NOT NULL THEN 'deleted' END) AS row
       FROM t ORDER BY id`,
  );
  return found.map(({ row }) => row);
}

test('hard_delete and add_metadata_columns off: deletions are not followed, and nothing is added', async () => {
  await using fresh = await freshLine({ source, target }, TABLE, { target: 'hard_delete: false' });
  await fresh.settle();
  await fresh.from.query("DELETE FROM t WHERE id > 4; UPDATE t SET v = 'new' WHERE id = 1");
  await fresh.settle();
  expect(await columns(fresh.to)).toEqual([]);
  expect(await rows(fresh.to)).toEqual(['1 new', '2 v2', '3 v3', '4 v4', '5 v5', '6 v6']);
});

test('add_metadata_columns: a deleted row keeps its last values and is marked with when it was deleted; one that comes back is not', async () => {
  await using fresh = await freshLine({ source, target }, TABLE, {
    target: 'hard_delete: false, add_metadata_columns: true',
  });
  await fresh.settle();
  expect(await columns(fresh.to)).toEqual(METADATA);
  await fresh.from.query("UPDATE t SET v = 'last' WHERE id = 1; DELETE FROM t WHERE id <= 2");
  const { rows: deleted } = await fresh.from.query<{ at: string }>('SELECT clock_timestamp()::text AS at');
  await fresh.settle();
  expect(await rows(fresh.to)).toEqual(['1 last deleted', '2 v2 deleted', '3 v3', '4 v4', '5 v5', '6 v6']);
  const { rows: marks } = await fresh.to.query(
    `SELECT count(*)::int AS n FROM t WHERE _sdc_deleted_at BETWEEN $1::timestamptz - interval '10 s' AND $1 AND _sdc_batched_at >= _sdc_deleted_at`,
    [deleted[0]?.at],
  );
  expect(marks).toEqual([{ n: 2 }]);
  await fresh.from.query("INSERT INTO t VALUES (1, 'back', repeat('b', 3000))");
  await fresh.settle();
  expect(await rows(fresh.to)).toEqual(['1 back', '2 v2 deleted', '3 v3', '4 v4', '5 v5', '6 v6']);
});

test('add_metadata_columns switched on later: the table gets them with its next load, and deletions are marked from then on', async () => {
  await using fresh = await freshLine({ source, target }, TABLE, { target: 'hard_delete: false' });
  await fresh.settle();
  await fresh.from.query('DELETE FROM t WHERE id = 6');
  await fresh.settle();
  fresh.line.configure({ target: 'hard_delete: false, add_metadata_columns: true' });
  await fresh.from.query("DELETE FROM t WHERE id = 5; UPDATE t SET v = 'new' WHERE id = 4");
  await fresh.settle();
  expect(await columns(fresh.to)).toEqual(METADATA);
  // What was deleted before is not known to have been.
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2', '3 v3', '4 new', '5 v5 deleted', '6 v6']);
  const { rows: known } = await fresh.to.query('SELECT id FROM t WHERE _sdc_extracted_at IS NOT NULL ORDER BY id');
  expect(known).toEqual([{ id: 4 }, { id: 5 }]);

  // Switched off again: columns that are there are kept true.
  fresh.line.configure({ target: 'hard_delete: false, add_metadata_columns: false' });
  await fresh.from.query("DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (5, 'back', repeat('b', 3000))");
  await fresh.settle();
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2', '3 v3 deleted', '4 new', '5 back', '6 v6']);
});

test('hard_delete switched on later: deletions delete from then on, and turn the metadata columns on; switched off, they mark', async () => {
  await using fresh = await freshLine({ source, target }, TABLE, {
    target: 'hard_delete: false, add_metadata_columns: true',
  });
  await fresh.settle();
  await fresh.from.query('DELETE FROM t WHERE id = 6');
  await fresh.settle();
  fresh.line.configure({ target: 'hard_delete: true' });
  await fresh.from.query('DELETE FROM t WHERE id = 5');
  await fresh.settle();
  expect(await columns(fresh.to)).toEqual(METADATA);
  // One that was kept before stays until it comes back and goes again.
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2', '3 v3', '4 v4', '6 v6 deleted']);
  await fresh.from.query("INSERT INTO t VALUES (6, 'back', repeat('b', 3000))");
  await fresh.settle();
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2', '3 v3', '4 v4', '6 back']);
  await fresh.from.query('DELETE FROM t WHERE id = 6');
  await fresh.settle();
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2', '3 v3', '4 v4']);

  fresh.line.configure({ target: 'hard_delete: false' });
  await fresh.from.query('DELETE FROM t WHERE id = 4');
  await fresh.settle();
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2', '3 v3', '4 v4 deleted']);
});

test('hard_delete from the beginning: the metadata columns are there, and deleted rows are not', async () => {
  await using fresh = await freshLine({ source, target }, TABLE, { target: 'hard_delete: true' });
  await fresh.settle();
  await fresh.from.query('DELETE FROM t WHERE id > 2');
  await fresh.settle();
  expect(await columns(fresh.to)).toEqual(METADATA);
  expect(await rows(fresh.to)).toEqual(['1 v1', '2 v2']);
});
