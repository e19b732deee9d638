/**
 * Goal: columns beside json columns go together with what else a pipeline may do: verify and its repairs, backfills, masks, all tables at one commit, positions of rows; and with
 * documents that are wide, deep or odd.
 * Method: as flattening.test.ts.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { requestBackfills } from '../../lib/epoch/backfill.ts';
import { METADATA_COLUMNS } from '../../lib/load/columns.ts';
import { besideFaults, columns, flattenedOf, isTrue, level, MADE, put, reset, row } from '../support/flattened.ts';
import { freshLine } from '../support/fresh-line.ts';
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

test('data_flattening_max_level beside verify, repairs and backfills in place', async () => {
  await using fresh = await freshLine({ source, target }, MADE, { target: level(2) });
  for (let id = 1; id <= 20; id++) await put(fresh, id, { a: id, o: { x: `${id}` } }, { r: id });
  await isTrue(fresh, 2);
  expect((await verifyLine(fresh)).t).toMatchObject({ outcome: 'equal', rows: 20 });
  await fresh.to.query(
    `DELETE FROM t WHERE id = 3; UPDATE t SET data = '{"a":"wrong"}', data__a = NULL WHERE id = 4; UPDATE t SET data__a = 1000 WHERE id = 9`,
  );
  expect((await verifyLine(fresh, { repair: true })).t).toMatchObject({ outcome: 'repaired', repaired: 2 });
  // What somebody writes into a column of ours is not compared; the row's next change, or a backfill, puts it right.
  expect(await besideFaults(fresh.to, 't', 2)).toEqual(['data__a is 1000 and must be 9']);
  await requestBackfills(fresh.line.ports(), ['public.t'], 'id > 5', async () => undefined);
  await put(fresh, 21, { fresh: true });
  await isTrue(fresh, 2);
  expect((await verifyLine(fresh)).t).toMatchObject({ outcome: 'equal', rows: 21 });
});

test('data_flattening_max_level beside masks: what is hidden later is in no column', async () => {
  await using fresh = await freshLine({ source, target }, MADE, { target: level(1) });
  const secret = async (): Promise<boolean> => {
    const { rows } = await fresh.to.query<{ line: string }>('SELECT t::text AS line FROM t');
    return rows.some(({ line }) => line.includes('secret'));
  };
  await put(fresh, 1, { a: 'secret', key_a: 1 }, { b: 'secret', key_b: 1 });
  await isTrue(fresh, 1);
  expect(await secret()).toBe(true);
  fresh.line.configure({ tables: '[{ table: public.t, mask: { data: "null", raw: hash } }]', target: level(1) });
  await fresh.settle();
  expect(await secret()).toBe(false);
  expect(await columns(fresh, 'raw__')).toEqual([]);
  await put(fresh, 2, { a: 'secret', new: 2 }, { b: 'secret' });
  await fresh.settle();
  expect(await secret()).toBe(false);
  expect((await columns(fresh)).filter((name) => name.includes('new'))).toEqual([]);
  fresh.line.configure({ tables: '[public.t]', target: level(1) });
  await isTrue(fresh, 1);
  expect(await row(fresh, 2)).toMatchObject({ data__new: '2', raw__b: 'secret' });
  fresh.line.configure({ tables: '[{ table: public.t, columns: { exclude: [data, raw] } }]', target: level(1) });
  await fresh.settle();
  expect(await secret()).toBe(false);
  expect(await columns(fresh)).toEqual([]);
});

test('data_flattening_max_level beside consistency: transaction and source.debug_lsn, set and raised while streams move together', async () => {
  const together = 'consistency: transaction, add_metadata_columns: true';
  await using fresh = await freshLine(
    { source, target },
    `${MADE}; CREATE TABLE "Other" (id int PRIMARY KEY, "J""s" json, t_id int)`,
    { source: 'debug_lsn: true', target: `${level(1)}, ${together}` },
  );
  const both = async (deep: number): Promise<void> => {
    await isTrue(fresh, deep);
    expect(await besideFaults(fresh.to, 'Other', deep)).toEqual([]);
  };
  const write = async (id: number, json: string): Promise<void> => {
    await fresh.from.query(
      `BEGIN; INSERT INTO t (id, data, raw) VALUES (${id}, '${json}', '${json}'); INSERT INTO "Other" VALUES (${id}, '${json}', ${id}); COMMIT`,
    );
  };
  await write(1, '{"a":1,"o":{"x":1}}');
  await both(1);
  await write(2, '{"a":"text","n":null,"b":[]}');
  await both(1);
  expect((await row(fresh, 2))._sdc_lsn).not.toBeNull();
  fresh.line.configure({ source: 'debug_lsn: true', target: `${level(2)}, ${together}` });
  await write(3, '{"o":{"x":{"y":1}}}');
  await both(2);
  // One of them is not written to, and has its columns all the same.
  fresh.line.configure({ source: 'debug_lsn: true', target: `${level(3)}, ${together}` });
  await put(fresh, 4, { o: { x: { y: 7 } } });
  await both(3);
  expect((await flattenedOf(fresh.to, 'Other'))?.columns.map(({ name }) => name).toSorted()).toEqual(
    ['J"s__a', 'J"s__b', 'J"s__o', 'J"s__o__x', 'J"s__o__x__y'].toSorted(),
  );
});

test('data_flattening_max_level: many json columns, documents that are deep, keys that come twice, names of 63 bytes and more', async () => {
  const MANY = 60;
  const names = Array.from({ length: MANY }, (_, i) => (i === 0 ? `Ü"${'n'.repeat(60)}` : `j${i}`));
  const quoted = names.map((name, i) => `"${name.replaceAll('"', '""')}" ${i % 2 === 0 ? 'json' : 'jsonb'}`);
  await using fresh = await freshLine(
    { source, target },
    `CREATE TABLE t (id int PRIMARY KEY, ${quoted.join(', ')}, v text)`,
    { target: level(10) },
  );
  const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
  const insert = async (id: number, text: (i: number) => string | null): Promise<void> => {
    const values = names.map((_, i) => text(i));
    await fresh.from.query(
      `INSERT INTO t VALUES (${[id, ...values.map((_, i) => `$${i + 1}`), 'NULL'].join(', ')})`,
      values,
    );
  };
  await insert(1, (i) =>
    i % 3 === 0 ? `{"twice":1,"twice":"x","ключ":[{"b":1}],"😀":${i},"tab\\t\\n\\"'":true}` : nested(12),
  );
  await isTrue(fresh, 10);
  // Json that PostgreSQL takes and jsonb does not.
  await insert(2, (i) =>
    i === 2 ? `{"n":"a\\u0000b","z":1}` : i === 4 ? `{"big":1e400000}` : `{"k${i}":${nested(500)}}`,
  );
  await fresh.equal();
  expect((await flattenedOf(fresh.to, 't'))?.columns.length).toBeGreaterThan(100);
  await reset(fresh);
  await fresh.equal();
  expect((await flattenedOf(fresh.to, 't'))?.columns.every(({ name }) => Buffer.byteLength(name) <= 63)).toBe(true);
});

test('data_flattening_max_level: a row that fits into its page on the source fits on the target: a table of many columns has fewer beside its json', async () => {
  const OWN = 220;
  const each = (of: (i: number) => string): string => Array.from({ length: OWN }, (_, i) => of(i)).join(', ');
  await using fresh = await freshLine(
    { source, target },
    `CREATE TABLE t (id int PRIMARY KEY, data jsonb, ${each((i) => `c${i} text`)})`,
    { target: level(1) },
  );
  const document = (n: number): string =>
    JSON.stringify(Object.fromEntries(Array.from({ length: 250 }, (_, i) => [`k${n}_${i}`, 'x'.repeat(22)])));
  const insert = async (id: number): Promise<void> => {
    const values = each((i) => `md5('a${i}') || md5('b${i}')`);
    await fresh.from.query(`INSERT INTO t SELECT ${id}, $1, ${values}`, [document(id)]);
  };
  await insert(1);
  await fresh.equal();
  await insert(2);
  await fresh.equal();
  expect((await flattenedOf(fresh.to, 't'))?.columns).toHaveLength(300 - OWN - 2 - METADATA_COLUMNS.length);
  expect(await besideFaults(fresh.to, 't', 0)).toEqual([]);
});
