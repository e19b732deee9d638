/** What a plain role sees of the source's ground: primary, standby, slot and publication; and how connecting fails. */
import net from 'node:net';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LSN_ZERO } from '../../lib/lsn.ts';
import { type Connection, clientConfig, closeClient, connectClient } from '../../lib/postgres/connection.ts';
import { postgresSource, type SourceOptions } from '../../lib/slot/source.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { connectionTo, connectTo, makeRole, ROLE, ROLE_SQL } from '../support/source-role.ts';

const CONFIG = { database: 'postgres', replication_slot: 'sluice_test', publication_name: 'Sluice "pub"' };
const noReader: SourceOptions['openSlot'] = () => Promise.reject(new Error('not read here'));

let server: TestPostgres;
let admin: Client;
beforeAll(async () => {
  server = await startPostgres();
  admin = await server.connect();
  await makeRole(server);
});
afterAll(async () => {
  await admin.end();
  await server.stop();
});

const source = (overrides: Partial<Connection> = {}, on: TestPostgres = server) =>
  postgresSource({ connect: connectTo(on, overrides), openSlot: noReader, config: CONFIG });

describe('look', () => {
  test('a bare primary', async () => {
    const { rows } = await admin.query('SELECT system_identifier::text AS id FROM pg_control_system()');
    const ground = await source().look();
    expect(ground).toMatchObject({
      version: Number((await admin.query('SHOW server_version_num')).rows[0].server_version_num),
      system_identifier: rows[0].id,
      timeline: 1,
      in_recovery: false,
      wal_level: 'logical',
      encoding: 'UTF8',
      user: ROLE,
      may_replicate: true,
      slot: null,
    });
    expect(ground.flush_lsn).toBeGreaterThan(LSN_ZERO);
  });

  test('slot and publication, with whoever reads the slot', async () => {
    await admin.query('CREATE TABLE "Odd, table" (id int PRIMARY KEY)');
    await admin.query('CREATE PUBLICATION "Sluice ""pub""" FOR TABLE "Odd, table"');
    await admin.query("SELECT pg_create_logical_replication_slot('sluice_test', 'pgoutput')");
    const reading = {
      side: 'source',
      connection: connectionTo(server, { application_name: 'sluice/test#7' }),
      replication: true,
    } as const;
    const reader = await connectClient(() => new Client(clientConfig(reading)), reading);
    const stream = reader.query(
      `START_REPLICATION SLOT sluice_test LOGICAL 0/0 (proto_version '1', publication_names '"Sluice ""pub"""')`,
    );
    stream.catch(() => {});
    await expect.poll(async () => (await source().look()).slot?.active_pid).toEqual(expect.any(Number));

    const { slot } = await source().look();
    expect(slot).toEqual({
      plugin: 'pgoutput',
      database: 'postgres',
      active_pid: expect.any(Number),
      active_application: 'sluice/test#7',
      active_client: server.host,
      confirmed_lsn: expect.any(BigInt),
      wal_status: 'reserved',
      safe_wal_bytes: null,
      wal_limit_bytes: null,
      kept_wal_bytes: expect.any(Number),
      invalidation_reason: null,
      failover: false,
    });

    // Ending it: another pid is not touched, and this one frees the slot.
    const other = await admin.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    await source().terminate(other.rows[0]?.pid ?? 0);
    expect((await admin.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await source().terminate(slot?.active_pid ?? 0);
    await expect.poll(async () => (await source().look()).slot?.active_pid).toBeNull();
    await closeClient(reader);
    await admin.query("SELECT pg_drop_replication_slot('sluice_test')");
  });

  test('a physical slot is none of ours', async () => {
    await admin.query("SELECT pg_create_physical_replication_slot('sluice_test')");
    const { slot } = await source().look();
    expect(slot).toMatchObject({ plugin: 'physical', database: '', confirmed_lsn: LSN_ZERO });
    await admin.query("SELECT pg_drop_replication_slot('sluice_test')");
  });

  test('a role without REPLICATION may not; one in rds_replication may', async () => {
    await admin.query("CREATE ROLE rds_replication; CREATE ROLE plain LOGIN PASSWORD 'x'");
    const plain = source({ user: 'plain', password: 'x' });
    expect((await plain.look()).may_replicate).toBe(false);
    await admin.query('GRANT rds_replication TO plain');
    expect((await plain.look()).may_replicate).toBe(true);
    await admin.query('DROP ROLE plain; DROP ROLE rds_replication');
  });

  test('a standby, and the timeline right after its promotion', async () => {
    await using standby = await startStandby(server);
    const before = await source({}, standby).look();
    expect(before).toMatchObject({
      in_recovery: true,
      timeline: 1,
      system_identifier: (await source().look()).system_identifier,
    });
    const client = await standby.connect();
    await client.query('SELECT pg_promote(true)');
    await client.end();
    expect(await source({}, standby).look()).toMatchObject({ in_recovery: false, timeline: 2 });
  });

  test('a source with wal_level = replica', async () => {
    await using replica = await startPostgres({ settings: { wal_level: 'replica' } });
    await makeRole(replica);
    expect((await source({}, replica).look()).wal_level).toBe('replica');
    await expect(source({}, replica).createSlot()).rejects.toMatchObject({
      code: 'WAL_LEVEL',
      facts: { wal_level: 'replica' },
    });
  });
});

describe('connecting', () => {
  test.each([
    ['a wrong password', { password: 'wrong' }, 'AUTHENTICATION_FAILED', 'password authentication failed'],
    ['no password', { password: null }, 'AUTHENTICATION_FAILED', 'none is configured'],
    ['no such role', { user: 'nobody' }, 'AUTHENTICATION_FAILED', 'nobody'],
    ['no such database', { database: 'No such' }, 'DATABASE_MISSING', 'No such'],
    ['an unknown host', { host: 'nowhere.invalid' }, 'CONNECTION_FAILED', 'nowhere.invalid'],
    ['a closed port', { port: 1 }, 'CONNECTION_FAILED', 'refuses connections'],
    ['TLS where the server has none', { ssl: { mode: 'require' } }, 'TLS_FAILED', 'does not support SSL'],
  ])('%s', async (_, overrides, code, said) => {
    const tls = { ca: null, cert: null, key: null, key_password: null, server_name: null };
    const { ssl, ...rest } = overrides as { ssl?: { mode: 'require' } } & Partial<Connection>;
    const failure = source({ ...rest, ...(ssl ? { ssl: { ...tls, ...ssl } } : {}) }).look();
    await expect(failure).rejects.toMatchObject({ code, message: expect.stringContaining(said) });
  });

  test('a server that never answers is given up after connect_timeout_seconds', async () => {
    const silent = net.createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as net.AddressInfo;
    const failure = source({ host: '127.0.0.1', port, connect_timeout_seconds: 1 }).look();
    await expect(failure).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringContaining('no answer in 1 seconds'),
    });
    silent.close();
  });

  test('a role that may not replicate is told so when it opens a replication connection', async () => {
    await admin.query("CREATE ROLE plain LOGIN PASSWORD 'x'");
    const endpoint = {
      side: 'source',
      connection: connectionTo(server, { user: 'plain', password: 'x' }),
      replication: true,
    } as const;
    const failure = connectClient(() => new Client(clientConfig(endpoint)), endpoint);
    await expect(failure).rejects.toMatchObject({ code: 'REPLICATION_NOT_ALLOWED', facts: { user: 'plain' } });
    await admin.query('DROP ROLE plain');
  });

  test.each([false, true])(
    'every setting that decides how a value is written is pinned (replication: %s)',
    async (replication) => {
      await admin.query(
        `ALTER ROLE ${ROLE_SQL} SET DateStyle = 'German'; ALTER ROLE ${ROLE_SQL} SET TimeZone = 'Asia/Tokyo'`,
      );
      await admin.query(
        `ALTER ROLE ${ROLE_SQL} SET statement_timeout = 500; ALTER ROLE ${ROLE_SQL} SET bytea_output = 'escape'`,
      );
      await admin.query(
        `ALTER ROLE ${ROLE_SQL} SET lc_monetary = 'POSIX'; ALTER ROLE ${ROLE_SQL} SET standard_conforming_strings = off`,
      );
      await admin.query(
        `ALTER ROLE ${ROLE_SQL} SET extra_float_digits = -3; ALTER ROLE ${ROLE_SQL} SET idle_session_timeout = 700`,
      );
      const endpoint = { side: 'source', connection: connectionTo(server), replication } as const;
      const client = await connectClient(() => new Client(clientConfig(endpoint)), endpoint);
      try {
        const pinned = [
          'DateStyle',
          'TimeZone',
          'IntervalStyle',
          'bytea_output',
          'extra_float_digits',
          'client_encoding',
          'search_path',
          'lc_monetary',
          'standard_conforming_strings',
        ];
        const shown: string[] = [];
        for (const name of pinned) shown.push(Object.values((await client.query(`SHOW ${name}`)).rows[0]).join());
        expect(shown).toEqual(['ISO, MDY', 'UTC', 'postgres', 'hex', '3', 'UTF8', 'pg_catalog', 'C', 'on']);
        expect((await client.query('SHOW statement_timeout')).rows).toEqual([{ statement_timeout: '0' }]);
        if (!replication)
          expect((await client.query('SHOW idle_session_timeout')).rows).toEqual([{ idle_session_timeout: '0' }]);
      } finally {
        await closeClient(client);
        await admin.query(`ALTER ROLE ${ROLE_SQL} RESET ALL`);
      }
    },
  );

  test('a connection that the server ends while nobody waits fails the next query, and not the process', async () => {
    const client = await connectTo(server)();
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    await admin.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid]);
    await expect
      .poll(
        async () =>
          await client.query('SELECT 1').then(
            () => 'answered',
            () => 'failed',
          ),
      )
      .toBe('failed');
    await closeClient(client);
  });
});
