/**
 * Goal: types that the source has beyond PostgreSQL's own are on the target what they are on the source, and stay so. Method: the whole line between
 * two servers; text of every row and format_type of every column are compared.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { doctor } from '../../lib/doctor/doctor.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { Shape, SourceType } from '../../lib/shape.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { streamOf, synchronise, targetOn } from '../support/loading.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const fresh = (sql: string, options: Parameters<typeof freshLine>[2] = {}): Promise<FreshLine> =>
  freshLine({ source, target }, sql, { target: 'hard_delete: true', ...options });

/** Replicates, and compares rows and columns of `table` on both sides. */
async function same(pair: FreshLine, table = 'public.t'): Promise<void> {
  const { line } = pair;
  await pair.settle();
  const { source: want, target: got } = await line.both(table);
  expect(got).toEqual(want);
  expect(await line.columns('target', table)).toEqual(await line.columns('source', table));
}

const halt = async (fresh: FreshLine): Promise<string> => {
  await fresh.line.settle();
  return fresh.line.bookmark('public.t').halt?.code ?? 'none';
};

describe('made on the target', () => {
  test('enums, domains over domains and arrays, composites, and arrays of them', async () => {
    await using pair = await fresh(`
      CREATE SCHEMA "Typ es"; CREATE SCHEMA b;
      CREATE TYPE "Typ es"."Mo.od" AS ENUM ('so so', 'it''s \\ fine', 'ünï');
      CREATE DOMAIN b.money AS numeric(10,2) CHECK (VALUE > 0);
      CREATE DOMAIN b.price AS b.money NOT NULL;
      CREATE DOMAIN b.names AS varchar(5)[];
      CREATE DOMAIN b.moods AS "Typ es"."Mo.od"[];
      CREATE TYPE b.inner_type AS (p b.price, m "Typ es"."Mo.od"[]);
      CREATE TYPE b.outer_type AS ("in" b.inner_type, "n ""q""" text, r regclass);
      CREATE TYPE b.empty AS ();
      CREATE TABLE t (id int PRIMARY KEY, e "Typ es"."Mo.od", ea "Typ es"."Mo.od"[], d b.price, n b.names, dm b.moods,
        da b.money[], c b.outer_type, ca b.outer_type[], em b.empty);
      INSERT INTO t VALUES (1, 'so so', '{{ünï,"it''s \\\\ fine"},{NULL,"so so"}}', 1.5, '{a,b}', '[2:3]={ünï,NULL}', '{1,2.25}',
        ROW(ROW(7, '{ünï}'), 'a,"b', 'pg_class'), ARRAY[NULL, ROW(NULL, '', NULL)]::b.outer_type[], ROW()),
        (2, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL)`);
    await pair.settle();
    // regclass is text on the target, there it would have to name a table; inside a composite as well.
    const { source: want, target: got } = await pair.line.both('public.t');
    expect(got).toEqual(want);
    expect(await pair.line.columns('target', 'public.t')).toEqual(await pair.line.columns('source', 'public.t'));
    await pair.from.query(`
      INSERT INTO t SELECT id + 10, e, ea, d, n, dm, da, c, ca, em FROM t;
      UPDATE t SET e = 'ünï', c = ROW(ROW(8, '{}'), 'changed', 'pg_type') WHERE id = 1; DELETE FROM t WHERE id = 2`);
    await same(pair);
  });

  test('keys of custom types: found again by update, change of key and delete', async () => {
    await using pair = await fresh(`
      CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN amount AS numeric; CREATE TYPE pair AS (a int, b numeric);
      CREATE TABLE t (m mood, d amount, p pair, x text, PRIMARY KEY (m, d, p));
      INSERT INTO t SELECT m, d, ('(1,' || d || ')')::pair, 'first' FROM unnest(enum_range(NULL::mood)) m, unnest('{1.0,2.00}'::numeric[]) d`);
    await same(pair);
    await pair.from.query(`UPDATE t SET x = 'second' WHERE m = 'ok'`);
    await pair.from.query(`UPDATE t SET d = 1.000, p = ROW(1, 1.00) WHERE m = 'sad' AND d = 1`);
    await pair.from.query(`DELETE FROM t WHERE m = 'ok' AND d = 2`);
    await same(pair);
    expect(await pair.line.rows('target', 'public.t')).toContainEqual(['1.000', 'sad', '(1,1.00)', 'first']);
  });

  test('the same type for two streams; a second line’s is found there', async () => {
    await using pair = await fresh(`
      CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, m mood); CREATE TABLE u (id int PRIMARY KEY, m mood[]);
      INSERT INTO t VALUES (1, 'sad'); INSERT INTO u VALUES (1, '{sad}')`);
    await pair.to.query(`CREATE TYPE mood AS ENUM ('sad', 'of the target')`);
    await same(pair);
    await same(pair, 'public.u');
  });
});

describe('followed', () => {
  test('labels that are added while windows run, before, between and behind', async () => {
    await using pair = await fresh(`
      CREATE TYPE mood AS ENUM ('b', 'd'); CREATE TABLE t (id int PRIMARY KEY, m mood, a mood[]); INSERT INTO t VALUES (1, 'b', '{d}')`);
    await same(pair);
    await pair.from.query(`INSERT INTO t VALUES (2, 'd')`);
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'a' BEFORE 'b'`);
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'c' AFTER 'b'`);
    await pair.from.query(`INSERT INTO t VALUES (3, 'a', '{c}')`);
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'e'`);
    await pair.from.query(`UPDATE t SET m = 'e' WHERE id = 1`);
    await same(pair);
    const labels = await pair.to.query(`SELECT enum_range(NULL::mood)::text AS labels`);
    expect(labels.rows).toEqual([{ labels: '{a,b,c,d,e}' }]);
    pair.line.restart();
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'f'`);
    await pair.from.query(`UPDATE t SET a = '{f,a}'`);
    await same(pair);
  });

  test('a column of a new type is added while windows run', async () => {
    await using pair = await fresh(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`);
    await same(pair);
    await pair.from.query(
      `CREATE SCHEMA later; CREATE TYPE later.mood AS ENUM ('x'); CREATE DOMAIN later.d AS later.mood[]`,
    );
    await pair.from.query(`ALTER TABLE t ADD COLUMN m later.mood, ADD COLUMN d later.d`);
    await pair.from.query(`INSERT INTO t VALUES (2, 'x', '{x,NULL}')`);
    await same(pair);
  });

  test('an attribute that is added, renamed and dropped', async () => {
    await using pair = await fresh(`
      CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, p pair); INSERT INTO t VALUES (1, ROW(1, 'x'))`);
    await same(pair);
    await pair.from.query(`ALTER TYPE pair ADD ATTRIBUTE c int`);
    await pair.from.query(`INSERT INTO t VALUES (2, ROW(2, 'y', 3))`);
    await same(pair);
    await pair.from.query(`ALTER TYPE pair RENAME ATTRIBUTE b TO "B b"`);
    await pair.from.query(`INSERT INTO t VALUES (3, ROW(3, 'z', 4))`);
    await same(pair);
    await pair.from.query(`ALTER TYPE pair DROP ATTRIBUTE a`);
    await pair.from.query(`INSERT INTO t VALUES (4, ROW('u', 5))`);
    await same(pair);
    const { rows } = await pair.to.query(`SELECT ((p)."B b") AS b, (p).c FROM t ORDER BY id`);
    expect(rows.map(({ b, c }) => [b, c])).toEqual([
      ['x', null],
      ['y', 3],
      ['z', 4],
      ['u', 5],
    ]);
  });

  test('values from before a composite was changed, in the same window: copied anew, and equal', async () => {
    await using pair = await fresh(`
      CREATE TYPE pair AS (a int, b int); CREATE TABLE t (id int PRIMARY KEY, p pair[]); INSERT INTO t VALUES (1, ARRAY[ROW(1, 10)]::pair[])`);
    await same(pair);
    await pair.from.query(`INSERT INTO t VALUES (2, ARRAY[ROW(2, 20)]::pair[])`);
    await pair.from.query(`ALTER TYPE pair ADD ATTRIBUTE c int`);
    await pair.from.query(`INSERT INTO t VALUES (3, ARRAY[ROW(3, 30, 300)]::pair[])`);
    await same(pair);
    await pair.from.query(`INSERT INTO t VALUES (4, ARRAY[ROW(4, 40, 400)]::pair[])`);
    await pair.from.query(`ALTER TYPE pair DROP ATTRIBUTE a, ADD ATTRIBUTE d int`);
    await pair.from.query(`INSERT INTO t VALUES (5, ARRAY[ROW(50, 500, 5000)]::pair[])`);
    await same(pair);
    expect(pair.line.bookmark('public.t').halt).toBeNull();
  });

  test('a label that is renamed, with values of either name in the same window', async () => {
    await using pair = await fresh(`
      CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, m mood); CREATE TABLE u (id int PRIMARY KEY, m mood);
      INSERT INTO t VALUES (1, 'a'); INSERT INTO u VALUES (1, 'a')`);
    await same(pair);
    await pair.from.query(`ALTER TYPE mood RENAME VALUE 'a' TO 'x'; INSERT INTO t VALUES (2, 'x')`);
    await same(pair);
    await same(pair, 'public.u');
    await pair.from.query(`INSERT INTO t VALUES (3, 'x')`);
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'c'`);
    await pair.from.query(`ALTER TYPE mood RENAME VALUE 'x' TO 'y'`);
    await pair.from.query(`INSERT INTO t VALUES (4, 'y'), (5, 'c'); INSERT INTO u VALUES (2, 'y')`);
    await same(pair);
    await same(pair, 'public.u');
    expect((await pair.to.query('SELECT enum_range(NULL::mood)::text AS labels')).rows).toEqual([
      { labels: '{y,b,c}' },
    ]);
  });

  test('where it cannot be told which label was renamed the stream halts, with the SQL for either case', async () => {
    await using pair = await fresh(`
      CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, m mood); INSERT INTO t VALUES (1, 'a')`);
    await same(pair);
    await pair.from.query(`ALTER TYPE mood RENAME VALUE 'a' TO 'y'`);
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'x' BEFORE 'y'`);
    await pair.from.query(`INSERT INTO t VALUES (2, 'x')`);
    expect(await halt(pair)).toBe('TYPE_UNFOLLOWED');
    expect(pair.line.bookmark('public.t').halt?.remedy).toContain(`RENAME VALUE 'a' TO 'x'`);
  });

  test('what catches up with an older definition takes nothing away from a newer one', async () => {
    await using pair = await fresh(`
      CREATE TYPE pair AS (a int, b int); CREATE TABLE t (id int PRIMARY KEY, p pair); CREATE TABLE u (id int PRIMARY KEY, p pair);
      INSERT INTO t VALUES (1, ROW(1, 2)); INSERT INTO u VALUES (1, ROW(1, 2))`);
    await same(pair);
    // Staged and not loaded: what u has is older than what t brings.
    await pair.from.query(`INSERT INTO u VALUES (2, ROW(3, 4))`);
    await pair.line.window();
    await pair.from.query(`ALTER TYPE pair ADD ATTRIBUTE c int`);
    await pair.from.query(`INSERT INTO t VALUES (2, ROW(5, 6, 7))`);
    await pair.to.query(`ALTER TYPE pair ADD ATTRIBUTE c int; UPDATE u SET p = ROW(1, 2, NULL)`);
    await same(pair);
    await same(pair, 'public.u');
    await pair.from.query(`UPDATE u SET p.c = 9 WHERE id = 1; UPDATE t SET p.c = 8 WHERE id = 1`);
    await same(pair);
    await same(pair, 'public.u');
  });
});

describe('not made', () => {
  test('custom_types: text makes them text, with the same text', async () => {
    await using pair = await fresh(
      `CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN d AS int; CREATE TYPE pair AS (a int, b text);
       CREATE TABLE t (m mood, d d, p pair, ma mood[], PRIMARY KEY (m)); INSERT INTO t VALUES ('a', 1, ROW(1, 'x'), '{a,b}')`,
      { target: 'hard_delete: true, custom_types: text' },
    );
    await pair.settle();
    await pair.from.query(`ALTER TYPE mood ADD VALUE 'c'`);
    await pair.from.query(`INSERT INTO t VALUES ('c', 2, ROW(NULL, ''), '{c}'); UPDATE t SET m = 'b' WHERE m = 'a'`);
    await pair.settle();
    const { source: want, target: got } = await pair.line.both('public.t');
    expect(got).toEqual(want);
    expect(await pair.line.columns('target', 'public.t')).toEqual(['d text', 'm text', 'ma text', 'p text']);
    const { rows } = await pair.to.query(`SELECT typname FROM pg_type WHERE typname = 'mood'`);
    expect(rows).toEqual([]);
  });

  test('another type of the name on the target halts the stream', async () => {
    await using pair = await fresh(`CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, m mood)`);
    await pair.to.query(`CREATE DOMAIN mood AS text`);
    expect(await halt(pair)).toBe('TYPE_TAKEN');
  });

  test('a role that may not make or alter the type says what to run', async () => {
    const admin = await target.connect();
    await admin.query(`CREATE ROLE writer LOGIN PASSWORD 'writer'; CREATE SCHEMA theirs; CREATE TYPE theirs.mood AS ENUM ('a');
      CREATE SCHEMA ours AUTHORIZATION writer; CREATE SCHEMA _sluice AUTHORIZATION writer; GRANT CREATE ON SCHEMA ours TO writer`);
    const loader = targetOn(target, { user: 'writer', password: 'writer' });
    const stream = streamOf({ schema: 'ours', table: 't' });
    const prepared = async (...types: SourceType[]): Promise<unknown> => {
      const id = { name: 'id', type_oid: 23, type_modifier: -1 };
      const columns = types.map((type, i) => ({ name: `c${i}`, type_oid: 20_000 + i, type_modifier: -1, type }));
      const shape = { columns: [id, ...columns], key: [0] };
      return await synchronise(loader, stream, shape, [[]]).catch((error: unknown) =>
        error instanceof SluiceError ? [error.code, error.remedy] : error,
      );
    };
    const mood = (schema: string, ...labels: string[]): SourceType => ({ kind: 'enum', schema, name: 'mood', labels });
    expect(await prepared(mood('theirs', 'a', 'b'))).toEqual([
      'TARGET_NOT_ALLOWED',
      'Run: ALTER TYPE "theirs"."mood" OWNER TO "writer"; then: sluice resume ours.t',
    ]);
    expect(await prepared({ kind: 'composite', schema: 'theirs', name: 'pair', attributes: [] })).toEqual([
      'TARGET_NOT_ALLOWED',
      'Run: GRANT USAGE, CREATE ON SCHEMA "theirs" TO "writer"; then: sluice resume ours.t',
    ]);
    expect(await prepared(mood('fresh', 'a'))).toEqual([
      'TARGET_NOT_ALLOWED',
      'Run: GRANT CREATE ON DATABASE "postgres" TO "writer"; then: sluice resume ours.t',
    ]);
    await admin.query('GRANT USAGE ON SCHEMA theirs TO writer');
    expect(await prepared(mood('theirs', 'a'), mood('ours', 'x'))).toBeUndefined();
    await admin.end();
  });

  test('two loaders at once make each type once', async () => {
    const admin = await target.connect();
    const loader = targetOn(target, { pipeline: 'at once' });
    const element = { type_oid: 20_001, type_modifier: -1 };
    const labels = Array.from({ length: 20 }, (_, i) => `label ${i}`);
    const type = (count: number): SourceType => ({
      kind: 'enum',
      schema: 'at once',
      name: 'mood',
      labels: labels.slice(0, count),
    });
    const shape = (count: number): Shape => ({
      columns: [
        { name: 'id', type_oid: 23, type_modifier: -1 },
        {
          name: 'm',
          type_oid: 20_000,
          type_modifier: -1,
          type: { kind: 'array', element: { ...element, type: type(count) } },
        },
      ],
      key: [0],
    });
    const counts = [1, 5, 20, 12, 20, 3];
    await Promise.all(
      counts.map((count, i) =>
        synchronise(loader, streamOf({ schema: 'at once', table: `t${i}` }), shape(count), [[['1', '{label 0}']]]),
      ),
    );
    const { rows } = await admin.query<{ labels: string[] }>(
      `SELECT enum_range(NULL::"at once".mood)::text[] AS labels`,
    );
    expect(rows[0]?.labels).toEqual(labels);
    await admin.end();
  });
});

describe('known by their names only', () => {
  test('types of extensions that the target has, wherever they are installed there; as keys as well', async () => {
    await using pair = await fresh(`
      CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE DOMAIN email AS citext;
      CREATE TABLE t (l ltree, c citext, h hstore, ha hstore[], e email, PRIMARY KEY (l, c));
      INSERT INTO t VALUES ('a.b', 'One', 'k=>"v w"', '{"a=>1",NULL}', 'A@b')`);
    await pair.to.query(
      `CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext`,
    );
    await pair.settle();
    expect(await pair.line.columns('target', 'public.t')).toEqual([
      'c ext.citext',
      'e public.email',
      'h ext.hstore',
      'ha ext.hstore[]',
      'l ext.ltree',
    ]);
    const check = async (): Promise<void> => {
      await pair.settle();
      const { source: want, target: got } = await pair.line.both('public.t');
      expect(got).toEqual(want);
    };
    await check();
    await pair.from.query(
      `INSERT INTO t VALUES ('a', 'two', 'x=>NULL'), ('b.c', 'three', NULL); UPDATE t SET h = 'n=>2' WHERE l = 'a.b'`,
    );
    await check();
    await pair.from.query(
      `UPDATE t SET c = 'ONE' WHERE l = 'a.b'; UPDATE t SET l = 'z' WHERE l = 'a'; DELETE FROM t WHERE l = 'b.c'`,
    );
    await check();
    expect((await pair.line.rows('target', 'public.t')).map(([c]) => c)).toEqual(['ONE', 'two']);
  });

  test('without the extension, the row of a table and an unknown range: text', async () => {
    await using pair = await fresh(`
      CREATE EXTENSION hstore; CREATE TYPE span AS RANGE (subtype = numeric); CREATE TABLE other (a int, b text); CREATE DOMAIN hd AS hstore;
      CREATE TABLE t (id int PRIMARY KEY, h hstore, s span, sm span[], o other, d hd);
      INSERT INTO t VALUES (1, 'a=>1', '[1,2.50)', '{"[1,2)"}', ROW(1, 'x'), 'b=>2')`);
    await pair.settle();
    await pair.from.query(`INSERT INTO t SELECT id + 1, h, s, sm, o, d FROM t`);
    await pair.settle();
    const { source: want, target: got } = await pair.line.both('public.t');
    expect(got).toEqual(want);
    expect(await pair.line.columns('target', 'public.t')).toEqual([
      'd public.hd',
      'h text',
      'id integer',
      'o text',
      's text',
      'sm text',
    ]);
  });

  test('doctor says which columns will be text', async () => {
    await using pair = await fresh(`
      CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE TYPE span AS RANGE (subtype = numeric); CREATE DOMAIN hd AS hstore;
      CREATE TABLE t (id int PRIMARY KEY, h hstore[], c citext, s span, d hd, g hstore GENERATED ALWAYS AS (h[1]) STORED)`);
    await pair.to.query('CREATE EXTENSION citext');
    const { pipeline } = pair.line;
    const connect = {
      source: () => source.connect(pipeline.source.database),
      replication: () => source.connect(pipeline.source.database),
      target: () => target.connect(pipeline.target.database),
    };
    const said = async (of: typeof pipeline): Promise<unknown[]> =>
      (await doctor({ pipeline: of, connect }))
        .filter(({ check }) => check === 'target_types')
        .map(({ severity, subject, problem, remedy }) => [severity, subject, problem, remedy]);
    expect(await said(pipeline)).toEqual([
      [
        'warning',
        'type public.hstore',
        'The target does not have it: it will be text there, in public.t.h, public.t.d, public.t.g.',
        'If it shall keep its type, run on the target before the first copy: CREATE EXTENSION "hstore"',
      ],
      [
        'info',
        'type public.span',
        'The target does not have it: it will be text there, in public.t.s.',
        'If it shall keep its type, make the type on the target before the first copy (the row of a table is always text).',
      ],
    ]);
    const asText = { ...pipeline, target: { ...pipeline.target, custom_types: 'text' as const } };
    expect(JSON.stringify(await said(asText))).not.toContain('public.t.d');
  });

  test('a range of the name that the target has', async () => {
    const range = 'CREATE TYPE span AS RANGE (subtype = numeric, multirange_type_name = spans)';
    await using pair = await fresh(`${range}; CREATE TABLE t (id int PRIMARY KEY, s span, sa span[], m spans);
      INSERT INTO t VALUES (1, '[1,2.50)', '{"[1,2)"}', '{[1,2),[3,4)}')`);
    await pair.to.query(range);
    await same(pair);
  });
});
