/**
 * Changes of shape that the log tells nobody of, because nobody writes to the table after them; and those that are still under way. Found by
 * test/pg/schema-history.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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

const TABLE = `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 50) i;
  CREATE TABLE busy (id int4 PRIMARY KEY)`;
const open = (sql = TABLE): Promise<FreshLine> =>
  freshLine({ source, target }, sql, { target: 'on_drop_column: drop' });

/** The columns of both sides with their types, in the order of their names. */
async function columns({ line }: FreshLine) {
  return { source: await line.columns('source', 'public.t'), target: await line.columns('target', 'public.t') };
}

describe('a change of shape after which nobody writes', () => {
  test.each([
    ['a column with a constant default', `ALTER TABLE t ADD COLUMN n int4 NOT NULL DEFAULT 7`],
    ['a column with a default of its own in each row', `ALTER TABLE t ADD COLUMN r float8 DEFAULT random()`],
    ['a column without a default', `ALTER TABLE t ADD COLUMN n numeric(8,2)`],
    ['a column less', `ALTER TABLE t DROP COLUMN v`],
    ['another name', `ALTER TABLE t RENAME COLUMN v TO w`],
    ['another type', `ALTER TABLE t ALTER COLUMN v TYPE int4 USING length(v)`],
    ['another key', `ALTER TABLE t DROP CONSTRAINT t_pkey, ALTER COLUMN v SET NOT NULL, ADD PRIMARY KEY (v)`],
  ])('%s is on the target', async (_, ddl) => {
    await using made = await open();
    await made.equal();
    await made.from.query(ddl);
    await made.equal();
    const { source: wanted, target: found } = await columns(made);
    // Old values that a new type cannot hold are kept beside it.
    expect(found.filter((column) => !/_\d{8}_\d{4}/.test(column))).toEqual(wanted);
  });

  test('also while other tables are written to, and told once', async () => {
    await using made = await open();
    await made.equal();
    await made.from.query('ALTER TABLE t ADD COLUMN n int4 DEFAULT 7');
    await made.from.query('INSERT INTO busy SELECT generate_series(1, 100)');
    await made.equal();
    const { number } = made.line.durable.chain.at(-1) ?? { number: 0 };
    await made.settle();
    const later = made.line.durable.chain.filter((cut) => cut.number > number && cut.object !== null);
    expect(later).toEqual([]);
  });
});

test('a change of shape that is under way does not hold up the windows of other tables', async () => {
  await using made = await open();
  await made.equal();
  const altering = await source.connect(made.from.database);
  await altering.query('BEGIN; ALTER TABLE t ADD COLUMN n int4 DEFAULT 7');
  await made.from.query('INSERT INTO busy VALUES (1)');
  await made.line.window();
  await made.line.pump();
  expect(await made.line.rows('target', 'public.busy')).toEqual([['1']]);
  await altering.query('COMMIT');
  await altering.end();
  await made.equal();
});
