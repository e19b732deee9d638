/**
 * Where a primary writes its log, as a position that its readers come to.
 *
 * A primary that has just filled a page says that it writes behind the next one's header; a replica, a slot and a keepalive come to the page's end, and if
 * nothing is written any more, no further, for ever. No record ends in between.
 * https://www.postgresql.org/docs/current/functions-admin.html (pg_current_wal_insert_lsn), functions-info.html (pg_control_init)
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn, lsnOf, parseLsn } from '../lsn.ts';
import { one } from './session.ts';

/** SizeOfXLogShortPHD, and of a segment's first page SizeOfXLogLongPHD: access/xlog_internal.h. */
const PAGE_HEADER_BYTES = 24n;
const SEGMENT_HEADER_BYTES = 40n;

/** Of the log: both are chosen when a cluster is made. */
export interface WalSizes {
  readonly page_bytes: number;
  readonly segment_bytes: number;
}

/** The columns of `WalSizes`, for a query that has more to ask. */
export const WAL_SIZES_SQL = `(SELECT wal_block_size FROM pg_control_init()) AS page_bytes,
         (SELECT bytes_per_wal_segment FROM pg_control_init()) AS segment_bytes`;

/** The log is written to disk up to what a snapshot has seen in so much time, or the work is tried again. */
const FLUSH_WAIT_MS_MAX = 30_000;
const FLUSH_POLL_MS = 25;

/**
 * Past every commit that any snapshot taken before this call can see; in a transaction that has none yet, of the one that it takes. Throws SOURCE_IS_STANDBY where
 * the server is none that writes, perhaps since a moment ago.
 */
export async function readInsertLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<WalSizes & { lsn: string | null }>(
    `SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END::text AS lsn, ${WAL_SIZES_SQL}`,
  );
  const row = one(rows);
  if (row.lsn === null) throw new SluiceError('SOURCE_IS_STANDBY', { host: client.host, port: client.port });
  return lastRecordEnd(parseLsn(row.lsn), row);
}

/**
 * Waits until the source's log is on its disk up to `lsn`. A commit that nobody waited for (synchronous_commit = off) is seen before that, and a crash of the server takes it
 * back: what a copy had of it would then be in no log. `client` is in no transaction. Throws SOURCE_TRANSIENT where it takes too long.
 * https://www.postgresql.org/docs/current/wal-async-commit.html
 */
export async function awaitFlushed(client: Client, lsn: Lsn): Promise<void> {
  const until_ms = Date.now() + FLUSH_WAIT_MS_MAX;
  for (let looks = 0; ; looks++) {
    const { rows } = await client.query<{ flushed: boolean }>(
      'SELECT CASE WHEN pg_is_in_recovery() THEN true ELSE pg_current_wal_flush_lsn() >= $1::pg_lsn END AS flushed',
      [formatLsn(lsn)],
    );
    if (one(rows).flushed) return;
    if (Date.now() >= until_ms) {
      const reason = `its log was not on its disk up to ${formatLsn(lsn)} after ${FLUSH_WAIT_MS_MAX / 1000} seconds`;
      throw new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
    }
    // The log writer of an idle server rests, until a transaction ends: this one has a number, and writes nothing else.
    if (looks === 0) await client.query('SELECT txid_current()');
    await sleep(FLUSH_POLL_MS);
  }
}

/** Where the last record before `insert_lsn` may have ended. Pure. */
export function lastRecordEnd(insert_lsn: Lsn, { page_bytes, segment_bytes }: WalSizes): Lsn {
  if (insert_lsn % BigInt(segment_bytes) === SEGMENT_HEADER_BYTES) return lsnOf(insert_lsn - SEGMENT_HEADER_BYTES);
  const isHeader = insert_lsn % BigInt(page_bytes) === PAGE_HEADER_BYTES;
  return isHeader ? lsnOf(insert_lsn - PAGE_HEADER_BYTES) : insert_lsn;
}
