/** wal2json's messages, as a server of Debian's 15 sent them and as they are printed: what they make, and what is refused. */
import { describe, expect, test } from 'vitest';
import { modifierOf } from '../../lib/decode/wal2json-modifier.ts';
import { expectedTuple, type Row, UNCHANGED } from '../support/pgoutput.ts';
import { catalogOf, change1, change2, decoding, type PrintedColumn } from '../support/wal2json.ts';

const T = { schema: 'public', table: 't' };
const ID: PrintedColumn = { name: 'id', type: 'integer', type_oid: 23, number: 1, value: '1' };
const V: PrintedColumn = { name: 'v', type: 'text', type_oid: 25, number: 2, value: 'a' };
const N: PrintedColumn = { name: 'n', type: 'numeric', type_oid: 1700, number: 3, value: '1.50' };
const COLUMNS = [ID, V, N];
const text = (row: Row) => expectedTuple(row);

describe('recorded', () => {
  test('a transaction of format 2', async () => {
    const { feed, calls } = decoding(2, [catalogOf([ID, V], ['id'])]);
    await feed(
      Buffer.from(
        '{"action":"B","xid":740,"timestamp":"2026-11-21 11:21:58.806847+00","lsn":"0/1C35650","nextlsn":"0/1C356F0"}',
      ),
      Buffer.from(
        String.raw`{"action":"I","xid":740,"timestamp":"2026-11-21 11:21:58.806847+00","lsn":"0/1C354C8","schema":"public","table":"t","columns":[{"name":"id","type":"integer","typeoid":23,"value":-7,"position":1},{"name":"v","type":"text","typeoid":25,"value":"tab\t \"q\" \\ \u0001 é","position":2}]}`,
      ),
      Buffer.from(
        '{"action":"M","xid":740,"timestamp":"2026-11-21 11:21:58.806847+00","lsn":"0/1C354C8","transactional":true,"prefix":"p","content":"c"}',
      ),
      Buffer.from(
        '{"action":"C","xid":740,"timestamp":"2026-11-21 11:21:58.806847+00","lsn":"0/1C35650","nextlsn":"0/1C356F0"}',
      ),
    );
    expect(calls).toMatchObject([
      { call: 'begin', xid: 740, committed_at_us: Date.UTC(2026, 10, 21, 11, 21, 58) * 1000 + 806_847 },
      {
        call: 'relation',
        relation: {
          id: 5000,
          replica_identity: 'd',
          columns: [
            { name: 'id', identity: true },
            { name: 'v', identity: false },
          ],
        },
      },
      { call: 'insert', id: 5000, row: text(['-7', 'tab\t "q" \\ \u0001 é']) },
      { call: 'commit', end_lsn: 0x1c356f0n },
    ]);
  });

  test('a transaction of format 1, and a message outside of it', async () => {
    const { feed, calls } = decoding(1, [catalogOf([ID, V], ['id'])]);
    await feed(
      Buffer.from('{"change":[{"kind":"message","transactional":false,"prefix":"p","content":"c"}]}'),
      Buffer.from('{"xid":741,"nextlsn":"0/1C35C10","timestamp":"2026-11-21 11:21:58+00","change":['),
      Buffer.from(
        '{"kind":"insert","schema":"public","table":"t","columnnames":["id","v"],"columntypes":["integer","text"],"columntypeoids":[23,25],"columnpositions":[1,2],"columnvalues":[2,null]}',
      ),
      Buffer.from(
        ',{"kind":"delete","schema":"public","table":"t","oldkeys":{"keynames":["id"],"keytypes":["integer"],"keytypeoids":[23],"keyvalues":[2]}}',
      ),
      Buffer.from(']}'),
    );
    expect(calls).toMatchObject([
      { call: 'begin', xid: 741 },
      { call: 'relation' },
      { call: 'insert', row: text(['2', null]) },
      { call: 'delete', image: 'key', old: text(['2', null]) },
      { call: 'commit', end_lsn: 0x1c35c10n },
    ]);
  });
});

test('numbers that are strings (2.6) are what they say, and a null is NULL', async () => {
  const { feed, calls, failed } = decoding(2, [catalogOf([N, V], ['n'])], undefined, true);
  const message = (n: string, v: string) =>
    Buffer.from(
      `{"action":"I","xid":1,"schema":"public","table":"t","columns":[{"name":"v","type":"text","typeoid":25,"value":${v},"position":2},{"name":"n","type":"numeric","typeoid":1700,"value":${n},"position":3}]}`,
    );
  await feed(message('"NaN"', '"a"'), message('"1.50"', 'null'));
  expect(calls.flatMap((call) => ('row' in call ? [call.row] : []))).toEqual([
    text(['a', 'NaN']),
    text([null, '1.50']),
  ]);
  expect(failed).toEqual([]);
});

test('strings of a giant are taken out of it, whichever way it is cut', async () => {
  const value = 'x"\\\n\u0001é'.repeat(20_000);
  const message = change2('I', T, {
    row: [ID, { ...V, value }, { ...N, type_oid: 17, type: 'bytea', value: `\\x${'0a'.repeat(50_000)}` }],
  });
  for (const size of [1, 7, 16_384]) {
    const { decoder, calls } = decoding(2, [catalogOf([ID, V, { ...N, type_oid: 17 }], ['id'])]);
    const pieces: Buffer[] = [];
    for (let at = 0; at < message.length; at += size) pieces.push(Buffer.from(message.subarray(at, at + size)));
    decoder.decodeGiant(pieces);
    expect(calls.at(-1)).toMatchObject({ row: text(['1', value, `\\x${'0a'.repeat(50_000)}`]) });
  }
});

describe.each([1, 2] as const)('format %i', (format) => {
  const insert = (row: readonly PrintedColumn[]) =>
    format === 2 ? change2('I', T, { row }) : change1('insert', T, { row });
  const update = (row: readonly PrintedColumn[], old: readonly PrintedColumn[]) =>
    format === 2 ? change2('U', T, { row, old }) : change1('update', T, { row, old }, false);
  const remove = (old: readonly PrintedColumn[]) =>
    format === 2 ? change2('D', T, { old }) : change1('delete', T, { old }, false);

  test('an identity that is the row’s own is no old image; what is left out is unchanged', async () => {
    const { feed, calls, asked } = decoding(format, [catalogOf(COLUMNS, ['id'])]);
    const { value: _, ...left } = V;
    await feed(
      update([ID, left, N], [ID]),
      update([{ ...ID, value: '2' }, V, N], [ID]),
      update([{ ...ID, value: '3' }, left, N], [ID]),
    );
    expect(calls.slice(1)).toMatchObject([
      { image: 'none', row: text(['1', UNCHANGED, '1.50']) },
      { image: 'key', old: text(['1', null, null]), row: text(['2', 'a', '1.50']) },
      { image: 'key', row: text(['3', UNCHANGED, '1.50']) },
    ]);
    expect(asked()).toBe(0);
  });

  test('a column that cannot lie outside its row is not there when it is left out', async () => {
    const { feed, calls } = decoding(format, [catalogOf([ID, { ...N, type_oid: 23, type: 'integer' }], ['id'])]);
    await feed(update([ID], [ID]));
    expect(calls).toMatchObject([{ relation: { columns: [{ name: 'id' }] } }, { row: text(['1']) }]);
  });

  test('a change of shape is told at its place, once, and the catalog is asked once', async () => {
    const later: PrintedColumn = { name: 'added', type: 'character varying(9)', type_oid: 1043, number: 4, value: 'x' };
    const catalog = catalogOf([ID, V, N, later], ['id']);
    const { feed, calls, asked } = decoding(format, [catalogOf(COLUMNS, ['id'])], [catalog]);
    await feed(insert(COLUMNS), insert([...COLUMNS, later]), insert([...COLUMNS, later]));
    expect(calls.map(({ call }) => call)).toEqual(['relation', 'insert', 'relation', 'insert', 'insert']);
    expect(calls[2]).toMatchObject({
      relation: { columns: [{}, {}, {}, { name: 'added', number: 4, type_modifier: 13 }] },
    });
    expect(asked()).toBe(1);
  });

  test('a column that another was put in the place of is told, though it looks the same', async () => {
    const again = { ...V, number: 9 };
    const { feed, calls } = decoding(format, [catalogOf([ID, V], ['id'])], [catalogOf([ID, again], ['id'])]);
    await feed(insert([ID, V]), insert([ID, again]));
    expect(calls.map(({ call }) => call)).toEqual(['relation', 'insert', 'relation', 'insert']);
  });

  test('generated columns are left out, as pgoutput leaves them out', async () => {
    const { name, type_oid, number } = N;
    const generated = [{ name, type_oid, number, type_modifier: -1, expression: 'id * 2', storage: 's' as const }];
    const { feed, calls } = decoding(format, [catalogOf([ID, V], ['id'], { generated })]);
    await feed(insert(COLUMNS));
    expect(calls).toMatchObject([
      { relation: { columns: [{ name: 'id' }, { name: 'v' }] } },
      { row: text(['1', 'a']) },
    ]);
  });

  test('types that format_type quotes are not always JSON', async () => {
    const odd = ['"My ""Type"""', '"S".t', 'public."Mood"', '"a"[]'].map((type, i) => ({
      name: `c${i}`,
      type,
      type_oid: 3_000_000_000 + i,
      number: 4 + i,
      value: 'v',
    }));
    const { feed, calls } = decoding(format, [catalogOf([ID, ...odd], ['id'])]);
    await feed(insert([ID, ...odd]), insert([ID, ...odd]));
    expect(calls.map((call) => ('row' in call ? call.row : call.call))).toEqual([
      'relation',
      text(['1', 'v', 'v', 'v', 'v']),
      text(['1', 'v', 'v', 'v', 'v']),
    ]);
  });

  test('a null in a key that may be NaN gives the stream up, and nothing of it is told', async () => {
    const { feed, calls, failed } = decoding(format, [catalogOf([N, V], ['n'])]);
    await feed(insert([V, { ...N, value: 'NaN' }]), insert([V, N]));
    expect(failed).toEqual(['NUMBER_UNKNOWN']);
    expect(calls.filter(({ call }) => call === 'insert')).toHaveLength(1);
  });

  test('what is not followed is passed over, whatever it is', async () => {
    const { feed, calls } = decoding(format, []);
    await feed(insert(COLUMNS), remove([ID]));
    expect(calls).toEqual([]);
  });

  test('what does not fit is an error with its place', async () => {
    const { feed } = decoding(format, [catalogOf(COLUMNS, ['id'])]);
    const whole = insert(COLUMNS);
    await expect(feed(whole.subarray(0, -1))).rejects.toMatchObject({
      code: 'DECODE_FAILED',
      facts: { offset: whole.length - 1 },
    });
    await expect(feed(Buffer.concat([whole, Buffer.from('x')]))).rejects.toMatchObject({ code: 'DECODE_FAILED' });
  });
});

test.each([
  [1700, 'numeric(10,2)', ((10 << 16) | 2) + 4],
  [1700, 'numeric(3,-2)', ((3 << 16) | 0x7fe) + 4],
  [1700, 'numeric', -1],
  [1231, 'numeric(5,1)[]', ((5 << 16) | 1) + 4],
  [1043, 'character varying(20)', 24],
  [1042, 'character(5)', 9],
  [1042, 'bpchar', -1],
  [1560, 'bit(3)', 3],
  [1114, 'timestamp(3) without time zone', 3],
  [1186, 'interval', -1],
  [1186, 'interval(2)', (0x7fff << 16) | 2],
  [1186, 'interval year to month', (6 << 16) | 0xffff],
  [1186, 'interval day to second(2)', (((1 << 3) | (1 << 10) | (1 << 11) | (1 << 12)) << 16) | 2],
  [23, 'integer', -1],
  [99_999, 'geometry(Point,4326)', null],
])('modifier of %i %s', (type_oid, type, modifier) => {
  expect(modifierOf(type_oid, type)).toBe(modifier);
});
