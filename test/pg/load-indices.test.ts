/**
 * Goal: a target table has the indexes that the file asks for, under names that stay, through copies, swaps, backfills and changes of the table; and no index is
 * a reason for rows to wait, or for a stream to halt.
 * Method: whole lines between two servers; the target's catalog is asked what there is.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import { requestBackfills } from '../../lib/epoch/backfill.ts';
import { postgresTarget } from '../../lib/load/target.ts';
import { extract, load } from '../../lib/pipeline.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const SQL = `CREATE TABLE items (id int PRIMARY KEY, email text, kind text, body json);
  INSERT INTO items SELECT n, 'm' || n, 'k' || n % 3, '{}' FROM generate_series(1, 50) n`;
const ID = streamId({ schema: 'public', table: 'items' });
const INDICES = `indices: { public.items: [[kind, id], { columns: [kind], where: "id > 10 -- some" }, { columns: [email], unique: true }] }`;

async function indexes({ to }: FreshLine): Promise<string[]> {
  const { rows } = await to.query<{ index: string }>(
    `SELECT indexname || ': ' || regexp_replace(indexdef, '^CREATE (UNIQUE )?INDEX .* USING', '\\1') || CASE WHEN c.condeferred THEN ' DEFERRED' ELSE '' END AS index
       FROM pg_indexes LEFT JOIN pg_constraint c ON c.conname = indexname WHERE tablename = 'items' ORDER BY 1`,
  );
  return rows.map(({ index }) => index.replace(/_[0-9a-f]{8}:/, '_#:'));
}
const ALL = [
  'items_email_#: UNIQUE  btree (email) DEFERRED',
  'items_kind_#: btree (kind) WHERE (id > 10)',
  'items_kind_id_#: btree (kind, id)',
  'items_pkey: UNIQUE  btree (id)',
].map((line) => line.replace('UNIQUE  ', 'UNIQUE  '));
const names = (lines: readonly string[]): string[] => lines.map((line) => line.replaceAll(/ +/g, ' ').trim()).sort();

test('target.indices: made by the first sync, on the shadow where rows of several moments do no harm; kept by a reset, which still swaps', async () => {
  await using fresh = await freshLine({ source, target }, SQL, { target: INDICES });
  await fresh.equal();
  expect(names(await indexes(fresh))).toEqual(names(ALL));
  const events = fresh.line.log.lines.map(({ event }) => event);
  expect(events.filter((event) => event === 'index_made')).toHaveLength(3);
  expect(events.indexOf('index_made')).toBeLessThan(events.indexOf('epoch_swapped'));

  const before = await fresh.to.query<{ oid: number }>(`SELECT 'items'::regclass::oid::int4 AS oid`);
  await fresh.line.ports().ledger.updateBookmark(ID, { reset_requested: true });
  // Two rows exchange a value while the table is copied: never two of the same there, and two in the copy.
  await fresh.line.window();
  await fresh.from.query(`UPDATE items SET email = 'free' WHERE id = 1; UPDATE items SET email = 'm1' WHERE id = 2`);
  await fresh.equal();
  expect(names(await indexes(fresh))).toEqual(names(ALL));
  const after = await fresh.to.query<{ oid: number }>(`SELECT 'items'::regclass::oid::int4 AS oid`);
  expect(after.rows[0]?.oid).not.toBe(before.rows[0]?.oid);
});

test('where a view keeps the table, which then gets the rows of a copy, a unique one does not keep them out', async () => {
  await using fresh = await freshLine({ source, target }, SQL, { target: INDICES });
  await fresh.equal();
  await fresh.to.query('CREATE VIEW seen AS SELECT kind FROM items');
  await fresh.line.ports().ledger.updateBookmark(ID, { reset_requested: true });
  await fresh.line.window();
  // As if rows had exchanged a value between two chunks.
  await fresh.from.query(`UPDATE items SET email = 'free' WHERE id = 1; UPDATE items SET email = 'm1' WHERE id = 2`);
  const { extractBells, loadBells } = fresh.line.durable;
  for (const bell of extractBells.splice(0)) await extract(fresh.line.ports(), fresh.line.pipeline, bell);
  const { rows } = await fresh.to.query<{ shadow: string }>('SELECT shadow FROM _sluice.plans');
  for (const bell of extractBells.splice(0)) await extract(fresh.line.ports(), fresh.line.pipeline, bell);
  for (const bell of loadBells.splice(0)) {
    if (bell.kind !== 'chunk') continue;
    await fresh.to.query(`CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF new.id = 1 THEN new.email := ''m1''; END IF; RETURN new; END';
      CREATE TRIGGER twice BEFORE INSERT ON "${rows[0]?.shadow}" FOR EACH ROW EXECUTE FUNCTION twice()`);
    await load(fresh.line.ports(), bell, { deadline_ms: Date.now() + 60_000 });
  }
  await fresh.from.query(`UPDATE items SET kind = 'seen' WHERE id < 3`);
  await fresh.equal();
  expect(names(await indexes(fresh))).toEqual(names(ALL));
}, 60_000);

test('a unique one holds no batch up: values that rows exchange, live and beside a backfill', async () => {
  await using fresh = await freshLine({ source, target }, SQL, { target: INDICES });
  await fresh.equal();
  const exchange = async (a: number, b: number): Promise<void> => {
    await fresh.from.query(
      `UPDATE items SET email = 'free' WHERE id = ${a}; UPDATE items SET email = 'm${a}' WHERE id = ${b}; UPDATE items SET email = 'm${b}' WHERE id = ${a}`,
    );
  };
  await exchange(1, 2);
  await fresh.equal();
  await requestBackfills(fresh.line.ports(), ['public.items'], 'id = 3', () => Promise.resolve());
  await exchange(3, 4);
  await fresh.line.pump();
  expect(names(await indexes(fresh))).not.toContain(names(ALL)[0]);
  await fresh.equal();
  expect(names(await indexes(fresh))).toEqual(names(ALL));
  expect(fresh.line.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
});

test('an option that is younger than the table is made after the next load; one that cannot be made is told, and rows go on', async () => {
  await using fresh = await freshLine({ source, target }, SQL);
  await fresh.equal();
  expect(names(await indexes(fresh))).toEqual(['items_pkey: UNIQUE btree (id)']);
  const indices = {
    'public.items': [['kind'], ['body'], ['no_such']].map((columns) => ({ columns, unique: false, where: null })),
  };
  const events: { event: string; facts: unknown }[] = [];
  const write = (event: string, facts: unknown = {}): void => void events.push({ event, facts });
  const ports = fresh.line.ports();
  const { host, port, user, password, database } = fresh.to as typeof fresh.to &
    Record<'user' | 'password' | 'database', string>;
  const { Client } = await import('pg');
  const later = postgresTarget({
    connect: async () => {
      const client = new Client({ host, port, user, password, database });
      await client.connect();
      return client;
    },
    pipeline: fresh.line.pipeline.pipeline,
    options: { ...fresh.line.pipeline.target, indices },
    clock: ports.clock,
    log: { info: write, warn: write, error: write },
  });
  const stream = { stream: ID, target: { schema: 'public', table: 'items' } };
  for (let n = 0; n < 2; n++) await later.transaction(stream, () => Promise.resolve());
  expect(names(await indexes(fresh))).toEqual(['items_kind_#: btree (kind)', 'items_pkey: UNIQUE btree (id)']);
  expect(events.map(({ event }) => event)).toEqual(['index_made', 'index_not_made', 'index_not_made']);
  expect(events[2]).toMatchObject({ facts: { reason: 'the table has no column no_such' } });

  // Its column is dropped on both sides: the index goes with it, and nothing halts.
  await fresh.to.query('ALTER TABLE items DROP COLUMN kind');
  await later.transaction(stream, () => Promise.resolve());
  expect(names(await indexes(fresh))).toEqual(['items_pkey: UNIQUE btree (id)']);
});
