/**
 * The type "char", one byte: before PostgreSQL 16 a value above 127 is printed as that byte, which is no text in UTF-8; since 16 as `\\ooo`. By copy and by
 * log, in keys and beside them, it arrives as what it was, or the stream halts.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

/** Every byte but zero, which is the empty text. */
const BYTES = 'generate_series(1, 255) i';
/** int4 to "char" is signed. */
const CHAR = '(CASE WHEN i > 127 THEN i - 256 ELSE i END)::"char"';

/** The column's bytes, by id: as numbers on a server that has the type, as text (`\\ooo` above 127) where it is text. */
async function bytesOf(client: pg.Client, table: string): Promise<unknown[]> {
  const { rows } = await client.query(
    `SELECT id, v::"char"::int4 AS v, k::"char"::int4 AS k FROM ${table} ORDER BY id, k::"char"::int4`,
  );
  return rows;
}

const SOURCES = [
  { name: 'PostgreSQL 10', missing: !MAJORS_HERE.includes(10), start: () => startPostgres({ version: 10 }), more: '' },
  { name: 'PostgreSQL 14', missing: !MAJORS_HERE.includes(14), start: () => startPostgres({ version: 14 }), more: '' },
  {
    name: suiteName('PostgreSQL 15 by wal2json'),
    missing: skipDebian,
    start: () => startDebianPostgres(),
    more: 'plugin: wal2json',
  },
  { name: 'PostgreSQL 18', missing: false, start: () => startPostgres(), more: '' },
] as const;

describe.each(SOURCES.map((of) => [of.name, of] as const))('%s', (_, { missing, start, more }) => {
  describe.skipIf(missing)('a "char" above 127', () => {
    let source: TestPostgres;
    let on: pg.Client;
    beforeAll(async () => {
      source = await start();
      on = await source.connect();
    });
    afterAll(async () => {
      await on?.end();
      await source?.stop();
    });

    test('arrives by copy, by insert, by update and in a key', async () => {
      await using target = await startPostgres();
      const there = await target.connect();
      await on.query(`CREATE TABLE c (id int, k "char", v "char", PRIMARY KEY (id, k)); CREATE TABLE e (LIKE c); ALTER TABLE e REPLICA IDENTITY FULL;
        INSERT INTO c SELECT i, ${CHAR}, ${CHAR} FROM ${BYTES}; INSERT INTO c VALUES (0, '', NULL); INSERT INTO e SELECT * FROM c`);
      const config = { tables: '[public.c, public.e]', source: more, target: 'primary_key_required: false' };
      await using line = await openLine({ source, target, config, pipeline: 'bytes' });
      const same = async (): Promise<void> => {
        await line.settle();
        expect([...line.durable.bookmarks.values()].map(({ halt }) => halt)).toEqual([null, null]);
        for (const table of ['c', 'e']) expect(await bytesOf(there, table)).toEqual(await bytesOf(on, table));
      };
      await same();
      for (const table of ['c', 'e']) {
        await on.query(`INSERT INTO ${table} SELECT i + 1000, ${CHAR}, ${CHAR} FROM ${BYTES}`);
        await on.query(`UPDATE ${table} SET v = (-100)::"char" WHERE id % 3 = 0`);
        await on.query(`UPDATE ${table} SET k = (-101)::"char" WHERE id % 5 = 0`);
        await on.query(`DELETE FROM ${table} WHERE id % 7 = 0`);
      }
      await same();
      expect((await there.query('SELECT FROM c')).rowCount).toBeGreaterThan(400);
      await on.query('DROP TABLE c, e');
      await there.end();
    });

    test.skipIf(!MAJORS_HERE.includes(14) || more !== '')('is text on a target that cannot read it', async () => {
      await using target = await startPostgres({ version: 14 });
      const there = await target.connect();
      await on.query(`CREATE TABLE c (id int PRIMARY KEY, v "char"); INSERT INTO c SELECT i, ${CHAR} FROM ${BYTES}`);
      await using line = await openLine({ source, target, config: { tables: '[public.c]' }, pipeline: 'older' });
      await line.settle();
      await on.query(`UPDATE c SET v = (-100)::"char" WHERE id = 1; INSERT INTO c VALUES (300, (-100)::"char")`);
      await line.settle();
      expect(line.bookmark('public.c').halt).toBeNull();
      const { rows } = await there.query('SELECT id, v::text AS v FROM c WHERE id IN (1, 65, 233, 300) ORDER BY id');
      expect(rows).toEqual([
        { id: 1, v: '\\234' },
        { id: 65, v: 'A' },
        { id: 233, v: '\\351' },
        { id: 300, v: '\\234' },
      ]);
      await on.query('DROP TABLE c');
      await there.end();
    });
  });
});

test.skipIf(!MAJORS_HERE.includes(14))(
  'of a source before 16 in LATIN1: the copy is right, and the log halts the stream',
  async () => {
    await using source = await startPostgres({ version: 14 });
    await using target = await startPostgres();
    const admin = await source.connect();
    await admin.query("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    await admin.end();
    const [on, there] = [await source.connect('latin'), await target.connect()];
    await on.query(
      `CREATE TABLE c (id int PRIMARY KEY, k "char", v "char"); INSERT INTO c SELECT i, ${CHAR}, ${CHAR} FROM ${BYTES}`,
    );
    await using line = await openLine({ source: { ...source, database: 'latin' }, target });
    await line.settle();
    await on.query(`INSERT INTO c VALUES (300, 'a', '\\')`);
    await line.settle();
    expect(line.bookmark('public.c').halt).toBeNull();
    expect(await bytesOf(there, 'c')).toEqual(await bytesOf(on, 'c'));
    await on.query(`UPDATE c SET v = (-23)::"char" WHERE id = 1`);
    await line.settle();
    expect(line.bookmark('public.c').halt).toMatchObject({ code: 'ROWS_UNKNOWN', must_reset: true });
    await Promise.all([on.end(), there.end()]);
  },
);

test.skipIf(!MAJORS_HERE.includes(14))(
  'in an array of a source before 16 it halts the stream, and nothing is written',
  async () => {
    await using source = await startPostgres({ version: 14 });
    await using target = await startPostgres();
    const [on, there] = [await source.connect(), await target.connect()];
    await on.query(`CREATE TABLE c (id int PRIMARY KEY, v "char"[]); INSERT INTO c VALUES (1, '{a,b}')`);
    await using line = await openLine({ source, target });
    await line.settle();
    await on.query(`INSERT INTO c VALUES (2, ARRAY[(-23)::"char"])`);
    await line.settle();
    expect(line.bookmark('public.c').halt?.message).toContain('22021');
    expect((await there.query('SELECT id FROM c')).rows).toEqual([{ id: 1 }]);
    await Promise.all([on.end(), there.end()]);
  },
);
