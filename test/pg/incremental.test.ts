/**
 * INCREMENTAL, from one real server to another: rows that are new by a replication key of any type that sorts, in pages of a few rows, over NULLs, ties and crashes; what
 * it cannot see, and what lookback mends of that.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readPages } from '../../lib/epoch/pages.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { Crash } from '../support/memory-ports.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { makeRole, ROLE, ROLE_PASSWORD, ROLE_SQL } from '../support/source-role.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres({ settings: { wal_level: 'replica' } }), startPostgres()]);
  await makeRole(source, '');
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const entry = (more: string): string => `[{ table: public.t, replication_method: INCREMENTAL, ${more} }]`;

const line = (sql: string, tables: string, more: { source?: string; target?: string } = {}): Promise<FreshLine> =>
  freshLine({ source, target }, `${sql}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${ROLE_SQL}`, {
    role: { user: ROLE, password: ROLE_PASSWORD },
    source: 'itersize: 3',
    ...more,
    tables,
  });

async function expectEqual(run: FreshLine, table = 'public.t'): Promise<void> {
  await run.settle();
  const { source: wanted, target: found } = await run.line.both(table);
  expect(found).toEqual(wanted);
}

const value = (run: FreshLine): string | null | undefined => run.line.bookmark('public.t').replication?.value;

/** Chunks of the stream's newest epoch. */
function chunks(run: FreshLine) {
  const { epoch, stream } = run.line.bookmark('public.t');
  return [...run.line.durable.chunks.values()].filter((chunk) => chunk.stream === stream && chunk.epoch === epoch);
}

/** Of each type, values of the key by a number that grows. */
const KEYS: readonly (readonly [type: string, at: (i: string) => string])[] = [
  ['int', (i) => i],
  ['smallint', (i) => `${i}::smallint`],
  ['numeric', (i) => `${i} / 7.0`],
  ['float8', (i) => `${i} / 7.0::float8`],
  ['timestamptz', (i) => `'2026-03-29 00:59:59.999990+00'::timestamptz + ${i} * interval '1 microsecond'`],
  ['timestamp', (i) => `'2026-10-25 01:59:59.999995'::timestamp + ${i} * interval '1 microsecond'`],
  ['date', (i) => `'1999-12-20'::date + ${i}`],
  ['text COLLATE "en-x-icu"', (i) => `(ARRAY['a', 'B', 'c', 'Ä'])[1 + ${i} % 4] || lpad((${i})::text, 6, '0')`],
  ['text', (i) => `E'x''\\\\' || lpad((${i})::text, 6, '0')`],
  ['char(9)', (i) => `lpad((${i})::text, 6, '0')`],
  ['uuid', (i) => `lpad(to_hex(${i}), 32, '0')::uuid`],
  ['bytea', (i) => `decode(lpad(to_hex(${i}), 8, '0'), 'hex')`],
  ['interval', (i) => `${i} * interval '1 hour'`],
  ['mood', (i) => `(enum_range(NULL::mood))[LEAST(6, 1 + (${i}) / 20)]`],
];

describe('a replication key of any type that sorts', () => {
  test.each(KEYS)('%s', async (type, at) => {
    await using run = await line(
      `CREATE TYPE mood AS ENUM ('z', 'y', 'x', 'b', 'a', 'A');
       CREATE TABLE t (id int PRIMARY KEY, k ${type}, v text); CREATE INDEX ON t (k);
       INSERT INTO t SELECT i, ${at('i')}, 'v' || i FROM generate_series(1, 20) i`,
      entry('replication_key: k'),
    );
    await expectEqual(run);
    const { rows: first } = await run.from.query<{ k: string }>(
      "SELECT format('%s', t.k) AS k FROM t ORDER BY t.k DESC LIMIT 1",
    );
    expect(value(run)).toBe(first[0]?.k);
    // A collation has an order of its own: a new row is after the last one there.
    const isOrdered = !type.includes('icu');
    const next = (from: number): string =>
      isOrdered ? at(`(${from} + i)`) : `'Z' || lpad((${from} + i)::text, 6, '1')`;
    await run.from.query(
      `INSERT INTO t SELECT 20 + i, ${next(20)}, 'new' FROM generate_series(1, 11) i;
       UPDATE t SET v = 'changed', k = (SELECT ${next(40)} FROM (SELECT t.id AS i) AS x) WHERE id % 5 = 0`,
    );
    await expectEqual(run);
    expect(chunks(run).length).toBeGreaterThan(type === 'mood' ? 0 : 3);
    await expectEqual(run);
  });

  test('one that has no order is refused with the reason', async () => {
    await using run = await line('CREATE TABLE t (id int PRIMARY KEY, k json)', entry('replication_key: k'));
    await expect(run.settle()).rejects.toThrow('REPLICATION_KEY: public.t cannot be followed by k');
  });
});

test('a page is itersize rows, and as many more as share its last value; nothing new is one page of the last value', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY, k int); INSERT INTO t VALUES (0, 0)',
    entry('replication_key: k'),
    { source: 'batch_fetch_limit: 4' },
  );
  await expectEqual(run);
  await run.from.query(
    'INSERT INTO t SELECT i, CASE WHEN i BETWEEN 3 AND 12 THEN 3 ELSE i END FROM generate_series(1, 20) i',
  );
  await expectEqual(run);
  const pages = chunks(run)
    .toSorted((a, b) => a.number - b.number)
    .map(({ range, staged }) => [range.by === 'page' ? range.to : range.by, staged?.rows]);
  // 0 again, 1, 2, and all of 3; then four each.
  expect(pages).toEqual([
    ['3', 13],
    ['15', 3],
    ['19', 4],
    ['20', 1],
  ]);
  await expectEqual(run);
  expect(chunks(run).map(({ staged }) => staged?.rows)).toEqual([1]);
});

test('rows without a value come with each run; a table of none is a table with no rows', async () => {
  await using run = await line('CREATE TABLE t (id int PRIMARY KEY, k int, v text)', entry('replication_key: k'));
  await expectEqual(run);
  expect(value(run)).toBeNull();
  await run.from.query("INSERT INTO t SELECT i, NULL, 'n' FROM generate_series(1, 8) i");
  await expectEqual(run);
  await run.from.query(
    "UPDATE t SET v = 'x' WHERE id = 3; UPDATE t SET k = 5 WHERE id = 4; INSERT INTO t VALUES (9, 1, 'one')",
  );
  await expectEqual(run);
  expect(value(run)).toBe('5');
  await run.from.query('UPDATE t SET k = NULL WHERE id = 4');
  await expectEqual(run);
});

describe('a value that has nothing above it', () => {
  const ENDLESS = [
    ['timestamptz', "'infinity'", "'-infinity'", (i: number) => `'2026-01-01Z'::timestamptz + interval '${i} days'`],
    ['date', "'infinity'", "'-infinity'", (i: number) => `'2026-01-01'::date + ${i}`],
    ['float8', "'Infinity'", "'-Infinity'", (i: number) => `${i} / 7.0`],
    ['numeric', "'Infinity'", "'-Infinity'", (i: number) => `${i} / 7.0`],
    ['numeric', "'NaN'", "'-Infinity'", (i: number) => `${i}`],
    ['interval', "'infinity'", "'-infinity'", (i: number) => `${i} * interval '1 hour'`],
    ['until', "'infinity'", "'-infinity'", (i: number) => `'2026-01-01Z'::timestamptz + interval '${i} days'`],
  ] as const;
  test.each(ENDLESS)('%s: %s', async (type, endless, first, at) => {
    const values = (from: number, count: number): string =>
      Array.from({ length: count }, (_, i) => `(${from + i}, ${at(from + i)}, 'v')`).join(', ');
    await using run = await line(
      `CREATE DOMAIN until AS timestamptz; CREATE TABLE t (id int PRIMARY KEY, k ${type}, v text); CREATE INDEX ON t (k);
       INSERT INTO t VALUES (100, ${endless}, 'endless'), (101, ${endless}, 'endless'), (102, ${first}, 'first')`,
      entry('replication_key: k'),
    );
    const finite = async (): Promise<string | undefined> =>
      (await run.from.query<{ k: string }>(`SELECT k::text FROM t WHERE k < ${endless} ORDER BY t.k DESC LIMIT 1`))
        .rows[0]?.k;
    await expectEqual(run);
    expect(value(run)).toBe(await finite());
    await run.from.query(`INSERT INTO t VALUES ${values(1, 8)}`);
    await expectEqual(run);
    expect(value(run)).toBe(await finite());
    // One is changed as it is, one comes to an end, one loses its end, and there are new ones.
    await run.from.query(
      `UPDATE t SET v = 'changed' WHERE id = 100; UPDATE t SET k = ${at(20)} WHERE id = 101;
       UPDATE t SET k = ${endless}, v = 'for ever' WHERE id = 3; INSERT INTO t VALUES ${values(21, 5)}`,
    );
    await expectEqual(run);
    expect(value(run)).toBe(await finite());
    expect(chunks(run)[0]).toMatchObject({ number: 0, range: { by: 'page', to: null } });
    expect(chunks(run)[0]?.staged?.rows).toBe(2);
  });
});

test('a run that finds nothing at all, not even the last value, ends, and the next one goes on', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL); INSERT INTO t VALUES (1, 1), (2, 2)',
    entry('replication_key: k'),
  );
  await expectEqual(run);
  await run.from.query('DELETE FROM t');
  await run.settle();
  expect(run.line.bookmark('public.t')).toMatchObject({ state: 'live' });
  expect([chunks(run), value(run)]).toEqual([[], '2']);
  await run.from.query('INSERT INTO t VALUES (1, 3), (2, 2), (3, 4)');
  await expectEqual(run);
});

test('what it cannot see: rows that are deleted, and keys that go back', async () => {
  await using run = await line(
    "CREATE TABLE t (id int PRIMARY KEY, k int, v text); INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')",
    entry('replication_key: k'),
  );
  await expectEqual(run);
  await run.from.query("DELETE FROM t WHERE id = 1; UPDATE t SET k = 1, v = 'back' WHERE id = 2");
  await run.settle();
  expect(await run.line.rows('target', 'public.t')).toEqual([
    ['1', '1', 'a'],
    ['2', '2', 'b'],
    ['3', '3', 'c'],
  ]);
  await run.line.ledger.updateBookmark(run.line.bookmark('public.t').stream, { reset_requested: true });
  await expectEqual(run);
});

describe('what is committed late', () => {
  const LATE = [
    ['k timestamptz DEFAULT now()', 'lookback: 10 minutes', true],
    ['k timestamptz DEFAULT now()', '', false],
    ['k date DEFAULT current_date - 1', "lookback: '2 days'", true],
    ['k int', 'lookback: 3', true],
    ['k int', '', false],
    ['k numeric', 'lookback: 2.5', true],
  ] as const;
  test.each(LATE)('%s, %s: seen %s', async (column, lookback, seen) => {
    await using run = await line(
      `CREATE TABLE t (id int PRIMARY KEY, ${column}); INSERT INTO t (id, k) SELECT i, ${column.includes('DEFAULT') ? column.split('DEFAULT ')[1] : 'i'} FROM generate_series(1, 3) i`,
      entry(`replication_key: k${lookback === '' ? '' : `, ${lookback}`}`),
    );
    await expectEqual(run);
    const late = await source.connect(run.line.pipeline.source.database);
    try {
      const insert = column.includes('DEFAULT') ? 'INSERT INTO t (id) VALUES' : 'INSERT INTO t (id, k) VALUES';
      const row = (id: number): string => (column.includes('DEFAULT') ? `(${id})` : `(${id}, ${id})`);
      await late.query(`BEGIN; ${insert} ${row(4)}`);
      await run.from.query(column.includes('date') ? 'INSERT INTO t VALUES (5, current_date)' : `${insert} ${row(5)}`);
      await run.settle();
      await late.query('COMMIT');
      await run.settle();
      const ids = (await run.line.rows('target', 'public.t')).map(([id]) => id);
      expect(ids).toEqual(seen ? ['1', '2', '3', '4', '5'] : ['1', '2', '3', '5']);
    } finally {
      await late.end();
    }
  });
});

describe('the file says otherwise', () => {
  const MADE =
    "CREATE TABLE t (id int PRIMARY KEY, k int, other int, v text); INSERT INTO t SELECT i, i, -i, 'v' FROM generate_series(1, 9) i";
  const CHANGES = [
    ['another replication key', entry('replication_key: other'), /replication_key is other now/, 'INCREMENTAL'],
    [
      'another method',
      '[{ table: public.t, replication_method: FULL_TABLE }]',
      /replication_method is FULL_TABLE now/,
      'FULL_TABLE',
    ],
    ['another key', entry('replication_key: k, key_properties: [other]'), /says otherwise of its key/, 'INCREMENTAL'],
  ] as const;
  test.each(CHANGES)('%s: it starts anew, and says so', async (_what, tables, reason, method) => {
    await using run = await line(MADE, entry('replication_key: k'));
    await expectEqual(run);
    // Nobody would see this by k.
    await run.from.query("UPDATE t SET v = 'changed' WHERE id = 2");
    run.line.configure({ tables });
    await expectEqual(run);
    const told = run.line.log.lines.filter(({ event }) => event === 'stream_begins_anew');
    expect(told.map(({ facts }) => facts?.reason)).toEqual([expect.stringMatching(reason)]);
    expect(run.line.bookmark('public.t')).toMatchObject({ method, state: 'live' });
    await expectEqual(run);
    expect(run.line.log.lines.filter(({ event }) => event === 'stream_begins_anew')).toHaveLength(1);
  });

  test('a lookback that is changed changes nothing else', async () => {
    await using run = await line(MADE, entry('replication_key: k'));
    await expectEqual(run);
    run.line.configure({ tables: entry('replication_key: k, lookback: 4') });
    await run.settle();
    expect(run.line.log.lines.filter(({ event }) => event === 'stream_begins_anew')).toEqual([]);
    expect(
      chunks(run)
        .flatMap(({ staged }) => staged?.rows ?? 0)
        .reduce((a, b) => a + b),
    ).toBe(5);
  });
});

test('a column that comes: the table is copied anew by itself', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY, k int); INSERT INTO t SELECT i, i FROM generate_series(1, 9) i',
    entry('replication_key: k'),
  );
  await expectEqual(run);
  await run.from.query("ALTER TABLE t ADD COLUMN v text DEFAULT 'x'; INSERT INTO t VALUES (10, 10, 'y')");
  await expectEqual(run);
  expect(await run.line.columns('target', 'public.t')).toEqual(['id integer', 'k integer', 'v text']);
});

test('an enum that gets another label in the middle of things', async () => {
  await using run = await line(
    "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, k int, m mood); INSERT INTO t VALUES (1, 1, 'a')",
    entry('replication_key: k'),
  );
  await expectEqual(run);
  await run.from.query("ALTER TYPE mood ADD VALUE 'c' BEFORE 'b'");
  await run.from.query("INSERT INTO t VALUES (2, 2, 'c')");
  await expectEqual(run);
  await run.from.query("INSERT INTO t VALUES (3, 3, 'b')");
  await expectEqual(run);
});

test('a view with key_properties, and a table whose rows go by another key than the primary one', async () => {
  await using run = await line(
    `CREATE TABLE base (id int PRIMARY KEY, code text, at timestamptz);
     INSERT INTO base SELECT i, 'c' || i, now() FROM generate_series(1, 9) i;
     CREATE VIEW t AS SELECT id, code, at FROM base WHERE id <> 5`,
    entry('replication_key: at, key_properties: [code]'),
  );
  await expectEqual(run);
  await run.from.query("INSERT INTO base VALUES (10, 'c10', now()); UPDATE base SET id = 90, at = now() WHERE id = 9");
  await expectEqual(run);
  expect(await run.line.rows('target', 'public.t')).toHaveLength(9);
});

test('a column of the file that is not there is named', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY, updated_at date)',
    entry('replication_key: updatedat'),
  );
  await expect(run.settle()).rejects.toThrow('TABLE_COLUMN_MISSING: public.t has no column updatedat');
});

test('without a key it is refused, for rows come again', async () => {
  await using run = await line('CREATE TABLE t (k int)', entry('replication_key: k'), {
    target: 'primary_key_required: false',
  });
  await expect(run.settle()).rejects.toThrow('TABLE_WITHOUT_KEY');
});

describe('killed anywhere between the opening of a run and its end', () => {
  const CALLS = ['before', 'after'] as const;
  test.each(CALLS)(
    '%s each write',
    async (when) => {
      await using run = await line(
        "CREATE TABLE t (id int PRIMARY KEY, k int, v text); INSERT INTO t SELECT i, i, 'v' FROM generate_series(1, 4) i",
        entry('replication_key: k'),
      );
      await expectEqual(run);
      const { world } = run.line;
      let crashes = 0;
      for (let at = 1; at < 60; at++) {
        await run.from.query(
          `INSERT INTO t SELECT ${at * 100} + i, ${at * 100} + i, 'new' FROM generate_series(1, 7) i; UPDATE t SET v = 'again', k = ${at * 100} + 8 WHERE id = ${at} % 4 + 1`,
        );
        world.crashWhen = when;
        world.crashAt = world.changes + at;
        try {
          await run.line.window();
          await run.line.pump();
          // A bell that could not be rung is nothing that a process minds.
          if (!world.isDead) break;
          crashes++;
        } catch (error) {
          const isCrash = error instanceof Crash || (error instanceof Error && error.message.includes('the process'));
          if (!isCrash && !world.isDead) throw error;
          crashes++;
        }
        run.line.restart();
        await expectEqual(run);
        expect(value(run)).toBe(String(at * 100 + 8));
      }
      expect(crashes).toBeGreaterThan(20);
    },
    120_000,
  );
});

test('values are as PostgreSQL prints them: another session behind a pooler, and a cast of somebody, make no difference', async () => {
  await using run = await line(
    `CREATE TYPE mood AS ENUM ('low', 'high'); CREATE FUNCTION tell(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a mood' $$;
     CREATE CAST (mood AS text) WITH FUNCTION tell(mood);
     CREATE TABLE t (id int PRIMARY KEY, at timestamptz, m mood); INSERT INTO t VALUES (1, '2026-02-03 04:05:06+00', 'low'), (2, '2026-02-04 04:05:06+00', 'high')`,
    entry('replication_key: at'),
  );
  const table = await run.line.ports().extractor.table({ schema: 'public', table: 't' });
  if (!table) throw new Error('no table t');
  await run.from.query("SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; SET search_path = pg_catalog");
  const asked = { from: null, lookback: null, rows: 1, pages_max: 10, from_lsn: null };
  const { ends, to } = await readPages(run.from, table, { ...asked, column: 'at' });
  expect([ends, to]).toEqual([['2026-02-03 04:05:06+00'], '2026-02-04 04:05:06+00']);
  expect(await readPages(run.from, table, { ...asked, column: 'm' })).toMatchObject({ ends: ['low'], to: 'high' });
});

test('a lookback with more rows than one run has room for: the run comes past the bookmark all the same', async () => {
  await using run = await line(
    'CREATE TABLE t (id int PRIMARY KEY, k int); INSERT INTO t SELECT i, i FROM generate_series(1, 400) i',
    entry('replication_key: k, lookback: 300'),
  );
  const table = await run.line.ports().extractor.table({ schema: 'public', table: 't' });
  if (!table) throw new Error('no table t');
  await run.from.query('SET search_path = pg_catalog');
  const asked = { column: 'k', lookback: '300', rows: 2, pages_max: 5, from_lsn: null };
  const some = await readPages(run.from, table, { ...asked, from: '350' });
  expect(Number(some.to)).toBeGreaterThan(350);
  expect(some.ends.length).toBeLessThan(5);
  // Where the last rows are gone as well.
  expect(await readPages(run.from, table, { ...asked, from: '450' })).toMatchObject({ from: '150', to: '400' });
  // Without one, a run is as long as it may be.
  expect(await readPages(run.from, table, { ...asked, lookback: null, from: '100' })).toMatchObject({ to: '109' });
});
