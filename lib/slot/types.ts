/**
 * Definitions of the types that PostgreSQL does not bring with it, as the source's catalog has them (shape.ts, SourceType).
 *
 * On the path: what `Source.describe` and the tables' catalog say of a column beside its OID, so that the target can make the same type, or find
 * its own. One query follows domains, arrays and composites down to built-in types; assembling its rows is pure.
 * Catalogs: https://www.postgresql.org/docs/current/catalog-pg-type.html, catalog-pg-enum.html, catalog-pg-attribute.html, catalog-pg-depend.html
 */
import type { Client } from 'pg';
import { isBuiltInSql } from '../postgres/built-in-types.ts';
import type { SourceType, TypeUse } from '../shape.ts';

/** Types within types. PostgreSQL has no limit, but no type contains itself; what lies deeper is known by its name only. */
const TYPE_DEPTH_MAX = 32;

/** One type and what it is made of. */
export interface TypeRow {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  /** pg_type.typtype: b base, c composite, d domain, e enum, r range, m multirange, p pseudo. */
  readonly kind: string;
  readonly extension: string | null;
  /** Of an array, as CREATE TYPE makes one beside each type; else null. */
  readonly element: string | null;
  /** Of a domain: OID and modifier. */
  readonly base: string;
  readonly base_modifier: number;
  readonly labels: readonly string[] | null;
  /** Of a type made by CREATE TYPE … AS: name, OID, modifier of each attribute. Null for the row of a table, or no composite. */
  readonly attributes: readonly (readonly [name: string, type_oid: number, type_modifier: number])[] | null;
}

/** $1 OIDs → those types, and all that they are made of, but for built-in ones. */
const TYPES_SQL = `
  WITH RECURSIVE wanted AS (
    SELECT t.oid, t.typtype, t.typbasetype, t.typrelid,
           (SELECT e.oid FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) AS element
      FROM pg_type t
     WHERE t.oid = ANY ($1::oid[]) AND NOT ${isBuiltInSql('t')}
    UNION
    SELECT t.oid, t.typtype, t.typbasetype, t.typrelid,
           (SELECT e.oid FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
      FROM wanted w
     CROSS JOIN LATERAL (
           SELECT w.typbasetype WHERE w.typtype = 'd'
           UNION ALL
           SELECT w.element WHERE w.element IS NOT NULL
           UNION ALL
           SELECT a.atttypid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.oid = w.typrelid AND c.relkind = 'c' AND a.attnum > 0 AND NOT a.attisdropped
         ) AS part (oid)
      JOIN pg_type t ON t.oid = part.oid
     WHERE NOT ${isBuiltInSql('t')}
  )
  SELECT t.oid::text,
         n.nspname::text AS schema,
         t.typname::text AS name,
         t.typtype::text AS kind,
         (SELECT x.extname::text FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
           WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
             AND (d.classid = 'pg_type'::regclass AND d.objid = t.oid OR d.classid = 'pg_class'::regclass AND d.objid = t.typrelid)
           LIMIT 1) AS extension,
         w.element::text AS element,
         t.typbasetype::text AS base,
         t.typtypmod AS base_modifier,
         (SELECT json_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid) AS labels,
         CASE c.relkind WHEN 'c' THEN coalesce(
           (SELECT json_agg(json_build_array(a.attname, a.atttypid::int8, a.atttypmod) ORDER BY a.attnum)
              FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') END AS attributes
    FROM wanted w
    JOIN pg_type t ON t.oid = w.oid
    JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_class c ON c.oid = t.typrelid`;

/**
 * Definitions of `oids`, by OID: of those that are not built in. One that is gone is not in the answer.
 *
 * Reads the catalog only, which every role may; takes part in the caller's transaction.
 */
export async function readTypes(client: Client, oids: Iterable<number>): Promise<ReadonlyMap<number, SourceType>> {
  const wanted = [...new Set(oids)];
  if (wanted.length === 0) return new Map();
  const { rows } = await client.query<TypeRow>(TYPES_SQL, [wanted]);
  return assembleTypes(rows, wanted);
}

/** The definitions of `wanted` out of the rows of types, each with all that it is made of. Pure. */
export function assembleTypes(rows: readonly TypeRow[], wanted: readonly number[]): ReadonlyMap<number, SourceType> {
  const byOid = new Map(rows.map((row) => [Number(row.oid), row]));

  const use = (type_oid: number, type_modifier: number, depth: number): TypeUse => {
    const row = byOid.get(type_oid);
    return row === undefined ? { type_oid, type_modifier } : { type_oid, type_modifier, type: typeOf(row, depth + 1) };
  };

  const typeOf = (row: TypeRow, depth: number): SourceType => {
    const { schema, name, extension, element, kind } = row;
    const named: SourceType = { kind: 'named', schema, name, extension };
    if (depth > TYPE_DEPTH_MAX) return named;
    if (element !== null) return { kind: 'array', element: use(Number(element), -1, depth) };
    if (extension !== null) return named;
    if (kind === 'e') return { kind: 'enum', schema, name, labels: row.labels ?? [] };
    if (kind === 'd') return { kind: 'domain', schema, name, base: use(Number(row.base), row.base_modifier, depth) };
    if (row.attributes !== null) {
      const attributes = row.attributes.map(([attribute, type_oid, type_modifier]) => ({
        name: attribute,
        ...use(type_oid, type_modifier, depth),
      }));
      return { kind: 'composite', schema, name, attributes };
    }
    return named;
  };

  const types = new Map<number, SourceType>();
  for (const oid of wanted) {
    const row = byOid.get(oid);
    if (row !== undefined) types.set(oid, typeOf(row, 0));
  }
  return types;
}
