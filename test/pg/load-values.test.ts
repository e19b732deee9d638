/**
 * Goal: values and names arrive as they were sent (I6). Method: nasty ones go through a first sync and a cut, and the table's text is compared.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import type { Shape } from '../../lib/shape.ts';
import { DELETED_AT, HARD, THREE_COLUMNS as SHAPE, threeRows } from '../support/loaded-stream.ts';
import {
  applyCut,
  onLoaderServer,
  rowsOf,
  streamOf,
  synchronise,
  type TargetFor,
  targetOn,
} from '../support/loading.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { type Line, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

onLoaderServer((opened) => {
  ({ server, client } = opened);
});

const streamWith = (options: TargetFor, shape?: Shape, rows?: readonly Line[]) =>
  threeRows(server, client, options, shape, rows);

describe('values', () => {
  const NASTY = [
    '',
    '\\N',
    '\\.',
    '\\',
    '\t',
    '\n',
    '\r',
    '\r\n',
    'a\tb\nc\\d\re',
    '\\t',
    "'",
    '"',
    'NULL',
    'ünï☃🎈',
    ' x ',
    '\v\f\b',
    '\\x41',
    '\\101',
  ];

  test('every text arrives as it was sent; the empty string is not NULL', async () => {
    const lines = NASTY.map((value, i): Line => [String(i), value, null]);
    const { apply, rows } = await streamWith(HARD, SHAPE, lines.slice(0, 9));
    await apply({ blocks: [{ kind: 'upsert', lines: lines.slice(9) }] });
    expect(new Map((await rows()).map(([id, a, b]) => [id, [a, b]]))).toEqual(
      new Map(lines.map(([id, a, b]) => [id, [a, b]])),
    );
  });

  test('nasty texts as keys: found again by update, delete and rekey', async () => {
    const shape = shapeOf({ k: 'text', a: 'text', b: 'text' }, ['k']);
    const { apply, rows } = await streamWith(
      HARD,
      shape,
      NASTY.map((k): Line => [k, 'a', 'b']),
    );
    await apply({ blocks: [{ kind: 'update', columns: ['k', 'a'], lines: NASTY.map((k): Line => [k, 'new']) }] });
    expect(await rows('count(*), min(a)')).toEqual([[String(NASTY.length), 'new']]);
    await apply({
      blocks: [
        { kind: 'rekey', columns: ['k', 'a'], lines: NASTY.map((k): Line => [k, `${k}2`, 'moved']) },
        { kind: 'delete', lines: NASTY.map((k): Line => [k, DELETED_AT]) },
      ],
    });
    expect(new Set((await rows('k')).map(([k]) => k))).toEqual(new Set(NASTY.map((k) => `${k}2`)));
  });

  test('types of PostgreSQL keep their text', async () => {
    const shape = shapeOf(
      {
        id: 'int8',
        flag: 'bool',
        bytes: 'bytea',
        amount: [1700, ((12 << 16) | 4) + 4],
        ratio: 'float8',
        at: 'timestamptz',
        day: 'date',
        span: 'interval',
        uid: 'uuid',
        doc: 'json',
        docb: 'jsonb',
        code: [1042, 4 + 4],
        name: [1043, 10 + 4],
        list: [1007, -1],
        hstore: [16_999, -1],
        object: [2205, -1],
      },
      ['id'],
    );
    const row: Line = [
      '9223372036854775807',
      't',
      '\\x00ff5c',
      '12345678.9012',
      '0.1',
      '0099-01-01 00:00:00+00 BC',
      'infinity',
      '-1 years -2 mons +3 days -04:05:06.7',
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
      '{"b":1, "a" : 2,"b":3}',
      '{"a": 1.0}',
      'ab  ',
      'x',
      '[2:3]={1,NULL}',
      '"a"=>"1"',
      'no_such_schema.t',
    ];
    const { apply, rows, table } = await streamWith(HARD, shape, [row]);
    await client.query("SET timezone = 'UTC'");
    await apply({ blocks: [{ kind: 'upsert', lines: [['1', ...row.slice(1)]] }] });
    expect(await rows()).toEqual([['1', ...row.slice(1)], row]);
    const { rows: types } = await client.query<{ t: string }>(
      `SELECT format_type(atttypid, atttypmod) AS t FROM pg_attribute WHERE attrelid = '${table.schema}.${table.table}'::regclass AND attnum > 0 AND attname !~ '^_sdc' ORDER BY attnum`,
    );
    expect(types.map(({ t }) => t)).toEqual([
      'bigint',
      'boolean',
      'bytea',
      'numeric(12,4)',
      'double precision',
      'timestamp with time zone',
      'date',
      'interval',
      'uuid',
      'json',
      'jsonb',
      'character(4)',
      'character varying(10)',
      'integer[]',
      'text',
      'text',
    ]);
  });

  test('settings of the role and of the database do not change what a value means', async () => {
    await client.query(`CREATE ROLE odd LOGIN SUPERUSER PASSWORD 'odd';
      ALTER ROLE odd SET DateStyle = 'German'; ALTER ROLE odd SET IntervalStyle = 'iso_8601'; ALTER ROLE odd SET TimeZone = 'Asia/Tokyo';
      ALTER ROLE odd SET standard_conforming_strings = off; ALTER ROLE odd SET search_path = 'apply';
      ALTER ROLE odd SET default_transaction_isolation = 'serializable'; ALTER ROLE odd SET statement_timeout = '1ms'`);
    const shape = shapeOf({ id: 'int4', day: 'date', at: 'timestamptz', span: 'interval' }, ['id']);
    const row: Line = ['1', '2026-02-01', '2026-02-01 00:00:00+00', '-1 days +02:03:00'];
    const { apply, rows } = await streamWith({ ...HARD, user: 'odd', password: 'odd' }, shape, [row]);
    await apply({ blocks: [{ kind: 'upsert', lines: [['2', ...row.slice(1)]] }] });
    expect(await rows()).toEqual([row, ['2', ...row.slice(1)]]);
  });
});

describe('names', () => {
  const ODD = [
    'a b',
    'A',
    'a',
    'x.y',
    'say "hi"',
    "it's",
    'select',
    'ünï',
    '☃'.repeat(21),
    'c0',
    'k0',
    'at',
    '$1',
    '\\',
  ];

  test('odd names of schema, table and columns, one of them 63 bytes long', async () => {
    const table = { schema: 'Sch"ema.x', table: `T'a"b\\le.${'é'.repeat(20)}` };
    const shape = shapeOf(Object.fromEntries(ODD.map((name) => [name, 'text'])), ['select', 'a', 'at']);
    const target = targetOn(server, HARD);
    const stream = streamOf(table, 'odd "stream\' name');
    const line = (key: string): Line => ODD.map((name, i) => (['select', 'a', 'at'].includes(name) ? key : `${i}`));
    await synchronise(target, stream, shape, [[line('1'), line('2'), line('3')]]);
    await applyCut(target, stream, [
      segmentOf({
        shape,
        blocks: [
          { kind: 'rekey', columns: ['a', 'select', 'at', 'k0'], lines: [['2', '2', '2', '20', '20', '20', 'moved']] },
          {
            kind: 'delete',
            lines: [
              ['2', '2', '2', DELETED_AT],
              ['3', '3', '3', DELETED_AT],
            ],
          },
          { kind: 'upsert', lines: [line('4')] },
          { kind: 'update', columns: ['c0', 'at', 'select', 'a'], lines: [['c', '1', '1', '1']] },
        ],
      }),
    ]);
    const at = (name: string, line: Line, value: string): Line => line.map((old, i) => (ODD[i] === name ? value : old));
    expect(await rowsOf(client, table)).toEqual(
      expect.arrayContaining([at('c0', line('1'), 'c'), at('k0', line('20'), 'moved'), line('4')]),
    );
    expect(await rowsOf(client, table)).toHaveLength(3);
  });
});
