/**
 * Whether the output plugin wal2json is installed: no view says so, so a temporary slot is made with it and dropped. The server loads the plugin before
 * it waits for open transactions; so one that has to wait is there.
 */
import type { Client } from 'pg';
import type { SluiceError } from '../errors.ts';
import { sqlstateOf } from '../postgres/faults.ts';
import { pluginMissing } from '../slot/source.ts';

const PROBE_WAIT_MS = 2_000;

/** The fault; null: it is there, or something else is in the way, which other checks tell (rights, room, wal_level). */
export async function probePlugin(client: Client): Promise<SluiceError | null> {
  await client.query(`SET statement_timeout = ${PROBE_WAIT_MS}`);
  try {
    await client.query(
      `SELECT pg_create_logical_replication_slot('sluice_doctor_' || pg_backend_pid(), 'wal2json', true)`,
    );
    await client.query(`SELECT pg_drop_replication_slot('sluice_doctor_' || pg_backend_pid())`);
    return null;
  } catch (error) {
    return sqlstateOf(error) === '58P01' ? await pluginMissing(client, error) : null;
  } finally {
    await client.query('RESET statement_timeout');
  }
}
