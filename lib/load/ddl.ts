/**
 * The statements that make, alter and replace a stream's table, as text; and its columns with the types that they get (types.ts).
 */
import { createHash } from 'node:crypto';
import { isLsnColumn } from '../lsn-column.ts';
import type { Column, GeneratedColumn, Shape, TableName } from '../shape.ts';
import { fittingName, quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import { BATCHED_AT, DELETED_AT, EXTRACTED_AT, keyNames, METADATA_COLUMNS } from './columns.ts';
import type { Session } from './session.ts';
import { type CustomTypes, typeNames } from './types.ts';

/**
 * A setting of the transaction: rows that a COPY brings into a shadow table take their `_sdc_extracted_at` from here. Seconds since the Unix
 * epoch, because reading those takes a quarter of the time that a timestamp's text takes, for every row.
 */
const EXTRACTED_AT_SETTING = 'sluice.extracted_at';

export function setExtractedAtSql(extracted_at: string): string {
  return `SELECT set_config('${EXTRACTED_AT_SETTING}', extract(epoch FROM ${quoteLiteral(extracted_at)}::timestamptz)::text, true)`;
}

const id = quoteIdentifier;

export interface TypedColumn {
  readonly name: string;
  /** As the target writes it: `numeric(10,2)`. */
  readonly type: string;
}

/** The columns with their types on this target, which `ensureTypes` has made. */
export async function typedColumns(
  session: Session,
  columns: readonly Column[],
  custom_types: CustomTypes,
): Promise<TypedColumn[]> {
  const types = await typeNames(session, columns, custom_types);
  return columns.map(({ name }, i) => ({ name, type: types[i] ?? 'text' }));
}

/**
 * The shadow table: logged (it becomes the real one), key columns NOT NULL, the others as they come, in the order of the source where that is known.
 * Its metadata columns have defaults while it is copied into, so that COPY needs no detour. `generated`: definitions of columns that it computes.
 */
export function createShadowSql(
  shadow: TableName,
  shape: Shape,
  columns: readonly TypedColumn[],
  metadata: boolean,
  generated: ReadonlyMap<GeneratedColumn, string> = new Map(),
): string {
  const key = keyNames(shape);
  const numbers = new Map(
    shape.columns.map((column) => [column.name, isLsnColumn(column) ? Number.MAX_SAFE_INTEGER : column.number]),
  );
  const definitions = [
    ...columns.map(({ name, type }) => ({
      number: numbers.get(name),
      sql: `${id(name)} ${type}${key.includes(name) ? ' NOT NULL' : ''}`,
    })),
    ...[...generated].map(([{ number }, sql]) => ({ number, sql })),
  ]
    .toSorted((a, b) => (a.number ?? 0) - (b.number ?? 0))
    .map(({ sql }) => sql);
  if (metadata) {
    definitions.push(
      `${id(EXTRACTED_AT)} timestamptz DEFAULT to_timestamp(current_setting('${EXTRACTED_AT_SETTING}')::float8)`,
      `${id(BATCHED_AT)} timestamptz DEFAULT now()`,
      `${id(DELETED_AT)} timestamptz`,
    );
  }
  return `CREATE TABLE ${quoteTable(shadow)} (${definitions.join(', ')})`;
}

export function dropDefaultsSql(shadow: TableName): string {
  return `ALTER TABLE ${quoteTable(shadow)} ALTER COLUMN ${id(EXTRACTED_AT)} DROP DEFAULT, ALTER COLUMN ${id(BATCHED_AT)} DROP DEFAULT`;
}

export function addKeySql(table: TableName, constraint: string, shape: Shape): string {
  const key = keyNames(shape).map(id).join(', ');
  return `ALTER TABLE ${quoteTable(table)} ADD CONSTRAINT ${id(constraint)} PRIMARY KEY (${key})`;
}

export function addColumnsSql(table: TableName, columns: readonly TypedColumn[]): string {
  const added = columns.map(({ name, type }) => `ADD COLUMN ${id(name)} ${type}`);
  return `ALTER TABLE ${quoteTable(table)} ${added.join(', ')}`;
}

/** Harmless where they are there: they may be, when the option was on before. */
export function addMetadataSql(table: TableName): string {
  const added = METADATA_COLUMNS.map((name) => `ADD COLUMN IF NOT EXISTS ${id(name)} timestamptz`);
  return `ALTER TABLE ${quoteTable(table)} ${added.join(', ')}`;
}

/** A name of ours in the target's schema: the same for the same target, epoch and plan, and never longer than PostgreSQL's limit. */
export function shadowName(target: TableName, epoch: number, plan: string): TableName {
  return { schema: target.schema, table: `_sluice_shadow_${digest(target, epoch, plan)}` };
}

/** Name of the shadow's key until the swap gives it its own. */
export function shadowKeyName(shadow: TableName): string {
  return `${shadow.table}_key`;
}

/** As PostgreSQL would have named it: the table's name, cut to the limit between two characters, and `_pkey`. */
export function keyName(table: TableName): string {
  return fittingName(table.table, '_pkey');
}

function digest(target: TableName, epoch: number, plan: string): string {
  const parts = JSON.stringify([target.schema, target.table, epoch, plan]);
  return createHash('sha256').update(parts).digest('hex').slice(0, 16);
}
