/**
 * The statements of the reader by calls (peek-reader.ts), as text: a look at where the log ends, the call itself, and the slot's advance. Pure.
 *
 * They run on an ordinary connection, as a role with REPLICATION. https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
 */
import { formatLsn, type Lsn, lsnOf } from '../lsn.ts';
import { WAL_SIZES_SQL } from '../postgres/log-position.ts';
import { SLOT_ADVANCE_SINCE } from '../postgres/versions.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';
import type { PluginOptions } from './plugin-options.ts';

/** Largest value of the function's argument. */
const MESSAGES_MAX = 2_147_483_647;
/** Before every record: a call with it reads one record, and shows whether the slot can be read with these options. */
const NOWHERE = lsnOf(1n);

/** Of slot $1, before anything is read of it. */
export const OPEN_SQL = `
  SELECT current_setting('server_version_num')::int4 AS version,
         ${WAL_SIZES_SQL},
         (SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1)::text AS confirmed_lsn`;

/** The first is where a record ends, or behind the header of the page after it; the last, where slot $1 stands. */
export const END_SQL = `
  SELECT pg_current_wal_insert_lsn()::text AS insert_lsn, pg_current_wal_flush_lsn()::text AS flush_lsn,
         (SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1)::text AS confirmed_lsn`;

/**
 * The messages of the slot as binary COPY, one column: up to the first record that ends at or past `upto`, or the first commit with which there are
 * `messages_max`. The server has decoded all of them, and let go of the slot, before it sends the first.
 */
export function peekSql(slot: string, upto: Lsn, messages_max: number, asked: PluginOptions): string {
  return `COPY (SELECT data FROM ${messagesSql(slot, upto, messages_max, asked)}) TO STDOUT (FORMAT binary)`;
}

/** Throws where the slot cannot be read, or not with these options. */
export function trySql(slot: string, asked: PluginOptions): string {
  return `SELECT count(*) FROM ${messagesSql(slot, NOWHERE, 1, asked)}`;
}

function messagesSql(slot: string, upto: Lsn, messages_max: number, { options }: PluginOptions): string {
  const asked = Object.entries(options).flatMap(([name, value]) => [quoteLiteral(name), quoteLiteral(value)]);
  const facts = [quoteLiteral(slot), quoteLiteral(formatLsn(upto)), String(Math.min(messages_max, MESSAGES_MAX))];
  return `pg_logical_slot_peek_binary_changes(${[...facts, ...asked].join(', ')})`;
}

/**
 * Moves the slot to `lsn`; one that is there already, or past it, stays: moving it back is refused. Everything up to there is durable with us, so that reading it
 * and throwing it away is as good where nothing else is there (before 11).
 */
export function advanceSql(slot: string, lsn: Lsn, version: number, plugin: string, publication: string): string {
  const [name, to] = [quoteLiteral(slot), quoteLiteral(formatLsn(lsn))];
  const behind = `FROM pg_replication_slots WHERE slot_name = ${name} AND confirmed_flush_lsn < ${to}::pg_lsn`;
  if (version >= SLOT_ADVANCE_SINCE) return `SELECT pg_replication_slot_advance(slot_name, ${to}) ${behind}`;
  const options =
    plugin === 'wal2json'
      ? ''
      : `, 'proto_version', '1', 'publication_names', ${quoteLiteral(quoteIdentifier(publication))}`;
  return `SELECT (SELECT count(*) FROM pg_logical_slot_get_binary_changes(slot_name, ${to}, NULL${options})) ${behind}`;
}

/** Ends what the backend $1 is doing. */
export const CANCEL_SQL = 'SELECT pg_cancel_backend($1)';
