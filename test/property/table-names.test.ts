/**
 * Theorems about names:
 * - a name written as a pipeline file has it is read as the same name, and matches that table only;
 * - a glob matches as the regular expression that it stands for would;
 * - two tables never share a stream id, and an id is safe as S3 key, SQS message group and DynamoDB key;
 * - of whatever tables and entries, no selected table is lost: it becomes a stream, is skipped with a reason, or is a fault.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { selectTables } from '../../lib/config/selection.ts';
import { streamId } from '../../lib/config/stream-id.ts';
import { exactName, formatTableName, matchesPattern, parseTablePattern } from '../../lib/config/table-pattern.ts';
import type { TableName } from '../../lib/shape.ts';
import { sourceTable } from '../support/source-tables.ts';

/** Anything that PostgreSQL takes as a name, with what is special here often in it. */
const half = fc
  .oneof(
    fc.string({
      unit: fc.constantFrom('.', '"', '*', '?', ' ', 'a', 'A', '\n', '-', 'é', '😀'),
      minLength: 1,
      maxLength: 8,
    }),
    fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }),
  )
  .filter((name) => !name.includes('\0'));
const tableName: fc.Arbitrary<TableName> = fc.record({ schema: half, table: half });
const sameName = (a: TableName, b: TableName): boolean => a.schema === b.schema && a.table === b.table;

test('a written name is read as itself and matches nothing else', () => {
  fc.assert(
    fc.property(tableName, tableName, (name, other) => {
      const pattern = parseTablePattern(formatTableName(name));
      expect(pattern && exactName(pattern)).toEqual(name);
      if (!pattern) return;
      expect(matchesPattern(pattern, name)).toBe(true);
      expect(matchesPattern(pattern, other)).toBe(sameName(name, other));
    }),
    { numRuns: 2000 },
  );
});

test('a written name goes through a whole file', () => {
  fc.assert(
    fc.property(tableName, (name) => {
      const file = { pipeline: 'p', tables: [{ table: formatTableName(name), target_schema: 'x', target_table: 'y' }] };
      fc.pre(!/^(pg_|_sluice$|information_schema$)/.test(name.schema));
      const [entry] = readPipeline(JSON.stringify(file), 'p').tables;
      const pattern = parseTablePattern(entry?.table ?? '');
      expect(pattern && exactName(pattern)).toEqual(name);
    }),
  );
});

test('a glob matches as its regular expression would', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', '😀'), minLength: 1, maxLength: 10 });
  const globs = fc.string({ unit: fc.constantFrom('a', 'b', '😀', '*', '?'), minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(globs, letters, (glob, table) => {
      const pattern = parseTablePattern(`s.${glob}`);
      const expected = new RegExp(`^${glob.replaceAll('*', '.*').replaceAll('?', '.')}$`, 'u').test(table);
      expect(pattern && matchesPattern(pattern, { schema: 's', table })).toBe(expected);
    }),
    { numRuns: 5000 },
  );
});

test('matching takes no time that a pattern could blow up', () => {
  const pattern = parseTablePattern(`s.${'*a'.repeat(30)}b`);
  const started = performance.now();
  expect(pattern && matchesPattern(pattern, { schema: 's', table: 'a'.repeat(5000) })).toBe(false);
  expect(performance.now() - started).toBeLessThan(1000);
});

test('stream ids are safe, and differ where names do', () => {
  const name = /^[a-z0-9_.-]{1,40}-[0-9a-f]{8}$/;
  fc.assert(
    fc.property(fc.uniqueArray(tableName, { comparator: sameName, maxLength: 60 }), (names) => {
      const ids = names.map(streamId);
      for (const id of ids) expect(id).toMatch(name);
      expect(new Set(ids).size).toBe(names.length);
    }),
  );
});

test('names whose slugs are alike have ids of their own', () => {
  const names = ['a.b', 'A.b', 'a.B', 'a .b', 'a_.b'].flatMap((text): TableName[] => {
    const [schema = '', table = ''] = text.split('.');
    return [
      { schema, table },
      { schema: `${schema}.${table}`, table: 'b' },
      { schema, table: `${table}.b` },
      { schema: schema.repeat(50), table },
      { schema: schema.repeat(50), table: `${table}2` },
    ];
  });
  expect(new Set(names.map(streamId)).size).toBe(names.length);
});

test('no table that is asked for is lost', () => {
  const kinds = fc.constantFrom(
    {},
    { kind: 'v' },
    { kind: 'p' },
    { key: [] },
    { replica_identity: 'n' },
    { may_select: false },
  );
  const small = fc.constantFrom('a', 'b', 'c', 'A');
  const table = fc.tuple(small, small, kinds).map(([schema, name, over]) => sourceTable(`${schema}.${name}`, over));
  const entry = fc.constantFrom('*.*', 'a.*', '*.b', '?.c', 'a.a', 'b.c', 'A.A');
  fc.assert(
    fc.property(
      fc.uniqueArray(table, { comparator: sameName, maxLength: 12 }),
      fc.array(entry, { minLength: 1, maxLength: 4 }),
      (tables, entries) => {
        const selection = selectTables(tables, readPipeline(JSON.stringify({ pipeline: 'p', tables: entries }), 'p'));
        const { streams, skipped, faults } = selection;
        const patterns = entries.map((text) => parseTablePattern(text));
        for (const source of tables) {
          const wanted = patterns.some((pattern) => pattern && matchesPattern(pattern, source));
          const places = [
            ...streams.filter((stream) => sameName(stream.source, source)),
            ...skipped.filter((left) => sameName(left.table, source)),
            ...faults.filter(
              (fault) => fault.code !== 'NOTHING_SELECTED' && fault.facts.table === `${source.schema}.${source.table}`,
            ),
          ];
          expect(places).toHaveLength(wanted ? 1 : 0);
        }
        expect(new Set(streams.map(({ id }) => id)).size).toBe(streams.length);
      },
    ),
    { numRuns: 1000 },
  );
});
