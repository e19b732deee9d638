/**
 * What a stream follows, between two real servers: a table is its OID, and is followed only as long as the publication holds it with all its changes.
 * Renamed, dropped, made anew, published otherwise, between windows and in the middle of one.
 */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { duringWindow } from '../support/during-window.ts';
import { type Line, type LineOptions, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const PUBLICATION = 'sluice_postgres';

let source: TestPostgres;
let target: TestPostgres;
let on: pg.Client;
let line: Line | null = null;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  on = await source.connect();
});
afterAll(async () => {
  await on.end();
  await Promise.all([source.stop(), target.stop()]);
});
afterEach(async () => {
  await line?.[Symbol.asyncDispose]();
  line = null;
  await on.query('DROP SCHEMA IF EXISTS archive CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public');
  const there = await target.connect();
  await there.query(
    'DROP SCHEMA IF EXISTS archive CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS _sluice CASCADE',
  );
  await there.end();
});

async function live(config: LineOptions['config'] = {}): Promise<Line> {
  await on.query(`
    CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
    INSERT INTO a VALUES (1, 'first'), (2, 'second'); INSERT INTO b VALUES (1, 'first')`);
  line = await openLine({ source, target, config, pipeline: 'followed' });
  await line.settle();
  return line;
}

const reasons = ({ log }: Line): unknown[] =>
  log.lines.filter(({ event }) => event === 'captured_anew').map(({ facts }) => facts['reason']);

async function expectEqual(of: Line, ...tables: readonly string[]): Promise<void> {
  for (const table of tables) {
    const { source: left, target: right } = await of.both(table);
    expect(right).toEqual(left);
  }
}

describe('a table that is made anew under its name', () => {
  const anew =
    "DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (7, 'of another table')";

  test('between windows is copied anew', async () => {
    const opened = await live();
    await on.query("INSERT INTO a VALUES (3, 'of the old one'); DELETE FROM a WHERE id = 1");
    await on.query(anew);
    await opened.settle();
    await expectEqual(opened, 'public.a', 'public.b');
    expect(opened.bookmark('public.a')).toMatchObject({ epoch: 2, halt: null });
    expect(opened.bookmark('public.b').epoch).toBe(1);
    expect(reasons(opened)).toHaveLength(1);
  });

  test('and published by hand before a window comes: its rows are not those of the old one', async () => {
    const opened = await live();
    await on.query(
      `DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); ALTER PUBLICATION ${PUBLICATION} ADD TABLE a`,
    );
    await on.query("INSERT INTO a VALUES (7, 'of another table')");
    await opened.settle();
    await expectEqual(opened, 'public.a');
    expect(reasons(opened)).toEqual([expect.stringContaining('another table was made under its name')]);
    expect(opened.bookmark('public.a').epoch).toBe(2);
  });

  test('by a swap of names', async () => {
    const opened = await live({ tables: '[public.a]' });
    await on.query(`
      CREATE TABLE a_new (id int PRIMARY KEY, v text); INSERT INTO a_new VALUES (9, 'swapped in');
      BEGIN; ALTER TABLE a RENAME TO a_old; ALTER TABLE a_new RENAME TO a; COMMIT`);
    await on.query("INSERT INTO a VALUES (10, 'after')");
    await opened.settle();
    await expectEqual(opened, 'public.a');
    expect(opened.bookmark('public.a')).toMatchObject({ epoch: 2, halt: null });
  });
});

describe('a table that is renamed', () => {
  test.each([
    ['by its name', 'ALTER TABLE a RENAME TO renamed', 'public.renamed', 'ALTER TABLE renamed RENAME TO a'],
    [
      'to another schema',
      'CREATE SCHEMA archive; ALTER TABLE a SET SCHEMA archive',
      'archive.a',
      'ALTER TABLE archive.a SET SCHEMA public',
    ],
  ])('%s halts, says what it is called now, and is copied anew when it is back', async (_, ddl, now, back) => {
    const opened = await live({ tables: '[public.a, public.b]' });
    await on.query(ddl);
    await on.query(`INSERT INTO ${now} VALUES (3, 'under another name'); INSERT INTO b VALUES (2, 'x')`);
    await opened.settle();
    expect(opened.bookmark('public.a').halt).toMatchObject({
      code: 'TABLE_RENAMED',
      message: expect.stringContaining(now) as string,
      remedy: expect.stringContaining(`Name ${now} in tables`) as string,
      must_reset: false,
    });
    await expectEqual(opened, 'public.b');
    expect(await opened.rows('target', 'public.a')).toEqual([
      ['1', 'first'],
      ['2', 'second'],
    ]);
    await on.query(back);
    await opened.settle();
    await expectEqual(opened, 'public.a');
    expect(opened.bookmark('public.a')).toMatchObject({ epoch: 2, halt: null });
  });

  test('is a stream of its own where its new name is selected', async () => {
    const opened = await live();
    await on.query("INSERT INTO a VALUES (3, 'before'); UPDATE a SET v = 'before' WHERE id = 1");
    await on.query("ALTER TABLE a RENAME TO renamed; INSERT INTO renamed VALUES (4, 'after')");
    await opened.settle();
    expect(opened.bookmark('public.a').halt?.code).toBe('TABLE_RENAMED');
    expect(opened.bookmark('public.renamed')).toMatchObject({ state: 'live', halt: null, epoch: 1 });
    await expectEqual(opened, 'public.renamed');
    await on.query("INSERT INTO renamed VALUES (5, 'later')");
    await opened.settle();
    await expectEqual(opened, 'public.renamed');
  });

  test('and renamed back between two windows has lost nothing', async () => {
    const opened = await live();
    await on.query("ALTER TABLE a RENAME TO x; INSERT INTO x VALUES (3, 'as x'); ALTER TABLE x RENAME TO a");
    await on.query("INSERT INTO a VALUES (4, 'as a')");
    await opened.settle();
    await expectEqual(opened, 'public.a');
    expect(opened.bookmark('public.a').epoch).toBe(1);
  });
});

describe('a table that is dropped', () => {
  test('halts and keeps its target table; made again, it is copied anew', async () => {
    const opened = await live();
    await on.query('DROP TABLE a');
    await opened.settle();
    expect(opened.bookmark('public.a').halt).toMatchObject({ code: 'TABLE_DROPPED', must_reset: false });
    expect(await opened.rows('target', 'public.b')).toHaveLength(1);
    // Told once: who has resumed it does not hear of it again.
    opened.durable.bookmarks.set(opened.bookmark('public.a').stream, { ...opened.bookmark('public.a'), halt: null });
    await opened.window();
    expect(opened.bookmark('public.a').halt).toBeNull();
    await on.query("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (5, 'again')");
    await opened.settle();
    await expectEqual(opened, 'public.a');
  });
});

describe('in the middle of a window, after it has looked at the catalog', () => {
  const windowWith = (opened: Line, sql: string): Promise<void> => duringWindow(opened, { server: source, on }, sql);

  test('a table is renamed: the stream halts there, and nothing of the other name is loaded', async () => {
    const opened = await live();
    await windowWith(
      opened,
      "INSERT INTO a VALUES (3, 'as a'); ALTER TABLE a RENAME TO x; INSERT INTO x VALUES (4, 'as x')",
    );
    expect(opened.bookmark('public.a').halt).toMatchObject({ code: 'TABLE_RENAMED', must_reset: true });
    await opened.settle();
    await expectEqual(opened, 'public.x', 'public.b', 'public.late');
    expect(opened.bookmark('public.a').halt).toMatchObject({ code: 'TABLE_RENAMED', must_reset: false });
  });

  test('a table is renamed and renamed back: what came under the other name is copied', async () => {
    const opened = await live();
    await windowWith(
      opened,
      "ALTER TABLE a RENAME TO x; INSERT INTO x VALUES (3, 'as x'); ALTER TABLE x RENAME TO a; INSERT INTO a VALUES (4, 'as a')",
    );
    expect(opened.bookmark('public.a').halt?.code).toBe('TABLE_RENAMED');
    await opened.settle();
    await expectEqual(opened, 'public.a', 'public.late');
    expect(opened.bookmark('public.a')).toMatchObject({ epoch: 2, halt: null });
  });

  test('a table is made anew and published: its rows are not loaded beside those of the old one', async () => {
    const opened = await live();
    await windowWith(
      opened,
      `DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); ALTER PUBLICATION ${PUBLICATION} ADD TABLE a; INSERT INTO a VALUES (2, 'of another table')`,
    );
    expect(opened.bookmark('public.a')).toMatchObject({ reset_requested: true, halt: null });
    expect(await opened.rows('target', 'public.a')).toEqual([
      ['1', 'first'],
      ['2', 'second'],
    ]);
    await opened.settle();
    await expectEqual(opened, 'public.a', 'public.late');
    expect(opened.bookmark('public.a').epoch).toBe(2);
  });
});

describe('a publication that is altered by hand', () => {
  test.each([
    ['a table dropped and added again', `DROP TABLE a`, 'ADD TABLE a', ['public.a']],
    ['a row filter put on and taken off', 'SET TABLE a WHERE (id > 100), b', 'SET TABLE a, b', ['public.a']],
    ['a column list put on and taken off', 'SET TABLE a (id), b', 'SET TABLE a, b', ['public.a']],
    [
      'operations taken out and put back',
      "SET (publish = 'update')",
      "SET (publish = 'insert, update, delete, truncate')",
      ['public.a', 'public.b'],
    ],
  ])('%s between windows: what was passed over is copied', async (_, alter, back, anew) => {
    const opened = await live();
    await on.query(`ALTER PUBLICATION ${PUBLICATION} ${alter}`);
    await on.query("INSERT INTO a VALUES (3, 'unseen')");
    await on.query(`ALTER PUBLICATION ${PUBLICATION} ${back}`);
    await opened.settle();
    await expectEqual(opened, 'public.a', 'public.b');
    expect(reasons(opened)).toHaveLength(anew.length);
    for (const table of anew) expect(opened.bookmark(table).epoch).toBe(2);
  });

  test.each([
    ['rows', 'SET TABLE a WHERE (id > 100), b'],
    ['columns', 'SET TABLE a (id), b'],
    ['operations', "SET (publish = 'insert, delete')"],
  ])(
    '%s left out: the window ends with the remedy, and after that what was passed over is copied',
    async (_, alter) => {
      const opened = await live();
      await on.query(`ALTER PUBLICATION ${PUBLICATION} ${alter}`);
      await on.query("UPDATE a SET v = 'unseen'");
      await expect(opened.window()).rejects.toThrow('PUBLICATION_INCOMPLETE');
      const told = opened.log.lines.find(({ event }) => event === 'window_failed');
      const [, sql = ''] = /run: (.*); or name another/.exec(String(told?.facts['remedy'])) ?? [];
      await on.query(sql);
      await opened.settle();
      await expectEqual(opened, 'public.a', 'public.b');
      expect(opened.bookmark('public.a').epoch).toBe(2);
    },
  );

  test('what was written before the table left it is not brought back over what was written since', async () => {
    const opened = await live();
    await on.query(
      "UPDATE a SET v = 'published' WHERE id = 1; INSERT INTO a VALUES (3, 'published'), (4, 'published')",
    );
    await on.query(`ALTER PUBLICATION ${PUBLICATION} DROP TABLE a`);
    await on.query("UPDATE a SET v = 'unseen' WHERE id IN (1, 3); DELETE FROM a WHERE id = 4");
    await opened.settle();
    await expectEqual(opened, 'public.a', 'public.b');
    expect(reasons(opened)).toEqual(['it was not in the publication']);

    await on.query("UPDATE a SET v = 'published again' WHERE id = 3; INSERT INTO a VALUES (5, 'published again')");
    await on.query(`ALTER PUBLICATION ${PUBLICATION} DROP TABLE a`);
    await on.query("UPDATE a SET v = 'unseen again' WHERE id IN (3, 5)");
    await on.query(`ALTER PUBLICATION ${PUBLICATION} ADD TABLE a`);
    await opened.settle();
    await expectEqual(opened, 'public.a', 'public.b');
  });

  test('a new table that was in it before any window came, and left it: likewise', async () => {
    const opened = await live();
    await on.query('CREATE TABLE c (id int PRIMARY KEY, v text)');
    await on.query(`ALTER PUBLICATION ${PUBLICATION} ADD TABLE c`);
    await on.query("INSERT INTO c VALUES (1, 'published'), (2, 'published')");
    await on.query(`ALTER PUBLICATION ${PUBLICATION} DROP TABLE c`);
    await on.query("UPDATE c SET v = 'unseen' WHERE id = 1; DELETE FROM c WHERE id = 2");
    await opened.settle();
    await expectEqual(opened, 'public.c');
  });

  test('a partition that was detached for a while: what was written to it before is not brought back over what was written since', async () => {
    await on.query(`
      CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
      CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
      INSERT INTO p VALUES (1, 'first'), (11, 'first')`);
    const opened = await live();
    await on.query("UPDATE p SET v = 'published'; INSERT INTO p VALUES (2, 'published')");
    await on.query('ALTER TABLE p DETACH PARTITION p1');
    await on.query("UPDATE p1 SET v = 'alone'");
    await on.query('ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)');
    await opened.settle();
    await expectEqual(opened, 'public.p');
  });

  test('more tables in it change nothing for those that were in', async () => {
    const opened = await live({ tables: '[public.a]' });
    await on.query(`ALTER PUBLICATION ${PUBLICATION} ADD TABLE b; INSERT INTO a VALUES (3, 'x')`);
    await opened.settle();
    await expectEqual(opened, 'public.a');
    expect(reasons(opened)).toEqual([]);
  });

  test('one for all tables of a schema is followed as it is, and left and joined again it has passed over changes', async () => {
    await on.query(`CREATE SCHEMA archive; CREATE PUBLICATION ${PUBLICATION} FOR TABLES IN SCHEMA public, archive`);
    const opened = await live();
    await on.query("INSERT INTO a VALUES (3, 'x')");
    await opened.settle();
    await on.query(`ALTER PUBLICATION ${PUBLICATION} DROP TABLES IN SCHEMA archive; INSERT INTO a VALUES (4, 'y')`);
    await opened.settle();
    expect(reasons(opened)).toEqual([]);
    await on.query(`ALTER PUBLICATION ${PUBLICATION} SET TABLES IN SCHEMA archive`);
    await on.query("INSERT INTO a VALUES (5, 'unseen')");
    await on.query(`ALTER PUBLICATION ${PUBLICATION} ADD TABLES IN SCHEMA public`);
    await opened.settle();
    await expectEqual(opened, 'public.a');
    expect(reasons(opened)).toHaveLength(2);
  });
});

describe('PostgreSQL 18: generated columns that identify rows', () => {
  test('stored ones under FULL are published, so that the source goes on to take updates', async () => {
    await on.query(`
      CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);
      ALTER TABLE g REPLICA IDENTITY FULL; INSERT INTO g VALUES (1, 1), (2, 2)`);
    const opened = await live();
    await on.query('UPDATE g SET v = 5 WHERE id = 1; DELETE FROM g WHERE id = 2; INSERT INTO g VALUES (3, 3)');
    await opened.settle();
    await expectEqual(opened, 'public.g');
    expect((await on.query('SELECT pubgencols FROM pg_publication')).rows).toEqual([{ pubgencols: 's' }]);
  });

  test('a table that becomes such a one: the publication is altered before it is in, and no other stream is copied anew', async () => {
    const opened = await live();
    await on.query(`
      CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED);
      ALTER TABLE g REPLICA IDENTITY FULL; INSERT INTO g VALUES (1, 1)`);
    await opened.settle();
    await on.query('UPDATE g SET v = 5; UPDATE a SET v = NULL');
    await opened.settle();
    await expectEqual(opened, 'public.g', 'public.a');
    expect([opened.bookmark('public.a').epoch, reasons(opened)]).toEqual([1, []]);
  });

  test('a table that comes to need it while it is followed has its updates refused until the next window, and no longer', async () => {
    await on.query('CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED)');
    const opened = await live();
    await on.query('INSERT INTO g VALUES (1, 1); ALTER TABLE g REPLICA IDENTITY FULL');
    await expect(on.query('UPDATE g SET v = 5')).rejects.toThrow('cannot update table');
    await opened.settle();
    await on.query('UPDATE g SET v = 5');
    await opened.settle();
    await expectEqual(opened, 'public.g', 'public.a');
    expect(opened.bookmark('public.a').epoch).toBe(1);
  });

  test('stored ones of a partitioned table, with a partition that is FULL, and one that becomes it', async () => {
    await on.query(`
      CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED) PARTITION BY RANGE (id);
      CREATE TABLE g1 PARTITION OF g FOR VALUES FROM (0) TO (10); CREATE TABLE g2 PARTITION OF g FOR VALUES FROM (10) TO (20);
      ALTER TABLE g1 REPLICA IDENTITY FULL; INSERT INTO g VALUES (1, 1), (2, 2), (11, 1), (12, 2)`);
    const opened = await live();
    await on.query(
      'ALTER TABLE g2 REPLICA IDENTITY FULL; UPDATE g SET v = 5 WHERE id IN (1, 11); DELETE FROM g WHERE id IN (2, 12)',
    );
    await opened.settle();
    await expectEqual(opened, 'public.g');
  });

  test('virtual ones under FULL cannot be published: the table is left out, and its updates are not refused', async () => {
    await on.query(`
      CREATE TABLE g (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) VIRTUAL);
      ALTER TABLE g REPLICA IDENTITY FULL; INSERT INTO g VALUES (1, 1)`);
    const opened = await live();
    expect([...opened.durable.bookmarks.values()].map(({ table }) => table.table)).toEqual(['a', 'b']);
    const left = opened.log.lines.find(({ event }) => event === 'table_skipped');
    expect(left?.facts['reason']).toContain('virtual generated column twice');
    await on.query('UPDATE g SET v = 2; DELETE FROM g');
  });
});
