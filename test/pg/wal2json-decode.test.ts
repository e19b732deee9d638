/**
 * One log, three slots: what the decoders of wal2json (format 2 and 1) tell of it is what pgoutput's tells. Only what wal2json does not print is asked
 * of the source, and only TRUNCATE, which format 1 does not have, is missing there.
 */
import type { Client } from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { RelationColumn } from '../../lib/change.ts';
import { NumberDoubts } from '../../lib/decode/number-doubts.ts';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { Wal2jsonDecoder } from '../../lib/decode/wal2json.ts';
import { Wal2jsonV1 } from '../../lib/decode/wal2json-v1.ts';
import { Wal2jsonV2 } from '../../lib/decode/wal2json-v2.ts';
import type { SluiceError } from '../../lib/errors.ts';
import { LSN_ZERO } from '../../lib/lsn.ts';
import type { SourceTable } from '../../lib/ports.ts';
import { displayName } from '../../lib/shape.ts';
import { readTables } from '../../lib/slot/catalog.ts';
import { startWal2json } from '../../lib/slot/start-replication.ts';
import { readSpecialNumbers } from '../../lib/slot/wal2json-source.ts';
import { quoteIdentifier } from '../../lib/sql-text.ts';
import { skipDebian, startDebianPostgres, suiteName } from '../support/debian-postgres.ts';
import { type Call, recorder } from '../support/pgoutput.ts';
import type { TestPostgres } from '../support/postgres.ts';

const GIANT_BYTES = 500_000;
const PIECE_BYTES = 16_384;

type Told = Call | { readonly call: 'failed'; readonly code: string };

describe.skipIf(skipDebian)(suiteName('wal2json beside pgoutput'), () => {
  let server: TestPostgres;
  let sql: Client;
  let suites = 0;

  beforeAll(async () => {
    server = await startDebianPostgres();
    sql = await server.connect();
    await sql.query(
      `SET bytea_output = 'hex'; SET DateStyle = 'ISO,MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3`,
    );
    await sql.query('CREATE PUBLICATION everything FOR ALL TABLES');
  });

  afterAll(async () => {
    await sql?.end();
    await server?.stop();
  });

  beforeEach(async () => {
    await sql.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
    suites++;
  });

  /** The tables are as `before` makes them when the window begins, and `changes` is what it reads. */
  async function told(
    before: string,
    changes: readonly string[],
  ): Promise<Record<'pgoutput' | 'format_1' | 'format_2', Told[]>> {
    if (before !== '') await sql.query(before);
    const slots = { pgoutput: `p${suites}`, format_1: `a${suites}`, format_2: `b${suites}` };
    for (const [name, slot] of Object.entries(slots)) {
      await sql.query('SELECT pg_create_logical_replication_slot($1, $2)', [
        slot,
        name === 'pgoutput' ? name : 'wal2json',
      ]);
    }
    const tables = (await readTables(sql)).filter(({ kind }) => kind === 'r');
    for (const change of changes) await sql.query(change);
    const answers = {
      pgoutput: await pgoutput(slots.pgoutput),
      format_1: await wal2json(slots.format_1, 1, tables),
      format_2: await wal2json(slots.format_2, 2, tables),
    };
    for (const slot of Object.values(slots)) await sql.query('SELECT pg_drop_replication_slot($1)', [slot]);
    return answers;
  }

  async function pgoutput(slot: string): Promise<Told[]> {
    const { calls, sink } = recorder();
    const decoder = new PgoutputDecoder(sink);
    const { rows } = await sql.query<{ data: Buffer }>(
      `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '2', 'publication_names', 'everything')`,
      [slot],
    );
    for (const { data } of rows) decoder.decode(data, 0, data.length);
    return whole(calls);
  }

  async function wal2json(slot: string, format: 1 | 2, tables: readonly SourceTable[]): Promise<Told[]> {
    const { calls, sink } = recorder();
    const all: Told[] = [];
    const decoder = new Wal2jsonDecoder(sink, {
      tables,
      catalog: () => readTables(sql),
      reader: format === 2 ? new Wal2jsonV2() : new Wal2jsonV1(),
      numbers_as_text: false,
      doubts: new NumberDoubts({
        lookUp: (query) => readSpecialNumbers(sql, query),
        fail: (_, { code }: SluiceError) => all.push({ call: 'failed', code }),
      }),
    });
    const command = startWal2json(slot, LSN_ZERO, tables).find(
      ({ dialect }) => dialect.plugin === 'wal2json' && dialect.format === format && !dialect.numbers_as_text,
    );
    // The options of the command, as the function takes them.
    const options = (command?.sql ?? '')
      .replace(/^[^(]*\(/, '')
      .replace(/\)$/s, '')
      .replaceAll(/(^|, )"([a-z-]+)" '/g, "$1'$2', '");
    const { rows } = await sql.query<{ data: string }>(
      `SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL, ${options.replaceAll(/'((?:[^']|'')*)'/gs, (text) => (text.includes('\\') ? ` E${text.replaceAll('\\', '\\\\')}` : text))})`,
      [slot],
    );
    for (const { data } of rows) {
      const bytes = Buffer.from(data);
      if (bytes.length >= GIANT_BYTES) decoder.decodeGiant(piecesOf(bytes));
      else decoder.decode(bytes, 0, bytes.length);
      if (decoder.waits) await decoder.proceed();
    }
    await decoder.settle();
    return [...all, ...whole(calls)];
  }

  test('every kind of value', async () => {
    const columns = [
      'i2 int2',
      'i4 int4',
      'i8 int8',
      'o oid',
      'f4 float4',
      'f8 float8',
      'n numeric',
      'n2 numeric(12,3)',
      'ok bool',
      'b bytea',
      't text',
      'c char(5)',
      '"C" "char"',
      'vc varchar(20)',
      'd date',
      'ts timestamp(3)',
      'tz timestamptz',
      'ti time(0)',
      'tt timetz',
      'iv interval',
      'iv2 interval day to second(2)',
      'j json',
      'jb jsonb',
      'x xml',
      'u uuid',
      'a int4[]',
      'na numeric(5,1)[]',
      'ta text[]',
      'bi bit(3)',
      'bv varbit(9)',
      'net inet',
      'm macaddr',
      'p point',
      'r int4range',
      'mr int4multirange',
      'tv tsvector',
      'l pg_lsn',
      'mo money',
      'e mood',
      'q "Odd ""Mood"""',
      'dn dnum',
      'db dbytes',
      'cp pair',
      'rc regclass',
    ];
    const values = [
      '(1',
      '-32768',
      '-2147483648',
      '9223372036854775807',
      '4294967295',
      '1.5e-10',
      '-0',
      '12345678901234567890.000010',
      '7',
      'true',
      `'\\x00ff10'`,
      `E'tab\\t quote " back \\\\ new\\nline \\u00e9 \\x7f \\x01'`,
      `'ab'`,
      `'x'`,
      `''`,
      `'infinity'`,
      `'0044-03-15 BC'`,
      `'2024-02-29 23:59:59.123456+00'`,
      `'24:00:00'`,
      `'12:00:00+05:30:15'`,
      `'-1 years 3 mons -4 days 00:00:00.000001'`,
      `'1 02:03:04.56'`,
      `'{"a": 1,  "a":2}'`,
      `'{"b":[1,null]}'`,
      `'<a>&amp;</a>'`,
      `'00000000-0000-0000-0000-000000000001'`,
      `'[0:1]={1,NULL}'`,
      `'{NaN,1.5}'`,
      `ARRAY['a"b', NULL, '', 'c\\d']`,
      `'101'`,
      `'1'`,
      `'::1/128'`,
      `'08:00:2b:01:02:03'`,
      `'(1,2)'`,
      `'[1,5)'`,
      `'{[1,3),[5,7)}'`,
      `'a:1 b'`,
      `'0/16B3748'`,
      `'12.34'`,
      `'a "b"'`,
      `'z'`,
      `'NaN'`,
      `'\\x01'`,
      `'("a,b",)'`,
      `'pg_class')`,
    ];
    const calls = await told(
      `CREATE TYPE mood AS ENUM ('a "b"', 'ok'); CREATE TYPE "Odd ""Mood""" AS ENUM ('z'); CREATE DOMAIN dnum AS numeric; CREATE DOMAIN dbytes AS bytea;
       CREATE TYPE pair AS (a text, b int); CREATE TABLE v (id int PRIMARY KEY, ${columns.join(', ')})`,
      [
        `INSERT INTO v VALUES ${values.join(', ')}`,
        'INSERT INTO v (id) VALUES (2)',
        'UPDATE v SET ok = false, t = NULL WHERE id = 1',
        'UPDATE v SET id = 3 WHERE id = 1',
        'DELETE FROM v WHERE id = 3',
      ],
    );
    expect(calls.format_2).toEqual(calls.pgoutput);
    expect(calls.format_1).toEqual(calls.pgoutput);
  });

  test('TOAST, giants, and replica identities', async () => {
    const giant = `repeat('x"y\\' || chr(10) || chr(1) || 'é', ${GIANT_BYTES / 4})`;
    const calls = await told(
      `CREATE TABLE d (id int, part int, big text, n int, blob bytea, PRIMARY KEY (part, id));
       ALTER TABLE d ALTER big SET STORAGE EXTERNAL, ALTER blob SET STORAGE EXTERNAL;
       CREATE TABLE f (LIKE d INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL;
       CREATE TABLE i (LIKE d); ALTER TABLE i ALTER n SET NOT NULL; CREATE UNIQUE INDEX by_n ON i (n); ALTER TABLE i REPLICA IDENTITY USING INDEX by_n;
       ALTER TABLE i ALTER big SET STORAGE EXTERNAL`,
      ['d', 'f', 'i'].flatMap((table) => [
        `INSERT INTO ${table} VALUES (1, 2, ${giant}, 5, decode(repeat('0a', ${GIANT_BYTES / 2}), 'hex')), (2, 2, repeat('y', 9000), 6, NULL)`,
        `UPDATE ${table} SET blob = NULL WHERE id = 1`,
        `UPDATE ${table} SET n = n + 100, part = part + 1`,
        `DELETE FROM ${table}`,
      ]),
    );
    expect(calls.format_2).toEqual(calls.pgoutput);
    // What format 1 leaves out of an old row is NULL.
    expect(calls.format_1).toEqual(calls.pgoutput);
  });

  test('names, and TRUNCATE', async () => {
    const names = [
      'select',
      'a.b',
      'a,b',
      ' sp ace ',
      'q"uote',
      "ap'os",
      'back\\slash',
      '*',
      'été 日本',
      'tab\tnew\nline',
      'UPPER',
      'x'.repeat(63),
    ];
    const statements = names.flatMap((name) => {
      const table = `${quoteIdentifier(name)}.${quoteIdentifier(name)}`;
      return [
        `INSERT INTO ${table} VALUES (1, 'v')`,
        `UPDATE ${table} SET ${quoteIdentifier(name)} = 2`,
        `TRUNCATE ${table}`,
      ];
    });
    const make = names.map((name) => {
      const quoted = quoteIdentifier(name);
      return `CREATE SCHEMA ${quoted}; CREATE TABLE ${quoted}.${quoted} (${quoted} int PRIMARY KEY, "v ${name.slice(0, 40).replaceAll('"', '""')}" text);`;
    });
    const calls = await told(make.join(''), statements);
    for (const name of names) await sql.query(`DROP SCHEMA ${quoteIdentifier(name)} CASCADE`);
    expect(calls.format_2).toEqual(calls.pgoutput);
    expect(calls.pgoutput.filter(({ call }) => call === 'truncate')).toHaveLength(names.length);
    expect(calls.format_1).toEqual(whole(calls.pgoutput.filter(({ call }) => call !== 'truncate')));
  });

  test('the shape changes between changes', async () => {
    const calls = await told(
      `CREATE TABLE s (id int PRIMARY KEY, a varchar(5), gone text, n numeric(5,2), g int GENERATED ALWAYS AS (id * 2) STORED, z text)`,
      [
        `INSERT INTO s (id, a, n) VALUES (1, 'a', 1)`,
        'ALTER TABLE s ADD added int DEFAULT 7',
        `INSERT INTO s (id, a, n) VALUES (2, 'a', 1)`,
        'ALTER TABLE s DROP gone; ALTER TABLE s RENAME a TO renamed; ALTER TABLE s ALTER n TYPE numeric(10,4)',
        `INSERT INTO s (id, renamed, n) VALUES (3, 'a', 1)`,
        'ALTER TABLE s DROP z; ALTER TABLE s ADD z text',
        `UPDATE s SET z = 'other' WHERE id = 3`,
        'ALTER TABLE s ADD g2 text GENERATED ALWAYS AS (upper(z)) STORED; ALTER TABLE s ALTER renamed TYPE varchar(50)',
        `INSERT INTO s (id, renamed, z) VALUES (4, 'a', 'b')`,
        'UPDATE s SET n = 1 WHERE n IS NULL',
        'ALTER TABLE s DROP CONSTRAINT s_pkey; ALTER TABLE s ADD PRIMARY KEY (n, id)',
        'DELETE FROM s WHERE id = 3',
        'ALTER TABLE s REPLICA IDENTITY FULL',
        'DELETE FROM s WHERE id = 2',
      ],
    );
    const rows = (all: readonly Told[]) =>
      all.filter(({ call }) => call !== 'relation' && call !== 'begin' && call !== 'commit');
    // pgoutput describes a table after each ALTER, wal2json's decoder when a row shows it; the rows are the same, and so is the last description.
    expect(rows(calls.format_2)).toEqual(rows(calls.pgoutput));
    // The catalog says FULL, and format 1 leaves NULLs out: a key alone may be a whole row.
    const keys = (all: readonly Told[]) =>
      rows(all).map((call) => (call.call === 'delete' ? { ...call, image: 'either' } : call));
    expect(keys(calls.format_1)).toEqual(keys(calls.pgoutput));
    const last = (all: readonly Told[]) =>
      all.flatMap((call) => (call.call === 'relation' ? [call.relation] : [])).at(-1);
    expect(last(calls.format_2)).toEqual(last(calls.pgoutput));
  });

  test('NaN and the infinities are looked up, unless they identify the row', async () => {
    const calls = await told(
      'CREATE TABLE n (id text PRIMARY KEY, f4 float4, f8 float8, n numeric, v text); CREATE TABLE k (n numeric PRIMARY KEY)',
      [
        `INSERT INTO n VALUES ('a"b', 'NaN', 'Infinity', '-Infinity', 'v'), ('c', NULL, NULL, NULL, 'v'), ('d', 'NaN', 1, 2, 'v'), ('e', 'NaN', 1, 2, 'v')`,
        `UPDATE n SET f4 = 3 WHERE id = 'd'`,
        `DELETE FROM n WHERE id = 'e'`,
        `INSERT INTO k VALUES (1), ('NaN')`,
      ],
    );
    const hex = (text: string): string => `t:${Buffer.from(text).toString('hex')}`;
    const looked = {
      call: 'update',
      image: 'none',
      old: null,
      row: [hex('a"b'), hex('NaN'), hex('Infinity'), hex('-Infinity'), 'u'],
    };
    for (const format of [calls.format_1, calls.format_2]) {
      expect(format[0]).toEqual({ call: 'failed', code: 'NUMBER_UNKNOWN' });
      expect(format.filter(({ call }) => call === 'update').slice(-1)).toMatchObject([looked]);
      expect(format.filter(({ call }) => call === 'update')).toHaveLength(2);
      expect(format.flatMap((call) => (call.call === 'insert' && call.row.length === 1 ? [call.row] : []))).toEqual([
        [hex('1')],
      ]);
    }
  });
});

/** Without what the plugins do each in their own way: when a table is described (unless it looks otherwise), numbers of columns, and the placeholders of a key's image. */
function whole(calls: readonly Told[]): Told[] {
  const seen = new Map<number, string>();
  // pgoutput leaves out transactions without a change of its tables.
  const isEmpty = (i: number): boolean => calls[i]?.call === 'begin' && calls[i + 1]?.call === 'commit';
  return calls.flatMap((call, i): Told[] => {
    if (isEmpty(i) || isEmpty(i - 1)) return [];
    if (call.call !== 'relation') return [call];
    const { columns, ...relation } = call.relation;
    const plain = { ...relation, columns: columns.map(withoutNumber) };
    const text = `${displayName(plain)} ${JSON.stringify(plain)}`;
    if (seen.get(relation.id) === text) return [];
    seen.set(relation.id, text);
    return [{ call: 'relation', relation: plain }];
  });
}

function piecesOf(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) pieces.push(Buffer.from(bytes.subarray(at, at + PIECE_BYTES)));
  return pieces;
}

function withoutNumber({ name, type_oid, type_modifier, identity }: RelationColumn): RelationColumn {
  return { name, type_oid, type_modifier, identity };
}
