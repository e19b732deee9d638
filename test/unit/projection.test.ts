/**
 * What the file hides: its rules, its digest, projected shapes and descriptions, and hashes in lines of any chunking.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { SELECTION_OF_OLD, selectionDigest, streamOptions } from '../../lib/config/stream-options.ts';
import { HashingLines } from '../../lib/projection/lines.ts';
import { projectionFault, projectionFor, projectionOf, unknownColumns } from '../../lib/projection/projection.ts';
import { selectList } from '../../lib/projection/select.ts';
import { projectedDescription, projectedTable } from '../../lib/projection/table.ts';
import { tableShape } from '../../lib/slot/table-shape.ts';
import { testFaults } from '../support/config-cases.ts';
import { sourceTable } from '../support/source-tables.ts';

const HEAD = 'pipeline: shop\n';
const SALT = 'mask_salt: ${env:SALT}\n';

/** The options of public.t under an entry of `tables`. */
function optionsOf(entry: string) {
  const options = streamOptions(readPipeline(`${HEAD}${SALT}tables:\n  - ${entry}\n`, 'f'), {
    schema: 'public',
    table: 't',
  });
  if (!options) throw new Error('nothing of public.t');
  return options;
}

const T = sourceTable('public.t', {
  key: ['id'],
  columns: [
    { name: 'id', type_oid: 23, type_modifier: -1, not_null: true, number: 1 },
    { name: 'ssn', type_oid: 25, type_modifier: -1, not_null: false, number: 2 },
    {
      name: 'mood',
      type_oid: 90_000,
      type_modifier: -1,
      not_null: false,
      number: 3,
      type: { kind: 'enum', schema: 'public', name: 'mood', labels: ['sad'] },
    },
    { name: 'n', type_oid: 1700, type_modifier: 5, not_null: false, number: 4 },
  ],
  generated: [
    { name: 'shout', type_oid: 25, type_modifier: -1, number: 5, expression: 'upper(ssn)', storage: 's' },
    { name: 'twice', type_oid: 1700, type_modifier: -1, number: 6, expression: '(n * (2)::numeric)', storage: 's' },
  ],
});

test('the last entry that means a table has the say, also for one of a glob', () => {
  const pipeline = readPipeline(
    `${HEAD}tables:\n  - { table: public.t, where: "a > 1" }\n  - { table: "public.*", where: "b > 1" }\n  - other.x\n`,
    'f',
  );
  expect(streamOptions(pipeline, { schema: 'public', table: 't' })?.where).toBe('b > 1');
  expect(streamOptions(pipeline, { schema: 'other', table: 'x' })?.where).toBeNull();
  expect(streamOptions(pipeline, { schema: 'other', table: 't' })).toBeNull();
  // A glob does not reach into the system's schemas.
  const all = readPipeline(`${HEAD}tables: ["*.*"]\n`, 'f');
  expect(streamOptions(all, { schema: 'pg_catalog', table: 'pg_class' })).toBeNull();
});

test('the digest is another one for each other choice, and the same for the same one', () => {
  const entries = [
    'public.t',
    '{ table: public.t, replication_method: FULL_TABLE }',
    '{ table: public.t, replication_method: FULL_TABLE, key_properties: [a] }',
    '{ table: public.t, replication_method: INCREMENTAL, replication_key: a }',
    '{ table: public.t, replication_method: INCREMENTAL, replication_key: b }',
    '{ table: public.t, columns: { include: [a] } }',
    '{ table: public.t, columns: { exclude: [a] } }',
    '{ table: public.t, columns: { exclude: [a, b] } }',
    '{ table: public.t, mask: { a: hash } }',
    '{ table: public.t, mask: { a: null } }',
    '{ table: public.t, mask: { a: redact } }',
    '{ table: public.t, where: a }',
    '{ table: public.t, where: b }',
  ];
  const digests = entries.map((entry) => selectionDigest(optionsOf(entry), 'salt'));
  expect(new Set(digests).size).toBe(entries.length);
  expect(digests[0]).toBe(SELECTION_OF_OLD);
  const same = (one: string, other: string): void => {
    expect(selectionDigest(optionsOf(one), 's')).toBe(selectionDigest(optionsOf(other), 's'));
  };
  same(
    '{ table: public.t, columns: { exclude: [b, a] } }',
    '{ table: "public.*", columns: { exclude: [a, b] }, target_table: null }'.replace(', target_table: null', ''),
  );
  same('{ table: public.t, mask: { a: redact, b: null } }', '{ table: public.t, mask: { b: "null", a: redact } }');
  // The salt counts where something is hashed, and only there.
  const salted = (entry: string): boolean =>
    selectionDigest(optionsOf(entry), 'x') !== selectionDigest(optionsOf(entry), 'y');
  expect(salted('{ table: public.t, mask: { a: hash } }')).toBe(true);
  expect(salted('{ table: public.t, mask: { a: redact } }')).toBe(false);
  expect(digests.join(' ')).not.toContain('salt');
});

test('a table as the stream has it: no name, type, label or expression of what is hidden', () => {
  const options = optionsOf('{ table: public.t, columns: { exclude: [ssn] }, mask: { mood: redact, n: null } }');
  const projection = projectionOf(options, null);
  const table = projectedTable(T, projection);
  const shape = tableShape(table);
  expect(shape.columns).toEqual([
    { name: 'id', type_oid: 23, type_modifier: -1, number: 1 },
    { name: 'mood', type_oid: 25, type_modifier: -1, number: 3 },
    { name: 'n', type_oid: 1700, type_modifier: 5, number: 4 },
  ]);
  // Both of its generated columns are made of hidden ones.
  expect(shape.generated).toBeUndefined();
  expect(shape.hidden).toEqual([2, 3, 4, 5, 6]);
  expect(JSON.stringify(shape)).not.toMatch(/ssn|sad|upper/u);
  expect(selectList(T, projection, ({ name }) => name)).toBe(
    `id, CASE WHEN "mood" IS DISTINCT FROM NULL THEN '[redacted]' END, NULL`,
  );
  expect(projectedTable(T, null)).toBe(T);
});

test('a new column stays out under include, and comes under exclude; its known values are masked', () => {
  const described = (entry: string) => {
    const projection = projectionFor(projectionOf(optionsOf(entry), 's') ?? { treatmentOf: () => 'keep', salt: '' }, T);
    const column = (name: string, number: number, missing: string) =>
      ({ name, number, type_oid: 25, type_modifier: -1, dropped: false, generated: '', missing }) as const;
    const columns = [column('id', 1, '1'), column('new', 7, 'x'), column('h', 8, 'y'), column('r', 9, 'z')];
    return projectedDescription({ oid: 1, filenode: '1', columns }, projection).columns.map(({ name, missing }) => [
      name,
      missing,
    ]);
  };
  expect(described('{ table: public.t, columns: { include: [id] } }')).toEqual([['id', '1']]);
  expect(described('{ table: public.t, columns: { exclude: [r] }, mask: { h: hash, id: null } }')).toEqual([
    ['id', null],
    ['new', 'x'],
    ['h', createHash('sha256').update('sy').digest('hex')],
  ]);
});

describe('what a table does not allow', () => {
  test.each([
    ['{ table: public.t, columns: { exclude: [id] } }', 'column id is of the key'],
    ['{ table: public.t, columns: { include: [n] } }', 'column id is of the key'],
    ['{ table: public.t, mask: { id: redact } }', 'would make its rows one'],
    ['{ table: public.t, mask: { id: null } }', 'would make its rows one'],
    ['{ table: public.t, replication_method: INCREMENTAL, replication_key: n, mask: { n: hash } }', 'replication key'],
  ])('%s', (entry, problem) => {
    expect(projectionFault(T, optionsOf(entry))?.message).toContain(problem);
  });

  test('a hashed key of a type that may write equal values in several ways', () => {
    const numeric = { ...T, key: ['n'] };
    expect(projectionFault(numeric, optionsOf('{ table: public.t, mask: { n: hash } }'))?.message).toContain(
      'several ways',
    );
    expect(projectionFault(T, optionsOf('{ table: public.t, mask: { id: hash, n: hash } }'))).toBeNull();
  });

  test('names that no column has', () => {
    const options = optionsOf('{ table: public.t, columns: { exclude: [ssm] }, mask: { moot: redact, n: null } }');
    expect(unknownColumns(T, options)).toEqual(['ssm', 'moot']);
  });
});

describe('what the file does not allow', () => {
  const TABLE = 'pipeline: shop\ntables:\n  - table: public.t\n';
  testFaults([
    [
      'hash without salt',
      `${TABLE}    mask: { a: hash }\n`,
      '4:13',
      'there is no mask_salt',
      'mask_salt: ${env:NAME}',
    ] as const,
    [
      'both include and exclude',
      `${TABLE}    columns: { include: [a], exclude: [b] }\n`,
      '4:5',
      'both include and exclude',
      'Keep one',
    ] as const,
    ['neither', `${TABLE}    columns: {}\n`, '4:5', 'neither include nor exclude', 'Add one'] as const,
    ['an unknown mask', `${TABLE}    mask: { a: blur }\n`, '4:16', 'hash, null or redact', ''] as const,
    [
      'a mask of what is left out',
      `${TABLE}    columns: { exclude: [a] }\n    mask: { a: redact }\n`,
      '5:13',
      'which columns leaves out',
      'Remove it',
    ] as const,
    [
      'a filter without a publication',
      `${TABLE}    where: a > 1\nsource: { host: h, user: u, database: d, plugin: wal2json }\n`,
      '4:5',
      'wal2json has none',
      'pgoutput',
    ] as const,
    ['a salt in the file', `${TABLE}mask_salt: grains\n`, '4:12', 'mask_salt', '${env:'] as const,
  ]);
});

test('lines with hashes in their columns, cut anywhere', async () => {
  const hash = (text: string): string => createHash('sha256').update(`salt${text}`).digest('hex');
  const lines = 'a\\\\b\tkept \\t\\n\\\\\tc\n\\N\t\\N\t\\\\N\n\t\t\\b\\f\\n\\r\\t\\v\n';
  const expected = `${hash('a\\b')}\tkept \\t\\n\\\\\t${hash('c')}\n\\N\t\\N\t${hash('\\N')}\n${hash('')}\t\t${hash('\b\f\n\r\t\v')}\n`;
  for (let cut = 0; cut <= lines.length; cut++) {
    for (const pieces of [[lines.slice(0, cut), lines.slice(cut)], Array.from(lines)]) {
      const read = Readable.from(pieces.filter((piece) => piece !== '').map((piece) => Buffer.from(piece)));
      const got = await buffer(read.pipe(new HashingLines([true, false, true], 'salt')));
      expect(got.toString()).toBe(expected);
    }
  }
});
