/**
 * Which types are PostgreSQL's own, as SQL: source and target must mean the same ones, for these travel by their OID alone.
 */
import { OWN_TYPE_OID_END } from '../shape.ts';

/**
 * SQL condition: type `t` is PostgreSQL's own on every server, under this OID. Row types of its catalogs are not, for they differ between versions.
 * Enum, domain and composite types of its own have no such OID (those of information_schema are made by initdb).
 */
export function isBuiltInSql(t: string): string {
  return `(${t}.oid < ${OWN_TYPE_OID_END} AND ${t}.typtype IN ('b', 'r', 'm')
    AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = ${t}.typelem AND e.typtype NOT IN ('b', 'r', 'm')))`;
}
