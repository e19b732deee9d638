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
import { seededBelow } from '../support/seeded.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const QUARANTINE = 'on_error: quarantine';

/** Moments in which the process dies, of those that there are: all of them with SLUICE_QUARANTINE=full. */
const DEATHS_MAX = process.env.SLUICE_QUARANTINE === 'full' ? Number.POSITIVE_INFINITY : 4;
const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
/** More than a load of one stream makes that change something in the stage, the ledger and the queue. */
const CALLS = 9;

/** A line of which the first copy is in. */
async function synced(
  sql: string,
  options: { source?: string; target?: string; tables?: string } = {},
): Promise<FreshLine> {
  const line = await freshLine({ source, target }, sql, { target: QUARANTINE, ...options });
  await line.settle();
  return line;
}

/** The line that the tests of one `describe` share, each with tables of its own. */
function sharedLine(...made: Parameters<typeof synced>): () => FreshLine {
  let fresh: FreshLine | null = null;
  beforeAll(async () => {
    fresh = await synced(...made);
  });
  afterAll(async () => {
    await fresh?.[Symbol.asyncDispose]();
  });
  return () => {
    if (!fresh) throw new Error('asked for before its tests began');
    return fresh;
  };
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

const loadAgain = async ({ line }: FreshLine, table: string): Promise<void> => {
  await loadRejects({ ...line.ports(), ledger: line.ledger }, line.pipeline, table);
};

describe('target.on_error: quarantine', () => {
  const line = sharedLine(`CREATE TABLE few (id int PRIMARY KEY, v int, w text);
    CREATE TABLE later (id int PRIMARY KEY, v int, long text); ALTER TABLE later ALTER long SET STORAGE EXTERNAL;
    INSERT INTO later SELECT i, i, repeat('a', 9000) FROM generate_series(1, 4) i;
    CREATE TABLE tree (id int PRIMARY KEY, up int, v int);
    CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone SELECT generate_series(1, 50);
    CREATE TABLE moved (id int PRIMARY KEY, v int, long text); ALTER TABLE moved ALTER long SET STORAGE EXTERNAL;
    INSERT INTO moved SELECT i, i, repeat('a', 9000) FROM generate_series(1, 9) i;
    CREATE TABLE every (id int PRIMARY KEY, v int, w text, u int, x text, y text, z text, big text);
    INSERT INTO every SELECT i, i, 'w', i, '7', 'y' || i, 'z' || i, 'b' FROM generate_series(1, 9) i;
    CREATE TABLE dies (id int PRIMARY KEY, v int); INSERT INTO dies SELECT i, 1 FROM generate_series(1, 20) i;
    CREATE TABLE t (id int, b text, v text, PRIMARY KEY (id, b)); CREATE TABLE o (id int PRIMARY KEY);
    CREATE TABLE before (id int PRIMARY KEY, v int, long text); ALTER TABLE before ALTER long SET STORAGE EXTERNAL;
    INSERT INTO before VALUES (1, 1, repeat('a', 9000));
    CREATE TABLE copied (id int PRIMARY KEY, v int); INSERT INTO copied SELECT i, 1 FROM generate_series(1, 400) i`);

  const waiting = async (fresh: FreshLine, table: string): Promise<unknown[]> =>
    (await listRejects(fresh.line.ledger)).flatMap((one) => (one.table === `public.${table}` ? [one.rows] : []));

  /** Nothing of it waits, as the target knows, and as the ledger does. */
  const expectDone = async (fresh: FreshLine, table: string): Promise<void> => {
    expect(await fresh.line.equal(`public.${table}`)).toBe(true);
    expect(await waiting(fresh, table)).toEqual([]);
    expect(await query(fresh.to, `SELECT * FROM _sluice.quarantine WHERE stream = 'public.${table}'`)).toEqual([]);
  };

  test('a few of many rows are put aside, each with its reason; the others are applied (target.on_error, target.quarantine_rows_max)', async () => {
    const fresh = line();
    await fresh.to.query(
      `ALTER TABLE few ADD CONSTRAINT small CHECK (v < 1000); ALTER TABLE few ADD CONSTRAINT one UNIQUE (w)`,
    );
    await fresh.from.query(`INSERT INTO few SELECT i, i % 900, 'w' || i FROM generate_series(1, 3000) i;
      UPDATE few SET v = 5000 WHERE id IN (7, 1500, 2999); UPDATE few SET w = 'w1' WHERE id = 11`);
    await fresh.settle();
    expect(await ids(fresh, 'SELECT count(*)::int FROM few')).toEqual([2996]);
    expect(await ids(fresh, 'SELECT id FROM few WHERE id IN (7, 11, 1500, 2999)')).toEqual([]);
    const rows = (await rejects(fresh, 'public.few')).toSorted(
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
      faults: [{ wants: 'is refused by the target: check_violation at table few, constraint small (SQLSTATE 23514)' }],
    });
    expect(await waiting(fresh, 'few')).toEqual([4]);
  });

  test('a later good version supersedes what waits; a deletion ends it; a change that leaves values out joins it', async () => {
    const fresh = line();
    await fresh.to.query('ALTER TABLE later ADD CONSTRAINT small CHECK (v < 1000)');
    await fresh.from.query("UPDATE later SET v = 5000, long = repeat('b', 9000) WHERE id < 4");
    await fresh.settle();
    expect(await keysOf(fresh, 'public.later')).toEqual(['1', '2', '3']);
    // It leaves `long` out: beside the old value it would be a row that the source never had.
    await fresh.from.query('UPDATE later SET v = 10 WHERE id = 1');
    await fresh.settle();
    expect(await query(fresh.to, 'SELECT id, v, left(long, 1) AS l FROM later ORDER BY id')).toEqual([
      { id: 1, v: 1, l: 'a' },
      { id: 2, v: 2, l: 'a' },
      { id: 3, v: 3, l: 'a' },
      { id: 4, v: 4, l: 'a' },
    ]);
    expect(
      (await rejects(fresh, 'public.later')).map(({ key, faults }) => [key.values[0], faults[0]?.keyword]),
    ).toEqual([
      ['2', 'check_violation'],
      ['3', 'check_violation'],
      ['1', 'unchanged'],
    ]);
    await fresh.from.query(
      "DELETE FROM later WHERE id = 2; UPDATE later SET v = 30, long = repeat('c', 9000) WHERE id = 3",
    );
    await fresh.settle();
    expect(await keysOf(fresh, 'public.later')).toEqual(['1']);
    // Read again by its key.
    await loadAgain(fresh, 'public.later');
    await fresh.settle();
    await expectDone(fresh, 'later');
  });

  /** Row 10 is refused for the first, row 20 for the second, and so on. `wrong`: what makes it so. */
  const REFUSED: readonly (readonly [what: string, on_target: string, wrong: string, reason: string])[] = [
    ['a CHECK', 'ALTER TABLE every ADD CHECK (v <> 13)', 'v = 13', 'check_violation'],
    ['NOT NULL', 'ALTER TABLE every ALTER w SET NOT NULL', 'w = NULL', 'not_null_violation'],
    ['a unique index', 'CREATE UNIQUE INDEX ON every (u)', 'u = 1', 'unique_violation'],
    [
      'a deferred unique',
      'ALTER TABLE every ADD UNIQUE (y) DEFERRABLE INITIALLY DEFERRED',
      "y = 'y1'",
      'unique_violation',
    ],
    ['an exclusion', 'ALTER TABLE every ADD EXCLUDE USING btree (z WITH =)', "z = 'z1'", 'exclusion_violation'],
    [
      'a foreign key',
      'CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(0, 20); ALTER TABLE every ADD FOREIGN KEY (v) REFERENCES p',
      'v = 21',
      'foreign_key_violation',
    ],
    [
      'a foreign key that is deferred',
      'CREATE TABLE q (id int PRIMARY KEY); INSERT INTO q SELECT generate_series(0, 300); ALTER TABLE every ADD FOREIGN KEY (u) REFERENCES q DEFERRABLE INITIALLY DEFERRED',
      'u = -1',
      'foreign_key_violation',
    ],
    [
      'a trigger',
      "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 14 THEN RAISE 'no %', NEW.w; END IF; RETURN NEW; END $$; CREATE TRIGGER f BEFORE INSERT OR UPDATE ON every FOR EACH ROW EXECUTE FUNCTION f()",
      'v = 14',
      'raise_exception',
    ],
    [
      'a trigger with an error code of its own',
      "CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 15 THEN RAISE 'no' USING ERRCODE = 'ZX001'; END IF; RETURN NEW; END $$; CREATE TRIGGER g AFTER INSERT OR UPDATE ON every FOR EACH ROW EXECUTE FUNCTION g()",
      'v = 15',
      'error of class ZX',
    ],
    [
      'a deferred trigger',
      "CREATE FUNCTION h() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 16 THEN RAISE 'no'; END IF; RETURN NEW; END $$; CREATE CONSTRAINT TRIGGER h AFTER INSERT OR UPDATE ON every DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION h()",
      'v = 16',
      'raise_exception',
    ],
    ['a type', 'ALTER TABLE every ALTER x TYPE int USING x::int', "x = 'wrong'", 'invalid_text_representation'],
    ['the size of a type', 'ALTER TABLE every ALTER w TYPE varchar(3)', "w = 'much'", 'string_data_right_truncation'],
    [
      'a domain',
      "CREATE DOMAIN d AS text CHECK (VALUE <> 'wrong'); ALTER TABLE every ALTER y TYPE d",
      "y = 'wrong'",
      'check_violation',
    ],
    [
      'an index that cannot hold it',
      'CREATE INDEX ON every (big)',
      "big = (SELECT string_agg(md5(j::text), '') FROM generate_series(1, 400) j)",
      'program_limit_exceeded',
    ],
    [
      'what a generated column computes',
      'ALTER TABLE every ADD g int GENERATED ALWAYS AS (1 / (v - 17)) STORED',
      'v = 17',
      'division_by_zero',
    ],
  ];

  test(`what a row can be refused for, ${REFUSED.length} reasons: each puts its row aside, and that comes in when it is mended`, async () => {
    const fresh = line();
    await fresh.to.query(REFUSED.map(([, sql]) => sql).join('; '));
    const wrong = REFUSED.map(([, , set], i) => `UPDATE every SET ${set} WHERE id = ${10 * (i + 1)}`);
    await fresh.from.query(
      `INSERT INTO every SELECT i, i % 13, 'w', i, '7', 'y' || i, 'z' || i, 'b' FROM generate_series(10, 200) i; ${wrong.join('; ')}`,
    );
    await fresh.settle();
    const found = await rejects(fresh, 'public.every');
    const byRow = new Map(found.map(({ key, faults }) => [Number(key.values[0]), faults[0]?.keyword]));
    expect(REFUSED.map(([what], i) => [what, byRow.get(10 * (i + 1))])).toEqual(
      REFUSED.map(([what, , , reason]) => [what, reason]),
    );
    expect(found.length).toBe(REFUSED.length);
    expect(await ids(fresh, 'SELECT count(*)::int FROM every')).toEqual([200 - REFUSED.length]);
    // Mended on the source, they come by the log as any other.
    await fresh.from.query(
      "UPDATE every SET v = 1, w = 'w', u = id, x = '7', y = 'y' || id, z = 'z' || id, big = 'b' WHERE id % 10 = 0",
    );
    await fresh.settle();
    await expectDone(fresh, 'every');
  });

  test('rows that lean on each other are not refused for that: a tree, its leaves first', async () => {
    const fresh = line();
    await fresh.to.query('ALTER TABLE tree ADD CHECK (v <> 13), ADD FOREIGN KEY (up) REFERENCES tree');
    // Children first, and a few that are refused in the midst; what hangs on one of these is refused as well.
    await fresh.from.query(`INSERT INTO tree SELECT i, CASE WHEN i = 60 THEN NULL ELSE i + 1 END, 0 FROM generate_series(1, 60) i;
      INSERT INTO tree VALUES (1000, NULL, 13), (1001, 1000, 1), (1002, 5, 13)`);
    await fresh.settle();
    expect(await keysOf(fresh, 'public.tree')).toEqual(['1000', '1001', '1002']);
    expect(await ids(fresh, 'SELECT count(*)::int FROM tree')).toEqual([60]);
  });

  test('a deletion, and a change of key', async () => {
    const fresh = line();
    await fresh.to.query(
      'CREATE TABLE c (gone int REFERENCES gone); INSERT INTO c VALUES (7); ALTER TABLE moved ADD CHECK (id < 100)',
    );
    await fresh.from.query('DELETE FROM gone WHERE id < 40; UPDATE moved SET id = id + 94');
    await fresh.settle();
    expect((await rejects(fresh, 'public.gone')).map(({ key, operation }) => [key.values[0], operation])).toEqual([
      ['7', 'delete'],
    ]);
    expect(await ids(fresh, 'SELECT count(*)::int FROM gone')).toEqual([12]);
    expect(await keysOf(fresh, 'public.moved')).toEqual(['100', '101', '102', '103']);
    expect(await ids(fresh, 'SELECT id FROM moved ORDER BY 1')).toEqual([95, 96, 97, 98, 99]);
    // It moves on, without the long value: nobody on the target has that.
    await fresh.from.query('UPDATE moved SET id = 50 WHERE id = 100');
    await fresh.settle();
    expect(await keysOf(fresh, 'public.moved')).toEqual(['101', '102', '103', '50']);
    await fresh.to.query('DELETE FROM c');
    await loadAgain(fresh, 'public.gone');
    await loadAgain(fresh, 'public.moved');
    await fresh.settle();
    await expectDone(fresh, 'gone');
    expect(await keysOf(fresh, 'public.moved')).toEqual(['101', '102', '103']);
    expect(await query(fresh.to, 'SELECT id, v, length(long) AS l FROM moved WHERE id = 50')).toEqual([
      { id: 50, v: 6, l: 9000 },
    ]);
  });

  test('a process that dies at any call leaves no row out and none twice', async () => {
    const fresh = line();
    await fresh.to.query('ALTER TABLE dies ADD CHECK (v < 10)');
    const { line: own, from } = fresh;
    const all = Array.from({ length: CALLS - 1 }, (_, i) => i + 1).flatMap((at) => [
      { at, when: 'before' as const },
      { at, when: 'after' as const },
    ]);
    const below = seededBelow(SEED);
    while (all.length > DEATHS_MAX) all.splice(below(all.length), 1);
    for (const [tried, { at, when }] of all.entries()) {
      // One more is refused, one that waited is good again.
      await from.query(
        `UPDATE dies SET v = v + 1 WHERE v < 8; UPDATE dies SET v = 2 WHERE id = ${((tried + 17) % 20) + 1}; UPDATE dies SET v = 20 WHERE id = ${(tried % 20) + 1}`,
      );
      await own.window();
      own.world.crashWhen = when;
      own.world.crashAt = own.world.changes + at;
      await own.pump().catch((error: unknown) => {
        if (!(error instanceof Crash)) throw error;
      });
      own.world.crashAt = 0;
      own.restart();
      await fresh.settle();
      // A load that finds the list behind brings it up.
      await own.pump();
      const moment = `${when} call ${at}, SLUICE_SEED=${SEED}`;
      const wrong = (await from.query<{ id: string }>('SELECT id::text FROM dies WHERE v >= 10')).rows.map(
        (row) => row.id,
      );
      expect(await keysOf(fresh, 'public.dies'), moment).toEqual(wrong.toSorted());
      const good = 'SELECT id, v FROM dies WHERE v < 10 AND NOT id = ANY ($1) ORDER BY 1';
      expect((await fresh.to.query(good, [wrong])).rows, moment).toEqual((await from.query(good, [wrong])).rows);
    }
  });

  test('switched to target.on_error: halt', async () => {
    const fresh = line();
    await fresh.to.query('ALTER TABLE before ADD CHECK (v < 10); CREATE VIEW w AS SELECT * FROM copied');
    await fresh.from.query("UPDATE before SET v = 20, long = repeat('b', 9000)");
    await fresh.settle();
    fresh.line.configure({ target: 'on_error: halt' });

    // What waits from before is not mixed with what comes.
    await fresh.from.query('UPDATE before SET v = 2');
    await fresh.settle();
    expect(await query(fresh.to, 'SELECT v, left(long, 1) AS l FROM before')).toEqual([{ v: 1, l: 'a' }]);
    expect((await rejects(fresh, 'public.before')).map(({ faults }) => faults[0]?.keyword)).toEqual(['unchanged']);

    // Table, key and reason are named, and nothing else of the row; the others go on.
    await fresh.to.query("ALTER TABLE t ADD CONSTRAINT plain CHECK (v <> 'canary-51')");
    await fresh.from.query(
      `INSERT INTO t SELECT i, 'b', 'v' FROM generate_series(1, 500) i; UPDATE t SET v = 'canary-51' WHERE id = 321; INSERT INTO o VALUES (1);
     UPDATE before SET long = repeat('c', 9000)`,
    );
    await expect(fresh.settle()).rejects.toThrow(
      /TARGET_REJECTS: The target refuses the row id = 321, b = b of public\.t\S* in cut \d+: check_violation at table t, constraint plain \(SQLSTATE 23514\)/,
    );
    expect(inspect([fresh.line.bookmark('public.t'), fresh.line.log.lines], { depth: 9 })).not.toContain('canary-51');
    expect(await ids(fresh, 'SELECT id FROM o')).toEqual([1]);
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([0]);
    expect(await rejects(fresh, 'public.before')).toEqual([]);

    // So is a row of a copy, where the table stays.
    await requestResets({ ...fresh.line.ports(), ledger: fresh.line.ledger }, ['public.copied']);
    await fresh.line.window();
    await fresh.to.query('ALTER TABLE copied ADD CONSTRAINT small CHECK (id <> 123 AND v > 0) NOT VALID');
    await fresh.from.query("UPDATE t SET v = 'later' WHERE id = 1");
    await fresh.line.settle();
    expect(fresh.line.bookmark('public.copied').halt?.message).toMatch(
      /The target refuses the row id = 123 of .*constraint small/,
    );

    // Resumed, all is applied in order.
    await fresh.to.query('ALTER TABLE t DROP CONSTRAINT plain; ALTER TABLE copied DROP CONSTRAINT small');
    for (const table of ['public.t', 'public.copied']) {
      await resume({ ...fresh.line.ports(), ledger: fresh.line.ledger }, table);
    }
    await fresh.settle();
    for (const table of ['t', 'o', 'before', 'copied']) await expectDone(fresh, table);
  });
});

test('what is no row’s fault halts, and so do more rows than target.quarantine_rows_max', async () => {
  await using fresh = await synced(
    `CREATE TABLE full_of_them (id int PRIMARY KEY, v int); CREATE TABLE missing (id int PRIMARY KEY, v int);
     CREATE TABLE identity (id int PRIMARY KEY, v int); CREATE TABLE keyless (v int); ALTER TABLE keyless REPLICA IDENTITY FULL;
     CREATE TABLE o (id int PRIMARY KEY)`,
    { target: `${QUARANTINE}, quarantine_rows_max: 5, primary_key_required: false` },
  );
  await fresh.to.query(`ALTER TABLE full_of_them ADD CONSTRAINT small CHECK (v < 10); ALTER TABLE missing DROP v;
    ALTER TABLE identity ALTER id ADD GENERATED ALWAYS AS IDENTITY; ALTER TABLE keyless ADD CHECK (v < 10)`);
  await fresh.from.query(
    'INSERT INTO full_of_them SELECT i, 1 FROM generate_series(1, 100) i; UPDATE full_of_them SET v = 20 WHERE id <= 5',
  );
  await fresh.settle();
  expect(await keysOf(fresh, 'public.full_of_them')).toHaveLength(5);
  await fresh.from.query(`UPDATE full_of_them SET v = 20 WHERE id = 6; INSERT INTO keyless VALUES (1), (20); INSERT INTO o VALUES (1);
    INSERT INTO missing SELECT i, 1 FROM generate_series(1, 300) i; INSERT INTO identity SELECT i, 1 FROM generate_series(1, 300) i`);
  await fresh.line.settle();
  const halts = ['full_of_them', 'missing', 'identity', 'keyless', 'o'].map(
    (table) => fresh.line.bookmark(`public.${table}`).halt,
  );
  expect(halts.map((halt) => halt && `${halt.code}: ${halt.message}`)).toEqual([
    expect.stringMatching(/^QUARANTINE_FULL: .*more than 5 rows of public\.full_of_them\S* .*constraint small/),
    expect.stringMatching(/^TARGET_REJECTS: .*undefined_column/),
    expect.stringMatching(/^TARGET_REJECTS: .*generated_always/),
    expect.stringMatching(/^TARGET_REJECTS: .*check_violation/),
    null,
  ]);
  expect(await ids(fresh, 'SELECT id FROM o')).toEqual([1]);
  const listed = await listRejects(fresh.line.ledger);
  expect(listed.map(({ table, rows }) => [table, rows])).toEqual([['public.full_of_them', 5]]);
});

describe('copies (target.on_error: quarantine)', () => {
  test('a table that stays is filled but for what it refuses, and what waited before is forgotten with the copy; a backfill’s rows too', async () => {
    await using fresh = await synced(
      `CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 1 FROM generate_series(1, 300) i;
       CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO b SELECT i, i FROM generate_series(1, 500) i`,
    );
    await fresh.to.query('ALTER TABLE t ADD CHECK (v < 10); UPDATE b SET v = 0; ALTER TABLE b ADD CHECK (v < 400)');
    await fresh.from.query('UPDATE t SET v = 20 WHERE id IN (5, 120); ALTER TABLE t ADD w int DEFAULT 7');
    await requestBackfills(fresh.line.ports(), ['public.b'], 'id > 390', async () => {});
    await fresh.settle();
    expect(await keysOf(fresh, 'public.t')).toEqual(['120', '5']);
    expect(await keysOf(fresh, 'public.b')).toHaveLength(101);
    expect(await ids(fresh, 'SELECT sum(v)::int FROM b')).toEqual([
      391 + 392 + 393 + 394 + 395 + 396 + 397 + 398 + 399,
    ]);
    // What was refused is not mixed with what comes, and what is good ends it.
    await fresh.from.query(
      'UPDATE t SET v = 2 WHERE id = 5; UPDATE t SET v = 30 WHERE id = 199; UPDATE b SET v = 1 WHERE id > 390',
    );
    await fresh.settle();
    expect(await rejects(fresh, 'public.b')).toEqual([]);
    expect(await ids(fresh, 'SELECT sum(v)::int FROM b')).toEqual([110]);
    await requestResets({ ...fresh.line.ports(), ledger: fresh.line.ledger }, ['public.t']);
    await fresh.settle();
    expect(
      (await rejects(fresh, 'public.t')).map(({ key, operation }) => `${key.values[0]} ${operation}`).toSorted(),
    ).toEqual(['120 copy', '199 copy']);
    expect(await ids(fresh, 'SELECT count(*)::int FROM t')).toEqual([298]);
    expect(await ids(fresh, 'SELECT count(*)::int FROM _sluice.quarantine')).toEqual([2]);
    await fresh.to.query('ALTER TABLE t DROP CONSTRAINT t_v_check');
    await loadAgain(fresh, 'public.t');
    await fresh.settle();
    expect(await fresh.line.equal('public.t')).toBe(true);
  });

  test('runs of FULL_TABLE and INCREMENTAL; those of all chunks of a copy count for target.quarantine_rows_max', async () => {
    await using fresh = await synced(
      `CREATE DOMAIN d AS int; CREATE TABLE f (id int PRIMARY KEY, v d); CREATE TABLE i (id int PRIMARY KEY, v int);
       INSERT INTO f SELECT i, 1 FROM generate_series(1, 40) i; INSERT INTO i VALUES (1, 1)`,
      {
        source: 'itersize: 10',
        target: `${QUARANTINE}, quarantine_rows_max: 5`,
        tables:
          '[{ table: public.f, replication_method: FULL_TABLE }, { table: public.i, replication_method: INCREMENTAL, replication_key: id }]',
      },
    );
    const run = async (): Promise<void> => {
      await fresh.line.window();
      await fresh.line.pump();
    };
    await fresh.to.query('ALTER DOMAIN d ADD CHECK (VALUE < 10); ALTER TABLE i ADD CHECK (v < 10)');
    await fresh.from.query('UPDATE f SET v = 20 WHERE id % 10 = 2; INSERT INTO i VALUES (2, 20), (3, 3)');
    await run();
    await run();
    expect(await ids(fresh, 'SELECT count(*)::int FROM f')).toEqual([36]);
    expect(await ids(fresh, 'SELECT id FROM i ORDER BY 1')).toEqual([1, 3]);
    expect([...new Set(await keysOf(fresh, 'public.f'))]).toEqual(['12', '2', '22', '32']);
    expect([...new Set(await keysOf(fresh, 'public.i'))]).toEqual(['2']);
    // Two of each chunk: no chunk has too many, and all of them have.
    await fresh.from.query('UPDATE f SET v = 20 WHERE id % 10 = 3');
    await run();
    expect(fresh.line.bookmark('public.f').halt).toMatchObject({ code: 'QUARANTINE_FULL' });
    expect(await ids(fresh, 'SELECT count(*)::int FROM f')).toEqual([36]);
  });
});

test('consistency: transaction', async () => {
  await using fresh = await synced(
    `CREATE TABLE a_child (id int PRIMARY KEY, p int); CREATE TABLE parent (id int PRIMARY KEY, v int);
     INSERT INTO parent SELECT i, 1 FROM generate_series(1, 20) i; INSERT INTO a_child SELECT i, i FROM generate_series(1, 10) i`,
    { target: `${QUARANTINE}, consistency: transaction` },
  );
  await fresh.to.query(`ALTER TABLE a_child ADD CONSTRAINT refers FOREIGN KEY (p) REFERENCES parent DEFERRABLE INITIALLY DEFERRED;
    ALTER TABLE parent ADD CHECK (v < 10)`);
  // A parent that is refused, and with it its child; a child that comes before its parent; both that go. All others go on at one commit.
  await fresh.from.query(`BEGIN; INSERT INTO a_child VALUES (30, 30), (31, 31); INSERT INTO parent VALUES (30, 30), (31, 1);
    DELETE FROM a_child WHERE id = 3; DELETE FROM parent WHERE id = 3; COMMIT`);
  await fresh.settle();
  expect([await keysOf(fresh, 'public.a_child'), await keysOf(fresh, 'public.parent')]).toEqual([['30'], ['30']]);
  expect(await ids(fresh, 'SELECT id FROM a_child WHERE id > 2 AND id < 5 OR id > 10')).toEqual([4, 31]);
  expect(await ids(fresh, 'SELECT together FROM _sluice.streams')).toEqual([true, true]);
  await fresh.from.query('UPDATE parent SET v = 2 WHERE id = 30; UPDATE a_child SET p = 30 WHERE id > 20');
  await fresh.equal();
  expect(await listRejects(fresh.line.ledger)).toEqual([]);

  // With halt, a row that is refused at the commit because of a stream that waits halts its own stream, and nobody tries without end.
  fresh.line.configure({ target: 'on_error: halt, consistency: transaction' });
  await fresh.to.query('ALTER TABLE a_child ADD CONSTRAINT small CHECK (id < 100)');
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
