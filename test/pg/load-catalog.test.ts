/**
 * Goal: what the loader believes of PostgreSQL's own names and numbers is so. Method: PostgreSQL is asked.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { conditionName, KNOWN_SQLSTATES } from '../../lib/load/conditions.ts';
import { typedColumns } from '../../lib/load/ddl.ts';
import { Session } from '../../lib/load/session.ts';
import { INEXACT_TYPES } from '../../lib/load/sql.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { TYPE } from '../support/segments.ts';

let server: TestPostgres;
let client: pg.Client;

beforeAll(async () => {
  server = await startPostgres();
  client = await server.connect();
});
afterAll(async () => {
  await server.stop();
});

test('each condition has the name that we know it by', async () => {
  for (const sqlstate of KNOWN_SQLSTATES) {
    const raised: unknown = await client
      .query(`DO $$ BEGIN RAISE ${conditionName(sqlstate)}; END $$`)
      .catch((thrown: unknown) => thrown);
    expect(raised, conditionName(sqlstate)).toMatchObject({ code: sqlstate });
  }
});

test('OIDs of types', async () => {
  const { rows } = await client.query<{ name: string; oid: number }>(
    `SELECT typname::text AS name, oid::int4 FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace`,
  );
  const oids = new Map(rows.map(({ name, oid }) => [name, oid]));
  for (const [name, oid] of [...Object.entries(INEXACT_TYPES), ...Object.entries(TYPE)])
    expect(oids.get(name), name).toBe(oid);
});

/** Types that compare equal while they are written differently: whoever adds one to PostgreSQL should find this test failing. */
test('types whose equality is not identity are those that we know', async () => {
  const pairs: Record<string, [string, string]> = {
    numeric: ['1.0', '1.00'],
    float4: ['0', '-0'],
    float8: ['0', '-0'],
    interval: ['1 day', '24:00:00'],
    jsonb: ['1.0', '1.00'],
    bpchar: ['a', 'a '],
    _numeric: ['{1.0}', '{1.00}'],
    numrange: ['[1.0,2)', '[1.00,2)'],
    nummultirange: ['{[1.0,2)}', '{[1.00,2)}'],
    timetz: ['12:00+00', '13:00+01'],
    timestamptz: ['2026-01-01 00:00+00', '2026-01-01 01:00+01'],
    text: ['a', 'a '],
    inet: ['10.0.0.1', '10.0.0.1/32'],
    bit: ['1', '01'],
    uuid: ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'],
    money: ['1', '1.00'],
    date: ['2026-01-01', 'January 1, 2026'],
    varbit: ['1', '01'],
    int4range: ['[1,2]', '[1,3)'],
  };
  for (const [type, [a, b]] of Object.entries(pairs)) {
    const { rows } = await client.query<{ equal: boolean; same: boolean }>(
      `SELECT $1::${type} = $2::${type} AS equal, record_image_eq(ROW($1::${type}), ROW($2::${type})) AS same`,
      [a, b],
    );
    expect([type, rows[0]?.equal && !rows[0].same]).toEqual([type, type in INEXACT_TYPES]);
  }
});

test('every type of PostgreSQL’s own that a column can have gets a type that takes its text', async () => {
  const { rows } = await client.query<{ oid: number; name: string }>(
    `SELECT oid::int4, format_type(oid, NULL) AS name FROM pg_type WHERE typtype <> 'p' AND oid < 16384 AND typname <> 'unknown'`,
  );
  const session = new Session(client, { stream: 's', table: 't' });
  const typed = await typedColumns(
    session,
    rows.map(({ oid }, i) => ({ name: `c${i}`, type_oid: oid, type_modifier: -1 })),
    'create',
  );
  await client.query(
    `CREATE TABLE every_type (${typed
      .slice(0, 1500)
      .map(({ name, type }) => `${name} ${type}`)
      .join(', ')})`,
  );
  const types = new Map(rows.map(({ name }, i) => [name, typed[i]?.type]));
  const expected = {
    integer: 'integer',
    'character varying': 'character varying',
    character: 'bpchar',
    bit: '"bit"',
    tsrange: 'tsrange',
    datemultirange: 'datemultirange',
    'numeric[]': 'numeric[]',
    xml: 'xml',
    pg_lsn: 'pg_lsn',
    name: 'name',
    regclass: 'text',
    'regtype[]': 'text',
    aclitem: 'text',
    pg_node_tree: 'text',
    gtsvector: 'text',
    pg_class: 'text',
    'information_schema.sql_identifier': 'text',
  };
  for (const [name, type] of Object.entries(expected)) expect([name, types.get(name)]).toEqual([name, type]);
  const unknown = await typedColumns(
    session,
    [
      { name: 'custom', type_oid: 4_000_000_000, type_modifier: 3 },
      { name: 'n', type_oid: 1700, type_modifier: ((10 << 16) | 2) + 4 },
      { name: 'v', type_oid: 1043, type_modifier: 24 },
      { name: 't', type_oid: 1184, type_modifier: 3 },
    ],
    'create',
  );
  expect(unknown.map(({ type }) => type)).toEqual([
    'text',
    'numeric(10,2)',
    'character varying(20)',
    'timestamp(3) with time zone',
  ]);
});
