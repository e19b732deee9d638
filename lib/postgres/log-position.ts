/**
 * Where a primary writes its log, as a position that its readers come to.
 *
 * A primary that has just filled a page says that it writes behind the next one's header; a replica, a slot and a keepalive come to the page's end, and if
 * nothing is written any more, no further, for ever. No record ends in between.
 * https://www.postgresql.org/docs/current/functions-admin.html (pg_current_wal_insert_lsn), functions-info.html (pg_control_init)
 */
import type { Client } from 'pg';
import { type Lsn, lsnOf, parseLsn } from '../lsn.ts';
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

/** Past every commit that any snapshot taken before this call can see; in a transaction that has none yet, of the one that it takes. */
export async function readInsertLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<WalSizes & { lsn: string }>(
    `SELECT pg_current_wal_insert_lsn()::text AS lsn, ${WAL_SIZES_SQL}`,
  );
  const row = one(rows);
  return lastRecordEnd(parseLsn(row.lsn), row);
}

/** Where the last record before `insert_lsn` may have ended. Pure. */
export function lastRecordEnd(insert_lsn: Lsn, { page_bytes, segment_bytes }: WalSizes): Lsn {
  if (insert_lsn % BigInt(segment_bytes) === SEGMENT_HEADER_BYTES) return lsnOf(insert_lsn - SEGMENT_HEADER_BYTES);
  const isHeader = insert_lsn % BigInt(page_bytes) === PAGE_HEADER_BYTES;
  return isHeader ? lsnOf(insert_lsn - PAGE_HEADER_BYTES) : insert_lsn;
}
