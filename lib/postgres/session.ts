/**
 * One connection for one piece of work: opened for it and closed with it, whatever happens in between. No connection outlives its window (design §3).
 */
import type { Client } from 'pg';
import { closeClient } from './connection.ts';
import { sourceFault } from './faults.ts';

/** Gives a connected client: `connectClient` with everything bound. */
export type Connect = () => Promise<Client>;

/** Runs `work` on a connection of the source that is its own. What it throws is mapped; `action` completes "The source refuses to …". */
export async function onSource<T>(connect: Connect, action: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await connect();
  try {
    return await work(client);
  } catch (error) {
    throw sourceFault(error, action);
  } finally {
    await closeClient(client);
  }
}

/** `server_version_num` of the server: 180004 is 18.4. */
export async function serverVersion(client: Client): Promise<number> {
  const { rows } = await client.query<{ version: number }>(
    "SELECT current_setting('server_version_num')::int4 AS version",
  );
  return rows[0]?.version ?? 0;
}

/** As PostgreSQL writes a version: 18.4 for 180004, and 9.6.24 for 90624 (before 10, a major version had two numbers). */
export function versionText(version: number): string {
  const major = Math.floor(version / 10_000);
  const rest = version % 10_000;
  if (major >= 10) return rest === 0 ? String(major) : `${major}.${rest}`;
  return `${major}.${Math.floor(rest / 100)}.${rest % 100}`;
}

/** The role that the connection is of. */
export async function currentUser(client: Client): Promise<string> {
  const { rows } = await client.query<{ user: string }>('SELECT current_user AS user');
  return one(rows).user;
}

/** Of a query that always has a row. */
export function one<T>(rows: readonly T[]): T {
  const [row] = rows;
  if (row === undefined) throw new RangeError('a query that always has a row gave none');
  return row;
}
