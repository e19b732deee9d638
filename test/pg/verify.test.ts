/**
 * `verify` between real servers: faults are put into the target by hand, and exactly these are found, while the source is written to; repaired, they are
 * gone. SLUICE_VERIFY_ROWS: rows of each table (20,000; one row in 100,000 is made wrong in each of three ways, and two at least).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repairOf, requestEpoch } from '../../lib/epoch/request.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { openLine } from '../support/line.ts';
import { memoryDoorbell } from '../support/memory-ports.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE, type Major } from '../support/servers.ts';
import { verifyLine, writingOn } from '../support/verifying.ts';

const ROWS = Number(process.env.SLUICE_VERIFY_ROWS ?? 20_000);
const FAULTS = Math.max(2, Math.round(ROWS / 100_000));
/** Several ranges, whatever the size. */
const RANGE_ROWS = Math.ceil(ROWS / 4.5);

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});

afterAll(async () => {
  await Promise.all([source, target].map((server) => server?.stop()));
});

/** Tables by the kind of their key; `key`: its columns as SQL of a row's number, `n`. */
const KEYS = {
  by_int: { columns: 'id int', names: ['id'], key: ['n'] },
  by_uuid: { columns: 'id uuid', names: ['id'], key: ['md5(n::text)::uuid'] },
  by_text: { columns: 'id text COLLATE "en-x-icu"', names: ['id'], key: ["chr(65 + n % 50) || '-é' || n"] },
  by_two: { columns: 'a bigint, b text COLLATE "C"', names: ['a', 'b'], key: ['n / 7', "'k' || n"] },
  by_time: {
    columns: 'at timestamptz, n2 numeric',
    names: ['at', 'n2'],
    key: ["'2020-01-01Z'::timestamptz + n / 3 * interval '1 ms'", 'n'],
  },
} as const;

type Kind = keyof typeof KEYS;
const KINDS = Object.keys(KEYS) as Kind[];

function makeSql(kind: Kind): string {
  const { columns, names, key } = KEYS[kind];
  return `CREATE TABLE ${kind} (${columns}, n int, note text, at_f float8, PRIMARY KEY (${names.join(', ')}));
    INSERT INTO ${kind} SELECT ${key.join(', ')}, n, 'note ' || n, n / 7.0 FROM generate_series(1, ${ROWS}) AS n;`;
}

/** Rows that nobody writes to on the source: every tenth. */
const faulty = (way: number): string =>
  `n % 10 = 0 AND n / 10 % ${Math.floor(ROWS / 10 / FAULTS)} = ${way} AND n / 10 / ${Math.floor(ROWS / 10 / FAULTS)} < ${FAULTS}`;

const sorted = (keys: readonly (readonly string[])[] = []): string[][] =>
  keys.map((key) => [...key]).toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));

/** Returns the keys of what it has made wrong, as the source prints them. */
async function plant(to: FreshLine['to'], kind: Kind): Promise<Record<'differing' | 'missing' | 'extra', string[][]>> {
  const { names, key } = KEYS[kind];
  const returning = `RETURNING ${names.map((name) => `${name}::text`).join(', ')}`;
  const ask = async (sql: string): Promise<string[][]> => {
    const { rows } = await to.query<string[]>({ text: `${sql} ${returning}`, rowMode: 'array' });
    return sorted(rows);
  };
  await to.query("SET TimeZone = 'UTC'");
  return {
    differing: await ask(`UPDATE ${kind} SET note = note || '!' WHERE ${faulty(1)}`),
    missing: await ask(`DELETE FROM ${kind} WHERE ${faulty(2)}`),
    extra: await ask(
      `INSERT INTO ${kind} (${names.join(', ')}, n, note) SELECT ${key.join(', ')}, n, 'by hand' FROM generate_series(${ROWS} + 1000001, ${ROWS} + 1000000 + ${FAULTS}) AS n`,
    ),
  };
}

/** Writes to all but every tenth row, and adds and removes its own. */
const write = (n: number): string => {
  const table = KINDS[n % KINDS.length] as Kind;
  const { names, key } = KEYS[table];
  const row = 1 + ((n * 7919) % ROWS);
  const own = ROWS + 1 + n;
  return [
    `UPDATE ${table} SET note = note || '.' WHERE n BETWEEN ${row} AND ${row + 3} AND n % 10 <> 0`,
    `INSERT INTO ${table} (${names.join(', ')}, n, note) SELECT ${key.join(', ')}, n, 'new' FROM generate_series(${own}, ${own}) AS n`,
    n % 3 === 0 ? `DELETE FROM ${table} WHERE n > ${ROWS} AND n < ${own - 20} AND n % 10 <> 0` : 'SELECT 1',
  ].join(';');
};

describe('faults that were put into the target by hand', () => {
  test('are found exactly, under writes, and repaired', { timeout: 120_000 + ROWS * 2 }, async () => {
    await using fresh = await freshLine({ source, target }, KINDS.map(makeSql).join('\n'));
    await fresh.from.query(KINDS.map((kind) => `CREATE INDEX ON ${kind} (n)`).join(';'));
    await fresh.settle();
    expect(
      Object.values(await verifyLine(fresh, { range_rows: RANGE_ROWS })).map(({ table, outcome, rows }) => [
        table,
        outcome,
        rows,
      ]),
    ).toEqual(KINDS.toSorted().map((kind) => [`public.${kind}`, 'equal', ROWS]));

    const planted = new Map<Kind, Awaited<ReturnType<typeof plant>>>();
    for (const kind of KINDS) planted.set(kind, await plant(fresh.to, kind));
    await using writer = writingOn(fresh.from, write);
    const first = await verifyLine(fresh, { range_rows: RANGE_ROWS });
    for (const kind of KINDS) {
      const found = first[kind];
      const wanted = planted.get(kind);
      expect(found?.outcome, kind).toBe('different');
      for (const way of ['differing', 'missing', 'extra'] as const) {
        expect(found?.[way].rows, `${kind} ${way}`).toBe(FAULTS);
        if (FAULTS <= 20) expect(sorted(found?.[way].keys), `${kind} ${way}`).toEqual(wanted?.[way]);
      }
      expect(found?.undecided.rows, kind).toBe(0);
    }

    const repaired = await verifyLine(fresh, { range_rows: RANGE_ROWS, repair: true });
    for (const kind of KINDS) expect(repaired[kind], kind).toMatchObject({ outcome: 'repaired', repaired: 3 * FAULTS });
    const second = await verifyLine(fresh, { range_rows: RANGE_ROWS });
    for (const kind of KINDS) expect(second[kind], kind).toMatchObject({ outcome: 'equal' });
    expect(await writer.end()).toBeGreaterThan(50);
    await fresh.equal();
  });
});

describe('rows that change all the time', () => {
  test('are no findings, and hide none', async () => {
    await using fresh = await freshLine(
      { source, target },
      `CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL);
       INSERT INTO hot SELECT n, 0 FROM generate_series(1, 500) AS n;
       CREATE TABLE flicker (id int PRIMARY KEY, n int);`,
    );
    await fresh.settle();
    await fresh.to.query(
      'UPDATE hot SET n = -1 WHERE id = 100; DELETE FROM hot WHERE id = 200; INSERT INTO hot VALUES (900, 0)',
    );
    await using hot = writingOn(fresh.from, (n) => `UPDATE hot SET n = ${n} WHERE id IN (7, 8)`, 0);
    await using flicker = writingOn(
      fresh.from,
      (n) => (n % 2 === 0 ? 'INSERT INTO flicker VALUES (1, 1)' : 'DELETE FROM flicker'),
      3,
    );
    const { hot: found, flicker: flickering } = await verifyLine(fresh);
    expect(found).toMatchObject({
      outcome: 'different',
      differing: { keys: [['100']] },
      missing: { keys: [['200']] },
      extra: { keys: [['900']] },
    });
    expect([['7'], ['8']]).toEqual(expect.arrayContaining([...(found?.undecided.keys ?? [])]));
    expect(flickering).toMatchObject({ differing: { rows: 0 }, missing: { rows: 0 }, extra: { rows: 0 } });
    expect(await hot.end()).toBeGreaterThan(10);
    expect(await flicker.end()).toBeGreaterThan(10);
  });
});

const MANY = 60_000;

describe('many rows that differ', () => {
  test('are counted, and shown in part', async () => {
    await using fresh = await freshLine(
      { source, target },
      `CREATE TABLE many (id text COLLATE "en-x-icu" PRIMARY KEY, n int); INSERT INTO many SELECT 'k' || n, n FROM generate_series(1, ${MANY}) AS n;
       CREATE TABLE ints (id int PRIMARY KEY, n int); INSERT INTO ints SELECT n, n FROM generate_series(1, ${MANY}) AS n;`,
    );
    await fresh.settle();
    await fresh.to.query('TRUNCATE many; UPDATE ints SET n = n + 1');
    const { many, ints } = await verifyLine(fresh);
    expect(many?.missing.rows).toBe(MANY);
    expect(many?.missing.keys).toHaveLength(20);
    expect(ints?.differing.rows).toBe(MANY);
  });
});

describe('tables as the target has them', () => {
  test('renamed, dropped, retyped and computed columns, custom types, another name, soft deletes', async () => {
    await using fresh = await freshLine(
      { source, target },
      `CREATE TYPE mood AS ENUM ('good', 'so, so', '');
       CREATE TABLE a (id int PRIMARY KEY, old text, gone text, m mood, ms mood[], twice int GENERATED ALWAYS AS (id * 2) STORED, w int,
         e text, f float4, b bytea, j jsonb, c char(5));
       INSERT INTO a (id, old, gone, m, ms, w, e, f, b, j, c) SELECT n, 'x' || n, 'y', 'so, so', '{good,"so, so"}', n, CASE WHEN n % 2 = 0 THEN '' END,
         n / 3.0, '\\x00ff', '{"a": 1}', 'c' FROM generate_series(1, 300) AS n`,
      {
        tables: '[{ table: public.a, target_schema: "Other", target_table: "a.b" }]',
        target: 'hard_delete: false, add_metadata_columns: true, custom_types: text, on_drop_column: keep',
      },
    );
    await fresh.settle();
    await fresh.from.query(
      `ALTER TABLE a RENAME old TO "new"; ALTER TABLE a DROP gone; ALTER TABLE a ADD added numeric DEFAULT 1.50;
       ALTER TABLE a ALTER w TYPE bigint; UPDATE a SET "new" = NULL WHERE id < 10; INSERT INTO a (id) VALUES (1000)`,
    );
    await fresh.settle();
    await fresh.from.query('DELETE FROM a WHERE id BETWEEN 20 AND 29');
    await fresh.settle();
    expect((await verifyLine(fresh)).a).toMatchObject({
      outcome: 'equal',
      rows: 291,
      not_compared: [{ column: 'twice', why: 'computed' }],
    });
    await fresh.to.query(`
      UPDATE "Other"."a.b" SET e = NULL WHERE id = 2; UPDATE "Other"."a.b" SET e = '' WHERE id = 3; UPDATE "Other"."a.b" SET m = 'bad' WHERE id = 4;
      UPDATE "Other"."a.b" SET _sdc_deleted_at = now() WHERE id = 5; UPDATE "Other"."a.b" SET _sdc_deleted_at = NULL WHERE id = 25`);
    expect((await verifyLine(fresh)).a).toMatchObject({
      outcome: 'different',
      differing: { rows: 3 },
      missing: { rows: 1, keys: [['5']] },
      extra: { rows: 1, keys: [['25']] },
    });
    expect((await verifyLine(fresh, { repair: true })).a).toMatchObject({ outcome: 'repaired', repaired: 5 });
    expect((await verifyLine(fresh)).a).toMatchObject({ outcome: 'equal', rows: 291 });
  });

  test('hidden columns and left out rows', async () => {
    await using fresh = await freshLine(
      { source, target },
      `CREATE TABLE a (id int PRIMARY KEY, secret text, mail text, note text, nothing text, t text);
       INSERT INTO a SELECT n, 's' || n, n || '@b.c', 'n', 'x', 't' FROM generate_series(1, 100) AS n`,
      {
        tables:
          "[{ table: public.a, columns: { exclude: [secret] }, mask: { note: redact, nothing: 'null' }, where: id <= 90 }]",
      },
    );
    await fresh.settle();
    expect((await verifyLine(fresh)).a).toMatchObject({
      outcome: 'equal',
      rows: 90,
      not_compared: [{ column: 'secret', why: 'excluded' }],
    });
    await fresh.to.query(
      `UPDATE a SET note = 'leaked' WHERE id = 1; UPDATE a SET nothing = 'leaked' WHERE id = 2; INSERT INTO a (id) VALUES (95)`,
    );
    expect((await verifyLine(fresh)).a).toMatchObject({
      differing: { rows: 2 },
      extra: { keys: [['95']] },
    });
    expect((await verifyLine(fresh, { repair: true })).a).toMatchObject({ outcome: 'repaired', repaired: 3 });
    const { rows } = await fresh.to.query(
      'SELECT id, mail, note, nothing, t FROM a WHERE id IN (1, 2, 95) ORDER BY id',
    );
    expect(rows).toEqual([1, 2].map((id) => ({ id, mail: `${id}@b.c`, note: '[redacted]', nothing: null, t: 't' })));
    // Under writes that change what is hidden, and that move rows over the filter's border.
    await using writer = writingOn(
      fresh.from,
      (n) =>
        `UPDATE a SET secret = '${n}', note = '${n}', nothing = '${n}' WHERE id % 10 = ${1 + (n % 9)}; UPDATE a SET id = 201 - id WHERE id IN (80, 121)`,
      20,
    );
    await fresh.to.query('DELETE FROM a WHERE id = 10; INSERT INTO a (id) VALUES (99)');
    expect((await verifyLine(fresh)).a).toMatchObject({
      outcome: 'different',
      differing: { rows: 0 },
      missing: { keys: [['10']] },
      extra: { keys: [['99']] },
    });
    await writer.end();
  });

  test('of which no log is read: copies by query hide the same', async () => {
    await using fresh = await freshLine(
      { source, target },
      `CREATE TABLE a (id int PRIMARY KEY, secret text, mail text, note text, n int);
       INSERT INTO a SELECT n, 's' || n, n || '@b.c', 'n', n FROM generate_series(1, 100) AS n; CREATE TABLE i AS TABLE a; ALTER TABLE i ADD PRIMARY KEY (id)`,
      {
        tables: `[{ table: public.a, replication_method: FULL_TABLE, columns: { exclude: [secret] }, mask: { note: redact, mail: hash }, where: id <= 90 },
          { table: public.i, replication_method: INCREMENTAL, replication_key: n, columns: { exclude: [secret] }, mask: { note: 'null', mail: hash }, where: id <= 90 }]`,
      },
    );
    await fresh.settle();
    const hidden = [
      { column: 'secret', why: 'excluded' },
      { column: 'mail', why: 'hashed' },
    ];
    for (const found of Object.values(await verifyLine(fresh, { named: true }))) {
      expect(found).toMatchObject({ outcome: 'equal', rows: 90 });
      expect(found.not_compared).toEqual(expect.arrayContaining(hidden));
    }
    await fresh.to.query(
      ['a', 'i']
        .map((name) => `UPDATE ${name} SET note = 'leaked' WHERE id = 1; INSERT INTO ${name} (id) VALUES (95)`)
        .join(';'),
    );
    for (const found of Object.values(await verifyLine(fresh, { named: true }))) {
      expect(found).toMatchObject({ differing: { keys: [['1']] }, extra: { keys: [['95']] }, missing: { rows: 0 } });
    }
  });

  test('kept after deletion, where the file says so', async () => {
    await using fresh = await freshLine(
      { source, target },
      'CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT n FROM generate_series(1, 50) AS n',
      { target: 'hard_delete: false' },
    );
    await fresh.settle();
    await fresh.from.query('DELETE FROM a WHERE id <= 5');
    await fresh.settle();
    expect((await verifyLine(fresh)).a).toMatchObject({ outcome: 'equal', rows: 45, kept: 5, extra: { rows: 0 } });
    await fresh.to.query('DELETE FROM a WHERE id = 6');
    expect((await verifyLine(fresh)).a).toMatchObject({ outcome: 'different', missing: { keys: [['6']] } });
  });

  test('without a key, as bags of rows', async () => {
    await using fresh = await freshLine(
      { source, target },
      `CREATE TABLE bag (v text, n int); ALTER TABLE bag REPLICA IDENTITY FULL;
       INSERT INTO bag SELECT 'v' || n % 10, n % 10 FROM generate_series(1, 1000) AS n; INSERT INTO bag VALUES (NULL, NULL), ('', 0)`,
      { target: 'primary_key_required: false' },
    );
    await fresh.settle();
    await using writer = writingOn(
      fresh.from,
      (n) => `INSERT INTO bag VALUES ('new', ${n}); DELETE FROM bag WHERE v = 'new' AND n = ${n - 3}`,
      5,
    );
    expect((await verifyLine(fresh)).bag).toMatchObject({
      differing: { rows: 0 },
      missing: { rows: 0 },
      extra: { rows: 0 },
    });
    await fresh.to.query(
      `DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE n = 3 AND v = 'v3' LIMIT 2); INSERT INTO bag VALUES ('v4', 4), ('none', 1)`,
    );
    const { bag } = await verifyLine(fresh, { repair: true });
    expect(bag).toMatchObject({ outcome: 'different', missing: { rows: 2 }, extra: { rows: 2 }, repaired: 0, key: [] });
    expect(bag?.remarks.join(' ')).toContain('--reset');
    await writer.end();
  });
});

describe('between versions', () => {
  const PAIRS = [
    [10, 18],
    [18, 10],
    [14, 12],
  ] as const satisfies (readonly [Major, Major])[];

  test.each(PAIRS.filter((pair) => pair.every((major) => MAJORS_HERE.includes(major))))(
    '%i to %i',
    async (here, there) => {
      await using old = await startPostgres({ version: here });
      await using other = await startPostgres({ version: there });
      // DROP DATABASE … WITH (FORCE) came with 13: the servers' own databases do.
      const [from, to] = [await old.connect(), await other.connect()];
      await from.query(`
      CREATE TABLE floats (id float8 PRIMARY KEY, f float4, fs float8[], p point, c "char", i interval, t timestamptz, num numeric(8, 2));
      INSERT INTO floats SELECT n / 7.0, n / 3.0, ARRAY[n / 11.0::float8, 'NaN', '-Infinity'], point(n / 13.0, 0.1), chr(65 + n % 26)::"char", n * interval '1 h 1 s',
        '1999-12-31Z'::timestamptz - n * interval '1 d', n / 9.0 FROM generate_series(1, 200) AS n;
      INSERT INTO floats VALUES ('NaN', 'NaN'), ('Infinity', '-0')`);
      await using line = await openLine({ source: old, target: other });
      const fresh = { line, from, to };
      await line.settle();
      expect((await verifyLine(fresh)).floats).toMatchObject({ outcome: 'equal', rows: 202, not_compared: [] });
      await to.query(`UPDATE floats SET f = f * 1.0000002 WHERE id = 20; DELETE FROM floats WHERE id = 'NaN'`);
      expect((await verifyLine(fresh, { repair: true })).floats).toMatchObject({
        outcome: 'repaired',
        differing: { rows: 1 },
        missing: { rows: 1, keys: [['NaN']] },
        repaired: 2,
      });
      expect((await verifyLine(fresh)).floats).toMatchObject({ outcome: 'equal' });
      await Promise.all([from.end(), to.end()]);
    },
  );
});

test('hashed columns are not compared; with a hashed key, rows are known by the rest', async () => {
  await using fresh = await freshLine(
    { source, target },
    `CREATE TABLE a (id int PRIMARY KEY, mail text, n int); INSERT INTO a SELECT n, n || '@b.c', n % 7 FROM generate_series(1, 100) AS n;
     CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b SELECT n, n % 7 FROM generate_series(1, 100) AS n`,
    { tables: '[{ table: public.a, mask: { mail: hash } }, { table: public.b, mask: { id: hash } }]' },
  );
  await fresh.settle();
  await fresh.to.query(
    'UPDATE a SET n = -1 WHERE id = 5; UPDATE b SET n = -1 WHERE ctid IN (SELECT ctid FROM b WHERE n = 3 LIMIT 1)',
  );
  const { a, b } = await verifyLine(fresh);
  expect(a).toMatchObject({ differing: { keys: [['5']] }, not_compared: [{ column: 'mail', why: 'hashed' }] });
  expect(b).toMatchObject({
    key: [],
    missing: { rows: 1, keys: [] },
    extra: { rows: 1, keys: [] },
    not_compared: [{ column: 'id', why: 'hashed' }],
  });
  expect(b?.remarks.join()).toContain('Its key is hashed');
});

describe('a repair by a key that is hashed', () => {
  const MADE = `CREATE TABLE b (id text, n int, PRIMARY KEY (id, n)); INSERT INTO b SELECT 'k' || n, n FROM generate_series(1, 20) AS n;
    CREATE TABLE c (id text PRIMARY KEY, n int); INSERT INTO c SELECT 'k' || n, n FROM generate_series(1, 20) AS n`;
  const TABLES = '[{ table: public.b, mask: { id: hash } }, { table: public.c, mask: { id: hash } }]';

  test('is refused, with what to do instead; nothing is asked for, no row is touched', async () => {
    await using fresh = await freshLine({ source, target }, MADE, { tables: TABLES });
    await fresh.settle();
    await fresh.to.query('UPDATE b SET n = -1 WHERE n = 5; DELETE FROM c WHERE n = 5');
    const before = await fresh.to.query('SELECT * FROM b ORDER BY id');
    const found = await verifyLine(fresh, { repair: true });
    for (const name of ['b', 'c'] as const) {
      expect(found[name]).toMatchObject({ outcome: 'different', repaired: 0, key: [] });
      const { stream } = fresh.line.bookmark(`public.${name}`);
      expect(found[name]?.remarks).toContain(
        `The target has only hashes of its key, by which the source knows no row: single rows cannot be brought again. Copy it anew: sluice backfill ${stream} --reset`,
      );
    }
    expect(fresh.line.durable.requests.size).toBe(0);
    expect((await fresh.to.query('SELECT * FROM b ORDER BY id')).rows).toEqual(before.rows);
  });

  test('and one that is asked for all the same is given up, and takes no row away', async () => {
    await using fresh = await freshLine({ source, target }, MADE, { tables: TABLES });
    await fresh.settle();
    const { rows } = await fresh.to.query<{ id: string }>('SELECT id FROM c ORDER BY id');
    const { ledger, log, world, durable } = fresh.line;
    const { stream } = fresh.line.bookmark('public.c');
    const [wanted] = repairOf(
      ['id'],
      rows.map(({ id }) => [id]),
    );
    if (!wanted) throw new Error('nothing to repair');
    const ports = { clock: { now: () => Date.now() }, log, ledger, doorbell: memoryDoorbell(world, durable) };
    await requestEpoch(ports, stream, wanted);
    await fresh.settle();
    expect((await fresh.to.query('SELECT id FROM c ORDER BY id')).rows).toEqual(rows);
    expect(await ledger.epoch(stream, 2)).toMatchObject({
      kind: 'repair',
      state: 'cancelled',
      reason: expect.stringContaining('by a key that the pipeline file hides') as string,
    });
    await fresh.from.query("INSERT INTO c VALUES ('new', 1)");
    await fresh.settle();
    expect((await fresh.to.query('SELECT FROM c')).rowCount).toBe(21);
  });
});

test('between encodings', async () => {
  const admin = await source.connect();
  await admin.query(`CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`);
  await admin.end();
  const [from, to] = [await source.connect('latin'), await target.connect()];
  await from.query(
    `CREATE TABLE words (id text COLLATE "C" PRIMARY KEY, w text); INSERT INTO words SELECT 'é' || n, 'ÄÖÜß' || n FROM generate_series(1, 100) AS n`,
  );
  await using line = await openLine({ source: { ...source, database: 'latin' }, target, pipeline: 'latin' });
  await line.settle();
  expect((await verifyLine({ line, from, to })).words).toMatchObject({ outcome: 'equal', rows: 100 });
  await to.query(`UPDATE words SET w = 'AOUß5' WHERE id = 'é5'`);
  expect((await verifyLine({ line, from, to }, { repair: true })).words).toMatchObject({
    outcome: 'repaired',
    differing: { keys: [['é5']] },
  });
  await Promise.all([from.end(), to.end()]);
});

describe('tables that are read by query', () => {
  test('are compared when they are named, as of their last run', async () => {
    await using fresh = await freshLine(
      { source, target },
      'CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a SELECT n, n FROM generate_series(1, 100) AS n; CREATE TABLE b (id int PRIMARY KEY)',
      { tables: '[public.b, { table: public.a, replication_method: FULL_TABLE }]' },
    );
    await fresh.settle();
    expect((await verifyLine(fresh)).a).toMatchObject({
      outcome: 'skipped',
      remarks: [expect.stringContaining('FULL_TABLE')],
    });
    expect((await verifyLine(fresh, { named: true, tables: ['a'] })).a).toMatchObject({ outcome: 'equal', rows: 100 });
    await fresh.to.query('UPDATE a SET n = 0 WHERE id = 5');
    const { a } = await verifyLine(fresh, { named: true, tables: ['a'], repair: true });
    expect(a).toMatchObject({ outcome: 'different', differing: { keys: [['5']] }, repaired: 0 });
  });
});

test('a stream that is halted, or has no table any more, says so, and hides no other', async () => {
  await using fresh = await freshLine(
    { source, target },
    'CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1)',
  );
  await fresh.settle();
  const a = fresh.line.bookmark('public.a');
  const halt = {
    code: 'TABLE_DROPPED',
    message: 'It is gone.',
    remedy: 'Wait.',
    cut: null,
    at_ms: 0,
    must_reset: false,
  };
  fresh.line.durable.bookmarks.set(a.stream, { ...a, halt });
  await fresh.to.query('DROP TABLE b');
  const found = await verifyLine(fresh);
  expect(found.a).toMatchObject({
    outcome: 'failed',
    remarks: [expect.stringContaining('TABLE_DROPPED: It is gone. Wait.')],
  });
  expect(found.b).toMatchObject({ outcome: 'failed', error: { code: expect.any(String) as string } });
  expect(found.c).toMatchObject({ outcome: 'equal', rows: 1 });
});

test('a repair by keys that the source cannot have is given up, and the stream goes on', async () => {
  await using fresh = await freshLine(
    { source, target },
    "CREATE TYPE size AS ENUM ('s', 'm'); CREATE TABLE a (id size PRIMARY KEY, n int); INSERT INTO a VALUES ('s', 1), ('m', 2)",
    { target: 'hard_delete: true, custom_types: text' },
  );
  await fresh.settle();
  await fresh.to.query("INSERT INTO a (id, n) VALUES ('by hand', 3)");
  const { a } = await verifyLine(fresh, { repair: true });
  expect(a).toMatchObject({ outcome: 'different', extra: { rows: 1, keys: [['by hand']] }, repaired: 0 });
  expect(fresh.line.bookmark('public.a')).toMatchObject({ state: 'live', halt: null, given_up: { kind: 'repair' } });
  await fresh.from.query('UPDATE a SET n = 5');
  await fresh.settle();
  expect((await fresh.to.query("SELECT n FROM a WHERE id <> 'by hand'")).rows).toEqual([{ n: 5 }, { n: 5 }]);
});

test('a stream that halts after its repair has not been compared to the end', async () => {
  await using fresh = await freshLine(
    { source, target },
    'CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a SELECT n, n FROM generate_series(1, 20) AS n; CREATE TABLE busy (id int PRIMARY KEY)',
  );
  await fresh.settle();
  await fresh.to.query('UPDATE a SET n = 0 WHERE id = 5');
  await using _ = writingOn(fresh.from, (n) => `INSERT INTO busy VALUES (${n})`);
  const isMended = async (): Promise<boolean> => {
    const { rowCount } = await fresh.to.query('SELECT FROM a WHERE id = 5 AND n = 5');
    return rowCount === 1 && fresh.line.bookmark('public.a').state === 'live' && fresh.line.durable.requests.size === 0;
  };
  const { a } = await verifyLine(fresh, {
    tables: ['a'],
    repair: true,
    onAdvance: async () => {
      if (!(await isMended())) return;
      const halt = { code: 'X', message: 'Halted.', remedy: 'Wait.', cut: null, at_ms: 0, must_reset: false };
      const now = fresh.line.bookmark('public.a');
      fresh.line.durable.bookmarks.set(now.stream, { ...now, halt });
    },
  });
  expect(a).toMatchObject({ outcome: 'failed', differing: { rows: 1 }, repaired: 0, undecided: { rows: 1 } });
});
