/**
 * consistency: transaction, by the whole line between two servers. Every transaction of the source leaves the sum over its tables as it was: whoever reads the
 * target sees that sum, or a commit in halves. And `_sluice.positions`, which says what a reader has before him.
 */
import type pg from 'pg';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { streamRowOf, streamRowSql, upgradeControl } from '../../lib/load/control.ts';
import { withSession } from '../../lib/load/session.ts';
import { requestResets, resume } from '../../lib/operate.ts';
import { load } from '../../lib/pipeline.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { verifyLine } from '../support/verifying.ts';

/** Of the sum, while it is loaded so many times at least. */
const READS = Number(process.env.SLUICE_CONSISTENCY_READS ?? 10_000);
const LOADS = 8;
const SUM = 4_000n;

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);

afterAll(async () => {
  await source?.stop();
  await target?.stop();
});

/** Twenty accounts on either side with a hundred each, and a purse that is emptied and filled. */
const TABLES = `
  CREATE TABLE debit (id int PRIMARY KEY, amount numeric NOT NULL);
  CREATE TABLE credit (id int PRIMARY KEY, amount numeric NOT NULL);
  CREATE TABLE purse (id int PRIMARY KEY, amount numeric NOT NULL);
  INSERT INTO debit SELECT i, 100 FROM generate_series(1, 20) i;
  INSERT INTO credit SELECT i, 100 FROM generate_series(1, 20) i`;

const open = (more: string, sql = TABLES): Promise<FreshLine> => freshLine({ source, target }, sql, { target: more });

const STEPS = 5;
let moved = 0;

/** One transaction of the source; `which` of the five kinds. */
async function move(from: pg.Client, which: number): Promise<void> {
  const n = STEPS * ++moved + (which % STEPS);
  const one = (n % 20) + 1;
  const steps = [
    `UPDATE debit SET amount = amount - ${n % 7} WHERE id = ${one}; UPDATE credit SET amount = amount + ${n % 7} WHERE id = ${21 - one}`,
    `UPDATE debit SET amount = amount - 5 WHERE id = ${one}; INSERT INTO purse VALUES (${n}, 5)`,
    `UPDATE credit SET amount = amount + (SELECT COALESCE(sum(amount), 0) FROM purse) WHERE id = ${one}; TRUNCATE purse`,
    `INSERT INTO debit VALUES (${1000 + n}, 9); UPDATE credit SET amount = amount - 9 WHERE id = ${one}`,
    `WITH gone AS (DELETE FROM debit WHERE id > 1000 RETURNING amount)
       UPDATE credit SET amount = amount + (SELECT COALESCE(sum(amount), 0) FROM gone) WHERE id = ${one}`,
  ];
  await from.query(`BEGIN; ${steps[n % STEPS]}; COMMIT`);
}

const SUMS = ['debit', 'credit', 'purse'].map((name) => `(SELECT COALESCE(sum(amount), 0) FROM ${name})`);

interface Position {
  readonly name: string;
  readonly state: string;
  readonly halt: string | null;
  readonly as_of_lsn: string | null;
  readonly together: boolean;
}

async function positions(to: pg.Client): Promise<Position[]> {
  const { rows } = await to.query<Position & Record<string, unknown>>(
    'SELECT target_table AS name, state, halt, as_of_lsn::text, together FROM _sluice.positions ORDER BY 1',
  );
  return rows;
}

const together = (names: readonly string[]): unknown =>
  names.map((name) => expect.objectContaining({ name, state: 'live', halt: null, together: true }));

/** The line that the tests of one `describe` share; each leaves it with all streams live. */
function sharedLine(more: string): () => FreshLine {
  let fresh: FreshLine | null = null;
  beforeAll(async () => {
    fresh = await open(more);
    await fresh.settle();
  });
  afterAll(async () => {
    await fresh?.[Symbol.asyncDispose]();
  });
  return () => {
    if (!fresh) throw new Error('asked for before its tests began');
    return fresh;
  };
}

describe('consistency: transaction', () => {
  const line = sharedLine('consistency: transaction');

  test(`readers see a sum over three tables that is constant on the source, ${READS} times while it is loaded`, async () => {
    const fresh = line();
    expect(await positions(fresh.to)).toEqual(together(['credit', 'debit', 'purse']));
    const seen = new Set<string>();
    const places = new Set<string>();
    const done = { reads: 0, loads: 0 };
    /** One statement, and two statements of one snapshot. */
    const readers = [
      async (client: pg.Client): Promise<void> => {
        const { rows } = await client.query<{ all: string; debit: string }>(
          `SELECT ${SUMS.join(' + ')} AS all, ${SUMS[0]} AS debit`,
        );
        expect(BigInt(rows[0]?.all ?? -1)).toBe(SUM);
        seen.add(rows[0]?.debit ?? '');
      },
      async (client: pg.Client): Promise<void> => {
        await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
        let sum = 0n;
        for (const sql of SUMS) {
          const { rows } = await client.query<{ sum: string }>(`SELECT ${sql} AS sum`);
          sum += BigInt(rows[0]?.sum ?? -1);
        }
        expect(sum).toBe(SUM);
        const there = await positions(client);
        expect(there.map((position) => position.together)).toEqual([true, true, true]);
        expect(new Set(there.map(({ as_of_lsn }) => as_of_lsn)).size).toBe(1);
        places.add(there[0]?.as_of_lsn ?? '');
        await client.query('COMMIT');
      },
    ];
    const clients = await Promise.all(readers.map(() => target.connect(fresh.line.pipeline.target.database)));
    const reading = Promise.all(
      readers.map(async (read, i) => {
        for (; done.reads < READS || done.loads < LOADS; done.reads++) await read(clients[i] as pg.Client);
      }),
    );
    let n = 0;
    const loading = (async () => {
      for (; done.reads < READS || done.loads < LOADS; done.loads++) {
        // Ends at another step each time: the purse is full, or has been emptied.
        for (let i = 0; i < 12; i++) await move(fresh.from, ++n);
        await fresh.line.window();
        await fresh.line.pump();
      }
    })();
    try {
      await Promise.all([reading, loading]);
    } finally {
      done.reads = Math.max(done.reads, READS);
      done.loads = Math.max(done.loads, LOADS);
      await Promise.allSettled([reading, loading]);
      await Promise.all(clients.map((client) => client.end()));
    }
    // It was loaded meanwhile, again and again.
    expect(places.size).toBeGreaterThan(3);
    expect(seen.size).toBeGreaterThan(3);
    await fresh.equal();
  });

  test('a TRUNCATE leaves readers of an older snapshot the rows that they would have seen', async () => {
    const fresh = line();
    await move(fresh.from, 2);
    await move(fresh.from, 1);
    await fresh.settle();
    const reader = await target.connect(fresh.line.pipeline.target.database);
    try {
      await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(amount) FROM debit');
      await move(fresh.from, 2);
      await fresh.equal();
      const { rows } = await reader.query<{ sum: string; purse: string }>(
        `SELECT ${SUMS.join(' + ')} AS sum, (SELECT count(*) FROM purse) AS purse`,
      );
      expect([BigInt(rows[0]?.sum ?? -1), rows[0]?.purse]).toEqual([SUM, '1']);
    } finally {
      await reader.end();
    }
    expect((await fresh.to.query('SELECT FROM purse')).rowCount).toBe(0);
  });

  test('one bell of whichever stream loads all of them; with consistency: stream it loads that one', async () => {
    for (const consistency of ['transaction', 'stream'] as const) {
      await using fresh = await open(`consistency: ${consistency}`);
      await fresh.settle();
      await move(fresh.from, 1);
      await move(fresh.from, 3);
      await fresh.line.window();
      const bells = fresh.line.durable.loadBells.splice(0);
      const [bell] = bells.filter(({ kind }) => kind === 'cuts');
      if (!bell) throw new Error('nobody was rung for');
      await load(fresh.line.ports(), bell, { deadline_ms: Date.now() + 60_000, consistency });
      const { rows } = await fresh.to.query<{ sum: string }>(`SELECT ${SUMS.join(' + ')} AS sum`);
      const all = (await positions(fresh.to)).map((position) => position.together);
      if (consistency === 'transaction') {
        expect(bells.map(({ kind }) => kind)).toEqual(['cuts']);
        expect([BigInt(rows[0]?.sum ?? -1), all]).toEqual([SUM, [true, true, true]]);
      } else {
        expect(bells.length).toBeGreaterThan(1);
        expect(BigInt(rows[0]?.sum ?? -1)).not.toBe(SUM);
        expect(all).toEqual([false, false, false]);
      }
    }
  });

  test('one that is refused halts alone, the others go on, and the view says so; resumed, it comes back to them', async () => {
    const fresh = line();
    await fresh.to.query('ALTER TABLE credit ADD CONSTRAINT small CHECK (amount < 1000)');
    await fresh.from.query(
      'BEGIN; UPDATE debit SET amount = 1 WHERE id = 1; UPDATE credit SET amount = 5000 WHERE id = 1; COMMIT',
    );
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.credit').halt).toMatchObject({ code: 'TARGET_REJECTS' });
    expect(await fresh.line.equal('public.debit')).toBe(true);
    for (let n = 0; n < 10; n++) await move(fresh.from, n);
    await fresh.line.settle();
    expect(await fresh.line.equal('public.debit')).toBe(true);
    expect(await fresh.line.equal('public.purse')).toBe(true);
    expect(await fresh.line.equal('public.credit')).toBe(false);
    const there = await positions(fresh.to);
    expect(there).toMatchObject([
      { name: 'credit', state: 'halted', halt: 'TARGET_REJECTS', together: false },
      { name: 'debit', state: 'live', halt: null, together: true },
      { name: 'purse', state: 'live', halt: null, together: true },
    ]);
    expect(there[1]?.as_of_lsn).toBe(there[2]?.as_of_lsn);
    expect(there[0]?.as_of_lsn).not.toBe(there[1]?.as_of_lsn);

    await fresh.to.query('ALTER TABLE credit DROP CONSTRAINT small');
    await resume(fresh.line.ports(), 'public.credit');
    await fresh.equal();
    expect(await positions(fresh.to)).toEqual(together(['credit', 'debit', 'purse']));
  });

  test('a constraint that is checked at the commit halts the stream of its table', async () => {
    await using fresh = await open(
      'consistency: transaction, indices: { public.credit: [{ columns: [amount], unique: true }] }',
      `
      CREATE TABLE debit (id int PRIMARY KEY, amount numeric); CREATE TABLE credit (id int PRIMARY KEY, amount numeric);
      INSERT INTO debit VALUES (1, 1); INSERT INTO credit VALUES (1, 1)`,
    );
    await fresh.settle();
    await fresh.from.query('BEGIN; INSERT INTO debit VALUES (2, 2); INSERT INTO credit VALUES (2, 1); COMMIT');
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.credit').halt).toMatchObject({ code: 'TARGET_REJECTS' });
    expect(fresh.line.bookmark('public.debit').halt).toBe(null);
    expect(await fresh.line.equal('public.debit')).toBe(true);
  });

  test('nobody waits for a stream that comes up alone, whose row its loader holds; then it joins', async () => {
    const fresh = line();
    const alone = await target.connect(fresh.line.pipeline.target.database);
    try {
      for (const catching_up_to of [`'FFFF/0'`, 'NULL']) {
        await fresh.to.query(
          `UPDATE _sluice.streams SET together = false, catching_up_to = ${catching_up_to} WHERE target_table = 'credit'`,
        );
        await alone.query("BEGIN; SELECT FROM _sluice.streams WHERE target_table = 'credit' FOR UPDATE");
        for (let n = 0; n < 5; n++) await move(fresh.from, n);
        await fresh.line.window();
        const [bell] = fresh.line.durable.loadBells.splice(0);
        if (bell?.kind !== 'cuts') throw new Error('nobody was rung for');
        const debit = { ...bell, stream: 'public.debit' };
        const loading = load(fresh.line.ports(), debit, {
          deadline_ms: Date.now() + 60_000,
          consistency: 'transaction',
        });
        const waited = new Promise((resolve) => setTimeout(resolve, 40_000, 'it waited').unref());
        expect(await Promise.race([loading, waited])).toMatchObject({ outcome: 'applied' });
        expect(await fresh.line.equal('public.debit')).toBe(true);
        expect(await positions(fresh.to)).toMatchObject([{ together: false }, { together: true }, { together: true }]);
        await alone.query('ROLLBACK');
      }
    } finally {
      await alone.end();
    }
    await fresh.equal();
    expect(await positions(fresh.to)).toEqual(together(['credit', 'debit', 'purse']));
  });

  test('a row of a ledger that is no more is not what the others are measured by', async () => {
    const fresh = line();
    await fresh.to.query(`INSERT INTO _sluice.streams (pipeline, stream, incarnation, target_schema, target_table, made, metadata, shape, epoch,
        applied_cut, applied_lsn, together)
      SELECT pipeline, 'public.gone', 'of before', 'public', 'gone', true, metadata, shape, 1, 1000000, 'FFFF/0', true
        FROM _sluice.streams WHERE target_table = 'debit'`);
    const ours = (await positions(fresh.to)).filter(({ name }) => name !== 'gone');
    expect(ours).toEqual(together(['credit', 'debit', 'purse']));
    const { line: own } = fresh;
    const { stream, target: table } = own.bookmark('public.debit');
    const place = await own.ports().target.transaction({ stream, target: table }, (tx) => tx.place());
    expect(place).toBe(own.bookmark('public.credit').applied_cut);
    await fresh.to.query("DELETE FROM _sluice.streams WHERE target_table = 'gone'");
  });

  test('a table that is new, and one that is copied anew, join the others where they are', async () => {
    const fresh = line();
    await fresh.from.query('CREATE TABLE late (id int PRIMARY KEY, amount numeric); INSERT INTO late VALUES (1, 0)');
    await requestResets(fresh.line.ports(), ['public.debit']);
    for (let n = 0; n < 10; n++) await move(fresh.from, n);
    await fresh.line.window();
    // Two of them stand aside.
    for (const bell of fresh.line.durable.loadBells.splice(0))
      await load(fresh.line.ports(), bell, { deadline_ms: Date.now() + 60_000, consistency: 'transaction' });
    const aside = (await positions(fresh.to)).filter((position) => !position.together);
    expect(aside.map(({ name }) => name)).not.toContain('credit');
    await fresh.from.query('UPDATE late SET amount = 1');
    await fresh.equal();
    expect(await positions(fresh.to)).toEqual(together(['credit', 'debit', 'late', 'purse']));
  });

  test('switched on later all streams meet; switched off later each goes on by itself', async () => {
    await using fresh = await open('');
    await fresh.settle();
    await move(fresh.from, 1);
    await fresh.equal();
    expect((await positions(fresh.to)).map((position) => position.together)).toEqual([false, false, false]);
    fresh.line.configure({ target: 'consistency: transaction' });
    await move(fresh.from, 2);
    await fresh.equal();
    expect(await positions(fresh.to)).toEqual(together(['credit', 'debit', 'purse']));
    fresh.line.configure({ target: 'consistency: stream' });
    for (let n = 3; n < 13; n++) await move(fresh.from, n);
    await fresh.equal();
    expect((await positions(fresh.to)).some((position) => position.together)).toBe(false);
  });
});

describe('_sluice.positions', () => {
  const line = sharedLine('');

  test('tells the position and the time of the commit that a table is of', async () => {
    const fresh = line();
    const now = async (): Promise<{ at: string; lsn: string } | undefined> =>
      (
        await fresh.from.query<{ at: string; lsn: string }>(
          'SELECT clock_timestamp()::text AS at, pg_current_wal_insert_lsn()::text AS lsn',
        )
      ).rows[0];
    const before = await now();
    await move(fresh.from, 1);
    const after = await now();
    await fresh.settle();
    const { rows } = await fresh.to.query(
      `SELECT target_table AS name, as_of BETWEEN $1::timestamptz AND $2::timestamptz AS in_time, as_of_lsn > $3::pg_lsn AS has_it,
         applied_at > as_of AS later FROM _sluice.positions WHERE target_table IN ('debit', 'purse') ORDER BY 1`,
      [before?.at, after?.at, before?.lsn],
    );
    const told = { in_time: true, has_it: true, later: true };
    expect(rows).toEqual([
      { name: 'debit', ...told },
      { name: 'purse', ...told },
    ]);
  });

  test('of a stream that is read by query there is a time and no position', async () => {
    const began = Date.now();
    await using fresh = await freshLine({ source, target }, TABLES, {
      tables: '[{ table: public.debit, replication_method: FULL_TABLE }]',
    });
    await fresh.settle();
    const { rows } = await fresh.to.query<{ as_of: Date } & Record<string, unknown>>(
      'SELECT state, as_of_lsn, as_of, together FROM _sluice.positions',
    );
    expect(rows).toEqual([{ state: 'live', as_of_lsn: null, as_of: expect.any(Date), together: false }]);
    expect(Math.abs((rows[0]?.as_of.getTime() ?? 0) - began)).toBeLessThan(60_000);
  });

  test('what an older version has made is brought up to this one', async () => {
    const fresh = line();
    await fresh.to.query(`DROP VIEW _sluice.positions;
      ALTER TABLE _sluice.streams DROP COLUMN together, DROP COLUMN halt, DROP COLUMN as_of, DROP COLUMN by_query`);
    // Who only reads finds it as it is: verify, and the comparing of chunks.
    const { rows } = await fresh.to.query(
      streamRowSql({ pipeline: fresh.line.pipeline.pipeline, stream: fresh.line.bookmark('public.debit') }, ''),
    );
    expect(streamRowOf({ rows })).toMatchObject({ made: true, together: false, halt: null });
    expect((await verifyLine(fresh)).debit).toMatchObject({ outcome: 'equal' });
    // A role that did not make it is told what gives it the right.
    await fresh.to.query("CREATE ROLE newcomer LOGIN PASSWORD 'x'; GRANT USAGE, CREATE ON SCHEMA _sluice TO newcomer");
    const { host, port } = target;
    const newcomer = async (): Promise<Client> => {
      const client = new Client({ host, port, user: 'newcomer', password: 'x', database: fresh.to.database ?? '' });
      await client.connect();
      return client;
    };
    await expect(withSession(newcomer, { stream: 's', table: 't' }, upgradeControl)).rejects.toMatchObject({
      code: 'TARGET_NOT_ALLOWED',
      remedy: expect.stringContaining('ALTER TABLE _sluice.streams OWNER TO "newcomer"'),
    });
    await fresh.to.query('DROP OWNED BY newcomer; DROP ROLE newcomer');
    fresh.line.restart();
    await move(fresh.from, 1);
    await fresh.equal();
    expect((await positions(fresh.to)).map(({ state }) => state)).toEqual(['live', 'live', 'live']);
  });

  // Last: under its other name the table has been a stream of its own.
  test('tells of a halt that a window has found, as long as it lasts', async () => {
    const fresh = line();
    await fresh.from.query('ALTER TABLE debit RENAME TO another');
    await fresh.line.settle();
    expect((await positions(fresh.to)).find(({ name }) => name === 'debit')).toMatchObject({
      state: 'halted',
      halt: 'TABLE_RENAMED',
    });
    await fresh.from.query('ALTER TABLE another RENAME TO debit');
    await fresh.line.settle();
    expect((await positions(fresh.to)).find(({ name }) => name === 'debit')).toMatchObject({
      state: 'live',
      halt: null,
    });
  });
});
