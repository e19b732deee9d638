/**
 * The condition of a backfill: SQL of somebody's own, looked at on the source before anything is asked for, and told apart from other faults when its rows are
 * read. A wrong one ends the backfill and never the stream.
 */
import type { Client, QueryConfig } from 'pg';
import { SluiceError } from '../errors.ts';
import type { ChunkRequest } from '../ports.ts';
import { pinSettingsSql } from '../postgres/connection.ts';
import { reasonOf, sourceFault, sqlstateOf } from '../postgres/faults.ts';
import { type Connect, onSource } from '../postgres/session.ts';
import { displayName, type TableName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';

/** A condition is typed by a person, and lies in an item of the ledger. */
export const WHERE_BYTES_MAX = 16 * 1024;
/** Planning asks no rows; it waits for whoever alters the table. */
const LOOK_MS_MAX = 30_000;

/** Classes of errors that the text of a condition, or its values, bring about: https://www.postgresql.org/docs/current/errcodes-appendix.html */
const CONDITION_CLASSES = new Set(['0A', '21', '22', '38', '42', 'P0']);
/** Of these classes, what is the table's and not the condition's: undefined_table, insufficient_privilege. */
const TABLE_STATES = new Set(['42P01', '42501']);

/** Throws BACKFILL_WHERE where `where` is no condition on rows of the table. Reads no row. */
export async function checkWhere(connect: Connect, table: TableName, where: string): Promise<void> {
  if (where.trim() === '') throw fault(table, 'it is empty');
  if (Buffer.byteLength(where) > WHERE_BYTES_MAX) throw fault(table, `it is longer than ${WHERE_BYTES_MAX} bytes`);
  await onSource(connect, `look at a condition on ${displayName(table)}`, async (client) => {
    // In brackets, as a chunk has it; and in another bracket, in which nothing that closes and opens again would do.
    const forms = [
      `EXPLAIN SELECT FROM ${quoteTable(table)} WHERE (${where}\n)`,
      `EXPLAIN SELECT CASE WHEN ${where}\n THEN 1 END FROM ${quoteTable(table)}`,
    ];
    await client.query(
      `BEGIN READ ONLY; ${pinSettingsSql('LOCAL')}; SET LOCAL statement_timeout = ${LOOK_MS_MAX}; SET LOCAL lock_timeout = ${LOOK_MS_MAX}`,
    );
    for (const form of forms) await explain(client, table, where, form);
    await client.query('ROLLBACK');
  });
}

/** By the extended protocol, which takes one statement and no more: https://www.postgresql.org/docs/current/protocol-flow.html */
async function explain(client: Client, table: TableName, where: string, text: string): Promise<void> {
  try {
    const query: QueryConfig & { readonly queryMode: 'extended' } = { text, queryMode: 'extended' };
    await client.query(query);
  } catch (error) {
    throw whereFault(error, table, { where }) ?? sourceFault(error, `look at a condition on ${displayName(table)}`);
  }
}

/** What the source said of rows that were asked for by conditions, where one of them may be to blame; null: none is. The stream's own has been read by before. */
export function whereFault(
  error: unknown,
  table: TableName,
  { where, filter = null }: Pick<ChunkRequest, 'where' | 'filter'>,
): SluiceError | null {
  const sqlstate = sqlstateOf(error);
  if (TABLE_STATES.has(sqlstate) || !CONDITION_CLASSES.has(sqlstate.slice(0, 2))) return null;
  const reason = `${reasonOf(error)} (SQLSTATE ${sqlstate})`;
  if (where !== null) return fault(table, reason, { cause: error });
  if (filter === null) return null;
  return new SluiceError('ROW_FILTER', { table: displayName(table), reason: `${reason}.` }, { cause: error });
}

function fault(table: TableName, reason: string, options?: ErrorOptions): SluiceError {
  const facts = { table: displayName(table), table_sql: quoteTable(table), reason };
  return new SluiceError('BACKFILL_WHERE', facts, options);
}
