/**
 * Goal: every operation of a segment does to a table what lib/stage/segment.ts says, in both delete modes, and values arrive as they were sent.
 * Method: a stream is synchronised with a few rows, one segment is applied, and the table's text is compared.
 */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TableName } from '../../lib/shape.ts';
import { applyCut, connectionsLeft, rowsOf, streamOf, synchronise, targetOn } from '../support/loading.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { EXTRACTED_AT, type Line, type SegmentOf, segmentOf, shapeOf } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

beforeAll(async () => {
  server = await startPostgres();
  client = await server.connect();
});
afterAll(async () => {
  const left = await connectionsLeft(client);
  await server.stop();
  expect(left).toBe(0);
});

const HARD = { hard_delete: true } as const;
const SOFT = { hard_delete: false, add_metadata_columns: true } as const;
const PLAIN = { hard_delete: false, add_metadata_columns: false } as const;

const SHAPE = shapeOf({ id: 'int4', a: 'text', b: 'text' }, ['id']);
const ROWS: Line[] = [
  ['1', 'a1', 'b1'],
  ['2', 'a2', 'b2'],
  ['3', 'a3', 'b3'],
];

let tables = 0;

/** A stream with ROWS, to which segments are applied one after the other. */
async function streamWith(options: Parameters<typeof targetOn>[1], shape = SHAPE, rows = ROWS) {
  const table: TableName = { schema: 'apply', table: `t${++tables}` };
  const target = targetOn(server, options);
  const stream = streamOf(table);
  await synchronise(target, stream, shape, [rows]);
  return {
    table,
    apply: (...segments: Omit<SegmentOf, 'shape'>[]) =>
      applyCut(
        target,
        stream,
        segments.map((segment) => segmentOf({ shape, ...segment })),
      ),
    rows: (columns?: string) => rowsOf(client, table, columns),
    /** Key and time of each row that is marked as deleted. */
    deleted: async () =>
      rowsOf(client, table, `id, "_sdc_deleted_at" AT TIME ZONE 'UTC'`).then((all) =>
        all.filter(([, at]) => at !== null),
      ),
  };
}

const DELETED_AT = '2026-01-01 00:00:00.000001+00';

describe('upsert', () => {
  test.each([HARD, SOFT, PLAIN])('inserts what is missing and replaces what is there: %o', async (options) => {
    const { apply, rows } = await streamWith(options);
    await apply({
      blocks: [
        {
          kind: 'upsert',
          lines: [
            ['2', 'new', null],
            ['4', '', 'b4'],
          ],
        },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'new', null],
      ['3', 'a3', 'b3'],
      ['4', '', 'b4'],
    ]);
  });

  test('a table with nothing but its key', async () => {
    const { apply, rows } = await streamWith(PLAIN, shapeOf({ id: 'int4' }, ['id']), [['1']]);
    await apply({
      blocks: [
        { kind: 'upsert', lines: [['1'], ['2']] },
        { kind: 'update', columns: ['id'], lines: [['9']] },
      ],
    });
    expect(await rows()).toEqual([['1'], ['2']]);
  });

  test('metadata columns say when the rows were read and when they were written', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [{ kind: 'upsert', lines: [['2', 'x', 'y']] }], extracted_at: '2026-05-06T07:08:09.000Z' });
    const columns = `id, ("_sdc_extracted_at" AT TIME ZONE 'UTC')::text, "_sdc_batched_at" > now() - interval '1 minute', "_sdc_deleted_at"`;
    expect(await rows(columns)).toEqual([
      ['1', '2026-01-02 03:04:05.678', 't', null],
      ['2', '2026-05-06 07:08:09', 't', null],
      ['3', '2026-01-02 03:04:05.678', 't', null],
    ]);
    expect(EXTRACTED_AT).toBe('2026-01-02T03:04:05.678Z');
  });
});

describe('delete', () => {
  test('hard: removes the rows, and leaves alone a key that is not there', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({
      blocks: [
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['77', DELETED_AT],
          ],
        },
      ],
    });
    expect(await rows('id')).toEqual([['1'], ['3']]);
  });

  test('soft: marks the rows with the time of the commit; they keep their last values', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({
      blocks: [
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['77', DELETED_AT],
          ],
        },
      ],
    });
    expect(await rows()).toEqual(ROWS);
    expect(await deleted()).toEqual([['2', '2026-01-01 00:00:00.000001']]);
  });

  test('soft: a row that was written and then deleted keeps what was written', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({
      blocks: [
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['3', DELETED_AT],
            ['4', DELETED_AT],
          ],
        },
        {
          kind: 'upsert',
          lines: [
            ['2', 'last', 'words'],
            ['4', 'short', 'life'],
          ],
        },
        { kind: 'update', columns: ['id', 'b'], lines: [['3', 'last']] },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'last', 'words'],
      ['3', 'a3', 'last'],
      ['4', 'short', 'life'],
    ]);
    expect((await deleted()).map(([id]) => id)).toEqual(['2', '3', '4']);
  });

  test.each([
    ['upsert', { kind: 'upsert', lines: [['2', 'back', 'b2']] }],
    ['update', { kind: 'update', columns: ['id', 'a'], lines: [['2', 'back']] }],
  ] as const)('soft: a row that comes back by %s is undeleted', async (_kind, block) => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({ blocks: [{ kind: 'delete', lines: [['2', DELETED_AT]] }] });
    await apply({ blocks: [block] });
    expect(await deleted()).toEqual([]);
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'back', 'b2'],
      ['3', 'a3', 'b3'],
    ]);
  });

  test('without metadata columns deletions are read and not applied', async () => {
    const { apply, rows } = await streamWith(PLAIN);
    const segment = segmentOf({
      shape: SHAPE,
      blocks: [
        { kind: 'delete', lines: [['2', DELETED_AT]] },
        { kind: 'upsert', lines: [['4', 'a4', 'b4']] },
      ],
    });
    await apply({ blocks: [{ kind: 'delete', lines: [['1', DELETED_AT]] }] });
    expect(await rows('id')).toEqual([['1'], ['2'], ['3']]);
    const target = targetOn(server, PLAIN);
    await applyCut(target, streamOf({ schema: 'apply', table: `t${tables}` }), [segment]);
    expect(await rows('id')).toEqual([['1'], ['2'], ['3'], ['4']]);
    expect(segment.finished).toEqual([0, 1]);
  });
});

describe('update', () => {
  test('writes the columns it has and leaves the others; a key that is not there is left alone', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({
      blocks: [
        {
          kind: 'update',
          columns: ['id', 'a'],
          lines: [
            ['1', 'x'],
            ['77', 'x'],
          ],
        },
        { kind: 'update', columns: ['id', 'b'], lines: [['2', null]] },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'x', 'b1'],
      ['2', 'a2', null],
      ['3', 'a3', 'b3'],
    ]);
  });

  test('many sets of columns, and the same set again in the next segment of the transaction', async () => {
    const names = ['c0', 'c1', 'c2', 'c3', 'c4'];
    const shape = shapeOf(Object.fromEntries([['id', 'int4'], ...names.map((name) => [name, 'text'])]), ['id']);
    const { apply, rows } = await streamWith(
      HARD,
      shape,
      names.map((_, i) => [`${i}`, 'v', 'v', 'v', 'v', 'v']),
    );
    const segment = (value: string) => ({
      blocks: names.map((name, i) => ({ kind: 'update' as const, columns: ['id', name], lines: [[`${i}`, value]] })),
    });
    await apply(segment('first'), segment('second'));
    expect(await rows()).toEqual(names.map((_, i) => [`${i}`, ...names.map((_, j) => (i === j ? 'second' : 'v'))]));
  });
});

describe('rekey', () => {
  const rekey = (...lines: Line[]) => ({ kind: 'rekey' as const, columns: ['id', 'a'], lines });

  test.each([HARD, SOFT])('takes what is absent from the row of the old key: %o', async (options) => {
    const { apply, rows, deleted } = await streamWith(options);
    await apply({ blocks: [rekey(['2', '20', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    const hard = options === HARD;
    expect(await rows()).toEqual(
      [['1', 'a1', 'b1'], ...(hard ? [] : [['2', 'a2', 'b2']]), ['20', 'moved', 'b2'], ['3', 'a3', 'b3']].sort(
        (x, y) => Number(x[0]) - Number(y[0]),
      ),
    );
    if (!hard) expect((await deleted()).map(([id]) => id)).toEqual(['2']);
  });

  test('without metadata columns the row of the old key stays', async () => {
    const { apply, rows } = await streamWith(PLAIN);
    await apply({ blocks: [rekey(['2', '20', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    expect(await rows('id, b')).toEqual([
      ['1', 'b1'],
      ['2', 'b2'],
      ['3', 'b3'],
      ['20', 'b2'],
    ]);
  });

  test('a row of the new key that is there already gets what the log has and keeps the rest', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [rekey(['2', '3', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['3', 'moved', 'b3'],
    ]);
  });

  test('with the new row there, the old one need not be', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [rekey(['77', '3', 'moved']), { kind: 'delete', lines: [['77', DELETED_AT]] }] });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', 'moved', 'b3'],
    ]);
  });

  test('with neither row there, none is made: nobody knows its absent values', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [rekey(['77', '78', 'moved']), { kind: 'delete', lines: [['77', DELETED_AT]] }] });
    expect(await rows()).toEqual(ROWS);
  });

  test('soft: a row that was only kept since its deletion makes way for the one that moves there', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({ blocks: [{ kind: 'delete', lines: [['3', DELETED_AT]] }] });
    await apply({ blocks: [rekey(['2', '3', 'moved']), { kind: 'delete', lines: [['2', DELETED_AT]] }] });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['2', 'a2', 'b2'],
      ['3', 'moved', 'b2'],
    ]);
    expect((await deleted()).map(([id]) => id)).toEqual(['2']);
  });

  test('goes before what the same segment does to the new key', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({
      blocks: [
        rekey(['2', '20', 'moved'], ['3', '30', 'moved']),
        {
          kind: 'delete',
          lines: [
            ['2', DELETED_AT],
            ['3', DELETED_AT],
            ['30', DELETED_AT],
          ],
        },
        { kind: 'update', columns: ['id', 'a'], lines: [['20', 'later']] },
      ],
    });
    expect(await rows()).toEqual([
      ['1', 'a1', 'b1'],
      ['20', 'later', 'b2'],
    ]);
  });

  test('composite key: either half may change', async () => {
    const shape = shapeOf({ x: 'text', v: 'text', y: 'int4', w: 'text' }, ['x', 'y']);
    const { apply, rows } = await streamWith(HARD, shape, [
      ['a,b', 'v', '1', 'w1'],
      ['a', 'v', '2', 'w2'],
    ]);
    await apply({
      blocks: [
        {
          kind: 'rekey',
          columns: ['x', 'v', 'y'],
          lines: [
            ['a,b', '1', 'a', 'V', '1'],
            ['a', '2', 'a', 'V', '22'],
          ],
        },
        {
          kind: 'delete',
          lines: [
            ['a,b', '1', DELETED_AT],
            ['a', '2', DELETED_AT],
          ],
        },
      ],
    });
    expect(await rows()).toEqual([
      ['a', 'V', '1', 'w1'],
      ['a', 'V', '22', 'w2'],
    ]);
  });
});

describe('a key that is spelled anew and equal to what it was', () => {
  const shape = shapeOf({ id: 'numeric', a: 'text', b: 'text' }, ['id']);
  const row: Line[] = [['1.0', 'a', 'b']];

  test.each([HARD, SOFT])('by a change of key with an absent value: %o', async (options) => {
    const { apply, rows, deleted } = await streamWith(options, shape, row);
    await apply({
      blocks: [
        { kind: 'rekey', columns: ['id', 'a'], lines: [['1.0', '1.00', 'moved']] },
        { kind: 'delete', lines: [['1.0', DELETED_AT]] },
      ],
    });
    expect(await rows()).toEqual([['1.00', 'moved', 'b']]);
    expect(await deleted()).toEqual([]);
  });

  test.each([HARD, SOFT])('by a delete and an insert: %o', async (options) => {
    const { apply, rows, deleted } = await streamWith(options, shape, row);
    await apply({
      blocks: [
        { kind: 'delete', lines: [['1.0', DELETED_AT]] },
        { kind: 'upsert', lines: [['1.00', 'moved', 'c']] },
      ],
    });
    expect(await rows()).toEqual([['1.00', 'moved', 'c']]);
    expect(await deleted()).toEqual([]);
  });
});

describe('truncate', () => {
  const truncate = { operation: 'truncate', extracted_at: '2026-05-06T07:08:09.000Z' } as const;
  const after = { blocks: [{ kind: 'upsert', lines: [['9', 'a9', 'b9']] }] } as const;

  test('hard: empties the table at its place in the order', async () => {
    const { apply, rows } = await streamWith(HARD);
    await apply({ blocks: [{ kind: 'upsert', lines: [['8', 'a8', 'b8']] }] }, truncate, after);
    expect(await rows('id')).toEqual([['9']]);
  });

  test('soft: marks every row that is not marked yet', async () => {
    const { apply, rows, deleted } = await streamWith(SOFT);
    await apply({ blocks: [{ kind: 'delete', lines: [['2', DELETED_AT]] }] });
    await apply(truncate, after);
    expect(await rows('id')).toEqual([['1'], ['2'], ['3'], ['9']]);
    expect(await deleted()).toEqual([
      ['1', '2026-05-06 07:08:09'],
      ['2', '2026-01-01 00:00:00.000001'],
      ['3', '2026-05-06 07:08:09'],
    ]);
  });

  test('soft without metadata columns, and ignore: nothing', async () => {
    for (const options of [PLAIN, { ...HARD, on_truncate: 'ignore' }, { ...SOFT, on_truncate: 'ignore' }] as const) {
      const { apply, rows } = await streamWith(options);
      await apply(truncate, after);
      expect(await rows('id')).toEqual([['1'], ['2'], ['3'], ['9']]);
    }
  });

  test('halt: an error, and nothing of the transaction is there', async () => {
    const { apply, rows } = await streamWith({ ...HARD, on_truncate: 'halt' });
    await expect(apply(after, truncate)).rejects.toMatchObject({ code: 'TRUNCATE_HALTED', disposition: 'halt' });
    expect(await rows()).toEqual(ROWS);
  });
});

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
