/**
 * START_REPLICATION for each plugin, with what is asked of it (plugin-options.ts). Pure.
 * https://www.postgresql.org/docs/current/protocol-replication.html
 */
import { formatLsn, type Lsn } from '../lsn.ts';
import type { SlotDialect } from '../ports.ts';
import type { TableName } from '../shape.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { type PluginOptions, pgoutputOptions, wal2jsonOptions } from './plugin-options.ts';

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
  return pgoutputOptions(version, publications).map((asked) => start(slot, from, asked));
}

/** `tables`: null for all. */
export function startWal2json(slot: string, from: Lsn, tables: readonly TableName[] | null): StartCommand[] {
  return wal2jsonOptions(tables).map((asked) => start(slot, from, asked));
}

/** In a replication command a backslash is a letter like any other (repl_scanner.l). */
function literal(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

function start(slot: string, from: Lsn, { options, dialect }: PluginOptions): StartCommand {
  const list = Object.entries(options).map(
    ([name, value]) => `${/^[a-z_]+$/.test(name) ? name : quoteIdentifier(name)} ${literal(value)}`,
  );
  return {
    sql: `START_REPLICATION SLOT ${quoteIdentifier(slot)} LOGICAL ${formatLsn(from)} (${list.join(', ')})`,
    dialect,
  };
}
