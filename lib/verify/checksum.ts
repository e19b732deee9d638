/**
 * Checksums of rows as SQL, the same text on two servers: what `verify` compares, and a resync before it copies. Pure.
 *
 * How it is used (compared.ts makes the two sides, reader.ts runs the statements):
 *
 *     const { source, target } = compared(…)
 *     bucketsSql(source, range, 64)          → rows of (bucket, rows, sum), on the source
 *     bucketsSql(target, range, 64)          → the same, on the target: buckets that differ hold rows that differ
 *     digestsSql(source, range, {…})         → rows of (place, key, digest), in an order that both servers share
 *
 * A row's digest is the MD5 of its text as bytes of UTF-8, so that neither encoding nor collation counts; the sum of 64 bits of each, with the number
 * of rows, is the checksum of a set, whatever order it is read in. A key's place is the MD5 of the key's text: it says the bucket, and is an order of
 * keys that no collation has a say in. https://www.postgresql.org/docs/current/functions-binarystring.html
 */
import { rangeConditions } from '../epoch/range-sql.ts';
import type { ChunkRange } from '../ports.ts';
import { quoteLiteral } from '../sql-text.ts';

/** A table on one server, as it is compared. All texts are SQL. */
export interface Side {
  /** What rows are read from: `ONLY "public"."a"`. */
  readonly from: string;
  /** What is compared of a row, in the order that both sides share. */
  readonly values: readonly string[];
  /** The key as it is compared, likewise. Empty: a row is known by its values. */
  readonly key: readonly string[];
  /** The key's columns, to be printed. */
  readonly key_columns: readonly string[];
  /** Which rows: joined by AND. */
  readonly conditions: readonly string[];
  /** How a column of a range is called here: from the source's name to this side's SQL. */
  readonly nameOf: (column: string) => string;
  /** The server's encoding is UTF-8. */
  readonly utf8: boolean;
  /** Names a row's version, so that a row that was changed twice is told from one that was not; empty where rows have none. */
  readonly version: string;
}

/** Hex digits of a place that say its bucket: so many buckets at most. */
const BUCKET_DIGITS = 6;
export const BUCKETS_MAX = 16 ** BUCKET_DIGITS;
/** Names of ours stand beside the table's columns and whatever its filter names: no other looks like it. */
const PLACE = '_sluice_p._sluice_place';

/**
 * One row for each bucket that has rows: `bucket` (int4, from 0), `rows` and `sum` as text. With one bucket, the checksum of the range as a whole.
 * The statement is the same for the same arguments: `range` is compared as the server compares, so it must be one that `compared` calls safe.
 */
export function bucketsSql(side: Side, range: ChunkRange, buckets: number): string {
  assertBuckets(buckets);
  const bucket = buckets === 1 ? '0' : bucketOf(placeSql(side), buckets);
  const digest = `('x' || left(${digestSql(side)}, 16))::bit(64)::int8`;
  return `SELECT bucket, count(*)::text AS rows, sum(digest)::text AS sum
    FROM (SELECT ${bucket} AS bucket, ${digest} AS digest FROM ${side.from}${whereSql(side, range)}) AS r GROUP BY bucket`;
}

export interface Digests {
  /** Of so many buckets, these. */
  readonly buckets: number;
  readonly wanted: readonly number[];
  /** Only places after this one; null: from the beginning. */
  readonly after: string | null;
}

/**
 * The rows of some buckets in the order of their places: `place` (MD5 of the key, hex), `key` (JSON of its columns' texts; null where it has none) and `digest` (MD5 of the row,
 * hex). Of a table without a key one row for each different row: place is its digest, and `digest` how many there are.
 */
export function digestsSql(side: Side, range: ChunkRange, { buckets, wanted, after }: Digests): string {
  assertBuckets(buckets);
  const conditions = [
    ...(wanted.length === buckets ? [] : [`${bucketOf(PLACE, buckets)} IN (${wanted.map(Number).join(', ')})`]),
    ...(after === null ? [] : [`${PLACE} COLLATE "C" > ${quoteLiteral(after)}`]),
  ];
  const from = `${placedSql(side)}${whereSql(side, range, conditions)}`;
  const order = `ORDER BY ${PLACE} COLLATE "C"`;
  if (side.key.length === 0) {
    return `SELECT ${PLACE} AS place, NULL::text AS key, count(*)::text AS digest FROM ${from} GROUP BY ${PLACE} ${order}`;
  }
  return `SELECT ${PLACE} AS place, ${printedKeySql(side)} AS key, ${digestSql(side)} AS digest FROM ${from} ${order}`;
}

/** The rows of these keys: `place`, `key`, `digest` as above, and `version`. */
export function keysSql(side: Side, range: Extract<ChunkRange, { by: 'keys' }>): string {
  return `SELECT ${placeSql(side)} AS place, ${printedKeySql(side)} AS key, ${digestSql(side)} AS digest, ${side.version || "''"} AS version
    FROM ${side.from}${whereSql(side, range)}`;
}

/** Copies of rows by their digests, of a table without a key: `place` and `digest` (a number). One scan of the table. */
export function copiesSql(side: Side, digests: readonly string[]): string {
  const wanted = `${PLACE} IN (SELECT unnest(ARRAY[${digests.map(quoteLiteral).join(', ')}]::text[]))`;
  return `SELECT ${PLACE} AS place, NULL::text AS key, count(*)::text AS digest FROM ${placedSql(side)}${whereSql(side, { by: 'whole' }, [wanted])}
    GROUP BY ${PLACE}`;
}

/**
 * Where the range ends that begins at `from` and has `rows` rows: `_sluice_key`, JSON of the key's texts; no row: it is the last. Read from the key's index alone
 * where the server can; the columns are the source's own.
 */
export function rangeEndSql(
  side: Side,
  columns: readonly string[],
  from: readonly string[] | null,
  rows: number,
): string {
  const range: ChunkRange = { by: 'key', columns, from, to: null };
  return `SELECT ${printedKeySql(side)} AS _sluice_key FROM ${side.from}${whereSql(side, range)}
    ORDER BY ${columns.map(side.nameOf).join(', ')} OFFSET ${rows} LIMIT 1`;
}

/** Rows, each with its place: computed once a row, so that the digest need be computed only for rows that are asked for. */
function placedSql(side: Side): string {
  return `${side.from} CROSS JOIN LATERAL (SELECT ${placeSql(side)} AS _sluice_place OFFSET 0) AS _sluice_p`;
}

function whereSql(side: Side, range: ChunkRange, more: readonly string[] = []): string {
  const conditions = [...rangeConditions(range, side.nameOf), ...side.conditions, ...more];
  return conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`;
}

function placeSql(side: Side): string {
  return side.key.length === 0 ? digestSql(side) : md5Sql(side, side.key);
}

function digestSql(side: Side): string {
  return md5Sql(side, side.values);
}

/** ROW(…)::text prints NULL and the empty string apart, and quotes so that no two rows have the same text. */
function md5Sql({ utf8 }: Side, values: readonly string[]): string {
  const text = `ROW(${values.join(', ')})::text`;
  return utf8 ? `md5(${text})` : `md5(convert_to(${text}, 'UTF8'))`;
}

function printedKeySql({ key_columns }: Side): string {
  return `json_build_array(${key_columns.map((column) => `${column}::text`).join(', ')})::text`;
}

function bucketOf(place: string, buckets: number): string {
  return `('x' || left(${place}, ${BUCKET_DIGITS}))::bit(${BUCKET_DIGITS * 4})::int4 % ${buckets}`;
}

function assertBuckets(buckets: number): void {
  if (!Number.isInteger(buckets) || buckets < 1 || buckets > BUCKETS_MAX) throw new RangeError(`${buckets} buckets`);
}
