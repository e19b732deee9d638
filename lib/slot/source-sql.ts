/**
 * The queries that a window asks the source before and while it reads (port Source), as text. They run as a role that has LOGIN, REPLICATION and
 * SELECT on its tables, and nothing else: no function here is a superuser's.
 *
 * Columns that only later versions have are read through to_jsonb(row), which gives null where there is none: one text for all versions.
 */

/**
 * Ground, with slot $1. The timeline is read from the name of the WAL file that is written now: pg_control_checkpoint() keeps
 * the old one after a promotion, until the next checkpoint. https://www.postgresql.org/docs/current/functions-info.html
 */
export const GROUND_SQL = `
  SELECT current_setting('server_version_num')::int4 AS version,
         (SELECT system_identifier FROM pg_control_system())::text AS system_identifier,
         CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
              ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int4 END AS timeline,
         pg_is_in_recovery() AS in_recovery,
         current_setting('wal_level') AS wal_level,
         getdatabaseencoding() AS encoding,
         current_user AS user,
         (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)
           OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'MEMBER')) AS may_replicate,
         COALESCE(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, '0/0')::text
           AS flush_lsn,
         (SELECT json_build_object(
             'plugin', COALESCE(s.plugin, s.slot_type),
             'database', COALESCE(s.database, ''),
             'active_pid', s.active_pid,
             'active_application', a.application_name,
             'active_client', host(a.client_addr),
             'confirmed_lsn', COALESCE(s.confirmed_flush_lsn, s.restart_lsn, '0/0')::text,
             'wal_status', to_jsonb(s)->>'wal_status',
             'safe_wal_bytes', to_jsonb(s)->'safe_wal_size',
             'wal_limit_bytes', (SELECT NULLIF(setting::float8, -1) * 1024 * 1024 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
             'kept_wal_bytes', CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - s.restart_lsn)::float8 END,
             'invalidation_reason', to_jsonb(s)->>'invalidation_reason',
             'failover', to_jsonb(s)->'failover')
            FROM pg_replication_slots s
            LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
           WHERE s.slot_name = $1) AS slot`;

/**
 * The transactions that may have written to one of the tables $1 (oids) and have not ended (I11).
 *
 * pgoutput judges each change by the publication as it was when the change was written. A transaction that wrote before the table was published,
 * and commits after, is not in the log, and not in a snapshot taken before it commits: a copy must not begin until it has ended. Whoever has
 * written to a table holds its lock (ROW EXCLUSIVE at least) until the transaction ends, also when it is prepared; so whoever is not found here
 * has written nothing that the log does not have. CREATE INDEX CONCURRENTLY waits for old lockers for the same reason.
 *
 * A transaction is named by its oldest xid, which outlives PREPARE and a restart of the server, unlike a virtual transaction id. A holder
 * without an xid has written nothing yet, and what it writes from now on is in the log.
 */
export const WRITERS_SQL = `
  WITH locks AS (
    SELECT * FROM pg_locks WHERE granted
  ), writing AS (
    SELECT l.virtualtransaction, l.pid, json_agg(DISTINCT l.relation::int8) AS tables
      FROM locks l
     WHERE l.locktype = 'relation'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.relation = ANY ($1::oid[])
       AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND l.pid IS DISTINCT FROM pg_backend_pid()
     GROUP BY l.virtualtransaction, l.pid
  )
  SELECT DISTINCT ON (x.virtualtransaction, x.pid) x.transactionid::text AS transaction, x.pid, l.tables
    FROM writing l
    JOIN locks x ON x.virtualtransaction = l.virtualtransaction AND x.pid IS NOT DISTINCT FROM l.pid
   WHERE x.locktype = 'transactionid'
     AND x.mode = 'ExclusiveLock'
   ORDER BY x.virtualtransaction, x.pid, age(x.transactionid) DESC`;

/** The oldest open transactions of the cluster that have an xid: those that the making of a slot waits for. At most $1. */
export const OPEN_TRANSACTIONS_SQL = `
  SELECT l.pid, p.gid
    FROM pg_locks l
    LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = l.transactionid
   WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
   GROUP BY l.pid, p.gid
   ORDER BY max(age(l.transactionid)) DESC
   LIMIT $1`;

/** Drops the slot $1 if it is lost. Judged by the server in the same statement: what works again is never dropped. */
export const DROP_LOST_SLOT_SQL = `
  SELECT pg_drop_replication_slot(s.slot_name)
    FROM pg_replication_slots s
   WHERE s.slot_name = $1 AND (to_jsonb(s)->>'wal_status' = 'lost' OR to_jsonb(s)->>'invalidation_reason' IS NOT NULL)`;
