/**
 * The source's tables as the catalog knows them, in one query: what can be captured, and what planning a copy needs (port SourceTable).
 *
 * Built by server version, because columns of the catalog came with time. Nothing here locks a table: a size that would need a lock is an
 * estimate (pg_class), and an expression the names in it, unless one table is asked for by name.
 * Catalogs: https://www.postgresql.org/docs/current/catalog-pg-class.html, catalog-pg-attribute.html, catalog-pg-index.html
 */
import type { Client } from 'pg';
import type { SourceTable } from '../ports.ts';
import { serverVersion } from '../postgres/session.ts';
import { GENERATED_COLUMNS_SINCE } from '../postgres/versions.ts';
import type { GeneratedColumn } from '../shape.ts';
import { definitionSql, filenodeSql } from './describe.ts';
import { FOLD_SINCE, partitionsSql } from './partitions.ts';

/** Major versions, as server_version_num gives them. */
const INCLUDED_COLUMNS_SINCE = 110_000;
const NEVER_ANALYSED_SINCE = 140_000;

export interface CatalogRow {
  readonly oid: string;
  readonly schema: string;
  readonly table: string;
  readonly kind: string;
  readonly persistence: string;
  readonly replica_identity: string;
  readonly filenode: string;
  readonly definition: string;
  readonly greatest: number;
  readonly columns:
    | readonly [name: string, type_oid: number, type_modifier: number, not_null: boolean, number: number][]
    | null;
  readonly generated:
    | readonly [
        name: string,
        type_oid: number,
        type_modifier: number,
        number: number,
        expression: string,
        storage: GeneratedColumn['storage'],
      ][]
    | null;
  readonly key: readonly string[] | null;
  readonly primary_key: readonly string[] | null;
  readonly may_select: boolean;
  readonly row_security: boolean;
  readonly rows_estimate: number;
  readonly pages: number;
  readonly toasted: boolean;
  readonly ancestors: readonly number[] | null;
  readonly partitions: readonly [oid: number, mark: string][] | null;
}

/**
 * What the generated column `a` is computed from, of its table, as names: to print the expression takes a lock, which a VACUUM FULL of the table keeps from everybody, and
 * with it all who wait for the window. It depends on them, by its default (15+) or by itself; on the whole row (0) too where it is named.
 */
const USED_COLUMNS_SQL = `COALESCE((
               SELECT string_agg(COALESCE(quote_ident(u.attname), a.attrelid::regclass::text || '.*'), ', ')
                 FROM pg_depend e
                 LEFT JOIN pg_attribute u ON u.attrelid = e.refobjid AND u.attnum = e.refobjsubid AND e.refobjsubid <> 0
                WHERE (e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid
                       OR e.classid = 'pg_class'::regclass AND e.objid = a.attrelid AND e.objsubid = a.attnum)
                  AND e.refclassid = 'pg_class'::regclass AND e.refobjid = a.attrelid AND e.refobjsubid <> a.attnum), '')`;

/**
 * SQL that reads the tables, their columns and their keys. `one`: parameters $1 (schema) and $2 (table) name the only table that is asked for,
 * its pages are what they are now, and its generated columns have their expressions; this waits for whoever has it locked exclusively.
 */
export function tablesSql(version: number, one: boolean): string {
  const plain = version >= GENERATED_COLUMNS_SINCE ? "AND a.attgenerated = ''" : '';
  const generated =
    version >= GENERATED_COLUMNS_SINCE
      ? `SELECT a.attrelid,
             json_agg(json_build_array(a.attname, a.atttypid::int8, a.atttypmod, a.attnum, ${one ? 'pg_get_expr(d.adbin, d.adrelid)' : USED_COLUMNS_SQL}, a.attgenerated::text)
                      ORDER BY a.attnum) AS generated
        FROM pg_attribute a
        JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
       WHERE a.attrelid IN (SELECT oid FROM wanted)
         AND a.attnum > 0
         AND NOT a.attisdropped
         AND a.attgenerated <> ''
       GROUP BY a.attrelid`
      : 'SELECT 0::oid AS attrelid, NULL::json AS generated WHERE false';
  const keyColumns = version >= INCLUDED_COLUMNS_SINCE ? 'i.indnkeyatts' : 'i.indnatts';
  // Before 14, a table that was never analysed says 0 rows and 0 pages.
  const rows =
    version >= NEVER_ANALYSED_SINCE
      ? 'c.reltuples'
      : 'CASE WHEN c.reltuples = 0 AND c.relpages = 0 THEN -1 ELSE c.reltuples END';
  const pagesNow = `(pg_relation_size(c.oid) / current_setting('block_size')::int8)`;
  // The estimate grows and shrinks with the table, as the planner's own does.
  const rowsNow = `CASE WHEN c.relpages > 0 AND c.reltuples >= 0 AND c.relkind IN ('r', 'm') THEN c.reltuples::float8 / c.relpages * ${pagesNow} ELSE ${rows} END`;
  return `
    WITH RECURSIVE wanted AS (
      SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relnamespace, c.relrowsecurity,
             c.reltuples, c.relpages, c.reltoastrelid, c.relfilenode, c.relnatts, n.nspname
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
         AND c.relpersistence <> 't'
         AND n.nspname !~ '^pg_'
         AND n.nspname NOT IN ('information_schema', '_sluice')
         ${one ? 'AND n.nspname = $1 AND c.relname = $2' : ''}
    ), columns AS (
      SELECT a.attrelid,
             json_agg(json_build_array(a.attname, a.atttypid::int8, a.atttypmod, a.attnotnull, a.attnum) ORDER BY a.attnum) AS columns
        FROM pg_attribute a
       WHERE a.attrelid IN (SELECT oid FROM wanted)
         AND a.attnum > 0
         AND NOT a.attisdropped
         ${plain}
       GROUP BY a.attrelid
    ), generated AS (
      ${generated}
    ), keys AS (
      SELECT i.indrelid, json_agg(a.attname ORDER BY k.place) AS key
        FROM pg_index i
        JOIN wanted c ON c.oid = i.indrelid
       CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
       WHERE k.place <= ${keyColumns}
         -- A deferrable key is not unique in the middle of a transaction, and PostgreSQL takes none as replica identity either.
         AND i.indisunique AND i.indimmediate AND i.indisvalid
         AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
       GROUP BY i.indrelid
    ), primary_keys AS (
      SELECT i.indrelid, json_agg(a.attname ORDER BY k.place) AS key
        FROM pg_index i
       CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
       WHERE i.indrelid IN (SELECT oid FROM wanted) AND k.place <= ${keyColumns} AND i.indisprimary AND i.indisvalid
       GROUP BY i.indrelid
    ), ${partitionsSql(version, one, { rows: one ? rowsNow : rows, pages: one ? pagesNow : 'c.relpages' })}
    SELECT c.oid::text,
           c.nspname AS schema,
           c.relname AS table,
           c.relkind::text AS kind,
           c.relpersistence::text AS persistence,
           c.relreplident::text AS replica_identity,
           ${filenodeSql('c')} AS filenode,
           COALESCE(${definitionSql('c')}, '') AS definition,
           c.relnatts::int4 AS greatest,
           columns.columns,
           generated.generated,
           keys.key,
           primary_keys.key AS primary_key,
           has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS may_select,
           c.relrowsecurity AND row_security_active(c.oid) AS row_security,
           COALESCE(below.rows, ${one ? rowsNow : rows})::float8 AS rows_estimate,
           COALESCE(below.pages, ${one ? `CASE WHEN c.relkind IN ('r', 'm') THEN ${pagesNow} ELSE 0 END` : 'c.relpages'})::float8 AS pages,
           COALESCE(below.toasted, c.reltoastrelid <> 0 AND ${one ? 'pg_relation_size(c.reltoastrelid) > 0' : 'true'}) AS toasted,
           above.ancestors,
           ${version >= FOLD_SINCE ? "CASE WHEN c.relkind = 'p' THEN COALESCE(below.partitions, '[]') END" : 'NULL::json'} AS partitions
      FROM wanted c
      LEFT JOIN columns ON columns.attrelid = c.oid
      LEFT JOIN generated ON generated.attrelid = c.oid
      LEFT JOIN keys ON keys.indrelid = c.oid
      LEFT JOIN primary_keys ON primary_keys.indrelid = c.oid
      LEFT JOIN above ON above.oid = c.oid
      LEFT JOIN below ON below.root = c.oid
     ORDER BY c.nspname, c.relname`;
}

/** One row of `tablesSql` as a SourceTable. */
export function tableOf({ ancestors, partitions, ...row }: CatalogRow): SourceTable {
  return {
    ...row,
    ...(ancestors === null ? {} : { partition_of: ancestors }),
    ...(partitions === null ? {} : { partitions: partitions.map(([oid, mark]) => ({ oid, mark })) }),
    oid: Number(row.oid),
    columns: (row.columns ?? []).map(([name, type_oid, type_modifier, not_null, number]) => ({
      name,
      type_oid,
      type_modifier,
      not_null,
      number,
    })),
    generated: (row.generated ?? []).map(([name, type_oid, type_modifier, number, expression, storage]) => ({
      name,
      type_oid,
      type_modifier,
      number,
      expression,
      storage,
    })),
    // REPLICA IDENTITY NOTHING: the log has no old row, whatever the primary key.
    key: row.replica_identity === 'n' ? [] : (row.key ?? []),
    primary_key: row.primary_key ?? [],
    rows_estimate: Math.round(row.rows_estimate),
  };
}

/** Every table that `client` sees. */
export async function readTables(client: Client): Promise<SourceTable[]> {
  const { rows } = await client.query<CatalogRow>(tablesSql(await serverVersion(client), false));
  return rows.map(tableOf);
}
