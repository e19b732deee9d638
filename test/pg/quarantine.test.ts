/**
 * Rows that the target refuses (target.on_error), on real servers: with `quarantine` they are put aside and all others are applied; with `halt` the stream says which.
 */
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestBackfills } from '../../lib/epoch/backfill.ts';
import { requestResets, resume } from '../../lib/operate.ts';
import { listRejects, loadRejects, readRejects, type ShownReject } from '../../lib/validation/rejects.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { Crash } from '../support/memory-ports.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const QUARANTINE = 'on_error: quarantine';

/** More than a load of one stream makes that change something in the stage, the ledger and the queue. */
const CALLS = 9;

/** A line of which the first copy is in. */
async function synced(sql: string, options: { target?: string; tables?: string } = {}): Promise<FreshLine> {
  const line = await freshLine({ source, target }, sql, { target: QUARANTINE, ...options });
  await line.settle();
  return line;
}

async function rejects({ line }: FreshLine, table: string): Promise<ShownReject[]> {
  const rows: ShownReject[] = [];
  for await (const row of readRejects(line.ports(), table)) rows.push(row);
  return rows;
}

const keysOf = async (fresh: FreshLine, table: string): Promise<string[]> =>
  (await rejects(fresh, table)).map(({ key }) => key.values.join('/')).toSorted();

const query = async (client: FreshLine['to'], sql: string): Promise<Record<string, unknown>[]> =>
  (await client.query<Record<string, unknown>>(sql)).rows;

const ids = async ({ to }: FreshLine, sql: string): Promise<unknown[]> =>
  (await query(to, sql)).map((row) => Object.values(row)[0]);

describe('target.on_error: quarantine', () => {
  test('a few of many rows are put aside, each with its reason; the others are applied (target.on_error, target.quarantine_rows_max)', async () => {
    await using fresh = await synced('CREATE TABLE t (id int PRIMARY KEY, v int, w text)');
    await fresh.to.query(
      `ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000); ALTER TABLE t ADD CONSTRAINT one UNIQUE (w)`,
    );
    await fresh.from.query(`INSERT INTO t SELECT i, i % 900, 'w' || i FROM generate_series(1, 3000) i;
      UPDATE t SET v = 5000 WHERE id IN (7, 1500, 2999); UPDATE t SET w = 'w1' WHERE id = 11`);
    await fresh.settle();
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([2996]);
    expect(await ids(fresh, 'SELECT id FROM t WHERE id IN (7, 11, 1500, 2999)')).toEqual([]);
    const rows = (await rejects(fresh, 'public.t')).toSorted(
      (a, b) => Number(a.key.values[0]) - Number(b.key.values[0]),
    );
    expect(rows.map(({ key, operation, faults }) => [key.values, operation, faults[0]?.keyword])).toEqual([
      [['7'], 'write', 'check_violation'],
      [['11'], 'write', 'unique_violation'],
      [['1500'], 'write', 'check_violation'],
      [['2999'], 'write', 'check_violation'],
    ]);
    expect(rows[0]).toMatchObject({
      key: { columns: ['id'] },
      row: { id: '7', v: '5000', w: 'w7' },
      faults: [{ wants: 'is refused by the target: check_violation at table t, constraint small (SQLSTATE 23514)' }],
    });
    expect(await listRejects(fresh.line.ledger)).toMatchObject([{ table: 'public.t', rows: 4 }]);
  });

  test('a later good version supersedes what waits; a deletion ends it; a change that leaves values out joins it', async () => {
    await using fresh = await synced(`CREATE TABLE t (id int PRIMARY KEY, v int, long text);
      ALTER TABLE t ALTER long SET STORAGE EXTERNAL;
      INSERT INTO t SELECT i, i, repeat('a', 9000) FROM generate_series(1, 4) i`);
    await fresh.to.query('ALTER TABLE t ADD CONSTRAINT small CHECK (v < 1000)');
    await fresh.from.query("UPDATE t SET v = 5000, long = repeat('b', 9000) WHERE id < 4");
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['1', '2', '3']);
    // It leaves `long` out: beside the old value it would be a row that the source never had.
    await fresh.from.query('UPDATE t SET v = 10 WHERE id = 1');
    await fresh.settle();
    expect(await query(fresh.to, 'SELECT id, v, left(long, 1) AS l FROM t ORDER BY id')).toEqual([
      { id: 1, v: 1, l: 'a' },
      { id: 2, v: 2, l: 'a' },
      { id: 3, v: 3, l: 'a' },
      { id: 4, v: 4, l: 'a' },
    ]);
    expect((await rejects(fresh, 'public.t')).map(({ key, faults }) => [key.values[0], faults[0]?.keyword])).toEqual([
      ['2', 'check_violation'],
      ['3', 'check_violation'],
      ['1', 'unchanged'],
    ]);
    await fresh.from.query("DELETE FROM t WHERE id = 2; UPDATE t SET v = 30, long = repeat('c', 9000) WHERE id = 3");
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['1']);
    // Read again by its key.
    await loadRejects({ ...fresh.line.ports(), ledger: fresh.line.ledger }, fresh.line.pipeline, 'public.t');
    await fresh.equal();
    expect(await listRejects(fresh.line.ledger)).toEqual([]);
    expect(await query(fresh.to, 'SELECT * FROM _sluice.quarantine')).toEqual([]);
  });
});

describe('what a row can be refused for', () => {
  const REFUSED: readonly (readonly [what: string, on_target: string, reason: string])[] = [
    ['a CHECK', 'ALTER TABLE t ADD CHECK (v <> 13)', 'check_violation'],
    ['NOT NULL', 'ALTER TABLE t ALTER w SET NOT NULL', 'not_null_violation'],
    ['a unique index', 'CREATE UNIQUE INDEX ON t (u)', 'unique_violation'],
    [
      'a foreign key',
      'CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(0, 12); ALTER TABLE t ADD FOREIGN KEY (v) REFERENCES p',
      'foreign_key_violation',
    ],
    [
      'a foreign key that is deferred',
      'CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(0, 12); ALTER TABLE t ADD FOREIGN KEY (v) REFERENCES p DEFERRABLE INITIALLY DEFERRED',
      'foreign_key_violation',
    ],
    ['a deferred unique', 'ALTER TABLE t ADD UNIQUE (u) DEFERRABLE INITIALLY DEFERRED', 'unique_violation'],
    ['an exclusion', 'ALTER TABLE t ADD EXCLUDE USING btree (u WITH =)', 'exclusion_violation'],
    [
      'a trigger',
      "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 13 THEN RAISE 'no %', NEW.w; END IF; RETURN NEW; END $$; CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
      'raise_exception',
    ],
    [
      'a trigger with an error code of its own',
      "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 13 THEN RAISE 'no' USING ERRCODE = 'ZX001'; END IF; RETURN NEW; END $$; CREATE TRIGGER f AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
      'error of class ZX',
    ],
    [
      'a deferred trigger',
      "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 13 THEN RAISE 'no'; END IF; RETURN NEW; END $$; CREATE CONSTRAINT TRIGGER f AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()",
      'raise_exception',
    ],
    ['a type', 'ALTER TABLE t ALTER x TYPE int USING 0', 'invalid_text_representation'],
    ['the size of a type', 'ALTER TABLE t ALTER x TYPE varchar(3)', 'string_data_right_truncation'],
    ['a domain', "CREATE DOMAIN d AS text CHECK (VALUE <> 'wrong'); ALTER TABLE t ALTER x TYPE d", 'check_violation'],
    ['an index that cannot hold it', 'CREATE INDEX ON t (big)', 'program_limit_exceeded'],
    [
      'what a generated column computes',
      'ALTER TABLE t ADD g int GENERATED ALWAYS AS (1 / (v - 13)) STORED',
      'division_by_zero',
    ],
  ];

  test('each puts its row aside, and that comes in when it is mended', { timeout: 60_000 }, async () => {
    const tables = REFUSED.map((_, i) => `t${i}`);
    const all = (sql: (table: string) => string): string => tables.map(sql).join('; ');
    await using fresh = await synced(
      all((t) => `CREATE TABLE ${t} (id int PRIMARY KEY, v int, w text, u int, x text, big text)`),
    );
    await fresh.to.query(
      REFUSED.map(
        ([, sql], i) => `SET search_path = s${i}, public; CREATE SCHEMA s${i}; ${sql.replaceAll(/\bt\b/g, `t${i}`)}`,
      ).join('; '),
    );
    // The thirteenth is wrong in every way.
    const big = "(SELECT string_agg(md5(j::text), '') FROM generate_series(1, 400) j)";
    await fresh.from.query(
      all(
        (t) => `INSERT INTO ${t} SELECT i, i % 13, 'w', i, '7', 'b' FROM generate_series(1, 200) i;
          UPDATE ${t} SET v = 13, w = NULL, u = 1, x = 'wrong', big = ${big} WHERE id = 13`,
      ),
    );
    await fresh.settle();
    const found = await Promise.all(
      tables.map(async (t) =>
        (await rejects(fresh, `public.${t}`)).map(({ key, faults }) => [key.values[0], faults[0]?.keyword]),
      ),
    );
    expect(found).toEqual(REFUSED.map(([, , reason]) => [['13', reason]]));
    const counts = (): Promise<unknown[]> =>
      ids(fresh, tables.map((t) => `SELECT count(*)::int FROM public.${t}`).join(' UNION ALL '));
    expect(await counts()).toEqual(tables.map(() => 199));
    // Mended on the source, it comes by the log as any other.
    await fresh.from.query(all((t) => `UPDATE ${t} SET v = 1, w = 'w', u = 13, x = '7', big = 'b' WHERE id = 13`));
    await fresh.settle();
    expect(await counts()).toEqual(tables.map(() => 200));
    expect(await listRejects(fresh.line.ledger)).toEqual([]);
    expect(await query(fresh.to, 'SELECT * FROM _sluice.quarantine')).toEqual([]);
  });

  test('rows that lean on each other are not refused for that: a tree, its leaves first', async () => {
    await using fresh = await synced('CREATE TABLE t (id int PRIMARY KEY, up int, v int)');
    await fresh.to.query('ALTER TABLE t ADD CHECK (v <> 13), ADD FOREIGN KEY (up) REFERENCES t');
    // Children first, and a few that are refused in the midst; what hangs on one of these is refused as well.
    await fresh.from.query(`INSERT INTO t SELECT i, CASE WHEN i = 60 THEN NULL ELSE i + 1 END, 0 FROM generate_series(1, 60) i;
      INSERT INTO t VALUES (1000, NULL, 13), (1001, 1000, 1), (1002, 5, 13)`);
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['1000', '1001', '1002']);
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([60]);
  });

  test('a deletion', async () => {
    await using fresh = await synced(
      'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 50)',
    );
    await fresh.to.query('CREATE TABLE c (t int REFERENCES t); INSERT INTO c VALUES (7)');
    await fresh.from.query('DELETE FROM t WHERE id < 40');
    await fresh.settle();
    expect((await rejects(fresh, 'public.t')).map(({ key, operation }) => [key.values[0], operation])).toEqual([
      ['7', 'delete'],
    ]);
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([12]);
    await fresh.to.query('DELETE FROM c');
    await loadRejects({ ...fresh.line.ports(), ledger: fresh.line.ledger }, fresh.line.pipeline, 'public.t');
    await fresh.equal();
  });

  test('a change of key', async () => {
    await using fresh =
      await synced(`CREATE TABLE t (id int PRIMARY KEY, v int, long text); ALTER TABLE t ALTER long SET STORAGE EXTERNAL;
      INSERT INTO t SELECT i, i, repeat('a', 9000) FROM generate_series(1, 9) i`);
    await fresh.to.query('ALTER TABLE t ADD CHECK (id < 100)');
    await fresh.from.query('UPDATE t SET id = id + 94');
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['100', '101', '102', '103']);
    expect(await ids(fresh, 'SELECT id FROM t ORDER BY 1')).toEqual([95, 96, 97, 98, 99]);
    // It moves on, without the long value: nobody on the target has that.
    await fresh.from.query('UPDATE t SET id = 50 WHERE id = 100');
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['101', '102', '103', '50']);
    await loadRejects({ ...fresh.line.ports(), ledger: fresh.line.ledger }, fresh.line.pipeline, 'public.t');
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['101', '102', '103']);
    expect(await query(fresh.to, 'SELECT id, v, length(long) AS l FROM t WHERE id = 50')).toEqual([
      { id: 50, v: 6, l: 9000 },
    ]);
  });
});

describe('what is no row’s fault halts', () => {
  test('more than target.quarantine_rows_max', async () => {
    await using fresh = await synced(
      'CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE o (id int PRIMARY KEY)',
      {
        target: `${QUARANTINE}, quarantine_rows_max: 5`,
      },
    );
    await fresh.to.query('ALTER TABLE t ADD CONSTRAINT small CHECK (v < 10)');
    await fresh.from.query(
      'INSERT INTO t SELECT i, 1 FROM generate_series(1, 100) i; UPDATE t SET v = 20 WHERE id <= 5',
    );
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toHaveLength(5);
    await fresh.from.query('UPDATE t SET v = 20 WHERE id = 6; INSERT INTO o VALUES (1)');
    await expect(fresh.settle()).rejects.toThrow(
      /QUARANTINE_FULL: .*more than 5 rows of public\.t\S* .*constraint small/,
    );
    expect(await ids(fresh, 'SELECT id FROM o')).toEqual([1]);
    expect(await keysOf(fresh, 'public.t')).toHaveLength(5);
  });

  test.each([
    ['a missing column', 'ALTER TABLE t DROP v', /TARGET_REJECTS: .*undefined_column/],
    ['an identity', 'ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY', /TARGET_REJECTS: .*generated_always/],
    [
      'a policy',
      'CREATE ROLE loader LOGIN; ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY',
      null,
    ],
  ])('%s', async (_what, on_target, halt) => {
    await using fresh = await synced('CREATE TABLE t (id int PRIMARY KEY, v int)');
    await fresh.to.query(on_target);
    await fresh.from.query('INSERT INTO t SELECT i, 1 FROM generate_series(1, 2000) i');
    // Superusers pass every policy.
    if (halt === null) await fresh.equal();
    else await expect(fresh.settle()).rejects.toThrow(halt);
    expect(await rejects(fresh, 'public.t')).toEqual([]);
  });

  test('a table without a key', async () => {
    await using fresh = await synced('CREATE TABLE t (v int); ALTER TABLE t REPLICA IDENTITY FULL', {
      target: `${QUARANTINE}, primary_key_required: false`,
    });
    await fresh.to.query('ALTER TABLE t ADD CHECK (v < 10)');
    await fresh.from.query('INSERT INTO t VALUES (1), (20)');
    await expect(fresh.settle()).rejects.toThrow(/TARGET_REJECTS/);
    expect(await rejects(fresh, 'public.t')).toEqual([]);
  });
});

describe('target.on_error: halt', () => {
  test('names table, key and reason, and nothing else of the row; the others go on, and resume applies all in order', async () => {
    await using fresh = await synced(
      'CREATE TABLE t (id int, b text, v text, PRIMARY KEY (id, b)); CREATE TABLE o (id int PRIMARY KEY)',
      {
        target: 'on_error: halt',
      },
    );
    await fresh.to.query("ALTER TABLE t ADD CONSTRAINT plain CHECK (v <> 'canary-51')");
    await fresh.from.query(
      `INSERT INTO t SELECT i, 'b', 'v' FROM generate_series(1, 500) i; UPDATE t SET v = 'canary-51' WHERE id = 321; INSERT INTO o VALUES (1)`,
    );
    await expect(fresh.settle()).rejects.toThrow(
      /TARGET_REJECTS: The target refuses the row id = 321, b = b of public\.t\S* in cut \d+: check_violation at table t, constraint plain \(SQLSTATE 23514\)/,
    );
    expect(inspect([fresh.line.bookmark('public.t'), fresh.line.log.lines], { depth: 9 })).not.toContain('canary-51');
    expect(await ids(fresh, 'SELECT id FROM o')).toEqual([1]);
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([0]);
    await fresh.from.query("UPDATE t SET v = 'later' WHERE id = 1");
    await fresh.line.settle();
    await fresh.to.query('ALTER TABLE t DROP CONSTRAINT plain');
    await resume({ ...fresh.line.ports(), ledger: fresh.line.ledger }, 'public.t');
    await fresh.equal();
  });

  test('what waits from before is not mixed with what comes (target.on_error)', async () => {
    await using fresh =
      await synced(`CREATE TABLE t (id int PRIMARY KEY, v int, long text); ALTER TABLE t ALTER long SET STORAGE EXTERNAL;
      INSERT INTO t VALUES (1, 1, repeat('a', 9000))`);
    await fresh.to.query('ALTER TABLE t ADD CHECK (v < 10)');
    await fresh.from.query("UPDATE t SET v = 20, long = repeat('b', 9000)");
    await fresh.settle();
    fresh.line.configure({ target: 'on_error: halt' });
    await fresh.from.query('UPDATE t SET v = 2');
    await fresh.settle();
    expect(await query(fresh.to, 'SELECT v, left(long, 1) AS l FROM t')).toEqual([{ v: 1, l: 'a' }]);
    expect((await rejects(fresh, 'public.t')).map(({ faults }) => faults[0]?.keyword)).toEqual(['unchanged']);
    await fresh.from.query("UPDATE t SET long = repeat('c', 9000)");
    await fresh.equal();
    expect(await rejects(fresh, 'public.t')).toEqual([]);
  });
});

describe('copies (target.on_error: quarantine)', () => {
  test('a table that stays is filled but for what it refuses, and what waited before is forgotten with the copy', async () => {
    await using fresh = await synced(
      'CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 1 FROM generate_series(1, 2000) i',
    );
    await fresh.to.query('ALTER TABLE t ADD CHECK (v < 10)');
    await fresh.from.query('UPDATE t SET v = 20 WHERE id IN (5, 1200); ALTER TABLE t ADD w int DEFAULT 7');
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['1200', '5']);
    await fresh.from.query('UPDATE t SET v = 2 WHERE id = 5; UPDATE t SET v = 30 WHERE id = 1999');
    await fresh.settle();
    await requestResets({ ...fresh.line.ports(), ledger: fresh.line.ledger }, ['public.t']);
    await fresh.settle();
    expect(
      (await rejects(fresh, 'public.t')).map(({ key, operation }) => `${key.values[0]} ${operation}`).toSorted(),
    ).toEqual(['1200 copy', '1999 copy']);
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([1998]);
    expect(await ids(fresh, 'SELECT count(*)::int FROM _sluice.quarantine')).toEqual([2]);
    await fresh.to.query('ALTER TABLE t DROP CONSTRAINT t_v_check');
    await loadRejects({ ...fresh.line.ports(), ledger: fresh.line.ledger }, fresh.line.pipeline, 'public.t');
    await fresh.equal();
  });

  test('with halt the row is named, and resume goes on', async () => {
    await using fresh = await synced(
      'CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 1 FROM generate_series(1, 2000) i',
      {
        target: 'on_error: halt',
      },
    );
    await fresh.to.query('CREATE VIEW w AS SELECT * FROM t');
    await requestResets({ ...fresh.line.ports(), ledger: fresh.line.ledger }, ['public.t']);
    await fresh.line.window();
    await fresh.to.query('ALTER TABLE t ADD CONSTRAINT small CHECK (id <> 1234 AND v > 0) NOT VALID');
    await expect(fresh.settle()).rejects.toThrow(
      /TARGET_REJECTS: The target refuses the row id = 1234 of .*constraint small/,
    );
    await fresh.to.query('ALTER TABLE t DROP CONSTRAINT small');
    await resume({ ...fresh.line.ports(), ledger: fresh.line.ledger }, 'public.t');
    await fresh.equal();
  });

  test('rows of a backfill, in place', async () => {
    await using fresh = await synced(
      'CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 500) i',
    );
    await fresh.to.query('UPDATE t SET v = 0; ALTER TABLE t ADD CHECK (v < 400)');
    await requestBackfills(fresh.line.ports(), ['public.t'], 'id > 390', async () => {});
    await fresh.settle();
    expect((await keysOf(fresh, 'public.t')).length).toBe(101);
    expect(await ids(fresh, 'SELECT sum(v)::int FROM t')).toEqual([
      391 + 392 + 393 + 394 + 395 + 396 + 397 + 398 + 399,
    ]);
    // What was refused is not mixed with what comes, and what is good ends it.
    await fresh.from.query('UPDATE t SET v = 1 WHERE id > 390');
    await fresh.settle();
    expect(await rejects(fresh, 'public.t')).toEqual([]);
    expect(await ids(fresh, 'SELECT sum(v)::int FROM t')).toEqual([110]);
  });

  test('runs of FULL_TABLE and INCREMENTAL', async () => {
    await using fresh = await synced(
      'CREATE TABLE f (id int PRIMARY KEY, v int); CREATE TABLE i (id int PRIMARY KEY, v int); INSERT INTO f VALUES (1, 1); INSERT INTO i VALUES (1, 1)',
      {
        tables:
          '[{ table: public.f, replication_method: FULL_TABLE }, { table: public.i, replication_method: INCREMENTAL, replication_key: id }]',
      },
    );
    await fresh.to.query('ALTER TABLE f ADD CHECK (v < 10); ALTER TABLE i ADD CHECK (v < 10)');
    await fresh.from.query('INSERT INTO f VALUES (2, 20), (3, 3); INSERT INTO i VALUES (2, 20), (3, 3)');
    await fresh.line.window();
    await fresh.line.pump();
    await fresh.line.window();
    await fresh.line.pump();
    for (const table of ['f', 'i']) {
      expect(await ids(fresh, `SELECT id FROM ${table} ORDER BY 1`)).toEqual([1, 3]);
      expect([...new Set(await keysOf(fresh, `public.${table}`))]).toEqual(['2']);
    }
  });
});

describe('consistency: transaction', () => {
  const PARENTS = `CREATE TABLE a_child (id int PRIMARY KEY, p int); CREATE TABLE parent (id int PRIMARY KEY, v int);
    INSERT INTO parent SELECT i, 1 FROM generate_series(1, 20) i; INSERT INTO a_child SELECT i, i FROM generate_series(1, 10) i`;
  const REFERS =
    'ALTER TABLE a_child ADD CONSTRAINT refers FOREIGN KEY (p) REFERENCES parent DEFERRABLE INITIALLY DEFERRED';

  test('only what is refused stays behind; all tables go on at one commit', async () => {
    await using fresh = await synced(PARENTS, { target: `${QUARANTINE}, consistency: transaction` });
    await fresh.to.query(`${REFERS}; ALTER TABLE parent ADD CHECK (v < 10)`);
    // A parent that is refused, and with it its child; a child that comes before its parent; both that go.
    await fresh.from.query(`BEGIN; INSERT INTO a_child VALUES (30, 30), (31, 31); INSERT INTO parent VALUES (30, 30), (31, 1);
      DELETE FROM a_child WHERE id = 3; DELETE FROM parent WHERE id = 3; COMMIT`);
    await fresh.settle();
    expect([await keysOf(fresh, 'public.a_child'), await keysOf(fresh, 'public.parent')]).toEqual([['30'], ['30']]);
    expect(await ids(fresh, 'SELECT id FROM a_child WHERE id > 2 AND id < 5 OR id > 10')).toEqual([4, 31]);
    expect(await ids(fresh, 'SELECT together FROM _sluice.streams')).toEqual([true, true]);
    await fresh.from.query('UPDATE parent SET v = 2 WHERE id = 30; UPDATE a_child SET p = 30');
    await fresh.equal();
    expect(await listRejects(fresh.line.ledger)).toEqual([]);
  });

  test('with halt, a row that is refused at the commit because of a stream that waits halts its own stream, and nobody tries without end', async () => {
    await using fresh = await freshLine({ source, target }, PARENTS, {
      target: 'on_error: halt, consistency: transaction',
    });
    await fresh.settle();
    await fresh.to.query(`${REFERS}; ALTER TABLE a_child ADD CONSTRAINT small CHECK (id < 100)`);
    await fresh.from.query('INSERT INTO a_child VALUES (100, 1)');
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.a_child').halt).toMatchObject({ code: 'TARGET_REJECTS' });
    // Its child stays on the target as long as that waits.
    await fresh.from.query('DELETE FROM a_child WHERE id = 5; DELETE FROM parent WHERE id = 5');
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.parent').halt?.message).toMatch(/the row id = 5 of .*constraint refers/);
    await fresh.to.query('ALTER TABLE a_child DROP CONSTRAINT small');
    for (const table of ['public.a_child', 'public.parent']) {
      await resume({ ...fresh.line.ports(), ledger: fresh.line.ledger }, table);
    }
    await fresh.equal();
  });
});

test('a process that dies at any call leaves no row out and none twice (target.on_error: quarantine)', {
  timeout: 120_000,
}, async () => {
  await using fresh = await synced(
    `CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 1 FROM generate_series(1, 20) i`,
  );
  await fresh.to.query('ALTER TABLE t ADD CHECK (v < 10)');
  const { line, from } = fresh;
  let tried = 0;
  for (let at = 1; at < CALLS; at++) {
    for (const when of ['before', 'after'] as const) {
      // One more is refused, one that waited is good again.
      const id = (tried % 20) + 1;
      await from.query(
        `UPDATE t SET v = v + 1 WHERE v < 8; UPDATE t SET v = 2 WHERE id = ${((tried + 17) % 20) + 1}; UPDATE t SET v = 20 WHERE id = ${id}`,
      );
      tried++;
      await line.window();
      line.world.crashWhen = when;
      line.world.crashAt = line.world.changes + at;
      await line.pump().catch((error: unknown) => {
        if (!(error instanceof Crash)) throw error;
      });
      line.world.crashAt = 0;
      line.restart();
      await fresh.settle();
      // A load that finds the list behind brings it up.
      await line.pump();
      const wrong = (await from.query<{ id: string }>('SELECT id::text FROM t WHERE v >= 10')).rows.map(
        (row) => row.id,
      );
      expect([at, when, await keysOf(fresh, 'public.t')]).toEqual([at, when, wrong.toSorted()]);
      const good = 'SELECT id, v FROM t WHERE v < 10 AND NOT id = ANY ($1) ORDER BY 1';
      expect((await fresh.to.query(good, [wrong])).rows).toEqual((await from.query(good, [wrong])).rows);
    }
  }
});
