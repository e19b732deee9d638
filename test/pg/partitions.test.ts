/**
 * Partitioned tables as one stream, between two real servers: what the log says under the root's name, and what it does not say and the catalog shows.
 * Whatever is done to the tree, the target's table has the rows of the source's root.
 */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Line, type LineOptions, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

describe.each([14, 18] as const)('PostgreSQL %i', (version) => {
  let source: TestPostgres;
  let target: TestPostgres;
  let on: pg.Client;
  let line: Line | null = null;
  beforeAll(async () => {
    [source, target] = await Promise.all([startPostgres({ version }), startPostgres()]);
    on = await source.connect();
  });
  afterAll(async () => {
    await on.end();
    await Promise.all([source.stop(), target.stop()]);
  });
  afterEach(async () => {
    await line?.[Symbol.asyncDispose]();
    line = null;
    await on.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
    const there = await target.connect();
    await there.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS _sluice CASCADE');
    await there.end();
  });

  const open = async (config: LineOptions['config'] = {}): Promise<Line> => {
    line = await openLine({ source, target, config, pipeline: 'partitions' });
    return line;
  };
  /** Streams by their tables, in order. */
  const streams = ({ durable }: Line): string[] =>
    [...durable.bookmarks.values()].map(({ table }) => table.table).toSorted();
  const reasons = ({ log }: Line): unknown[] =>
    log.lines.filter(({ event }) => event === 'captured_anew').map(({ facts }) => facts['reason']);
  const expectEqual = async (of: Line, table = 'public.root'): Promise<void> => {
    const { source: left, target: right } = await of.both(table);
    expect(right).toEqual(left);
  };

  /** Ranges of 100 of `id`; the second is partitioned again. */
  async function makeTree(): Promise<void> {
    await on.query(`
      CREATE TABLE root (id int PRIMARY KEY, "note Z" text) PARTITION BY RANGE (id);
      CREATE TABLE leaf0 PARTITION OF root FOR VALUES FROM (0) TO (100);
      CREATE TABLE sub1 PARTITION OF root FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
      CREATE TABLE leaf1a PARTITION OF sub1 FOR VALUES FROM (100) TO (150);
      -- Another order of columns, and one that is gone.
      CREATE TABLE leaf1b ("note Z" text, gone int, id int NOT NULL);
      ALTER TABLE leaf1b DROP COLUMN gone;
      ALTER TABLE sub1 ATTACH PARTITION leaf1b FOR VALUES FROM (150) TO (200);
      CREATE TABLE plain (id int PRIMARY KEY);
      INSERT INTO root SELECT i, 'row ' || i FROM generate_series(0, 190, 10) i`);
  }

  async function live(config: LineOptions['config'] = {}): Promise<Line> {
    await makeTree();
    const opened = await open(config);
    await opened.settle();
    return opened;
  }

  test('are one stream: copied, and followed through their root, through a partition, and from one to another', async () => {
    const opened = await live();
    expect(streams(opened)).toEqual(['plain', 'root']);
    await expectEqual(opened);
    await on.query(`
      INSERT INTO root VALUES (5, 'new'), (161, 'new');
      INSERT INTO leaf1a VALUES (105, 'by its own name');
      UPDATE root SET "note Z" = 'changed' WHERE id IN (0, 150);
      UPDATE root SET id = id + 101 WHERE id IN (10, 20);
      DELETE FROM root WHERE id IN (30, 170)`);
    await opened.settle();
    await expectEqual(opened);
    expect((await opened.rows('target', 'public.root')).length).toBe(21);
    expect(reasons(opened)).toEqual([]);
  });

  test('TRUNCATE of the root is in the log', async () => {
    const opened = await live();
    await on.query("TRUNCATE root; INSERT INTO root VALUES (1, 'after')");
    await opened.window();
    await opened.pump();
    expect(await opened.rows('target', 'public.root')).toEqual([['1', 'after']]);
    // That it was not a partition alone, the catalog does not tell.
    await opened.settle();
    await expectEqual(opened);
  });

  test.each([
    [
      'a partition that is made while windows run',
      'CREATE TABLE leaf2 PARTITION OF root FOR VALUES FROM (200) TO (300)',
    ],
    [
      'an empty table that is attached',
      'CREATE TABLE leaf2 (LIKE root); ALTER TABLE root ATTACH PARTITION leaf2 FOR VALUES FROM (200) TO (300); ANALYZE root',
    ],
    [
      'a tree that is made',
      'CREATE TABLE sub2 PARTITION OF root FOR VALUES FROM (200) TO (300) PARTITION BY RANGE (id); CREATE TABLE leaf2 PARTITION OF sub2 FOR VALUES FROM (200) TO (300)',
    ],
  ])('%s comes with its root, and nothing is copied anew', async (_, ddl) => {
    const opened = await live();
    await on.query(ddl);
    if (!ddl.includes('LIKE'))
      await on.query("INSERT INTO root VALUES (201, 'a'), (202, 'b'); DELETE FROM root WHERE id = 202");
    await opened.settle();
    await on.query(
      'INSERT INTO root VALUES (203, \'c\'); ALTER TABLE leaf2 ALTER COLUMN "note Z" SET STORAGE EXTERNAL',
    );
    await opened.settle();
    await expectEqual(opened);
    expect(reasons(opened)).toEqual([]);
    expect(opened.bookmark('public.root').epoch).toBe(1);
  });

  test.each([
    [
      'a table attached with its rows',
      'CREATE TABLE leaf2 (id int NOT NULL, "note Z" text); INSERT INTO leaf2 VALUES (250, \'before\'); ALTER TABLE root ATTACH PARTITION leaf2 FOR VALUES FROM (200) TO (300)',
      'attached',
    ],
    [
      'a table made, filled and attached in one transaction',
      'BEGIN; CREATE TABLE leaf2 (id int NOT NULL, "note Z" text); INSERT INTO leaf2 VALUES (250, \'before\'); ALTER TABLE root ATTACH PARTITION leaf2 FOR VALUES FROM (200) TO (300); COMMIT',
      'attached',
    ],
    [
      'a tree attached with rows in its partitions',
      'CREATE TABLE sub2 (id int NOT NULL, "note Z" text) PARTITION BY RANGE (id); CREATE TABLE leaf2 PARTITION OF sub2 FOR VALUES FROM (200) TO (300); INSERT INTO sub2 VALUES (250, \'before\'); ALTER TABLE root ATTACH PARTITION sub2 FOR VALUES FROM (200) TO (300)',
      'attached',
    ],
    ['a partition detached', 'ALTER TABLE root DETACH PARTITION leaf0', 'detached or dropped'],
    ['a partition dropped', 'DROP TABLE leaf1a', 'detached or dropped'],
    ['a tree of partitions dropped', 'DROP TABLE sub1', 'detached or dropped'],
    ['TRUNCATE of one partition', 'TRUNCATE leaf0', 'truncated by itself'],
    ['TRUNCATE of a tree below the root', 'TRUNCATE sub1', 'truncated by itself'],
    [
      'a partition detached, changed and attached again',
      "ALTER TABLE root DETACH PARTITION leaf0; DELETE FROM leaf0 WHERE id = 10; INSERT INTO leaf0 VALUES (11, 'unseen'); ALTER TABLE root ATTACH PARTITION leaf0 FOR VALUES FROM (0) TO (100)",
      'attached again',
    ],
  ])('%s is not in the log: the stream is copied anew', async (_, ddl, reason) => {
    const opened = await live();
    await on.query(ddl);
    await on.query("INSERT INTO root VALUES (199, 'in the log') ON CONFLICT DO NOTHING").catch(() => undefined); // Its partition may be gone.
    await opened.settle();
    await expectEqual(opened);
    expect(reasons(opened)).toEqual([expect.stringContaining(reason)]);
    expect(opened.bookmark('public.root')).toMatchObject({ epoch: 2, state: 'live', halt: null });
    // It is remembered: the next windows copy nothing.
    await opened.settle();
    expect(opened.bookmark('public.root').epoch).toBe(2);
  });

  test('with fold_partitions: false each partition is a stream, and the root is left out with the reason', async () => {
    const opened = await live({ source: 'fold_partitions: false' });
    expect(streams(opened)).toEqual(['leaf0', 'leaf1a', 'leaf1b', 'plain']);
    await on.query("INSERT INTO root VALUES (1, 'x'), (151, 'y'); UPDATE root SET id = 2 WHERE id = 101");
    await opened.settle();
    for (const leaf of ['leaf0', 'leaf1a', 'leaf1b']) await expectEqual(opened, `public.${leaf}`);
    const left = opened.log.lines.find(
      ({ event, facts }) => event === 'table_skipped' && facts['table'] === 'public.root',
    );
    expect(left?.facts['reason']).toContain('source.fold_partitions is false');
  });

  test('a partition that is named alone is a stream by itself, and one of a glob comes with its root', async () => {
    await makeTree();
    const opened = await open({ tables: '[public.leaf0, public.sub1]' });
    await opened.settle();
    expect(streams(opened)).toEqual(['leaf0', 'sub1']);
    await on.query("INSERT INTO root VALUES (1, 'x'), (151, 'y')");
    await opened.settle();
    await expectEqual(opened, 'public.leaf0');
    await expectEqual(opened, 'public.sub1');
  });

  test('a publication without the setting gets it, and streams that are not partitioned are not copied anew for it', async () => {
    await makeTree();
    await on.query('CREATE PUBLICATION sluice_postgres FOR TABLE plain, root');
    const opened = await open({ tables: '[public.plain]' });
    await opened.settle();
    expect(streams(opened)).toEqual(['plain']);
    const folding = await openLine({ source, target, pipeline: 'partitions', config: {} });
    // The same ledger, another file: root is wanted as well.
    for (const [stream, bookmark] of opened.durable.bookmarks) folding.durable.bookmarks.set(stream, bookmark);
    folding.durable.chain.push(...opened.durable.chain);
    await folding.settle();
    expect(streams(folding)).toEqual(['plain', 'root']);
    await on.query("INSERT INTO root VALUES (1, 'x'); INSERT INTO plain VALUES (1)");
    await folding.settle();
    await expectEqual(folding);
    await expectEqual(folding, 'public.plain');
    expect(folding.bookmark('public.plain').epoch).toBe(1);
    expect((await on.query('SELECT pubviaroot FROM pg_publication')).rows).toEqual([{ pubviaroot: true }]);
    await folding[Symbol.asyncDispose]();
  });

  test('identities: a partition that has more than the key, by an index of its own; and updates that leave values out', async () => {
    await makeTree();
    await on.query(`
      ALTER TABLE leaf0 REPLICA IDENTITY FULL;
      ALTER TABLE leaf1a ALTER COLUMN "note Z" SET NOT NULL;
      CREATE UNIQUE INDEX leaf1a_both ON leaf1a (id, "note Z"); ALTER TABLE leaf1a REPLICA IDENTITY USING INDEX leaf1a_both;
      ALTER TABLE root ALTER COLUMN "note Z" SET STORAGE EXTERNAL, ADD COLUMN v int;
      INSERT INTO root SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 51, 50) i`);
    const opened = await open();
    await opened.settle();
    await expectEqual(opened);
    await on.query(`
      UPDATE root SET v = 1 WHERE id IN (0, 1, 51, 100, 150);
      UPDATE root SET id = id + 3 WHERE id IN (0, 51, 100, 160);
      UPDATE root SET "note Z" = 'n' WHERE id = 110;
      DELETE FROM root WHERE id IN (10, 120, 170)`);
    await opened.settle();
    await expectEqual(opened);
    expect(reasons(opened)).toEqual([]);
  });

  test('a root that is FULL with partitions that are', async () => {
    await makeTree();
    await on.query(`
      ALTER TABLE root ADD COLUMN v int; ALTER TABLE root ALTER COLUMN "note Z" SET STORAGE EXTERNAL;
      ALTER TABLE root REPLICA IDENTITY FULL; ALTER TABLE leaf0 REPLICA IDENTITY FULL;
      ALTER TABLE leaf1a REPLICA IDENTITY FULL; ALTER TABLE leaf1b REPLICA IDENTITY FULL;
      INSERT INTO root SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 151, 50) i`);
    const opened = await open();
    await opened.settle();
    await on.query(
      'UPDATE root SET v = 1; UPDATE root SET id = id + 1 WHERE id IN (1, 151); DELETE FROM root WHERE id = 101',
    );
    await opened.settle();
    await expectEqual(opened);
  });

  test('a partition whose old rows lack the key is a fault with its remedy, and the stream is copied anew when it was mended', async () => {
    const opened = await live();
    await on.query('ALTER TABLE leaf0 REPLICA IDENTITY NOTHING');
    await opened.window();
    const told = opened.log.lines.find(
      ({ event, facts }) => event === 'table_skipped' && facts['table'] === 'public.root',
    );
    expect(told?.facts['reason']).toContain('leaf0 has REPLICA IDENTITY NOTHING');
    await on.query('ALTER TABLE leaf0 REPLICA IDENTITY DEFAULT; DELETE FROM root WHERE id = 10');
    await opened.settle();
    await expectEqual(opened);
    expect(opened.bookmark('public.root').epoch).toBe(2);
  });

  test('a large root is copied in chunks by its key', async () => {
    await makeTree();
    await on.query(`
      CREATE TABLE big PARTITION OF root FOR VALUES FROM (1000) TO (2000000);
      INSERT INTO root SELECT i, 'n' FROM generate_series(1000, 450000) i; ANALYZE root`);
    const opened = await open({ tables: '[public.root]' });
    await opened.settle();
    // By an estimate of the rows.
    expect(opened.durable.chunks.size).toBeGreaterThan(1);
    const there = await target.connect();
    expect((await there.query('SELECT count(*)::int AS n, sum(id)::text AS s FROM root')).rows).toEqual(
      (await on.query('SELECT count(*)::int AS n, sum(id)::text AS s FROM root')).rows,
    );
    await there.end();
  });
});
