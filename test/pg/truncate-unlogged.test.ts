/**
 * TRUNCATE where the log does not have it: pgoutput of PostgreSQL 10, and wal2json as it was before 2.0. The table's file tells, and `target.on_truncate`
 * says what becomes of it.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { type Line, type LineOptions, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

const SOURCES = [
  {
    name: 'pgoutput of PostgreSQL 10',
    missing: !MAJORS_HERE.includes(10),
    start: () => startPostgres({ version: 10 }),
    options: {},
  },
  {
    name: suiteName('wal2json in format 1'),
    missing: skipDebian,
    start: () => startDebianPostgres(),
    options: { config: { source: 'plugin: wal2json' }, old_wal2json: true },
  },
] as const;

const reasons = ({ log }: Line): unknown[] =>
  log.lines.filter(({ event }) => event === 'captured_anew').map(({ facts }) => facts['reason']);

describe.each(SOURCES.map((of) => [of.name, of] as const))('%s', (_, { missing, start, options }) => {
  describe.skipIf(missing)('a table that is truncated', () => {
    let source: TestPostgres;
    let target: TestPostgres;
    let on: pg.Client;
    let lines = 0;
    beforeAll(async () => {
      [source, target] = await Promise.all([start(), startPostgres()]);
      on = await source.connect();
    });
    afterAll(async () => {
      await on?.end();
      await Promise.all([source?.stop(), target?.stop()]);
    });

    /** A live stream of two rows in a schema of its own, which is the search path. */
    async function live(more: string): Promise<{ line: Line; table: string }> {
      const schema = `s${++lines}`;
      await on.query(`CREATE SCHEMA ${schema}; SET search_path = ${schema};
        CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')`);
      const config: NonNullable<LineOptions['config']> = { ...('config' in options ? options.config : {}) };
      const line = await openLine({
        source,
        target,
        pipeline: schema,
        ...options,
        config: { ...config, tables: `[${schema}.*]`, target: more },
      });
      await line.settle();
      return { line, table: `${schema}.t` };
    }

    test('is copied anew, once, and says why', async () => {
      const { line, table } = await live('');
      await using _ = line;
      await on.query("INSERT INTO t VALUES (3, 'c')");
      await line.settle();
      expect([line.bookmark(table).epoch, reasons(line)]).toEqual([1, []]);
      await on.query("TRUNCATE t; INSERT INTO t VALUES (4, 'after')");
      await line.settle();
      await line.settle();
      expect(await line.rows('target', table)).toEqual([['4', 'after']]);
      await on.query('UPDATE t SET id = 5');
      await line.settle();
      expect(await line.rows('target', table)).toEqual([['5', 'after']]);
      expect(line.bookmark(table).epoch).toBe(2);
      expect(reasons(line)).toEqual([expect.stringContaining('truncated or written anew')]);
    });

    test('and truncated again while it is copied', async () => {
      const { line, table } = await live('');
      await using _ = line;
      await on.query("TRUNCATE t; INSERT INTO t VALUES (3, 'once')");
      await line.window();
      // Captures it, and rings for the copy.
      await line.window();
      await on.query("TRUNCATE t; INSERT INTO t VALUES (4, 'twice')");
      await line.pump();
      await line.settle();
      await line.settle();
      expect(await line.rows('target', table)).toEqual([['4', 'twice']]);
    });

    test('on_truncate: ignore leaves it, also when it is set to apply later', async () => {
      const { line, table } = await live('on_truncate: ignore');
      await using _ = line;
      await on.query("TRUNCATE t; INSERT INTO t VALUES (4, 'after')");
      await line.settle();
      await line.settle();
      expect(await line.rows('target', table)).toEqual([
        ['1', 'a'],
        ['2', 'b'],
        ['4', 'after'],
      ]);
      expect(line.bookmark(table)).toMatchObject({ epoch: 1, halt: null });
      const { rows } = await on.query(`SELECT pg_relation_filenode('t')::text AS file`);
      expect(line.bookmark(table).followed?.file).toBe((rows as { file: string }[])[0]?.file);
    });

    test('on_truncate: halt halts, and goes on when it is resumed', async () => {
      const { line, table } = await live('on_truncate: halt');
      await using _ = line;
      await on.query('VACUUM FULL t');
      await line.settle();
      const { halt, stream } = line.bookmark(table);
      expect(halt).toMatchObject({ code: 'TRUNCATE_HALTED', must_reset: false });
      line.durable.bookmarks.set(stream, { ...line.bookmark(table), halt: null });
      await on.query("INSERT INTO t VALUES (3, 'c')");
      await line.settle();
      expect(line.bookmark(table)).toMatchObject({ halt: null, epoch: 1 });
      expect(await line.equal(table)).toBe(true);
    });
  });
});
