/**
 * Tables that are read by query alone (INCREMENTAL, FULL_TABLE): what keeps one from being read so, and what it looks like then. Pure; the counterpart of
 * followable.ts, for which changes must be in the log.
 *
 * Anything that SELECT reads will do: tables, partitioned ones on any version, views, materialized views, foreign tables, unlogged tables. What identifies a
 * row is the primary key, or `key_properties`; what the log needs (a replica identity, a publication) does not matter.
 */
import { lookbackFault, replicationKeyFault } from '../epoch/pages.ts';
import { SluiceError } from '../errors.ts';
import type { SourceColumn, SourceTable } from '../ports.ts';
import { displayName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { isReservedSchema, nameFault } from './followable.ts';
import { nearestName } from './nearest.ts';
import type { TableConfig } from './schema.ts';

/** Of a stream's options, what decides how it is read. */
export type QueryOptions = Pick<TableConfig, 'replication_method' | 'replication_key' | 'lookback' | 'key_properties'> &
  Partial<Pick<TableConfig, 'columns' | 'mask'>>;

/** pg_class.relkind, besides ordinary tables: partitioned table, view, materialized view, foreign table. */
const READABLE = new Set(['r', 'p', 'v', 'm', 'f']);
/** relkinds whose rows a policy of their own may hide. What a view shows of its tables is what it is for. */
const WITH_POLICIES = new Set(['r', 'p']);
const COLUMNS_SHOWN_MAX = 10;

export function isByQuery({ replication_method }: Pick<QueryOptions, 'replication_method'>): boolean {
  return replication_method !== 'LOG_BASED';
}

/** The table as a query shows it: generated columns are columns like others, and its key is the one that the file names, or the primary key. */
export function byQuery(table: SourceTable, key_properties: readonly string[] | null): SourceTable {
  const key = key_properties ?? table.primary_key ?? table.key;
  const known = new Set(table.columns.map(({ name }) => name));
  const generated = (table.generated ?? [])
    .filter(({ name }) => !known.has(name))
    .map((column): SourceColumn => {
      const { name, type_oid, type_modifier, number, type } = column;
      const same = { name, type_oid, type_modifier, not_null: (table.primary_key ?? []).includes(name) };
      return { ...same, ...(number === undefined ? {} : { number }), ...(type === undefined ? {} : { type }) };
    });
  const columns = [...table.columns, ...generated].toSorted((a, b) => (a.number ?? 0) - (b.number ?? 0));
  return { ...table, columns, key, by_query: { key_properties } };
}

/** The fault that keeps role `user` from reading `table` (as `byQuery` has it) by these options; null: none. */
export function queryFault(table: SourceTable, user: string, options: QueryOptions): SluiceError | null {
  const { replication_method, replication_key, lookback, key_properties } = options;
  const name = displayName(table);
  const sql = quoteTable(table);
  const kindFault = (kind: string): SluiceError =>
    new SluiceError('TABLE_KIND', { table: name, kind, instead: 'It is not read by query either.' });
  if (isReservedSchema(table.schema)) return kindFault('a table of the system or of Sluice itself');
  if (!READABLE.has(table.kind)) return kindFault(`of a kind without rows of its own (relkind ${table.kind})`);
  if (table.persistence === 't') return kindFault('a temporary table');
  const named: readonly (readonly [string, string])[] = [
    ...(replication_key === null ? [] : [['replication_key', replication_key] as const]),
    ...(key_properties ?? []).map((column) => ['key_properties', column] as const),
  ];
  const columns = table.columns.map((column) => column.name);
  for (const [option, column] of named) {
    if (columns.includes(column)) continue;
    const nearest = nearestName(column, columns) ?? undefined;
    const shown = columns.slice(0, COLUMNS_SHOWN_MAX).join(', ');
    return new SluiceError('TABLE_COLUMN_MISSING', { table: name, column, option, nearest, columns: shown });
  }
  const followed = table.columns.find((column) => column.name === replication_key);
  const unsortable = followed && (replicationKeyFault(table, followed) ?? lookbackFault(table, followed, lookback));
  if (unsortable) return unsortable;
  if (followed && isHidden(followed.name, options)) {
    const reason = 'columns or mask hides it, and its values would lie in the ledger.';
    const remedy = 'Name another column in replication_key, or leave this one as it is.';
    return new SluiceError('REPLICATION_KEY', { table: name, column: followed.name, reason, remedy });
  }
  // Rows come again: those of the last value with each run, and what lies within the lookback. Without a key nobody could tell them from those that are there,
  // and a row whose replication key was raised would stay beside its former self. A whole copy needs no key.
  if (replication_method === 'INCREMENTAL' && table.key.length === 0) {
    return new SluiceError('TABLE_WITHOUT_KEY', { table: name, by_query: true });
  }
  const tooLong = nameFault(table);
  if (tooLong) return tooLong;
  if (!table.may_select) {
    const role = quoteIdentifier(user);
    const grant = `GRANT USAGE ON SCHEMA ${quoteIdentifier(table.schema)} TO ${role}; GRANT SELECT ON ${sql} TO ${role};`;
    return new SluiceError('TABLE_UNREADABLE', { table: name, user, sql: grant });
  }
  if (table.row_security && WITH_POLICIES.has(table.kind)) {
    return new SluiceError('TABLE_ROW_SECURITY', { table: name, user, user_sql: quoteIdentifier(user) });
  }
  return null;
}

function isHidden(column: string, { columns = null, mask = {} }: QueryOptions): boolean {
  if (Object.hasOwn(mask, column) || columns?.exclude?.includes(column)) return true;
  return columns?.include ? !columns.include.includes(column) : false;
}
