/**
 * START_REPLICATION for each plugin: what is asked of it, best first, for older versions of a plugin refuse what they do not know. Pure.
 * https://www.postgresql.org/docs/current/protocol-replication.html, https://github.com/eulerto/wal2json#parameters
 */
import { formatLsn, type Lsn } from '../lsn.ts';
import type { SlotDialect } from '../ports.ts';
import type { TableName } from '../shape.ts';
import { quoteIdentifier } from '../sql-text.ts';

/** pgoutput speaks protocol version 2 (release notes of 14); without `streaming` it sends what version 1 does. */
const PROTOCOL_2_SINCE = 140_000;

export interface StartCommand {
  readonly sql: string;
  /** What the plugin speaks when it takes the command. */
  readonly dialect: SlotDialect;
}

export function startPgoutput(
  slot: string,
  from: Lsn,
  version: number,
  publications: readonly string[],
): StartCommand[] {
  const options = {
    proto_version: version >= PROTOCOL_2_SINCE ? '2' : '1',
    publication_names: publications.map(quoteIdentifier).join(','),
  };
  return [{ sql: start(slot, from, options), dialect: { plugin: 'pgoutput' } }];
}

/**
 * 2.6 prints every number as a string where it is asked to, so that NaN and the infinities are not null; before 2.0 there is format version 1 only.
 * Numbers, types and positions are what a Relation is made of. `tables`: null for all.
 */
export function startWal2json(slot: string, from: Lsn, tables: readonly TableName[] | null): StartCommand[] {
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
    sql: start(slot, from, options),
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

/** In a replication command a backslash is a letter like any other (repl_scanner.l). */
function literal(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

function start(slot: string, from: Lsn, options: Readonly<Record<string, string>>): string {
  const list = Object.entries(options).map(
    ([name, value]) => `${/^[a-z_]+$/.test(name) ? name : quoteIdentifier(name)} ${literal(value)}`,
  );
  return `START_REPLICATION SLOT ${quoteIdentifier(slot)} LOGICAL ${formatLsn(from)} (${list.join(', ')})`;
}
