/**
 * What of a stream is compared, and how each server says it: the two sides of a comparison (checksum.ts), from the source's table, the stream's shape on
 * the target, and what both catalogs say of the columns. Pure.
 *
 * Columns are paired by their number on the source, which a rename keeps. Not compared: what the target keeps of columns that are gone, Sluice's metadata, what
 * the file hides, and columns that both sides compute.
 */
import { DELETED_AT } from '../load/columns.ts';
import type { SourceTable } from '../ports.ts';
import { type Projection, projectionFor, REDACTED, type Treatment } from '../projection/projection.ts';
import { partsOf, type Shape, type SourceType, type TableName, type TypeUse } from '../shape.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import type { Side } from './checksum.ts';

/** A server's column, as reader.ts finds it. */
export interface FoundColumn {
  readonly name: string;
  readonly type_oid: number;
  /** No collation has a say in its order, or only "C". */
  readonly plain_order: boolean;
}

/** A table on one server. */
export interface FoundTable {
  /** server_version_num. */
  readonly version: number;
  /** Name of the database's encoding. */
  readonly encoding: string;
  readonly columns: readonly FoundColumn[];
}

export interface Stream {
  /** As the catalog has it, unprojected. */
  readonly table: SourceTable;
  readonly projection: Projection | null;
  /** The file's row filter. */
  readonly where: string | null;
  /** The stream's table on the target, as its row in `_sluice.streams` says. */
  readonly target: TableName;
  readonly shape: Shape;
  readonly metadata: boolean;
}

/**
 * - hashed:    only the hash is on the target
 * - excluded:  the file leaves it out
 * - computed:  both sides compute it
 * - missing:   the target does not have it (yet)
 * - unprinted: servers before 12 write the floating-point numbers in it otherwise
 */
export type NotCompared = 'hashed' | 'excluded' | 'computed' | 'missing' | 'unprinted';

export interface Compared {
  readonly source: Side;
  readonly target: Side;
  /** Names of the key's columns on the source. Empty: rows are compared as a bag, by all that is compared of them. */
  readonly key: readonly string[];
  /** Ranges of the key mean the same rows on both servers. Otherwise only `whole` and `keys` do. */
  readonly ranges: boolean;
  readonly not_compared: readonly { readonly column: string; readonly why: NotCompared }[];
}

/** extra_float_digits above 0 means the shortest text that is exact since 12, and a number of digits before. */
const SHORTEST_FLOATS_SINCE = 120_000;
/** `"char"`, and since when one above 127 is printed as `\ooo`. */
const CHAR_OID = 18;
const CHAR_ESCAPED_SINCE = 160_000;

/** The binary form of types that are made of floating-point numbers: exact on every version. pg_type.dat, pg_proc.dat. */
const SENT: Readonly<Record<number, string>> = {
  600: 'point_send',
  601: 'lseg_send',
  602: 'path_send',
  603: 'box_send',
  604: 'poly_send',
  628: 'line_send',
  718: 'circle_send',
  700: 'float4send',
  701: 'float8send',
  1021: 'array_send',
  1022: 'array_send',
  1017: 'array_send',
};
const SCALAR_FLOATS = new Set([700, 701]);
const FLOAT_OIDS = new Set(Object.keys(SENT).map(Number));

/** Types of which every server has the same order, whatever its collations: pg_type.dat. */
const PLAIN_ORDER_OIDS = [
  16, // bool
  17, // bytea
  20, // int8
  21, // int2
  23, // int4
  26, // oid
  700, // float4
  701, // float8
  829, // macaddr
  774, // macaddr8
  869, // inet
  1082, // date
  1083, // time
  1114, // timestamp
  1184, // timestamptz
  1186, // interval
  1266, // timetz
  1560, // bit
  1562, // varbit
  1700, // numeric
  2950, // uuid
  3220, // pg_lsn
] as const;
/** bpchar, text, varchar, name: ordered by bytes where their collation is "C". */
const TEXT_OIDS = [1042, 25, 1043, 19] as const;
const ORDERED_OIDS = new Set<number>([...PLAIN_ORDER_OIDS, ...TEXT_OIDS]);
const TEXTS = new Set<number>(TEXT_OIDS);

/** Where a row lies and which transaction wrote it: another one after every change of it. Views and foreign tables have none. */
const ROW_VERSION = 'xmin::text || ctid::text || tableoid::text';
const VERSION: Readonly<Record<string, string>> = { r: ROW_VERSION, p: ROW_VERSION, m: ROW_VERSION };

/** The sides of a stream's comparison. Where its key is hidden, a row is known by what else is compared of it. */
export function compared(stream: Stream, at: { readonly source: FoundTable; readonly target: FoundTable }): Compared {
  const { table, shape, where, metadata } = stream;
  const projection = stream.projection && projectionFor(stream.projection, table);
  const treatmentOf = (name: string): Treatment => projection?.treatmentOf(name) ?? 'keep';
  const not_compared: { column: string; why: NotCompared }[] = (table.generated ?? [])
    .filter(({ name }) => !table.columns.some((column) => column.name === name))
    .map(({ name }) => ({ column: name, why: 'computed' as const }));
  const pairs: Pair[] = [];
  for (const column of table.columns) {
    const treatment = treatmentOf(column.name);
    const there = shape.columns.find((one) =>
      column.number === undefined || one.number === undefined ? one.name === column.name : one.number === column.number,
    );
    const found = there && at.target.columns.find(({ name }) => name === there.name);
    const why = whyNot(column, treatment, found, at);
    if (why !== null) not_compared.push({ column: column.name, why });
    if (found === undefined || treatment === 'drop') continue;
    pairs.push({ column, treatment, found, isCompared: why === null, ...expressions(column, treatment, found, at) });
  }
  // The target's key: what the loader knows rows by. Of a view, the source has none.
  const keyPairs = shape.key.map((index) => pairs.find(({ found }) => found.name === shape.columns[index]?.name));
  const key = keyPairs.every((pair) => pair?.isCompared === true && pair.treatment === 'keep')
    ? (keyPairs as Pair[])
    : [];
  const values = pairs.filter(({ isCompared }) => isCompared);
  const sides = { key, values, pairs };
  return {
    source: {
      // Tables that inherit from it are streams of their own.
      from: table.kind !== 'r' ? quoteTable(table) : `ONLY ${quoteTable(table)}`,
      // A line of its own, so that a comment at its end does not swallow the rest.
      conditions: where === null ? [] : [`(${where}\n)`],
      version: VERSION[table.kind] ?? '',
      utf8: at.source.encoding === 'UTF8',
      ...side(sides, 'source'),
    },
    target: {
      from: quoteTable(stream.target),
      conditions: metadata ? [`${quoteIdentifier(DELETED_AT)} IS NULL`] : [],
      version: ROW_VERSION,
      utf8: at.target.encoding === 'UTF8',
      ...side(sides, 'target'),
    },
    key: key.map(({ column }) => column.name),
    ranges: key.length > 0 && key.every((pair) => isOrderedAlike(pair, at)),
    not_compared,
  };
}

interface Pair {
  readonly column: SourceTable['columns'][number];
  readonly treatment: Exclude<Treatment, 'drop'>;
  readonly found: FoundColumn;
  readonly isCompared: boolean;
  /** What is compared, on each side. */
  readonly source: string;
  readonly target: string;
}

type Sides = Readonly<Record<'key' | 'values' | 'pairs', readonly Pair[]>>;

function side(
  { key, values, pairs }: Sides,
  which: 'source' | 'target',
): Pick<Side, 'values' | 'key' | 'key_columns' | 'nameOf'> {
  const nameOf = ({ column, found }: Pair): string => quoteIdentifier(which === 'source' ? column.name : found.name);
  return {
    values: values.map((pair) => pair[which]),
    key: key.map((pair) => pair[which]),
    key_columns: key.map(nameOf),
    nameOf: (name) => {
      const pair = pairs.find(({ column }) => column.name === name);
      if (pair === undefined) throw new RangeError(`column ${name} is not compared`);
      return nameOf(pair);
    },
  };
}

function whyNot(
  column: TypeUse,
  treatment: Treatment,
  found: FoundColumn | undefined,
  at: { readonly source: FoundTable; readonly target: FoundTable },
): NotCompared | null {
  if (treatment === 'drop') return 'excluded';
  if (treatment === 'hash') return 'hashed';
  if (found === undefined) return 'missing';
  if (treatment !== 'keep' || !writesFloatsOtherwise(at) || !holdsFloats(column)) return null;
  return isSentAlike(column, found) ? null : 'unprinted';
}

function expressions(
  column: SourceTable['columns'][number],
  treatment: Exclude<Treatment, 'drop'>,
  found: FoundColumn,
  at: { readonly source: FoundTable; readonly target: FoundTable },
): Pick<Pair, 'source' | 'target'> {
  const [source, target] = [quoteIdentifier(column.name), quoteIdentifier(found.name)];
  if (treatment === 'null') return { source: 'NULL', target };
  if (treatment === 'redact') {
    return { source: `CASE WHEN ${source} IS DISTINCT FROM NULL THEN ${quoteLiteral(REDACTED)} END`, target };
  }
  if (writesFloatsOtherwise(at) && isSentAlike(column, found)) {
    return { source: sentSql(column.type_oid, source), target: sentSql(column.type_oid, target) };
  }
  if (column.type_oid === CHAR_OID && at.source.version < CHAR_ESCAPED_SINCE)
    return { source: charSql(source), target };
  return { source, target };
}

/** NaN has many forms in binary, and one in text. */
function sentSql(type_oid: number, column: string): string {
  const sent = `${SENT[type_oid]}(${column})`;
  return SCALAR_FLOATS.has(type_oid)
    ? `CASE WHEN ${column} <> 'NaN' THEN ${sent}::text ELSE ${column}::text END`
    : sent;
}

/** As servers print it since 16; the extractor and the log write it so. */
function charSql(column: string): string {
  const byte = `(${column}::int4 & 255)`;
  const octal = [`${byte} >> 6`, `(${byte} >> 3) & 7`, `${byte} & 7`].map((digit) => `(${digit})::text`).join(' || ');
  return `CASE WHEN ${column}::int4 < 0 THEN E'\\\\' || ${octal} ELSE ${column}::text END`;
}

function writesFloatsOtherwise({
  source,
  target,
}: {
  readonly source: FoundTable;
  readonly target: FoundTable;
}): boolean {
  return source.version < SHORTEST_FLOATS_SINCE !== target.version < SHORTEST_FLOATS_SINCE;
}

function isSentAlike(column: TypeUse, found: FoundColumn): boolean {
  return FLOAT_OIDS.has(column.type_oid) && found.type_oid === column.type_oid;
}

function holdsFloats({ type_oid, type }: { readonly type_oid: number; readonly type?: SourceType }): boolean {
  return FLOAT_OIDS.has(type_oid) || (type !== undefined && partsOf(type).some(holdsFloats));
}

function isOrderedAlike(
  { column, found }: Pair,
  { source, target }: { readonly source: FoundTable; readonly target: FoundTable },
): boolean {
  const here = source.columns.find(({ name }) => name === column.name);
  if (here === undefined || !ORDERED_OIDS.has(column.type_oid) || found.type_oid !== column.type_oid) return false;
  if (!TEXTS.has(column.type_oid)) return true;
  // By bytes, of the same encoding.
  return here.plain_order && found.plain_order && source.encoding === target.encoding;
}
