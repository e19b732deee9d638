/** The slot is really lost, dropped, or not there after a failover: the streams halt, and a resync over a new slot copies only what differs. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestResync } from '../../lib/operate.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([
    startPostgres({ settings: { max_slot_wal_keep_size: '16MB', min_wal_size: '32MB' } }),
    startPostgres(),
  ]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const haltsOf = ({ durable }: Line): (string | undefined)[] =>
  [...durable.bookmarks.values()].map(({ halt }) => halt?.code);
const logged = ({ log }: Line, event: string) =>
  log.lines.flatMap((line) => (line.event === event ? [line.facts] : []));

/** Windows fail with `code`, and every stream halts with it. */
async function expectLost(line: Line, code: string): Promise<void> {
  await expect(line.window()).rejects.toThrow(code);
  expect(new Set(haltsOf(line))).toEqual(new Set([code]));
}

async function slotOf({ from }: Pick<FreshLine, 'from'>, slot: string): Promise<{ wal_status: string } | undefined> {
  const { rows } = await from.query<{ wal_status: string }>(
    'SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1',
    [slot],
  );
  return rows[0];
}

/** Runs `work`, and a statement again and again beside it; how often it ran. */
async function beside({ pipeline }: Line, sql: (i: number) => string, work: () => Promise<void>): Promise<number> {
  const client = await source.connect(pipeline.source.database);
  let runs = 0;
  let last: Promise<unknown> = Promise.resolve();
  const timer = setInterval(() => {
    const text = sql(++runs);
    last = last.then(() => client.query(text));
  }, 50);
  try {
    await work();
  } finally {
    clearInterval(timer);
    await last;
    await client.end();
  }
  return runs;
}

describe('a slot that the source has given up', () => {
  test('is replaced, and of a table in several chunks those are copied that differ', { timeout: 120_000 }, async () => {
    await using made = await freshLine(
      { source, target },
      `CREATE TABLE big (id int8 PRIMARY KEY, v text);
       INSERT INTO big SELECT i, 'v' || i FROM generate_series(1, 300000) i;
       CREATE TABLE pair (a int4, b uuid, n numeric, PRIMARY KEY (a, b));
       INSERT INTO pair SELECT i, md5(i::text)::uuid, i FROM generate_series(1, 1000) i;
       CREATE TABLE same (d date PRIMARY KEY, v float8);
       INSERT INTO same SELECT date '2026-01-01' + i, i / 3.0 FROM generate_series(1, 100) i;
       CREATE TABLE word (w text COLLATE "und-x-icu" PRIMARY KEY);
       INSERT INTO word VALUES ('a'), ('B'), ('ä');
       CREATE TABLE code (c text COLLATE "C" PRIMARY KEY, v text);
       INSERT INTO code SELECT 'k' || i, CASE WHEN i > 5 THEN i::text END FROM generate_series(1, 20) i;`,
    );
    const { line, from, to } = made;
    await made.equal();
    const { replication_slot: slot } = line.pipeline.source;

    // WHEN more is written than the slot may keep.
    await from.query(`CREATE TABLE filler (v text)`);
    await expect
      .poll(
        async () => {
          await from.query(
            `INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000); SELECT pg_switch_wal()`,
          );
          await from.query('CHECKPOINT');
          return (await slotOf(made, slot))?.wal_status;
        },
        { timeout: 30_000 },
      )
      .toBe('lost');
    await from.query('DROP TABLE filler');
    await from.query(`UPDATE big SET v = 'changed' WHERE id = 299999; DELETE FROM pair WHERE a % 10 = 0;
      UPDATE pair SET a = a + 5000 WHERE a = 7; INSERT INTO word VALUES ('new')`);
    // And the target was changed by hand.
    await to.query(`DELETE FROM big WHERE id = 299998; UPDATE pair SET n = -1 WHERE a = 3;
      INSERT INTO pair VALUES (9999, gen_random_uuid(), 0)`);

    await expectLost(line, 'SLOT_LOST');
    await requestResync({ ledger: line.ledger, log: line.log });
    // Somebody commits now and then: what reading a table writes to the log (pruned pages) is flushed with that.
    await beside(
      line,
      () => 'SELECT txid_current()',
      () => made.equal(),
    );

    const facts = new Map(logged(line, 'epoch_done').map((done) => [String(done?.stream).split('-')[0], done]));
    const big = facts.get('public.big');
    expect(Number(big?.chunks)).toBeGreaterThan(1);
    expect(big).toMatchObject({ kind: 'resync', chunks_equal: Number(big?.chunks) - 1 });
    expect(Number(big?.rows)).toBeLessThan(250_000);
    expect(facts.get('public.pair')).toMatchObject({ kind: 'resync', chunks: 1, chunks_equal: 0 });
    expect(facts.get('public.same')).toMatchObject({ kind: 'resync', chunks: 1, chunks_equal: 1, rows: 0 });
    expect(facts.get('public.code')).toMatchObject({ kind: 'resync', chunks_equal: 1 });
    // In another order on another server, perhaps: copied anew, and said so.
    expect(facts.get('public.word')).toMatchObject({ kind: 'reset' });
    expect(logged(line, 'resync_copies_anew')).toEqual([
      expect.objectContaining({ reason: expect.stringContaining('collation') }),
    ]);
    expect((await slotOf(made, slot))?.wal_status).toBe('reserved');

    // And it goes on by the log.
    await from.query(`UPDATE same SET v = NULL WHERE d < '2026-01-09'; DELETE FROM big WHERE id < 10`);
    await made.equal();
    expect(line.durable.chain.at(-1)?.object).not.toBeNull();
  });
});

describe('a slot that was dropped', () => {
  const drop = async ({ from, line }: FreshLine): Promise<void> => {
    await from.query('SELECT pg_drop_replication_slot($1)', [line.pipeline.source.replication_slot]);
  };
  const resync = async ({ line }: FreshLine): Promise<void> => {
    await expectLost(line, 'SLOT_MISSING');
    await requestResync({ ledger: line.ledger, log: line.log });
  };

  test('while tables were truncated, altered, dropped and made, and under writes', { timeout: 60_000 }, async () => {
    await using made = await freshLine(
      { source, target },
      `CREATE TABLE emptied (id int4 PRIMARY KEY, v text); INSERT INTO emptied SELECT i, i FROM generate_series(1, 50) i;
       CREATE TABLE grown (id int4 PRIMARY KEY, v text); INSERT INTO grown VALUES (1, 'a');
       CREATE TABLE behind (id int4 PRIMARY KEY, v text); INSERT INTO behind SELECT i, i FROM generate_series(1, 50) i;
       CREATE TABLE remade (id int4 PRIMARY KEY, v text); INSERT INTO remade VALUES (1, 'a');`,
    );
    await made.settle();
    const { from, line } = made;
    // Recorded, and not applied.
    await from.query(`UPDATE behind SET v = 'recorded' WHERE id < 10`);
    await line.window();
    line.durable.loadBells.length = 0;
    await drop(made);
    await from.query(`TRUNCATE emptied; ALTER TABLE grown ADD COLUMN w int4 DEFAULT 7;
      UPDATE behind SET v = 'unrecorded' WHERE id BETWEEN 5 AND 15; DELETE FROM behind WHERE id > 40;
      DROP TABLE remade; CREATE TABLE remade (id int4 PRIMARY KEY, v text); INSERT INTO remade VALUES (2, 'b');
      CREATE TABLE fresh (id int4 PRIMARY KEY); INSERT INTO fresh VALUES (1)`);
    await resync(made);
    const writes = await beside(
      line,
      (i) => `INSERT INTO behind VALUES (${1000 + i}, 'live'); UPDATE behind SET v = v || '.' WHERE id = 1`,
      () => line.settle(),
    );
    expect(writes).toBeGreaterThan(2);
    await made.equal();
    const kinds = new Map(logged(line, 'epoch_done').map((done) => [String(done?.stream).split('-')[0], done?.kind]));
    expect(Object.fromEntries(kinds)).toMatchObject({
      'public.emptied': 'resync',
      'public.grown': 'reset',
      'public.behind': 'resync',
      'public.remade': 'resync',
      'public.fresh': 'first_sync',
    });
  });

  test('with soft deletes: rows that went meanwhile are marked, and those that were marked are no difference', async () => {
    await using made = await freshLine(
      { source, target },
      `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;
       CREATE TABLE quiet (id int4 PRIMARY KEY); INSERT INTO quiet SELECT generate_series(1, 20);`,
      { target: 'hard_delete: false, add_metadata_columns: true' },
    );
    const { from, to, line } = made;
    await made.settle();
    await from.query(`DELETE FROM t WHERE id = 1; DELETE FROM quiet WHERE id = 2`);
    await made.settle();
    await drop(made);
    await from.query(`DELETE FROM t WHERE id = 3; UPDATE t SET v = 'x' WHERE id = 4`);
    await resync(made);
    await made.settle();
    const { rows } = await to.query(
      `SELECT id, v, _sdc_deleted_at IS NOT NULL AS gone FROM t WHERE id < 5 ORDER BY id`,
    );
    expect(rows).toEqual([
      { id: 1, v: '1', gone: true },
      { id: 2, v: '2', gone: false },
      { id: 3, v: '3', gone: true },
      { id: 4, v: 'x', gone: false },
    ]);
    const quiet = logged(line, 'epoch_done').findLast((done) => String(done?.stream).startsWith('public.quiet'));
    expect(quiet).toMatchObject({ kind: 'resync', chunks_equal: 1, rows: 0 });
  });

  test('of tables of which the file hides something: what is not there is no difference', async () => {
    await using made = await freshLine(
      { source, target },
      `CREATE TABLE part (id int4 PRIMARY KEY, secret text, gone text, told text, v int4);
       INSERT INTO part SELECT i, 's' || i, 'g' || i, 't' || i, i FROM generate_series(1, 30) i;
`,
      {
        tables: `[{ table: public.part, columns: { exclude: [gone] }, mask: { secret: "null", told: redact }, where: 'id % 2 = 0' }]`,
      },
    );
    const { from, to, line } = made;
    await made.settle();
    await drop(made);
    await from.query(
      `UPDATE part SET secret = 'other', gone = 'other', told = 'other' WHERE id = 2; DELETE FROM part WHERE id = 3`,
    );
    await resync(made);
    await made.settle();
    expect(logged(line, 'resync_copies_anew')).toEqual([]);
    expect(logged(line, 'epoch_done').at(-1)).toMatchObject({ kind: 'resync', chunks_equal: 1, rows: 0 });
    await drop(made);
    await from.query(
      'UPDATE part SET v = 100 WHERE id = 4; UPDATE part SET v = 101 WHERE id = 5; DELETE FROM part WHERE id = 8',
    );
    await resync(made);
    await made.settle();
    expect(logged(line, 'epoch_done').at(-1)).toMatchObject({ kind: 'resync', chunks_equal: 0 });
    // WHEN the target alone differs: rows that the filter leaves out, values that a mask hides.
    await drop(made);
    await to.query(
      `INSERT INTO part (id, v) VALUES (7, 7), (9, 9); UPDATE part SET secret = 'leaked', told = 'leaked' WHERE id = 2`,
    );
    await resync(made);
    await made.settle();
    expect(logged(line, 'epoch_done').at(-1)).toMatchObject({ kind: 'resync', chunks_equal: 0 });
    const { rows } = await to.query<{ id: number; v: number }>('SELECT * FROM part WHERE id < 11 ORDER BY id');
    expect(rows.map(({ id, v }) => [id, v])).toEqual([
      [2, 2],
      [4, 100],
      [6, 6],
      [10, 10],
    ]);
    expect(rows[0]).toMatchObject({ secret: null, told: '[redacted]' });
    expect(Object.keys(rows[0] ?? {})).not.toContain('gone');
  });

  test('of a table with a hashed column: it is copied anew, for nobody can compare', async () => {
    await using made = await freshLine(
      { source, target },
      `CREATE TABLE hashed (id int4 PRIMARY KEY, secret text); INSERT INTO hashed VALUES (1, 'a'), (2, NULL);`,
      { tables: `[{ table: public.hashed, mask: { secret: hash } }]` },
    );
    await made.settle();
    const hashOf = async ({ to }: FreshLine): Promise<unknown> =>
      (await to.query<{ secret: string }>('SELECT secret FROM hashed WHERE id = 1')).rows[0]?.secret;
    const before = await hashOf(made);
    expect(before).toMatch(/^[0-9a-f]{64}$/);
    await drop(made);
    await made.from.query(`UPDATE hashed SET secret = 'b' WHERE id = 1`);
    await resync(made);
    await made.settle();
    expect(logged(made.line, 'resync_copies_anew')).toEqual([
      expect.objectContaining({ reason: expect.stringContaining('hash') }),
    ]);
    expect(await hashOf(made)).not.toBe(before);
  });

  test('of tables without a key: they are copied anew', async () => {
    await using made = await freshLine(
      { source, target },
      `CREATE TABLE bag (v int4); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES (1), (1), (2);
       CREATE TABLE added (v int4); INSERT INTO added VALUES (1);`,
      { target: 'primary_key_required: false' },
    );
    await made.equal();
    await drop(made);
    await made.from.query(`DELETE FROM bag WHERE v = 2; INSERT INTO bag VALUES (3); INSERT INTO added VALUES (2)`);
    await resync(made);
    await made.equal();
    expect(logged(made.line, 'resync_copies_anew')).toHaveLength(2);
    await made.from.query(`DELETE FROM bag WHERE v = 3; INSERT INTO added VALUES (4)`);
    await made.equal();
  });
});

describe('a promoted standby without the slot', () => {
  test('is taken for the source when that is asked for, and loses what it lacks', { timeout: 60_000 }, async () => {
    await using primary = await startPostgres();
    await using standby = await startStandby(primary);
    const at = { ...placeOf(primary), database: 'postgres' };
    const old = await primary.connect();
    await old.query(`CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i;
      CREATE TABLE same (id int4 PRIMARY KEY); INSERT INTO same VALUES (1)`);
    const to = await target.connect();
    await to.query('CREATE DATABASE promoted');
    await to.end();
    await using line = await openLine({
      source: at,
      target: { ...placeOf(target), database: 'promoted' },
      pipeline: 'promoted',
    });
    await line.settle();
    const { rows } = await old.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
    const now = await standby.connect();
    await expect
      .poll(
        async () => (await now.query(`SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there`, [rows[0]?.lsn])).rows[0],
        {
          timeout: 20_000,
        },
      )
      .toEqual({ there: true });

    // WHEN the primary goes, with changes that were replicated and that the standby never got; and the standby is promoted and written to.
    await now.query('SELECT pg_wal_replay_pause()');
    await old.query(
      `UPDATE t SET v = 'lost with the primary' WHERE id = 1; INSERT INTO t VALUES (500, 'lost as well')`,
    );
    await line.settle();
    await old.end();
    await primary.stop();
    await standby.restart({ primary_conninfo: 'host=127.0.0.1 port=1' });
    const promoted = await standby.connect();
    await promoted.query('SELECT pg_promote()');
    await promoted.query(`UPDATE t SET v = 'after the promotion' WHERE id = 2`);
    Object.assign(at, placeOf(standby));

    await expect(line.window()).rejects.toThrow(/SLOT_MISSING|CLUSTER_BEHIND/);
    expect(haltsOf(line)).toEqual([expect.any(String), expect.any(String)]);
    await requestResync({ ledger: line.ledger, log: line.log });
    await line.settle();
    expect(haltsOf(line)).toEqual([undefined, undefined]);
    const read = async (client: typeof promoted) => (await client.query('SELECT id, v FROM t ORDER BY id')).rows;
    const there = await target.connect('promoted');
    expect(await read(there)).toEqual(await read(promoted));
    expect(line.durable.chain.at(-1)?.timeline).toBe(2);
    await Promise.all([there.end(), promoted.end(), now.end().catch(() => undefined)]);
  });
});

function placeOf({ host, port, user, password }: TestPostgres) {
  return { host, port, user, password };
}
