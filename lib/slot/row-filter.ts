/**
 * Row filters of streams that the log is followed for: what keeps one from being published, and the SQL that says how the source reads a condition.
 *
 * A row filter is the publication's (https://www.postgresql.org/docs/current/logical-replication-row-filter.html): the source evaluates it, turns an update
 * that moves a row into it into an insert, and one that moves it out into a delete. It looks at the old row as well, so its columns must be in the replica
 * identity, or the source refuses every update and delete of the table.
 */
import type { Client } from 'pg';
import type { StreamDefinition } from '../config/selection.ts';
import { SluiceError } from '../errors.ts';
import type { SourceTable } from '../ports.ts';
import { reasonOf, sourceFault, sqlstateOf } from '../postgres/faults.ts';
import { displayName, tableKey } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { isAppendOnly } from './append-publication.ts';
import type { PublicationState, PublicationStep, Publishable } from './publication.ts';
import { memberList, tableList } from './publication-members.ts';

export const ROW_FILTERS_SINCE = 150_000;

/** The filter that the stream is published with; null: none. */
export function publishedFilter({ options }: Pick<StreamDefinition, 'options'>): string | null {
  return options.replication_method === 'LOG_BASED' ? options.where : null;
}

/** Why a server of `version` (server_version_num) cannot publish the stream's filter; null: it can, or there is none. */
export function rowFilterFault(
  stream: Pick<StreamDefinition, 'options' | 'table'>,
  version: number,
): SluiceError | null {
  if (publishedFilter(stream) === null || version >= ROW_FILTERS_SINCE) return null;
  return new SluiceError('ROW_FILTER', {
    table: displayName(stream.table),
    reason: `the source is PostgreSQL ${Math.floor(version / 10_000)}, and publishes row filters from 15 on.`,
  });
}

export interface ReadFilter {
  /** The condition as the catalog would have it (pg_get_expr). */
  readonly text: string;
  /** Names of the columns that it looks at. */
  readonly columns: readonly string[];
}

/** Filters that are remembered. */
const KNOWN_MAX = 10_000;
const VIEW = 'sluice_row_filter';
/** What a view of one table is printed as, before its condition. */
const BEFORE_CONDITION = /^[\s\S]*?\n?\s+WHERE /u;

/**
 * How the source reads `where` over `table`. A temporary view is made of it and rolled back: nothing else prints a condition as the publication's catalog has
 * it, and tells its columns. Throws ROW_FILTER for what is no condition, and where the role may not make it.
 */
export async function readFilter(client: Client, table: SourceTable, where: string): Promise<ReadFilter> {
  // Also where the role's transactions are read-only: nothing of it stays.
  await client.query('BEGIN READ WRITE');
  try {
    await client.query(`CREATE TEMP VIEW ${VIEW} AS SELECT FROM ONLY ${quoteTable(table)} WHERE (${where}\n)`);
    const { rows } = await client.query<{ definition: string; columns: readonly string[] }>(
      `SELECT pg_get_viewdef(v.oid) AS definition,
              ARRAY(SELECT DISTINCT a.attname::text
                      FROM pg_rewrite r
                      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::oid AND d.refobjsubid > 0
                      JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                     WHERE r.ev_class = v.oid ORDER BY 1) AS columns
         FROM pg_class v WHERE v.oid = 'pg_temp.${VIEW}'::regclass`,
      [table.oid],
    );
    const definition = rows[0]?.definition ?? '';
    return { text: definition.replace(BEFORE_CONDITION, '').replace(/;$/u, ''), columns: rows[0]?.columns ?? [] };
  } catch (error) {
    throw filterFault(table, error);
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // The first error is the one to tell.
  }
}

function filterFault(table: SourceTable, error: unknown): unknown {
  const state = sqlstateOf(error);
  // Syntax, names, types, and values that are none.
  if (state.startsWith('42') || state.startsWith('22') || state.startsWith('0A')) {
    return new SluiceError(
      'ROW_FILTER',
      { table: displayName(table), reason: `the source does not take it: ${reasonOf(error)}` },
      { cause: error },
    );
  }
  return sourceFault(error, `read the row filter of ${displayName(table)}`);
}

/** The fault of a filter that looks at columns of which the log has no old values; null: none. */
export function identityFault(table: SourceTable, { columns }: ReadFilter): SluiceError | null {
  if (table.replica_identity === 'f' || isAppendOnly(table)) return null;
  const lacking = columns.filter((column) => !table.key.includes(column));
  if (lacking.length === 0) return null;
  return new SluiceError('ROW_FILTER', {
    table: displayName(table),
    reason: `it looks at ${lacking.join(', ')}, which the replica identity does not have, so the source would refuse updates and deletes.`,
    sql: `ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL`,
  });
}

/**
 * What is to be done so that each of `wanted`, all of which `state` holds, is published with its filter. One that another owner's publication holds otherwise is
 * that owner's to change: somebody else may read by it.
 */
export function filterStep(
  publication: string,
  state: PublicationState,
  wanted: readonly Publishable[],
): PublicationStep {
  const members = new Map(state.members.map((member) => [tableKey(member), member]));
  const entries = new Map(state.tables.map((table) => [tableKey(table), table.entries]));
  const wrong: Publishable[] = [];
  for (const table of wanted) {
    if (table.filter === undefined) continue;
    const member = members.get(tableKey(table));
    const bySchema = entries.get(tableKey(table))?.includes('n') === true;
    if (table.filter !== null && (!member || state.all_tables || bySchema)) {
      const fault = new SluiceError('ROW_FILTER', {
        table: displayName(table),
        reason: `publication ${publication} holds it with all tables, those of a schema, or a partitioned table, and so without a filter. Name another source.publication_name, which is then made of the selected tables.`,
      });
      return { kind: 'fault', fault };
    }
    if (member && oneLine(member.filter ?? '') !== oneLine(table.printed ?? '')) wrong.push(table);
  }
  if (wrong.length === 0) return { kind: 'ready' };
  const sql = refilterSql(publication, wrong);
  if (state.owned !== true) {
    const what = `rows of ${wrong.map(displayName).join(', ')} by another filter than the pipeline file`;
    const again = `BEGIN; ${sql}; COMMIT`;
    return { kind: 'fault', fault: new SluiceError('PUBLICATION_INCOMPLETE', { publication, what, sql: again }) };
  }
  return { kind: 'change', sql, tables: wrong, alters: false };
}

/** The SQL that has `publication` publish the tables with their filters, or with none. In one transaction. */
function refilterSql(publication: string, tables: readonly Publishable[]): string {
  const name = quoteIdentifier(publication);
  return `ALTER PUBLICATION ${name} DROP TABLE ${tableList(tables)}; ALTER PUBLICATION ${name} ADD TABLE ${memberList(tables)}`;
}

/** A string, a quoted name, or what lies between two words. */
const QUOTED_OR_SPACE = /'(?:[^']|'')*'|"(?:[^"]|"")*"|\s+/gu;

/** Conditions are compared as they are printed; where lines break does not matter, but in a string, whose blanks are a value's. */
function oneLine(text: string): string {
  return text.replaceAll(QUOTED_OR_SPACE, (part) => (part.trim() === '' ? ' ' : part)).trim();
}

/** How filters are read, remembered for as long as a process lives: a table's definition and identity are part of what it is known by. */
export class ReadFilters {
  readonly #known = new Map<string, ReadFilter | SluiceError>();

  /** Throws what is the connection's fault. */
  async faults(client: Client, tables: readonly SourceTable[]): Promise<Map<string, SluiceError>> {
    const faults = new Map<string, SluiceError>();
    for (const table of tables) {
      const read = typeof table.filter === 'string' ? await this.read(client, table, table.filter) : null;
      const fault = read instanceof SluiceError ? read : read && identityFault(table, read);
      if (fault) faults.set(tableKey(table), fault);
    }
    return faults;
  }

  /** The tables with their filters as the source prints them. Throws ROW_FILTER where the source could not follow one. */
  async printed(client: Client, tables: readonly SourceTable[]): Promise<Publishable[]> {
    const [fault] = (await this.faults(client, tables)).values();
    if (fault) throw fault;
    const printed: Publishable[] = [];
    for (const table of tables) {
      const read = typeof table.filter === 'string' ? await this.read(client, table, table.filter) : null;
      printed.push(read === null || read instanceof SluiceError ? table : { ...table, printed: read.text });
    }
    return printed;
  }

  /** How the source reads a filter, or why it does not take it. Throws what is the connection's fault. */
  async read(client: Client, table: SourceTable, where: string): Promise<ReadFilter | SluiceError> {
    const name = JSON.stringify([table.oid, table.definition ?? null, tableKey(table), where]);
    const known = this.#known.get(name);
    if (known && table.definition !== undefined) return known;
    try {
      const read = await readFilter(client, table, where);
      if (this.#known.size >= KNOWN_MAX) this.#known.clear();
      this.#known.set(name, read);
      return read;
    } catch (error) {
      if (error instanceof SluiceError && error.code === 'ROW_FILTER') return error;
      throw error;
    }
  }
}
