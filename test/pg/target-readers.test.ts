/**
 * target.default_target_schema_select_permissions: the roles that it names read what is made here, and nothing that it cannot give keeps a row waiting.
 * Method: whole lines between two servers; the roles themselves read the target.
 */
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { streamId } from '../../lib/config/stream-id.ts';
import type { Survey } from '../../lib/doctor/finding.ts';
import { READER_CHECKS } from '../../lib/doctor/readers.ts';
import { surveyTarget } from '../../lib/doctor/survey-target.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { openLine } from '../support/line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;
beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  const admin = await target.connect();
  await admin.query(`CREATE ROLE analysts; CREATE ROLE "Odd ""role""" LOGIN PASSWORD 'x'; CREATE ROLE ann LOGIN PASSWORD 'x' IN ROLE analysts;
    CREATE ROLE others LOGIN PASSWORD 'x'`);
  await admin.end();
});
afterAll(async () => {
  await Promise.all([source.stop(), target.stop()]);
});

const SQL = `CREATE TABLE items (id int PRIMARY KEY, v text);
  INSERT INTO items SELECT n, 'v' || n FROM generate_series(1, 5) AS n`;
const ODD = 'Odd "role"';
const ROLES = `default_target_schema_select_permissions: [analysts, 'Odd "role"']`;
const ID = streamId({ schema: 'public', table: 'items' });

/** Rows that the role sees, or the SQLSTATE that keeps it from seeing any. */
async function readAs({ to }: FreshLine, role: string, table = 'shop.items'): Promise<number | string> {
  const client = new Client({
    host: target.host,
    port: target.port,
    user: role,
    password: 'x',
    database: to.database ?? '',
  });
  await client.connect();
  try {
    const { rows } = await client.query<{ n: number }>(`SELECT count(*)::int4 AS n FROM ${table}`);
    return rows[0]?.n ?? -1;
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    await client.end();
  }
}
const DENIED = '42501';
const AT_SHOP = 'default_target_schema: shop';
const warnings = ({ line }: FreshLine) => line.log.lines.filter(({ event }) => /^readers?_/.test(event));

describe('target.default_target_schema_select_permissions', () => {
  test('roles read a table that is made, in a schema that is made, through swaps and new tables; others do not', async () => {
    await using fresh = await freshLine({ source, target }, SQL, { target: `${AT_SHOP}, ${ROLES}` });
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(5);
    expect(await readAs(fresh, ODD)).toBe(5);
    expect(await readAs(fresh, 'others')).toBe(DENIED);
    // They see of when it is, and nothing else of ours.
    expect(await readAs(fresh, 'ann', '_sluice.positions')).toBe(1);
    expect(await readAs(fresh, 'ann', '_sluice.streams')).toBe(DENIED);
    // Reading, no more.
    const { rows } = await fresh.to.query<{ privileges: string[] }>(
      `SELECT array_agg(privilege_type::text) AS privileges FROM information_schema.role_table_grants WHERE grantee = 'analysts' AND table_name = 'items'`,
    );
    expect(rows[0]?.privileges).toEqual(['SELECT']);
    // A copy that is swapped in, and a table that comes later.
    const before = await fresh.to.query<{ oid: number }>(`SELECT 'shop.items'::regclass::oid::int4 AS oid`);
    await fresh.line.ports().ledger.updateBookmark(ID, { reset_requested: true });
    await fresh.from.query('CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1)');
    await fresh.settle();
    const after = await fresh.to.query<{ oid: number }>(`SELECT 'shop.items'::regclass::oid::int4 AS oid`);
    expect(after.rows[0]?.oid).not.toBe(before.rows[0]?.oid);
    expect(await readAs(fresh, 'ann')).toBe(5);
    expect(await readAs(fresh, ODD, 'shop.more')).toBe(1);
    // And once given, nothing is given again.
    const given = warnings(fresh).length;
    await fresh.from.query('INSERT INTO more VALUES (2)');
    await fresh.settle();
    expect(warnings(fresh)).toHaveLength(given);
  });

  test('switched on later: tables that were there get it with the next load of any; switched off, they keep it', async () => {
    await using fresh = await freshLine({ source, target }, `${SQL}; CREATE TABLE idle (id int PRIMARY KEY)`, {
      target: AT_SHOP,
    });
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(DENIED);
    fresh.line.configure({ target: `${AT_SHOP}, ${ROLES}` });
    await fresh.from.query("INSERT INTO items VALUES (6, 'v6')");
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(6);
    expect(await readAs(fresh, 'ann', 'shop.idle')).toBe(0);
    // What somebody takes back is given again as long as the file says so.
    await fresh.to.query('REVOKE SELECT ON shop.items FROM analysts');
    await fresh.from.query("INSERT INTO items VALUES (7, 'v7')");
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(7);
    fresh.line.configure({ target: AT_SHOP });
    await fresh.from.query("INSERT INTO items VALUES (8, 'v8')");
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(8);
    await fresh.to.query('REVOKE SELECT ON shop.items FROM analysts');
    await fresh.from.query("INSERT INTO items VALUES (9, 'v9')");
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(DENIED);
  });

  test('a role that is missing is told and passed over, and gets its rights when it is there', async () => {
    const roles = 'default_target_schema_select_permissions: [late, analysts]';
    await using fresh = await freshLine({ source, target }, SQL, { target: `${AT_SHOP}, ${roles}` });
    await fresh.settle();
    expect(await readAs(fresh, 'ann')).toBe(5);
    expect(warnings(fresh)).toContainEqual(expect.objectContaining({ event: 'reader_missing' }));
    await fresh.to.query("CREATE ROLE late LOGIN PASSWORD 'x'");
    await fresh.from.query("INSERT INTO items VALUES (6, 'v6')");
    await fresh.settle();
    expect(await readAs(fresh, 'late')).toBe(6);
    await fresh.to.query('DROP OWNED BY late; DROP ROLE late');
  });

  test('one name, and `public`: everybody', async () => {
    await using fresh = await freshLine({ source, target }, SQL, {
      target: `${AT_SHOP}, default_target_schema_select_permissions: public`,
    });
    await fresh.settle();
    expect(await readAs(fresh, 'others')).toBe(5);
    const { rows } = await fresh.to.query<{ acl: string }>(
      "SELECT relacl::text AS acl FROM pg_class WHERE oid = 'shop.items'::regclass",
    );
    expect(rows[0]?.acl).toContain('=r/');
  });

  test('a right that the loading role may not give is told, and halts nobody; doctor says it beforehand', async () => {
    const admin = await target.connect();
    await admin.query("CREATE ROLE loader LOGIN PASSWORD 'x'");
    await admin.end();
    await using fresh = await freshLine({ source, target }, SQL, { target: `${AT_SHOP}, ${ROLES}` });
    // GIVEN a schema of somebody else's, in which the loader may make tables and no more.
    await fresh.to.query(
      `CREATE SCHEMA shop; GRANT USAGE, CREATE ON SCHEMA shop TO loader; GRANT CREATE ON DATABASE ${fresh.to.database} TO loader`,
    );
    const loader = async (): Promise<Client> => {
      const client = new Client({
        host: target.host,
        port: target.port,
        user: 'loader',
        password: 'x',
        database: fresh.to.database ?? '',
      });
      await client.connect();
      return client;
    };
    const survey = await surveyTarget(
      loader,
      [{ schema: 'shop', table: 'items' }],
      [],
      ['analysts', 'nobody', 'public'],
    );
    expect(survey.readers).toEqual([
      { role: 'analysts', there: true, closed: ['shop'] },
      { role: 'nobody', there: false, closed: [] },
      { role: 'public', there: true, closed: ['shop'] },
    ]);
    const seen = { target: survey } as unknown as Survey;
    expect(
      READER_CHECKS.flatMap(({ run }) => run(seen)).map(({ severity, subject, remedy }) => [severity, subject, remedy]),
    ).toEqual([
      ['warning', 'role analysts', 'Run: GRANT USAGE ON SCHEMA "shop" TO "analysts"'],
      ['warning', 'role nobody', 'Run: CREATE ROLE "nobody"; or take it out of the list.'],
      ['warning', 'role public', 'Run: GRANT USAGE ON SCHEMA "shop" TO PUBLIC'],
    ]);
    const at = (server: TestPostgres) => ({ host: server.host, port: server.port, database: fresh.to.database ?? '' });
    await using line = await openLine({
      source: { ...at(source), user: source.user, password: source.password },
      target: { ...at(target), user: 'loader', password: 'x' },
      pipeline: 'loader',
      config: { target: `${AT_SHOP}, ${ROLES}` },
    });
    await line.settle();
    expect(line.bookmark('public.items')).toMatchObject({ state: 'live', halt: null });
    expect((await line.rows('target', 'public.items')).length).toBe(5);
    expect(line.log.lines).toContainEqual(
      expect.objectContaining({
        event: 'reader_not_granted',
        facts: expect.objectContaining({ sql: 'GRANT USAGE ON SCHEMA "shop" TO "analysts"' }),
      }),
    );
    // The table is its own.
    const { rows } = await fresh.to.query("SELECT has_table_privilege('analysts', 'shop.items', 'SELECT') AS may");
    expect(rows).toEqual([{ may: true }]);
  });
});
