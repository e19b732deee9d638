/**
 * Goal: columns beside json columns are made once and rightly when loaders work side by side, on the oldest server as on the newest, and through random histories of
 * rows, copies, renames and levels.
 * Method: the loader's own steps on one server; whole lines for the histories, whose rows are walked through again (test/support/flattened.ts). The seed is in the error;
 * FLATTENING_SEED replays it.
 */
import { describe, expect, test } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import { deepen } from '../../lib/load/flatten-table.ts';
import { LOAD_LIMITS, withSession } from '../../lib/load/session.ts';
import type { Log } from '../../lib/ports.ts';
import { displayName } from '../../lib/shape.ts';
import { besideFaults, flattenedOf, type Json } from '../support/flattened.ts';
import { freshLine } from '../support/fresh-line.ts';
import {
  applyCut,
  CHUNKS_LSN,
  chunkOf,
  epochOf,
  HELD_LSN,
  INCARNATION,
  rowsOf,
  streamOf,
  synchronise,
  targetOn,
} from '../support/loading.ts';
import { startPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';
import { MAJORS_HERE } from '../support/servers.ts';

const SHAPE = shapeOf({ id: 'int4', d: 'jsonb' }, ['id']);
const upsert = (...lines: Line[]) => segmentOf({ shape: SHAPE, blocks: [{ kind: 'upsert', lines }] });
const table = { schema: 'public', table: 't' };
const T = streamId(table);
const OPTIONS = { data_flattening_max_level: 2 } as const;

describe.each([MAJORS_HERE[0] ?? 18, 18] as const)('data_flattening_max_level on PostgreSQL %i', (version) => {
  test('two finishers of one copy, chunks side by side, and cuts', async () => {
    await using server = await startPostgres({ version });
    const client = await server.connect();
    const target = targetOn(server, { ...OPTIONS, add_metadata_columns: true });
    const stream = streamOf(table);
    const first = epochOf(stream, { chunks: 2 });
    await target.prepareEpoch(stream, first, 'plan-1', SHAPE, INCARNATION, true);
    await target.loadChunk(stream, first, chunkOf(first, 0), upsert(['1', '{"a":1,"o":{"x":true}}'], ['2', null]));
    await target.loadChunk(stream, first, chunkOf(first, 1), upsert(['2', '{"a":2}'], ['3', '{"a":"text"}']));
    const finish = () => target.finishEpoch(stream, first, 'plan-1', CHUNKS_LSN, HELD_LSN);
    await Promise.all([finish(), finish(), finish()]);
    expect(await rowsOf(client, table, 'id, d__a, d__o__x, _sdc_deleted_at')).toEqual([
      ['1', '1', 't', null],
      ['2', null, null, null],
      ['3', 'text', null, null],
    ]);
    expect(target.events.filter(({ event }) => event === 'json_columns_added')).toHaveLength(1);
    await applyCut(target, stream, [upsert(['4', '{"new":[1]}'])]);
    expect(await rowsOf(client, table, 'id, d__new')).toContainEqual(['4', '[1]']);

    const again = epochOf(stream, { number: 2, kind: 'backfill', plan: 'plan-2', chunks: 3 });
    await target.prepareEpoch(stream, again, 'plan-2', SHAPE, INCARNATION, false);
    // In place, all with keys that are new: none is ended by the server for a deadlock (40P01).
    const load = async (number: number): Promise<void> => {
      const line: Line = [String(10 + number), `{"k${number}":${number},"a":true}`];
      await target.loadChunk(stream, again, chunkOf(again, number), upsert(line));
    };
    await Promise.all([load(0), load(1), load(2)]);
    await target.finishEpoch(stream, again, 'plan-2', CHUNKS_LSN, HELD_LSN);
    expect(await rowsOf(client, table, 'id, d__k0, d__k1, d__k2, d__a')).toEqual(
      expect.arrayContaining([
        ['10', '0', null, null, 'true'],
        ['11', null, '1', null, 'true'],
        ['12', null, null, '2', 'true'],
      ]),
    );
    expect(await besideFaults(client, 't', 2)).toEqual([]);
    await client.end();
  });
});

test('data_flattening_max_level changed while a copy is finished: keys that were looked for less deep are looked for again', async () => {
  await using server = await startPostgres();
  const client = await server.connect();
  const stream = streamOf(table);
  const at = (level: number) => targetOn(server, { data_flattening_max_level: level });
  const epoch = epochOf(stream, { chunks: 1 });
  await at(1).prepareEpoch(stream, epoch, 'plan-1', SHAPE, INCARNATION, false);
  await at(1).loadChunk(stream, epoch, chunkOf(epoch, 0), upsert(['1', '{"o":{"x":1}}']));
  // As a finisher leaves it that dies in between.
  await client.query(
    `UPDATE _sluice.plans SET shape = jsonb_set(shape, '{found}', '{"level":1,"keys":[{"n":0,"path":"[\\"o\\"]","kinds":"[\\"object\\"]"}]}')`,
  );
  await at(2).finishEpoch(stream, epoch, 'plan-1', CHUNKS_LSN, HELD_LSN);
  expect(await rowsOf(client, table, 'id, d__o__x')).toEqual([['1', '1']]);
  expect(await besideFaults(client, 't', 2)).toEqual([]);
  await client.end();
});

test('data_flattening_max_level: a table that is too large to be filled where it stands is copied anew', async () => {
  await using server = await startPostgres();
  const client = await server.connect();
  await synchronise(targetOn(server), streamOf(table), SHAPE, [[['1', '{"a":1}']]]);
  const log: Log = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const deepened = (fill_bytes_max: number): Promise<void> =>
    withSession(
      () => server.connect(),
      { stream: T, table: displayName(table) },
      (session) =>
        session.transaction(LOAD_LIMITS, async () => {
          const form = { name: table, shape: SHAPE, metadata: false };
          const rest = { form: () => form, change: async () => undefined, lock: async () => undefined };
          await deepen({ session, stream: T, log, level: 1, fill_bytes_max, ...rest }, []);
        }),
    );
  await expect(deepened(1)).rejects.toMatchObject({ code: 'TABLE_REWRITTEN' });
  await deepened(1024 ** 2);
  expect(await rowsOf(client, table, 'count(*)')).toEqual([['1']]);
  await client.end();
});

test('data_flattening_max_level: a table without changes is given its columns when its stream moves on', async () => {
  await using server = await startPostgres();
  const client = await server.connect();
  const stream = streamOf(table);
  await synchronise(targetOn(server), stream, SHAPE, [[['1', '{"a":{"b":1}}']]]);
  await applyCut(targetOn(server, { data_flattening_max_level: 1 }), stream, []);
  expect(await rowsOf(client, table, 'id, d__a')).toEqual([['1', '{"b": 1}']]);
  await applyCut(targetOn(server, OPTIONS), stream, []);
  expect(await rowsOf(client, table, 'id, d__a, d__a__b')).toEqual([['1', '{"b": 1}', '1']]);
  await client.end();
});

const ROUNDS = 14;
const KEYS = ['a', 'b', 'a__b', '', "it's", 'ünï"', '0', 'x'.repeat(66)];
const SCALARS: Json[] = [null, 1, -2.5, 0, 'text', '', '7', true, false];

test('data_flattening_max_level: random histories', async () => {
  const given = process.env['FLATTENING_SEED'];
  const seed = given === undefined ? Date.now() % 2 ** 31 : Number(given);
  const below = seededBelow(seed);
  const pick = <V>(values: readonly V[]): V => values[below(values.length)] as V;
  const value = (depth: number): Json => {
    const kind = below(depth > 4 ? 6 : 10);
    if (kind < 6) return pick(SCALARS);
    if (kind === 6) return Array.from({ length: below(3) }, () => value(depth + 1));
    return Object.fromEntries(Array.from({ length: below(4) }, () => [pick(KEYS), value(depth + 1)]));
  };
  const document = (): string =>
    JSON.stringify(Object.fromEntries(KEYS.slice(0, below(8)).map((key) => [key, value(1)])));
  await using server = await startPostgres();
  await using other = await startPostgres();
  await using fresh = await freshLine(
    { source: server, target: other },
    `CREATE TABLE t (id int PRIMARY KEY, j json, b jsonb, v text); ALTER TABLE t ALTER b SET STORAGE EXTERNAL`,
    { target: 'data_flattening_max_level: 1' },
  );
  const put = async (): Promise<void> => {
    const [{ b } = { b: 'b' }] = (
      await fresh.from.query<{ b: string }>(
        `SELECT attname AS b FROM pg_attribute WHERE attrelid = 't'::regclass AND atttypid = 'jsonb'::regtype AND NOT attisdropped`,
      )
    ).rows;
    await fresh.from.query(
      `INSERT INTO t (id, j, ${b}) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET j = EXCLUDED.j, ${b} = EXCLUDED.${b}`,
      [below(12), below(4) === 0 ? null : document(), below(4) === 0 ? null : document()],
    );
  };
  await fresh.settle();
  let level = 1;
  const steps: (() => Promise<unknown>)[] = [
    ...Array.from({ length: 6 }, () => put),
    () => fresh.from.query(`UPDATE t SET v = 'touched' WHERE id % 3 = ${below(3)}`),
    () =>
      fresh.from.query(
        `UPDATE t SET id = id + 100 WHERE id = ${below(12)} AND NOT EXISTS (SELECT FROM t AS o WHERE o.id >= 100)`,
      ),
    () => fresh.from.query(`DELETE FROM t WHERE id = ${below(12)} OR id > 99`),
    () => fresh.from.query(`ALTER TABLE t RENAME COLUMN j TO other; ALTER TABLE t RENAME COLUMN other TO j`),
    () => fresh.line.ports().ledger.updateBookmark(T, { reset_requested: true }),
    () => fresh.line.window(),
  ];
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (let n = below(8); n >= 0; n--) await pick(steps)();
      await put();
      await fresh.equal();
      expect(await besideFaults(fresh.to, 't', level)).toEqual([]);
      if (below(3) === 0) {
        level = 1 + below(4);
        fresh.line.configure({ target: `data_flattening_max_level: ${level}` });
      }
      if (round === 7) await fresh.from.query('ALTER TABLE t RENAME COLUMN b TO b2');
    }
    expect((await flattenedOf(fresh.to, 't'))?.columns.length).toBeGreaterThan(10);
  } catch (error) {
    throw new Error(`FLATTENING_SEED=${seed}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}, 240_000);
