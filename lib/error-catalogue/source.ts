/**
 * Faults of the source: its ground, what is selected of it, and its log.
 */
import type { Entry } from './entry.ts';
import { remedyIfItLasts } from './lasting.ts';

/** Where the position in the log is gone, for every stream at once. */
const RESYNC =
  'Run `sluice resume --resync -c FILE`: a new slot is made, and of each table only what differs is copied.';

export const SOURCE_ERRORS = {
  // Its ground
  SOURCE_IS_STANDBY: {
    disposition: 'halt',
    meaning: (f) => `The source at ${f.host}:${f.port} is a standby.`,
    remedy: () => 'LOG_BASED reads the primary: point source.host at it.',
  },
  SOURCE_READ_ONLY: {
    disposition: 'halt',
    meaning: (f) => `The source takes no changes, so it cannot ${f.action}: ${f.reason}`,
    remedy: () =>
      'What is captured already is followed all the same. Turn default_transaction_read_only off for the role or the server (managed servers turn it on when their disk is full), or have an owner make the publication.',
  },
  WAL_LEVEL: {
    disposition: 'halt',
    meaning: (f) => `The source has wal_level = ${f.wal_level}; logical decoding needs logical.`,
    remedy: () =>
      "Run ALTER SYSTEM SET wal_level = 'logical' and restart the server (on RDS: rds.logical_replication = 1 in its parameter group, and reboot).",
  },
  REPLICATION_NOT_ALLOWED: {
    disposition: 'halt',
    meaning: (f) => `The role ${f.user} may not replicate from the source.`,
    remedy: (f) =>
      `${f.remedy ?? `Run ALTER ROLE ${f.user_sql} REPLICATION (on RDS: GRANT rds_replication TO ${f.user_sql}).`}`,
  },
  SLOT_MISSING: {
    disposition: 'halt',
    meaning: (f) =>
      f.known
        ? `The replication slot ${f.slot} is gone, and changes since ${f.lsn} with it.`
        : `There is no replication slot ${f.slot}.`,
    remedy: (f) =>
      f.known
        ? `Whoever dropped it, or a failover, lost the position. ${RESYNC} If source.replication_slot or source.host was changed by mistake, change it back: then everything goes on.`
        : `Create it: SELECT pg_create_logical_replication_slot('${f.slot}', '${f.plugin ?? 'pgoutput'}'); or set source.create_slot: true.`,
  },
  SLOT_FOREIGN: {
    disposition: 'halt',
    meaning: (f) => `The replication slot ${f.slot} exists, and this pipeline's ledger has never used it.`,
    remedy: (f) =>
      `If another pipeline uses it, set source.replication_slot to another name. If it is left over: SELECT pg_drop_replication_slot('${f.slot}'). To take it over as it is: source.create_slot: false.`,
  },
  SLOT_PLUGIN: {
    disposition: 'halt',
    meaning: (f) => `The replication slot ${f.slot} decodes with ${f.found}, not ${f.expected}.`,
    remedy: () => 'Choose another source.replication_slot, or drop this one if nothing uses it.',
  },
  PLUGIN_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The output plugin ${f.plugin} is not installed on the source: ${f.reason}`,
    remedy: (f) =>
      `Install it on the source's server (Debian and Ubuntu: postgresql-${f.major}-${f.plugin}; PGDG on RHEL: ${f.plugin}_${f.major}), or set source.plugin: pgoutput.`,
  },
  NUMBER_UNKNOWN: {
    disposition: 'halt',
    meaning: (f) =>
      `Column ${f.column} of ${f.stream} got a value that this version of wal2json does not tell from others (not a number, or an infinity), and ${f.has_key ? 'it is part of the key' : 'without a key the row cannot be looked up'}.`,
    remedy: (f) =>
      `Use source.plugin: pgoutput (with another source.replication_slot), or wal2json 2.6 or newer, which tells them apart. Then synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  SLOT_DATABASE: {
    disposition: 'halt',
    meaning: (f) => `The replication slot ${f.slot} belongs to database ${f.found}, not ${f.expected}.`,
    remedy: () => 'Slot names are unique in a cluster: choose another source.replication_slot.',
  },
  SLOT_LOST: {
    disposition: 'halt',
    meaning: (f) => `The source has removed WAL that slot ${f.slot} still needed (${f.reason}).`,
    remedy: (f) =>
      f.sql === undefined
        ? `Raise max_slot_wal_keep_size (or idle_replication_slot_timeout) or run windows more often. ${RESYNC}`
        : `source.create_slot is false, so make it anew yourself: ${f.sql} The next window goes on by itself.`,
  },
  SLOT_ADVANCED: {
    disposition: 'halt',
    meaning: (f) =>
      `Slot ${f.slot} stands at ${f.confirmed}, past the ledger's end at ${f.ledger}: somebody else has read it, or it was made anew.`,
    remedy: () => `Changes in between are lost to this pipeline. Let nothing else read the slot. ${RESYNC}`,
  },
  SLOT_ACTIVE: {
    disposition: 'retry',
    meaning: (f) =>
      `Slot ${f.slot} is in use by process ${f.pid} of ${f.application_name || 'an unnamed client'} (${f.client || 'local'}).`,
    remedy: (f) => `Stop that reader; or end it on the source: SELECT pg_terminate_backend(${f.pid}).`,
  },
  SLOTS_EXHAUSTED: {
    disposition: 'halt',
    meaning: () => 'The source has no free replication slot or WAL sender.',
    remedy: () =>
      'Raise max_replication_slots and max_wal_senders on the source, or drop slots that nothing uses (pg_replication_slots).',
  },
  SLOT_BLOCKED: {
    disposition: 'retry',
    meaning: (f) =>
      `Replication slot ${f.slot} could not be made in ${f.wait_seconds} seconds: PostgreSQL waits for transactions that were open before (${f.blockers}).`,
    remedy: () =>
      'Let them end, or end them (SELECT pg_terminate_backend(pid); ROLLBACK PREPARED for a prepared one); the next window tries again.',
  },
  CLUSTER_CHANGED: {
    disposition: 'halt',
    meaning: (f) =>
      `The source is another cluster than last time (${f.what}: ${f.found} instead of ${f.expected}${f.reason === undefined ? '' : `; ${f.reason}`}).`,
    remedy: () =>
      `If it was restored, promoted or replaced, its positions mean nothing here. ${RESYNC} If source.host was changed by mistake, change it back: then everything goes on.`,
  },
  CLUSTER_BEHIND: {
    disposition: 'halt',
    meaning: (f) =>
      `The source's log ended before ${f.expected}, up to where it has been read: it was restored from a backup, or promoted without what had been read.`,
    remedy: () => `The target may have rows that the source has lost. ${RESYNC}`,
  },
  REPLICA_BEHIND: {
    disposition: 'retry',
    meaning: (f) =>
      `The replica has replayed up to ${f.replayed}${f.timeline === undefined ? '' : ` of timeline ${f.timeline}`}, and is not at ${f.needed}${f.timeline_needed === undefined ? '' : ` of timeline ${f.timeline_needed}`} after ${f.wait_seconds} seconds.`,
    remedy: () =>
      'It is waited for again, and nothing is copied until then. If it lasts: let it catch up (pg_stat_replication on the primary, recovery_min_apply_delay on the replica), or set source.use_secondary: false.',
  },
  REPLICA_UNFIT: {
    disposition: 'halt',
    meaning: (f) => `source.secondary_host is no replica to read from: ${f.reason}.`,
    remedy: () =>
      'Point source.secondary_host at a physical replica of source.host, or set source.use_secondary: false.',
  },
  PUBLICATION_NOT_ALLOWED: {
    disposition: 'halt',
    meaning: (f) => `The role ${f.user} may not make or change publication ${f.publication}: ${f.reason}`,
    remedy: (f) => `Have an owner of the tables run: ${f.sql}`,
  },
  PUBLICATION_INCOMPLETE: {
    disposition: 'halt',
    meaning: (f) => `Publication ${f.publication} leaves out ${f.what}.`,
    remedy: (f) => `Have its owner run: ${f.sql}; or name another source.publication_name.`,
  },
  ROW_FILTER: {
    disposition: 'halt',
    meaning: (f) => `The row filter (where) of ${f.table} cannot be followed: ${f.reason}`,
    remedy: (f) =>
      f.sql === undefined
        ? 'Change or remove where; or read the table by query (replication_method: INCREMENTAL or FULL_TABLE), which takes any condition.'
        : `Run: ${f.sql}; or filter by columns of the key only, or read the table by query (replication_method: INCREMENTAL or FULL_TABLE).`,
  },
  COLUMN_EXPOSED: {
    disposition: 'halt',
    meaning: (f) =>
      `A column of ${f.table} that the pipeline file hides (columns, mask) is called ${f.column} by now, of which the file says nothing: its values would be replicated as they are.`,
    remedy: (f) =>
      `Hide ${f.column} in the file as well, or change the entry so that its values may be seen. The table is copied anew then, by itself.`,
  },
  PUBLICATION_LATE: {
    disposition: 'halt',
    meaning: (f) => `Slot ${f.slot} stands before publication ${f.publication} was made, and cannot decode from there.`,
    remedy: () => `Drop the slot, so that it is made again after the publication. ${RESYNC}`,
  },
  LOG_ROW_TOO_LARGE: {
    disposition: 'halt',
    meaning: (f) =>
      `The source cannot print a row of its log for slot ${f.slot}: its text is more than the gigabyte that PostgreSQL has room for. No reader gets past it.`,
    remedy: () =>
      `Make the value smaller (a bytea's text is twice as long), or leave its table out, and drop the slot, so that what comes after it is read. ${RESYNC}`,
  },
  NOTHING_SELECTED: {
    disposition: 'halt',
    meaning: (f) =>
      f.skipped
        ? `No table that matches ${f.pattern} can be followed: ${f.skipped}`
        : `No table of the source matches ${f.pattern}.`,
    remedy: () =>
      'Check the name (case counts, and the role needs USAGE on the schema), or drop the entry from tables.',
  },
  TABLE_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The source has no table ${f.table}.`,
    remedy: (f) =>
      f.nearest
        ? `Did you mean ${f.nearest}? Names are written as the catalog spells them.`
        : 'Check its schema, name and case in tables, and that the role has USAGE on its schema.',
  },
  TABLE_RENAMED: {
    disposition: 'halt',
    meaning: (f) => `${f.table} is called ${f.now} now: its changes are no longer those of ${f.table}.`,
    remedy: (f) =>
      `Name ${f.now} in tables to follow it as a stream of its own; the target table of ${f.table} stays as it is. If it gets its old name back, it is copied anew by itself.`,
  },
  TABLE_DROPPED: {
    disposition: 'halt',
    meaning: (f) => `${f.table} has been dropped on the source.`,
    remedy: (f) =>
      `Its target table stays as it is: drop it if it is of no more use. If ${f.table} is made again, it is copied anew by itself; until then: sluice resume ${f.table}`,
  },
  TABLE_UNREADABLE: {
    disposition: 'halt',
    meaning: (f) => `The role ${f.user} may not read ${f.table}.`,
    remedy: (f) => `Run: ${f.sql}`,
  },
  TABLE_KIND: {
    disposition: 'halt',
    meaning: (f) => `${f.table} is ${f.kind}; its changes are not in the log.`,
    remedy: (f) => `${f.instead ?? 'LOG_BASED follows ordinary, logged tables.'} Or drop it from tables.`,
  },
  TABLE_NAME_LONG: {
    disposition: 'halt',
    meaning: (f) =>
      `${f.table}: the name ${f.name} has ${f.bytes} bytes in UTF-8, and the target would cut it to ${f.bytes_max}: two names could become one.`,
    remedy: () => 'Rename it on the source (ALTER TABLE … RENAME), or drop the table from tables.',
  },
  TABLE_WITHOUT_KEY: {
    disposition: 'halt',
    meaning: (f) => `${f.table} has no primary key and no replica identity index.`,
    remedy: (f) =>
      f.by_query
        ? 'Name the columns that identify a row: key_properties: [...]; or read it whole: replication_method: FULL_TABLE.'
        : `Give it one: ALTER TABLE ${f.table_sql} ADD PRIMARY KEY (...); or drop it from tables; or set target.primary_key_required: false to follow it without one.`,
  },
  TABLE_COLUMN_MISSING: {
    disposition: 'halt',
    meaning: (f) => `${f.table} has no column ${f.column}, which ${f.option} names.`,
    remedy: (f) => (f.nearest ? `Did you mean ${f.nearest}?` : `Its columns are ${f.columns}.`),
  },
  REPLICATION_KEY: {
    disposition: 'halt',
    meaning: (f) => `${f.table} cannot be followed by ${f.column}: ${f.reason}`,
    remedy: (f) => String(f.remedy),
  },
  VIEW_NOT_POPULATED: {
    disposition: 'retry',
    meaning: (f) => `The materialized view ${f.table} has not been populated.`,
    remedy: (f) => `Run: REFRESH MATERIALIZED VIEW ${f.table_sql};`,
  },
  TABLE_IDENTITY: {
    disposition: 'halt',
    meaning: (f) => `${f.table} cannot be published: ${f.reason}`,
    remedy: (f) => `Run: ${f.sql}; or drop the table from tables.`,
  },
  TABLE_ROW_SECURITY: {
    disposition: 'halt',
    meaning: (f) => `Row-level security hides rows of ${f.table} from ${f.user}: a copy would be incomplete.`,
    remedy: (f) => `Run ALTER ROLE ${f.user_sql} BYPASSRLS, or drop the table from tables.`,
  },
  ENCODING_UNSUPPORTED: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} database is encoded in ${f.encoding}: ${f.reason}.`,
    remedy: (f) =>
      f.side === 'target'
        ? `Make the target a database in UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.`
        : 'Move the source to a database in UTF8 (pg_dump --encoding, CREATE DATABASE … ENCODING), or use pgoutput where the encoding can be converted.',
  },
  VERSION_UNSUPPORTED: {
    disposition: 'halt',
    meaning: (f) =>
      `The ${f.side} is PostgreSQL ${f.version}; ${f.minimum} or newer is needed${f.reason === undefined ? '' : `: ${f.reason}`}.`,
    remedy: (f) => `Update the server to ${f.minimum} or newer.`,
  },
  SOURCE_TRANSIENT: {
    disposition: 'retry',
    meaning: (f) => `The source could not answer now: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: (f) => remedyIfItLasts('source', f, 'If it lasts, look into the log of the source.'),
  },
  SOURCE_REFUSES: {
    disposition: 'halt',
    meaning: (f) => `The source refuses to ${f.action}: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: () => 'Mend the cause on the source and run it again.',
  },
  // Its log
  DECODE_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The log cannot be decoded at byte ${f.offset} of a ${f.message} message: ${f.reason}`,
    remedy: () =>
      'This is a fault of Sluice or of a server it does not know. Nothing was confirmed; please report it with this text.',
  },
  TRANSACTION_CHANGED: {
    disposition: 'retry',
    meaning: (f) =>
      `The source does not send again what is staged of transaction ${f.xid} (${f.messages} changes of ${f.bytes} bytes): ${f.reason}.`,
    remedy: () =>
      'Nothing is lost: what is staged of it is given up, and the next window reads the transaction from its beginning.',
  },
  SLOT_STREAM_FAILED: {
    disposition: 'retry',
    meaning: (f) => `The reading of the slot ended: ${f.reason}`,
    remedy: (f) =>
      `The next window goes on from the ledger. ${remedyIfItLasts('source', f, 'If it happens again and again, look into the log of the source.')}`,
  },
  WINDOW_LOST: {
    disposition: 'retry',
    meaning: (f) => `Another window has extended the ledger past cut ${f.cut}.`,
    remedy: () => 'Nothing to do: this window stops, and what it staged in vain expires.',
  },
  BACKFILL_WHERE: {
    disposition: 'usage',
    meaning: (f) => `The condition of the backfill of ${f.table} is none that the source can evaluate: ${f.reason}.`,
    remedy: (f) => `Correct it; the source says whether it will do: EXPLAIN SELECT FROM ${f.table_sql} WHERE …`,
  },
} as const satisfies Record<string, Entry>;
