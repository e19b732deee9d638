/**
 * Options that decide names and places, from one real server to another: what is made goes by them, and by the most particular of them.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshLine } from '../support/fresh-line.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const at = ({ host, port, user, password }: TestPostgres, database: string) => ({
  host,
  port,
  user,
  password,
  database,
});

/** Each a row of `schema.table`. */
async function tablesIn(server: TestPostgres, database: string): Promise<string[]> {
  const client = await server.connect(database);
  try {
    const { rows } = await client.query<{ name: string }>(
      `SELECT schemaname || '.' || tablename AS name FROM pg_tables
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema', '_sluice') ORDER BY 1`,
    );
    return rows.map(({ name }) => name);
  } finally {
    await client.end();
  }
}

test('target_table, target_schema, schema_mapping, default_target_schema: the most particular says where a table goes', async () => {
  await using run = await freshLine(
    { source, target },
    `CREATE SCHEMA sales; CREATE SCHEMA crm;
     CREATE TABLE public.named (id int PRIMARY KEY); CREATE TABLE sales.placed (id int PRIMARY KEY);
     CREATE TABLE sales.mapped (id int PRIMARY KEY); CREATE TABLE crm.other (id int PRIMARY KEY);
     INSERT INTO public.named VALUES (1); INSERT INTO sales.placed VALUES (2); INSERT INTO sales.mapped VALUES (3); INSERT INTO crm.other VALUES (4)`,
    {
      tables:
        '[public.*, sales.*, crm.*, { table: public.named, target_schema: one, target_table: renamed }, { table: sales.placed, target_schema: two }]',
      target: 'hard_delete: true, default_target_schema: rest, schema_mapping: { sales: shop }',
    },
  );
  await run.settle();
  expect(await tablesIn(target, run.line.pipeline.target.database)).toEqual([
    'one.renamed',
    'rest.other',
    'shop.mapped',
    'two.placed',
  ]);
  await run.from.query('UPDATE public.named SET id = 10; UPDATE crm.other SET id = 40');
  await run.settle();
  const { rows } = await run.to.query('SELECT id FROM one.renamed UNION ALL SELECT id FROM rest.other ORDER BY 1');
  expect(rows).toEqual([{ id: 10 }, { id: 40 }]);
});

test('replication_slot, publication_name: what is made on the source goes by them, and by the database without them', async () => {
  for (const database of ['Named_DB', 'Plain_DB']) {
    for (const server of [source, target]) {
      const admin = await server.connect();
      await admin.query(`CREATE DATABASE "${database}"`);
      await admin.end();
    }
    const client = await source.connect(database);
    try {
      await client.query('CREATE TABLE t (id int PRIMARY KEY)');
      await using line = await openLine({
        source: at(source, database),
        target: at(target, database),
        pipeline: database === 'Named_DB' ? 'named' : 'plain',
        ...(database === 'Named_DB'
          ? { config: { source: 'replication_slot: slot_of_mine, publication_name: "Mine, too"' } }
          : {}),
      });
      await line.settle();
      const { rows } = await client.query<{ slot: string; publication: string }>(
        'SELECT (SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()) AS slot, (SELECT pubname::text FROM pg_publication) AS publication',
      );
      expect(rows).toEqual(
        database === 'Named_DB'
          ? [{ slot: 'slot_of_mine', publication: 'Mine, too' }]
          : [{ slot: 'sluice_plain_db', publication: 'sluice_plain_db' }],
      );
    } finally {
      await client.end();
    }
  }
});

test('create_slot: false waits for a slot that somebody else makes, and takes it over', async () => {
  await using run = await freshLine(
    { source, target },
    'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)',
    { source: 'create_slot: false', tables: '[public.*]' },
  );
  await expect(run.line.window()).rejects.toThrow(/SLOT_MISSING/);
  const { replication_slot } = run.line.pipeline.source;
  expect(
    (await run.from.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [replication_slot])).rowCount,
  ).toBe(0);
  await run.from.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [replication_slot]);
  await run.equal();
  await run.from.query('INSERT INTO t VALUES (2)');
  await run.equal();
});
