/** The functions' connections: the secrets that they are made with, and a password that changes while the function lives. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Connector } from '../../functions/postgres.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let server: TestPostgres;
beforeAll(async () => {
  server = await startPostgres();
});
afterAll(async () => {
  await server.stop();
});

/** A connector whose password is whatever `env.PW` is when it is read. `more`: of the source. */
function connector(env: Record<string, string>, more: Record<string, unknown> = {}) {
  const side = (user: string) => ({
    host: server.host,
    port: server.port,
    user,
    password: '${env:PW}',
    database: 'postgres',
  });
  const file = {
    pipeline: 'shop',
    source: { ...side('rotated'), ...more },
    tables: ['public.*'],
    target: side('postgres'),
  };
  const pipeline = readPipeline(JSON.stringify(file), 'pipeline.yaml');
  const clock = { now_ms: 0 };
  const reject = () => Promise.reject(new Error('not asked for'));
  return {
    clock,
    connector: new Connector(
      pipeline,
      { env, readFile: reject, readSecret: reject, readAuthorities: reject, signToken: reject },
      () => clock.now_ms,
    ),
  };
}

test('use the password of the time, after one refusal', async () => {
  const admin = await server.connect();
  await admin.query("CREATE ROLE rotated LOGIN PASSWORD 'old'");
  const env = { PW: 'old' };
  const { connector: connections } = connector(env);
  await closeClient(await connections.connect('source'));
  // WHEN the password changes, on the server and where it is read.
  await admin.query("ALTER ROLE rotated PASSWORD 'new'");
  env.PW = 'new';
  // THEN what was kept is refused once, and read anew.
  await expect(connections.connect('source')).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
  await closeClient(await connections.connect('source'));
  await admin.end();
});

test('host, port, user, password, database: each side is reached where the file says, and as whom', async () => {
  await using other = await startPostgres();
  const admin = await other.connect();
  await admin.query("CREATE ROLE asked LOGIN PASSWORD 'for asked'");
  await admin.query('CREATE DATABASE "Asked Db"');
  await admin.end();
  const { host, port } = other;
  const there = { host, port, user: 'asked', password: '${env:OTHER_PW}', database: 'Asked Db' };
  const { connector: connections } = connector({ PW: server.password, OTHER_PW: 'for asked' }, there);
  const reached = async (side: 'source' | 'target'): Promise<unknown> => {
    const client = await connections.connect(side);
    const { rows } = await client.query(
      "SELECT session_user::text AS role, current_database()::text AS database, current_setting('port')::int AS port",
    );
    await closeClient(client);
    return rows[0];
  };
  expect(await reached('source')).toEqual({ role: 'asked', database: 'Asked Db', port });
  expect(await reached('target')).toEqual({ role: 'postgres', database: 'postgres', port: server.port });
});

test('show the name that they are given, and can replicate', async () => {
  const { connector: connections } = connector({ PW: server.password });
  const client = await connections.connect('target', { application_name: 'sluice/shop#7' });
  const { rows } = await client.query<{ name: string }>("SELECT current_setting('application_name') AS name");
  expect(rows).toEqual([{ name: 'sluice/shop#7' }]);
  await closeClient(client);
  const walsender = await connections.connect('target', { replication: true });
  const identified = await walsender.query<{ dbname: string }>('IDENTIFY_SYSTEM');
  expect(identified.rows[0]?.dbname).toBe('postgres');
  await closeClient(walsender);
});

test('read a secret again after some minutes, and after it was not there', async () => {
  const env: Record<string, string> = {};
  const { connector: connections, clock } = connector(env);
  await expect(connections.connect('target')).rejects.toMatchObject({ code: 'SECRET_UNREADABLE' });
  env.PW = server.password;
  await closeClient(await connections.connect('target'));
  env.PW = 'wrong';
  await closeClient(await connections.connect('target'));
  clock.now_ms += 3600_000;
  await expect(connections.connect('target')).rejects.toMatchObject({ code: 'AUTHENTICATION_FAILED' });
});

test('secondary_host, secondary_port: reach the replica of the source with the same role and password, by its own host and port', async () => {
  await using other = await startPostgres();
  const admin = await other.connect();
  await admin.query("CREATE ROLE rotated LOGIN PASSWORD 'there'");
  await admin.end();
  const at = { use_secondary: true, secondary_host: other.host, secondary_port: other.port };
  const { connector: connections } = connector({ PW: 'there' }, at);
  const client = await connections.connect('source', { secondary: true });
  const { rows } = await client.query<{ port: number; user: string }>(
    "SELECT current_setting('port')::int4 AS port, current_user AS user",
  );
  expect(rows).toEqual([{ port: other.port, user: 'rotated' }]);
  await closeClient(client);
});
