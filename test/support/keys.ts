/**
 * Tables with keys of every kind, filled by the server itself: for tests of how a table is cut.
 */
export interface KeyKind {
  readonly name: string;
  /** Columns of the key with their types. */
  readonly columns: readonly (readonly [name: string, type: string])[];
  /** Their values for the row of number `n`, as SQL over `n` and `h`, a number of 31 bits that is drawn for it. What comes twice is left out. */
  readonly values: string;
  /** How many of the key's columns ranges can be made of. */
  readonly ranged: number;
  /** The key has as many values as there are rows (nearly): equal parts of it are equal parts of the table. */
  readonly even: boolean;
}

/** Characters that quoting, escaping and collations stumble over. */
const ODD_TEXT = `(ARRAY['', '''', E'\\\\', 'Ä', 'ß', ' ', 'z', '"', E'\\t', E'\\n', '%s', '-', '_', '日'])[1 + h % 14] || substr(md5(h::text), 1, 4) || n`;

const one = (name: string, type: string, values: string, ranged = 1, even = true): KeyKind => ({
  name,
  columns: [['k', type]],
  values,
  ranged,
  even,
});

/** Before the tables: types that they are of. */
export const KEY_TYPES_SQL = `
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'Happy', 'it''s');
  CREATE DOMAIN amount AS numeric(12, 3) CHECK (VALUE > -1e9);
  CREATE TYPE pair AS (a int, b text);
  CREATE EXTENSION IF NOT EXISTS citext`;

export const KEY_KINDS: readonly KeyKind[] = [
  one('int4 in order', 'int4', 'n'),
  one('int4 by chance', 'int4', 'h - 1073741824'),
  one('int2', 'int2', 'h % 60000 - 30000'),
  one('int8, sparse', 'int8', '(h - 1073741824)::int8 * 4294967291'),
  one('int8, skewed', 'int8', 'CASE WHEN n % 10 > 0 THEN n ELSE h::int8 * 1000000 END'),
  one('numeric', 'numeric', "CASE n % 50 WHEN 7 THEN 'NaN' ELSE (h - 1073741824) / 7.0 END"),
  one('float8', 'float8', "CASE n % 50 WHEN 7 THEN 'NaN' WHEN 8 THEN '-Infinity' ELSE (h - 1073741824) / 3.0 END"),
  one('uuid', 'uuid', 'md5(h::text)::uuid'),
  one('text', 'text', ODD_TEXT),
  one('text, C', 'text COLLATE "C"', ODD_TEXT),
  one('text, ICU', 'text COLLATE "und-x-icu"', ODD_TEXT),
  one('varchar', 'varchar(60)', ODD_TEXT),
  one('char, padded', 'char(12)', 'substr(md5(h::text), 1, 1 + h % 12)', 1, false),
  one('name', 'name', ODD_TEXT),
  one('bytea', 'bytea', "decode(md5(h::text), 'hex')"),
  one('timestamptz', 'timestamptz', "'2020-01-01Z'::timestamptz + h * interval '1.000001 s'"),
  one('date', 'date', "'1970-01-01'::date + h % 40000"),
  one('time', 'time', "'00:00'::time + h % 86400 * interval '0.999999 s'"),
  one('interval', 'interval', "h % 50000 * interval '7 hours -1 s' + n % 3 * interval '1 mon'"),
  one('inet', 'inet', "'10.0.0.0'::inet + h % 4000000"),
  one('cidr', 'cidr', "network(set_masklen('10.0.0.0'::inet + h % 16000000, 24 + h % 9))", 1, false),
  one('bit', 'bit(20)', '(h % 1000000)::bit(20)'),
  one('jsonb', 'jsonb', `jsonb_build_object('a', h, E'b''"\\\\', n)`),
  one('money', 'money', '((h - 1073741824) / 100.0)::numeric::money'),
  one('oid', 'oid', '(h::int8 * 2)::oid'),
  one('bool', 'bool', 'n % 2 = 0', 1, false),
  one('enum', 'mood', '(enum_range(NULL::mood))[1 + h % 4]', 1, false),
  one('domain', 'amount', '(h - 1073741824) / 1000.0'),
  one('citext, whose operators are an extension’s', 'citext', ODD_TEXT, 0),
  one('regclass, whose literals are names', 'regclass', '(100000 + n)::oid::regclass', 0),
  one('an array', 'int4[]', 'ARRAY[h % 7, n]', 0),
  one('a composite', 'pair', "ROW(h % 7, 'x' || n)::pair", 0),
  {
    name: 'tenant and number',
    columns: [
      ['tenant', 'int4'],
      ['k', 'int8'],
    ],
    values: 'CASE WHEN h % 100 < 95 THEN 1 ELSE h % 7 END, n',
    ranged: 2,
    even: true,
  },
  {
    name: 'text and uuid',
    columns: [
      ['region', 'text'],
      ['k', 'uuid'],
    ],
    values: `(ARRAY['eu', 'US', 'it''s'])[1 + h % 3], md5(h::text)::uuid`,
    ranged: 2,
    even: true,
  },
  {
    name: 'enum, time and number',
    columns: [
      ['m', 'mood'],
      ['at', 'timestamptz'],
      ['k', 'int4'],
    ],
    values: "(enum_range(NULL::mood))[1 + h % 4], '2020-01-01Z'::timestamptz + h % 20 * interval '1 h', n",
    ranged: 3,
    even: true,
  },
  {
    name: 'number and citext: by the number alone',
    columns: [
      ['k', 'int4'],
      ['c', 'citext'],
    ],
    values: `h % 40, ${ODD_TEXT}`,
    ranged: 1,
    even: false,
  },
];

export function tableSql(table: string, kind: KeyKind, partitioned: boolean): string {
  const columns = kind.columns.map(([name, type]) => `${name} ${type}`).join(', ');
  const key = kind.columns.map(([name]) => name).join(', ');
  const parts = partitioned
    ? ` PARTITION BY HASH (${kind.columns[0]?.[0]}); ${[0, 1, 2].map((i) => `CREATE TABLE ${table}_${i} PARTITION OF ${table} FOR VALUES WITH (MODULUS 3, REMAINDER ${i})`).join('; ')}`
    : '';
  return `CREATE TABLE ${table} (${columns}, n int NOT NULL, pad text, PRIMARY KEY (${key}))${parts}`;
}

/** Rows of these numbers; `seed` draws them. */
export function insertSql(table: string, kind: KeyKind, from: number, to: number, seed: string): string {
  return `INSERT INTO ${table} SELECT ${kind.values}, n, repeat('x', h % 60)
      FROM (SELECT n, ('x' || substr(md5('${seed}/' || n), 1, 8))::bit(32)::int8 & 2147483647 AS h8, n AS n0 FROM generate_series(${from}, ${to}) n) d
     CROSS JOIN LATERAL (SELECT h8::int4 AS h) e
    ON CONFLICT DO NOTHING`;
}
