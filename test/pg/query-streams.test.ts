/**
 * Streams that are read by query alone, from one real server to another: FULL_TABLE, of tables, views, materialized views and foreign tables; the source is asked
 * for nothing but rows.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestResets, resume } from '../../lib/operate.ts';
import { drain } from '../../lib/pipeline.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { openLine } from '../support/line.ts';
import { eventually } from '../support/local-engine.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { makeRole, ROLE, ROLE_PASSWORD, ROLE_SQL } from '../support/source-role.ts';
import { verifyLine } from '../support/verifying.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  // No log is decoded here, and the role may only read.
  [source, target] = await Promise.all([startPostgres({ settings: { wal_level: 'replica' } }), startPostgres()]);
  await makeRole(source, '');
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const READER = { role: { user: ROLE, password: ROLE_PASSWORD } };

const line = (sql: string, tables: string, more: { source?: string; target?: string } = {}): Promise<FreshLine> =>
  freshLine({ source, target }, `${sql}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${ROLE_SQL}`, {
    ...READER,
    ...more,
    tables,
  });

/** Replicates, and compares these tables. */
async function equal(run: FreshLine, ...tables: readonly string[]): Promise<void> {
  await run.settle();
  for (const table of tables) {
    const both = await run.line.both(`public.${table}`);
    expect({ table, ...both }).toEqual({ table, source: both.source, target: both.source });
  }
}

const FULL = "[{ table: 'public.*', replication_method: FULL_TABLE }]";

describe('FULL_TABLE', () => {
  test('a copy at each window: rows that were deleted on the source are gone, and it needs no slot and no right but SELECT', async () => {
    await using run = await line(
      "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, at timestamptz); INSERT INTO t SELECT i, 'v' || i, i / 7.0, now() FROM generate_series(1, 50) i",
      FULL,
    );
    await run.equal();
    await run.from.query(
      "DELETE FROM t WHERE id % 2 = 0; UPDATE t SET v = NULL WHERE id = 1; INSERT INTO t VALUES (99, 'new')",
    );
    await run.equal();
    const { rows: slots } = await run.from.query('SELECT FROM pg_replication_slots');
    const { rows: publications } = await run.from.query('SELECT FROM pg_publication');
    expect([slots, publications]).toEqual([[], []]);
    expect(run.line.durable.chain.map(({ kind }) => kind)).toEqual(['genesis']);
    expect(run.line.bookmark('public.t')).toMatchObject({ state: 'live', method: 'FULL_TABLE', epoch: 2 });
  });

  test('views, materialized views, foreign and partitioned tables, with a key and without one', async () => {
    await using run = await line(
      `CREATE TABLE base (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED);
       INSERT INTO base SELECT i, 'v' || i FROM generate_series(1, 30) i;
       CREATE VIEW v AS SELECT id, v, now()::date AS day FROM base WHERE id < 20;
       CREATE VIEW bag AS SELECT id % 3 AS n FROM base;
       CREATE MATERIALIZED VIEW m AS SELECT id, md5(v) AS digest FROM base;
       CREATE TABLE parts (id int, v text) PARTITION BY RANGE (id);
       CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (10);
       INSERT INTO parts SELECT i, 'p' FROM generate_series(0, 9) i;
       CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (7);
       CREATE TABLE bare (v text); INSERT INTO bare VALUES ('a'), ('a'), (NULL);
       CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
       CREATE FOREIGN TABLE f (line text) SERVER files OPTIONS (program 'printf "one\\ntwo\\n"', format 'text');
       GRANT USAGE ON FOREIGN SERVER files TO PUBLIC; GRANT pg_execute_server_program TO ${ROLE_SQL}`,
      `[{ table: 'public.*', replication_method: FULL_TABLE }, { table: public.v, replication_method: FULL_TABLE, key_properties: [id] }]`,
    );
    const names = ['base', 'v', 'bag', 'm', 'parts', 'u', 'bare', 'f'];
    await equal(run, ...names);
    const { rows: keys } = await run.to.query(
      "SELECT conrelid::regclass::text AS name FROM pg_constraint WHERE contype = 'p' AND connamespace = 'public'::regnamespace ORDER BY 1",
    );
    expect(keys.map(({ name }: { name: string }) => name)).toEqual(['base', 'u', 'v']);
    await run.from.query(
      "INSERT INTO base VALUES (0, 'zero'); REFRESH MATERIALIZED VIEW m; DELETE FROM bare WHERE v IS NULL",
    );
    await equal(run, ...names);
    expect(await run.line.rows('target', 'public.m')).toHaveLength(31);
  });

  test('a window that saw the bookmark of a run that was ending, and its epoch of a moment before, leaves nobody waiting for it', async () => {
    await using run = await line('CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)', FULL);
    await run.settle();
    const { line: l } = run;
    const ports = l.ports();
    // The loader has set the bookmark, and ends the epoch between the window's look at it and what the window makes of that.
    const epoch: typeof ports.ledger.epoch = async (stream, number) => {
      const found = await ports.ledger.epoch(stream, number);
      return found && { ...found, state: 'planned' };
    };
    const once = { run: 'late', owner: 'late', lease_ms: 60_000, deadline_ms: Date.now() + 60_000, runs_since_ms: 0 };
    await drain({ ...ports, ledger: { ...ports.ledger, epoch } }, l.pipeline, once);
    await l.pump();
    // No run is due: what is left must be mended by itself.
    await l.windowWith({ runs_since_ms: 0 });
    await l.pump();
    expect(l.bookmark('public.t')).toMatchObject({ state: 'live', epoch: 1 });
  });

  test('a reset catches up with nothing: there is no log that goes on', async () => {
    await using run = await line("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')", FULL);
    await run.equal();
    await run.from.query("UPDATE t SET v = 'b'");
    await requestResets(run.line.ports(), ['public.t']);
    await run.equal();
    const { rows } = await run.to.query('SELECT catching_up_to, hold, epoch::int4 FROM _sluice.streams');
    expect(rows).toEqual([{ catching_up_to: null, hold: null, epoch: 2 }]);
    expect(run.line.bookmark('public.t')).toMatchObject({ state: 'live', epoch: 2 });
  });

  test('itersize, or batch_fetch_limit, where the file gives it, is about the rows of a chunk', async () => {
    const made =
      'CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 900) i';
    const rowsOf = ({ line: { durable } }: FreshLine): number[] =>
      [...durable.chunks.values()].map(({ staged }) => staged?.rows ?? 0);
    {
      await using run = await line(made, FULL);
      await run.equal();
      expect(rowsOf(run)).toEqual([900]);
    }
    for (const option of ['itersize: 100', 'batch_fetch_limit: 100']) {
      await using run = await line(made, FULL, { source: option });
      await run.equal();
      expect(rowsOf(run).length, option).toBeGreaterThan(7);
      expect(Math.max(...rowsOf(run)), option).toBeLessThan(200);
    }
    // And of the first copy of INCREMENTAL.
    await using run = await line(made, `[{ table: public.t, replication_method: INCREMENTAL, replication_key: id }]`, {
      source: 'itersize: 300',
    });
    await run.equal();
    expect(rowsOf(run).length).toBeGreaterThan(2);
  });

  test('an empty table is a table with no rows', async () => {
    await using run = await line('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE bare (v text)', FULL);
    await run.equal();
    expect(await run.line.rows('target', 'public.t')).toEqual([]);
    expect(await run.line.rows('target', 'public.bare')).toEqual([]);
    await run.from.query("INSERT INTO t VALUES (1, 'x')");
    await run.equal();
    await run.from.query('TRUNCATE t');
    await run.equal();
  });

  test('a column that comes, changes its type, or goes is there with the next copy', async () => {
    await using run = await line(
      "CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t VALUES (1, 'a', 5)",
      FULL,
      { target: 'on_drop_column: drop' },
    );
    await run.equal();
    await run.from.query('ALTER TABLE t ADD COLUMN a int DEFAULT 3, ALTER n TYPE bigint, DROP COLUMN v');
    await run.equal();
    expect(await run.line.columns('target', 'public.t')).toEqual(['a integer', 'id integer', 'n bigint']);
  });

  test('with soft deletes, rows that the source no longer has stay, marked; one that comes back is as any other', async () => {
    await using run = await line(
      "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
      FULL,
      { target: 'hard_delete: false, add_metadata_columns: true' },
    );
    const marked = async () => {
      const { rows } = await run.to.query<{ id: number; v: string; marked: boolean; at: string }>(
        'SELECT id, v, _sdc_deleted_at IS NOT NULL AS marked, _sdc_deleted_at::text AS at FROM t ORDER BY id',
      );
      return rows;
    };
    await run.settle();
    await run.from.query("DELETE FROM t WHERE id = 2; UPDATE t SET v = 'aa' WHERE id = 1");
    await run.settle();
    const first = await marked();
    expect(first.map(({ id, v, marked: m }) => [id, v, m])).toEqual([
      [1, 'aa', false],
      [2, 'b', true],
      [3, 'c', false],
    ]);
    await run.from.query('DELETE FROM t WHERE id = 3');
    await run.settle();
    const second = await marked();
    expect(second.map(({ id, marked: m }) => [id, m])).toEqual([
      [1, false],
      [2, true],
      [3, true],
    ]);
    // Marked when it was seen to be gone, and not again.
    expect(second[1]?.at).toBe(first[1]?.at);
    await run.from.query("INSERT INTO t VALUES (2, 'back')");
    await run.settle();
    expect((await marked()).map(({ id, v, marked: m }) => [id, v, m])).toEqual([
      [1, 'aa', false],
      [2, 'back', false],
      [3, 'c', true],
    ]);
  });

  test('a materialized view that has not been populated is read as soon as it has', async () => {
    await using run = await line('CREATE MATERIALIZED VIEW m AS SELECT 1 AS id WITH NO DATA', FULL);
    await expect(run.settle()).rejects.toThrow('has not been populated');
    await run.from.query('REFRESH MATERIALIZED VIEW m');
    await equal(run, 'm');
  });

  test('a row filter that fails on a row halts the stream, and is called what it is', async () => {
    await using run = await line(
      'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)',
      '[{ table: public.t, replication_method: FULL_TABLE, where: "10 / (id - 3) <> 0 -- or so" }]',
    );
    await expect(run.settle()).rejects.toThrow(/^ROW_FILTER: .*SQLSTATE 22012/);
    run.line.configure({ tables: '[{ table: public.t, replication_method: FULL_TABLE, where: id < 3 }]' });
    await run.settle();
    expect((await run.to.query('SELECT id FROM t ORDER BY id')).rows).toEqual([{ id: 1 }, { id: 2 }]);
  });

  test('a key that does not tell rows apart halts the stream and leaves the table as it was', async () => {
    await using run = await line(
      'CREATE VIEW v AS SELECT i AS id FROM generate_series(1, 3) i',
      '[{ table: public.v, replication_method: FULL_TABLE, key_properties: [id] }]',
    );
    await equal(run, 'v');
    await run.from.query('CREATE OR REPLACE VIEW v AS SELECT i % 2 AS id FROM generate_series(1, 3) i');
    await expect(run.settle()).rejects.toThrow(/TARGET_REJECTS.*unique_violation/s);
    expect(await run.line.rows('target', 'public.v')).toEqual([['1'], ['2'], ['3']]);
    // Mended on the source: what was staged is not, and is not tried again.
    await run.from.query('CREATE OR REPLACE VIEW v AS SELECT i + 10 AS id FROM generate_series(1, 3) i');
    expect(await resume(run.line.ports(), 'public.v')).toMatchObject([{ resumed: true }]);
    await equal(run, 'v');
  });

  test('a first copy that the target refused is made again as one, of an INCREMENTAL stream too', async () => {
    await using run = await line(
      'CREATE VIEW v AS SELECT i % 2 AS id, i AS k FROM generate_series(1, 3) i',
      '[{ table: public.v, replication_method: INCREMENTAL, replication_key: k, key_properties: [id] }]',
    );
    await expect(run.settle()).rejects.toThrow(/TARGET_REJECTS/);
    await run.from.query('CREATE OR REPLACE VIEW v AS SELECT i AS id, i AS k FROM generate_series(1, 3) i');
    await resume(run.line.ports(), 'public.v');
    await equal(run, 'v');
    const kinds = [...run.line.durable.epochs.values()].map(({ kind, state }) => [kind, state]);
    expect(kinds.slice(0, 2)).toEqual([
      ['full_table', 'cancelled'],
      ['full_table', 'done'],
    ]);
  });
});

test('a source that is a standby: both methods, what is committed on the primary comes with the next run', async () => {
  const primary = await source.connect();
  await primary.query(
    `CREATE SCHEMA far; CREATE TABLE far.f (id int PRIMARY KEY, v text); CREATE TABLE far.i (id int PRIMARY KEY, k int); CREATE VIEW far.v AS SELECT id FROM far.f;
     INSERT INTO far.f VALUES (1, 'a'); INSERT INTO far.i VALUES (1, 1)`,
  );
  const standby = await startStandby(source);
  try {
    const { host, port, user, password } = standby;
    await using run = await openLine({
      source: { host, port, user, password, database: 'postgres' },
      target: { ...target, database: 'postgres' },
      config: {
        tables:
          "[{ table: 'far.*', replication_method: FULL_TABLE }, { table: far.i, replication_method: INCREMENTAL, replication_key: k }]",
      },
    });
    const expectEqual = async (): Promise<void> => {
      const { rows } = await primary.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
      const replica = await standby.connect();
      const replayed = async (): Promise<boolean> => {
        const seen = await replica.query<{ done: boolean }>('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done', [
          rows[0]?.lsn,
        ]);
        return seen.rows[0]?.done === true;
      };
      await eventually('the standby has it', replayed);
      await replica.end();
      await run.settle();
      for (const table of ['far.f', 'far.i', 'far.v']) {
        const both = await run.both(table);
        expect({ table, rows: both.target }).toEqual({ table, rows: both.source });
      }
    };
    await expectEqual();
    // A standby has no position of its own to insert at; nobody need wait for one.
    const [from, to] = await Promise.all([standby.connect(), target.connect()]);
    await to.query("UPDATE far.f SET v = 'by hand'");
    const found = await verifyLine({ line: run, from, to }, { named: true });
    expect(Object.values(found).map(({ table, outcome }) => [table, outcome])).toEqual([
      ['far.f', 'different'],
      ['far.i', 'equal'],
      ['far.v', 'equal'],
    ]);
    await Promise.all([from.end(), to.end()]);
    await primary.query(
      "INSERT INTO far.f VALUES (2, 'b'); DELETE FROM far.f WHERE id = 1; INSERT INTO far.i VALUES (2, 2)",
    );
    await expectEqual();
  } finally {
    await primary.query('DROP SCHEMA far CASCADE');
    await primary.end();
    await standby.stop();
  }
}, 60_000);
