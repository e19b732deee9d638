/**
 * Reading from a physical replica of the source (`source.use_secondary`), without ever reading too early (I11).
 *
 * A replica shows what it has replayed. A chunk that it reads may have rows as they were before the chain captured the table, and then nobody would
 * ever bring what came between; so it is waited for until it has replayed to a position that the primary had when the epoch was planned. What its
 * snapshot is of is known from above only: a commit is visible on a replica a moment before the position past it is published, so that the chunk's
 * own position is the primary's, read after the snapshot was taken.
 * https://www.postgresql.org/docs/current/hot-standby.html, functions-admin.html (pg_last_wal_replay_lsn)
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, LSN_ZERO, type Lsn, parseLsn } from '../lsn.ts';
import type { Clock } from '../ports.ts';
import { lastRecordEnd, WAL_SIZES_SQL, type WalSizes } from '../postgres/log-position.ts';
import { type Connect, one, onSource } from '../postgres/session.ts';

/** One bell waits so long; it comes again, and each window rings for what is not staged. */
const REPLAY_WAIT_MS_MAX = 60_000;
const POLL_MS = 500;

export interface Secondary {
  /** A connection to the replica. */
  readonly connect: Connect;
  readonly clock: Clock;
  /** Left out: REPLAY_WAIT_MS_MAX. */
  readonly wait_ms_max?: number;
}

/** A server as it shows itself: the primary by where it writes, a replica by where it has replayed to. */
export interface ServerSeen {
  /** Tells two servers apart that a pooler has behind one address: pg_postmaster_start_time. */
  readonly started_at: string;
  readonly system_identifier: string;
  /** Of a replica, that of its last restartpoint: it learns of a promotion late, and never too early. */
  readonly timeline: number;
  readonly in_recovery: boolean;
  /** Null: it does not say. */
  readonly lsn: Lsn | null;
}

const SERVER_SQL = `
  SELECT pg_postmaster_start_time()::text AS started_at,
         (SELECT system_identifier FROM pg_control_system())::text AS system_identifier,
         CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
              ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 END AS timeline,
         pg_is_in_recovery() AS in_recovery,
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS lsn,
         ${WAL_SIZES_SQL}`;

/** In a transaction that has no snapshot yet, it takes one before it looks. */
export async function seeServer(client: Client): Promise<ServerSeen> {
  const { rows } = await client.query<Omit<ServerSeen, 'lsn'> & WalSizes & { lsn: string | null }>(SERVER_SQL);
  const { lsn, page_bytes, segment_bytes, ...row } = one(rows);
  return { ...row, lsn: lsn === null ? null : lastRecordEnd(parseLsn(lsn), { page_bytes, segment_bytes }) };
}

/** Why it is no replica of `primary`; null: it is one. Pure. */
export function replicaFault(replica: ServerSeen, primary: Pick<ServerSeen, 'system_identifier'>): SluiceError | null {
  const unfit = (reason: string): SluiceError => new SluiceError('REPLICA_UNFIT', { reason });
  if (replica.system_identifier !== primary.system_identifier) {
    const { system_identifier: found } = replica;
    return unfit(`it is of another cluster (${found}, and the source is ${primary.system_identifier})`);
  }
  if (!replica.in_recovery) return unfit('it is no standby: it is the primary itself, or was promoted');
  return replica.lsn === null ? unfit('it does not say up to where it has replayed (pg_last_wal_replay_lsn)') : null;
}

/**
 * Returns the replica that has replayed to `from_lsn`, on the timeline of the primary. Throws REPLICA_BEHIND where that takes too long, and
 * REPLICA_UNFIT where it is none of that primary's.
 */
export async function awaitReplay(
  client: Client,
  primary: Connect,
  from_lsn: Lsn,
  { clock, wait_ms_max = REPLAY_WAIT_MS_MAX }: Pick<Secondary, 'clock' | 'wait_ms_max'>,
): Promise<ServerSeen> {
  const source = await onSource(primary, 'tell its position', seeServer);
  const until_ms = clock.now() + wait_ms_max;
  for (;;) {
    const replica = await seeServer(client);
    const fault = replicaFault(replica, source);
    if (fault) throw fault;
    const sameTimeline = replica.timeline === source.timeline;
    if (sameTimeline && replica.lsn !== null && replica.lsn >= from_lsn) return replica;
    if (clock.now() >= until_ms) {
      throw new SluiceError('REPLICA_BEHIND', {
        replayed: formatLsn(replica.lsn ?? LSN_ZERO),
        needed: formatLsn(from_lsn),
        wait_seconds: wait_ms_max / 1000,
        ...(sameTimeline ? {} : { timeline: replica.timeline, timeline_needed: source.timeline }),
      });
    }
    await clock.sleep(POLL_MS);
  }
}

/**
 * Takes the snapshot of the transaction that `client` has begun, and returns a position of the primary that lies past every commit in it. `awaited`:
 * whom `awaitReplay` has found. `is_logged`: as ChunkRequest has it. Throws SOURCE_TRANSIENT where another server answers by now.
 */
export async function replicaSnapshot(
  client: Client,
  primary: Connect,
  awaited: ServerSeen,
  is_logged: boolean,
): Promise<Lsn> {
  const replica = await seeServer(client);
  if (replica.started_at !== awaited.started_at || !replica.in_recovery) {
    const reason = 'the replica was exchanged or promoted while it was read';
    throw new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
  }
  const source = await onSource(primary, 'tell its position', seeServer);
  const fault = replicaFault(replica, source);
  if (fault) throw fault;
  // What no log is read for may come from a standby altogether.
  if ((source.in_recovery && is_logged) || source.lsn === null) {
    throw new SluiceError('SOURCE_TRANSIENT', { reason: 'the source is no primary now', sqlstate: 'none' });
  }
  return source.lsn;
}
