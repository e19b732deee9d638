/**
 * What is asked of each output plugin, whoever reads the slot: the walsender's stream (start-replication.ts) and the function's calls (peek-sql.ts) ask the
 * same, and so get the same messages. Best first, for older versions of a plugin refuse what they do not know. Pure.
 * https://www.postgresql.org/docs/current/protocol-logical-replication.html, https://github.com/eulerto/wal2json#parameters
 */
import type { SlotDialect } from '../ports.ts';
import type { TableName } from '../shape.ts';
import { quoteIdentifier } from '../sql-text.ts';

/** pgoutput speaks protocol version 2 (release notes of 14); without `streaming` it sends what version 1 does. */
const PROTOCOL_2_SINCE = 140_000;
/** invalid_parameter_value, feature_not_supported: how wal2json refuses an option or a format that it does not have. */
const REFUSED_OPTION = new Set(['22023', '0A000']);

export interface PluginOptions {
  readonly options: Readonly<Record<string, string>>;
  /** What the plugin speaks when it takes them. */
  readonly dialect: SlotDialect;
}

/** Whether the plugin refuses the options, and may take the next ones. */
export function refusesOptions(sqlstate: string): boolean {
  return REFUSED_OPTION.has(sqlstate);
}

export function pgoutputOptions(version: number, publications: readonly string[]): PluginOptions[] {
  const options = {
    proto_version: version >= PROTOCOL_2_SINCE ? '2' : '1',
    publication_names: publications.map(quoteIdentifier).join(','),
  };
  return [{ options, dialect: { plugin: 'pgoutput' } }];
}

/**
 * 2.6 prints every number as a string where it is asked to, so that NaN and the infinities are not null; before 2.0 there is format version 1 only.
 * Numbers, types and positions are what a Relation is made of. `tables`: null for all.
 */
export function wal2jsonOptions(tables: readonly TableName[] | null): PluginOptions[] {
  const common = {
    'include-xids': 'true',
    'include-timestamp': 'true',
    'include-lsn': 'true',
    'include-types': 'true',
    'include-typmod': 'true',
    'include-type-oids': 'true',
    'include-column-positions': 'true',
    ...(tables === null ? {} : { 'add-tables': addTables(tables) }),
  };
  const numbers = { 'numeric-data-types-as-string': 'true' };
  const versions = [
    { options: { 'format-version': '2', ...common, ...numbers }, format: 2, numbers_as_text: true },
    { options: { 'format-version': '2', ...common }, format: 2, numbers_as_text: false },
    { options: { ...common, 'write-in-chunks': 'true' }, format: 1, numbers_as_text: false },
  ] as const;
  return versions.map(({ options, format, numbers_as_text }) => ({
    options,
    dialect: { plugin: 'wal2json', format, numbers_as_text },
  }));
}

/**
 * The value of add-tables: what separates names, or has a meaning of its own, is escaped by a backslash; every name can be said. Without a table, a name that
 * none has: an empty list would be all.
 */
function addTables(tables: readonly TableName[]): string {
  if (tables.length === 0) return 'pg_toast.none';
  return tables.map(({ schema, table }) => `${escaped(schema)}.${escaped(table)}`).join(',');
}

function escaped(name: string): string {
  return name.replaceAll(/[\\,.*\s]/g, String.raw`\$&`);
}
