/**
 * wal2json on a real server: what its decoder tells is what pgoutput's tells of the same transactions, and what stands in the source stands in the target.
 */
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { doctor } from '../../lib/doctor/doctor.ts';
import { requestResync } from '../../lib/operate.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { duringWindow } from '../support/during-window.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

describe.skipIf(skipDebian)(suiteName('wal2json'), () => {
  let source: TestPostgres;
  let target: TestPostgres;
  let sql: Client;
  let schemas = 0;

  beforeAll(async () => {
    [source, target] = await Promise.all([startDebianPostgres(), startPostgres()]);
    sql = await source.connect();
  });

  afterAll(async () => {
    await sql?.end();
    await source?.stop();
    await target?.stop();
  });

  /** A line that reads by wal2json, over a schema of its own. */
  async function followed(name: string, tables: string, old_wal2json = false, slot_reader = 'stream') {
    await sql.query(`DROP SCHEMA IF EXISTS ${name} CASCADE; CREATE SCHEMA ${name}; SET search_path = ${name}`);
    await sql.query(tables);
    const config = { tables: `[${name}.*]`, source: `plugin: wal2json, slot_reader: ${slot_reader}` };
    return await openLine({ source, target, config, pipeline: name.replace('_', '-'), old_wal2json });
  }

  test('inserts, updates, deletions, keys, TRUNCATE and TOAST, without a publication', async () => {
    await using line = await followed(
      'dml',
      `CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2), b bytea, ok bool); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
       CREATE TABLE "a.b, c*""'" (LIKE t INCLUDING ALL); CREATE TABLE f (LIKE t INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL;`,
    );
    const names = ['t', `"a.b, c*""'"`, 'f'];
    for (const name of names) await sql.query(`INSERT INTO ${name} VALUES (1, 'a', 1.50, '\\x00ff', true)`);
    await line.settle();
    for (const name of names) {
      await sql.query(
        `INSERT INTO ${name} VALUES (2, repeat('x"\\' || chr(10), 2000), NULL, '\\xdead', false), (3, '', -0.1, '', NULL), (4, NULL, NULL, NULL, NULL)`,
      );
      await sql.query(`UPDATE ${name} SET n = 7.25 WHERE id = 2`);
      await sql.query(`UPDATE ${name} SET id = 20 WHERE id = 2`);
      await sql.query(`DELETE FROM ${name} WHERE id = 1`);
    }
    await line.settle();
    for (const table of ['dml.t', 'dml.f']) {
      const { source: left, target: right } = await line.both(table);
      expect(right).toEqual(left);
      expect(await line.rows('target', table)).toHaveLength(3);
    }
    for (const name of names) await sql.query(`TRUNCATE ${name}; INSERT INTO ${name} VALUES (5, 'after')`);
    await line.settle();
    for (const table of ['dml.t', 'dml.f'])
      expect(await line.rows('target', table)).toEqual(await line.rows('source', table));
    const onTarget = await target.connect();
    const { rows } = await onTarget.query(`SELECT id, v FROM dml."a.b, c*""'"`);
    await onTarget.end();
    expect(rows).toEqual([{ id: 5, v: 'after' }]);
    const { rows: publications } = await sql.query('SELECT FROM pg_publication');
    expect(publications).toEqual([]);
  });

  test('a slot that was dropped is made anew, and what differs is copied', async () => {
    await using line = await followed(
      'resync',
      `CREATE TABLE t (id int PRIMARY KEY, v float4, c "char"); INSERT INTO t SELECT i, i / 7.0, 'x' FROM generate_series(1, 99) i;
       CREATE TABLE same (LIKE t INCLUDING ALL); INSERT INTO same SELECT * FROM t; UPDATE same SET c = '\\351'`,
    );
    await line.settle();
    await sql.query('SELECT pg_drop_replication_slot($1)', [line.pipeline.source.replication_slot]);
    await sql.query(`UPDATE t SET v = 0.1 WHERE id = 7; DELETE FROM t WHERE id = 8`);
    await expect(line.window()).rejects.toThrow('SLOT_MISSING');
    await requestResync({ ledger: line.ledger, log: line.log });
    await line.settle();
    await sql.query(`INSERT INTO t VALUES (200, 'NaN', NULL)`);
    await line.settle();
    for (const table of ['resync.t', 'resync.same'])
      expect(await line.rows('target', table)).toEqual(await line.rows('source', table));
    const done = line.log.lines.flatMap(({ event, facts }) => (event === 'epoch_done' ? [facts] : [])).slice(-2);
    expect(done.map((facts) => [facts?.kind, facts?.chunks_equal])).toEqual([
      ['resync', 1],
      ['resync', 0],
    ]);
  });

  test('a plugin that is not installed is told by its package, by the doctor and by the window', async () => {
    const findings = async (server: TestPostgres) => {
      const { host, port, user, database, password } = server;
      const connect = async () => {
        const client = new Client({ host, port, user, database, password });
        await client.connect();
        return client;
      };
      const place = `host: ${host}, port: ${port}, user: ${user}, database: ${database}`;
      const pipeline = readPipeline(
        `pipeline: p\ntables: ['*.*']\nsource: { ${place}, plugin: wal2json, replication_slot: none }\ntarget: { ${place} }\n`,
        'p.yaml',
      );
      const all = await doctor({ pipeline, connect: { source: connect, replication: connect, target: connect } });
      return all.filter(({ check }) => ['source_plugin', 'plugin_numbers', 'publication'].includes(check));
    };
    await sql.query('CREATE SCHEMA odd; CREATE TABLE odd.key (n numeric PRIMARY KEY)');
    expect(await findings(source)).toMatchObject([
      { check: 'plugin_numbers', severity: 'warning', subject: 'table odd.key' },
    ]);
    const missing = {
      severity: 'error',
      code: 'PLUGIN_MISSING',
      remedy: expect.stringContaining('postgresql-18-wal2json'),
    };
    expect(await findings(target)).toMatchObject([{ check: 'source_plugin', ...missing }]);
    const onTarget = await target.connect();
    await onTarget.query('CREATE SCHEMA unread; CREATE TABLE unread.t (id int PRIMARY KEY)');
    await onTarget.end();
    const config = { tables: '[unread.*]', source: 'plugin: wal2json' };
    await using line = await openLine({ source: target, target: source, config, pipeline: 'unread' });
    await expect(line.window()).rejects.toThrow('PLUGIN_MISSING');
  });

  test('NaN and the infinities arrive, and rows that were NULL stay NULL', async () => {
    await using line = await followed(
      'numbers',
      'CREATE TABLE n (id text PRIMARY KEY, f4 float4, f8 float8, n numeric)',
    );
    await sql.query(`INSERT INTO n VALUES ('copied', 'NaN', 'Infinity', '-Infinity')`);
    await line.settle();
    await sql.query(
      `INSERT INTO n SELECT 'r' || i, NULL, CASE WHEN i % 3 = 0 THEN 'NaN'::float8 END, CASE WHEN i % 2 = 0 THEN 'Infinity'::numeric END FROM generate_series(1, 5000) i`,
    );
    await sql.query(`UPDATE n SET f4 = '-Infinity' WHERE id LIKE '%7'`);
    await sql.query(`DELETE FROM n WHERE id LIKE '%5'; UPDATE n SET id = 'moved' WHERE id = 'r6'`);
    await line.settle();
    const both = await line.both('numbers.n');
    expect(both.target).toEqual(both.source);
  });

  const RESHAPED = `CREATE TABLE n (id int PRIMARY KEY, v text, n numeric(10,2), f float8, gone int); ALTER TABLE n ALTER v SET STORAGE EXTERNAL;
    CREATE TABLE other (LIKE n INCLUDING ALL)`;
  const SPECIAL = `INSERT INTO n SELECT i, repeat(md5(i::text), 100), 'NaN', '-Infinity' FROM generate_series(1, 20) i;
    INSERT INTO other VALUES (1, 'other', 'NaN', 'Infinity'); UPDATE n SET n = 1.5 WHERE id % 3 = 0; UPDATE n SET id = -id WHERE id % 5 = 0; DELETE FROM n WHERE id % 7 = 0`;

  test.each([
    ['gets a column', `ALTER TABLE n ADD late date DEFAULT '2001-02-03'`],
    ['loses a column', 'ALTER TABLE n DROP gone'],
    ['has the column in doubt renamed', 'ALTER TABLE n RENAME n TO m'],
    ['has another column renamed', 'ALTER TABLE n RENAME gone TO kept'],
    ['gets another modifier for the column in doubt', 'ALTER TABLE n ALTER n TYPE numeric(12,2)'],
    ['is reshaped twice', 'ALTER TABLE n DROP gone; ALTER TABLE n ADD gone int'],
  ])('NaN and the infinities of rows that were written before their table %s', async (_, reshape) => {
    for (const [format, old] of [
      [2, false],
      [1, true],
    ] as const) {
      const name = `reshaped_${format}${++schemas}`;
      await using line = await followed(name, RESHAPED, old);
      await line.settle();
      for (const statement of [...SPECIAL.split('; '), ...reshape.split('; ')]) await sql.query(statement);
      // One that leaves v out, of a row that is in no doubt; and of one that is.
      await sql.query('UPDATE n SET f = 0 WHERE id = 3');
      await sql.query('UPDATE n SET f = f WHERE id = 4');
      await sql.query('UPDATE other SET f = f; INSERT INTO n (id, v) VALUES (100, NULL)');
      await line.settle();
      expect(await line.equal(`${name}.n`)).toBe(true);
      expect(await line.equal(`${name}.other`)).toBe(true);
      expect(line.bookmark(`${name}.n`)).toMatchObject({ epoch: 1, halt: null });
    }
  });

  test.each(['stream', 'peek'])(
    'NaN of a row after which the table was reshaped, and nothing more was written to it, by slot_reader: %s',
    async (slot_reader) => {
      const name = `told_${slot_reader}`;
      await using line = await followed(name, RESHAPED, false, slot_reader);
      await line.settle();
      await sql.query(`INSERT INTO n (id, n) VALUES (1, 'NaN')`);
      await sql.query(`ALTER TABLE n RENAME f TO g; ALTER TABLE n ADD late date DEFAULT '2001-02-03'`);
      // The window ends past the last commit.
      await sql.query('CHECKPOINT');
      await line.settle();
      expect(await line.equal(`${name}.n`)).toBe(true);
      await sql.query(`INSERT INTO n (id, n) VALUES (2, 'NaN')`);
      await line.settle();
      expect(await line.equal(`${name}.n`)).toBe(true);
      expect(await line.columns('target', `${name}.n`)).toEqual(await line.columns('source', `${name}.n`));
    },
  );

  test('a change of shape takes effect at its place', async () => {
    await using line = await followed(
      'shapes',
      'CREATE TABLE s (id int PRIMARY KEY, a varchar(5), g int GENERATED ALWAYS AS (id * 2) STORED)',
    );
    await sql.query(`INSERT INTO s (id, a) VALUES (1, 'a')`);
    await line.settle();
    await sql.query(`INSERT INTO s (id, a) VALUES (2, 'b'); ALTER TABLE s ADD n numeric(6,2) DEFAULT 7`);
    await sql.query(`INSERT INTO s (id, a) VALUES (3, 'c'); ALTER TABLE s ALTER a TYPE varchar(50)`);
    await sql.query(`UPDATE s SET a = repeat('long', 10) WHERE id = 1; ALTER TABLE s RENAME a TO renamed`);
    await sql.query(`INSERT INTO s (id, renamed, n) VALUES (4, 'd', 1.25)`);
    await line.settle();
    const both = await line.both('shapes.s');
    expect(both.target).toEqual(both.source);
  });

  test('a deletion, which shows nothing but the key, tells nothing of a column that came after it', async () => {
    await using line = await followed('later', 'CREATE TABLE s (id int PRIMARY KEY, a text, n numeric)');
    await sql.query(`INSERT INTO s VALUES (1, 'a', 1), (3, 'c', 3)`);
    await line.settle();
    await sql.query(`DELETE FROM s WHERE id = 1; INSERT INTO s VALUES (2, 'b', 2)`);
    await sql.query(`ALTER TABLE s ADD x date DEFAULT '2001-02-03'; INSERT INTO s VALUES (4, 'd', 4, NULL)`);
    await line.settle();
    expect((await line.both('later.s')).target).toEqual((await line.both('later.s')).source);
    await sql.query(`DELETE FROM s WHERE id = 3; ALTER TABLE s ADD y text DEFAULT 'y'`);
    await line.settle();
    await sql.query(`DELETE FROM s WHERE id = 2; UPDATE s SET y = 'z'`);
    await line.settle();
    expect((await line.both('later.s')).target).toEqual((await line.both('later.s')).source);
    expect(line.bookmark('later.s').epoch).toBe(1);
  });

  test('a column in the place of another that was called the same: the log tells them apart by their numbers', async () => {
    await using line = await followed('places', 'CREATE TABLE s (id int PRIMARY KEY, a text, b int)');
    await sql.query(`INSERT INTO s VALUES (1, 'a', 1)`);
    await line.settle();
    await sql.query(`INSERT INTO s VALUES (2, 'b', 2); ALTER TABLE s DROP b; ALTER TABLE s ADD b int`);
    await sql.query(`UPDATE s SET b = 9 WHERE id = 2; INSERT INTO s (id, a) VALUES (3, 'c')`);
    await line.settle();
    const both = await line.both('places.s');
    expect(both.target).toEqual(both.source);
    // It is followed in place, with the old column kept beside the new one, and not copied anew.
    expect(
      (await line.columns('target', 'places.s')).filter((column) => /^b(_\d{8}_\d{4})? /.test(column)),
    ).toHaveLength(2);
    expect(line.bookmark('places.s').epoch).toBe(1);
  });

  test('a value of megabytes, and a table that is made while windows run', async () => {
    await using line = await followed(
      'giants',
      'CREATE TABLE g (id int PRIMARY KEY, v text, b bytea); ALTER TABLE g ALTER v SET STORAGE EXTERNAL',
    );
    await line.settle();
    await sql.query(
      `INSERT INTO g VALUES (1, repeat('x"\\' || chr(10) || 'é', 700000), decode(repeat('0a0d', 600000), 'hex'))`,
    );
    await sql.query('UPDATE g SET b = NULL; UPDATE g SET id = 2');
    await sql.query('CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)');
    await line.settle();
    await sql.query('INSERT INTO later VALUES (2)');
    await line.settle();
    expect(await line.equal('giants.g')).toBe(true);
    expect(await line.equal('giants.later')).toBe(true);
  });

  test('a key that was taken away and given back makes the stream be copied anew', async () => {
    await using line = await followed('keys', 'CREATE TABLE k (id int PRIMARY KEY, v int)');
    await sql.query('INSERT INTO k VALUES (1, 1)');
    await line.settle();
    // Without a key the source logs nothing of an update that wal2json could print, and without a publication it does not refuse it.
    await sql.query('ALTER TABLE k DROP CONSTRAINT k_pkey; UPDATE k SET v = 2; ALTER TABLE k ADD PRIMARY KEY (id)');
    await line.settle();
    expect(await line.rows('target', 'keys.k')).toEqual([['1', '2']]);
  });

  test.each([
    ['format 2', false, 'stream'],
    ['format 1', true, 'stream'],
    ['format 2', false, 'peek'],
    ['format 1', true, 'peek'],
  ])(
    'rows that nothing identified for a while, in %s (old: %s) by slot_reader: %s: what is not printed is warned of, and copied',
    async (_, old, slot_reader) => {
      const name = `blind_${old ? 1 : 2}${slot_reader}`;
      await using line = await followed(
        name,
        'CREATE TABLE k (id int PRIMARY KEY, v int); CREATE TABLE other (LIKE k INCLUDING ALL); INSERT INTO k VALUES (1, 1), (2, 2)',
        old,
        slot_reader,
      );
      await line.settle();
      await sql.query(
        'ALTER TABLE k REPLICA IDENTITY NOTHING; UPDATE k SET v = 20 WHERE id = 2; DELETE FROM k WHERE id = 1',
      );
      await sql.query('ALTER TABLE k REPLICA IDENTITY DEFAULT; INSERT INTO other VALUES (1, 1)');
      await line.settle();
      expect(await line.rows('target', `${name}.k`)).toEqual([['2', '20']]);
      expect([line.bookmark(`${name}.k`).epoch, line.bookmark(`${name}.other`).epoch]).toEqual([2, 1]);
      const told = line.log.lines.filter(({ event }) => event === 'captured_anew');
      expect(told.map(({ facts }) => facts['reason'])).toEqual([expect.stringContaining('nothing identified')]);
      // Set to NOTHING and back without a change between costs nothing.
      await sql.query(
        'ALTER TABLE k REPLICA IDENTITY NOTHING; ALTER TABLE k REPLICA IDENTITY DEFAULT; UPDATE k SET v = 21',
      );
      await line.settle();
      expect(await line.equal(`${name}.k`)).toBe(true);
      expect(line.bookmark(`${name}.k`).epoch).toBe(2);
    },
  );

  test.each([
    [
      'is renamed and renamed back',
      `ALTER TABLE k RENAME TO x; INSERT INTO x VALUES (3, 'as x'); ALTER TABLE x RENAME TO k`,
    ],
    [
      'is put aside for another, which is dropped',
      `ALTER TABLE k RENAME TO x; CREATE TABLE k (LIKE x INCLUDING ALL); INSERT INTO k VALUES (3, 'of another'); DROP TABLE k;
       ALTER TABLE x RENAME TO k`,
    ],
    [
      'is dropped and made again',
      `INSERT INTO k VALUES (3, 'of the old'); DROP TABLE k; CREATE TABLE k (id int PRIMARY KEY, v text); INSERT INTO k VALUES (4, 'of the new')`,
    ],
    [
      'is dropped and made again with other columns',
      `INSERT INTO k VALUES (3, 'old'); DROP TABLE k; CREATE TABLE k (v text, id int PRIMARY KEY, n int); INSERT INTO k VALUES ('new', 3)`,
    ],
  ])('a table that %s between windows is copied anew, without rows of another', async (_, change) => {
    const name = `names_${++schemas}`;
    await using line = await followed(
      name,
      `CREATE TABLE k (id int PRIMARY KEY, v text); INSERT INTO k VALUES (1, 'a'); CREATE TABLE other (LIKE k INCLUDING ALL)`,
    );
    await line.settle();
    await sql.query('GRANT SELECT ON k TO PUBLIC; ANALYZE k; CREATE INDEX ON k (v)');
    await sql.query('VACUUM FULL k');
    await line.settle();
    expect(line.bookmark(`${name}.k`).epoch).toBe(1);
    // Each is a transaction of its own: the log has what the old table got.
    for (const statement of change.split(';')) await sql.query(statement);
    await sql.query(`INSERT INTO other VALUES (1, 'a')`);
    await line.settle();
    expect(await line.equal(`${name}.k`)).toBe(true);
    expect(await line.equal(`${name}.other`)).toBe(true);
    expect([line.bookmark(`${name}.k`).epoch, line.bookmark(`${name}.other`).epoch]).toEqual([2, 1]);
    expect(line.log.lines.filter(({ event }) => event === 'captured_anew')).toHaveLength(1);
  });

  test('a table that is new to a running pipeline has no rows of one that had its name before', async () => {
    await using line = await followed('fresh', 'CREATE TABLE other (id int PRIMARY KEY)');
    await line.settle();
    await sql.query('CREATE TABLE k (id int PRIMARY KEY)');
    await sql.query('INSERT INTO k VALUES (1)');
    await sql.query('INSERT INTO other VALUES (1)');
    await sql.query('DROP TABLE k');
    await sql.query('CREATE TABLE k (id int PRIMARY KEY); INSERT INTO k VALUES (2)');
    await line.settle();
    expect(await line.rows('target', 'fresh.k')).toEqual([['2']]);
    expect(await line.equal('fresh.other')).toBe(true);
  });

  test('a table that is dropped and made again under its name in the middle of a window is copied anew', async () => {
    await using line = await followed(
      'anew',
      `CREATE TABLE k (id int PRIMARY KEY, v text); INSERT INTO k VALUES (1, 'a')`,
    );
    await line.settle();
    await duringWindow(
      line,
      { server: source, on: sql },
      `INSERT INTO k VALUES (2, 'old'); DROP TABLE k; CREATE TABLE k (v text, id int PRIMARY KEY, more int); INSERT INTO k VALUES ('new', 2)`,
    );
    await line.settle();
    expect(await line.equal('anew.k')).toBe(true);
    expect(line.bookmark('anew.k')).toMatchObject({ halt: null, epoch: 2 });
  });
});
