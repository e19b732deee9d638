/**
 * The closed catalogue of what can go wrong: code → meaning → what is done → remedy.
 *
 * The table alone decides between retry and halt. What is not in it is `UNEXPECTED`, and that halts: a fault nobody thought of must not be
 * tried for ever, nor skipped. A message never carries a secret or a row's values; `facts` hold names, positions and numbers only.
 *
 * `retry` is transient: tried again with backoff, and by the next doorbell or window. `halt` waits for a person: a stream's error halts the
 * stream, a window's error ends the window. `recopy`: the log does not hold what is needed, and the stream is copied anew by itself. `usage`: the
 * command or the file is wrong, and nothing was done; exit code 2.
 */
export type Disposition = 'retry' | 'halt' | 'recopy' | 'usage';

export type Facts = Readonly<Record<string, string | number | boolean | null | undefined>>;

interface Entry {
  readonly disposition: Disposition;
  /** One sentence: what happened. */
  readonly meaning: (facts: Facts) => string;
  /** One or two sentences: what to do, with the SQL or setting where there is one. */
  readonly remedy: (facts: Facts) => string;
}

export const CATALOGUE = {
  // Usage and configuration
  USAGE: {
    disposition: 'usage',
    meaning: (f) => `${f.problem}`,
    remedy: (f) => `${f.remedy ?? 'See `sluice --help`.'}`,
  },
  CONFIG_INVALID: {
    disposition: 'usage',
    meaning: (f) => `The pipeline file is not valid: ${f.problem}`,
    remedy: (f) => `${f.remedy ?? 'Correct the lines named and run the command again.'}`,
  },
  STATE_IN_USE: {
    disposition: 'halt',
    meaning: (f) => `Another sluice (process ${f.pid}) holds the state in ${f.directory}.`,
    remedy: () => 'Wait until it ends, or stop it; or give this run a state of its own with --state DIR.',
  },
  // This machine
  LOCAL_POSTGRES_MISSING: {
    disposition: 'halt',
    meaning: (f) => `There is no embedded PostgreSQL for this machine (${f.platform}): ${f.reason}`,
    remedy: () =>
      'Install with optional dependencies (`npm ci` without --omit=optional), or name databases of your own in the pipeline file.',
  },
  LOCAL_POSTGRES_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The embedded PostgreSQL in ${f.directory} did not ${f.action}: ${f.reason}`,
    remedy: (f) => `Look into ${f.directory}/server.log. If it is only a trial, remove ${f.directory} and start again.`,
  },
  LOCAL_ENGINE_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The local engine could not ${f.action}: ${f.reason}`,
    remedy: (f) => `${f.remedy ?? 'Run the command again: it goes on from its state directory.'}`,
  },
  NOT_CAUGHT_UP: {
    disposition: 'retry',
    meaning: (f) => `${f.streams} had not applied ${f.lsn} after ${f.windows} windows without progress.`,
    remedy: () => 'Look at what was said before and at `sluice status`; run it again: it goes on from its state.',
  },
  // Connections
  CONNECTION_FAILED: {
    disposition: 'retry',
    meaning: (f) => `The ${f.side} at ${f.host}:${f.port} cannot be reached: ${f.reason}`,
    remedy: (f) => `Check host, port and network of the ${f.side}, and that PostgreSQL runs and listens there.`,
  },
  AUTHENTICATION_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} at ${f.host}:${f.port} refuses user ${f.user}: ${f.reason}`,
    remedy: (f) => `Check user and password of the ${f.side} in the pipeline file, and the server's pg_hba.conf.`,
  },
  DATABASE_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} has no database ${f.database}.`,
    remedy: (f) => `Correct ${f.side}.database in the pipeline file, or create the database.`,
  },
  TLS_FAILED: {
    disposition: 'halt',
    meaning: (f) => `TLS with the ${f.side} at ${f.host}:${f.port} failed: ${f.reason}`,
    remedy: (f) => `Check ${f.side}.ssl: its mode, ca and server_name, and that the server has ssl = on.`,
  },
  SECRET_UNREADABLE: {
    disposition: 'halt',
    meaning: (f) => `The secret for ${f.path} cannot be read: ${f.reason}`,
    remedy: (f) => `Set what ${f.path} names (an environment variable, or a secret that this role may read).`,
  },
  // The source's ground
  SOURCE_IS_STANDBY: {
    disposition: 'halt',
    meaning: (f) => `The source at ${f.host}:${f.port} is a standby.`,
    remedy: () => 'LOG_BASED reads the primary: point source.host at it.',
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
    remedy: (f) => `Run ALTER ROLE ${f.user_sql} REPLICATION (on RDS: GRANT rds_replication TO ${f.user_sql}).`,
  },
  SLOT_MISSING: {
    disposition: 'halt',
    meaning: (f) =>
      f.known
        ? `The replication slot ${f.slot} is gone, and changes since ${f.lsn} with it.`
        : `There is no replication slot ${f.slot}.`,
    remedy: (f) =>
      f.known
        ? 'Whoever dropped it, or a failover, lost the position. Synchronise anew: `sluice backfill --reset` for every stream.'
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
    remedy: () =>
      'Drop the slot, raise max_slot_wal_keep_size or run windows more often, and synchronise anew with `sluice backfill --reset`.',
  },
  SLOT_ADVANCED: {
    disposition: 'halt',
    meaning: (f) =>
      `Slot ${f.slot} stands at ${f.confirmed}, past the ledger's end at ${f.ledger}: somebody else has read it, or it was made anew.`,
    remedy: () =>
      'Changes in between are lost to this pipeline. Let nothing else read the slot, and synchronise anew with `sluice backfill --reset`.',
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
    meaning: (f) => `The source is another cluster than last time (${f.what}: ${f.found} instead of ${f.expected}).`,
    remedy: () =>
      'If it was restored or replaced, its positions mean nothing here: start with a new state, or synchronise anew with `sluice backfill --reset`.',
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
  PUBLICATION_LATE: {
    disposition: 'halt',
    meaning: (f) => `Slot ${f.slot} stands before publication ${f.publication} was made, and cannot decode from there.`,
    remedy: () => 'Drop the slot so that it is made again after the publication, and synchronise anew.',
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
    remedy: (f) => `${f.instead ?? 'LOG_BASED follows ordinary, logged tables.'} Drop it from tables.`,
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
      `Give it one: ALTER TABLE ${f.table_sql} ADD PRIMARY KEY (...); or drop it from tables; or set target.primary_key_required: false to follow it without one.`,
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
  // Reading the log
  DECODE_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The log cannot be decoded at byte ${f.offset} of a ${f.message} message: ${f.reason}`,
    remedy: () =>
      'This is a fault of Sluice or of a server it does not know. Nothing was confirmed; please report it with this text.',
  },
  SLOT_STREAM_FAILED: {
    disposition: 'retry',
    meaning: (f) => `The replication connection ended: ${f.reason}`,
    remedy: () =>
      'The next window goes on from the ledger. If it happens again and again, look into the log of the source.',
  },
  WINDOW_LOST: {
    disposition: 'retry',
    meaning: (f) => `Another window has extended the ledger past cut ${f.cut}.`,
    remedy: () => 'Nothing to do: this window stops, and what it staged in vain expires.',
  },
  // Ledger and stage
  LEDGER_GAP: {
    disposition: 'halt',
    meaning: (f) => `The ledger has no cut ${f.expected} after the applied cut ${f.applied}.`,
    remedy: (f) =>
      `The staged changes have expired or were removed. Synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  LEDGER_INCARNATION: {
    disposition: 'halt',
    meaning: (f) => `The target's rows for ${f.stream} come from another ledger (${f.found} instead of ${f.expected}).`,
    remedy: (f) =>
      `The state was made anew, or the target restored. Synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  STAGE_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The staged object ${f.object} does not exist.`,
    remedy: (f) => `It has expired or was removed. Synchronise anew: sluice backfill ${f.stream ?? 'TABLE'} --reset`,
  },
  STAGE_CORRUPT: {
    disposition: 'halt',
    meaning: (f) => `The staged object ${f.object} is damaged: ${f.reason}`,
    remedy: (f) => `Synchronise anew: sluice backfill ${f.stream ?? 'TABLE'} --reset`,
  },
  AWS_TRANSIENT: {
    disposition: 'retry',
    meaning: (f) => `${f.service} did not do ${f.operation}: ${f.reason}`,
    remedy: () => 'It is tried again. If it lasts, look at the service health and at throttling.',
  },
  AWS_DENIED: {
    disposition: 'halt',
    meaning: (f) => `${f.service} denies ${f.operation}: ${f.reason}`,
    remedy: () => 'The role lacks a right, or the resource is gone: deploy the stack again.',
  },
  AWS_MISSING: {
    disposition: 'halt',
    meaning: (f) => `${f.service} has no ${f.resource} (${f.operation}).`,
    remedy: () => 'It was deleted, or the function has an old name for it: deploy the stack again.',
  },
  LEDGER_DAMAGED: {
    disposition: 'halt',
    meaning: (f) => `The ledger's item ${f.item} is not as Sluice writes it: ${f.reason}`,
    remedy: () =>
      'Something else has written to the table, or a newer Sluice has: restore the table to a point in time before, or synchronise anew.',
  },
  LEDGER_ITEM_TOO_LARGE: {
    disposition: 'halt',
    meaning: (f) => `The ledger's item ${f.item} would have ${f.bytes} bytes; DynamoDB takes ${f.bytes_max}.`,
    remedy: () => 'Follow fewer tables in one pipeline: divide tables among several pipelines.',
  },
  STAGE_FULL: {
    disposition: 'halt',
    meaning: (f) => `The staged object ${f.object} would have more than ${f.bytes_max} bytes.`,
    remedy: () =>
      'One transaction of the source is larger than an object of the stage can be: synchronise anew with `sluice backfill --reset`.',
  },
  BELL_INVALID: {
    disposition: 'halt',
    meaning: (f) => `A message of the ${f.queue} queue is not a doorbell of pipeline ${f.pipeline}: ${f.reason}`,
    remedy: () => 'Nothing is lost by it: the next window rings again. Find out what else sends to the queue.',
  },
  // Loading
  TARGET_READ_ONLY: {
    disposition: 'halt',
    meaning: (f) => `The target at ${f.host}:${f.port} is read-only (${f.reason}).`,
    remedy: () => 'Point target.host at the primary, or turn default_transaction_read_only off for the role.',
  },
  TARGET_NOT_ALLOWED: {
    disposition: 'halt',
    meaning: (f) => `The target role ${f.user} lacks a right: ${f.reason}`,
    remedy: (f) => (f.sql ? `Run: ${f.sql}` : 'Grant CREATE on the database, or on the schemas, to the role.'),
  },
  TARGET_TABLE_TAKEN: {
    disposition: 'halt',
    meaning: (f) => `The target table ${f.table} is not this stream's: ${f.reason}`,
    remedy: () => 'Give the stream another target_schema or target_table, or move that table out of the way.',
  },
  TYPE_TAKEN: {
    disposition: 'halt',
    meaning: (f) => `Type ${f.type} of ${f.stream} cannot be made on the target: ${f.reason}.`,
    remedy: (f) =>
      `Rename or drop that type on the target; or set target.custom_types: text and synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  TYPE_UNFOLLOWED: {
    disposition: 'halt',
    meaning: (f) => `Type ${f.type} of ${f.stream} has changed in a way that cannot be followed: ${f.change}.`,
    remedy: (f) => `Do the same on the target, whichever it was (${f.sql}); then: sluice resume ${f.stream}`,
  },
  TARGET_REJECTS: {
    disposition: 'halt',
    meaning: (f) =>
      `The target refuses rows of ${f.stream}${f.cut === undefined ? '' : ` in cut ${f.cut}`}: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: (f) => `Mend the cause on the target, then: sluice resume ${f.stream}`,
  },
  TARGET_TABLE_MOVED: {
    disposition: 'halt',
    meaning: (f) => `${f.stream} was loaded into ${f.found} and is now meant for ${f.expected}.`,
    remedy: (f) => `Set its target_schema and target_table back, or load it anew: sluice backfill ${f.stream} --reset`,
  },
  TARGET_ROW_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The target has no record of ${f.stream} in _sluice.streams, though it was loaded before.`,
    remedy: (f) => `The target was restored or replaced. Synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  TARGET_DEPENDENTS: {
    disposition: 'halt',
    meaning: (f) =>
      `The target table ${f.table} cannot be replaced: other objects depend on its old form (SQLSTATE ${f.sqlstate}).`,
    remedy: (f) =>
      `Drop the views or foreign keys that use ${f.table}, run: sluice resume ${f.stream}, and make them again.`,
  },
  METADATA_COLUMN_TAKEN: {
    disposition: 'halt',
    meaning: (f) => `${f.stream} has a column ${f.column} of its own, which is the name of a metadata column.`,
    remedy: () => 'Rename the column on the source, or turn add_metadata_columns and hard_delete off.',
  },
  TRUNCATE_HALTED: {
    disposition: 'halt',
    meaning: (f) => `${f.stream} was truncated on the source, and target.on_truncate is halt.`,
    remedy: (f) =>
      `Set target.on_truncate to apply or ignore, then: sluice resume ${f.stream}; or synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  ROWS_UNKNOWN: {
    disposition: 'halt',
    meaning: (f) =>
      `${f.rows} rows of ${f.stream} ${f.what ?? 'changed their key while the table was copied, and the log does not hold all of their values'}.`,
    remedy: (f) =>
      `Synchronise anew${f.what ? '' : ', best while no keys change'}: sluice backfill ${f.stream} --reset`,
  },
  EPOCH_INCOMPLETE: {
    disposition: 'retry',
    meaning: (f) => `Epoch ${f.epoch} of ${f.stream} has ${f.loaded} of its ${f.chunks} chunks on the target.`,
    remedy: () => 'Nothing to do: the rest is loaded first.',
  },
  TARGET_TRANSIENT: {
    disposition: 'retry',
    meaning: (f) => `The target could not take ${f.stream} now: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: () => 'It is tried again. If it lasts, look for locks, full disks and connection limits on the target.',
  },
  SOURCE_TRANSIENT: {
    disposition: 'retry',
    meaning: (f) => `The source could not answer now: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: () => 'It is tried again. If it lasts, look into the log of the source.',
  },
  SOURCE_REFUSES: {
    disposition: 'halt',
    meaning: (f) => `The source refuses to ${f.action}: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: () => 'Mend the cause on the source and run it again.',
  },
  SHAPE_CHANGED: {
    disposition: 'halt',
    meaning: (f) => `${f.stream} has changed in a way that cannot be followed: ${f.change}`,
    remedy: (f) => `Synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  TABLE_REWRITTEN: {
    disposition: 'recopy',
    meaning: (f) => `${f.stream} has changed in a way that the log does not hold: ${f.what}`,
    remedy: () =>
      'Nothing to do: the next window begins to copy the table anew, and the target keeps its rows until then.',
  },
  UNEXPECTED: {
    disposition: 'halt',
    meaning: (f) => `Unexpected: ${f.reason}`,
    remedy: () => 'This is a fault of Sluice. Please report it with this text and the run report.',
  },
} as const satisfies Record<string, Entry>;
