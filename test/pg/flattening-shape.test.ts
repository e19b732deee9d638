/**
 * Goal: columns beside json columns go, stay and are renamed with them when the source's table changes (target.data_flattening_max_level).
 * Method: whole lines between two servers; each row's json is walked through again here (test/support/flattened.ts).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  besideFaults,
  columns,
  events,
  flattenedOf,
  isTrue,
  level,
  MADE,
  put,
  reset,
  row,
} from '../support/flattened.ts';
import { freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

describe('the table is changed', () => {
  test.each([['keep'], ['drop']])('data_flattening_max_level with on_drop_column: %s', async (what) => {
    await using fresh = await freshLine({ source, target }, MADE, { target: `${level(1)}, on_drop_column: ${what}` });
    await put(fresh, 1, { a: 1 }, { r: 'x' });
    await isTrue(fresh, 1);
    await fresh.from.query('ALTER TABLE t DROP COLUMN data');
    await fresh.from.query(`INSERT INTO t (id, raw) VALUES (2, '{"r":"y"}')`);
    await fresh.settle();
    expect(await columns(fresh)).toEqual(what === 'keep' ? ['data__a numeric'] : []);
    expect(await besideFaults(fresh.to, 't', 0)).toEqual([]);
    if (what === 'keep') expect(await row(fresh, 1)).toMatchObject({ data: { a: 1 }, data__a: '1' });
    // One of the same name again: another column.
    await fresh.from.query('ALTER TABLE t ADD COLUMN data jsonb');
    await fresh.from.query(`INSERT INTO t (id, data) VALUES (3, '{"a":"text","b":1}')`);
    await fresh.settle();
    const [a] =
      (await flattenedOf(fresh.to, 't'))?.columns.filter(({ path }) => path[0] === 'a' && path.length === 1) ?? [];
    expect(a?.name).toMatch(what === 'keep' ? /^data__a_[0-9a-f]{8}$/ : /^data__a$/);
    expect(await row(fresh, 3)).toMatchObject({ [a?.name ?? '']: 'text', data__b: '1' });
    await reset(fresh);
    await fresh.settle();
    expect(await row(fresh, 3)).toMatchObject({ [a?.name ?? '']: 'text', data__b: '1' });
    if (what === 'keep') expect(await row(fresh, 1)).toMatchObject({ data__a: '1' });
    expect((await columns(fresh)).length).toBe(what === 'keep' ? 3 : 2);
  });

  test('data_flattening_max_level: columns follow a json column to its new name, and two that exchange theirs', async () => {
    await using fresh = await freshLine({ source, target }, MADE, { target: level(2) });
    await put(fresh, 1, { a: { b: 1 }, c: 2 }, { a: 'raw' });
    await isTrue(fresh, 2);
    await fresh.from.query('ALTER TABLE t RENAME COLUMN data TO info');
    await fresh.from.query(`UPDATE t SET v = 'x'`);
    await isTrue(fresh, 2);
    expect(await columns(fresh, 'info__')).toEqual(['info__a__b numeric', 'info__c numeric']);
    expect(await columns(fresh)).toEqual([]);
    await fresh.from.query(
      'BEGIN; ALTER TABLE t RENAME COLUMN info TO t1; ALTER TABLE t RENAME COLUMN raw TO info; ALTER TABLE t RENAME COLUMN t1 TO raw; COMMIT',
    );
    await fresh.from.query(`UPDATE t SET v = 'y'`);
    await isTrue(fresh, 2);
    expect(await columns(fresh, 'raw__')).toEqual(['raw__a__b numeric', 'raw__c numeric']);
    expect(await columns(fresh, 'info__')).toEqual(['info__a text']);
  });

  test('data_flattening_max_level: a json column that comes with a default has its columns in rows that are there', async () => {
    await using fresh = await freshLine({ source, target }, `${MADE}; INSERT INTO t VALUES (1), (2)`, {
      target: level(1),
    });
    await fresh.equal();
    await fresh.from.query(`ALTER TABLE t ADD COLUMN more jsonb DEFAULT '{"d":"default"}'`);
    await fresh.from.query(`INSERT INTO t (id, more) VALUES (3, '{"d":"own"}')`);
    await isTrue(fresh, 1);
    expect(await row(fresh, 1)).toMatchObject({ more__d: 'default' });
    expect(events(fresh, 'epoch_swapped')).toBe(1);
  });
});
