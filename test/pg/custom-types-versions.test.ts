/**
 * Goal: types and generated columns of the source's own between old and new servers. Method: the whole line in both directions with the oldest major,
 * in which ADD VALUE may not stand in a transaction block, and with the first that has generated columns.
 */
import { describe, expect, test } from 'vitest';
import { openLine } from '../support/line.ts';
import { startPostgres } from '../support/postgres.ts';
import { MAJORS_HERE, type Major } from '../support/servers.ts';

/** The first major with generated columns. */
const GENERATED_SINCE = 12;
const PAIRS: (readonly [source: Major, target: Major])[] = [
  [10, 18],
  [18, 10],
  [12, 18],
  [18, 12],
  [10, 10],
];

describe.each(PAIRS.filter((pair) => pair.every((major) => MAJORS_HERE.includes(major))))(
  'PostgreSQL %i to %i',
  (from, to) => {
    test('types are made, followed and computed', async () => {
      await using source = await startPostgres({ version: from });
      await using target = await startPostgres({ version: to });
      const here = await source.connect();
      const computes = from >= GENERATED_SINCE;
      await here.query(`
        CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('b', 'd'); CREATE DOMAIN s.amount AS numeric(6,1); CREATE DOMAIN s.total AS s.amount;
        CREATE DOMAIN s.tags AS text[]; CREATE TYPE s.pair AS (m s.mood, t s.total); CREATE TYPE s.span AS RANGE (subtype = float8);
        CREATE TABLE t (id int PRIMARY KEY, m s.mood, ms s.mood[], t s.total, g s.tags, p s.pair, ps s.pair[], sp s.span
          ${computes ? ', c numeric GENERATED ALWAYS AS (id * 1.5) STORED' : ''});
        INSERT INTO t VALUES (1, 'b', '{{b,d}}', 1.25, '{x,"y z"}', ROW('d', 2), ARRAY[NULL, ROW('b', 3)]::s.pair[], '[1,2.5)')`);
      await using line = await openLine({ source, target });
      const compare = async (): Promise<void> => {
        await line.settle();
        expect(line.bookmark('public.t').halt).toBeNull();
        const { source: want, target: got } = await line.both('public.t');
        if (computes && to < GENERATED_SINCE) {
          expect(got).toMatchObject({ missing: ['c'] });
          // In the order of their names, `c` comes first.
          const rest = (await line.rows('source', 'public.t')).map((row) => JSON.stringify(row.slice(1)));
          const there = (await line.rows('target', 'public.t')).map((row) => JSON.stringify(row));
          expect(there.toSorted()).toEqual(rest.toSorted());
          return;
        }
        expect(got).toEqual(want);
        const types = (await line.columns('source', 'public.t')).map((column) => column.replace('s.span', 'text'));
        expect(await line.columns('target', 'public.t')).toEqual(types);
      };
      await compare();
      await here.query(`ALTER TYPE s.mood ADD VALUE 'a' BEFORE 'b'`);
      await here.query(`ALTER TYPE s.mood ADD VALUE 'c' AFTER 'b'`);
      await here.query(`INSERT INTO t VALUES (2, 'a', '{c}', 3, NULL, ROW('c', NULL), '{}', 'empty')`);
      await here.query(`UPDATE t SET m = 'c', p = ROW('a', 7.77) WHERE id = 1`);
      await compare();
      await here.query(`ALTER TYPE s.pair ADD ATTRIBUTE n int`);
      await here.query(`INSERT INTO t (id, p) VALUES (3, ROW('a', 1, 2))`);
      await compare();
      const there = await target.connect();
      const { rows } = await there.query('SELECT enum_range(NULL::s.mood)::text AS labels');
      expect(rows).toEqual([{ labels: '{a,b,c,d}' }]);
    });
  },
);
