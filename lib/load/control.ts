/**
 * The schema `_sluice` on the target: what is applied, what is held, and which chunks are in. It lies in the same database as the rows, so that
 * one transaction writes both (I4).
 *
 * - streams: one row a stream; the row that a loader locks. `epoch` is the newest that is over; `hold` the one that is under way.
 * - plans:   the plans that an epoch was prepared for, each with its shadow table (null: in place). It is there as long as the plan is alive: a
 *            chunk's load holds it by FOR SHARE, and whoever ends the epoch deletes it.
 * - chunks:  the marks of loaded chunks; those of the last epoch stay until the next one begins.
 * - doubts:  what is not sure of rows while the stream catches up (doubts.ts).
 */
import type { QueryResult } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../lsn.ts';
import type { TargetRow, TargetStream } from '../ports.ts';
import type { Shape, TableName } from '../shape.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';
import { LOAD_LIMITS, type Purpose, type Row, type Session } from './session.ts';

/** Taken by whoever makes things that two may make at once. The number only has to be the same everywhere. */
const MAKING_LOCK = 5_071_120_480n;
/** Held for the rest of the transaction. */
export const MAKING_LOCK_SQL = `SELECT pg_advisory_xact_lock(${MAKING_LOCK})`;

const TABLES: Readonly<Record<string, string>> = {
  streams: `CREATE TABLE _sluice.streams (
    pipeline text NOT NULL,
    stream text NOT NULL,
    incarnation text NOT NULL,
    target_schema text NOT NULL,
    target_table text NOT NULL,
    made boolean NOT NULL,
    metadata boolean NOT NULL,
    shape jsonb NOT NULL,
    hold bigint,
    epoch bigint NOT NULL,
    applied_cut bigint NOT NULL,
    applied_lsn pg_lsn NOT NULL,
    applied_at timestamptz,
    catching_up_to pg_lsn,
    PRIMARY KEY (pipeline, stream),
    UNIQUE (target_schema, target_table))`,
  plans: `CREATE TABLE _sluice.plans (
    pipeline text NOT NULL,
    stream text NOT NULL,
    epoch bigint NOT NULL,
    plan text NOT NULL,
    incarnation text NOT NULL,
    target_schema text NOT NULL,
    target_table text NOT NULL,
    shadow text,
    overlapping boolean NOT NULL,
    metadata boolean NOT NULL,
    shape jsonb NOT NULL,
    PRIMARY KEY (pipeline, stream, epoch, plan))`,
  chunks: `CREATE TABLE _sluice.chunks (
    pipeline text NOT NULL,
    stream text NOT NULL,
    epoch bigint NOT NULL,
    plan text NOT NULL,
    chunk bigint NOT NULL,
    rows bigint,
    loaded_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline, stream, epoch, plan, chunk))`,
  // Keys may be longer than an ordinary index takes; a hash index takes any.
  doubts: `CREATE TABLE _sluice.doubts (
    pipeline text NOT NULL,
    stream text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    other text);
    CREATE INDEX ON _sluice.doubts USING hash (key);
    CREATE INDEX ON _sluice.doubts USING hash (other)`,
};

/** SQLSTATEs of a query on `_sluice` where it has not been made: undefined_table, invalid_schema_name. */
const NOT_MADE = ['42P01', '3F000'];

/** Begins a transaction with a query on `_sluice`; null, and no transaction, where that has not been made. */
export async function beginIfMade(session: Session, sql: string): Promise<QueryResult<Row> | null> {
  try {
    return await session.begin(LOAD_LIMITS, sql);
  } catch (error) {
    await session.rollback();
    if (error instanceof SluiceError && NOT_MADE.some((state) => state === error.facts.sqlstate)) return null;
    throw error;
  }
}

/** Makes what is missing, and nothing where all is there: that needs no right to make anything. The making lock must be held. */
export async function makeControl(session: Session): Promise<void> {
  const names = Object.keys(TABLES);
  const { rows } = await session.query<{ schema_missing: boolean; missing: string[] }>(
    `SELECT n.oid IS NULL AS schema_missing, array(SELECT m.name FROM unnest($1::text[]) AS m (name)
       WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = m.name)) AS missing
     FROM (SELECT 1) AS one LEFT JOIN pg_namespace n ON n.nspname = '_sluice'`,
    [names],
  );
  const [found] = rows;
  const missing = found?.missing ?? names;
  if (missing.length === 0) return;
  if (found?.schema_missing) await makeSchema(session, '_sluice');
  const tables = names.filter((name) => missing.includes(name)).map((name) => TABLES[name]);
  await session.run(tables.join('; '), mayMakeTables(session, '_sluice'));
}

export async function makeSchema(session: Session, schema: string): Promise<void> {
  const database = quoteIdentifier(session.database);
  await session.run(`CREATE SCHEMA ${quoteIdentifier(schema)}`, {
    action: `make schema ${schema}`,
    grant_sql: `GRANT CREATE ON DATABASE ${database} TO ${quoteIdentifier(session.user)}`,
  });
}

export function mayMakeTables(session: Session, schema: string): Purpose {
  return {
    action: `make tables in schema ${schema}`,
    grant_sql: `GRANT USAGE, CREATE ON SCHEMA ${quoteIdentifier(schema)} TO ${quoteIdentifier(session.user)}`,
  };
}

/** The stream's row, whole. */
export interface StreamRow extends TargetRow {
  readonly target: TableName;
  /** A first sync has been swapped in: the table is ours. */
  readonly made: boolean;
  /** The table has the metadata columns. */
  readonly metadata: boolean;
  /** Number of the newest epoch that is over; 0: none. */
  readonly epoch: number;
}

/** A stream, as its rows in `_sluice` are found. */
export interface Owner {
  readonly pipeline: string;
  readonly stream: TargetStream;
}

/** Condition on the rows of a stream in any of these tables. */
export function isOwner({ pipeline, stream }: Owner): string {
  return `pipeline = ${quoteLiteral(pipeline)} AND stream = ${quoteLiteral(stream.stream)}`;
}

/** Reads the stream's row; `lock` is FOR UPDATE, or empty. */
export function streamRowSql(owner: Owner, lock: 'FOR UPDATE' | ''): string {
  return `SELECT incarnation, target_schema, target_table, made, metadata, shape::text, hold::text, epoch::text, applied_cut::text,
    applied_lsn::text, catching_up_to::text FROM _sluice.streams WHERE ${isOwner(owner)} ${lock}`;
}

export function streamRowOf({ rows }: QueryResult<Row>): StreamRow | null {
  const row = rows[0] as Record<string, string | null> | undefined;
  if (row === undefined) return null;
  return {
    incarnation: String(row.incarnation),
    target: { schema: String(row.target_schema), table: String(row.target_table) },
    made: isTrue(row.made),
    metadata: isTrue(row.metadata),
    shape: shapeOf(row.shape),
    hold: row.hold == null ? null : Number(row.hold),
    epoch: Number(row.epoch),
    applied_cut: Number(row.applied_cut),
    applied_lsn: parseLsn(String(row.applied_lsn)),
    catching_up_to: row.catching_up_to == null ? null : parseLsn(row.catching_up_to),
  };
}

function isTrue(value: unknown): boolean {
  return value === true;
}

/** What `saveShape` and the makers of rows wrote. */
function shapeOf(json: unknown): Shape {
  return JSON.parse(String(json)) as Shape;
}

/** What a load has applied, for the transaction that applied it. */
export function advanceSql(
  owner: Owner,
  applied: { readonly cut: number; readonly lsn: Lsn; readonly caught_up: boolean },
): string {
  const caught_up = applied.caught_up ? ', catching_up_to = NULL' : '';
  return `UPDATE _sluice.streams SET applied_cut = ${applied.cut}, applied_lsn = '${formatLsn(applied.lsn)}', applied_at = now()${caught_up}
    WHERE ${isOwner(owner)}`;
}

/** The table's form, when it has changed. */
export async function saveForm(
  session: Session,
  owner: Owner,
  form: { readonly shape: Shape; readonly metadata: boolean },
): Promise<void> {
  await session.query(`UPDATE _sluice.streams SET shape = $1::jsonb, metadata = $2 WHERE ${isOwner(owner)}`, [
    JSON.stringify(form.shape),
    form.metadata,
  ]);
}

/** One plan of an epoch that is under way. */
export interface PlanRow {
  readonly incarnation: string;
  readonly target: TableName;
  /** Null: in place. */
  readonly shadow: TableName | null;
  readonly overlapping: boolean;
  readonly metadata: boolean;
  readonly shape: Shape;
}

export function planRowSql(owner: Owner, epoch: number, plan: string, lock: 'FOR SHARE' | 'FOR UPDATE' | ''): string {
  return `SELECT incarnation, target_schema, target_table, shadow, overlapping, metadata, shape::text FROM _sluice.plans
    WHERE ${isOwner(owner)} AND epoch = ${epoch} AND plan = ${quoteLiteral(plan)} ${lock}`;
}

export function planRowOf({ rows }: QueryResult<Row>): PlanRow | null {
  const row = rows[0];
  if (row === undefined) return null;
  const target = { schema: String(row.target_schema), table: String(row.target_table) };
  return {
    incarnation: String(row.incarnation),
    target,
    shadow: typeof row.shadow === 'string' ? { schema: target.schema, table: row.shadow } : null,
    overlapping: isTrue(row.overlapping),
    metadata: isTrue(row.metadata),
    shape: shapeOf(row.shape),
  };
}

export async function savePlan(
  session: Session,
  owner: Owner,
  epoch: number,
  plan: string,
  row: PlanRow,
): Promise<void> {
  const sql = `INSERT INTO _sluice.plans (pipeline, stream, epoch, plan, incarnation, target_schema, target_table, shadow, overlapping,
    metadata, shape) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb)`;
  await session.query(sql, [
    owner.pipeline,
    owner.stream.stream,
    epoch,
    plan,
    row.incarnation,
    row.target.schema,
    row.target.table,
    row.shadow?.table ?? null,
    row.overlapping,
    row.metadata,
    JSON.stringify(row.shape),
  ]);
}

/** Ends every plan of the stream; resolves with the shadow tables that are left to drop. Waits for loads of chunks that are under way. */
export async function endPlans(session: Session, owner: Owner): Promise<TableName[]> {
  const { rows } = await session.query<{ target_schema: string; shadow: string | null }>(
    `DELETE FROM _sluice.plans WHERE ${isOwner(owner)} RETURNING target_schema, shadow`,
    [],
  );
  return rows.flatMap(({ target_schema, shadow }) =>
    shadow === null ? [] : [{ schema: target_schema, table: shadow }],
  );
}

/** True: the mark is new, and the caller must load the chunk in this transaction. Waits for another load of the same chunk. */
export async function markChunk(
  session: Session,
  owner: Owner,
  epoch: number,
  plan: string,
  chunk: number,
): Promise<boolean> {
  const { rowCount } = await session.query(
    `INSERT INTO _sluice.chunks (pipeline, stream, epoch, plan, chunk, loaded_at) VALUES ($1, $2, $3, $4, $5, now()) ON CONFLICT DO NOTHING`,
    [owner.pipeline, owner.stream.stream, epoch, plan, chunk],
  );
  return rowCount === 1;
}

export function countChunkSql(owner: Owner, epoch: number, plan: string, chunk: number, rows: number): string {
  return `UPDATE _sluice.chunks SET rows = ${rows} WHERE ${isOwner(owner)} AND epoch = ${epoch} AND plan = ${quoteLiteral(plan)} AND chunk = ${chunk}`;
}

export function markedChunksSql(owner: Owner, epoch: number, plan: string): string {
  return `SELECT chunk::text FROM _sluice.chunks WHERE ${isOwner(owner)} AND epoch = ${epoch} AND plan = ${quoteLiteral(plan)}`;
}
