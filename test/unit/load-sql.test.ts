/** Goal: the loader's statements have one meaning and one spelling. Method: exact text for one of each kind; what they do is shown in test/pg. */
import { describe, expect, test } from 'vitest';
import {
  addColumnsSql,
  addKeySql,
  addMetadataSql,
  createShadowSql,
  keyName,
  shadowKeyName,
  shadowName,
} from '../../lib/load/ddl.ts';
import { settingsSql } from '../../lib/load/session.ts';
import {
  copySql,
  deleteSql,
  insertMissingSql,
  type Landed,
  landedColumns,
  makeTempSql,
  markAllDeletedSql,
  markDeletedSql,
  rekeySql,
  type TableForm,
  truncateSql,
  updateSql,
  upsertSql,
} from '../../lib/load/sql.ts';
import { shapeOf } from '../support/segments.ts';

const NAME = { schema: 's', table: 'or"ders' };
const SHAPE = shapeOf({ id: 'int4', 'Na me': 'text', v: 'text' }, ['id']);
const PLAIN: TableForm = { name: NAME, shape: SHAPE, metadata: false };
const META: TableForm = { ...PLAIN, metadata: true };
const T = '"s"."or""ders"';
const AT = "'2026-01-02T03:04:05Z'::timestamptz";
const EXTRACTED = '2026-01-02T03:04:05Z';
const landed = (kind: Landed['kind'], columns: string[], key = ['id']): Landed => ({
  temp: 'pg_temp.x',
  kind,
  columns,
  key,
});
const ALL = ['id', 'Na me', 'v'];

describe('temporary tables', () => {
  test('have columns of our names and of the table’s types', () => {
    expect(makeTempSql(PLAIN, landed('upsert', ALL))).toBe(
      `CREATE TEMPORARY TABLE pg_temp.x ON COMMIT DROP AS SELECT t."id" AS c0, t."Na me" AS c1, t."v" AS c2 FROM ${T} t WITH NO DATA`,
    );
    expect(makeTempSql(PLAIN, landed('delete', ['id']))).toBe(
      `CREATE TEMPORARY TABLE pg_temp.x ON COMMIT DROP AS SELECT t."id" AS c0, NULL::timestamptz AS at FROM ${T} t WITH NO DATA`,
    );
    expect(makeTempSql(PLAIN, landed('rekey', ['id', 'v']))).toBe(
      `CREATE TEMPORARY TABLE pg_temp.x ON COMMIT DROP AS SELECT t."id" AS k0, t."id" AS c0, t."v" AS c1 FROM ${T} t WITH NO DATA`,
    );
  });

  test('are copied into by those names, in the order of a line', () => {
    expect(landedColumns(landed('delete', ['id']))).toEqual(['c0', 'at']);
    expect(landedColumns(landed('rekey', ['a', 'b'], ['a', 'b']))).toEqual(['k0', 'k1', 'c0', 'c1']);
    expect(copySql('pg_temp.x', ['c0', 'at'])).toBe('COPY pg_temp.x ("c0", "at") FROM STDIN');
  });
});

describe('sets', () => {
  test('upsert', () => {
    expect(upsertSql(PLAIN, landed('upsert', ALL), EXTRACTED)).toBe(
      `INSERT INTO ${T} AS t ("id", "Na me", "v") SELECT s.c0, s.c1, s.c2 FROM pg_temp.x s ON CONFLICT ("id") DO UPDATE SET "Na me" = EXCLUDED."Na me", "v" = EXCLUDED."v"`,
    );
    expect(upsertSql(META, landed('upsert', ALL), EXTRACTED)).toBe(
      `INSERT INTO ${T} AS t ("id", "Na me", "v", "_sdc_extracted_at", "_sdc_batched_at", "_sdc_deleted_at") SELECT s.c0, s.c1, s.c2, ${AT}, now(), NULL::timestamptz FROM pg_temp.x s ON CONFLICT ("id") DO UPDATE SET "Na me" = EXCLUDED."Na me", "v" = EXCLUDED."v", "_sdc_extracted_at" = ${AT}, "_sdc_batched_at" = now(), "_sdc_deleted_at" = NULL::timestamptz`,
    );
    expect(upsertSql({ ...PLAIN, shape: shapeOf({ id: 'int4' }, ['id']) }, landed('upsert', ['id']), EXTRACTED)).toBe(
      `INSERT INTO ${T} AS t ("id") SELECT s.c0 FROM pg_temp.x s ON CONFLICT DO NOTHING`,
    );
  });

  test('update', () => {
    expect(updateSql(PLAIN, landed('update', ['v', 'id']), EXTRACTED)).toBe(
      `UPDATE ${T} AS t SET "v" = s.c0 FROM pg_temp.x s WHERE t."id" = s.c1`,
    );
    expect(updateSql(PLAIN, landed('update', ['id']), EXTRACTED)).toBe(null);
    expect(updateSql(META, landed('update', ['id']), EXTRACTED)).toContain(
      '"_sdc_deleted_at" = NULL::timestamptz FROM',
    );
    expect(() => updateSql(PLAIN, landed('update', ['v']), EXTRACTED)).toThrow(RangeError);
  });

  test('delete, and its mark', () => {
    expect(deleteSql(PLAIN, landed('delete', ['id']))).toBe(
      `DELETE FROM ${T} AS t USING pg_temp.x s WHERE t."id" = s.c0`,
    );
    expect(markDeletedSql(META, landed('delete', ['id']), EXTRACTED)).toBe(
      `UPDATE ${T} AS t SET "_sdc_extracted_at" = ${AT}, "_sdc_batched_at" = now(), "_sdc_deleted_at" = s.at FROM pg_temp.x s WHERE t."id" = s.c0`,
    );
  });

  test('a key that can be spelled in two ways is deleted as it is spelled, and written anew', () => {
    const table = { ...PLAIN, shape: shapeOf({ id: 'numeric', v: 'text' }, ['id']) };
    expect(deleteSql(table, landed('delete', ['id']))).toBe(
      `DELETE FROM ${T} AS t USING pg_temp.x s WHERE t."id" = s.c0 AND record_image_eq(ROW(t."id"), ROW(s.c0))`,
    );
    expect(updateSql(table, landed('update', ['id', 'v']), EXTRACTED)).toContain('SET "id" = s.c0, "v" = s.c1');
  });

  test('rekey', () => {
    expect(rekeySql(PLAIN, landed('rekey', ['id', 'v']), EXTRACTED)).toEqual([
      `UPDATE ${T} AS t SET "v" = s.c1 FROM pg_temp.x s WHERE t."id" = s.c0`,
      `INSERT INTO ${T} AS t ("id", "Na me", "v") SELECT s.c0, o."Na me", s.c1 FROM pg_temp.x s JOIN ${T} AS o ON o."id" = s.k0 ON CONFLICT DO NOTHING`,
    ]);
    expect(rekeySql(META, landed('rekey', ['id', 'v']), EXTRACTED)[0]).toBe(
      `DELETE FROM ${T} AS t USING pg_temp.x s, ${T} AS o WHERE t."id" = s.c0 AND t."_sdc_deleted_at" IS NOT NULL AND o."id" = s.k0 AND o.ctid <> t.ctid`,
    );
    expect(rekeySql(PLAIN, landed('rekey', ['id']), EXTRACTED)).toHaveLength(1);
  });

  test('truncate, and its marks', () => {
    expect(truncateSql(PLAIN)).toBe(`TRUNCATE ${T}`);
    expect(markAllDeletedSql(META, EXTRACTED)).toBe(
      `UPDATE ${T} AS t SET "_sdc_extracted_at" = ${AT}, "_sdc_batched_at" = now(), "_sdc_deleted_at" = ${AT} WHERE t."_sdc_deleted_at" IS NULL`,
    );
  });

  test('rows of a chunk that may overlap another', () => {
    expect(insertMissingSql(PLAIN, landed('upsert', ['v', 'id']), EXTRACTED)).toBe(
      `INSERT INTO ${T} AS t ("v", "id") SELECT s.c0, s.c1 FROM pg_temp.x s ORDER BY s.c1 ON CONFLICT DO NOTHING`,
    );
  });

  test('a time of extraction cannot break out of its literal', () => {
    expect(upsertSql(META, landed('upsert', ALL), "x'; DROP TABLE y; --")).toContain(
      `'x''; DROP TABLE y; --'::timestamptz`,
    );
  });
});

describe('tables', () => {
  const typed = [
    { name: 'id', type: 'integer' },
    { name: 'Na me', type: 'numeric(10,2)' },
  ];

  test('shadow', () => {
    expect(createShadowSql(NAME, SHAPE, typed, false)).toBe(
      `CREATE TABLE ${T} ("id" integer NOT NULL, "Na me" numeric(10,2))`,
    );
    expect(createShadowSql(NAME, SHAPE, typed, true)).toBe(
      `CREATE TABLE ${T} ("id" integer NOT NULL, "Na me" numeric(10,2), "_sdc_extracted_at" timestamptz DEFAULT to_timestamp(current_setting('sluice.extracted_at')::float8), "_sdc_batched_at" timestamptz DEFAULT now(), "_sdc_deleted_at" timestamptz)`,
    );
  });

  test('changes', () => {
    expect(addKeySql(NAME, 'k"', shapeOf({ a: 'text', b: 'text', c: 'text' }, ['a', 'c']))).toBe(
      `ALTER TABLE ${T} ADD CONSTRAINT "k""" PRIMARY KEY ("a", "c")`,
    );
    expect(addColumnsSql(NAME, typed)).toBe(
      `ALTER TABLE ${T} ADD COLUMN "id" integer, ADD COLUMN "Na me" numeric(10,2)`,
    );
    expect(addMetadataSql(NAME)).toContain(
      'ADD COLUMN IF NOT EXISTS "_sdc_extracted_at" timestamptz, ADD COLUMN IF NOT EXISTS',
    );
  });

  test('names of shadows differ by schema, table, epoch and plan, and fit', () => {
    const names = [
      shadowName({ schema: 'a', table: 'b.c' }, 1, 'p'),
      shadowName({ schema: 'a.b', table: 'c' }, 1, 'p'),
      shadowName({ schema: 'a', table: 'b.c' }, 2, 'p'),
      shadowName({ schema: 'a', table: 'b.c' }, 1, 'q'),
    ].map(({ table }) => table);
    expect(new Set(names).size).toBe(4);
    for (const name of names) expect(name).toMatch(/^_sluice_shadow_[0-9a-f]{16}$/);
    expect(shadowName({ schema: 'a', table: 'b.c' }, 1, 'p')).toEqual({ schema: 'a', table: names[0] });
    expect(Buffer.byteLength(shadowKeyName(shadowName({ schema: 'a', table: 'b' }, 1, 'p')))).toBeLessThanOrEqual(63);
  });

  test.each([
    ['t', 't_pkey'],
    ['x'.repeat(58), `${'x'.repeat(58)}_pkey`],
    ['x'.repeat(63), `${'x'.repeat(58)}_pkey`],
    ['🎈'.repeat(15), `${'🎈'.repeat(14)}_pkey`],
  ])('name of a key: %s', (table, name) => {
    expect(keyName({ schema: 's', table })).toBe(name);
  });
});

describe('settings', () => {
  test('hold for the transaction only, and bound every wait', () => {
    const sql = settingsSql({ statement_ms: 1000, lock_ms: 20 });
    expect(sql).not.toMatch(/SET (?!LOCAL)/);
    const last = new Map([...sql.matchAll(/SET LOCAL (\w+) = '([^']*)'/g)].map(([, name, value]) => [name, value]));
    expect(Object.fromEntries(last)).toMatchObject({
      DateStyle: expect.stringMatching(/^ISO\b/),
      IntervalStyle: 'postgres',
      TimeZone: 'UTC',
      extra_float_digits: '3',
      bytea_output: 'hex',
      client_encoding: 'UTF8',
      search_path: 'pg_catalog',
      row_security: 'off',
      statement_timeout: '1000',
      lock_timeout: '20',
      idle_in_transaction_session_timeout: '300000',
    });
  });
});
