/** The catalog as planning needs it: names, columns, keys, rights, row security and estimates, read by a plain role; and how fast. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { postgresExtractor } from '../../lib/epoch/extractor.ts';
import type { SourceTable } from '../../lib/ports.ts';
import { postgresSource } from '../../lib/slot/source.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { connectTo, makeRole, ROLE_SQL } from '../support/source-role.ts';

let server: TestPostgres;
let admin: pg.Client;
beforeAll(async () => {
  server = await startPostgres();
  admin = await server.connect();
  await makeRole(server);
});
afterAll(async () => {
  await admin.end();
  await server.stop();
});

const config = { database: 'postgres', replication_slot: 's', publication_name: 'p' };
const readAll = () =>
  postgresSource({
    connect: connectTo(server),
    openSlot: () => Promise.reject(new Error('not read here')),
    config,
  }).tables();
const readOne = (schema: string, table: string) =>
  postgresExtractor({ connect: connectTo(server) }).table({ schema, table });

async function tableNamed(name: string): Promise<SourceTable | undefined> {
  return (await readAll()).find((table) => table.table === name);
}

describe('what there is', () => {
  test('every kind, outside the schemas of the system and of Sluice', async () => {
    await admin.query(`
      CREATE SCHEMA _sluice; CREATE TABLE _sluice.streams (id int PRIMARY KEY);
      CREATE TEMP TABLE temporary (id int);
      CREATE SCHEMA kinds;
      CREATE TABLE kinds.r (id int PRIMARY KEY);
      CREATE UNLOGGED TABLE kinds.u (id int PRIMARY KEY);
      CREATE TABLE kinds.p (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE kinds.p1 PARTITION OF kinds.p FOR VALUES FROM (0) TO (10);
      CREATE VIEW kinds.v AS SELECT 1 AS id;
      CREATE MATERIALIZED VIEW kinds.m AS SELECT 1 AS id;
      CREATE SEQUENCE kinds.s; CREATE TYPE kinds.c AS (a int);
      CREATE FOREIGN DATA WRAPPER w; CREATE SERVER f FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE kinds.f (id int) SERVER f`);
    const tables = await readAll();
    expect(tables.filter((table) => table.schema === 'kinds').map((t) => [t.table, t.kind, t.persistence])).toEqual([
      ['f', 'f', 'p'],
      ['m', 'm', 'p'],
      ['p', 'p', 'p'],
      ['p1', 'r', 'p'],
      ['r', 'r', 'p'],
      ['u', 'r', 'u'],
      ['v', 'v', 'p'],
    ]);
    expect(new Set(tables.map((table) => table.schema))).toEqual(new Set(['kinds']));
  });

  test('columns in their order, without dropped and generated ones', async () => {
    await admin.query(`
      CREATE TABLE "Cols" ("Z last" int, gone int, a numeric(10,2) NOT NULL, twice int GENERATED ALWAYS AS (1) STORED,
        "quo""te" varchar(7)[], s serial PRIMARY KEY);
      ALTER TABLE "Cols" DROP COLUMN gone; ALTER TABLE "Cols" ADD COLUMN "été" timestamptz`);
    const { columns } = (await tableNamed('Cols')) as SourceTable;
    expect(columns).toEqual([
      { name: 'Z last', type_oid: 23, type_modifier: -1, not_null: false },
      { name: 'a', type_oid: 1700, type_modifier: 655366, not_null: true },
      { name: 'quo"te', type_oid: 1015, type_modifier: 11, not_null: false },
      { name: 's', type_oid: 23, type_modifier: -1, not_null: true },
      { name: 'été', type_oid: 1184, type_modifier: -1, not_null: false },
    ]);
  });

  test('a table that is asked for by name is the same; one that is not there is null', async () => {
    const { schema, table, oid, columns, key } = (await tableNamed('Cols')) as SourceTable;
    expect(await readOne('public', 'Cols')).toMatchObject({ schema, table, oid, columns, key });
    expect(await readOne('public', 'cols')).toBeNull();
    expect(await readOne('pg_catalog', 'pg_class')).toBeNull();
  });
});

describe('the key', () => {
  const key = async (ddl: string): Promise<readonly string[] | undefined> => {
    await admin.query(`DROP TABLE IF EXISTS keyed; ${ddl}`);
    return (await tableNamed('keyed'))?.key;
  };
  const columns = 'a int NOT NULL, b int NOT NULL, "C c" int NOT NULL, n int';
  test.each([
    ['none', `CREATE TABLE keyed (${columns})`, []],
    ['primary key, in the order of the index', `CREATE TABLE keyed (${columns}, PRIMARY KEY ("C c", a))`, ['C c', 'a']],
    ['without its included columns', `CREATE TABLE keyed (${columns}, PRIMARY KEY (b) INCLUDE (n))`, ['b']],
    ['a unique index alone is none', `CREATE TABLE keyed (${columns}, UNIQUE (a))`, []],
    [
      'the replica identity index goes before the primary key',
      `CREATE TABLE keyed (${columns}, PRIMARY KEY (a)); CREATE UNIQUE INDEX other ON keyed (b, a); ALTER TABLE keyed REPLICA IDENTITY USING INDEX other`,
      ['b', 'a'],
    ],
    [
      'FULL: the primary key',
      `CREATE TABLE keyed (${columns}, PRIMARY KEY (a)); ALTER TABLE keyed REPLICA IDENTITY FULL`,
      ['a'],
    ],
    [
      'NOTHING: the primary key, and the fault is another',
      `CREATE TABLE keyed (${columns}, PRIMARY KEY (a)); ALTER TABLE keyed REPLICA IDENTITY NOTHING`,
      ['a'],
    ],
    ['a deferrable key is none', `CREATE TABLE keyed (${columns}, PRIMARY KEY (a) DEFERRABLE)`, []],
    [
      'a replica identity index that was dropped leaves none',
      `CREATE TABLE keyed (${columns}, PRIMARY KEY (a)); CREATE UNIQUE INDEX other ON keyed (b); ALTER TABLE keyed REPLICA IDENTITY USING INDEX other; DROP INDEX other`,
      [],
    ],
    [
      'a generated column is named',
      'CREATE TABLE keyed (a int, g int GENERATED ALWAYS AS (a) STORED PRIMARY KEY)',
      ['g'],
    ],
  ])('%s', async (_, ddl, expected) => expect(await key(ddl)).toEqual(expected));
});

describe('rights', () => {
  test('SELECT on the whole table and USAGE on its schema are needed', async () => {
    await admin.query(`
      CREATE SCHEMA closed; CREATE SCHEMA open; GRANT USAGE ON SCHEMA open TO ${ROLE_SQL};
      CREATE TABLE closed.granted (id int); GRANT SELECT ON closed.granted TO ${ROLE_SQL};
      CREATE TABLE open.granted (id int); GRANT SELECT ON open.granted TO ${ROLE_SQL};
      CREATE TABLE open.none (id int);
      CREATE TABLE open.column_only (id int, secret int); GRANT SELECT (id) ON open.column_only TO ${ROLE_SQL}`);
    const readable = (await readAll())
      .filter((table) => table.may_select)
      .map((table) => `${table.schema}.${table.table}`);
    expect(readable).toEqual(['open.granted']);
  });

  test('row security counts where it applies to the role', async () => {
    await admin.query(`
      CREATE TABLE policed (id int PRIMARY KEY); ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
      CREATE TABLE owned (id int PRIMARY KEY); ALTER TABLE owned ENABLE ROW LEVEL SECURITY; ALTER TABLE owned OWNER TO ${ROLE_SQL};
      CREATE TABLE forced (id int PRIMARY KEY); ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
      ALTER TABLE forced OWNER TO ${ROLE_SQL}`);
    const policed = async () => (await readAll()).filter((table) => table.row_security).map((table) => table.table);
    expect(await policed()).toEqual(['forced', 'policed']);
    await admin.query(`ALTER ROLE ${ROLE_SQL} BYPASSRLS`);
    expect(await policed()).toEqual([]);
    await admin.query(`ALTER ROLE ${ROLE_SQL} NOBYPASSRLS`);
  });
});

describe('size', () => {
  test('estimates as the last ANALYZE left them; one table as it is now', async () => {
    await admin.query(
      "CREATE TABLE sized WITH (autovacuum_enabled = off) AS SELECT i, 'row ' || i AS t FROM generate_series(1, 10000) i",
    );
    expect(await tableNamed('sized')).toMatchObject({ rows_estimate: -1, pages: 0 });
    expect(await readOne('public', 'sized')).toMatchObject({ rows_estimate: -1, pages: expect.closeTo(56, -1) });
    await admin.query('ANALYZE sized');
    expect(await tableNamed('sized')).toMatchObject({ rows_estimate: 10_000, pages: expect.closeTo(56, -1) });
    await admin.query("INSERT INTO sized SELECT i, 'row ' || i FROM generate_series(1, 10000) i");
    const now = await readOne('public', 'sized');
    expect(now?.rows_estimate).toBeGreaterThan(18_000);
    expect(now?.rows_estimate).toBeLessThan(22_000);
  });

  test('a table has TOAST when a value lies outside its row, and cannot have it when all are short', async () => {
    await admin.query(
      'CREATE TABLE wide (id int PRIMARY KEY, t text); CREATE TABLE narrow (id int PRIMARY KEY, t varchar(10))',
    );
    expect(await readOne('public', 'narrow')).toMatchObject({ toasted: false });
    expect(await readOne('public', 'wide')).toMatchObject({ toasted: false });
    expect(await tableNamed('narrow')).toMatchObject({ toasted: false });
    expect(await tableNamed('wide')).toMatchObject({ toasted: true });
    await admin.query(`INSERT INTO wide SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 500) i`);
    expect(await readOne('public', 'wide')).toMatchObject({ toasted: true });
  });

  test('2,000 tables are listed in under two seconds, without a lock on any of them', async () => {
    const create = (from: number, to: number) => `DO $$ BEGIN FOR i IN ${from}..${to} LOOP
      EXECUTE format('CREATE TABLE many.%I (id int PRIMARY KEY, a int, b int8, c date, d timestamptz)', 'Table ' || i);
      END LOOP; END $$`;
    await admin.query('CREATE SCHEMA many');
    // In parts, each with locks for its own tables only.
    for (let from = 1; from <= 2_000; from += 500) await admin.query(create(from, from + 499));
    await admin.query('BEGIN; LOCK TABLE many."Table 1" IN ACCESS EXCLUSIVE MODE');
    const started = performance.now();
    const tables = await readAll();
    const elapsed_ms = performance.now() - started;
    await admin.query('ROLLBACK');
    expect(
      tables.filter((table) => table.schema === 'many' && table.key.length === 1 && table.columns.length === 5),
    ).toHaveLength(2_000);
    expect(elapsed_ms).toBeLessThan(2_000);
  });
});
