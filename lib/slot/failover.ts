/**
 * Slots that are kept on standbys as well (source.failover): what the server must be for them, and how a slot that is there becomes one, or ceases to be.
 *
 * https://www.postgresql.org/docs/current/logicaldecoding-explanation.html#LOGICALDECODING-REPLICATION-SLOTS-SYNCHRONIZATION
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { versionText } from '../postgres/session.ts';
import { quoteIdentifier } from '../sql-text.ts';

const FAILOVER_SINCE = 170_000;

/** What stands in the way of a slot with `failover`; null: nothing. */
export function failoverFault(version: number, failover: boolean | null | undefined): SluiceError | null {
  if (!failover || version >= FAILOVER_SINCE) return null;
  const facts = { side: 'source', version: versionText(version), minimum: versionText(FAILOVER_SINCE) };
  return new SluiceError('VERSION_UNSUPPORTED', { ...facts, reason: 'source.failover' });
}

/**
 * On a walsender's connection: no function of SQL does it
 * (https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-ALTER-REPLICATION-SLOT). Nobody may be reading the slot.
 */
export async function setFailover(walsender: Client, slot: string, failover: boolean): Promise<void> {
  await walsender.query(`ALTER_REPLICATION_SLOT ${quoteIdentifier(slot)} (FAILOVER ${failover})`);
}
