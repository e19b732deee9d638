/**
 * What a server refuses for now and may take later (SOURCE_TRANSIENT, TARGET_TRANSIENT): what to look at, or to set, where it lasts. By SQLSTATE, the same on
 * either side. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
import type { Facts } from './entry.ts';

type Side = 'source' | 'target';

const LOCKS = 'SELECT pid, mode, granted FROM pg_locks WHERE relation IS NOT NULL';

const REMEDIES: Readonly<Record<string, (facts: Facts, side: Side) => string>> = {
  // disk_full
  '53100': (_, side) =>
    `The disk of the ${side} is full: make room there (tables, temporary files, WAL: a slot or archive that stands still keeps it). Nothing else need be done.`,
  // out_of_memory; where a setting is named: of the lock table
  '53200': ({ setting }, side) =>
    setting === undefined
      ? `The ${side}'s server is out of memory: look at its work_mem, and at what else runs there.`
      : `One transaction needs more locks than the ${side} has room for: raise ${setting} on it (ALTER SYSTEM SET ${setting} = 512, then restart). Of one transaction over many tables Sluice needs about a dozen for each table, and one more for each of its indexes.`,
  // configuration_limit_exceeded: temp_file_limit, where it is met by a query
  '53400': (_, side) =>
    `A limit of the ${side}'s settings is too low for it. If it is temp_file_limit, raise it for the role: ALTER ROLE … SET temp_file_limit = '10GB' (as a superuser).${side === 'source' ? ' source.slot_reader: stream needs no temporary files.' : ''}`,
  // lock_not_available
  '55P03': (_, side) =>
    `Somebody on the ${side} holds a lock on the table: ${LOCKS}. No pid: a transaction that was left prepared (pg_prepared_xacts). End it, or wait.`,
  // query_canceled
  '57014': (_, side) =>
    `Either somebody on the ${side} has cancelled it, or it took longer than a statement may: look at pg_stat_activity for what it waits for.`,
  // io_error
  '58030': (_, side) => `The disk of the ${side} fails: look into its log.`,
};

/** `otherwise`: where nothing is known that is particular to the SQLSTATE. */
export function remedyIfItLasts(side: Side, facts: Facts, otherwise: string): string {
  const remedy = REMEDIES[String(facts.sqlstate)];
  return `It is tried again. ${remedy === undefined ? otherwise : `If it lasts: ${remedy(facts, side)}`}`;
}
