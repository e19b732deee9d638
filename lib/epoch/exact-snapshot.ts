/**
 * A snapshot whose place in the log is known exactly, for the copy of a table without a key: a change that the copy has must not be applied once more, and
 * none that it lacks may be left out, for nothing about its rows would tell.
 *
 * It is the one that a logical slot begins with. The slot is temporary, serves nothing else, and is gone when the snapshot has been taken over by the
 * copy's transaction. Its consistent point is the end of a record of the log; a transaction is in the snapshot if its commit record begins before that point,
 * and no other is: decoding skips by the same comparison (SnapBuildXactNeedsSkip, replication/logical/snapbuild.c).
 * https://www.postgresql.org/docs/current/protocol-replication.html (CREATE_REPLICATION_SLOT), logicaldecoding-explanation.html (Exported Snapshots)
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { type Lsn, parseLsn } from '../lsn.ts';
import type { SourceTable } from '../ports.ts';
import { closeClient } from '../postgres/connection.ts';
import { type Connect, serverVersion } from '../postgres/session.ts';
import { displayName } from '../shape.ts';
import { treeSql } from '../slot/partitions.ts';
import { createSlotFault } from '../slot/source.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';

/** Slot options in parentheses (release notes of 15). */
const OPTION_LIST_SINCE = 150_000;
/** A slot waits for every transaction that was open before it: for one of them, and for all. */
const TRANSACTION_WAIT_MS_MAX = 60_000;
const SLOT_WAIT_MS_MAX = 180_000;

export interface ExactSnapshot {
  /** For SET TRANSACTION SNAPSHOT; good until it is closed. */
  readonly name: string;
  /** A transaction is in the snapshot if its commit record begins before this position. */
  readonly lsn: Lsn;
  /** Lets the slot go. A transaction that has taken the snapshot over keeps it. */
  close(): Promise<void>;
}

export interface SnapshotWait {
  readonly transaction_ms: number;
  readonly slot_ms: number;
}

/**
 * `client` asks for the version, and what is in the way. Throws SLOTS_EXHAUSTED, SLOT_BLOCKED, REPLICATION_NOT_ALLOWED, WAL_LEVEL, and what connecting
 * throws.
 */
export async function exactSnapshot(
  client: Client,
  connectReplication: Connect,
  table: SourceTable,
  wait: SnapshotWait = { transaction_ms: TRANSACTION_WAIT_MS_MAX, slot_ms: SLOT_WAIT_MS_MAX },
): Promise<ExactSnapshot> {
  const version = await serverVersion(client);
  const walsender = await connectReplication();
  walsender.on('error', () => undefined); // What it breaks is the next query on it.
  // One backend has one such slot at a time.
  const slot = `sluice_copy_${table.oid}_${processOf(walsender)}`;
  const options = version >= OPTION_LIST_SINCE ? "(SNAPSHOT 'export')" : 'EXPORT_SNAPSHOT';
  // A wait that is none of the server's locks, or a server that is gone.
  const timer = setTimeout(() => walsender.connection.stream.destroy(), wait.slot_ms);
  try {
    await walsender.query(`SET lock_timeout = ${wait.transaction_ms}`);
    const { rows } = await walsender.query<{ consistent_point: string; snapshot_name: string | null }>(
      `CREATE_REPLICATION_SLOT ${quoteIdentifier(slot)} TEMPORARY LOGICAL pgoutput ${options}`,
    );
    const [row] = rows;
    if (row === undefined || row.snapshot_name === null) {
      throw new SluiceError('UNEXPECTED', { reason: `slot ${slot} came without a snapshot` });
    }
    return { name: row.snapshot_name, lsn: parseLsn(row.consistent_point), close: () => closeClient(walsender) };
  } catch (error) {
    await closeClient(walsender);
    throw await createSlotFault(client, slot, wait.transaction_ms, error);
  } finally {
    clearTimeout(timer);
  }
}

/** The statement that makes a transaction, which has read nothing yet, see what the snapshot sees. */
export function takeSnapshotSql({ name }: ExactSnapshot): string {
  return `SET TRANSACTION SNAPSHOT ${quoteLiteral(name)}`;
}

/**
 * Throws SOURCE_TRANSIENT where a table, locked by now, has been truncated or written anew since the snapshot: to it the table would seem empty
 * (https://www.postgresql.org/docs/current/mvcc-caveats.html). The query reads pg_class by the snapshot, the function as it is.
 */
export async function assertNotRewritten(client: Client, table: SourceTable): Promise<void> {
  const { rows } = await client.query<{ rewritten: boolean }>(
    `WITH RECURSIVE ${treeSql('$1::oid')}
     SELECT COALESCE(bool_or(c.relfilenode <> pg_relation_filenode(c.oid)), false) AS rewritten
       FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r'`,
    [table.oid],
  );
  if (rows[0]?.rewritten !== true) return;
  const reason = `${displayName(table)} was truncated or written anew as its copy began`;
  throw new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
}

/** The server's process of a connection, as `pg` was told it at its start. */
function processOf(client: Client): number {
  const { processID } = client as Client & { readonly processID?: number | null };
  return processID ?? 0;
}
