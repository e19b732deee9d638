/** The slot reader against a real server: what it reads and acknowledges, how it ends, and what the server's refusals become. */
import { Client, type ClientConfig } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { type Lsn, parseLsn } from '../../lib/lsn.ts';
import type { SlotReader } from '../../lib/ports.ts';
import { clientConfig, connectClient, type Endpoint } from '../../lib/postgres/connection.ts';
import { openPeekReader } from '../../lib/slot/peek-reader.ts';
import { openSlotReader } from '../../lib/slot/reader.ts';
import { type Call, recorder } from '../support/pgoutput.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

const clock = {
  now: () => Date.now(),
  sleep: (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms)),
};
const text = (value: string): string => `t:${Buffer.from(value).toString('hex')}`;

let server: TestPostgres;
let sql: Client;

beforeAll(async () => {
  server = await startPostgres();
  sql = await server.connect();
  await sql.query('CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL');
});

afterAll(async () => {
  await sql?.end();
  await server?.stop();
});

async function open(slot: string, publication: string, from: Lsn): Promise<SlotReader> {
  const { host, port, user, password, database } = server;
  const client = new Client({ host, port, user, password, database, replication: 'database' } as ClientConfig);
  await client.connect();
  return await openSlotReader({ client, clock, slot, publication, from, wal_sender_timeout_ms: 60_000 });
}

async function makeSlot(name: string): Promise<Lsn> {
  const { rows } = await sql.query<{ lsn: string }>(
    `SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')`,
    [name],
  );
  return parseLsn(rows[0]?.lsn ?? '');
}

async function slotOf(name: string): Promise<{ active: boolean; confirmed: Lsn }> {
  const { rows } = await sql.query<{ active: boolean; confirmed: string }>(
    'SELECT active, confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots WHERE slot_name = $1',
    [name],
  );
  return { active: rows[0]?.active ?? false, confirmed: parseLsn(rows[0]?.confirmed ?? '0/0') };
}

/** Reads until so many commits have come. */
async function readCommits(reader: SlotReader, commits: number): Promise<{ calls: Call[]; giants: number }> {
  const { calls, sink } = recorder();
  const decoder = new PgoutputDecoder(sink);
  let giants = 0;
  const until_ms = Date.now() + 20_000;
  while (calls.filter(({ call }) => call === 'commit').length < commits && Date.now() < until_ms) {
    await reader.read(
      {
        change: (bytes, start, end) => {
          decoder.decode(bytes, start, end);
          return true;
        },
        giantChange: (pieces) => {
          giants++;
          decoder.decodeGiant(pieces);
          return true;
        },
        keepalive: () => {},
      },
      200,
    );
  }
  return { calls, giants };
}

test('reads, acknowledges what is confirmed, and leaves the slot free', async () => {
  await sql.query('CREATE PUBLICATION odd_name FOR TABLE t');
  const from = await makeSlot('reads');
  await sql.query(`BEGIN; INSERT INTO t VALUES (1, 'a\tb'), (2, NULL); UPDATE t SET id = 3 WHERE id = 1; COMMIT`);
  const giant = 3_000_000;
  await sql.query(`INSERT INTO t VALUES (9, repeat('x', $1))`.replace('$1', String(giant)));
  await sql.query('UPDATE t SET id = 10 WHERE id = 9');
  await sql.query('TRUNCATE t');

  const reader = await open('reads', 'odd_name', from);
  expect((await slotOf('reads')).active).toBe(true);
  const { calls, giants } = await readCommits(reader, 4);
  // A table is described again whenever it may have changed, as after a TRUNCATE.
  const changes = calls.filter(({ call }, i) => call !== 'relation' || i === 1);
  const told = changes.map((call) =>
    'row' in call ? [call.call, ...call.row.map((field) => field.slice(0, 20))] : [call.call],
  );
  expect(told).toEqual([
    ['begin'],
    ['relation'],
    ['insert', text('1'), text('a\tb')],
    ['insert', text('2'), 'n'],
    ['update', text('3'), text('a\tb')],
    ['commit'],
    ['begin'],
    ['insert', text('9'), text('x'.repeat(9))],
    ['commit'],
    ['begin'],
    // The value lies outside its row and was not written again.
    ['update', text('10'), 'u'],
    ['commit'],
    ['begin'],
    ['truncate'],
    ['commit'],
  ]);
  expect(giants).toBe(1);
  const [, value] =
    calls.flatMap((call) => (call.call === 'insert' && call.row[0] === text('9') ? [call.row] : []))[0] ?? [];
  expect(value).toHaveLength(2 + 2 * giant);
  const ends = calls.flatMap((call) => (call.call === 'commit' ? [call.end_lsn as Lsn] : []));

  // Read, and not confirmed: nothing is acknowledged.
  expect((await slotOf('reads')).confirmed).toBe(from);
  const [first] = ends;
  if (first === undefined) throw new Error('no commit');
  reader.confirm(first);
  await reader.close();
  expect(await slotOf('reads')).toEqual({ active: false, confirmed: first });

  // What was not confirmed comes again, from the first commit after it.
  const again = await open('reads', 'odd_name', first);
  const { calls: rest } = await readCommits(again, 3);
  expect(rest.flatMap((call) => (call.call === 'commit' ? [call.end_lsn] : []))).toEqual(ends.slice(1));
  await again.close();
});

test('an idle server answers how far it has come', async () => {
  const from = await makeSlot('idle');
  const reader = await open('idle', 'odd_name', from);
  await sql.query('CREATE TABLE not_published (id int)');
  const { rows } = await sql.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
  const flushed = parseLsn(rows[0]?.lsn ?? '0/0');
  const answers: Lsn[] = [];
  // It answers at once, from where it has decoded to: many answers may come before it has come so far.
  const until_ms = Date.now() + 20_000;
  while (Date.now() < until_ms && (answers.at(-1) ?? from) < flushed) {
    reader.askKeepalive();
    await reader.read({ change: () => true, giantChange: () => true, keepalive: (lsn) => void answers.push(lsn) }, 200);
  }
  expect(answers.at(-1)).toBeGreaterThanOrEqual(flushed);
  await reader.close();
});

test('what a server refuses is told by its kind', async () => {
  const from = await makeSlot('refused');
  const reader = await open('refused', 'odd_name', from);
  const { rows } = await sql.query<{ pid: number }>(
    `SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = 'refused'`,
  );
  await expect(open('refused', 'odd_name', from)).rejects.toMatchObject({
    code: 'SLOT_ACTIVE',
    facts: { pid: rows[0]?.pid },
  });
  await expect(open('publication_that_is_a_slot', 'odd_name', from)).rejects.toMatchObject({ code: 'SLOT_MISSING' });
  await sql.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid]);
  const ended = (async () => {
    for (let i = 0; i < 50; i++)
      await reader.read({ change: () => true, giantChange: () => true, keepalive: () => {} }, 200);
  })();
  await expect(ended).rejects.toMatchObject({ code: 'SLOT_STREAM_FAILED' });
  await reader.close();
});

/** A source that does something for so long without a word that whoever waits would give it up, were it not asked. */
test.each(['stream', 'peek'] as const)(
  'a server that is at work is waited for, however silent it is: %s',
  async (how) => {
    const SILENCE_MS = 300;
    const slot = `works_${how}`;
    const from = await makeSlot(slot);
    const asked = { times: 0 };
    const connect = async (endpoint: Pick<Endpoint, 'ask' | 'replication'>): Promise<Client> => {
      const { host, port, user, password, database } = server;
      const connection = {
        host,
        port,
        user,
        password,
        database,
        connect_timeout_seconds: 10,
        application_name: 'works',
      };
      const whole = { side: 'source' as const, silence_ms: SILENCE_MS, connection, ...endpoint };
      return await connectClient(() => new Client(clientConfig(whole)), whole);
    };
    const ask = (): Promise<Client> => {
      asked.times++;
      return connect({});
    };
    const read = { clock, slot, publication: 'odd_name', from };
    const reader =
      how === 'peek'
        ? await openPeekReader({ ...read, connect: () => connect({ ask }) })
        : await openSlotReader({
            ...read,
            client: await connect({ ask, replication: true }),
            wal_sender_timeout_ms: 60_000,
            silence_ms: SILENCE_MS,
          });
    const locker = await server.connect();
    try {
      // It needs to know what is published before it can pass over a change, or send it.
      await locker.query('BEGIN; LOCK TABLE pg_publication_rel IN ACCESS EXCLUSIVE MODE');
      await sql.query("INSERT INTO t VALUES (77, 'late')");
      const seen: number[] = [];
      const sink = {
        change: (bytes: Buffer, start: number) => seen.push(bytes[start] ?? 0) > 0,
        giantChange: () => true,
        keepalive: () => {},
      };
      const until_ms = Date.now() + 30_000;
      while (asked.times < 4 && Date.now() < until_ms) {
        reader.askKeepalive();
        await reader.read(sink, 100);
      }
      expect({ ...asked, seen }).toEqual({ times: 4, seen: [] });
      await locker.query('COMMIT');
      while (!seen.includes('C'.charCodeAt(0)) && Date.now() < until_ms) await reader.read(sink, 100);
      expect(String.fromCharCode(...seen)).toBe('BRIC');
    } finally {
      await locker.end();
      await reader.close();
      await sql.query('DELETE FROM t WHERE id = 77');
    }
  },
);
