/**
 * The closed catalogue of what can go wrong: code → meaning → what is done → remedy.
 *
 * The table alone decides between retry and halt. What is not in it is `UNEXPECTED`, and that halts: a fault nobody thought of must not be
 * tried for ever, nor skipped. A message never carries a secret or a row's values; `facts` hold names, positions and numbers only.
 *
 * `disposition`
 * - `retry`: transient; tried again with backoff, and by the next doorbell or window.
 * - `halt`:  waits for a person. A stream's error halts the stream, a window's error ends the window.
 * - `usage`: the command or the configuration is wrong; nothing was done. Exit code 2.
 */
export type Disposition = 'retry' | 'halt' | 'usage';

export type Facts = Readonly<Record<string, string | number | boolean | null | undefined>>;

interface Entry {
  readonly disposition: Disposition;
  /** One sentence: what happened. */
  readonly meaning: (facts: Facts) => string;
  /** One or two sentences: what to do, with the SQL or setting where there is one. */
  readonly remedy: (facts: Facts) => string;
}

const CATALOGUE = {
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
    meaning: (f) => `The replication slot ${f.slot} is gone, and changes since ${f.lsn} with it.`,
    remedy: (f) =>
      f.known
        ? 'Whoever dropped it, or a failover, lost the position. Synchronise anew: `sluice backfill --reset` for every stream.'
        : `Create it: SELECT pg_create_logical_replication_slot('${f.slot}', 'pgoutput'); or set source.create_slot: true.`,
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
    meaning: (f) => `Slot ${f.slot} stands at ${f.confirmed}, past the ledger's end at ${f.ledger}: somebody else has read it, or it was made anew.`,
    remedy: () => 'Changes in between are lost to this pipeline. Let nothing else read the slot, and synchronise anew with `sluice backfill --reset`.',
  },
  SLOT_ACTIVE: {
    disposition: 'retry',
    meaning: (f) => `Slot ${f.slot} is in use by process ${f.pid} of ${f.application_name || 'an unnamed client'} (${f.client || 'local'}).`,
    remedy: (f) => `Stop that reader; or end it on the source: SELECT pg_terminate_backend(${f.pid}).`,
  },
  SLOTS_EXHAUSTED: {
    disposition: 'halt',
    meaning: () => 'The source has no free replication slot or WAL sender.',
    remedy: () => 'Raise max_replication_slots and max_wal_senders on the source, or drop slots that nothing uses (pg_replication_slots).',
  },
  CLUSTER_CHANGED: {
    disposition: 'halt',
    meaning: (f) => `The source is another cluster than last time (${f.what}: ${f.found} instead of ${f.expected}).`,
    remedy: () => 'If it was restored or replaced, its positions mean nothing here: start with a new state, or synchronise anew with `sluice backfill --reset`.',
  },
  PUBLICATION_NOT_ALLOWED: {
    disposition: 'halt',
    meaning: (f) => `The role ${f.user} may not make or change publication ${f.publication}: ${f.reason}`,
    remedy: (f) => `Have an owner of the tables run: ${f.sql}`,
  },
  PUBLICATION_LATE: {
    disposition: 'halt',
    meaning: (f) => `Slot ${f.slot} stands before publication ${f.publication} was made, and cannot decode from there.`,
    remedy: () => 'Drop the slot so that it is made again after the publication, and synchronise anew.',
  },
  NOTHING_SELECTED: {
    disposition: 'halt',
    meaning: (f) => `No table of the source matches ${f.pattern}.`,
    remedy: () => 'Check the name (case counts, and the role needs USAGE on the schema), or drop the entry from tables.',
  },
  TABLE_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The source has no table ${f.table}.`,
    remedy: () => 'Check its schema, name and case in tables, and that the role has USAGE on its schema.',
  },
  TABLE_UNREADABLE: {
    disposition: 'halt',
    meaning: (f) => `The role ${f.user} may not read ${f.table}.`,
    remedy: (f) => `Run: ${f.sql}`,
  },
  TABLE_KIND: {
    disposition: 'halt',
    meaning: (f) => `${f.table} is ${f.kind}; its changes are not in the log.`,
    remedy: () => 'LOG_BASED follows ordinary, logged tables. Drop it from tables.',
  },
  TABLE_WITHOUT_KEY: {
    disposition: 'halt',
    meaning: (f) => `${f.table} has no primary key and no replica identity index.`,
    remedy: (f) => `Give it one: ALTER TABLE ${f.table_sql} ADD PRIMARY KEY (...); or drop it from tables.`,
  },
  TABLE_ROW_SECURITY: {
    disposition: 'halt',
    meaning: (f) => `Row-level security hides rows of ${f.table} from ${f.user}: a copy would be incomplete.`,
    remedy: (f) => `Run ALTER ROLE ${f.user_sql} BYPASSRLS, or drop the table from tables.`,
  },
  ENCODING_UNSUPPORTED: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} database is encoded in ${f.encoding}.`,
    remedy: () => 'Only databases in UTF8 are replicated so far.',
  },
  VERSION_UNSUPPORTED: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} is PostgreSQL ${f.version}; ${f.minimum} or newer is needed.`,
    remedy: () => 'Upgrade the server.',
  },
  // Reading the log
  DECODE_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The log cannot be decoded at byte ${f.offset} of a ${f.message} message: ${f.reason}`,
    remedy: () => 'This is a fault of Sluice or of a server it does not know. Nothing was confirmed; please report it with this text.',
  },
  SLOT_STREAM_FAILED: {
    disposition: 'retry',
    meaning: (f) => `The replication connection ended: ${f.reason}`,
    remedy: () => 'The next window goes on from the ledger. If it happens again and again, look into the log of the source.',
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
    remedy: (f) => `The staged changes have expired or were removed. Synchronise anew: sluice backfill ${f.stream} --reset`,
  },
  LEDGER_INCARNATION: {
    disposition: 'halt',
    meaning: (f) => `The target's rows for ${f.stream} come from another ledger (${f.found} instead of ${f.expected}).`,
    remedy: (f) => `The state was made anew, or the target restored. Synchronise anew: sluice backfill ${f.stream} --reset`,
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
  // Loading
  TARGET_READ_ONLY: {
    disposition: 'halt',
    meaning: (f) => `The target at ${f.host}:${f.port} is read-only (${f.reason}).`,
    remedy: () => 'Point target.host at the primary, or turn default_transaction_read_only off for the role.',
  },
  TARGET_NOT_ALLOWED: {
    disposition: 'halt',
    meaning: (f) => `The target role ${f.user} lacks a right: ${f.reason}`,
    remedy: (f) => `${f.sql ? `Run: ${f.sql}` : 'Grant CREATE on the database, or on the schemas, to the role.'}`,
  },
  TARGET_TABLE_TAKEN: {
    disposition: 'halt',
    meaning: (f) => `The target table ${f.table} is not this stream's: ${f.reason}`,
    remedy: () => 'Give the stream another target_schema or target_table, or move that table out of the way.',
  },
  TARGET_REJECTS: {
    disposition: 'halt',
    meaning: (f) => `The target refuses rows of ${f.stream} in cut ${f.cut}: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: (f) => `Mend the cause on the target, then: sluice resume ${f.stream}`,
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
  UNEXPECTED: {
    disposition: 'halt',
    meaning: (f) => `Unexpected: ${f.reason}`,
    remedy: () => 'This is a fault of Sluice. Please report it with this text and the run report.',
  },
} as const satisfies Record<string, Entry>;

export type ErrorCode = keyof typeof CATALOGUE;
export const ERROR_CODES = Object.keys(CATALOGUE) as ErrorCode[];

export class SluiceError extends Error {
  readonly code: ErrorCode;
  readonly facts: Facts;
  override readonly name = 'SluiceError';

  constructor(code: ErrorCode, facts: Facts = {}, options?: ErrorOptions) {
    super(CATALOGUE[code].meaning(facts), options);
    this.code = code;
    this.facts = facts;
  }

  get disposition(): Disposition {
    return CATALOGUE[this.code].disposition;
  }

  get remedy(): string {
    return CATALOGUE[this.code].remedy(this.facts);
  }
}

/** Any thrown thing as a SluiceError; what is none becomes UNEXPECTED, with its message and its cause kept. */
export function asSluiceError(thrown: unknown): SluiceError {
  if (thrown instanceof SluiceError) return thrown;
  const reason = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return new SluiceError('UNEXPECTED', { reason }, { cause: thrown });
}
