/**
 * Goal: rows are read again beside a stream that goes on (I11: it stays captured; I7: what the log leaves out is not lost): each backfill ends with a target
 * that equals the source, under live writes, and whatever is wrong with one ends that one and not the stream.
 * Method: whole lines between two servers, with faults put into the target by hand where only a backfill can mend them.
 */
import type pg from 'pg';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import { cancelBackfills, requestBackfills } from '../../lib/epoch/backfill.ts';
import { openAllRequested, requestEpoch } from '../../lib/epoch/request.ts';
import { checkWhere } from '../../lib/epoch/where.ts';
import { SluiceError } from '../../lib/errors.ts';
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

const ITEMS = `CREATE TABLE items (id int PRIMARY KEY, kind text, body text);
  ALTER TABLE items ALTER body SET STORAGE EXTERNAL;
  INSERT INTO items SELECT n, CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END, repeat(n::text, 2000) FROM generate_series(1, 300) n`;
const ID = streamId({ schema: 'public', table: 'items' });

const open = async (sql = ITEMS, config: Parameters<typeof freshLine>[2] = {}): Promise<FreshLine> => {
  const fresh = await freshLine({ source, target }, sql, config);
  await fresh.settle();
  return fresh;
};

const connectTo = (client: pg.Client) => async (): Promise<pg.Client> => {
  const { host, port, user, password, database } = client as pg.Client & {
    user: string;
    password: string;
    database: string;
  };
  const made = new Client({ host, port, user, password, database });
  await made.connect();
  return made;
};

const ask = async (fresh: FreshLine, where: string, named = ['public.items']) =>
  await requestBackfills(fresh.line.ports(), named, where, (table, sql) =>
    checkWhere(connectTo(fresh.from), table, sql),
  );
const newest = (fresh: FreshLine) => {
  const { epoch } = fresh.line.bookmark('public.items');
  return fresh.line.durable.epochs.get(`${ID}/${epoch}`);
};

describe('backfill --where', () => {
  test('brings the rows that match, and touches no other', async () => {
    await using fresh = await open();
    await fresh.to.query(
      `UPDATE items SET body = 'wrong' WHERE kind IN ('a', 'b'); DELETE FROM items WHERE id IN (3, 4)`,
    );
    expect(await ask(fresh, "kind = 'a' -- these")).toMatchObject([
      { stream: ID, table: 'public.items', backfill: 'opened' },
    ]);
    await fresh.settle();
    const { rows } = await fresh.to.query(
      `SELECT kind, count(*)::int4 AS rows, count(*) FILTER (WHERE body = 'wrong')::int4 AS wrong FROM items GROUP BY 1 ORDER BY 1`,
    );
    expect(rows).toEqual([
      { kind: 'a', rows: 100, wrong: 0 },
      { kind: 'b', rows: 99, wrong: 99 },
      { kind: 'c', rows: 100, wrong: 0 },
    ]);
    expect(newest(fresh)).toMatchObject({ kind: 'backfill', state: 'done' });
    await ask(fresh, 'true');
    await fresh.equal();
  });

  test('several wait for each other, and the same one waits once', async () => {
    await using fresh = await open(`${ITEMS}; CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1)`);
    await fresh.to.query(`UPDATE items SET body = 'wrong'; DELETE FROM more`);
    const first = await ask(fresh, "kind = 'a'", ['public.items', '*.more']).catch((error: unknown) => error);
    // The condition is none for the other table: nothing was asked for.
    expect(first).toMatchObject({ code: 'BACKFILL_WHERE' });
    expect(fresh.line.durable.requests.size).toBe(0);
    expect(await ask(fresh, 'id > 0', ['public.items', '*.more'])).toMatchObject([
      { backfill: 'opened' },
      { backfill: 'opened' },
    ]);
    expect(await ask(fresh, "kind = 'b'")).toMatchObject([{ backfill: 'waiting' }]);
    expect(await ask(fresh, "kind = 'b'")).toMatchObject([{ backfill: 'waiting' }]);
    expect(fresh.line.durable.requests.size).toBe(1);
    await fresh.equal();
    await fresh.settle();
    expect([...fresh.line.durable.epochs.values()].filter(({ kind }) => kind === 'backfill')).toMatchObject([
      { where: 'id > 0', state: 'done' },
      { where: 'id > 0', state: 'done' },
      { where: "kind = 'b'", state: 'done' },
    ]);
  });

  test('equals the source under live writes, with values that the log leaves out, and chunks that are read late', async () => {
    await using fresh = await open();
    const { from, line } = fresh;
    for (let round = 0; round < 4; round++) {
      await fresh.to.query(`UPDATE items SET body = 'wrong' WHERE id % 4 = ${round}`);
      await ask(fresh, `id % 4 = ${round}`);
      // Before and after the chunk: rows that change without their body, move to other keys, go and come.
      const write = async (n: number): Promise<void> => {
        await from.query(`UPDATE items SET kind = 'z${n}' WHERE id % 5 = ${n % 5}`);
        await from.query(`UPDATE items SET id = id + 1000 WHERE id % 17 = ${n} AND id < 1000 AND id % 4 = ${round}`);
        await from.query(`DELETE FROM items WHERE id % 23 = ${n}`);
        await from.query(
          `INSERT INTO items VALUES (${2000 + round * 10 + n}, 'new', repeat('n', 5000)) ON CONFLICT DO NOTHING`,
        );
      };
      await write(round);
      await line.window();
      await write(round + 4);
      await line.pump();
      await write(round + 8);
      await fresh.equal();
    }
    expect([...line.durable.epochs.values()].filter(({ state }) => state !== 'done')).toEqual([]);
    expect(line.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
  });

  test.each([
    ['no_such = 1', /column "no_such" does not exist/],
    ['kind', /argument of WHERE must be type boolean/],
    ["kind = 'a' ORDER BY", /syntax error/],
    ['true); DROP TABLE items; SELECT (true', /syntax error|multiple commands/],
    ["kind = 'a') OR (kind = 'b'", /syntax error/],
    ['  ', /empty/],
  ])('a condition that is none is an error, and nothing happens: %s', async (where, message) => {
    await using fresh = await open();
    const thrown = await ask(fresh, where).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(SluiceError);
    expect(thrown).toMatchObject({ code: 'BACKFILL_WHERE', message: expect.stringMatching(message) });
    expect(fresh.line.durable.requests.size).toBe(0);
    expect((await fresh.from.query('SELECT FROM items')).rowCount).toBe(300);
  });

  test('a condition that fails on a row ends the backfill with its reason, without the value, and the stream goes on', async () => {
    await using fresh = await open();
    await fresh.from.query(`UPDATE items SET kind = 'secret' WHERE id = 7`);
    await ask(fresh, 'length(kind) > 1 AND kind::int4 > 0');
    await fresh.from.query('DELETE FROM items WHERE id > 290');
    await fresh.equal();
    const epoch = newest(fresh);
    expect(epoch).toMatchObject({ kind: 'backfill', state: 'cancelled', reason: expect.stringContaining('22P02') });
    const told = fresh.line.log.lines.filter(({ event }) => event === 'epoch_given_up');
    expect(told).toMatchObject([{ facts: { code: 'BACKFILL_WHERE', epoch: 2 } }]);
    expect([epoch?.reason, ...told.map(({ facts }) => String(facts.message))].join()).not.toContain('secret');
    expect(fresh.line.bookmark('public.items')).toMatchObject({ state: 'live', halt: null });
    await ask(fresh, "kind = 'a'");
    await fresh.settle();
    expect(newest(fresh)).toMatchObject({ state: 'done' });
  });

  test('a table that is altered while it is read again ends the backfill, and is not copied anew', async () => {
    await using fresh = await open();
    await ask(fresh, 'true');
    await fresh.from.query('ALTER TABLE items ADD COLUMN extra int DEFAULT 5');
    await fresh.from.query('UPDATE items SET extra = 6 WHERE id = 1');
    await fresh.equal();
    expect([...fresh.line.durable.epochs.values()].map(({ kind, state }) => [kind, state])).toEqual([
      ['first_sync', 'done'],
      ['backfill', 'cancelled'],
    ]);
  });
});

test('a type that has come to be another since the last cut: the rows are read again, and the row of the stream learns of it from the log', async () => {
  await using fresh = await open(`CREATE TYPE mood AS ENUM ('a', 'b');
    CREATE TABLE items (id int PRIMARY KEY, kind mood); INSERT INTO items SELECT n, 'a' FROM generate_series(1, 50) n`);
  const labels = async () =>
    (await fresh.to.query(`SELECT shape -> 'columns' -> 1 -> 'type' -> 'labels' AS labels FROM _sluice.streams`)).rows;
  await fresh.from.query(`UPDATE items SET kind = 'b' WHERE id = 2`);
  await fresh.equal();
  await fresh.from.query(`ALTER TYPE mood ADD VALUE 'c'`);
  await fresh.from.query(`BEGIN; INSERT INTO items VALUES (51, 'c')`);
  await ask(fresh, 'true');
  const { extractBells, loadBells } = fresh.line.durable;
  for (let step = 0; step < 2; step++) {
    for (const bell of extractBells.splice(0)) await extract(fresh.line.ports(), fresh.line.pipeline, bell);
  }
  for (const bell of loadBells.splice(0)) await load(fresh.line.ports(), bell, { deadline_ms: Date.now() + 60_000 });
  expect(newest(fresh)).toMatchObject({ kind: 'backfill', state: 'done' });
  expect(await labels()).toEqual([{ labels: ['a', 'b'] }]);
  await fresh.from.query('COMMIT');
  await fresh.equal();
  await fresh.from.query(`UPDATE items SET kind = 'c' WHERE id = 3`);
  await fresh.equal();
  expect(await labels()).toEqual([{ labels: ['a', 'b', 'c'] }]);
});

describe('--cancel', () => {
  test('what waits, what is open and what is under way; the rows that were read again are right', async () => {
    await using fresh = await open();
    const { line } = fresh;
    await ask(fresh, 'id < 100');
    await ask(fresh, 'id < 200');
    expect(await cancelBackfills(line.ports(), ['public.items'])).toMatchObject([{ requests: 1, epoch: 2 }]);
    expect(await cancelBackfills(line.ports(), ['public.items'])).toMatchObject([{ requests: 0, epoch: null }]);
    await fresh.equal();
    expect(line.bookmark('public.items')).toMatchObject({ state: 'live', epoch: 2 });

    // Under way: its chunk is staged, and loaded before the cancelling is heard of.
    await ask(fresh, 'true');
    await fresh.from.query(`UPDATE items SET kind = 'y'; UPDATE items SET id = id + 5000 WHERE id < 50`);
    const { extractBells, loadBells } = line.durable;
    for (const bell of extractBells.splice(0)) await extract(line.ports(), line.pipeline, bell);
    for (const bell of extractBells.splice(0)) await extract(line.ports(), line.pipeline, bell);
    const chunk = loadBells.splice(0).find(({ kind }) => kind === 'chunk');
    if (!chunk || chunk.kind !== 'chunk') throw new Error('no chunk was staged');
    const epoch = newest(fresh);
    await line
      .ports()
      .target.loadChunk(
        { stream: ID, target: { schema: 'public', table: 'items' } },
        epoch as NonNullable<typeof epoch>,
        line.durable.chunks.get(`${ID}/3/${chunk.plan}/0`) as never,
        null,
      );
    expect(await cancelBackfills(line.ports(), ['public.items'])).toMatchObject([{ epoch: 3 }]);
    await load(line.ports(), chunk, { deadline_ms: Date.now() + 60_000 });
    await fresh.equal();
    expect(newest(fresh)).toMatchObject({ state: 'cancelled', reason: 'It was cancelled.' });
  });

  test('a copy of the whole table is gone through with', async () => {
    await using fresh = await freshLine({ source, target }, ITEMS);
    await fresh.line.window();
    await expect(cancelBackfills(fresh.line.ports(), ['public.items'])).rejects.toMatchObject({ code: 'USAGE' });
    await fresh.equal();
  });
});

describe('a repair', () => {
  test('makes exactly these keys as they are on the source', async () => {
    await using fresh = await open();
    await fresh.to.query(
      `UPDATE items SET body = 'wrong' WHERE id IN (5, 6); DELETE FROM items WHERE id = 7; INSERT INTO items VALUES (999, 'x', 'extra')`,
    );
    const keys = [['5'], ['7'], ['999'], ['77777']];
    const ranges = [{ by: 'keys', columns: ['id'], keys } as const];
    expect(await requestEpoch(fresh.line.ports(), ID, { kind: 'repair', where: null, ranges })).toBe('opened');
    await fresh.settle();
    const { rows } = await fresh.to.query(`SELECT id FROM items WHERE body IN ('wrong', 'extra')`);
    expect(rows).toEqual([{ id: 6 }]);
    expect((await fresh.to.query('SELECT FROM items WHERE id = 7')).rowCount).toBe(1);
  });

  test('that nobody opened is opened by the next window', async () => {
    await using fresh = await open();
    const { durable } = fresh.line;
    const ranges = [{ by: 'keys', columns: ['id'], keys: [['1']] } as const];
    const request = { stream: ID, id: '1', kind: 'repair', where: null, ranges, requested_at_ms: 1 } as const;
    durable.requests.set(`1#${ID}`, request);
    await fresh.to.query('DELETE FROM items WHERE id = 1');
    await fresh.equal();
    expect(durable.requests.size).toBe(0);
    // Died after opening it, and before it took the request out: found to be done.
    durable.requests.set(`1#${ID}`, request);
    await openAllRequested(fresh.line.ports(), [...durable.bookmarks.values()]);
    expect([durable.requests.size, newest(fresh)?.number]).toEqual([0, 2]);
  });
});

test('keys that nobody can be sure of are read again, and nobody has to do anything', async () => {
  await using fresh = await open(`CREATE TABLE items (id int PRIMARY KEY, kind text, body text);
    ALTER TABLE items ALTER body SET STORAGE EXTERNAL;
    INSERT INTO items SELECT n, 'k', repeat(n::text, 3000) FROM generate_series(1, 40) n`);
  const { from, line } = fresh;
  await line.ports().ledger.updateBookmark(ID, { reset_requested: true });
  await line.window();
  // In the log before the copy is read: rows go to keys that others have left, without their body.
  await from.query(
    `UPDATE items SET id = 100 WHERE id = 1; UPDATE items SET id = 1 WHERE id = 2; UPDATE items SET id = 2 WHERE id = 3`,
  );
  await from.query(
    `DELETE FROM items WHERE id = 100; UPDATE items SET id = 100 WHERE id = 4; UPDATE items SET kind = 'm' WHERE id < 10`,
  );
  await fresh.equal();
  expect(line.log.lines.some(({ event }) => event === 'keys_read_again')).toBe(true);
  expect(line.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
  expect([...line.durable.epochs.values()].map(({ kind, state }) => [kind, state])).toEqual([
    ['first_sync', 'done'],
    ['reset', 'done'],
    ['repair', 'done'],
  ]);
});

test('a chunk that fails alone is read again alone, by the bell that comes again', async () => {
  await using fresh = await freshLine({ source, target }, ITEMS);
  const { line } = fresh;
  await line.window();
  const read: unknown[] = [];
  let fails = 1;
  const portsNow = (): ReturnType<typeof line.ports> => {
    const ports = line.ports();
    return {
      ...ports,
      extractor: {
        ...ports.extractor,
        readChunk: async (table, range, request) => {
          read.push(range.by === 'keys' ? range.keys : range);
          if (read.length === 2 && fails-- > 0)
            throw new SluiceError('SOURCE_TRANSIENT', { reason: 'gone', sqlstate: '57P01' });
          return await ports.extractor.readChunk(table, range, request);
        },
      },
    };
  };
  await line.pump();
  await fresh.equal();
  // Four chunks, given as they are: the second breaks, the others go on and are loaded.
  const chunks = [['1'], ['2'], ['3'], ['4']].map((key) => ({ by: 'keys', columns: ['id'], keys: [key] }) as const);
  await fresh.to.query('DELETE FROM items WHERE id < 5');
  await requestEpoch(line.ports(), ID, { kind: 'repair', where: null, ranges: chunks });
  const { extractBells, loadBells } = line.durable;
  const again: typeof extractBells = [];
  for (let bell = extractBells.shift(); bell; bell = extractBells.shift()) {
    const rung = bell;
    await extract(portsNow(), line.pipeline, rung).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'SOURCE_TRANSIENT' });
      again.push(rung);
    });
  }
  for (const bell of loadBells.splice(0)) await load(line.ports(), bell, { deadline_ms: Date.now() + 60_000 });
  expect((await fresh.to.query('SELECT id FROM items WHERE id < 5 ORDER BY 1')).rows).toEqual([
    { id: 1 },
    { id: 3 },
    { id: 4 },
  ]);
  expect(again).toHaveLength(1);
  for (const bell of again) await extract(portsNow(), line.pipeline, bell);
  await fresh.equal();
  expect(read).toEqual([[['1']], [['2']], [['3']], [['4']], [['2']]]);
  expect(line.bookmark('public.items')).toMatchObject({ halt: null, state: 'live' });
});

test('killed at any write, before it or after: it goes on, and ends equal', async () => {
  await using fresh = await open();
  const { line } = fresh;
  const settle = async (): Promise<void> => {
    for (;;) {
      try {
        await fresh.equal();
        return;
      } catch (error) {
        if (!line.world.isDead) throw error;
        line.restart();
      }
    }
  };
  let crashes = 0;
  for (let n = 1; n <= 24; n += 2) {
    await fresh.to.query(`UPDATE items SET body = 'wrong' WHERE id % 24 = ${n - 1}`);
    await fresh.from.query(
      `UPDATE items SET kind = 'n${n}' WHERE id % 7 = ${n % 7}; UPDATE items SET id = id + 300 WHERE id = ${n}`,
    );
    line.world.crashAt = line.world.changes + n;
    line.world.crashWhen = n % 4 === 1 ? 'before' : 'after';
    await ask(fresh, `id % 24 = ${n - 1}`).catch(async (error: unknown) => {
      if (!line.world.isDead) throw error;
      line.restart();
      crashes++;
      await ask(fresh, `id % 24 = ${n - 1}`);
    });
    const isPending = line.world.crashAt > line.world.changes;
    await settle();
    crashes += Number(isPending);
  }
  expect(crashes).toBeGreaterThan(7);
  expect(line.durable.requests.size).toBe(0);
  expect(line.log.lines.filter(({ event }) => event === 'stream_halted')).toEqual([]);
}, 120_000);
