/**
 * source.slot_reader: peek. The reader by calls against real servers: it hands over what the stream does, byte by byte, whatever the calls' size and whatever
 * ends it in the middle; it moves the slot only to what was confirmed (I1); and a call that outlives its window is ended by the next.
 */
import * as fc from 'fast-check';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { formatLsn, type Lsn, lsnMax, lsnOf, parseLsn } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import type { SlotReader } from '../../lib/ports.ts';
import { clientConfig, connectClient } from '../../lib/postgres/connection.ts';
import { openPeekReader, type PeekReaderOptions } from '../../lib/slot/peek-reader.ts';
import { openSlotReader } from '../../lib/slot/reader.ts';
import { postgresSource } from '../../lib/slot/source.ts';
import { freeSlot, sessionName } from '../../lib/window/free-slot.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { keptLog } from '../support/ledger-nouns.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { property } from '../support/property.ts';
import { MAJORS_HERE } from '../support/servers.ts';

type Plugin = 'pgoutput' | 'wal2json';

const clock = {
  now: () => Date.now(),
  sleep: (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms)),
};
const READ_MS_MAX = 30_000;
const PUBLICATION = 'all_tables';
/** Of somebody else who reads the slot. */
const GET_OPTIONS = {
  pgoutput: `, 'proto_version', '1', 'publication_names', '${PUBLICATION}'`,
  wal2json: '',
} as const;

async function connected(server: TestPostgres, application_name: string, replication = false): Promise<Client> {
  const { host, port, user, password, database } = server;
  const connection = { host, port, user, password, database, application_name, connect_timeout_seconds: 10 };
  const endpoint = { side: 'source' as const, connection, replication };
  return await connectClient(() => new Client(clientConfig(endpoint)), endpoint);
}

/** What the log holds: a transaction each. */
const rowsSql = (n: number): string =>
  `INSERT INTO t (id, v, k) SELECT coalesce(max(id), 0) + i, repeat(md5(i::text), ${n}), 'k' FROM t RIGHT JOIN generate_series(1, ${n}) i ON true GROUP BY i`;
const OTHERS = [
  "UPDATE t SET v = v || 'x' WHERE id % 2 = 0",
  'UPDATE t SET id = -id WHERE id = 1',
  'DELETE FROM t WHERE id % 5 = 3',
  'TRUNCATE t, u',
  "INSERT INTO u SELECT coalesce(max(id), 0) + 1, 'sad' FROM u",
  'ALTER TABLE t ADD IF NOT EXISTS c int',
  'ALTER TABLE t DROP IF EXISTS c',
  "INSERT INTO not_ours VALUES (1, 'x')",
  "BEGIN; INSERT INTO u SELECT coalesce(max(id), 0) + 1, 'happy' FROM u; SAVEPOINT s; DELETE FROM t WHERE id % 7 = 1; ROLLBACK TO s; COMMIT",
  "INSERT INTO t (id, v) SELECT coalesce(max(id), 0) + 1, repeat('giant', 300000) FROM t",
] as const;

interface Read {
  /** Messages of the plugin, in order; where a commit ends, its position. */
  readonly messages: Buffer[];
  readonly commits: { readonly end_lsn: Lsn; readonly messages: number }[];
  readonly keepalives: Lsn[];
}

function commitOf(plugin: Plugin, message: Buffer, begun: Lsn | null): { begun: Lsn | null; ended: Lsn | null } {
  if (plugin === 'pgoutput') {
    const ended = message[0] === 0x43 ? (message.readBigUInt64BE(1 + 1 + 8) as Lsn) : null;
    return { begun: null, ended };
  }
  const text = message.toString();
  const [, next] = /^\{(?:"xid"|"action":"B").*"nextlsn":"([^"]+)"/.exec(text) ?? [];
  if (next !== undefined) return { begun: parseLsn(next), ended: null };
  const isCommit = text === ']}' || text.startsWith('{"action":"C"');
  return { begun: isCommit ? null : begun, ended: isCommit ? begun : null };
}

/** Reads on until there are so many commits, or until the server says that it has come to `upto`. `sips`: messages after which the sink stops a read. */
async function readOn(
  reader: SlotReader,
  plugin: Plugin,
  { commits = Number.POSITIVE_INFINITY, upto = null as Lsn | null, sip = 7 },
  into: Read = { messages: [], commits: [], keepalives: [] },
): Promise<Read> {
  let begun: Lsn | null = null;
  let taken = 0;
  const take = (message: Buffer): boolean => {
    into.messages.push(message);
    const seen = commitOf(plugin, message, begun);
    begun = seen.begun;
    if (seen.ended !== null) into.commits.push({ end_lsn: seen.ended, messages: into.messages.length });
    return ++taken % sip !== 0 && into.commits.length < commits;
  };
  const until_ms = Date.now() + READ_MS_MAX;
  const isDone = (): boolean =>
    into.commits.length >= commits || (upto !== null && (into.keepalives.at(-1) ?? (0n as Lsn)) >= upto);
  while (!isDone()) {
    if (Date.now() > until_ms) throw new Error(`${into.commits.length} commits, ${into.keepalives.at(-1)} of ${upto}`);
    const got = await reader.read(
      {
        change: (bytes, start, end) => take(Buffer.from(bytes.subarray(start, end))),
        giantChange: (pieces) => take(joined(pieces)),
        keepalive: (lsn) => void into.keepalives.push(lsn),
      },
      100,
    );
    if (got === 'nothing') reader.askKeepalive();
  }
  return into;
}

/** Without what is said again: pgoutput describes a table anew in each call, and where it may have changed. */
function once(plugin: Plugin, messages: readonly Buffer[]): string[] {
  if (plugin === 'wal2json') return messages.map((message) => message.toString());
  const described = new Map<string, string>();
  return messages.flatMap((message) => {
    const hex = message.toString('hex');
    if (message[0] !== 0x52 && message[0] !== 0x59) return [hex];
    const id = hex.slice(0, 10);
    if (described.get(id) === hex) return [];
    described.set(id, hex);
    return [hex];
  });
}

describe.each([
  ['pgoutput', 'the newest server', () => startPostgres(), false],
  ...MAJORS_HERE.filter((major) => major < 13).map(
    (version) => ['pgoutput', `PostgreSQL ${version}`, () => startPostgres({ version }), false] as const,
  ),
  ['wal2json', 'Debian', () => startDebianPostgres(), skipDebian],
] as const)('slot_reader by %s on %s', (plugin, place, start, skipped) => {
  describe.skipIf(skipped)(suiteName(place), () => {
    let server: TestPostgres;
    let sql: Client;
    let slots = 0;
    beforeAll(async () => {
      server = await start();
      sql = await server.connect();
      await sql.query(`CREATE TABLE t (id int PRIMARY KEY, v text, k text);
        CREATE TYPE mood AS ENUM ('sad', 'happy');
        CREATE TABLE u (id int PRIMARY KEY, m mood);
        CREATE TABLE not_ours (id int, v text);`);
      if (plugin === 'pgoutput') await sql.query(`CREATE PUBLICATION ${PUBLICATION} FOR TABLE t, u`);
    });
    afterAll(async () => {
      await sql?.end();
      await server?.stop();
    });

    const tables = ['t', 'u'].map((table) => ({ schema: 'public', table }));
    const peek = async (
      slot: string,
      from: Lsn,
      more: Pick<PeekReaderOptions, 'call_messages' | 'call_wal_bytes'> = {},
    ): Promise<[SlotReader, () => Client]> => {
      const clients: Client[] = [];
      const connect = async (): Promise<Client> => {
        const client = await connected(server, slot);
        clients.push(client);
        return client;
      };
      const options = { connect, clock, slot, plugin, publication: PUBLICATION, tables, from, ...more };
      return [await openPeekReader(options), () => clients[0] as Client];
    };
    const stream = async (slot: string, from: Lsn): Promise<SlotReader> =>
      await openSlotReader({
        client: await connected(server, 'stream', true),
        clock,
        slot,
        plugin,
        publication: PUBLICATION,
        tables,
        from,
        wal_sender_timeout_ms: 60_000,
      });
    /** Two slots at one position. */
    const twoSlots = async (): Promise<{ slot: string; twin: string; from: Lsn }> => {
      const slot = `slot_${++slots}`;
      const made: Lsn[] = [];
      for (const name of [slot, `${slot}_twin`]) {
        await sql.query('SELECT pg_create_logical_replication_slot($1, $2)', [name, plugin]);
        made.push(await confirmedOf(name));
      }
      return { slot, twin: `${slot}_twin`, from: made.reduce(lsnMax) };
    };
    const confirmedOf = async (slot: string): Promise<Lsn> => {
      const { rows } = await sql.query<{ lsn: string }>(
        'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1',
        [slot],
      );
      return parseLsn(rows[0]?.lsn ?? '0/0');
    };
    const dropSlots = async (...names: string[]): Promise<void> => {
      for (const name of names) {
        for (let tries = 0; ; tries++) {
          try {
            await sql.query('SELECT pg_drop_replication_slot($1)', [name]);
            break;
          } catch (error) {
            if (tries > 50) throw error; // The backend of one that was killed goes on for a moment.
            await clock.sleep(100);
          }
        }
      }
    };
    const flushed = async (): Promise<Lsn> => {
      const { rows } = await sql.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
      return parseLsn(rows[0]?.lsn ?? '0/0');
    };

    /** What the log holds, by transactions. */
    const write = fc.oneof(
      { weight: 4, arbitrary: fc.integer({ min: 1, max: 9 }).map((n) => rowsSql(n)) },
      { weight: 3, arbitrary: fc.constantFrom(...OTHERS) },
    );
    const life = fc.record({
      call_messages: fc.constantFrom(1, 2, 5, 40, 500_000),
      /** The small ones end most calls in the middle of a record. */
      call_wal_bytes: fc.constantFrom(500, 3000, 1_000_000_000),
      sip: fc.integer({ min: 1, max: 9 }),
      commits: fc.integer({ min: 0, max: 6 }),
      /** Commits that are recorded, and of these confirmed, counted from the last that was read. */
      unrecorded: fc.integer({ min: 0, max: 2 }),
      unconfirmed: fc.integer({ min: 0, max: 3 }),
      end: fc.constantFrom('close', 'kill', 'terminate'),
    });

    property(
      'hands over what the stream does, and is ended and opened again',
      fc.record({
        writes: fc.array(write, { minLength: 1, maxLength: 12 }),
        lives: fc.array(life, { minLength: 1, maxLength: 4 }),
      }),
      async ({ writes, lives }) => {
        await sql.query('DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text, k text); TRUNCATE u');
        if (plugin === 'pgoutput') await sql.query(`ALTER PUBLICATION ${PUBLICATION} SET TABLE t, u`);
        const { slot, twin, from: first } = await twoSlots();
        let from = first;
        try {
          for (const text of writes) await sql.query(text);
          const upto = await flushed();
          for (const life of [...lives, null]) {
            const wanted = await stream(twin, from);
            const expected = await readOn(wanted, plugin, { upto });
            await wanted.close();
            const [reader, client] = await peek(slot, from, life ?? {});
            const commits = life === null ? expected.commits.length : Math.min(life.commits, expected.commits.length);
            const got = await readOn(reader, plugin, { commits, sip: life?.sip ?? 1000 });
            const bytes = expected.commits[commits - 1]?.messages ?? 0;
            expect(once(plugin, got.messages)).toEqual(once(plugin, expected.messages.slice(0, bytes)));
            const recorded = got.commits.at(-1 - (life?.unrecorded ?? 0))?.end_lsn ?? from;
            const confirmed = got.commits.at(-1 - (life?.unrecorded ?? 0) - (life?.unconfirmed ?? 0))?.end_lsn ?? null;
            if (confirmed !== null) reader.confirm(confirmed);
            if (life?.end === 'kill') client().connection.stream.destroy();
            if (life?.end === 'terminate') {
              const { processID } = client() as unknown as { processID: number };
              await sql.query('SELECT pg_terminate_backend($1)', [processID]);
            }
            await reader.close();
            const now = await confirmedOf(slot);
            const most = lsnMax(from, confirmed ?? from);
            expect(now <= most, `${formatLsn(now)} is past ${formatLsn(most)}`).toBe(true);
            if (life === null || life.end === 'close') expect(now).toBe(most);
            from = lsnMax(from, recorded);
          }
        } finally {
          await dropSlots(slot, twin);
        }
      },
      6,
    );

    test('slot_reader: peek says how far the log goes, also where nothing in it is ours', async () => {
      const { slot, twin, from } = await twoSlots();
      const [reader] = await peek(slot, from);
      await sql.query("INSERT INTO not_ours SELECT i, repeat('x', 100) FROM generate_series(1, 1000) i");
      const upto = await flushed();
      const { messages, keepalives } = await readOn(reader, plugin, { upto });
      expect(once(plugin, messages).filter((message) => message.includes('not_ours'))).toEqual([]);
      reader.confirm(keepalives.at(-1) as Lsn);
      await reader.close();
      expect(await confirmedOf(slot)).toBe(keepalives.at(-1));
      await dropSlots(slot, twin);
    });

    test('slot_reader: peek makes as many calls as it takes', async () => {
      const { slot, twin, from } = await twoSlots();
      const [reader] = await peek(slot, from, { call_messages: 1 });
      for (let i = 0; i < 40; i++) await sql.query(`INSERT INTO u VALUES (${1_000_000 + i}, 'sad')`);
      const upto = await flushed();
      const { commits } = await readOn(reader, plugin, { upto });
      expect(commits.length).toBeGreaterThanOrEqual(40);
      await reader.close();
      await dropSlots(slot, twin);
      await sql.query('TRUNCATE u');
    });

    test('slot_reader: peek moves the slot to no place past what was confirmed, be that in the middle of a record', async () => {
      const { slot, twin, from } = await twoSlots();
      const [reader] = await peek(slot, from, { call_wal_bytes: 500_000 });
      // Its last record is as long as the rest of a segment.
      await sql.query("INSERT INTO not_ours SELECT i, 'x' FROM generate_series(1, 2000) i; SELECT pg_switch_wal()");
      await sql.query("INSERT INTO not_ours VALUES (0, 'y'); SELECT pg_switch_wal()");
      const { keepalives } = await readOn(reader, plugin, { upto: lsnOf(from + 1n) });
      reader.confirm(keepalives.at(-1) as Lsn);
      await reader.close();
      expect(await confirmedOf(slot)).toBe(keepalives.at(-1));
      await dropSlots(slot, twin);
    });

    test('slot_reader: peek does not go on where somebody else has moved the slot', async () => {
      const { slot, twin, from } = await twoSlots();
      const [reader] = await peek(slot, from);
      await sql.query("INSERT INTO t VALUES (2000001, 'read', '')");
      await readOn(reader, plugin, { upto: await flushed() });
      await sql.query("INSERT INTO t VALUES (2000002, 'lost', '')");
      await sql.query(
        'SELECT count(*) FROM pg_logical_slot_get_binary_changes($1, NULL, NULL' + GET_OPTIONS[plugin] + ')',
        [slot],
      );
      const lost = readOn(reader, plugin, { commits: 1 });
      await expect(lost).rejects.toMatchObject({ code: 'SLOT_ADVANCED' });
      await reader.close();
      await dropSlots(slot, twin);
      await sql.query('TRUNCATE t');
    });

    test('slot_reader: peek leaves the slot free between its calls, and when a call is broken off', async () => {
      const { slot, twin, from } = await twoSlots();
      const rows = 300_000;
      await sql.query(`INSERT INTO t SELECT i, md5(i::text), '' FROM generate_series(1000000, ${1_000_000 + rows}) i`);
      const [reader] = await peek(slot, from);
      const sink = { change: () => false, giantChange: () => false, keepalive: () => {} };
      while (!reader.isBusy) await reader.read(sink, 1);
      const began_ms = Date.now();
      await reader.close();
      expect(Date.now() - began_ms).toBeLessThan(5_000);
      const { rows: left } = await sql.query('SELECT query FROM pg_stat_activity WHERE application_name = $1', [slot]);
      expect(left).toEqual([]);
      const {
        rows: [state],
      } = await sql.query('SELECT active FROM pg_replication_slots WHERE slot_name = $1', [slot]);
      expect(state).toEqual({ active: false });
      expect(await confirmedOf(slot)).toBe(from);
      await dropSlots(slot, twin);
      await sql.query('TRUNCATE t');
    });

    test('slot_reader: peek says why where the source may not spool a call', async () => {
      const { slot, twin, from } = await twoSlots();
      await sql.query("INSERT INTO t SELECT i, repeat(md5(i::text), 10), '' FROM generate_series(1000000, 1030000) i");
      await sql.query("ALTER ROLE postgres SET temp_file_limit = '64kB'");
      const [reader] = await peek(slot, from);
      await sql.query('ALTER ROLE postgres RESET temp_file_limit');
      const failed = readOn(reader, plugin, { commits: 1 });
      await expect(failed).rejects.toMatchObject({
        code: 'SLOT_STREAM_FAILED',
        message: expect.stringContaining('53400') as string,
      });
      await reader.close();
      await dropSlots(slot, twin);
      await sql.query('TRUNCATE t');
    });

    // The catalog of publications is what a call can be made to wait for, and a look at the slot cannot.
    test.skipIf(plugin === 'wal2json')(
      'a call of slot_reader: peek that outlives its window is ended by the next',
      async () => {
        const { slot, twin, from } = await twoSlots();
        const options = { clock, slot, plugin, publication: PUBLICATION, tables, from };
        const [application_name, token] = ['sluice/line', 8];
        const zombie = await openPeekReader({
          ...options,
          connect: () => connected(server, sessionName(application_name, '7')),
        });
        await sql.query("INSERT INTO t VALUES (77, 'v', 'k')");
        const blocker = await server.connect();
        await blocker.query('BEGIN; LOCK TABLE pg_catalog.pg_publication IN ACCESS EXCLUSIVE MODE');
        const read = async (): Promise<never> => {
          for (;;) await zombie.read({ change: () => true, giantChange: () => true, keepalive: () => {} }, 200);
        };
        const failed = expect(read()).rejects.toMatchObject({ code: 'SLOT_STREAM_FAILED' });
        const source = postgresSource({
          connect: () => connected(server, application_name),
          openSlot: () => Promise.reject(new Error('not asked')),
          config: { database: server.database, replication_slot: slot, publication_name: PUBLICATION, plugin },
        });
        let ground = await source.look();
        for (let looks = 0; ground.slot?.active_pid === null && looks < 100; looks++) {
          await clock.sleep(50);
          ground = await source.look();
        }
        const pid = ground.slot?.active_pid;
        expect(pid).toBeTypeOf('number');
        const log = keptLog();
        await freeSlot({ source, clock, log, random: () => 0.5 }, ground, { slot, application_name, token });
        expect(log.lines.filter(({ event }) => event === 'zombie_ended')).toMatchObject([{ facts: { pid } }]);
        await failed;
        await blocker.query('COMMIT');
        await blocker.end();
        await zombie.close();
        const reader = await openPeekReader({
          ...options,
          connect: () => connected(server, sessionName(application_name, String(token))),
        });
        expect((await readOn(reader, plugin, { commits: 1 })).commits).toHaveLength(1);
        await reader.close();
        await dropSlots(slot, twin);
      },
    );
  });
});
