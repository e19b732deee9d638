/**
 * Generated columns of the target: made where the source's expression can be made here, so that their values are computed and never loaded.
 *
 * On the path: the making of a shadow table (shadow.ts). What a shape calls `generated` on the target are those that are made as such; one that the log carries all the same (PostgreSQL 18, publish_generated_columns = stored) is a plain column where it
 * could not be made, and any other that could not is left out, and said to be.
 * https://www.postgresql.org/docs/current/ddl-generated-columns.html
 */
import { SluiceError } from '../errors.ts';
import { GENERATED_COLUMNS_SINCE, VIRTUAL_COLUMNS_SINCE } from '../postgres/versions.ts';
import { displayName, type GeneratedColumn, type Shape, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { Purpose, Session } from './session.ts';
import { type CustomTypes, typeNames } from './types.ts';

const SAVEPOINT = '_sluice_generated';

/** A generated column that the target does not have as such. */
export interface NotGenerated {
  readonly column: string;
  readonly reason: string;
}

/** Names of the columns that the target computes: nothing is written to them. */
export function generatedNames({ generated }: Shape): ReadonlySet<string> {
  return new Set(generated?.map(({ name }) => name));
}

/** `"total" numeric GENERATED ALWAYS AS (…) STORED`. A virtual column is stored where the server has no other kind; its values are the same. */
export function generatedSql({ name, expression, storage }: GeneratedColumn, type: string, version: number): string {
  const kind = storage === 'v' && version >= VIRTUAL_COLUMNS_SINCE ? 'VIRTUAL' : 'STORED';
  // A line of its own: what follows must stand whatever the expression ends with.
  return `${quoteIdentifier(name)} ${type} GENERATED ALWAYS AS (${expression}\n) ${kind}`;
}

/** Types of generated columns, and whether the server can have any. */
export async function generatedDefinitions(
  session: Session,
  columns: readonly GeneratedColumn[],
  custom_types: CustomTypes,
): Promise<{ readonly version: number; readonly sql: readonly string[] }> {
  const { rows } = await session.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::int4 AS version`,
    [],
  );
  const version = rows[0]?.version ?? 0;
  const types = await typeNames(session, columns, custom_types);
  return { version, sql: columns.map((column, i) => generatedSql(column, types[i] ?? 'text', version)) };
}

/**
 * Adds those of `columns` that can be made to a table, each behind a savepoint, and resolves with what came of it. To be called in a transaction.
 * A table with rows is written anew for a stored column, so that every row has its value.
 */
export async function addGenerated(
  session: Session,
  table: TableName,
  columns: readonly GeneratedColumn[],
  custom_types: CustomTypes,
): Promise<{ readonly made: readonly GeneratedColumn[]; readonly not: readonly NotGenerated[] }> {
  if (columns.length === 0) return { made: [], not: [] };
  const { version, sql } = await generatedDefinitions(session, columns, custom_types);
  const made: GeneratedColumn[] = [];
  const not: NotGenerated[] = [];
  for (const [i, column] of columns.entries()) {
    if (version < GENERATED_COLUMNS_SINCE) {
      not.push({ column: column.name, reason: `PostgreSQL ${Math.floor(version / 10_000)} has no generated columns` });
      continue;
    }
    const failure = await attempt(session, `ALTER TABLE ${quoteTable(table)} ADD COLUMN ${sql[i]}`, {
      action: `alter ${displayName(table)}`,
    });
    if (failure === null) made.push(column);
    else not.push({ column: column.name, reason: failure });
  }
  return { made, not };
}

/** Null: done. Else why the server refuses the statement; the transaction goes on as if it had not been tried. */
export async function attempt(session: Session, sql: string, purpose: Purpose): Promise<string | null> {
  await session.run(`SAVEPOINT ${SAVEPOINT}`);
  try {
    await session.run(`${sql}; RELEASE SAVEPOINT ${SAVEPOINT}`, purpose);
    return null;
  } catch (error) {
    if (!(error instanceof SluiceError) || !isRefusal(error)) throw error;
    await session.run(`ROLLBACK TO SAVEPOINT ${SAVEPOINT}; RELEASE SAVEPOINT ${SAVEPOINT}`);
    return String(error.facts.reason);
  }
}

/**
 * Classes of SQLSTATE that speak of the expression: a function or column that is not here, one that is not immutable, one that may not be used or
 * fails (22, 38, 42, P0), a column that is computed from another generated one (42), a feature that is not there (0A).
 */
function isRefusal({ facts }: SluiceError): boolean {
  return typeof facts.sqlstate === 'string' && /^(0A|22|38|39|42|54|P0)/.test(facts.sqlstate);
}

/** The shape of a table in which `made` are generated. */
export function withGenerated(shape: Shape, made: readonly GeneratedColumn[]): Shape {
  const { generated: _, ...rest } = shape;
  return made.length === 0 ? rest : { ...rest, generated: made };
}

/** For the log: the generated columns that are not there, and those that are plain, for the log carries them. */
export function notGeneratedFacts(
  table: TableName,
  shape: Shape,
  { column, reason }: NotGenerated,
): { readonly event: string; readonly facts: Record<string, unknown> } {
  const carried = shape.columns.some(({ name }) => name === column);
  return {
    event: carried ? 'generated_column_plain' : 'generated_column_left_out',
    facts: { table: displayName(table), column, reason },
  };
}
