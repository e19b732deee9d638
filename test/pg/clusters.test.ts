/** Test servers are copies of one cluster each version (test/support/clusters.ts): what must differ between them does, and the rest is as initdb makes it. */
import { Client } from 'pg';
import { expect, test } from 'vitest';
import { query, startPostgres, startStandby } from '../support/postgres.ts';
import { MAJORS_HERE } from '../support/servers.ts';

const identifierOf = 'SELECT system_identifier::text AS id FROM pg_control_system()';

test.each(MAJORS_HERE)('PostgreSQL %i: two servers are two clusters', async (version) => {
  await using one = await startPostgres({ version });
  await using other = await startPostgres({ version });
  await query(one, 'CREATE TABLE only_here AS SELECT 1 AS n');
  const ids = [await query(one, identifierOf), await query(other, identifierOf)].map(([row]) => String(row?.id));
  expect(ids[0]).toMatch(/^[1-9]\d{17,18}$/);
  expect(ids[1]).not.toBe(ids[0]);
  expect(await query(other, "SELECT to_regclass('only_here') AS found")).toEqual([{ found: null }]);

  // A start reads the log, whose files name the cluster as well.
  await query(one, 'SELECT pg_switch_wal()');
  await one.restart();
  expect(await query(one, identifierOf)).toEqual([{ id: ids[0] }]);
  expect(await query(one, 'SELECT n FROM only_here')).toEqual([{ n: 1 }]);
});

test('a standby is of the same cluster as its primary', async () => {
  await using primary = await startPostgres();
  await using standby = await startStandby(primary);
  expect(await query(standby, identifierOf)).toEqual(await query(primary, identifierOf));
  await query(primary, 'CREATE TABLE streamed AS SELECT 1 AS n');
  const there = (): Promise<unknown> => query(standby, "SELECT to_regclass('streamed')::text AS found");
  await expect.poll(there, { timeout: 30_000 }).toEqual([{ found: 'streamed' }]);
});

test('the password is asked for, and no other will do', async () => {
  await using server = await startPostgres();
  const { host, port, user, database } = server;
  const client = new Client({ host, port, user, password: `${server.password}x`, database });
  await expect(client.connect()).rejects.toMatchObject({ code: '28P01' });
  const rows = await query(
    server,
    "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' AS scram FROM pg_authid WHERE rolname = current_user",
  );
  expect(rows).toEqual([{ scram: true }]);
});
