/**
 * Goal: with target.data_flattening_max_level keys of json objects have columns that say what the json says, in every row, whatever comes: new keys, other kinds, copies,
 * changes of the table, another level. The json column itself stays exact.
 * Method: whole lines between two servers; each row's json is walked through again here (test/support/flattened.ts).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  besideFaults,
  columns,
  events,
  flattenedOf,
  isTrue,
  type Json,
  level,
  MADE,
  put,
  reset,
  row,
} from '../support/flattened.ts';
import { freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

test('data_flattening_max_level: each kind has its type, down to the level, in the copy and in what follows', async () => {
  const first = {
    s: 'text',
    n: 1.5,
    b: true,
    a: [1, { x: 2 }],
    o: { k: 'deep', l: { m: 1 } },
    nothing: null,
    empty: {},
  };
  await using fresh = await freshLine(
    { source, target },
    `${MADE}; INSERT INTO t VALUES (1, '${JSON.stringify(first)}', '${JSON.stringify({ r: { s: 1 } })}', 'v')`,
    { target: level(2) },
  );
  await isTrue(fresh, 2);
  expect(await columns(fresh)).toEqual([
    'data__a jsonb',
    'data__b boolean',
    'data__n numeric',
    'data__o__k text',
    'data__o__l jsonb',
    'data__s text',
  ]);
  expect(await columns(fresh, 'raw__')).toEqual(['raw__r__s numeric']);
  expect(await row(fresh, 1)).toMatchObject({ data__s: 'text', data__n: '1.5', data__b: true, data__o__l: { m: 1 } });

  await put(fresh, 2, { later: 7, o: { k: 'other', fresh: [] }, a: null, n: null });
  await put(fresh, 3, null);
  await put(fresh, 4, [{ s: 'in an array' }]);
  await put(fresh, 5, 'a text');
  await isTrue(fresh, 2);
  expect(await columns(fresh)).toContain('data__later numeric');
  expect(await columns(fresh)).toContain('data__o__fresh jsonb');
  expect(await row(fresh, 2)).toMatchObject({ data__later: '7', data__n: null, data__a: null });
  await fresh.from.query('DELETE FROM t WHERE id = 2; UPDATE t SET id = 40 WHERE id = 4');
  await put(fresh, 1, {});
  await isTrue(fresh, 2);
});

test('data_flattening_max_level: a key that changes its kind becomes text without a loss; objects and scalars take turns', async () => {
  await using fresh = await freshLine({ source, target }, MADE, { target: level(3) });
  await put(fresh, 1, { k: 1.5, b: true, j: [1], o: 's' });
  await isTrue(fresh, 3);
  expect(await columns(fresh)).toEqual(['data__b boolean', 'data__j jsonb', 'data__k numeric', 'data__o text']);
  await put(fresh, 2, { k: 'one', b: 0, j: 'x', o: { in: 1 } });
  await put(fresh, 3, { k: { deeper: { still: { more: 1 } } }, b: [true], o: { in: { a: 1 } } });
  await isTrue(fresh, 3);
  expect(await columns(fresh)).toEqual([
    'data__b text',
    'data__j text',
    'data__k text',
    'data__k__deeper__still jsonb',
    'data__o text',
    'data__o__in numeric',
    'data__o__in__a numeric',
  ]);
  expect(await row(fresh, 1)).toMatchObject({ data__k: '1.5', data__b: 'true', data__j: '[1]', data__o: 's' });
  expect(await row(fresh, 2)).toMatchObject({ data__k: 'one', data__o: null, data__o__in: '1' });
  // A table that is copied anew keeps its columns and their types, also where no row has the key any more.
  await fresh.from.query('DELETE FROM t WHERE id <> 1');
  await reset(fresh);
  const before = await columns(fresh);
  await isTrue(fresh, 3);
  expect(await columns(fresh)).toEqual(before);
});

test('data_flattening_max_level: names that are too long, that collide, and odd ones', async () => {
  const long = 'k'.repeat(70);
  await using fresh = await freshLine(
    { source, target },
    `CREATE TABLE t (id int PRIMARY KEY, data jsonb, raw json, v text, data__taken text, "data__a__b" text)`,
    { target: level(2) },
  );
  const odd = {
    '': 1,
    'a"b': 2,
    "it's": 3,
    'back\\slash': 4,
    'é😀': 5,
    '{a,b}': 6,
    '0': 7,
    ' ': 8,
    A: 9,
    a: { '': 10 },
    $$: 11,
    '%s': 12,
  };
  await put(fresh, 1, { ...odd, taken: 'mine', a__b: 1, [`${long}1`]: 1, [`${long}2`]: 2 });
  await put(fresh, 2, { a: { b: 'other' }, list: [1] });
  await put(fresh, 3, { list: { 0: 'not of the array' } });
  await isTrue(fresh, 2);
  const names = (await flattenedOf(fresh.to, 't'))?.columns.map(({ name }) => name) ?? [];
  expect(new Set(names).size).toBe(names.length);
  expect(Math.max(...names.map((name) => Buffer.byteLength(name)))).toBeLessThanOrEqual(63);
  await reset(fresh);
  await put(fresh, 4, { a: { b: 'again' } });
  await isTrue(fresh, 2);
  expect((await flattenedOf(fresh.to, 't'))?.columns.map(({ name }) => name).sort()).toEqual(names.sort());
  // The source needs a name that a key has: the key's column makes way, and stays true.
  await fresh.from.query(`ALTER TABLE t ADD COLUMN data__list text DEFAULT 'of the source'`);
  await put(fresh, 5, { list: ['x'] });
  await isTrue(fresh, 2);
  // So does one that somebody has made on the target.
  await fresh.to.query('ALTER TABLE t ADD COLUMN data__mine text');
  await put(fresh, 6, { mine: 1 });
  await isTrue(fresh, 2);
});

test('data_flattening_max_level: json that jsonb does not take stays in its own column, and stops nobody', async () => {
  await using fresh = await freshLine({ source, target }, MADE, { target: level(1) });
  await fresh.from.query(String.raw`INSERT INTO t (id, raw) VALUES (1, '{"a":"\u0000","b":1}'), (2, '{"a":"\ud800"}'), (3, '{"a":1e400000}'),
    (4, '{"a":"\\u0000","a":"last","e":"\ud83d\ude00"}'), (5, '{"\u0000":1}')`);
  await fresh.equal();
  const { rows } = await fresh.to.query('SELECT id, raw__a, raw__e FROM t WHERE raw__a IS NOT NULL');
  expect(rows).toEqual([{ id: 4, raw__a: 'last', raw__e: '😀' }]);
  await reset(fresh);
  await fresh.equal();
  expect((await fresh.to.query('SELECT id, raw__a FROM t WHERE raw__a IS NOT NULL')).rows).toEqual([
    { id: 4, raw__a: 'last' },
  ]);
});

test('data_flattening_max_level: an unchanged value that is not in the log leaves its columns as they are, also under another key', async () => {
  await using fresh = await freshLine({ source, target }, `${MADE}; ALTER TABLE t ALTER data SET STORAGE EXTERNAL`, {
    target: level(1),
  });
  await put(fresh, 1, { a: 'x'.repeat(9000), n: 5 });
  await isTrue(fresh, 1);
  await fresh.from.query(`UPDATE t SET v = 'touched'; UPDATE t SET id = 11, v = 'moved'`);
  await isTrue(fresh, 1);
  expect(await row(fresh, 11)).toMatchObject({ data__n: '5', v: 'moved' });
});

describe('the level is changed later', () => {
  test('data_flattening_max_level set, raised, lowered and turned off: older rows are filled, what is there stays true', async () => {
    await using fresh = await freshLine(
      { source, target },
      `${MADE}; INSERT INTO t VALUES (1, '{"a":1,"o":{"x":{"y":2}}}', '{"r":1}')`,
      {},
    );
    await fresh.equal();
    expect(await columns(fresh)).toEqual([]);

    fresh.line.configure({ target: level(1) });
    await put(fresh, 2, { a: 2 });
    await isTrue(fresh, 1);
    expect(await columns(fresh)).toEqual(['data__a numeric', 'data__o jsonb']);
    expect(await columns(fresh, 'raw__')).toEqual(['raw__r numeric']);
    expect(events(fresh, 'epoch_swapped')).toBe(1);

    fresh.line.configure({ target: level(3) });
    await put(fresh, 2, { a: 3, o: { z: true } });
    await isTrue(fresh, 3);
    // Who reads the object goes on to find it.
    expect(await columns(fresh)).toEqual([
      'data__a numeric',
      'data__o jsonb',
      'data__o__x__y numeric',
      'data__o__z boolean',
    ]);
    expect(await row(fresh, 1)).toMatchObject({ data__o: { x: { y: 2 } }, data__o__x__y: '2' });

    fresh.line.configure({ target: level(1) });
    await put(fresh, 3, { a: 4, o: { x: { y: 5, new: 1 } }, top: 1 });
    await isTrue(fresh, 1);
    expect(await columns(fresh)).toEqual([
      'data__a numeric',
      'data__o jsonb',
      'data__o__x__y numeric',
      'data__o__z boolean',
      'data__top numeric',
    ]);

    fresh.line.configure({ target: level(0) });
    await put(fresh, 4, { a: 5, unseen: 1 });
    await isTrue(fresh, 0);
    expect(await columns(fresh)).toHaveLength(5);
    expect(await row(fresh, 4)).toMatchObject({ data__a: '5' });

    fresh.line.configure({ target: level(2) });
    await put(fresh, 5, {});
    await isTrue(fresh, 2);
    expect(await columns(fresh)).toContain('data__unseen numeric');

    fresh.line.configure({ target: level(0) });
    await reset(fresh);
    await isTrue(fresh, 0);
    expect(await columns(fresh)).toEqual([]);
  });
});

test('data_flattening_max_level: soft deletes keep the columns; a table with a view is filled again in place', async () => {
  await using fresh = await freshLine({ source, target }, MADE, {
    target: `${level(1)}, hard_delete: false, add_metadata_columns: true`,
  });
  await put(fresh, 1, { a: 1 });
  await put(fresh, 2, { a: 2 });
  await fresh.settle();
  await fresh.from.query('DELETE FROM t WHERE id = 1');
  await fresh.settle();
  expect(await row(fresh, 1)).toMatchObject({ data__a: '1' });
  expect((await row(fresh, 1))._sdc_deleted_at).not.toBeNull();
  await put(fresh, 1, { b: 'back' });
  await fresh.settle();
  expect(await row(fresh, 1)).toMatchObject({ data__a: null, data__b: 'back', _sdc_deleted_at: null });

  await fresh.to.query('CREATE VIEW seen AS SELECT id, data__a, data__b FROM t');
  await reset(fresh);
  await put(fresh, 3, { c: true });
  await isTrue(fresh, 1);
  expect((await fresh.to.query('SELECT * FROM seen WHERE id = 1')).rows).toEqual([
    { id: 1, data__a: null, data__b: 'back' },
  ]);
  // Turned off, with the table kept for the view: what it shows stays, empty, and is filled again with the option.
  const soft = 'hard_delete: false, add_metadata_columns: true';
  fresh.line.configure({ target: `${level(0)}, ${soft}` });
  await reset(fresh);
  await fresh.equal();
  expect((await fresh.to.query('SELECT * FROM seen WHERE id = 1')).rows).toEqual([
    { id: 1, data__a: null, data__b: null },
  ]);
  expect(await columns(fresh)).toEqual(['data__a numeric', 'data__b text']);
  expect(events(fresh, 'column_kept')).toBe(2);
  fresh.line.configure({ target: `${level(1)}, ${soft}` });
  await reset(fresh);
  await isTrue(fresh, 1);
  expect((await fresh.to.query('SELECT * FROM seen WHERE id = 1')).rows).toEqual([
    { id: 1, data__a: null, data__b: 'back' },
  ]);
  // Without anything built on it, the table is swapped as any other.
  await fresh.to.query('DROP VIEW seen');
  const { rows: before } = await fresh.to.query(`SELECT 't'::regclass::oid AS oid`);
  await reset(fresh);
  await isTrue(fresh, 1);
  expect((await fresh.to.query(`SELECT 't'::regclass::oid AS oid`)).rows).not.toEqual(before);
});

test('data_flattening_max_level: more keys than columns: 250 have one, the rest stays in the json, and that is said once', async () => {
  await using fresh = await freshLine({ source, target }, MADE, { target: level(1) });
  const keys = (from: number, to: number): Json =>
    Object.fromEntries(Array.from({ length: to - from }, (_, i) => [`k${from + i}`, i]));
  await put(fresh, 1, keys(0, 200));
  await isTrue(fresh, 1);
  await put(fresh, 2, keys(100, 400));
  await put(fresh, 3, { ...(keys(400, 2000) as object), k0: 'another kind' });
  await isTrue(fresh, 0);
  await put(fresh, 4, keys(3000, 3010));
  await isTrue(fresh, 0);
  expect((await flattenedOf(fresh.to, 't'))?.columns).toHaveLength(250);
  expect(await columns(fresh)).toContain('data__k0 text');
  expect(events(fresh, 'json_columns_full')).toBe(1);
  await reset(fresh);
  await isTrue(fresh, 0);
  expect((await flattenedOf(fresh.to, 't'))?.columns).toHaveLength(250);
});

test('data_flattening_max_level: tables without a key', async () => {
  await using fresh = await freshLine(
    { source, target },
    `CREATE TABLE bag (data jsonb); ALTER TABLE bag REPLICA IDENTITY FULL`,
    {
      target: `${level(1)}, primary_key_required: false`,
    },
  );
  await fresh.from.query(`INSERT INTO bag VALUES ('{"a":1}'), ('{"a":1}'), ('{"a":2}')`);
  await isTrue(fresh, 1, 'bag');
  await fresh.from.query(
    `DELETE FROM bag WHERE ctid = '(0,1)'; UPDATE bag SET data = '{"a":"x","b":[]}' WHERE data ->> 'a' = '2'; INSERT INTO bag SELECT data FROM bag`,
  );
  await isTrue(fresh, 1, 'bag');
});

test('data_flattening_max_level: streams that are read by query, whole and by their replication key', async () => {
  await using fresh = await freshLine(
    { source, target },
    `CREATE TABLE whole (id int PRIMARY KEY, data json); CREATE TABLE newer (id int PRIMARY KEY, data json, at int);
      INSERT INTO whole VALUES (1, '{"a":1}'); INSERT INTO newer VALUES (1, '{"a":1}', 1)`,
    {
      tables:
        '[{ table: public.whole, replication_method: FULL_TABLE }, { table: public.newer, replication_method: INCREMENTAL, replication_key: at }]',
      target: `${level(1)}, hard_delete: false, add_metadata_columns: true`,
    },
  );
  await fresh.settle();
  await fresh.from.query(
    `DELETE FROM whole; INSERT INTO whole VALUES (2, '{"b":"x"}'); INSERT INTO newer VALUES (2, '{"a":"x","b":{"c":1}}', 2)`,
  );
  await fresh.settle();
  expect(await besideFaults(fresh.to, 'whole', 1)).toEqual([]);
  expect(await besideFaults(fresh.to, 'newer', 1)).toEqual([]);
  const { rows } = await fresh.to.query('SELECT id, data__a, data__b FROM whole ORDER BY id');
  expect(rows).toEqual([
    { id: 1, data__a: '1', data__b: null },
    { id: 2, data__a: null, data__b: 'x' },
  ]);
  fresh.line.configure({ target: `${level(2)}, hard_delete: false, add_metadata_columns: true` });
  await fresh.from.query(`INSERT INTO newer VALUES (3, '{"a":1}', 3)`);
  await fresh.settle();
  expect(await besideFaults(fresh.to, 'newer', 2)).toEqual([]);
});
