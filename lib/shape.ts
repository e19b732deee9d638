/**
 * What a stream's rows look like: the columns a segment's lines carry, in order, and the key.
 *
 * A shape travels in the header of each segment, so that the loader needs nothing but the segment to apply it (design §3, Cut and segments).
 */
export interface Column {
  readonly name: string;
  /** OID of the type on the source; the same on every server for built-in types (pg_type.dat). */
  readonly type_oid: number;
  /** The modifier of `numeric(10,2)` and its like (pg_attribute.atttypmod); -1 for none. */
  readonly type_modifier: number;
}

export interface Shape {
  readonly columns: readonly Column[];
  /** Indexes into `columns` of the key, in the order of the columns. Never empty here: a table without a key has no shape yet. */
  readonly key: readonly number[];
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

export function sameShape(a: Shape, b: Shape): boolean {
  return (
    a.columns.length === b.columns.length &&
    a.key.length === b.key.length &&
    a.key.every((column, i) => column === b.key[i]) &&
    a.columns.every((column, i) => {
      const other = b.columns[i];
      return (
        other !== undefined &&
        column.name === other.name &&
        column.type_oid === other.type_oid &&
        column.type_modifier === other.type_modifier
      );
    })
  );
}
