/**
 * The statements that make, grow and replace a stream's table, as text; and the types its columns get.
 *
 * A type of PostgreSQL's own has the same OID on every server, so the target names it by itself (`format_type`); any other becomes text, as do
 * types whose text the target cannot read back as it is.
 */
import { createHash } from 'node:crypto';
import type { Column, Shape, TableName } from '../shape.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import { BATCHED_AT, DELETED_AT, EXTRACTED_AT, keyNames, METADATA_COLUMNS } from './growth.ts';
import type { Session } from './session.ts';

/** FirstGenbkiObjectId (access/transam.h): OIDs below are assigned by hand and stay; those above differ between versions. */
const STABLE_OID_END = 10_000;
/** NAMEDATALEN - 1. */
const IDENTIFIER_BYTES_MAX = 63;
/**
 * A setting of the transaction: rows that a COPY brings into a shadow table take their `_sdc_extracted_at` from here. Seconds since the Unix
 * epoch, because reading those takes a quarter of the time that a timestamp's text takes, for every row.
 */
const EXTRACTED_AT_SETTING = 'sluice.extracted_at';

export function setExtractedAtSql(extracted_at: string): string {
  return `SELECT set_config('${EXTRACTED_AT_SETTING}', extract(epoch FROM ${quoteLiteral(extracted_at)}::timestamptz)::text, true)`;
}

const id = quoteIdentifier;

/**
 * $1 type OIDs, $2 type modifiers → the type's name on this server, in order. Text for what it does not know; for catalog rows; and for types that
 * are printed and not read (pg_node_tree), or that are read by looking up an object by name (regclass, aclitem).
 * https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CATALOG
 */
const TYPE_NAMES_SQL = `
  SELECT CASE WHEN t.oid IS NULL THEN 'text' ELSE format_type(t.oid, c.modifier) END AS type
  FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY AS c (oid, modifier, n)
  LEFT JOIN pg_type t ON t.oid = c.oid AND t.oid < ${STABLE_OID_END} AND t.typtype IN ('b', 'r', 'm')
    AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typtype NOT IN ('b', 'r', 'm'))
    AND t.typname !~ '^_?(reg|aclitem|gtsvector|pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin)'
  ORDER BY c.n`;

export interface TypedColumn {
  readonly name: string;
  /** As the target writes it: `numeric(10,2)`. */
  readonly type: string;
}

/** The columns with their types on this target. */
export async function typedColumns(session: Session, columns: readonly Column[]): Promise<TypedColumn[]> {
  const { rows } = await session.query<{ type: string }>(TYPE_NAMES_SQL, [
    columns.map(({ type_oid }) => type_oid),
    columns.map(({ type_modifier }) => type_modifier),
  ]);
  return columns.map(({ name }, i) => ({ name, type: rows[i]?.type ?? 'text' }));
}

/**
 * The shadow table: logged (it becomes the real one), key columns NOT NULL, the others as they come. Its metadata columns have defaults while it
 * is copied into, so that COPY needs no detour.
 */
export function createShadowSql(
  shadow: TableName,
  shape: Shape,
  columns: readonly TypedColumn[],
  metadata: boolean,
): string {
  const key = keyNames(shape);
  const definitions = columns.map(({ name, type }) => `${id(name)} ${type}${key.includes(name) ? ' NOT NULL' : ''}`);
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
  const suffix = '_pkey';
  let stem = '';
  for (const character of table.table) {
    if (Buffer.byteLength(stem + character + suffix) > IDENTIFIER_BYTES_MAX) break;
    stem += character;
  }
  return stem + suffix;
}

function digest(target: TableName, epoch: number, plan: string): string {
  const parts = JSON.stringify([target.schema, target.table, epoch, plan]);
  return createHash('sha256').update(parts).digest('hex').slice(0, 16);
}
