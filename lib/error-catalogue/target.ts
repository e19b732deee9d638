/**
 * Faults of the target, and of a stream on its way into it.
 */
import type { Entry } from './entry.ts';
import { remedyIfItLasts } from './lasting.ts';

export const TARGET_ERRORS = {
  TARGET_READ_ONLY: {
    disposition: 'halt',
    meaning: (f) => `The target at ${f.host}:${f.port} is read-only (${f.reason}).`,
    remedy: () =>
      'Point target.host at the primary, or turn default_transaction_read_only off for the role or the server (managed servers turn it on when their disk is full). Then everything goes on by itself.',
  },
  TARGET_NOT_ALLOWED: {
    disposition: 'halt',
    meaning: (f) => `The target role ${f.user} lacks a right: ${f.reason}`,
    remedy: (f) =>
      `${f.sql ? `Run: ${f.sql}` : 'Grant CREATE on the database, or on the schemas, to the role'}${f.stream ? `; then: sluice resume ${f.stream}` : ''}`,
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
      `The target refuses ${f.key ? `the row ${f.key}` : 'rows'} of ${f.stream}${f.cut === undefined ? '' : ` in cut ${f.cut}`}: ${f.reason} (SQLSTATE ${f.sqlstate})`,
    remedy: (f) =>
      `Mend the cause on the target, then: sluice resume ${f.stream}${f.key ? '. With target.on_error: quarantine such rows are put aside, and the others go on.' : ''}`,
  },
  QUARANTINE_FULL: {
    disposition: 'halt',
    meaning: (f) =>
      `The target refuses more than ${f.rows_max} rows of ${f.stream} (target.quarantine_rows_max); the last: ${f.reason}`,
    remedy: (f) =>
      `So many are no exception: mend the cause on the target, then: sluice resume ${f.stream}. Those that wait have their reasons in: sluice rejects ${f.stream}`,
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
  TARGET_WENT_BACK: {
    disposition: 'halt',
    meaning: (f) => `The target's rows of ${f.stream} are of an earlier time than the ledger knows: ${f.what}.`,
    remedy: (f) =>
      `The target was restored to before that, and the log alone cannot bring it on. Synchronise anew: sluice backfill ${f.stream} --reset`,
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
    remedy: () =>
      'Rename the column on the source, or turn off what adds it: add_metadata_columns and hard_delete, and debug_lsn for _sdc_lsn.',
  },
  TRUNCATE_HALTED: {
    disposition: 'halt',
    meaning: (f) =>
      `${f.stream} was truncated on the source${f.unlogged ? ', or written anew (VACUUM FULL, CLUSTER), which the log does not tell apart' : ''}, and target.on_truncate is halt.`,
    remedy: (f) =>
      f.unlogged
        ? `If it was not truncated: sluice resume ${f.stream}; else synchronise anew: sluice backfill ${f.stream} --reset`
        : `Set target.on_truncate to apply or ignore, then: sluice resume ${f.stream}; or synchronise anew: sluice backfill ${f.stream} --reset`,
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
    remedy: (f) =>
      remedyIfItLasts('target', f, 'If it lasts, look for locks, full disks and connection limits on the target.'),
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
} as const satisfies Record<string, Entry>;
