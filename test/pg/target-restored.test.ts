/**
 * A real target that is restored from a backup, or loses its `_sluice`: what is staged still brings it on from its own rows; what the log alone cannot mend is a halt,
 * and a copy is the way out. (Every order of events is in test/unit/target-restored.test.ts.)
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requestResets, resume } from '../../lib/operate.ts';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const TABLES = `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;
  CREATE TABLE u (id int4 PRIMARY KEY, v text); INSERT INTO u SELECT i, i FROM generate_series(1, 20) i;`;

interface Restorable extends AsyncDisposable {
  readonly line: Line;
  readonly from: pg.Client;
  readonly backup: () => Promise<void>;
  /** The target is what it was at the backup. */
  readonly restore: () => Promise<void>;
  readonly onTarget: (sql: string) => Promise<Record<string, unknown>[]>;
}

let databases = 0;

async function restorable(tables = '[public.*]', sql = TABLES): Promise<Restorable> {
  const name = `restored_${++databases}`;
  const [sources, targets] = await Promise.all([source.connect(), target.connect()]);
  await sources.query(`CREATE DATABASE ${name}`);
  await targets.query(`CREATE DATABASE ${name}`);
  const from = await source.connect(name);
  await from.query(sql);
  const at = ({ host, port, user, password }: TestPostgres) => ({ host, port, user, password, database: name });
  const line = await openLine({
    source: at(source),
    target: at(target),
    pipeline: name.replace('_', '-'),
    config: { tables, source: `replication_slot: ${name}, publication_name: ${name}` },
  });
  const copy = async (to: string, template: string): Promise<void> => {
    await targets.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [template]);
    await targets.query(`DROP DATABASE IF EXISTS ${to} WITH (FORCE)`);
    await targets.query(`CREATE DATABASE ${to} TEMPLATE ${template}`);
  };
  return {
    line,
    from,
    backup: () => copy(`${name}_backup`, name),
    restore: () => copy(name, `${name}_backup`),
    onTarget: async (text) => {
      const client = await target.connect(name);
      try {
        return (await client.query<Record<string, unknown>>(text)).rows;
      } finally {
        await client.end();
      }
    },
    [Symbol.asyncDispose]: async () => {
      await line[Symbol.asyncDispose]();
      await from.end();
      for (const made of [name, `${name}_backup`]) await targets.query(`DROP DATABASE IF EXISTS ${made} WITH (FORCE)`);
      await sources.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await Promise.all([sources.end(), targets.end()]);
    },
  };
}

const haltOf = ({ line }: Restorable, table: string): string | undefined => line.bookmark(`public.${table}`).halt?.code;

async function round({ line }: Restorable, rounds = 1): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    await line.window();
    await line.pump();
  }
}

async function expectEqual(made: Restorable, ...tables: string[]): Promise<void> {
  for (const table of tables) {
    const sql = `SELECT id, v FROM ${table} ORDER BY id`;
    expect(await made.onTarget(sql)).toEqual((await made.from.query(sql)).rows);
  }
}

async function copyAnew(made: Restorable, ...tables: string[]): Promise<void> {
  const { ledger, log } = made.line.ports();
  await requestResets({ ledger, log }, tables);
  await made.line.settle();
}

describe('a target that is restored to', () => {
  test('a few cuts ago: it goes on from its own rows, idle tables too', { timeout: 60_000 }, async () => {
    await using made = await restorable();
    await made.line.settle();
    await made.backup();
    await made.from.query("UPDATE t SET v = 'later' WHERE id < 5; DELETE FROM u WHERE id < 5");
    await round(made);
    await made.restore();
    await made.from.query("UPDATE t SET v = 'after' WHERE id = 9");
    await round(made);
    await expectEqual(made, 't', 'u');
    // And where nothing is written any more: on being asked.
    await made.restore();
    const { ledger, doorbell, log, clock } = made.line.ports();
    await resume({ ledger, doorbell, log, clock }, 'public.*');
    await made.line.pump();
    await expectEqual(made, 't', 'u');
  });

  test('before a table was copied: that one waits to be copied anew, the other goes on', {
    timeout: 60_000,
  }, async () => {
    await using made = await restorable();
    await made.line.settle();
    await made.backup();
    // Rows that the log does not tell of.
    await made.from.query("ALTER TABLE t ALTER COLUMN v TYPE text USING v || '!'");
    await made.from.query("UPDATE u SET v = 'later' WHERE id = 1");
    await copyAnew(made, 'public.t');
    await made.restore();
    await made.from.query("UPDATE t SET v = 'after' WHERE id = 9; UPDATE u SET v = 'after' WHERE id = 9");
    await round(made, 2);
    expect([haltOf(made, 't'), haltOf(made, 'u')]).toEqual(['TARGET_WENT_BACK', undefined]);
    await expectEqual(made, 'u');
    await copyAnew(made, 'public.t');
    await expectEqual(made, 't', 'u');
  });

  test('before a run of INCREMENTAL: the next run says so, and a copy brings all rows', {
    timeout: 60_000,
  }, async () => {
    await using made = await restorable(
      '[{ table: public.i, replication_method: INCREMENTAL, replication_key: id }]',
      'CREATE TABLE i (id int4 PRIMARY KEY, v text); INSERT INTO i VALUES (1, 1), (2, 2)',
    );
    await round(made, 2);
    await made.backup();
    await made.from.query("INSERT INTO i VALUES (3, 'in the run that is lost')");
    await round(made, 2);
    await expectEqual(made, 'i');
    await made.restore();
    await made.from.query("INSERT INTO i VALUES (4, 'in the next')");
    await round(made, 2);
    expect(haltOf(made, 'i')).toBe('TARGET_WENT_BACK');
    const { ledger, log } = made.line.ports();
    await requestResets({ ledger, log }, ['public.i']);
    await round(made, 3);
    expect(haltOf(made, 'i')).toBeUndefined();
    await expectEqual(made, 'i');
  });
});

describe('a target without its _sluice', () => {
  test('halts; a table that is there is never taken: moved aside, it is copied anew', { timeout: 60_000 }, async () => {
    await using made = await restorable();
    await made.line.settle();
    await made.onTarget('DROP SCHEMA _sluice CASCADE');
    await made.from.query("UPDATE t SET v = 'after' WHERE id = 9; UPDATE u SET v = 'after' WHERE id = 9");
    await round(made);
    expect([haltOf(made, 't'), haltOf(made, 'u')]).toEqual(['TARGET_ROW_MISSING', 'TARGET_ROW_MISSING']);
    const { ledger, log, doorbell, clock } = made.line.ports();
    await requestResets({ ledger, log }, ['public.*']);
    await round(made, 2);
    expect([haltOf(made, 't'), haltOf(made, 'u')]).toEqual(['TARGET_TABLE_TAKEN', 'TARGET_TABLE_TAKEN']);
    await made.onTarget('DROP TABLE t; ALTER TABLE u RENAME TO u_before');
    await resume({ ledger, log, doorbell, clock }, 'public.*');
    await made.line.settle();
    expect([haltOf(made, 't'), haltOf(made, 'u')]).toEqual([undefined, undefined]);
    await expectEqual(made, 't', 'u');
  });
});
