/**
 * The statements that apply a segment, as text: pure, and with one meaning each, the one that lib/stage/segment.ts gives its operations.
 *
 * A block is copied into a temporary table and goes from there into the stream's table as one set. Columns of the temporary table have names of
 * ours (c0, c1, … for the block's columns; k0, k1, … for a key beside them; at), so that no name of the source can collide with them. Their
 * types are those of the stream's table, whatever these are by now.
 */
import { LSN_COLUMN } from '../lsn-column.ts';
import { OWN_TYPE_OID_END, type Shape, type TableName, type TypeUse } from '../shape.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../sql-text.ts';
import type { Block } from '../stage/segment.ts';
import { BATCHED_AT, columnAt, DELETED_AT, EXTRACTED_AT, keyNames } from './columns.ts';
import { flattenedNames } from './flatten.ts';
import { generatedNames } from './generated.ts';
import { COPIES } from './multiset.ts';

/** The stream's table as statements see it. */
export interface TableForm {
  readonly name: TableName;
  /** What the table was made for, with all that was added since. */
  readonly shape: Shape;
  /** It has the metadata columns. */
  readonly metadata: boolean;
  /** The operator that compares a column of the key, where it is not `=` of pg_catalog (key-operators.ts). */
  readonly equals?: ReadonlyMap<string, string>;
}

/** A block in its temporary table. */
export interface Landed {
  /** As quoted: `pg_temp._sluice_1`. */
  readonly temp: string;
  readonly kind: Block['kind'];
  /** Names of the block's columns, in the order of its lines; null: the table no longer has it, and what comes for it is of no use. */
  readonly columns: readonly (string | null)[];
  /** Names of the segment's key, in the order in which a line has them where it has an old key. */
  readonly key: readonly string[];
}

/**
 * OIDs (pg_type.dat) of types with values that are equal and yet written differently (1.0 and 1.00, 0 and -0, `1 day` and `24 hours`), of their
 * arrays and ranges: a change of key from one spelling to the other must neither delete what it wrote nor keep the old spelling.
 */
export const INEXACT_TYPES: Readonly<Record<string, number>> = {
  float4: 700,
  _float4: 1021,
  float8: 701,
  _float8: 1022,
  bpchar: 1042,
  _bpchar: 1014,
  interval: 1186,
  _interval: 1187,
  numeric: 1700,
  _numeric: 1231,
  jsonb: 3802,
  _jsonb: 3807,
  numrange: 3906,
  _numrange: 3907,
  nummultirange: 4532,
  _nummultirange: 6151,
};
const INEXACT_OIDS = new Set(Object.values(INEXACT_TYPES));

const id = quoteIdentifier;

function inexactKeyOf({ shape }: TableForm): string[] {
  return shape.key
    .map((index) => columnAt(shape, index))
    .filter(isInexact)
    .map(({ name }) => name);
}

/**
 * Whether values that are equal may be written differently. A domain is what its base is, an array what its elements are; of what is known by its name
 * only (citext), and of a composite, nobody can tell.
 */
export function isInexact({ type_oid, type }: TypeUse): boolean {
  switch (type?.kind) {
    case undefined:
      return INEXACT_OIDS.has(type_oid) || type_oid >= OWN_TYPE_OID_END;
    case 'enum':
      return false;
    case 'domain':
      return isInexact(type.base);
    case 'array':
      return isInexact(type.element);
    default:
      return true;
  }
}

/** The columns that a conflicting row gets: all but the key, and of the key what may be spelled anew. */
function writableOf(table: TableForm, columns: readonly (string | null)[]): string[] {
  const key = keyNames(table.shape);
  const inexact = inexactKeyOf(table);
  return written(table, columns).filter((name) => !key.includes(name) || inexact.includes(name));
}

/** Without those that the table computes, or no longer has. */
function written(table: TableForm, columns: readonly (string | null)[]): string[] {
  const computed = generatedNames(table.shape);
  return columns.flatMap((name) => (name === null || computed.has(name) ? [] : [name]));
}

/** Names of the temporary table's columns, in the order of a line. */
export function landedColumns({ kind, columns, key }: Omit<Landed, 'temp'>): string[] {
  const values = columns.map((_, i) => `c${i}`);
  if (kind === 'delete') return [...values, 'at'];
  if (kind === 'remove' || kind === 'add') return [...values, COPIES];
  if (kind === 'erase') return [...values, 'at', COPIES];
  return kind === 'rekey' ? [...key.map((_, i) => `k${i}`), ...values] : values;
}

export function makeTempSql(table: TableForm, landed: Landed): string {
  const { names, own } = tempColumns(landed);
  const columns = names.map(([name, at]) => `${name === null ? 'NULL::text' : `t.${id(name)}`} AS ${at}`);
  const selected = [...columns, ...own.map(([at, type]) => `NULL::${type} AS ${at}`)].join(', ');
  return `CREATE TEMPORARY TABLE ${landed.temp} ON COMMIT DROP AS SELECT ${selected} FROM ${quoteTable(table.name)} t WITH NO DATA`;
}

/** The same, with the types of the table's columns by their names: it does not touch the table, and so holds no lock on it. */
export function makeTempApartSql(types: ReadonlyMap<string, string>, landed: Landed): string {
  const { names, own } = tempColumns(landed);
  const columns = names.map(([name, at]) => `${at} ${name === null ? 'text' : typeIn(types, name)}`);
  const made = [...columns, ...own.map(([at, type]) => `${at} ${type}`)].join(', ');
  return `CREATE TEMPORARY TABLE ${landed.temp} (${made}) ON COMMIT DROP`;
}

function typeIn(types: ReadonlyMap<string, string>, name: string): string {
  const type = types.get(name);
  if (type === undefined) throw new RangeError(`a block with column ${name}, which the table does not have`);
  return type;
}

/** Columns of the temporary table, each with the name of the table's column that it is for (null: it has none any more), and those of ours, with their types. */
function tempColumns(landed: Landed): {
  readonly names: readonly (readonly [name: string | null, at: string])[];
  readonly own: readonly (readonly [at: string, type: string])[];
} {
  const { kind, columns, key } = landed;
  const before = kind === 'rekey' ? key.map((name, i) => [name, `k${i}`] as const) : [];
  const own = landedColumns(landed).flatMap((at): [string, string][] => {
    if (at === 'at') return [[at, 'timestamptz']];
    return at === COPIES ? [[at, 'int8']] : [];
  });
  return { names: [...before, ...columns.map((name, i) => [name, `c${i}`] as const)], own };
}

/** COPY in text format, whose defaults are what the staged lines are written in. `columns` as they are in the table; it may have none. */
export function copySql(table: string, columns: readonly string[]): string {
  return `COPY ${table}${columns.length === 0 ? '' : ` (${columns.map(id).join(', ')})`} FROM STDIN`;
}

/** `t.k = s.c…` for each column of the key; `at` says where in the temporary table a column of the key is. */
export function sameKey(table: TableForm, row: string, at: (name: string) => string): string {
  return keyNames(table.shape)
    .map((name) => `${row}.${id(name)} ${table.equals?.get(name) ?? '='} s.${at(name)}`)
    .join(' AND ');
}

const placeIn =
  (prefix: string, names: readonly (string | null)[]) =>
  (name: string): string => {
    const index = names.indexOf(name);
    if (index < 0) throw new RangeError(`a block without the key's column ${name}`);
    return `${prefix}${index}`;
  };

export const columnIn = ({ columns }: Landed) => placeIn('c', columns);
export const oldKeyIn = ({ key }: Landed) => placeIn('k', key);

/** Values of the metadata columns for a row that is there: extracted, batched, not deleted. */
function metadataValues(extracted_at: string): readonly (readonly [column: string, value: string])[] {
  return [
    [EXTRACTED_AT, `${quoteLiteral(extracted_at)}::timestamptz`],
    [BATCHED_AT, 'now()'],
    [DELETED_AT, 'NULL::timestamptz'],
  ];
}

function metadataOf(table: TableForm, extracted_at: string): readonly (readonly [column: string, value: string])[] {
  return table.metadata ? metadataValues(extracted_at) : [];
}

/** Whole rows of keys that the table does not have: a third cheaper than looking for each. One that is there fails all of them. */
export function insertNewSql(table: TableForm, landed: Landed, extracted_at: string): string {
  return insertSql(table, landed, extracted_at, '');
}

/** Whole rows: inserted, or written over the row of the same key. */
export function upsertSql(table: TableForm, landed: Landed, extracted_at: string): string {
  return insertSql(table, landed, extracted_at, conflictSql(table, landed.columns, extracted_at));
}

/** Whole rows of which those that are there already stay as they are; sorted, so that two loaders at once cannot lock each other out. */
export function insertMissingSql(table: TableForm, landed: Landed, extracted_at: string): string {
  const order = keyNames(table.shape).map((name) => `s.${columnIn(landed)(name)}`);
  const sorted = order.length === 0 ? '' : `ORDER BY ${order.join(', ')} `;
  return insertSql(table, landed, extracted_at, `${sorted}ON CONFLICT DO NOTHING`);
}

function insertSql(table: TableForm, landed: Landed, extracted_at: string, rest: string): string {
  const metadata = metadataOf(table, extracted_at);
  const columns = written(table, landed.columns);
  const into = [...columns, ...metadata.map(([column]) => column)].map(id);
  const values = [...columns.map((name) => `s.${columnIn(landed)(name)}`), ...metadata.map(([, value]) => value)];
  return `INSERT INTO ${quoteTable(table.name)} AS t (${into.join(', ')}) SELECT ${values.join(', ')} FROM ${landed.temp} s ${rest}`;
}

function conflictSql(table: TableForm, columns: readonly (string | null)[], extracted_at: string): string {
  const set = [
    ...writableOf(table, columns).map((name) => `${id(name)} = EXCLUDED.${id(name)}`),
    ...metadataOf(table, extracted_at).map(([column, value]) => `${id(column)} = ${value}`),
  ];
  const key = keyNames(table.shape).map(id).join(', ');
  return set.length === 0 ? 'ON CONFLICT DO NOTHING' : `ON CONFLICT (${key}) DO UPDATE SET ${set.join(', ')}`;
}

/** Rows that lack some columns: those they have, where the key is there. Null: they have nothing but the key, and nothing is to be done. */
export function updateSql(table: TableForm, landed: Landed, extracted_at: string): string | null {
  const at = columnIn(landed);
  const set = [
    ...writableOf(table, landed.columns).map((name) => `${id(name)} = s.${at(name)}`),
    ...metadataOf(table, extracted_at).map(([column, value]) => `${id(column)} = ${value}`),
  ];
  if (set.length === 0) return null;
  return `UPDATE ${quoteTable(table.name)} AS t SET ${set.join(', ')} FROM ${landed.temp} s WHERE ${sameKey(table, 't', at)}`;
}

/**
 * Changes of key with values absent (I7). In this order:
 * 1. a row of the new key that is only kept since its deletion makes way: the row that moves there is another one;
 * 2. a row of the new key that is there gets what the log has, as by `update`;
 * 3. where there is none it is made, with what the log lacks taken from the row of the old key. Where that one is missing too, nothing is
 *    made: a row with NULL for what is not known would be a wrong row.
 */
export function rekeySql(table: TableForm, landed: Landed, extracted_at: string): string[] {
  const target = quoteTable(table.name);
  const at = columnIn(landed);
  const statements: string[] = [];
  if (table.metadata) {
    statements.push(
      `DELETE FROM ${target} AS t USING ${landed.temp} s, ${target} AS o WHERE ${sameKey(table, 't', at)} AND t.${id(DELETED_AT)} IS NOT NULL AND ${sameKey(table, 'o', oldKeyIn(landed))} AND o.ctid <> t.ctid`,
    );
  }
  const update = updateSql(table, landed, extracted_at);
  if (update) statements.push(update);

  const metadata = metadataOf(table, extracted_at);
  const names = written(table, [...table.shape.columns.map(({ name }) => name), ...flattenedNames(table.shape)]);
  const into = [...names, ...metadata.map(([column]) => column)].map(id);
  const values = [
    ...names.map((name) => (landed.columns.includes(name) ? `s.${at(name)}` : `o.${id(name)}`)),
    ...metadata.map(([, value]) => value),
  ];
  statements.push(
    `INSERT INTO ${target} AS t (${into.join(', ')}) SELECT ${values.join(', ')} FROM ${landed.temp} s JOIN ${target} AS o ON ${sameKey(table, 'o', oldKeyIn(landed))} ON CONFLICT DO NOTHING`,
  );
  return statements;
}

/** Rows of exactly the keys that were deleted: a key that is equal but spelled anew is what its change has just written. */
function deletedRows(table: TableForm, landed: Landed): string {
  const at = columnIn(landed);
  const inexact = inexactKeyOf(table);
  const exactly = inexact.map((name) => `record_image_eq(ROW(t.${id(name)}), ROW(s.${at(name)}))`);
  return [sameKey(table, 't', at), ...exactly].join(' AND ');
}

export function deleteSql(table: TableForm, landed: Landed): string {
  return `DELETE FROM ${quoteTable(table.name)} AS t USING ${landed.temp} s WHERE ${deletedRows(table, landed)}`;
}

/** Soft delete: the row keeps its last values and gets the commit time of its deletion. */
export function markDeletedSql(table: TableForm, landed: Landed, extracted_at: string): string {
  const lsn = landed.columns.includes(LSN_COLUMN.name)
    ? `, ${id(LSN_COLUMN.name)} = s.${columnIn(landed)(LSN_COLUMN.name)}`
    : '';
  const set = `${markSet('s.at', extracted_at)}${lsn}`;
  return `UPDATE ${quoteTable(table.name)} AS t SET ${set} FROM ${landed.temp} s WHERE ${deletedRows(table, landed)}`;
}

export function truncateSql(table: TableForm): string {
  return `TRUNCATE ${quoteTable(table.name)}`;
}

export function deleteAllSql(table: TableForm): string {
  return `DELETE FROM ${quoteTable(table.name)}`;
}

/** Soft TRUNCATE: every row that is not marked yet is marked with the time of extraction (a TRUNCATE in the log has none of its own here). */
export function markAllDeletedSql(table: TableForm, extracted_at: string): string {
  return `UPDATE ${quoteTable(table.name)} AS t SET ${deletedMarkSql(extracted_at)} WHERE t.${id(DELETED_AT)} IS NULL`;
}

/** What marks a row whose deletion has no time of its own: it was seen to be gone when the rest was extracted. */
export function deletedMarkSql(extracted_at: string): string {
  return markSet(`${quoteLiteral(extracted_at)}::timestamptz`, extracted_at);
}

function markSet(deleted_at: string, extracted_at: string): string {
  return metadataValues(extracted_at)
    .map(([column, value]) => `${id(column)} = ${column === DELETED_AT ? deleted_at : value}`)
    .join(', ');
}
