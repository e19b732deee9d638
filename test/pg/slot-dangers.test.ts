/**
 * What others do to the slot on a real server, also in the moments between a window's looks: each is told by its code, nothing is passed over in silence, and what
 * was asked for brings all back.
 */
import { Client, type ClientConfig } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Chain } from '../../lib/ledger/chain.ts';
import { requestResets, requestResync } from '../../lib/operate.ts';
import { drain } from '../../lib/pipeline.ts';
import type { RunReport, Source } from '../../lib/ports.ts';
import { sessionName } from '../../lib/window/free-slot.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { type Line, openLine } from '../support/line.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const TABLES = `CREATE TABLE t (id int4 PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;
  CREATE TABLE u (id int4 PRIMARY KEY); INSERT INTO u VALUES (1);`;

const haltsOf = ({ durable }: Pick<Line, 'durable'>): (string | undefined)[] =>
  [...durable.bookmarks.values()].map(({ halt }) => halt?.code);

/** A window of which `change` makes another source. */
async function windowOn({ line }: FreshLine, change: (source: Source) => Partial<Source>): Promise<RunReport> {
  const ports = line.ports();
  const now_ms = ports.clock.now();
  const source = { ...ports.source, ...change(ports.source) };
  const run = { run: 'another', owner: 'another', lease_ms: 60_000, deadline_ms: now_ms + 60_000, ring_all: true };
  return await drain({ ...ports, source }, line.pipeline, run);
}

const slotOf = ({ line }: FreshLine): string => line.pipeline.source.replication_slot;
const advance = async (made: FreshLine): Promise<void> => {
  await made.from.query('SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())', [slotOf(made)]);
};
const recreate = async (made: FreshLine): Promise<void> => {
  await made.from.query('SELECT pg_drop_replication_slot($1)', [slotOf(made)]);
  await made.from.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slotOf(made)]);
};

const WAYS: readonly (readonly [how: string, meddle: (made: FreshLine) => Promise<void>])[] = [
  ['advanced by somebody else', advance],
  ['dropped and made anew under its name', recreate],
];

describe.each(['stream', 'peek'])('with slot_reader: %s, a slot that is', (slot_reader) => {
  let made: FreshLine;
  beforeAll(async () => {
    made = await freshLine({ source, target }, TABLES, { source: `slot_reader: ${slot_reader}` });
    await made.equal();
  });
  afterAll(async () => {
    await made?.[Symbol.asyncDispose]();
  });

  test.each(WAYS)('%s after the look at it, before it is read: a halt, never a hole', async (how, meddle) => {
    await made.from.query('UPDATE t SET v = $1 WHERE id = 1', [how]);
    const report = await windowOn(made, (before) => ({
      openSlot: async (...given) => {
        await meddle(made);
        return await before.openSlot(...given);
      },
    }));
    expect(report.error).toMatchObject({ code: 'SLOT_ADVANCED' });
    await expect(made.line.window()).rejects.toThrow('SLOT_ADVANCED');
    expect(haltsOf(made.line)).toEqual(['SLOT_ADVANCED', 'SLOT_ADVANCED']);
    await requestResync({ ledger: made.line.ledger, log: made.line.log });
    await made.equal();
  });

  // While it is streamed, nobody can move it.
  const moments = ['before it is opened', ...(slot_reader === 'peek' ? ['before it is read'] : [])];
  test.each(moments)(
    'moved %s by a window of ours that lives on after its lease: nobody halts for it',
    async (when) => {
      const { ledger, clock } = made.line.ports();
      const report = await windowOn(made, (before) => {
        const overtake = async (): Promise<void> => {
          const head = await ledger.head();
          if (!head) throw new Error('no chain');
          await made.from.query("SELECT pg_logical_emit_message(true, 'of nobody', 'meanwhile')");
          // As every window: recorded, and then moved there.
          const end_lsn = await before.insertLsn();
          await new Chain(ledger, clock, head).append({ kind: 'changes', end_lsn });
          await before.advanceSlot(end_lsn);
        };
        return {
          openSlot: async (...given) => {
            if (when === 'before it is opened') await overtake();
            const reader = await before.openSlot(...given);
            const read = reader.read.bind(reader);
            let reads = 0;
            return Object.assign(reader, {
              read: async (...asked: Parameters<typeof read>) => {
                if (when === 'before it is read' && reads++ === 0) await overtake();
                return await read(...asked);
              },
            });
          },
        };
      });
      expect(report.error).toMatchObject({ code: 'WINDOW_LOST' });
      await made.from.query('UPDATE t SET v = $1 WHERE id = 1', [`goes on: moved ${when}`]);
      await made.equal();
    },
  );
});

describe('between two windows', () => {
  let made: FreshLine;
  beforeAll(async () => {
    made = await freshLine({ source, target }, TABLES);
    await made.equal();
  });
  afterAll(async () => {
    await made?.[Symbol.asyncDispose]();
  });

  test('a slot that is dropped and made anew: every stream halts, and a resync brings all of it', async () => {
    await made.from.query("UPDATE t SET v = 'between' WHERE id = 1");
    await recreate(made);
    await expect(made.line.window()).rejects.toThrow('SLOT_ADVANCED');
    expect(haltsOf(made.line)).toEqual(['SLOT_ADVANCED', 'SLOT_ADVANCED']);
    await requestResync({ ledger: made.line.ledger, log: made.line.log });
    await made.equal();
  });

  test('a stranger who reads it is named and left alone; our own zombie is ended', { timeout: 60_000 }, async () => {
    const { line, from } = made;
    const { publication_name: publication, application_name } = line.pipeline.source;
    const read = async (name: string): Promise<Client> => {
      const { host, port, user, password } = source;
      const config = { host, port, user, password, database: from.database, application_name: name };
      const client = new Client({ ...config, replication: 'database' } as ClientConfig);
      client.on('error', () => undefined);
      await client.connect();
      const options = `(proto_version '1', publication_names '${publication}')`;
      // It lasts as long as the reading.
      client.query(`START_REPLICATION SLOT ${slotOf(made)} LOGICAL 0/0 ${options}`).catch(() => undefined);
      const sql = 'SELECT active FROM pg_replication_slots WHERE slot_name = $1';
      await expect.poll(async () => (await from.query(sql, [slotOf(made)])).rows[0]).toEqual({ active: true });
      return client;
    };
    await from.query("UPDATE t SET v = 'meanwhile' WHERE id = 1");
    const stranger = await read('somebody else');
    await expect(line.window()).rejects.toThrow(/SLOT_ACTIVE: .* in use by process \d+ of somebody else/);
    // No stream's fault, and nobody was ended.
    expect(haltsOf(line)).toEqual([undefined, undefined]);
    expect(
      (await from.query('SELECT FROM pg_stat_activity WHERE application_name = $1', ['somebody else'])).rowCount,
    ).toBe(1);
    await stranger.end();
    const zombie = await read(sessionName(application_name, '1'));
    await made.equal();
    expect(line.log.lines.map(({ event }) => event)).toContain('zombie_ended');
    await zombie.end();
  });

  test('a ledger that is emptied: the slot is nobody’s, and a new beginning takes the tables back', {
    timeout: 60_000,
  }, async () => {
    const { line, from } = made;
    const { chain, bookmarks, epochs, chunks, requests } = line.durable;
    chain.length = 0;
    for (const all of [bookmarks, epochs, chunks, requests]) all.clear();
    const { rows: stood } = await made.to.query('SELECT v FROM t WHERE id = 1');
    await from.query("UPDATE t SET v = 'after' WHERE id = 1");
    await expect(line.window()).rejects.toThrow('SLOT_FOREIGN');
    expect(chain).toEqual([]);
    await from.query('SELECT pg_drop_replication_slot($1)', [slotOf(made)]);
    await line.window();
    await line.pump();
    expect(haltsOf(line)).toEqual(['LEDGER_INCARNATION', 'LEDGER_INCARNATION']);
    // Until then the target's tables are as they were.
    expect((await made.to.query('SELECT v FROM t WHERE id = 1')).rows).toEqual(stood);
    await requestResets({ ledger: line.ledger, log: line.log }, ['public.*']);
    await made.equal();
  });
});

describe('a standby that is promoted without what had been read, and has written past it since', () => {
  test('is told by its history, whatever slot it has', { timeout: 60_000 }, async () => {
    await using primary = await startPostgres();
    await using standby = await startStandby(primary);
    const at = { ...placeOf(primary), database: 'postgres' };
    const old = await primary.connect();
    await old.query(TABLES);
    await using database = await ownDatabase(target, 'left_behind');
    await using line = await openLine({
      source: at,
      target: { ...placeOf(target), database: database.name },
      pipeline: 'behind',
    });
    await line.settle();
    const now = await standby.connect();
    await replayed(old, now);
    await now.end();
    // From here on it gets nothing.
    await standby.restart({ primary_conninfo: 'host=127.0.0.1 port=1' });
    await old.query("UPDATE t SET v = 'lost with the primary' WHERE id = 1; INSERT INTO t VALUES (500, 'as well')");
    await old.query('CREATE TABLE filler AS SELECT repeat($$x$$, 1000) FROM generate_series(1, 1000)');
    await line.settle();
    await old.end();
    await primary.stop();
    const promoted = await standby.connect();
    await promoted.query('SELECT pg_promote()');
    // Somebody's tool makes the slot there, before the place that had been read; then the log grows past that place.
    const { replication_slot: slot } = line.pipeline.source;
    await promoted.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
    await promoted.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
    await promoted.query("UPDATE t SET v = 'on the new one' WHERE id = 2");
    await promoted.query('CREATE TABLE filler AS SELECT repeat($$x$$, 1000) FROM generate_series(1, 3000)');
    await promoted.query('DROP TABLE filler');
    Object.assign(at, placeOf(standby));
    await expect(line.window()).rejects.toThrow('CLUSTER_BEHIND');
    expect(haltsOf(line)).toEqual(['CLUSTER_BEHIND', 'CLUSTER_BEHIND']);
    await requestResync({ ledger: line.ledger, log: line.log });
    await promoted.query('SELECT pg_drop_replication_slot($1)', [slot]);
    await line.settle();
    expect(haltsOf(line)).toEqual([undefined, undefined]);
    const there = await target.connect(database.name);
    const all = 'SELECT id, v FROM t ORDER BY id';
    expect((await there.query(all)).rows).toEqual((await promoted.query(all)).rows);
    await Promise.all([there.end(), promoted.end()]);
  });
});

async function replayed(primary: Client, standby: Client): Promise<void> {
  const { rows } = await primary.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn');
  const sql = 'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there';
  await expect
    .poll(async () => (await standby.query(sql, [rows[0]?.lsn])).rows[0], { timeout: 20_000 })
    .toEqual({ there: true });
}

function placeOf({ host, port, user, password }: TestPostgres) {
  return { host, port, user, password };
}

async function ownDatabase(server: TestPostgres, name: string): Promise<AsyncDisposable & { readonly name: string }> {
  const admin = await server.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  return {
    name,
    [Symbol.asyncDispose]: async () => {
      await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.end();
    },
  };
}
