/**
 * What other tools for this job are known to get wrong, each as a test of the whole line between two real servers: first sync, then the same by the log.
 *
 * Values of every type are test/pg/value-roundtrip.test.ts's; here is one case of each known fault, so that none comes back.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestResync } from '../../lib/operate.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source?.stop(), target?.stop()]);
});

const both = (sql: string, config: Parameters<typeof freshLine>[2] = {}): Promise<FreshLine> =>
  freshLine({ source, target }, sql, config);

describe('values', () => {
  // Each by the first sync, then by the log as insert, update, change of key and deletion.
  const CASES: Record<string, { type: string; values: readonly string[] }> = {
    'newlines, tabs and backslashes are mangled': {
      type: 'text',
      values: ["E'a\\tb'", "E'a\\nb'", "E'a\\r\\nb'", "E'\\\\.'", "E'\\\\N'", "E'a\\\\tb'", "'a,b\"c'"],
    },
    'the empty string becomes NULL': { type: 'text', values: ["''", 'NULL', "' '"] },
    'numeric becomes a double': {
      type: 'numeric',
      values: ['12345678901234567890.123456789012345678', '1.10', '0.1', "'NaN'", "'-Infinity'", '1e100'],
    },
    'timestamptz loses its offset, or its microseconds': {
      type: 'timestamptz',
      values: ["'2024-03-10 01:59:59.999999-08'", "'2024-01-01 00:00:00.000001+05:45'", "'0001-01-01 00:00:00+00'"],
    },
    'bytea is dropped': { type: 'bytea', values: ["'\\x00ff5c0a09'", "'\\x'"] },
    'ranges are dropped': { type: 'int8range', values: ["'[1,5)'", "'empty'", "'(,)'"] },
    'interval is dropped': { type: 'interval', values: ["'1 year -2 days 03:04:05.000006'", "'-178000000 years'"] },
    'xml is dropped': { type: 'xml', values: ['\'<a b="c">&amp;\n</a>\''] },
    'BC, infinite and year-10000 dates': {
      type: 'date',
      values: ["'0044-03-15 BC'", "'infinity'", "'-infinity'", "'10000-01-01'", "'5874897-12-31'"],
    },
    '24:00:00': { type: 'time', values: ["'24:00:00'", "'00:00:00'"] },
    'NaN and infinities': { type: 'float8', values: ["'NaN'", "'Infinity'", "'-0'", '5e-324', '0.1'] },
    'numbers are rewritten to six digits': { type: 'float8', values: ['12345678', '1234567.125', '1e23'] },
    'arrays of several dimensions, and their bounds': {
      type: 'int4[]',
      values: ["'{{1,2},{3,NULL}}'", "'[0:1]={7,8}'", "'{}'", "'[-1:0][2:3]={{1,2},{3,4}}'"],
    },
    'NULL arrays become empty ones': { type: 'text[]', values: ['NULL', "'{}'", "'{NULL}'", '\'{"NULL",""}\''] },
    'json keys are lost or put in order': {
      type: 'json',
      values: ['\'{"b": 1, "a": 1.50, "b": 2,  "c": 12345678901234567890}\'', "'[]'"],
    },
  };

  test('of every known fault', async () => {
    const names = Object.keys(CASES);
    const tables = names.map((_, i) => {
      const { type, values } = Object.values(CASES)[i] as (typeof CASES)[string];
      const rows = values.map((value, n) => `(${n}, ${value}, 0)`).join(', ');
      return `CREATE TABLE case_${i} (id int4 PRIMARY KEY, v ${type}, n int4); INSERT INTO case_${i} VALUES ${rows};`;
    });
    await using made = await both(tables.join('\n'));
    await made.equal();
    for (const i of names.keys()) {
      await made.from.query(`
        INSERT INTO case_${i} SELECT id + 100, v, n FROM case_${i};
        UPDATE case_${i} SET n = n + 1 WHERE id < 100;
        UPDATE case_${i} SET id = id + 1000 WHERE id % 2 = 0;
        DELETE FROM case_${i} WHERE id = 101`);
    }
    await made.equal();
  });
});

describe('keys and rows', () => {
  test('composite keys that are joined by commas collide', async () => {
    await using made = await both(`CREATE TABLE t (a text, b text, v int4, PRIMARY KEY (a, b));
      INSERT INTO t VALUES ('x,y', 'z', 1), ('x', 'y,z', 2), ('', ',', 3), (',', '', 4)`);
    await made.equal();
    await made.from.query(
      `UPDATE t SET v = v * 10; DELETE FROM t WHERE a = 'x,y'; INSERT INTO t VALUES ('x,y,z', '', 5)`,
    );
    await made.equal();
  });

  test('an unchanged value that lies outside its row is written as NULL', async () => {
    const big = `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i)`;
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY, n int4, big text);
      ALTER TABLE t ALTER big SET STORAGE EXTERNAL; INSERT INTO t VALUES (1, 1, ${big}), (2, 2, ${big})`);
    await made.equal();
    await made.from.query('UPDATE t SET n = 7');
    await made.from.query('UPDATE t SET id = 3 WHERE id = 2');
    await made.equal();
    await made.from.query('ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 8');
    await made.equal();
    expect((await made.to.query('SELECT min(length(big)) AS length FROM t')).rows).toEqual([{ length: 6400 }]);
  });

  test('a soft deletion blanks the row', async () => {
    await using made = await both(
      `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'last'), (2, 'kept')`,
      { target: 'hard_delete: false, add_metadata_columns: true' },
    );
    await made.settle();
    await made.from.query('DELETE FROM t WHERE id = 1');
    await made.settle();
    const rows = await made.to.query('SELECT id, v, _sdc_deleted_at IS NOT NULL AS deleted FROM t ORDER BY id');
    expect(rows.rows).toEqual([
      { id: 1, v: 'last', deleted: true },
      { id: 2, v: 'kept', deleted: false },
    ]);
  });

  test('a change of key leaves the old row', async () => {
    await using made = await both(
      `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')`,
    );
    await made.equal();
    await made.from.query('UPDATE t SET id = id + 10');
    await made.from.query(
      'BEGIN; UPDATE t SET id = 0 WHERE id = 11; UPDATE t SET id = 11 WHERE id = 12; UPDATE t SET id = 12 WHERE id = 0; COMMIT',
    );
    await made.equal();
  });

  test('TRUNCATE is ignored', async () => {
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 9);
      CREATE TABLE child (id int4 PRIMARY KEY, t int4 REFERENCES t); INSERT INTO child VALUES (1, 1)`);
    await made.equal();
    await made.from.query('INSERT INTO t VALUES (10); TRUNCATE t CASCADE; INSERT INTO t VALUES (11)');
    await made.equal();
  });
});

describe('types that others drop', () => {
  test('domains, composites, enums', async () => {
    await using made = await both(`CREATE DOMAIN price AS numeric(8,2) CHECK (VALUE > 0);
      CREATE TYPE pair AS (a int4, b text); CREATE TYPE mood AS ENUM ('calm', 'glad');
      CREATE TABLE t (id int4 PRIMARY KEY, p price, c pair, m mood, ms mood[]);
      INSERT INTO t VALUES (1, 1.5, (1, 'a,b'), 'glad', '{calm,NULL}')`);
    await made.equal();
    await made.from.query(`UPDATE t SET c = (2, NULL), m = 'calm'`);
    await made.equal();
    const { rows } = await made.to.query<{ types: string[] }>(
      `SELECT array_agg(format_type(atttypid, atttypmod) ORDER BY attname)::text[] AS types FROM pg_attribute
        WHERE attrelid = 't'::regclass AND attname IN ('p', 'c', 'm', 'ms')`,
    );
    expect(rows[0]?.types).toEqual(['pair', 'mood', 'mood[]', 'price']);
  });

  test('generated columns, which the log does not carry', async () => {
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY, n int4,
        doubled int4 GENERATED ALWAYS AS (n * 2) STORED, shown text GENERATED ALWAYS AS ('n is ' || n::text) VIRTUAL);
      INSERT INTO t VALUES (1, 1), (2, NULL)`);
    await made.equal();
    await made.from.query('UPDATE t SET n = 5; INSERT INTO t VALUES (3, 3)');
    await made.equal();
  });

  test('a generated column under REPLICA IDENTITY FULL, where the source would refuse its own updates', async () => {
    await using made =
      await both(`CREATE TABLE t (id int4 PRIMARY KEY, n int4, doubled int4 GENERATED ALWAYS AS (n * 2) STORED);
      ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 1), (2, 2)`);
    await made.equal();
    await made.from.query('UPDATE t SET n = 5 WHERE id = 1; DELETE FROM t WHERE id = 2');
    await made.equal();
  });
});

describe('names', () => {
  const LONG = 'x'.repeat(63);
  const NAMES = [
    'a.b',
    'with-dash',
    'Upper',
    'upper',
    'select',
    'with "quotes"',
    'with space',
    'ünïcödé 表',
    LONG,
    "it's",
    '%s',
  ];

  test('with quotes, dots, dashes, capitals, of 63 bytes, in any script, and two that differ in case only', async () => {
    const quoted = NAMES.map((name) => `"${name.replaceAll('"', '""')}"`);
    const columns = quoted.map((name) => `${name} text`).join(', ');
    await using made = await both(
      quoted.map((name) => `CREATE TABLE ${name} (id int4, ${columns}, PRIMARY KEY (id, "Upper"))`).join(';'),
    );
    const fill = quoted.map(
      (name) => `INSERT INTO ${name} SELECT i${", 'v' || i".repeat(NAMES.length)} FROM generate_series(1, 3) i`,
    );
    await made.from.query(fill.join(';'));
    await made.equal();
    await made.from.query(
      quoted
        .map((name) => `UPDATE ${name} SET "upper" = 'new', "Upper" = 'key'; DELETE FROM ${name} WHERE id = 2`)
        .join(';'),
    );
    await made.equal();
  });
});

describe('positions', () => {
  test('"no data" is not "caught up": a source that decodes what is not ours is waited for', async () => {
    await using made = await both(
      `CREATE TABLE t (id int4 PRIMARY KEY); CREATE UNLOGGED TABLE u (id int4); CREATE TABLE other (id int4)`,
      {
        tables: '[public.t]',
        source: 'logical_poll_total_seconds: 1',
      },
    );
    await made.settle();
    // Far more of the log than a second decodes at leisure, none of it ours; then one row of ours, after it.
    await made.from.query('INSERT INTO other SELECT generate_series(1, 400000)');
    await made.from.query('INSERT INTO t VALUES (1)');
    await made.settle();
    expect((await made.to.query('SELECT id FROM t')).rows).toEqual([{ id: 1 }]);
  });

  test('a slot that was made anew is taken for the old one', async () => {
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t VALUES (1)`);
    await made.settle();
    const { replication_slot: slot } = made.line.pipeline.source;
    await made.from.query('SELECT pg_drop_replication_slot($1)', [slot]);
    await made.from.query('INSERT INTO t VALUES (2)');
    await made.from.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
    await expect(made.settle()).rejects.toThrow(/SLOT_/);
  });

  test('a publication that was made after the slot does not exist for it', async () => {
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t VALUES (1)`, {
      source: 'create_slot: false',
    });
    const { replication_slot: slot } = made.line.pipeline.source;
    await made.from.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
    await made.from.query('INSERT INTO t VALUES (2)');
    await made.equal();
    await made.from.query('INSERT INTO t VALUES (3)');
    await made.equal();
  });

  test('a slot that is invalidated for having been idle is missed', async () => {
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY)`);
    await made.settle();
    const { replication_slot: slot } = made.line.pipeline.source;
    await made.from.query(`ALTER SYSTEM SET idle_replication_slot_timeout = '1s'`);
    await made.from.query('SELECT pg_reload_conf()');
    const state = async (): Promise<unknown> => {
      await made.from.query('CHECKPOINT');
      const { rows } = await made.from.query(
        'SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = $1',
        [slot],
      );
      return rows[0];
    };
    await expect.poll(state, { timeout: 20_000, interval: 500 }).toEqual({ invalidation_reason: 'idle_timeout' });
    await made.from.query('ALTER SYSTEM RESET idle_replication_slot_timeout');
    await made.from.query('SELECT pg_reload_conf()');
    await expect(made.settle()).rejects.toThrow(/SLOT_LOST/);
    await made.from.query('INSERT INTO t VALUES (1)');
    await requestResync({ ledger: made.line.ledger, log: made.line.log });
    await made.equal();
  });

  test('an idle source holds a run for hours', async () => {
    await using made = await both(`CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t VALUES (1)`);
    await made.settle();
    await made.from.query('CREATE TABLE not_ours (id int4)');
    const began_ms = performance.now();
    await made.line.window();
    expect(performance.now() - began_ms).toBeLessThan(10_000);
  });
});

describe('a copy', () => {
  test('that is broken off goes on by text and skips rows', async () => {
    // In the order of this collation they stand otherwise than by their bytes.
    await using made = await both(`CREATE TABLE t (id text COLLATE "und-x-icu" PRIMARY KEY, v int4);
      INSERT INTO t SELECT w || i, i FROM unnest(ARRAY['a', 'B', 'ä', '_', 'Z', 'é', '10', '9']) w, generate_series(1, 200) i`);
    const { world } = made.line;
    for (const calls of [3, 6, 9, 12, 15]) {
      world.crashAt = world.changes + calls;
      await made.settle().catch(() => undefined);
      if (world.isDead) made.line.restart();
      await made.from.query(`UPDATE t SET v = v + 1 WHERE id LIKE 'B%'`);
    }
    world.crashAt = 0;
    await made.equal();
  });
});

describe('rights', () => {
  test('row-level security hides rows from the role that copies', async () => {
    const admin = await source.connect();
    await admin.query(`CREATE ROLE copier LOGIN REPLICATION PASSWORD 'c'`);
    await admin.end();
    await using made = await both(
      `CREATE TABLE t (id int4 PRIMARY KEY); INSERT INTO t VALUES (1), (2); GRANT SELECT ON t TO copier;
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY odd ON t USING (id = 1)`,
      { tables: '[public.t]', role: { user: 'copier', password: 'c' } },
    );
    await expect(made.settle()).rejects.toThrow('TABLE_ROW_SECURITY');
  });
});
