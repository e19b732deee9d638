/**
 * The role that a source is read with: LOGIN and REPLICATION, SELECT on what it is granted, and nothing else. Tests of the source go through it, so
 * that nothing works only because a superuser asked.
 */
import { Client } from 'pg';
import { type Connection, clientConfig, connectClient, type Side } from '../../lib/postgres/connection.ts';
import type { Connect } from '../../lib/postgres/session.ts';
import type { TestPostgres } from './postgres.ts';

export const ROLE = 'Sluice "reader"';
export const ROLE_SQL = '"Sluice ""reader"""';
export const ROLE_PASSWORD = 'open sesame';

/** Makes the role, with what `attributes` adds or takes away. */
export async function makeRole(server: TestPostgres, attributes = 'REPLICATION'): Promise<void> {
  const client = await server.connect();
  await client.query(`CREATE ROLE ${ROLE_SQL} LOGIN ${attributes} PASSWORD '${ROLE_PASSWORD}'`);
  await client.end();
}

/** Where `server` is, for the role unless `overrides` say otherwise. */
export function connectionTo(server: TestPostgres, overrides: Partial<Connection> = {}): Connection {
  return {
    host: server.host,
    port: server.port,
    user: ROLE,
    password: ROLE_PASSWORD,
    database: 'postgres',
    connect_timeout_seconds: 10,
    application_name: 'sluice/test',
    ssl: null,
    ...overrides,
  };
}

/** Connects as the pipeline would. */
export function connectTo(server: TestPostgres, overrides: Partial<Connection> = {}, side: Side = 'source'): Connect {
  const endpoint = { side, connection: connectionTo(server, overrides) };
  return () => connectClient(() => new Client(clientConfig(endpoint)), endpoint);
}

/** A walsender's connection to the same database. */
export function replicationTo(server: TestPostgres): Connect {
  const endpoint = { side: 'source' as const, connection: connectionTo(server), replication: true };
  return () => connectClient(() => new Client(clientConfig(endpoint)), endpoint);
}
