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
  postgresExtractor({ connect: connectTo(server), connectReplication: connectTo(server), publications: [] }).table({
    schema,
    table,
  });

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
      { name: 'Z last', type_oid: 23, type_modifier: -1, not_null: false, number: 1 },
      { name: 'a', type_oid: 1700, type_modifier: 655366, not_null: true, number: 3 },
      { name: 'quo"te', type_oid: 1015, type_modifier: 11, not_null: false, number: 5 },
      { name: 's', type_oid: 23, type_modifier: -1, not_null: true, number: 6 },
      { name: 'été', type_oid: 1184, type_modifier: -1, not_null: false, number: 7 },
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
      'NOTHING: none, whatever the primary key: the log does not tell it',
      `CREATE TABLE keyed (${columns}, PRIMARY KEY (a)); ALTER TABLE keyed REPLICA IDENTITY NOTHING`,
      [],
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

describe('partitioned tables', () => {
  test('what is below one, at any depth, and what each partition belongs to; its size is theirs', async () => {
    await admin.query(`
      CREATE SCHEMA tree;
      CREATE TABLE tree.root (id int PRIMARY KEY, t text) PARTITION BY RANGE (id);
      CREATE TABLE tree.leaf PARTITION OF tree.root FOR VALUES FROM (0) TO (100000);
      CREATE TABLE tree.sub PARTITION OF tree.root FOR VALUES FROM (100000) TO (200000) PARTITION BY RANGE (id);
      CREATE TABLE tree.deep PARTITION OF tree.sub FOR VALUES FROM (100000) TO (200000);
      CREATE TABLE tree.bare (id int) PARTITION BY RANGE (id);
      INSERT INTO tree.root SELECT i, 'row' FROM generate_series(90001, 110000) i; ANALYZE tree.leaf; ANALYZE tree.deep`);
    const [bare, deep, leaf, root, sub] = (await readAll()).filter(({ schema }) => schema === 'tree');
    const below = (table?: SourceTable) => table?.partitions?.map(({ oid }) => oid);
    expect(below(root)).toEqual([leaf?.oid, sub?.oid, deep?.oid]);
    expect(below(sub)).toEqual([deep?.oid]);
    expect([below(bare), below(leaf)]).toEqual([[], undefined]);
    expect([root, leaf, sub, deep].map((table) => table?.partition_of)).toEqual([
      undefined,
      [root?.oid],
      [root?.oid],
      [sub?.oid, root?.oid],
    ]);
    expect(root).toMatchObject({ rows_estimate: 20_000, toasted: true, key: ['id'] });
    expect(root?.pages).toBe((leaf?.pages ?? 0) + (deep?.pages ?? 0));
    const now = await readOne('tree', 'root');
    expect(now).toMatchObject({ rows_estimate: 20_000, toasted: false });
    expect(now?.partitions).toEqual(root?.partitions);
  });

  test('a mark changes with the rows and with the place of a partition, and with nothing else', async () => {
    const marks = async () =>
      new Map(
        (await readAll())
          .find(({ schema, table }) => schema === 'tree' && table === 'root')
          ?.partitions?.map((p) => [p.oid, p.mark]),
      );
    const leaf = (await readAll()).find(({ schema, table }) => schema === 'tree' && table === 'leaf')?.oid ?? 0;
    const before = await marks();
    await admin.query(`
      DELETE FROM tree.root WHERE id < 90100; INSERT INTO tree.root VALUES (1, 'x'); ANALYZE tree.root;
      ALTER TABLE tree.leaf SET (fillfactor = 90); ALTER TABLE tree.leaf RENAME TO leaf_2; CREATE INDEX ON tree.root (t)`);
    await admin.query('VACUUM (FREEZE) tree.leaf_2');
    expect(await marks()).toEqual(before);
    await admin.query('TRUNCATE tree.leaf_2');
    const truncated = await marks();
    expect([...truncated].filter(([oid, mark]) => before.get(oid) !== mark).map(([oid]) => oid)).toEqual([leaf]);
    await admin.query(
      'ALTER TABLE tree.root DETACH PARTITION tree.leaf_2; ALTER TABLE tree.root ATTACH PARTITION tree.leaf_2 FOR VALUES FROM (0) TO (100000)',
    );
    expect((await marks()).get(leaf)).not.toBe(truncated.get(leaf));
  });

  test('which ones may have had rows before they were partitions', async () => {
    await admin.query(`
      CREATE SCHEMA filled; GRANT USAGE ON SCHEMA filled TO ${ROLE_SQL};
      CREATE TABLE filled.root (id int NOT NULL, n int NOT NULL DEFAULT 1, t text) PARTITION BY RANGE (id);
      CREATE TABLE filled.made PARTITION OF filled.root FOR VALUES FROM (0) TO (10);
      CREATE TABLE filled.empty (LIKE filled.root); ALTER TABLE filled.root ATTACH PARTITION filled.empty FOR VALUES FROM (10) TO (20);
      BEGIN; CREATE TABLE filled.one_go (LIKE filled.root); INSERT INTO filled.one_go VALUES (25, 1);
      ALTER TABLE filled.root ATTACH PARTITION filled.one_go FOR VALUES FROM (20) TO (30); COMMIT;
      CREATE TABLE filled.attached (LIKE filled.root); INSERT INTO filled.attached VALUES (35, 1);
      ALTER TABLE filled.root ATTACH PARTITION filled.attached FOR VALUES FROM (30) TO (40);
      CREATE TABLE filled.back PARTITION OF filled.root FOR VALUES FROM (40) TO (50); INSERT INTO filled.root VALUES (1), (45);
      ALTER TABLE filled.root DETACH PARTITION filled.back; ALTER TABLE filled.root ATTACH PARTITION filled.back FOR VALUES FROM (40) TO (50);
      DO $$ BEGIN
        BEGIN EXECUTE 'CREATE TABLE filled.nested PARTITION OF filled.root FOR VALUES FROM (50) TO (60)'; EXCEPTION WHEN others THEN RAISE; END;
        INSERT INTO filled.root VALUES (55);
      END $$;
      CREATE TABLE filled.required (a int NOT NULL, b int NOT NULL, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
      CREATE TABLE filled.required_1 PARTITION OF filled.required DEFAULT; INSERT INTO filled.required VALUES (1, 1)`);
    const tables = (await readAll()).filter(({ schema, kind }) => schema === 'filled' && kind === 'r');
    const source = postgresSource({
      connect: connectTo(server),
      openSlot: () => Promise.reject(new Error('not read here')),
      config,
    });
    const found = new Set(await source.filledBefore(tables.map(({ oid }) => oid)));
    expect(tables.filter(({ oid }) => found.has(oid)).map(({ table }) => table)).toEqual([
      'attached',
      'back',
      'one_go',
    ]);
  });
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
