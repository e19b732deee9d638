/**
 * The types of the target that columns get, and the making of those that the source has beyond PostgreSQL's own.
 *
 * On the path: `ensureTypes` comes before a chunk or a segment is loaded, and before a table is made; `typeNames` says what its columns are called
 * here. Types are made on a connection of their own and committed, because a label that was added cannot be used by the transaction that added it;
 * what is there is found out on the loader's own, so that the second is opened only when something is to be made. Doing it twice, or by two
 * loaders at once, changes nothing.
 * https://www.postgresql.org/docs/current/sql-altertype.html, sql-createtype.html, sql-createdomain.html
 */
import { SluiceError } from '../errors.ts';
import { isBuiltInSql } from '../postgres/built-in-types.ts';
import { definitionsIn, partsOf, type Shape, type SourceType, type TypeName, type TypeUse } from '../shape.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { makeSchema } from './control.ts';
import { type Connect, LOAD_LIMITS, type Purpose, type Session, type Subject, withSession } from './session.ts';
import { type FoundType, isMade, type MadeType, type Moment, stepsTo, typeSql, typeText } from './type-steps.ts';

/** Pipeline file: target.custom_types. */
export type CustomTypes = 'create' | 'text';

/** Held by whoever makes types; another than control.ts's, which the loader itself may hold. The number only has to be the same everywhere. */
const TYPES_LOCK = 5_071_120_481n;
/** numeric and its array. A scale below zero or above the precision came with 15 (release notes); a server before it gets the type without a modifier. */
const NUMERIC_OIDS = '1700, 1231';
const WIDE_SCALE_SINCE = 150_000;
/** "char" and its array. Since 16 its bytes above 127 are `\ooo` in text, of which a server before it would take the backslash, and say nothing. */
const CHAR_OIDS = '18, 1002';
const CHAR_ESCAPED_SINCE = 160_000;

type NamedType = Exclude<SourceType, { readonly kind: 'array' }>;

/** Types of the target by the source's name for them. */
type Found = ReadonlyMap<string, FoundType>;

/**
 * $1 schemas, $2 names, $3 extensions (null: of none) → the types of these names here. An extension's type is its own wherever that is installed.
 */
const FIND_SQL = `
  SELECT w.n::int4 AS n, t.oid::text, t.typtype::text AS kind, t.typarray::text AS array,
    (SELECT json_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid) AS labels,
    CASE c.relkind WHEN 'c' THEN coalesce((SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') END AS attributes,
    CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) END AS base
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (schema, name, extension, n)
  JOIN pg_type t ON t.typname = w.name::name AND t.typisdefined
  JOIN pg_namespace s ON s.oid = t.typnamespace
  LEFT JOIN pg_class c ON c.oid = t.typrelid
  WHERE CASE WHEN w.extension IS NULL THEN s.nspname = w.schema ELSE EXISTS (SELECT FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
    WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND x.extname = w.extension
      AND (d.classid = 'pg_type'::regclass AND d.objid = t.oid OR d.classid = 'pg_class'::regclass AND d.objid = t.typrelid)) END`;

/**
 * $1 type OIDs, $2 type modifiers, $3 whether the OID is this server's own → the type's name here, in order. A type of PostgreSQL's own has the same
 * OID on every server. Text for what this one does not know; for catalog rows; and for types that are printed and not read (pg_node_tree), or that
 * are read by looking up an object by name, which need not be here (regclass, aclitem).
 * https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CATALOG
 */
const NAMES_SQL = `
  SELECT CASE WHEN t.oid IS NULL THEN 'text'
              WHEN t.oid IN (${CHAR_OIDS}) AND current_setting('server_version_num')::int4 < ${CHAR_ESCAPED_SINCE} THEN 'text'
              WHEN t.oid IN (${NUMERIC_OIDS}) AND current_setting('server_version_num')::int4 < ${WIDE_SCALE_SINCE}
                AND (c.modifier - 4) & 65535 > (c.modifier - 4) >> 16 THEN format_type(t.oid, -1)
              ELSE format_type(t.oid, c.modifier) END AS type
  FROM unnest($1::oid[], $2::int4[], $3::boolean[]) WITH ORDINALITY AS c (oid, modifier, own, n)
  LEFT JOIN pg_type t ON t.oid = c.oid AND (c.own OR ${isBuiltInSql('t')}
    AND t.typname !~ '^_?(reg|aclitem|gtsvector|pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin)')
  ORDER BY c.n`;

/** What `uses` are called on this target, in order, as its SQL writes them: `numeric(10,2)`, `shop.mood[]`. Throws as `ensureTypes` does. */
export async function typeNames(
  session: Session,
  uses: readonly TypeUse[],
  custom_types: CustomTypes,
): Promise<string[]> {
  if (uses.length === 0) return [];
  return await namesOf(session, uses, await find(session, namedTypesOf(uses)), custom_types);
}

/**
 * Makes the types that the shape's columns use and the target lacks, and adds to those whose definition has grown. To be called outside a
 * transaction, or in one that has done nothing to these types.
 *
 * Throws TYPE_TAKEN, TYPE_UNFOLLOWED and TABLE_REWRITTEN (type-steps.ts), TARGET_NOT_ALLOWED with the SQL that gives the right.
 */
export async function ensureTypes(
  connect: Connect,
  session: Session,
  subject: Subject,
  shape: Shape,
  { custom_types, moment }: { readonly custom_types: CustomTypes; readonly moment: Moment },
): Promise<void> {
  if (custom_types === 'text') return;
  const types = namedTypesOf([...shape.columns, ...(shape.generated ?? [])]).filter(isMade);
  if (types.length === 0 || (await allThere(session, subject, types, moment))) return;
  await withSession(connect, subject, (maker) => make(maker, subject, types, moment));
}

/** Every type that has a name, once, after those that it is made of. */
function namedTypesOf(uses: readonly Pick<TypeUse, 'type'>[]): NamedType[] {
  const types = new Map<string, NamedType>();
  for (const type of definitionsIn(uses)) {
    if (type.kind === 'array') continue;
    const key = keyOf(type);
    if (!types.has(key)) types.set(key, type);
  }
  return [...types.values()];
}

function keyOf(type: NamedType): string {
  return JSON.stringify([type.schema, type.name, extensionOf(type)]);
}

function extensionOf(type: NamedType): string | null {
  return type.kind === 'named' ? type.extension : null;
}

/** Types of the target that go by these names. */
export async function find(session: Session, types: readonly NamedType[]): Promise<Found> {
  if (types.length === 0) return new Map();
  const { rows } = await session.query<{ n: number } & FoundType & Record<string, unknown>>(FIND_SQL, [
    types.map(({ schema }) => schema),
    types.map(({ name }) => name),
    types.map(extensionOf),
  ]);
  const found = new Map<string, FoundType>();
  for (const row of rows) {
    const type = types[row.n - 1];
    if (type) found.set(keyOf(type), row);
  }
  return found;
}

/** An OID of this server, or one that is the same on every server; null: text. */
interface Resolved {
  readonly oid: string;
  readonly own: boolean;
}

async function namesOf(
  session: Session,
  uses: readonly TypeUse[],
  found: Found,
  custom_types: CustomTypes,
): Promise<string[]> {
  const resolved = uses.map((use) => resolve(use, found, custom_types));
  const { rows } = await session.query<{ type: string }>(NAMES_SQL, [
    resolved.map((type) => type?.oid ?? '0'),
    uses.map(({ type_modifier }) => type_modifier),
    resolved.map((type) => type?.own ?? false),
  ]);
  return uses.map((_, i) => rows[i]?.type ?? 'text');
}

function resolve(use: TypeUse, found: Found, custom_types: CustomTypes): Resolved | null {
  const { type } = use;
  if (type === undefined) return { oid: String(use.type_oid), own: false };
  if (type.kind === 'array') {
    const element = type.element.type;
    const here = element && element.kind !== 'array' ? ownType(element, found, custom_types) : null;
    return here === null || here.array === '0' ? null : { oid: here.array, own: true };
  }
  const here = ownType(type, found, custom_types);
  return here && { oid: here.oid, own: true };
}

/** The target's own type for it; null: text. */
function ownType(type: NamedType, found: Found, custom_types: CustomTypes): FoundType | null {
  const here = found.get(keyOf(type)) ?? null;
  if (type.kind === 'named') return here !== null && isUsable(type, here) ? here : null;
  if (custom_types === 'text') return null;
  if (here === null) {
    const reason = `type ${typeText(type)} has been dropped`;
    throw new SluiceError('TARGET_TRANSIENT', { stream: typeText(type), reason, sqlstate: '42704' });
  }
  return here;
}

/**
 * A type that is known by its name only is taken for the same where an extension brings it, or where it is a base or range type. The row of a table
 * is not: its text is read by the order of the columns, which is the table's own business here.
 */
function isUsable({ extension }: Extract<NamedType, { kind: 'named' }>, { kind }: FoundType): boolean {
  return extension !== null || kind === 'b' || kind === 'r' || kind === 'm';
}

export type LackingType = Extract<NamedType, { readonly kind: 'named' }>;

/** Of `uses`, and all that they are made of, the types that will be text on the target because it has none of their name. */
export async function lackingTypes(session: Session, uses: readonly TypeUse[]): Promise<LackingType[]> {
  const named = namedTypesOf(uses).filter((type) => type.kind === 'named');
  const found = await find(session, named);
  return named.filter((type) => ownType(type, found, 'create') === null);
}

async function allThere(
  session: Session,
  subject: Subject,
  types: readonly MadeType[],
  moment: Moment,
): Promise<boolean> {
  const found = await find(session, namedTypesOf(types.map((type) => ({ type }))));
  if (types.some((type) => !found.has(keyOf(type)))) return false;
  const uses = types.flatMap(partsOf);
  const names = uses.length === 0 ? [] : await namesOf(session, uses, found, 'create');
  let at = 0;
  return types.every((type) => {
    const parts = names.slice(at, (at += partsOf(type).length));
    const { together, alone } = stepsTo(subject.stream, type, parts, found.get(keyOf(type)) ?? null, moment);
    return together.length + alone.length === 0;
  });
}

async function make(session: Session, subject: Subject, types: readonly MadeType[], moment: Moment): Promise<void> {
  const alone: (readonly [type: MadeType, sql: string])[] = [];
  const work = async (): Promise<void> => {
    for (const type of types) {
      const found = await find(session, namedTypesOf([{ type }]));
      const parts = await namesOf(session, partsOf(type), found, 'create');
      const steps = stepsTo(subject.stream, type, parts, found.get(keyOf(type)) ?? null, moment);
      if (!found.has(keyOf(type))) await makeSchemaOf(session, type);
      const purpose = found.has(keyOf(type)) ? mayAlter(session, type) : mayMake(session, type);
      for (const sql of steps.together) await session.run(sql, purpose);
      alone.push(...steps.alone.map((sql) => [type, sql] as const));
    }
  };
  await session.transaction(LOAD_LIMITS, work, `SELECT pg_advisory_xact_lock(${TYPES_LOCK})`);
  // Each is a transaction by itself: before PostgreSQL 12 it may not stand in a block, nor beside other statements.
  for (const [type, sql] of alone) await session.query(sql, [], mayAlter(session, type));
}

async function makeSchemaOf(session: Session, { schema }: TypeName): Promise<void> {
  const { rowCount } = await session.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema]);
  if (rowCount === 0) await makeSchema(session, schema);
}

function mayMake(session: Session, type: MadeType): Purpose {
  return {
    action: `make type ${typeText(type)}`,
    grant_sql: `GRANT USAGE, CREATE ON SCHEMA ${quoteIdentifier(type.schema)} TO ${quoteIdentifier(session.user)}`,
  };
}

function mayAlter(session: Session, type: MadeType): Purpose {
  const kind = type.kind === 'domain' ? 'DOMAIN' : 'TYPE';
  return {
    action: `alter type ${typeText(type)}`,
    grant_sql: `ALTER ${kind} ${typeSql(type)} OWNER TO ${quoteIdentifier(session.user)}`,
  };
}
