/**
 * Every kind of fault in a pipeline file: each case names the line, the key, what is wrong and what to do, and no case tells a secret.
 */
import { describe, expect, test } from 'vitest';
import { checkPipeline, readPipeline } from '../../lib/config/read.ts';
import { SluiceError } from '../../lib/errors.ts';

const PASSWORD = 'hunter2-of-the-test';

/** Line 1 and 2 are right; the case begins at line 3. */
const HEAD = 'pipeline: shop\ntables: [public.a]\n';
const SOURCE = 'source:\n  host: h\n  user: u\n  database: d\n';
const TARGET = SOURCE.replace('source', 'target');

function faults(text: string): string[] {
  return checkPipeline(text).faults.map(
    ({ line, column, problem, remedy }) => `${line}:${column} ${problem} ${remedy}`,
  );
}

describe('one fault', () => {
  const cases: [name: string, text: string, place: string, problem: string, remedy: string][] = [
    // Keys
    ['unknown key, near', `${HEAD}${SOURCE}  prot: 1\n`, '7:3', 'source.prot is not an option.', 'Did you mean port?'],
    [
      'unknown key, other case',
      `${HEAD}${TARGET}  hardDelete: true\n`,
      '7:3',
      'target.hardDelete is not an option.',
      'Did you mean hard_delete?',
    ],
    [
      'unknown key, a word of one',
      `${HEAD}${SOURCE}  publication: x\n`,
      '7:3',
      'source.publication is not an option.',
      'Did you mean publication_name?',
    ],
    [
      'unknown key, of another section',
      `${HEAD}${SOURCE}  batch_size_rows: 5\n`,
      '7:3',
      'source.batch_size_rows is not an option.',
      'It is an option of target: move it there.',
    ],
    [
      'unknown key, of the top',
      `${HEAD}${SOURCE}  schedule: {}\n`,
      '7:3',
      'source.schedule is not an option.',
      'It belongs to the top of the file.',
    ],
    [
      'unknown key, like none',
      `${HEAD}zzzzzzzz: 1\n`,
      '3:1',
      'zzzzzzzz is not an option.',
      'Remove it; the options there are pipeline, source, tables, target, schedule.',
    ],
    [
      'unknown key in a table',
      'pipeline: shop\ntables:\n  - table: a.b\n    target_tabel: c\n',
      '4:5',
      'tables[0].target_tabel is not an option.',
      'Did you mean target_table?',
    ],
    [
      'unknown key in ssl',
      `${HEAD}${SOURCE}  ssl: { caa: x }\n`,
      '7:10',
      'source.ssl.caa is not an option.',
      'Did you mean ca?',
    ],
    ['unknown key of a strange name', `${HEAD}"a b\\n": 1\n`, '3:1', '["a b\\n"] is not an option.', 'Remove it'],
    ['__proto__', `${HEAD}__proto__: { a: 1 }\n`, '3:1', '__proto__ is not an option.', 'Remove it'],
    [
      'key of a later version',
      `${HEAD}${SOURCE}  ssh: { host: x }\n`,
      '7:3',
      'source.ssh is not available in this version (an SSH tunnel).',
      'Remove it',
    ],
    [
      'table option of a later version',
      'pipeline: shop\ntables:\n  - table: a.b\n    where: x > 1\n',
      '4:5',
      'tables[0].where is not available in this version',
      'all rows are replicated',
    ],
    [
      'target option of a later version',
      `${HEAD}${TARGET}  consistency: transaction\n`,
      '7:3',
      'target.consistency is not available in this version',
      'Remove it',
    ],
    [
      'IAM',
      `${HEAD}${SOURCE}  password: { iam: true }\n`,
      '7:15',
      'source.password.iam is not available in this version (RDS IAM tokens).',
      'name a password',
    ],
    // Values
    ['missing name', 'tables: [a.b]\n', '1:1', 'pipeline is missing.', 'Add it, for example pipeline: shop'],
    ['missing tables', 'pipeline: shop\n', '1:1', 'tables is missing.', 'Add it, for example tables: [public.*]'],
    [
      'no tables',
      'pipeline: shop\ntables: []\n',
      '2:9',
      'tables must be a list of 1 to 10000 tables, not a list of 0.',
      'tables: [public.*]',
    ],
    [
      'tables not a list',
      'pipeline: shop\ntables: public.*\n',
      '2:9',
      'tables must be a list of 1 to 10000 tables, not "public.*".',
      'tables: [public.*]',
    ],
    [
      'no value',
      'pipeline:\ntables: [a.b]\n',
      '1:1',
      'pipeline has no value.',
      'Write one, for example pipeline: shop',
    ],
    ['empty section', `${HEAD}source:\n`, '3:1', 'source has no value.', 'or remove it'],
    [
      'section not a map',
      `${HEAD}source: db.internal\n`,
      '3:9',
      'source must be a map of options, not "db.internal".',
      'Correct it',
    ],
    [
      'bad name',
      'pipeline: Web Shop\ntables: [a.b]\n',
      '1:11',
      'pipeline must be lower-case letters, digits and single hyphens, beginning with a letter, at most 40, not "Web Shop".',
      'pipeline: shop',
    ],
    [
      'number in quotes',
      `${HEAD}${SOURCE}  port: "5432"\n`,
      '7:9',
      'source.port must be a whole number from 1 to 65535, not "5432".',
      'without quotes',
    ],
    [
      'number out of bounds',
      `${HEAD}${TARGET}  max_parallelism: 257\n`,
      '7:20',
      'target.max_parallelism must be a whole number from 1 to 256, not 257.',
      'max_parallelism: 16',
    ],
    [
      'broken number',
      `${HEAD}${TARGET}  batch_flush_interval: 1.5\n`,
      '7:25',
      'target.batch_flush_interval must be a whole number from 1 to 86400, not 1.5.',
      'batch_flush_interval: 60',
    ],
    [
      'yes for true',
      `${HEAD}${TARGET}  hard_delete: yes\n`,
      '7:16',
      'target.hard_delete must be true or false, not "yes".',
      'hard_delete: true or hard_delete: false, without quotes',
    ],
    [
      'word not of the list',
      `${HEAD}${TARGET}  on_truncate: drop\n`,
      '7:16',
      'target.on_truncate must be apply, ignore or halt, not "drop".',
      'on_truncate: apply',
    ],
    [
      'slot name',
      `${HEAD}${SOURCE}  replication_slot: My-Slot\n`,
      '7:21',
      'source.replication_slot must be lower-case letters, digits and _, at most 63, not "My-Slot".',
      'replication_slot: sluice_shop',
    ],
    [
      'name over 63 bytes',
      `${HEAD}${SOURCE}  publication_name: ${'ü'.repeat(32)}\n`,
      '7:21',
      'source.publication_name must be a name of at most 63 bytes',
      'publication_name: sluice_shop',
    ],
    [
      'host from the environment',
      `${HEAD}source:\n  host: \${env:HOST}\n  user: u\n  database: d\n`,
      '4:9',
      'source.host must be the name or address of a server',
      'only secrets are taken from the environment',
    ],
    [
      'plugin of a later version',
      `${HEAD}${SOURCE}  plugin: wal2json\n`,
      '7:11',
      'source.plugin: "wal2json" is not available in this version',
      'plugin: pgoutput',
    ],
    [
      'method of a later version',
      'pipeline: shop\ntables:\n  - { table: a.b, replication_method: FULL_TABLE }\n',
      '3:39',
      'tables[0].replication_method: "FULL_TABLE" is not available in this version',
      'LOG_BASED',
    ],
    [
      'included CA of a later version',
      `${HEAD}${SOURCE}  ssl: { ca: rds }\n`,
      '7:14',
      'source.ssl.ca: "rds" is not available in this version',
      'path of its file',
    ],
    [
      'ssl mode',
      `${HEAD}${SOURCE}  ssl: { mode: prefer }\n`,
      '7:16',
      'source.ssl.mode must be disable, require, verify-ca or verify-full, not "prefer".',
      'Correct it',
    ],
    [
      'ssl not a map',
      `${HEAD}${SOURCE}  ssl: require\n`,
      '7:8',
      'source.ssl must be true, false, or a map',
      'ssl: { mode: verify-full, ca: ./ca.pem }',
    ],
    [
      'table without a schema',
      'pipeline: shop\ntables:\n  - orders\n',
      '3:5',
      'tables[0] must name a schema: "orders".',
      'write public.orders',
    ],
    [
      'table with three halves',
      'pipeline: shop\ntables: [a.b.c]\n',
      '2:10',
      'tables[0] must be schema.table, or a glob such as public.*',
      'public.orders',
    ],
    ['table not text', 'pipeline: shop\ntables: [5]\n', '2:10', 'tables[0] must be schema.table', 'public.orders'],
    [
      'table entry without a table',
      'pipeline: shop\ntables: [{ target_table: x }]\n',
      '2:10',
      'tables[0].table is missing.',
      'Add it, for example table: public.orders',
    ],
    [
      'mapping to no name',
      `${HEAD}${TARGET}  schema_mapping: { a: 3 }\n`,
      '7:24',
      'target.schema_mapping.a must be a name of at most 63 bytes, not 3.',
      'Correct it',
    ],
    [
      'mapping from no name',
      `${HEAD}${TARGET}  schema_mapping: { "": a }\n`,
      '7:21',
      'target.schema_mapping has the key "", which must be a name of at most 63 bytes.',
      'Correct the key',
    ],
    [
      'interval without a unit',
      `${HEAD}schedule: { every: 5 }\n`,
      '3:20',
      'schedule.every must be a whole number of minutes, hours or days, such as "5 minutes", at most 31 days, not 5.',
      'every: 5 minutes',
    ],
    [
      'interval too long',
      `${HEAD}schedule: { every: 32 days }\n`,
      '3:20',
      'schedule.every must be',
      'every: 5 minutes',
    ],
    [
      'interval in seconds',
      `${HEAD}schedule: { every: 30 seconds }\n`,
      '3:20',
      'schedule.every must be',
      'every: 5 minutes',
    ],
    [
      'cron of five fields',
      `${HEAD}schedule: { cron: 0 6 * * * }\n`,
      '3:19',
      'schedule.cron is of 5 fields instead of six',
      'cron: "0 6 * * ? *"',
    ],
    [
      'cron, both days',
      `${HEAD}schedule: { cron: 0 6 1 * 2 * }\n`,
      '3:19',
      'schedule.cron is ambiguous about days',
      'cron: "0 6 * * ? *"',
    ],
    [
      'cron, field',
      `${HEAD}schedule: { cron: 0 x * * ? * }\n`,
      '3:19',
      'schedule.cron is not valid in its field hours: "x".',
      'cron: "0 6 * * ? *"',
    ],
    [
      'cron, value',
      `${HEAD}schedule: { cron: 61 6 * * ? * }\n`,
      '3:19',
      'schedule.cron is not a cron expression',
      'cron: "0 6 * * ? *"',
    ],
    [
      'cron, year',
      `${HEAD}schedule: { cron: 1 6 * * ? 1969 }\n`,
      '3:19',
      'schedule.cron is not within the years 1970 to 2199',
      'cron: "0 6 * * ? *"',
    ],
    [
      'cron, never due',
      `${HEAD}schedule: { cron: 1 6 31 2 ? * }\n`,
      '3:19',
      'schedule.cron is never due',
      'cron: "0 6 * * ? *"',
    ],
    [
      'cron, not text',
      `${HEAD}schedule: { cron: 5 }\n`,
      '3:19',
      'schedule.cron must be six fields',
      'cron: "0 6 * * ? *"',
    ],
    [
      'time zone',
      `${HEAD}schedule: { cron: 0 6 * * ? *, timezone: Mars/Base }\n`,
      '3:42',
      'schedule.timezone must be an IANA time zone',
      'timezone: Europe/Zurich',
    ],
    [
      'time zone as an offset',
      `${HEAD}schedule: { cron: 0 6 * * ? *, timezone: "+02:00" }\n`,
      '3:42',
      'schedule.timezone must be an IANA time zone',
      'timezone: Europe/Zurich',
    ],
    [
      'anchor',
      `${HEAD}schedule: { every: 1 hour, anchor: "24:00" }\n`,
      '3:36',
      'schedule.anchor must be a time of day as "HH:MM", not "24:00".',
      'anchor: "06:00"',
    ],
    // Rules
    [
      'user without host',
      `${HEAD}source: { user: u }\n`,
      '3:1',
      'source.host is missing beside source.user.',
      'embedded PostgreSQL',
    ],
    [
      'host without user',
      `${HEAD}source: { host: h, database: d }\n`,
      '3:1',
      'source.user is missing beside source.host.',
      'Add it: user: NAME',
    ],
    [
      'host without database',
      `${HEAD}target: { host: h, user: u }\n`,
      '3:1',
      'target.database is missing beside target.host.',
      'Add it: database: NAME',
    ],
    [
      'certificate without key',
      `${HEAD}${SOURCE}  ssl: { cert: c }\n`,
      '7:10',
      'source.ssl.cert is given without source.ssl.key.',
      'Give both',
    ],
    [
      'key without certificate',
      `${HEAD}${SOURCE}  ssl: { key: c }\n`,
      '7:10',
      'source.ssl.key is given without source.ssl.cert.',
      'Give both',
    ],
    [
      'passphrase without key',
      `${HEAD}${SOURCE}  ssl: { key_password: "\${env:P}" }\n`,
      '7:10',
      'source.ssl.key_password is given without source.ssl.key.',
      'Give the key',
    ],
    [
      'hard delete without its columns',
      `${HEAD}${TARGET}  hard_delete: true\n  add_metadata_columns: false\n`,
      '8:25',
      'target.add_metadata_columns is false, and target.hard_delete needs these columns.',
      'hard_delete: false',
    ],
    [
      'reserved default schema',
      `${HEAD}${TARGET}  default_target_schema: _sluice\n`,
      '7:26',
      "Schema _sluice is the system's or Sluice's own",
      'Choose another',
    ],
    [
      'reserved mapped schema',
      `${HEAD}${TARGET}  schema_mapping: { a: pg_catalog }\n`,
      '7:24',
      "Schema pg_catalog is the system's or Sluice's own",
      'Choose another',
    ],
    [
      'reserved schema of a table',
      'pipeline: shop\ntables: [{ table: a.b, target_schema: information_schema }]\n',
      '2:39',
      'Schema information_schema is',
      'Choose another',
    ],
    [
      'table of the system',
      'pipeline: shop\ntables: [a.b, pg_catalog.*]\n',
      '2:15',
      'tables[1] is of schema pg_catalog',
      'Remove it',
    ],
    [
      'one table for a glob',
      'pipeline: shop\ntables: [{ table: a.*, target_table: x }]\n',
      '2:24',
      'tables[0].target_table names one table, and a.* may match many.',
      'target_schema',
    ],
    [
      'two tables to one',
      'pipeline: shop\ntables: [a.b, { table: c.d, target_schema: a, target_table: b }]\n',
      '2:15',
      'a.b and c.d would both be written to a.b.',
      'another target_schema',
    ],
    [
      'two schemas to one',
      `pipeline: shop\ntables: [a.t, c.t]\n${TARGET}  default_target_schema: x\n`,
      '2:15',
      'a.t and c.t would both be written to x.t.',
      'another target_schema',
    ],
    [
      'a table to itself',
      `${HEAD}${SOURCE}${TARGET}`,
      '2:10',
      'public.a would be written to public.a in the database that it is read from.',
      'another target database',
    ],
    [
      'two schedules',
      `${HEAD}schedule: { every: 5 minutes, continuous: true }\n`,
      '3:31',
      'schedule has every and continuous, and can follow only one.',
      'Keep one',
    ],
    ['no schedule', `${HEAD}schedule: { continuous: false }\n`, '3:1', 'schedule says no time.', 'every: 5 minutes'],
    [
      'anchor without every',
      `${HEAD}schedule: { continuous: true, anchor: "06:00" }\n`,
      '3:31',
      'schedule.anchor is given without schedule.every.',
      'Add every',
    ],
    [
      'time zone for nothing',
      `${HEAD}schedule: { every: 1 hour, timezone: UTC }\n`,
      '3:28',
      'schedule.timezone is given without a time of day',
      'Remove it',
    ],
    // Syntax
    ['empty', '', '1:1', 'The file is empty.', 'sluice init'],
    ['only remarks', '# nothing\n', '1:1', 'The file is empty.', 'sluice init'],
    ['a list', '- a.b\n', '1:1', 'The file has no map of options at its top.', 'sluice init'],
    ['text', 'shop\n', '1:1', 'The file has no map of options at its top.', 'sluice init'],
    ['key twice', `${HEAD}pipeline: other\n`, '3:1', 'The key stands twice in the same map.', 'Remove one'],
    ['tab', `pipeline: shop\nsource:\n\thost: h\n`, '3:1', 'A tab is used to indent.', 'spaces'],
    ['colon in text', 'pipeline: a: b\n', '1:11', 'A map begins on the line of its key.', 'in quotes'],
    ['open quote', 'pipeline: "a\n', '2:1', 'A character is missing', 'Correct the YAML'],
    ['two documents', `${HEAD}---\n${HEAD}`, '3:1', 'A second document begins', 'one document'],
    ['tag', 'pipeline: !name shop\n', '1:11', 'A tag (!) is not known.', 'Remove it'],
    [
      'glob taken for an alias',
      'pipeline: shop\ntables:\n  - *.orders\n',
      '3:5',
      'A value that begins with * is an alias',
      '"*.orders"',
    ],
    ['key that is a list', '[a]: b\n', '1:1', 'A key is not text.', 'plain text'],
    ['reserved character', 'pipeline: @shop\n', '1:11', 'This is not valid YAML (BAD_SCALAR_START).', 'in quotes'],
    ['too long', `# ${'x'.repeat(2 ** 20)}`, '1:1', 'The file is longer than', 'check that this is one'],
  ];

  test.each(cases)('%s', (_name, text, place, problem, remedy) => {
    const [only, ...more] = faults(text);
    expect(more).toEqual([]);
    expect(only?.startsWith(`${place} `)).toBe(true);
    expect(only).toContain(problem);
    expect(only).toContain(remedy);
  });
});

test('nesting has an end', () => {
  expect(faults('['.repeat(5000))).toEqual([expect.stringContaining('Lists and maps are nested too deep.')]);
});

test('aliases of aliases are counted', () => {
  const lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]'];
  for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef']) {
    lines.push(`${to}: &${to} [${Array.from({ length: 10 }, () => `*${from}`).join(', ')}]`);
  }
  expect(faults(lines.join('\n'))).toEqual([expect.stringContaining('more than 100 aliases')]);
});

test('an alias of itself ends in faults, not in a loop', () => {
  expect(faults('pipeline: &a [*a]\ntables: &b [*b]\n').length).toBeGreaterThan(0);
});

describe('a secret that stands in the file', () => {
  test.each([
    [
      'password',
      `${HEAD}${SOURCE}  password: ${PASSWORD}\n`,
      'source.password is written out',
      '${env:SOURCE_PASSWORD}',
    ],
    [
      'password of the target',
      `${HEAD}${TARGET}  password: "${PASSWORD}"\n`,
      'target.password is written out',
      '${env:TARGET_PASSWORD}',
    ],
    [
      'password in a list',
      `${HEAD}${SOURCE}  password: [${PASSWORD}]\n`,
      'source.password names no secret',
      '${env:SOURCE_PASSWORD}',
    ],
    [
      'password beside a reference',
      `${HEAD}${SOURCE}  password: \${env:A}${PASSWORD}\n`,
      'source.password is written out',
      '${env:SOURCE_PASSWORD}',
    ],
    [
      'password as the name of a secret',
      `${HEAD}${SOURCE}  password: { secret: [${PASSWORD}] }\n`,
      'source.password.secret must be text',
      '',
    ],
    [
      'private key',
      `${HEAD}${SOURCE}  ssl: { cert: c, key: "-----BEGIN PRIVATE KEY-----\\n${PASSWORD}" }\n`,
      'source.ssl.key is written out',
      'path of a file',
    ],
    [
      'passphrase',
      `${HEAD}${SOURCE}  ssl: { cert: c, key: k, key_password: ${PASSWORD} }\n`,
      'source.ssl.key_password is written out',
      '${env:SOURCE_KEY_PASSWORD}',
    ],
    [
      'URL as host',
      `${HEAD}source:\n  host: postgres://u:${PASSWORD}/x@h/d\n  user: u\n  database: d\n`,
      'source.host must be',
      '',
    ],
    [
      'connection string as host',
      `${HEAD}source:\n  host: "host=h password=${PASSWORD}"\n  user: u\n  database: d\n`,
      'source.host must be',
      '',
    ],
    ['misspelt key', `${HEAD}${SOURCE}  pasword: ${PASSWORD}\n`, 'source.pasword is not an option', 'password'],
    ['broken syntax', `${HEAD}${SOURCE}  password: 'a'${PASSWORD}'\n`, 'This is not valid YAML', ''],
    ['twice', `${HEAD}${SOURCE}  password: ${PASSWORD}\n  password: ${PASSWORD}\n`, 'The key stands twice', ''],
    ['wrong tag', `${HEAD}${SOURCE}  password: !${PASSWORD} x\n`, 'A tag (!) is not known', ''],
    ['alias', `${HEAD}${SOURCE}  password: *${PASSWORD}\n`, 'is an alias', ''],
  ])('%s is refused and not told', (_name, text, problem, remedy) => {
    const told = faults(text).join('\n');
    expect(told).toContain(problem);
    expect(told).toContain(remedy);
    expect(told).not.toContain(PASSWORD);
  });

  test('a number is no password either', () => {
    const told = faults(`${HEAD}${SOURCE}  password: 83649271\n`).join('\n');
    expect(told).toContain('source.password is written out');
    expect(told).not.toContain('83649271');
  });
});

describe('the error', () => {
  const failing = (text: string): SluiceError => {
    try {
      readPipeline(text, 'shop.yaml');
    } catch (error) {
      if (error instanceof SluiceError) return error;
    }
    throw new Error('no SluiceError');
  };

  test('of one fault has its place in the message and its remedy', () => {
    const error = failing(`${HEAD}${SOURCE}  prot: 1\n`);
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.disposition).toBe('usage');
    expect(error.message).toBe('The pipeline file is not valid: shop.yaml:7:3  source.prot is not an option.');
    expect(error.remedy).toBe('Did you mean port?');
  });

  test('of many faults lists them all in the order of the file, those of keys, values and rules alike', () => {
    const error = failing(`pipeline: Shop
tables: [orders]
target: { user: u }
source: { prot: 1 }
schedule: { every: 1 hour, cron: 0 6 * * ? * }
`);
    expect(error.message.split('\n').map((line) => line.trim().split('  ')[0])).toEqual([
      'The pipeline file is not valid: 5 faults',
      'shop.yaml:1:11',
      'shop.yaml:2:10',
      'shop.yaml:3:1',
      'shop.yaml:4:11',
      'shop.yaml:5:28',
    ]);
    expect(error.message).toContain('Did you mean port?');
  });

  test('of very many faults names the first', () => {
    const tables = Array.from({ length: 100 }, (_, i) => `  - t${i}`).join('\n');
    const lines = failing(`pipeline: shop\ntables:\n${tables}\n`).message.split('\n');
    expect(lines).toHaveLength(32);
    expect(lines.at(-1)).toBe('  and 70 more');
  });
});
