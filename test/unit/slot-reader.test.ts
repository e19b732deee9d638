/**
 * The open slot over a socket whose other end a test holds: what START_REPLICATION says and gets, what reaches the sink, what is acknowledged, and how it
 * ends. The server's side is written from the manual (test/support/pgoutput.ts).
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../lib/errors.ts';
import { formatLsn, type Lsn, lsnOf, parseLsn } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import type { SlotReader, SlotSink } from '../../lib/ports.ts';
import { openSlotReader } from '../../lib/slot/reader.ts';
import { slotFault } from '../../lib/slot/slot-fault.ts';
import { GIANT_FRAME_BYTES_MIN } from '../../lib/slot/wire.ts';
import { frame, keepalive, xlogData } from '../support/pgoutput.ts';

const FROM = parseLsn('16/B374D848');
const COPY_BOTH = frame('W', Buffer.from([0, 0, 0]));
const READY = frame('Z', Buffer.from('I'));
const clock = {
  now: () => Date.now(),
  sleep: (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms)),
};

interface Server {
  readonly socket: Socket;
  readonly queries: string[];
  /** Frames that the reader has sent since it was asked last: type and payload. */
  sent(): { readonly type: string; readonly payload: Buffer }[];
}

/** Two ends of a connection on this machine. */
async function socketPair(): Promise<[Socket, Socket]> {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const near = connect(address.port, '127.0.0.1');
  const [far] = (await once(listener, 'connection')) as [Socket];
  listener.close();
  for (const socket of [near, far]) socket.setNoDelay(true);
  return [near, far];
}

/** A server that answers START_REPLICATION with `answer` (the first with the first of several), and ends as servers do. */
async function serverOf(
  answer: Buffer | readonly Buffer[],
  { version = 160_004 } = {},
): Promise<{ readonly client: Client; readonly server: Server }> {
  const [near, far] = await socketPair();
  far.on('error', () => {});
  let received = Buffer.alloc(0);
  const frames = (): { type: string; payload: Buffer }[] => {
    const found: { type: string; payload: Buffer }[] = [];
    while (received.length >= 5 && received.length >= 1 + received.readUInt32BE(1)) {
      const end = 1 + received.readUInt32BE(1);
      found.push({ type: received.toString('latin1', 0, 1), payload: received.subarray(5, end) });
      received = received.subarray(end);
    }
    return found;
  };
  let asked = 0;
  const unread: { type: string; payload: Buffer }[] = [];
  far.on('data', (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
    for (const one of frames()) {
      if (one.type === 'Q') far.write(Buffer.isBuffer(answer) ? answer : (answer[asked++] ?? COPY_BOTH));
      else if (one.type === 'c')
        far.write(Buffer.concat([frame('c', Buffer.alloc(0)), frame('C', Buffer.from('COPY 0\0')), READY]));
      else if (one.type === 'X') far.end();
      unread.push(one);
    }
  });
  const queries: string[] = [];
  const client = {
    connection: { stream: near },
    query: (text: string) => {
      queries.push(text);
      return Promise.resolve({ rows: [{ server_version_num: String(version) }] });
    },
    removeAllListeners: () => client,
    on: () => client,
    end: () => Promise.resolve(near.destroy()),
  };
  return { client: client as unknown as Client, server: { socket: far, queries, sent: () => unread.splice(0) } };
}

const open = (client: Client): Promise<SlotReader> =>
  openSlotReader({
    client,
    clock,
    slot: 'sluice_shop',
    publication: 'Odd "name"',
    from: FROM,
    wal_sender_timeout_ms: 1234.5,
  });

/** What reached the sink; stops after `stopAfter` changes. */
function collector(stopAfter = Number.POSITIVE_INFINITY): { readonly seen: (string | Lsn)[]; readonly sink: SlotSink } {
  const seen: (string | Lsn)[] = [];
  const took = (text: string): boolean => seen.push(text) < stopAfter;
  return {
    seen,
    sink: {
      change: (bytes, start, end) => took(bytes.toString('latin1', start, end)),
      giantChange: (pieces) =>
        took(`giant of ${joined(pieces).length} bytes in ${pieces.length > 1 ? 'pieces' : 'one'}`),
      keepalive: (walEnd) => void seen.push(walEnd),
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 20));
/** Confirmed position and whether an answer is wanted, of each status. */
const statuses = (server: Server): [string, number | undefined][] =>
  server
    .sent()
    .map(({ type, payload }) => [type === 'd' ? formatLsn(lsnOf(payload.readBigUInt64BE(1))) : type, payload.at(-1)]);

const errorFrame = (fields: Readonly<Record<string, string>>): Buffer =>
  frame(
    'E',
    Buffer.from(
      `${Object.entries(fields)
        .map(([letter, text]) => `${letter}${text}\0`)
        .join('')}\0`,
    ),
  );

describe('START_REPLICATION', () => {
  test.each([
    [160_004, '2', ['SHOW server_version_num', 'SET wal_sender_timeout = 1234']],
    [130_014, '1', ['SHOW server_version_num', 'SET wal_sender_timeout = 1234']],
    [110_022, '1', ['SHOW server_version_num']],
  ])('wal_sender_timeout is set from 12 on: on %i', async (version, protocol, queries) => {
    const { client, server } = await serverOf(COPY_BOTH, { version });
    const reader = await open(client);
    expect(server.queries).toEqual(queries);
    const [{ type, payload } = { type: '', payload: Buffer.alloc(0) }] = server.sent();
    expect(type).toBe('Q');
    expect(payload.toString()).toBe(
      `START_REPLICATION SLOT "sluice_shop" LOGICAL 16/B374D848 (proto_version '${protocol}', publication_names '"Odd ""name"""')\0`,
    );
    await reader.close();
  });

  test('what is there already when it is answered belongs to the first read; what follows a stop, to the next', async () => {
    const said = [
      COPY_BOTH,
      xlogData(Buffer.from('one'), 1n),
      xlogData(Buffer.from('two'), 2n),
      xlogData(Buffer.from('three'), 3n),
    ];
    // Each is a chunk of its own, and all of them come at once: as TLS and SSH hand on what one packet held.
    const socket = new Duplex({
      read: () => undefined,
      write: (bytes: Buffer, _encoding, done) => {
        if (bytes[0] === 'Q'.charCodeAt(0)) for (const chunk of said.splice(0)) socket.push(chunk);
        done();
      },
    });
    const client = {
      connection: { stream: socket },
      query: () => Promise.resolve({ rows: [{ server_version_num: '160004' }] }),
      removeAllListeners: () => client,
      on: () => client,
      end: () => Promise.resolve(),
    };
    const reader = await open(client as unknown as Client);
    const first = collector(1);
    expect(await reader.read(first.sink, 0)).toBe('data');
    expect(first.seen).toEqual(['one']);
    const rest = collector();
    expect(await reader.read(rest.sink, 0)).toBe('data');
    expect(rest.seen).toEqual(['two', 'three']);
    socket.destroy();
  });

  test('wal2json: what an older plugin refuses is not asked of it again', async () => {
    const refused = (option: string): Buffer =>
      Buffer.concat([errorFrame({ C: '22023', M: `option "${option}" = "true" is unknown` }), READY]);
    const { client, server } = await serverOf([
      refused('numeric-data-types-as-string'),
      refused('format-version'),
      COPY_BOTH,
    ]);
    const tables = [{ schema: 'a.b', table: `c,d *\\ '` }];
    const reader = await openSlotReader({
      client,
      clock,
      slot: 's',
      plugin: 'wal2json',
      publication: 'none',
      tables,
      from: FROM,
      wal_sender_timeout_ms: 1_000,
    });
    expect(reader.dialect).toEqual({ plugin: 'wal2json', format: 1, numbers_as_text: false });
    const commands = server.sent().map(({ payload }) => payload.toString());
    expect(
      commands.map((sql) => [
        sql.includes(`"format-version" '2'`),
        sql.includes('as-string'),
        sql.includes('write-in-chunks'),
      ]),
    ).toEqual([
      [true, true, false],
      [true, false, false],
      [false, false, true],
    ]);
    for (const sql of commands) expect(sql).toContain(String.raw`"add-tables" 'a\.b.c\,d\ \*\\\ ''')`.replace(')', ''));
    await reader.close();
  });

  test('wal2json: what is refused for another reason is told, and a missing plugin by its name', async () => {
    const { client } = await serverOf(
      Buffer.concat([
        errorFrame({ C: '58P01', M: 'could not access file "wal2json"', R: 'internal_load_library' }),
        READY,
      ]),
    );
    await expect(
      openSlotReader({
        client,
        clock,
        slot: 's',
        plugin: 'wal2json',
        publication: 'none',
        from: FROM,
        wal_sender_timeout_ms: 1_000,
      }),
    ).rejects.toMatchObject({ code: 'PLUGIN_MISSING', facts: { major: 16 } });
  });

  test('what comes with its answer belongs to the first read', async () => {
    const { client } = await serverOf(
      Buffer.concat([frame('N', Buffer.from('notice')), COPY_BOTH, xlogData(Buffer.from('first')), keepalive(7n)]),
    );
    const reader = await open(client);
    const { seen, sink } = collector();
    expect(await reader.read(sink, 0)).toBe('data');
    expect(seen).toEqual(['first', 7n]);
    await reader.close();
  });

  test.each<[string, Readonly<Record<string, string>>, string, Readonly<Record<string, unknown>>]>([
    [
      'in use',
      { C: '55006', M: 'replication slot "sluice_shop" is active for PID 4711' },
      'SLOT_ACTIVE',
      { pid: 4711 },
    ],
    ['not allowed', { C: '42501', M: 'permission denied' }, 'REPLICATION_NOT_ALLOWED', {}],
    ['lost', { C: '55000', M: 'can no longer get changes from replication slot' }, 'SLOT_LOST', {}],
    ['missing', { C: '42704', M: 'replication slot "sluice_shop" does not exist' }, 'SLOT_MISSING', { known: false }],
    [
      'missing, with a name that misleads',
      { C: '42704', M: 'replication slot "publication" does not exist' },
      'SLOT_MISSING',
      {},
    ],
    [
      'before its publication',
      { C: '42704', M: 'publication "p" does not exist' },
      'PUBLICATION_LATE',
      { publication: 'p' },
    ],
    [
      'before its publication, said in German',
      { C: '42704', M: 'Publikation »p« existiert nicht', R: 'get_publication_oid' },
      'PUBLICATION_LATE',
      {},
    ],
    [
      'behind a piece of the log that is gone',
      { C: '58P01', M: 'requested WAL segment 000000010000000000000001 has already been removed', R: 'WalSegmentOpen' },
      'SLOT_STREAM_FAILED',
      { reason: 'SQLSTATE 58P01: requested WAL segment 000000010000000000000001 has already been removed' },
    ],
    [
      'at a value that is too long to be printed',
      { C: 'XX000', M: 'invalid memory alloc request size 1200000003', R: 'MemoryContextSizeFailure' },
      'LOG_ROW_TOO_LARGE',
      {},
    ],
    [
      'at a row that is too long to be sent',
      { C: '54000', M: 'Zeichenkettenpuffer überschreitet die maximale Länge', R: 'enlargeStringInfo' },
      'LOG_ROW_TOO_LARGE',
      {},
    ],
    ['at another limit', { C: '54000', M: 'too much', R: 'other' }, 'SLOT_STREAM_FAILED', {}],
    ['something else', { C: 'XX000', M: 'unexpected' }, 'SLOT_STREAM_FAILED', {}],
  ])('a slot that is %s', async (_what, fields, code, facts) => {
    const { client, server } = await serverOf(Buffer.concat([errorFrame({ S: 'ERROR', ...fields }), READY]));
    await expect(open(client)).rejects.toMatchObject({ code, facts });
    await turn();
    expect(server.socket.destroyed || server.socket.readableEnded).toBe(true);
    expect(slotFault('sluice_shop', new Map(Object.entries(fields))).code).toBe(code);
  });

  test('a connection that closes, or says what nobody knows, is SLOT_STREAM_FAILED', async () => {
    const closing = await serverOf(Buffer.alloc(0));
    setTimeout(() => closing.server.socket.end(), 10);
    await expect(open(closing.client)).rejects.toMatchObject({ code: 'SLOT_STREAM_FAILED' });
    await expect(open((await serverOf(frame('?', Buffer.alloc(0)))).client)).rejects.toMatchObject({
      code: 'SLOT_STREAM_FAILED',
    });
  });
});

describe('reading', () => {
  test('nothing comes for as long as was said; data wakes at once', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    const { seen, sink } = collector();
    const began_ms = performance.now();
    expect(await reader.read(sink, 50)).toBe('nothing');
    expect(performance.now() - began_ms).toBeGreaterThanOrEqual(45);
    setTimeout(() => server.socket.write(xlogData(Buffer.from('x'))), 5);
    expect(await reader.read(sink, 60_000)).toBe('data');
    expect(seen).toEqual(['x']);
    await reader.close();
  });

  test('a sink that stops gets the rest from the next read', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    server.socket.write(Buffer.concat(['a', 'b', 'c'].map((text) => xlogData(Buffer.from(text)))));
    await turn();
    const first = collector(2);
    await reader.read(first.sink, 100);
    const second = collector();
    expect(await reader.read(second.sink, 0)).toBe('data');
    expect([first.seen, second.seen]).toEqual([['a', 'b'], ['c']]);
    await reader.close();
  });

  test('a message of megabytes comes in pieces, without the copy message around it', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    const { seen, sink } = collector();
    const bytes = Buffer.concat([xlogData(Buffer.alloc(GIANT_FRAME_BYTES_MIN, 'x')), xlogData(Buffer.from('next'))]);
    server.socket.write(bytes);
    for (let reads = 0; seen.length < 2 && reads < 200; reads++) await reader.read(sink, 100);
    expect(seen).toEqual([`giant of ${GIANT_FRAME_BYTES_MIN} bytes in pieces`, 'next']);
    await reader.close();
  });

  test('who does not read is not sent more than a little ahead, and loses nothing', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    const MESSAGES = 512;
    const message = xlogData(Buffer.alloc(64 * 1024, 'x'));
    for (let i = 0; i < MESSAGES; i++) server.socket.write(message);
    // Long enough for all of it to arrive, if it were let.
    await new Promise((resolve) => void setTimeout(resolve, 400));
    expect(server.socket.writableLength).toBeGreaterThan((MESSAGES / 2) * message.length);
    const { seen, sink } = collector();
    for (let reads = 0; seen.length < MESSAGES && reads < 10 * MESSAGES; reads++) await reader.read(sink, 100);
    expect(seen).toHaveLength(MESSAGES);
    await reader.close();
  });

  test.each<[string, Buffer]>([
    ['an unknown copy message', frame('d', Buffer.from('?'))],
    ['an empty one', frame('d', Buffer.alloc(0))],
    ['a keepalive that is cut off', frame('d', Buffer.concat([Buffer.from('k'), Buffer.alloc(16)]))],
    ['data that is cut off', frame('d', Buffer.concat([Buffer.from('w'), Buffer.alloc(23)]))],
    ['a length that cannot be', Buffer.from([0x64, 0, 0, 0, 1])],
    ['another message of the protocol', frame('D', Buffer.alloc(2))],
  ])('%s is SLOT_STREAM_FAILED, now and later', async (_what, bytes) => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    server.socket.write(bytes);
    await turn();
    const { seen, sink } = collector();
    for (let i = 0; i < 2; i++)
      await expect(reader.read(sink, 10)).rejects.toMatchObject({ code: 'SLOT_STREAM_FAILED' });
    expect(seen).toEqual([]);
    await reader.close();
  });

  test('an error of the server is told, after what came before it', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    server.socket.write(
      Buffer.concat([xlogData(Buffer.from('x')), errorFrame({ C: '57P01', M: 'terminating connection' })]),
    );
    await turn();
    const { seen, sink } = collector();
    await expect(reader.read(sink, 10)).rejects.toMatchObject({
      code: 'SLOT_STREAM_FAILED',
      message: expect.stringContaining('57P01'),
    });
    expect(seen).toEqual(['x']);
    await reader.close();
  });

  test('an error of the sink is thrown as it is', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    server.socket.write(xlogData(Buffer.from('x')));
    await turn();
    const fault = new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason: 'x' });
    const sink = {
      ...collector().sink,
      change: () => {
        throw fault;
      },
    };
    await expect(reader.read(sink, 10)).rejects.toBe(fault);
    await reader.close();
  });

  test.each([
    ['closes', (server: Server) => server.socket.end()],
    ['breaks', (server: Server) => server.socket.destroy()],
    [
      'ends the copy',
      (server: Server) =>
        server.socket.write(Buffer.concat([frame('c', Buffer.alloc(0)), frame('C', Buffer.from('COPY 0\0')), READY])),
    ],
  ])('a server that %s is SLOT_STREAM_FAILED, after what it had sent', async (_what, end) => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    server.socket.write(xlogData(Buffer.from('last')));
    await turn();
    const { seen, sink } = collector();
    await reader.read(sink, 10);
    end(server);
    await turn();
    const failed = (async () => {
      for (let i = 0; i < 3; i++) await reader.read(sink, 50);
    })();
    await expect(failed).rejects.toMatchObject({ code: 'SLOT_STREAM_FAILED' });
    expect(seen).toEqual(['last']);
    await reader.close();
  });
});

describe('what is acknowledged', () => {
  test('is what was confirmed, never what was merely read; and it never goes back', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    await turn();
    server.sent();
    server.socket.write(
      Buffer.concat([
        xlogData(Buffer.from('x'), FROM, lsnOf(FROM + 99n)),
        keepalive(FROM + 500n, true),
        keepalive(FROM + 600n),
      ]),
    );
    await turn();
    await reader.read(collector().sink, 10);
    reader.confirm(lsnOf(FROM + 40n));
    reader.confirm(lsnOf(FROM + 10n));
    reader.askKeepalive();
    await turn();
    const confirmed = formatLsn(lsnOf(FROM + 40n));
    expect(statuses(server)).toEqual([
      [formatLsn(FROM), 0],
      [confirmed, 0],
      [confirmed, 0],
      [confirmed, 1],
    ]);
    await reader.close();
  });
});

describe('the end', () => {
  test('is CopyDone, what is left to read, and Terminate; twice is once', async () => {
    const { client, server } = await serverOf(COPY_BOTH);
    const reader = await open(client);
    server.sent();
    server.socket.write(xlogData(Buffer.from('unread')));
    await Promise.all([reader.close(), reader.close()]);
    await reader.close();
    await turn();
    expect(
      server
        .sent()
        .map(({ type }) => type)
        .slice(0, 2),
    ).toEqual(['c', 'X']);
    expect(server.socket.readableEnded || server.socket.destroyed).toBe(true);
    reader.confirm(lsnOf(FROM + 1n));
    reader.askKeepalive();
  });
});

test('a walsender that has been caught up with is left alone for a moment, and then heard again', async () => {
  const { client, server } = await serverOf(COPY_BOTH);
  const reader = await open(client);
  const { socket: far } = server;
  const near = (client as unknown as { connection: { stream: Socket } }).connection.stream;
  const { seen, sink } = collector();
  const pauses: boolean[] = [];
  near.on('data', () => setImmediate(() => pauses.push(near.isPaused())));
  far.write(xlogData(Buffer.from('one'), 1n));
  while (seen.length < 1) await reader.read(sink, 1_000);
  await clock.sleep(0);
  expect(pauses).toEqual([true]);
  far.write(xlogData(Buffer.from('two'), 2n));
  while (seen.length < 2) await reader.read(sink, 1_000);
  expect(seen).toEqual(['one', 'two']);
  await reader.close();
});
