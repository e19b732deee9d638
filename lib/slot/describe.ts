/**
 * What the source's catalog says of tables and types that the log names by OID (Source.describe): numbers of columns, those that were dropped, what
 * older rows have in a column that was added, and whether rows were written anew. The log says none of it.
 *
 * Tables are read by one statement, so that they are of one moment; types by another. Nothing is locked.
 * https://www.postgresql.org/docs/current/catalog-pg-attribute.html
 */
import type { Client } from 'pg';
import type { Described } from '../ports.ts';
import { serverVersion } from '../postgres/session.ts';
import { GENERATED_COLUMNS_SINCE } from '../postgres/versions.ts';
import type { DescribedColumn, TableDescription } from '../shape.ts';
import { treeSql } from './partitions.ts';
import { readTypes } from './types.ts';

/** Fast defaults: pg_attribute.attmissingval. */
const MISSING_VALUES_SINCE = 110_000;

/**
 * TableDescription.filenode of the pg_class row `c`: of the same moment as its columns, which pg_relation_filenode() would not be. A partitioned table
 * has no rows of its own: it has a digest of its leaves and their files.
 */
export function filenodeSql(c: string): string {
  return `CASE WHEN ${c}.relkind <> 'p' THEN ${c}.relfilenode::text ELSE (
    WITH RECURSIVE ${treeSql(`${c}.oid`)}
    SELECT COALESCE(md5(string_agg(l.oid::text || ':' || l.relfilenode::text, ',' ORDER BY l.oid)), 'none')
      FROM tree JOIN pg_class l ON l.oid = tree.oid AND l.relkind <> 'p') END`;
}

/** TableDescription.definition of the pg_class row `c`: a change of a column writes its row of the catalog anew, by another transaction. */
export function definitionSql(c: string): string {
  return `(SELECT md5(string_agg(d.attnum::text || ':' || d.xmin::text, ',' ORDER BY d.attnum))
             FROM pg_attribute d WHERE d.attrelid = ${c}.oid AND d.attnum > 0)`;
}

/** Tables by OID, $1. One row a table, its columns as arrays in the order of attnum. */
function describeSql(version: number): string {
  const generated = version >= GENERATED_COLUMNS_SINCE ? 'a.attgenerated::text' : `''`;
  const columnsOf = (where: string, missing: string): string => `
    SELECT json_agg(json_build_array(a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attisdropped, ${generated}, ${missing})
                    ORDER BY a.attnum)
      FROM pg_attribute a LEFT JOIN pg_type t ON t.oid = a.atttypid
     WHERE ${where} AND a.attnum > 0`;
  return `
    SELECT c.oid::text, ${filenodeSql('c')} AS filenode, COALESCE(${definitionSql('c')}, '') AS definition,
           (${columnsOf('a.attrelid = c.oid', missingSql(version))}) AS columns
      FROM pg_class c
     WHERE c.oid = ANY ($1::oid[])`;
}

/**
 * The value is kept as an array of one element, in an array of any type: its element is what array_in makes of its text, as text. A box's delimiter,
 * and that of an array of them, is a semicolon, and the comma would divide it; its text has nothing that quotes would escape.
 */
function missingSql(version: number): string {
  if (version < MISSING_VALUES_SINCE) return 'NULL::text';
  const text = (a: string, t: string): string =>
    `CASE WHEN ${t}.typdelim = ',' THEN (${a}.attmissingval::text::text[])[1]
          ELSE regexp_replace(${a}.attmissingval::text, '^\\{"?|"?\\}$', '', 'g') END`;
  // Of a partitioned table, the leaves' by the column's name, where all of them have the same one.
  const leaves = `(
    WITH RECURSIVE ${treeSql('c.oid')}, leaf AS (
      SELECT CASE WHEN b.atthasmissing THEN ${text('b', 't')} END AS missing
        FROM tree JOIN pg_class l ON l.oid = tree.oid AND l.relkind <> 'p'
        LEFT JOIN pg_attribute b ON b.attrelid = l.oid AND b.attname = a.attname AND NOT b.attisdropped
    )
    SELECT CASE WHEN count(DISTINCT missing) = 1 AND count(missing) = count(*) THEN min(missing) END FROM leaf)`;
  return `CASE WHEN a.attisdropped THEN NULL WHEN c.relkind = 'p' THEN ${leaves} WHEN a.atthasmissing THEN ${text('a', 't')} END`;
}

interface DescribedRow {
  readonly oid: string;
  readonly filenode: string;
  readonly definition: string;
  readonly columns:
    | readonly [
        number: number,
        name: string,
        type_oid: number,
        type_modifier: number,
        dropped: boolean,
        generated: DescribedColumn['generated'],
        missing: string | null,
      ][]
    | null;
}

export async function describe(
  client: Client,
  tables: readonly number[],
  types: readonly number[],
): Promise<Described> {
  const version = await serverVersion(client);
  const described = new Map<number, TableDescription>();
  if (tables.length > 0) {
    const { rows } = await client.query<DescribedRow>(describeSql(version), [tables]);
    for (const row of rows) described.set(Number(row.oid), descriptionOf(row));
  }
  return { tables: described, types: types.length === 0 ? new Map() : await readTypes(client, types) };
}

function descriptionOf({ oid, filenode, definition, columns }: DescribedRow): TableDescription {
  return {
    oid: Number(oid),
    filenode,
    definition,
    columns: (columns ?? []).map(([number, name, type_oid, type_modifier, dropped, generated, missing]) => ({
      number,
      name,
      type_oid,
      type_modifier,
      dropped,
      generated,
      missing,
    })),
  };
}
