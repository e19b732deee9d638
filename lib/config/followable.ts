/**
 * Whether LOG_BASED can follow a table of the source, and if not, why and what mends it. Asked before a table is published: a publication over a
 * table whose rows it cannot identify makes the source refuse that table's updates and deletes
 * (https://www.postgresql.org/docs/current/logical-replication-publication.html).
 */
import { SluiceError } from '../errors.ts';
import type { SourceTable } from '../ports.ts';
import { displayName, type TableName } from '../shape.ts';
import { isAppendOnly } from '../slot/append-publication.ts';
import { IDENTIFIER_BYTES_MAX, quoteIdentifier, quoteTable } from '../sql-text.ts';

interface Unfollowed {
  readonly what: string;
  readonly instead: string;
}

const PARTITIONS_INSTEAD = 'Its partitions can be named instead.';
/** What has no changes in the log has rows all the same. */
const BY_QUERY = 'Set replication_method: FULL_TABLE for it, or INCREMENTAL.';
/** By relkind, and what can be done today. */
const KINDS: Readonly<Record<string, Unfollowed>> = {
  p: {
    what: 'a partitioned table, which the source can publish as one table from PostgreSQL 13 on',
    instead: PARTITIONS_INSTEAD,
  },
  v: { what: 'a view', instead: BY_QUERY },
  m: { what: 'a materialized view', instead: BY_QUERY },
  f: { what: 'a foreign table', instead: BY_QUERY },
};

/** Schemas whose tables are the system's, or Sluice's own bookkeeping. */
export function isReservedSchema(schema: string): boolean {
  return schema === '_sluice' || schema === 'information_schema' || schema.startsWith('pg_');
}

/** The fault that keeps `table` from being followed by role `user`; null: none. What no grant can mend comes first. */
export function followFault(table: SourceTable, user: string, primary_key_required = true): SluiceError | null {
  const name = displayName(table);
  const sql = quoteTable(table);
  if (isReservedSchema(table.schema)) {
    return new SluiceError('TABLE_KIND', { table: name, kind: 'a table of the system or of Sluice itself' });
  }
  const isFolded = table.kind === 'p' && table.partitions !== undefined;
  if (table.kind !== 'r' && !isFolded) {
    const { what, instead } = KINDS[table.kind] ?? {
      what: `of a kind that is not followed (relkind ${table.kind})`,
      instead: undefined,
    };
    return new SluiceError('TABLE_KIND', { table: name, kind: what, instead });
  }
  const unlogged = persistenceFault(table) ?? nameFault(table);
  if (unlogged) return unlogged;
  const virtual = (table.generated ?? []).find(({ storage }) => storage === 'v');
  if (table.replica_identity === 'f' && virtual) {
    return new SluiceError('TABLE_IDENTITY', {
      table: name,
      reason: `it has REPLICA IDENTITY FULL and a virtual generated column ${virtual.name}, which cannot be published, so the source would refuse its updates and deletes.`,
      sql: `ALTER TABLE ${sql} REPLICA IDENTITY DEFAULT`,
    });
  }
  if (primary_key_required && table.replica_identity === 'n') {
    return new SluiceError('TABLE_IDENTITY', {
      table: name,
      reason: 'it has REPLICA IDENTITY NOTHING, so the source would refuse its updates and deletes.',
      sql: `ALTER TABLE ${sql} REPLICA IDENTITY DEFAULT`,
    });
  }
  if (primary_key_required && table.key.length === 0) {
    return new SluiceError('TABLE_WITHOUT_KEY', { table: name, table_sql: sql });
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

interface Named {
  readonly name: string;
}

/** Names of a source in another encoding than UTF8 may be longer in that than a name can be. */
export function nameFault(
  table: TableName & { readonly columns: readonly Named[]; readonly generated?: readonly Named[] },
): SluiceError | null {
  const columns = [...table.columns, ...(table.generated ?? [])];
  const names = [table.schema, table.table, ...columns.map((column) => column.name)];
  const name = names.find((candidate) => Buffer.byteLength(candidate) > IDENTIFIER_BYTES_MAX);
  if (name === undefined) return null;
  const facts = { table: displayName(table), name, bytes: Buffer.byteLength(name), bytes_max: IDENTIFIER_BYTES_MAX };
  return new SluiceError('TABLE_NAME_LONG', facts);
}

/** The partitioned table is not to be one stream (source.fold_partitions). */
export function unfoldedFault(table: SourceTable): SluiceError {
  const kind = 'a partitioned table, and source.fold_partitions is false, or source.plugin is wal2json';
  return new SluiceError('TABLE_KIND', { table: displayName(table), kind, instead: PARTITIONS_INSTEAD });
}

/**
 * What keeps a partition's changes from being told as those of `root`. The old row in the log is made by the identity of the partition that held it, and
 * read by that of the root, under whose name it comes: it must have the root's key, and every column where the root's identity says so.
 */
export function partitionFault(root: SourceTable, leaf: SourceTable): SluiceError | null {
  const name = displayName(leaf);
  const sql = quoteTable(leaf);
  if (leaf.kind === 'p') return null;
  if (leaf.kind === 'f') {
    const kind = `a partitioned table, and its partition ${name} is a foreign table`;
    return new SluiceError('TABLE_KIND', { table: displayName(root), kind, instead: `Detach ${name}.` });
  }
  const unlogged = persistenceFault(leaf);
  if (unlogged) return unlogged;
  // No old row is asked for.
  if (isAppendOnly(root)) return null;
  const identityFault = (reason: string, identity: string): SluiceError =>
    new SluiceError('TABLE_IDENTITY', {
      table: displayName(root),
      reason: `its partition ${name} ${reason}`,
      sql: `ALTER TABLE ${sql} REPLICA IDENTITY ${identity}`,
    });
  if (leaf.replica_identity === 'f') {
    const virtual = (leaf.generated ?? []).find(({ storage }) => storage === 'v');
    return virtual
      ? identityFault(
          `has REPLICA IDENTITY FULL and a virtual generated column ${virtual.name}, which cannot be published.`,
          'DEFAULT',
        )
      : null;
  }
  if (leaf.replica_identity === 'n') {
    return identityFault(
      'has REPLICA IDENTITY NOTHING, so the source would refuse its updates and deletes.',
      'DEFAULT',
    );
  }
  if (root.replica_identity === 'f') {
    return identityFault('does not have REPLICA IDENTITY FULL as the partitioned table has.', 'FULL');
  }
  const lacking = root.key.find((column) => !leaf.key.includes(column));
  return lacking === undefined
    ? null
    : identityFault(
        `identifies its rows without column ${lacking} of the key.`,
        root.replica_identity === 'i' ? 'FULL' : 'DEFAULT',
      );
}

function persistenceFault(table: SourceTable): SluiceError | null {
  const name = displayName(table);
  switch (table.persistence) {
    case 'p':
      return null;
    case 'u': {
      const instead = `Run: ALTER TABLE ${quoteTable(table)} SET LOGGED.`;
      return new SluiceError('TABLE_KIND', { table: name, kind: 'an unlogged table', instead });
    }
    case 't': {
      const instead = 'Only its own session sees it: keep its rows in an ordinary table.';
      return new SluiceError('TABLE_KIND', { table: name, kind: 'a temporary table', instead });
    }
    default: {
      const kind = `not permanent (relpersistence ${table.persistence})`;
      return new SluiceError('TABLE_KIND', { table: name, kind });
    }
  }
}
