/**
 * Faults of stage, ledger and doorbell.
 */
import type { Entry } from './entry.ts';

export const RECORD_ERRORS = {
  RECORD_INVALID: {
    disposition: 'halt',
    meaning: (f) =>
      `A row of ${f.table}${f.key ? ` (${f.key})` : ''} is not as its JSON Schema wants it: ${f.column ? `column ${f.column}` : 'the row'} ${f.wants} (${f.keyword}).`,
    remedy: (f) =>
      `Correct the row on the source, or the schema (tables.json_schema); then synchronise anew: sluice backfill ${f.stream} --reset. With target.on_invalid: reject such rows are put aside, and the others go on.`,
  },
  REJECTED_TOO_MANY: {
    disposition: 'halt',
    meaning: (f) => `More than ${f.rows_max} rows of ${f.table} were rejected and not loaded since.`,
    remedy: (f) =>
      `The schema does not fit the table, or something writes wrong rows: \`sluice rejects ${f.stream}\` has them with their reasons. Then: sluice backfill ${f.stream} --reset`,
  },
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
  LEDGER_BEHIND: {
    disposition: 'halt',
    meaning: (f) =>
      `The target has applied cut ${f.applied} of ${f.stream}, up to ${f.lsn}, and the ledger tells of another past: ${f.found}.`,
    remedy: (f) =>
      `The ledger was restored to an earlier time, and changes since may be lost to it. Synchronise anew: sluice backfill ${f.stream} --reset`,
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
} as const satisfies Record<string, Entry>;
