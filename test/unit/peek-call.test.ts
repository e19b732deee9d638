/**
 * One call of the reader by calls, over a stream whose other end the test holds: rows of a binary COPY however the bytes are cut, giants in pieces, warnings,
 * an error in the middle, and the connection given back to `pg`. And what of a call's messages is passed over.
 */
import { PassThrough } from 'node:stream';
import type { Connection } from 'pg';
import { describe, expect, test } from 'vitest';
import { lsnOf } from '../../lib/lsn.ts';
import { joined } from '../../lib/piece.ts';
import { passedOver } from '../../lib/slot/passed-over.ts';
import { type CallSink, PeekCall } from '../../lib/slot/peek-call.ts';
import { advanceSql, peekSql } from '../../lib/slot/peek-sql.ts';
import { pgoutputOptions, wal2jsonOptions } from '../../lib/slot/plugin-options.ts';
import { GIANT_FRAME_BYTES_MIN } from '../../lib/slot/wire.ts';
import { frame } from '../support/pgoutput.ts';

const HEADER = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)]);
const END = Buffer.from([0xff, 0xff]);
const row = (text: string | Buffer): Buffer => {
  const data = Buffer.from(text);
  const head = Buffer.alloc(6);
  head.writeInt16BE(1, 0);
  head.writeInt32BE(data.length, 2);
  return Buffer.concat([head, data]);
};
const copyOut = frame('H', Buffer.from([1, 0, 1, 0, 1]));
/** As the server sends it: the header stands before the first row, in one message with it. */
function copyOf(...rows: Buffer[]): Buffer {
  const [first, ...others] = [...rows, END];
  const messages = [Buffer.concat([HEADER, first]), ...others];
  return Buffer.concat([copyOut, ...messages.map((message) => frame('d', message)), frame('c', Buffer.alloc(0))]);
}
const AFTER = Buffer.concat([frame('C', Buffer.from('COPY 2\0')), frame('Z', Buffer.from('I'))]);

interface Wire {
  readonly call: PeekCall;
  readonly stream: PassThrough;
  /** What `pg` has been given back. */
  readonly given: Buffer[];
  news: number;
}

function submitted(): Wire {
  const stream = new PassThrough();
  const given: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => void given.push(chunk));
  const wire: Wire = {
    call: new PeekCall(
      'COPY it',
      () => 1,
      () => void wire.news++,
    ),
    stream,
    given,
    news: 0,
  };
  const asked: string[] = [];
  wire.call.submit({ stream, query: (sql: string) => void asked.push(sql) } as unknown as Connection);
  expect(asked).toEqual(['COPY it']);
  return wire;
}

/** Pulls until all has been given to the stream, `sips` messages a time. */
function collector(sip = Number.POSITIVE_INFINITY): { readonly seen: string[]; readonly sink: CallSink } {
  const seen: string[] = [];
  const took = (text: string): boolean => seen.push(text) % sip !== 0;
  return {
    seen,
    sink: {
      message: (bytes, start, end) => took(bytes.toString('latin1', start, end)),
      giant: (pieces) => took(`giant of ${joined(pieces).length} bytes, ${joined(pieces).at(-1)}`),
      warning: (text) => void seen.push(`warning: ${text}`),
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 5));

describe('a call', () => {
  test.each([1, 2, 3, 7, 19, 1000])('in chunks of %i bytes', async (bytes) => {
    const wire = submitted();
    const { seen, sink } = collector(2);
    const all = Buffer.concat([copyOf(row('one'), row(''), row('three')), AFTER]);
    for (let at = 0; at < all.length; at += bytes) {
      wire.stream.write(all.subarray(at, at + bytes));
      await turn();
      for (let pulls = 0; wire.call.waits && pulls < 5; pulls++) wire.call.pull(sink);
    }
    expect(seen).toEqual(['one', '', 'three']);
    expect(wire.call.messages).toBe(3);
    expect(Buffer.concat(wire.given)).toEqual(AFTER);
    expect(wire.news).toBeGreaterThan(0);
    wire.call.handleCommandComplete();
    expect(wire.call.ended).toBe(true);
  });

  test('without a row', async () => {
    const wire = submitted();
    const { seen, sink } = collector();
    wire.stream.write(Buffer.concat([copyOf(), AFTER]));
    await turn();
    wire.call.pull(sink);
    expect([seen, Buffer.concat(wire.given)]).toEqual([[], AFTER]);
  });

  test.each(['first', 'second'])('a giant as the %s row comes in pieces', async (place) => {
    const wire = submitted();
    const { seen, sink } = collector();
    const giant = Buffer.alloc(GIANT_FRAME_BYTES_MIN + 5, 7);
    const rows = place === 'first' ? [row(giant), row('small')] : [row('small'), row(giant)];
    const all = Buffer.concat([copyOf(...rows), AFTER]);
    for (let at = 0; at < all.length; at += 65_536) {
      wire.stream.write(all.subarray(at, at + 65_536));
      await turn();
      wire.call.pull(sink);
    }
    const told = `giant of ${giant.length} bytes, 7`;
    expect(seen).toEqual(place === 'first' ? [told, 'small'] : ['small', told]);
  });

  test('a warning, and an error in the middle that pg is to understand', async () => {
    const wire = submitted();
    const { seen, sink } = collector();
    const error = frame('E', Buffer.from('SERROR\0C57014\0Mcanceled\0\0'));
    const began = Buffer.concat([copyOut, frame('d', Buffer.concat([HEADER, row('one')]))]);
    wire.stream.write(Buffer.concat([frame('N', Buffer.from('SWARNING\0Mno tuple\0\0')), began, error, AFTER]));
    await turn();
    wire.call.pull(sink);
    expect(seen).toEqual(['warning: no tuple', 'one']);
    expect(Buffer.concat(wire.given)).toEqual(Buffer.concat([error, AFTER]));
    const thrown = new Error('canceled');
    wire.call.handleError(thrown);
    expect([wire.call.ended, wire.call.error]).toEqual([true, thrown]);
  });

  test('nothing is read ahead of a caller that does not pull', async () => {
    const wire = submitted();
    wire.stream.write(copyOf(row(Buffer.alloc(600_000))));
    await turn();
    expect(wire.stream.isPaused()).toBe(true);
    wire.call.pull(collector().sink);
    expect(wire.stream.isPaused()).toBe(false);
  });

  test.each([
    ['no header', frame('d', row('one'))],
    ['two columns', frame('d', Buffer.concat([HEADER, Buffer.from([0, 2, 0, 0, 0, 0])]))],
    ['another length', frame('d', Buffer.concat([HEADER, Buffer.from([0, 1, 0, 0, 0, 9, 1])]))],
    ['an end without rows', frame('c', Buffer.alloc(0))],
    ['another message', frame('T', Buffer.alloc(2))],
  ])('%s is not understood', async (_, bytes) => {
    const wire = submitted();
    wire.stream.write(Buffer.concat([copyOut, bytes]));
    await turn();
    expect(() => wire.call.pull(collector().sink)).toThrow(RangeError);
  });
});

const lsn = (position: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(position));
  return bytes;
};
const id = (relation: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(relation);
  return bytes;
};
const begin = (commit: number): Buffer => Buffer.concat([Buffer.from('B'), lsn(commit), Buffer.alloc(12)]);
const commit = (at: number, end: number): Buffer =>
  Buffer.concat([Buffer.from('C\0'), lsn(at), lsn(end), Buffer.alloc(8)]);
const about = (letter: string, relation: number, rest = ''): Buffer =>
  Buffer.concat([Buffer.from(letter), id(relation), Buffer.from(rest)]);
const truncate = (...relations: number[]): Buffer =>
  Buffer.concat([Buffer.from('T'), id(relations.length), Buffer.from([0]), ...relations.map(id)]);

describe('what is passed over', () => {
  test('pgoutput: what ended before the position, and descriptions come before the first change that is not', () => {
    const passed = passedOver({ plugin: 'pgoutput' }, lsnOf(100n));
    passed.begin(lsnOf(100n));
    const take = (message: Buffer): string[] | null => {
      const before = passed.take(Buffer.concat([Buffer.alloc(3), message]), 3, 3 + message.length);
      return before?.map(String) ?? null;
    };
    const [type, one, two] = [about('Y', 9, 'mood'), about('R', 1, 'old'), about('R', 2)];
    for (const message of [begin(50), type, one, about('I', 1), two, about('U', 2), commit(50, 60)]) {
      expect(take(message)).toBeNull();
    }
    const changed = about('R', 1, 'new');
    for (const message of [begin(90), changed, about('I', 1), commit(90, 100)]) expect(take(message)).toBeNull();
    expect(passed.position).toBe(100n);
    expect(take(begin(100))).toEqual([]);
    expect(take(about('D', 1))).toEqual([String(changed)]);
    expect(take(about('D', 1))).toEqual([]);
    expect(take(commit(100, 110))).toEqual([]);
    expect(passed.position).toBe(110n);
    expect(take(begin(120))).toEqual([]);
    expect(take(truncate(1, 2))).toEqual([String(two)]);
    expect(take(commit(120, 130))).toEqual([]);
    // Described anew in the next call: what was kept is not needed, and what was passed over is not told.
    passed.begin(lsnOf(130n));
    expect(take(begin(110))).toBeNull();
    expect(take(type)).toBeNull();
    expect(take(one)).toBeNull();
    expect(take(begin(130))).toEqual([]);
    expect(take(about('R', 1, 'newest'))).toEqual([]);
    expect(take(about('I', 1))).toEqual([]);
  });

  test.each([
    [
      'format 2',
      (end: string) => `{"action":"B","xid":5,"timestamp":"now","lsn":"0/1","nextlsn":"${end}"}`,
      '{"action":"I","columns":[{"value":"{\\"action\\":\\"B\\"}"}]}',
      '{"action":"C"}',
    ],
    [
      'format 1',
      (end: string) => `{"xid":5,"nextlsn":"${end}","timestamp":"now","change":[`,
      ',{"kind":"insert","columnvalues":["{\\"xid\\":"]}',
      ']}',
    ],
  ] as const)('wal2json, %s', (_, begins, change, ends) => {
    const passed = passedOver({ plugin: 'wal2json', format: 2, numbers_as_text: true }, lsnOf(0x1_0000_0010n));
    passed.begin(lsnOf(0x1_0000_0010n));
    const take = (text: string): unknown => passed.take(Buffer.from(text), 0, Buffer.byteLength(text));
    for (const text of [begins('1/10'), change, ends]) expect(take(text)).toBeNull();
    for (const text of [begins('1/20'), change, ends]) expect(take(text)).toEqual([]);
    expect(passed.position).toBe(0x1_0000_0020n);
    expect(() => take(begins(''))).toThrow(RangeError);
  });
});

describe('statements', () => {
  test('a call names the slot, its bounds, and what is asked of the plugin', () => {
    const [asked] = pgoutputOptions(160_000, ["it's", 'B']);
    if (!asked) throw new Error('no options');
    expect(peekSql('slot', lsnOf(0x1_0000_00ffn), 3_000_000_000, asked)).toBe(
      `COPY (SELECT data FROM pg_logical_slot_peek_binary_changes('slot', '1/FF', 2147483647, 'proto_version', '2', 'publication_names', '"it''s","B"')) TO STDOUT (FORMAT binary)`,
    );
    const [json] = wal2jsonOptions([{ schema: 'a.b', table: 'c' }]);
    if (!json) throw new Error('no options');
    expect(peekSql('slot', lsnOf(1n), 1, json)).toContain(String.raw`'add-tables',  E'a\\.b.c'`);
  });

  test.each([
    [110_000, 'pgoutput', `pg_replication_slot_advance(slot_name, '0/9')`],
    [100_023, 'pgoutput', `pg_logical_slot_get_binary_changes(slot_name, '0/9', NULL, 'proto_version', '1'`],
    [100_023, 'wal2json', `pg_logical_slot_get_binary_changes(slot_name, '0/9', NULL)`],
  ])('on %i, %s, the slot is moved, and never back', (version, plugin, text) => {
    const sql = advanceSql('slot', lsnOf(9n), version, plugin, 'p');
    expect(sql).toContain(text);
    expect(sql).toContain(`slot_name = 'slot' AND confirmed_flush_lsn < '0/9'::pg_lsn`);
  });
});
