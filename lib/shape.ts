/**
 * What a stream's rows look like: the columns a segment's lines carry, in order, and the key.
 *
 * A shape travels in the header of each segment, so that the loader needs nothing but the segment to apply it (design §3, Cut and segments).
 */
export interface Column extends TypeUse {
  readonly name: string;
  /**
   * pg_attribute.attnum on the source: what a column is known by, for a rename keeps it and no other column ever gets it. Absent where only the log
   * has told of the column, which does not say it.
   */
  readonly number?: number;
}

/** A type with its modifier, as a column, an attribute or a domain uses it. */
export interface TypeUse {
  /** OID of the type on the source; the same on every server for built-in types (pg_type.dat). */
  readonly type_oid: number;
  /** The modifier of `numeric(10,2)` and its like (pg_attribute.atttypmod); -1 for none. */
  readonly type_modifier: number;
  /** What the type is, where it is not one of PostgreSQL's own. */
  readonly type?: SourceType;
}

/**
 * A type that PostgreSQL does not bring with it, as the source's catalog defines it: all that the target needs to make it, or to find its own.
 *
 * - enum:      `labels` in their order
 * - domain:    over `base`. Its checks and NOT NULL stay with the source, which has made them
 * - composite: a type made by CREATE TYPE … AS (…), not the row of a table
 * - array:     of `element`, which is never a built-in type
 * - named:     any other (of an extension, a base or range type of the user's, the row of a table): known by its name only
 */
export type SourceType =
  | (TypeName & { readonly kind: 'enum'; readonly labels: readonly string[] })
  | (TypeName & { readonly kind: 'domain'; readonly base: TypeUse })
  | (TypeName & { readonly kind: 'composite'; readonly attributes: readonly (TypeUse & { readonly name: string })[] })
  | { readonly kind: 'array'; readonly element: TypeUse }
  | (TypeName & { readonly kind: 'named'; readonly extension: string | null });

export interface TypeName {
  readonly schema: string;
  readonly name: string;
}

export interface Shape {
  readonly columns: readonly Column[];
  /** Indexes into `columns` of the key, in the order of the columns. Empty: a table without a key, kept as a multiset or appended to. */
  readonly key: readonly number[];
  /** TableDescription.filenode, where the shape was read from the catalog. */
  readonly filenode?: string;
  /** TableDescription.definition, likewise. */
  readonly definition?: string;
  /** The greatest number that any column of it has had (pg_class.relnatts), that of a dropped one as well. */
  readonly greatest?: number;
  /** Numbers of columns that the source has, and of which the stream has other values or none (lib/projection): what the target has of them must go. */
  readonly hidden?: readonly number[];
  /** Columns that the source computes and the log does not carry: made as such on the target where they can be. */
  readonly generated?: readonly GeneratedColumn[];
  /** Of a table on the target: its columns that stand for keys of its json columns (lib/load/flatten.ts). */
  readonly flattened?: Flattened;
}

/** The columns beside json columns, as a table on the target has them. */
export interface Flattened {
  /** Down to here keys have been looked for in all of its rows (target.data_flattening_max_level). */
  readonly level: number;
  readonly columns: readonly FlattenedColumn[];
  /** There were more keys than can have columns, and that has been told. */
  readonly is_full: boolean;
}

export type FlattenedKind = 'text' | 'numeric' | 'boolean' | 'jsonb';

export interface FlattenedColumn {
  readonly name: string;
  /** Name of the json column that it stands beside. */
  readonly of: string;
  /** The keys that lead to its value. */
  readonly path: readonly string[];
  readonly kind: FlattenedKind;
  /** It shows objects as well: its key was at the last level. */
  readonly objects: boolean;
}

/** A column that is computed from others of its row. */
export interface GeneratedColumn extends Column {
  /** pg_get_expr of it; in a look at all tables (Source.tables) only the names of the columns in it, for that takes no lock. */
  readonly expression: string;
  /** pg_attribute.attgenerated: s stored, v virtual (18+). */
  readonly storage: 's' | 'v';
}

/** A table as the source's catalog has it at one moment: what the log does not say of it. */
export interface TableDescription {
  readonly oid: number;
  /** Changes when the table's rows are written anew, as ALTER TABLE may do without a word in the log. pg_relation_filenode; of a partitioned table, of all its partitions. */
  readonly filenode: string;
  /**
   * Digest of the columns' rows in the catalog: another one after any ALTER of a column. With another file node, an ALTER may have written the rows anew,
   * also where names and types are the same (ALTER … TYPE int USING x + 1); with the same definition, it was VACUUM FULL, CLUSTER or TRUNCATE.
   */
  readonly definition?: string;
  /** In the order of `number`; those that were dropped as well, and those that are generated. */
  readonly columns: readonly DescribedColumn[];
}

export interface DescribedColumn extends Column {
  readonly number: number;
  /** Its name and type are gone. */
  readonly dropped: boolean;
  /** pg_attribute.attgenerated: empty for an ordinary column. */
  readonly generated: '' | 's' | 'v';
  /** What rows that are older than the column have in it, as text (pg_attribute.attmissingval, 11+). Null: nothing is known; it is NULL if the rows were not written anew. */
  readonly missing: string | null;
}

/** The name of a source table. Both halves are the catalog's own spelling, unquoted. */
export interface TableName {
  readonly schema: string;
  readonly table: string;
}

export function displayName(name: TableName): string {
  return `${name.schema}.${name.table}`;
}

/** Tells any two tables apart, as `displayName` does not: a name may hold a dot, and no name holds a zero byte. */
export function tableKey({ schema, table }: TableName): string {
  return `${schema}\0${table}`;
}

/** FirstGenbkiObjectId (access/transam.h): types with lower OIDs are PostgreSQL's own, and the same on every server. */
export const OWN_TYPE_OID_END = 10_000;

/** OIDs of the types that may have to be described: those that are not PostgreSQL's own. */
export function customTypeOids(columns: readonly TypeUse[]): number[] {
  return [...new Set(columns.map(({ type_oid }) => type_oid))].filter((oid) => oid >= OWN_TYPE_OID_END);
}

/** `columns`, each with the definition of its type where it has one. */
export function withTypes<T extends TypeUse>(columns: readonly T[], types: ReadonlyMap<number, SourceType>): T[] {
  return columns.map((column) => {
    const type = types.get(column.type_oid);
    return type === undefined ? column : { ...column, type };
  });
}

/** What a type is made of directly: an array's element, a domain's base, a composite's attributes in order. */
export function partsOf(type: SourceType): readonly TypeUse[] {
  switch (type.kind) {
    case 'array':
      return [type.element];
    case 'domain':
      return [type.base];
    case 'composite':
      return type.attributes;
    case 'enum':
    case 'named':
      return [];
    default:
      return type satisfies never;
  }
}

/** Every definition in `uses`, each after those that it is made of, and as often as it is used. */
export function* definitionsIn(uses: readonly Pick<TypeUse, 'type'>[]): Generator<SourceType> {
  for (const { type } of uses) {
    if (type === undefined) continue;
    yield* definitionsIn(partsOf(type));
    yield type;
  }
}

/** Whether some text of `uses` depends on a definition that may change without a word in the log: labels of an enum, attributes of a composite. */
export function mayChangeUnseen(uses: readonly Pick<TypeUse, 'type'>[]): boolean {
  for (const { kind } of definitionsIn(uses)) if (kind === 'enum' || kind === 'composite') return true;
  return false;
}

export function sameType(a: TypeUse, b: TypeUse): boolean {
  return a.type_oid === b.type_oid && a.type_modifier === b.type_modifier;
}

/** Same name and type, which is all that the log tells of a column. */
export function looksAlike(a: Column, b: Column): boolean {
  return a.name === b.name && sameType(a, b);
}
