/**
 * Edge values of every type that PostgreSQL 10 to 18 bring with them and that a column can have: what a value must survive on its way.
 *
 * A type of a server that is not here fails the test that uses this (type-tables.ts): no type is forgotten. Values are the text that the type
 * reads, or an expression where there is none. `since`: the first major version that has the value; `until`: the last.
 */

export interface EdgeType {
  /** pg_type.typname. */
  readonly name: string;
  /** As a column declares it, where this is not the name: with a modifier, or as a second column of the same type. */
  readonly spelling?: string;
  /** Types that share a table. */
  readonly family: string;
  readonly values: readonly EdgeValue[];
  readonly since?: number;
}

export type EdgeValue =
  | string
  | { readonly sql: string; readonly since?: number; readonly until?: number }
  | { readonly text: string; readonly since?: number; readonly until?: number };

type Edges = Omit<EdgeType, 'family'>;

const text = (value: string, since: number): EdgeValue => ({ text: value, since });
const sql = (expression: string): EdgeValue => ({ sql: expression });

const digits = (length: number): string => '9'.repeat(length);
/** Every character that text can hold: all but U+0000 and the surrogates, in ten values. */
const UNICODE = Array.from({ length: 10 }, (_, tenth) =>
  sql(
    `(SELECT string_agg(chr(i), '' ORDER BY i) FROM generate_series(${Math.max(1, tenth * 111_412)}, ${Math.min((tenth + 1) * 111_412 - 1, 1_114_111)}) i WHERE i NOT BETWEEN 55296 AND 57343)`,
  ),
);
const AWKWARD_TEXT = [
  '',
  ' ',
  '  both  ',
  'NULL',
  '\\N',
  '\\.',
  '\\',
  '\\\\n',
  'quote \' and " and `',
  'tab\there',
  'line\nfeed\r\nreturn\r',
  '\u0001\u0008\u000b\u001b\u001f\u007f\u0080\u009f',
  '{"a,b",NULL,"\\"}',
  '\ufeffbom, \u2028 line, \u200f mark, e\u0301, 𝒳, 👩‍👩‍👧',
  '\uffff\ufffe',
];

const numbers: readonly Edges[] = [
  { name: 'int2', values: ['-32768', '-1', '0', '1', '32767'] },
  { name: 'int4', values: ['-2147483648', '-1', '0', '2147483647'] },
  {
    name: 'int8',
    values: ['-9223372036854775808', '-9007199254740993', '0', '9007199254740993', '9223372036854775807'],
  },
  {
    name: 'numeric',
    values: [
      '0',
      '-0.0',
      '0.000',
      '1.10',
      '100',
      '1e-50',
      '12345678901234567890.123456789',
      'NaN',
      text('Infinity', 14),
      text('-Infinity', 14),
      digits(1000),
      `-0.${digits(1000)}`,
      `1${'0'.repeat(130_000)}`,
    ],
  },
  { name: 'numeric', spelling: 'numeric(10,2)', values: ['0.00', '-12345678.90', '99999999.99', 'NaN'] },
  { name: 'numeric', spelling: 'numeric(1000,1000)', values: ['0', `0.${digits(1000)}`] },
  { name: 'numeric', spelling: 'numeric(3,-2)', since: 15, values: ['12300', '-99900'] },
  {
    name: 'float4',
    values: [
      '0',
      '-0',
      'NaN',
      'Infinity',
      '-Infinity',
      '1e-45',
      '1.1754942e-38',
      '3.4028235e38',
      '0.1',
      '16777216',
      '1e10',
    ],
  },
  {
    name: 'float8',
    values: [
      '0',
      '-0',
      'NaN',
      'Infinity',
      '-Infinity',
      '5e-324',
      '2.2250738585072011e-308',
      '1.7976931348623157e308',
      '0.1',
      '0.30000000000000004',
      '9007199254740993',
      '12345678',
    ],
  },
  { name: 'money', values: ['0', '-0.01', '1234.56', '92233720368547758.07', '-92233720368547758.08'] },
  { name: 'bool', values: ['t', 'f'] },
  { name: 'oid', values: ['0', '1', '2147483648', '4294967295'] },
];

const strings: readonly Edges[] = [
  { name: 'text', values: [...AWKWARD_TEXT, 'x'.repeat(100_000), ...UNICODE] },
  { name: 'varchar', values: [...AWKWARD_TEXT, 'y'.repeat(3_000)] },
  { name: 'varchar', spelling: 'varchar(3)', values: ['', 'a  ', 'äß👍'] },
  { name: 'bpchar', values: ['', 'no length', 'blanks   '] },
  { name: 'bpchar', spelling: 'char(5)', values: ['', 'a', ' a ', 'äöü', '👍', '12345'] },
  { name: 'bpchar', spelling: 'char(1)', values: ['', ' ', '\\', '\n'] },
  // Before 16, a byte above 127 is printed as it is, which is no text; then as an escape.
  { name: 'char', spelling: '"char"', values: ['', 'a', ' ', '\\', "'", '\t', text('\\377', 16)] },
  { name: 'name', values: ['', 'a', 'x'.repeat(63), 'Ünïcode "quoted"', 'with space'] },
  { name: 'refcursor', values: ['', 'cursor "1"', '\t'] },
  { name: 'bytea', values: ['', '\\x00', '\\x0a0d095c2e', '\\xfffefd', `\\x${'00ff'.repeat(5_000)}`] },
  {
    name: 'uuid',
    values: [
      '00000000-0000-0000-0000-000000000000',
      'ffffffff-ffff-ffff-ffff-ffffffffffff',
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
    ],
  },
  { name: 'bit', spelling: 'bit(1)', values: ['0', '1'] },
  { name: 'bit', spelling: 'bit(7)', values: ['0000000', '1010101', '1111111'] },
  { name: 'varbit', values: ['', '0', '101', '1'.repeat(1_000)] },
  { name: 'varbit', spelling: 'varbit(9)', values: ['', '1', '111111111'] },
];

const documents: readonly Edges[] = [
  {
    name: 'json',
    values: [
      'null',
      '""',
      '{"b": 1, "a": 2,   "b": 3}',
      '  [1 , 2]\n',
      '12345678901234567890.12345678901234567890e10',
      '"\\u0000 \\ud83d\\ude00 \\/ \\t"',
      '{"": {"NULL": [null, true, "\\\\"]}}',
      '\t{"tab":"x"}',
    ],
  },
  {
    name: 'jsonb',
    values: [
      'null',
      '""',
      '{}',
      '[]',
      '{"b": 1, "a": 2, "b": 3}',
      '12345678901234567890.1234567890',
      '1.10',
      '-0.0',
      '"\\ud83d\\ude00 \\" \\\\ \\n"',
      '[[], {"": null}]',
    ],
  },
  {
    name: 'jsonpath',
    since: 12,
    values: ['$', 'strict $."a b"[*] ? (@ > 1.5)', 'lax $.**{2 to last}."\\"" like_regex "^a" flag "i"'],
  },
  {
    name: 'xml',
    values: [
      '',
      '<a/>',
      '<a b="1">text &amp; <![CDATA[ <raw> ]]></a>',
      'mixed <b>content</b>',
      '<?pi x?><!-- c --><ä>ü</ä>',
    ],
  },
  { name: 'tsvector', values: ['', "'a':1A,2B 'b':3,16383 'it''s' 'back\\\\slash' ' blank '", "'ä' 'ß':5C"] },
  { name: 'tsquery', values: ['', "'a' & !('b' | 'c':AB*)", "'x' <-> 'y' <3> 'z'", "'it''s' | ' blank '"] },
];

const times: readonly Edges[] = [
  {
    name: 'date',
    values: [
      '4714-11-24 BC',
      '0001-01-01 BC',
      '0001-01-01',
      '1970-01-01',
      '2024-02-29',
      '10000-01-01',
      '5874897-12-31',
      'infinity',
      '-infinity',
    ],
  },
  { name: 'time', values: ['00:00:00', '23:59:59.999999', '24:00:00', '12:00:00.1'] },
  { name: 'time', spelling: 'time(2)', values: ['00:00:00.12', '24:00:00'] },
  { name: 'timetz', values: ['00:00:00+00', '24:00:00-15:59', '12:00:00.000001+15:59:59', '01:02:03+05:30'] },
  { name: 'timetz', spelling: 'timetz(0)', values: ['23:59:59+01'] },
  {
    name: 'timestamp',
    values: [
      '4713-01-01 00:00:00 BC',
      '0001-12-31 23:59:59.999999 BC',
      '1900-01-01 00:00:00',
      '2024-02-29 12:34:56.789012',
      '10000-01-01 00:00:00',
      '294276-12-31 23:59:59.999999',
      'infinity',
      '-infinity',
    ],
  },
  { name: 'timestamp', spelling: 'timestamp(3)', values: ['2024-02-29 12:34:56.789', 'infinity'] },
  {
    name: 'timestamptz',
    values: [
      '4713-01-01 00:00:00+00 BC',
      '0044-03-15 12:00:00+00 BC',
      '1880-01-01 00:00:00+00:53:28',
      '2024-06-30 23:59:59.999999+00',
      '10000-01-01 00:00:00+00',
      '294276-12-31 23:59:59.999999+00',
      'infinity',
      '-infinity',
    ],
  },
  { name: 'timestamptz', spelling: 'timestamptz(0)', values: ['2024-06-30 23:59:59+00'] },
  {
    name: 'interval',
    values: [
      '0',
      '-0.000001 seconds',
      '1 year -1 month 2 days -3:04:05.678901',
      '-178000000 years',
      '178000000 years 11 mons',
      '24:00:00',
      '1 day',
      text('2562047788:00:54.775807', 15),
      text('-2562047788:00:54.775807', 15),
      text('infinity', 17),
      text('-infinity', 17),
    ],
  },
  { name: 'interval', spelling: 'interval day to second(3)', values: ['1 day 02:03:04.567', '-1 day'] },
  { name: 'interval', spelling: 'interval year to month', values: ['1 year 2 mons'] },
  { name: 'abstime', values: ['1970-01-01 00:00:00+00', 'infinity', '-infinity', 'invalid'] },
  { name: 'reltime', values: ['1 day', '-00:00:01'] },
  { name: 'tinterval', values: ['["2001-02-03 04:05:06+00" "2002-02-03 04:05:06+00"]'] },
];

const places: readonly Edges[] = [
  { name: 'inet', values: ['0.0.0.0', '192.168.1.5/24', '255.255.255.255', '::', '2001:db8::1/48', '::ffff:1.2.3.4'] },
  { name: 'cidr', values: ['0.0.0.0/0', '192.168.1.0/24', '10.1.2.3/32', '2001:db8::/32', '::/0'] },
  { name: 'macaddr', values: ['00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '08:00:2b:01:02:03'] },
  { name: 'macaddr8', values: ['00:00:00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff:ff:ff', '08:00:2b:ff:fe:01:02:03'] },
  { name: 'point', values: ['(0,-0)', '(1e-300,1.1)', '(NaN,Infinity)'] },
  { name: 'line', values: ['{1,2,3}', '{0,-1,0.1}'] },
  { name: 'lseg', values: ['[(0,0),(1,1)]', '[(-1e300,0.1),(0,0)]'] },
  { name: 'box', values: ['(1,1),(0,0)', '(0.1,0.2),(-0.3,-1e-5)'] },
  { name: 'path', values: ['((0,0),(1,1),(2,0))', '[(0,0),(1,1.5)]', '[(0,0)]'] },
  { name: 'polygon', values: ['((0,0),(1,1),(2,0))', '((0.1,0.2))'] },
  { name: 'circle', values: ['<(0,0),1>', '<(1.5,-2.5),0>'] },
];

const range = (name: string, since: number, one: string, more: string): Edges[] => [
  { name: `${name}range`, values: ['empty', '(,)', one, more] },
  { name: `${name}multirange`, since, values: ['{}', '{(,)}', `{${one}}`, `{${one}, ${more}}`] },
];
const ranges: readonly Edges[] = [
  ...range('int4', 14, '[-5,1)', '[10,)'),
  ...range('int8', 14, '[-9223372036854775808,1)', '[10,9223372036854775807)'),
  ...range('num', 14, '[1.10,2.0]', '(3.50,)'),
  ...range('date', 14, '(-infinity,2000-01-01)', '[2001-01-01,infinity)'),
  ...range('ts', 14, '["0044-03-15 12:00:00 BC","2000-01-01 00:00:00")', '("2001-01-01 00:00:00.000001",infinity]'),
  ...range('tstz', 14, '["0044-03-15 12:00:00+00 BC","2000-01-01 00:00:00+00")', '("2001-01-01 00:00:00+05:30",)'),
];

/** What ANALYZE has made of `edges.statistics`; 12 moved it to a catalog of its own. */
const statistics = (kind: string): EdgeValue[] => [
  { sql: `(SELECT stx${kind} FROM pg_statistic_ext)`, until: 11 },
  { sql: `(SELECT stxd${kind} FROM pg_statistic_ext_data)`, since: 12 },
];

/** Types of the server's own: numbers of its objects, names of them, and what only its catalogs hold. */
const internals: readonly Edges[] = [
  { name: 'xid', values: ['0', '3', '4294967295'] },
  { name: 'xid8', since: 13, values: ['0', '18446744073709551615'] },
  { name: 'cid', values: ['0', '4294967295'] },
  { name: 'tid', values: ['(0,1)', '(4294967295,65535)'] },
  { name: 'pg_lsn', values: ['0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF'] },
  { name: 'txid_snapshot', values: ['10:20:10,14,15', '1:1:'] },
  { name: 'pg_snapshot', since: 13, values: ['10:20:10,14,15', '1:1:'] },
  { name: 'int2vector', values: ['', '1', '1 -2 32767'] },
  { name: 'oidvector', values: ['', '1', '1 4294967295'] },
  { name: 'regproc', values: ['-', 'now', '4294967295'] },
  { name: 'regprocedure', values: ['-', 'upper(text)'] },
  { name: 'regoper', values: ['0', '|/'] },
  { name: 'regoperator', values: ['0', '+(integer,integer)'] },
  { name: 'regclass', values: ['-', 'pg_class', 'public."a Table"'] },
  { name: 'regcollation', since: 13, values: ['-', '"C"'] },
  { name: 'regtype', values: ['-', 'integer', 'timestamp with time zone', 'text[]'] },
  { name: 'regconfig', values: ['-', 'simple'] },
  { name: 'regdictionary', values: ['-', 'simple'] },
  { name: 'regnamespace', values: ['-', 'public'] },
  { name: 'regrole', values: ['-', 'postgres'] },
  { name: 'aclitem', values: ['postgres=r/postgres', '=arwdD/postgres', 'postgres=U*C*/postgres'] },
  { name: 'smgr', values: ['magnetic disk'] },
  {
    name: 'pg_node_tree',
    values: [sql("(SELECT adbin FROM pg_attrdef WHERE adrelid = 'edges.statistics'::regclass)")],
  },
  { name: 'pg_ndistinct', values: statistics('ndistinct') },
  { name: 'pg_dependencies', values: statistics('dependencies') },
  { name: 'pg_mcv_list', values: statistics('mcv') },
  // Inside of indexes only: a column can have the type, and no value but NULL.
  { name: 'pg_brin_bloom_summary', values: [] },
  { name: 'pg_brin_minmax_multi_summary', values: [] },
  { name: 'gtsvector', values: [] },
];

const inFamily = (family: string, types: readonly Edges[]): EdgeType[] => types.map((type) => ({ ...type, family }));

export const EDGE_TYPES: readonly EdgeType[] = [
  ...inFamily('numbers', numbers),
  ...inFamily('strings', strings),
  ...inFamily('documents', documents),
  ...inFamily('times', times),
  ...inFamily('places', places),
  ...inFamily('ranges', ranges),
  ...inFamily('internals', internals),
];
