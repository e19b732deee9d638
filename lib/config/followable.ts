/**
 * Whether LOG_BASED can follow a table of the source, and if not, why and what mends it. Asked before a table is published: a publication over a
 * table whose rows it cannot identify makes the source refuse that table's updates and deletes
 * (https://www.postgresql.org/docs/current/logical-replication-publication.html).
 */
import { SluiceError } from '../errors.ts';
import type { SourceTable } from '../ports.ts';
import { displayName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';

const KINDS: Readonly<Record<string, string>> = {
  p: 'a partitioned table (its partitions can be named instead)',
  v: 'a view',
  m: 'a materialized view',
  f: 'a foreign table',
};
const PERSISTENCES: Readonly<Record<string, string>> = { u: 'an unlogged table', t: 'a temporary table' };

/** Schemas whose tables are the system's, or Sluice's own bookkeeping. */
export function isReservedSchema(schema: string): boolean {
  return schema === '_sluice' || schema === 'information_schema' || schema.startsWith('pg_');
}

/** The fault that keeps `table` from being followed by role `user`; null: none. What no grant can mend comes first. */
export function followFault(table: SourceTable, user: string): SluiceError | null {
  const name = displayName(table);
  const sql = quoteTable(table);
  if (isReservedSchema(table.schema)) {
    return new SluiceError('TABLE_KIND', { table: name, kind: 'a table of the system or of Sluice itself' });
  }
  if (table.kind !== 'r') {
    const kind = KINDS[table.kind] ?? `of a kind that is not followed (relkind ${table.kind})`;
    return new SluiceError('TABLE_KIND', { table: name, kind });
  }
  if (table.persistence !== 'p') {
    const kind = PERSISTENCES[table.persistence] ?? `not permanent (relpersistence ${table.persistence})`;
    return new SluiceError('TABLE_KIND', { table: name, kind });
  }
  if (table.key.length === 0) return new SluiceError('TABLE_WITHOUT_KEY', { table: name, table_sql: sql });
  if (table.replica_identity === 'n') {
    return new SluiceError('TABLE_IDENTITY', {
      table: name,
      reason: 'it has REPLICA IDENTITY NOTHING, so the source would refuse its updates and deletes.',
      sql: `ALTER TABLE ${sql} REPLICA IDENTITY DEFAULT`,
    });
  }
  const generated = table.key.find((key) => !table.columns.some((column) => column.name === key));
  if (generated !== undefined) {
    return new SluiceError('TABLE_IDENTITY', {
      table: name,
      reason: `column ${generated} of its key is generated, and the log does not carry it.`,
      sql: `ALTER TABLE ${sql} REPLICA IDENTITY USING INDEX ...  (a unique index over columns that are not generated)`,
    });
  }
  if (!table.may_select) {
    const role = quoteIdentifier(user);
    const schema = quoteIdentifier(table.schema);
    return new SluiceError('TABLE_UNREADABLE', {
      table: name,
      user,
      sql: `GRANT USAGE ON SCHEMA ${schema} TO ${role}; GRANT SELECT ON ${sql} TO ${role};`,
    });
  }
  if (table.row_security) {
    return new SluiceError('TABLE_ROW_SECURITY', { table: name, user, user_sql: quoteIdentifier(user) });
  }
  return null;
}
