/**
 * The schema `_sluice` on the target: what is applied, what is held, and which chunks are in. It lies in the same database as the rows, so that
 * one transaction writes both (I4).
 *
 * - streams: one row a stream; the row that a loader locks. `epoch` is the newest that is over; `hold` the one that is under way.
 * - plans:   the plans that an epoch was prepared for, each with its shadow table (null: in place). It is there as long as the plan is alive: a
 *            chunk's load holds it by FOR SHARE, and whoever ends the epoch deletes it.
 * - chunks:  the marks of loaded chunks; those of the last epoch stay until the next one begins.
 * - doubts:  what is not sure of rows while the stream catches up (doubts.ts).
 * - quarantine: keys of rows that were refused and wait (quarantined-keys.ts).
 * - positions: a view for readers (positions.ts).
 */
import type { QueryResult } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, parseLsn } from '../lsn.ts';
import type { Advance, TargetRow, TargetStream } from '../ports.ts';
import type { Shape, TableName } from '../shape.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';
import { POSITIONS_SQL } from './positions.ts';
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
  quarantine: `CREATE TABLE _sluice.quarantine (
    pipeline text NOT NULL,
    stream text NOT NULL,
    key text NOT NULL,
    reject text NOT NULL,
    epoch bigint,
    plan text);
    CREATE INDEX ON _sluice.quarantine (pipeline, stream)`,
};

/**
 * Columns that `streams` got later, in that order: added where they are missing, so that a target that an older version made goes on.
 *
 * - together: the last load moved it with the others, in one transaction (together.ts)
 * - halt:     code of the error that it waits with, as far as a loader knows; a load that is done takes it away
 * - as_of:    when the source committed what is applied last; of a stream that is read by query, when its rows were asked for
 * - by_query: no log is read for it: `applied_*` say nothing
 */
const STREAM_COLUMNS: Readonly<Record<string, string>> = {
  together: 'boolean NOT NULL DEFAULT false',
  halt: 'text',
  as_of: 'timestamptz',
  by_query: 'boolean NOT NULL DEFAULT false',
};

/** Made last: of the columns above. */
const VIEWS: Readonly<Record<string, string>> = { positions: POSITIONS_SQL };

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
  const { schema_missing, relations, columns } = await missingControl(session);
  if (relations.length + columns.length === 0) return;
  if (schema_missing) await makeSchema(session, '_sluice');
  const madeOf = (all: Readonly<Record<string, string>>): string[] =>
    Object.entries(all).flatMap(([name, sql]) => (relations.includes(name) ? [sql] : []));
  const added = columns.map((name) => `ALTER TABLE _sluice.streams ADD COLUMN ${name} ${STREAM_COLUMNS[name]}`);
  const making = mayMakeTables(session, '_sluice');
  const tables = madeOf(TABLES);
  const views = madeOf(VIEWS);
  if (tables.length > 0) await session.run(tables.join('; '), making);
  if (added.length > 0) {
    const grant_sql = `ALTER TABLE _sluice.streams OWNER TO ${quoteIdentifier(session.user)}`;
    await session.run(added.join('; '), { action: 'add columns to _sluice.streams', grant_sql });
  }
  if (views.length > 0) await session.run(views.join('; '), making);
}

/** Brings what an older version has made up to this one's; nothing where nothing has been made, or all is there. */
export async function upgradeControl(session: Session): Promise<void> {
  const missing = await session.transaction(LOAD_LIMITS, () => missingControl(session));
  if (missing.schema_missing || missing.relations.length + missing.columns.length === 0) return;
  await session.transaction(LOAD_LIMITS, () => makeControl(session), MAKING_LOCK_SQL);
}

interface Missing {
  readonly schema_missing: boolean;
  readonly relations: readonly string[];
  /** Of `streams`. */
  readonly columns: readonly string[];
}

async function missingControl(session: Session): Promise<Missing> {
  const names = [...Object.keys(TABLES), ...Object.keys(VIEWS)];
  const { rows } = await session.query<{ schema_missing: boolean; relations: string[]; columns: string[] }>(
    `SELECT n.oid IS NULL AS schema_missing, array(SELECT m.name FROM unnest($1::text[]) AS m (name)
       WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = m.name)) AS relations,
       array(SELECT m.name FROM unnest($2::text[]) AS m (name) WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = n.oid AND c.relname = 'streams' AND a.attname = m.name AND NOT a.attisdropped)) AS columns
     FROM (SELECT 1) AS one LEFT JOIN pg_namespace n ON n.nspname = '_sluice'`,
    [names, Object.keys(STREAM_COLUMNS)],
  );
  return rows[0] ?? { schema_missing: true, relations: names, columns: Object.keys(STREAM_COLUMNS) };
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

const ROW_COLUMNS = `stream, incarnation, target_schema, target_table, made, metadata, shape::text, hold::text, epoch::text, applied_cut::text,
    applied_lsn::text, catching_up_to::text`;
/** With those of STREAM_COLUMNS that loads go by. */
const LOADED_COLUMNS = `${ROW_COLUMNS}, together, halt,
    EXISTS (SELECT FROM _sluice.quarantine q WHERE q.pipeline = streams.pipeline AND q.stream = streams.stream) AS quarantined`;

/**
 * Reads the stream's row; `lock` is FOR UPDATE, or empty. Without a lock it has the columns that every version made: who only reads (verify, the comparing
 * of chunks) does not bring the table up to this version.
 */
export function streamRowSql(owner: Owner, lock: 'FOR UPDATE' | ''): string {
  return `SELECT ${lock === '' ? ROW_COLUMNS : LOADED_COLUMNS} FROM _sluice.streams WHERE ${isOwner(owner)} ${lock}`;
}

/** Condition on the rows of several streams of a pipeline. */
function areOf(pipeline: string, streams: readonly string[]): string {
  const names = streams.length === 0 ? 'NULL' : streams.map(quoteLiteral).join(', ');
  return `pipeline = ${quoteLiteral(pipeline)} AND stream IN (${names})`;
}

/**
 * Locks and reads the rows of those of several streams that may move together. Those that do are waited for one after another, in the same order for
 * everybody: nobody waits for one who waits for him. Of the others it takes those that nobody works on now: whoever brings one up, or copies it, is not
 * waited for, nor kept waiting. Where none moves with others yet, all are waited for: two loaders would each take a part.
 */
export function streamRowsSql(pipeline: string, streams: readonly string[]): string {
  const free = `${areOf(pipeline, streams)} AND hold IS NULL AND catching_up_to IS NULL`;
  return `SELECT FROM _sluice.streams WHERE ${free} AND (together AND halt IS NULL
      OR NOT EXISTS (SELECT FROM _sluice.streams WHERE ${free} AND together AND halt IS NULL)) ORDER BY stream COLLATE "C" FOR UPDATE;
    SELECT ${LOADED_COLUMNS} FROM _sluice.streams WHERE ${free} FOR UPDATE SKIP LOCKED`;
}

/** Which of several streams have a row. */
export function streamsThereSql(pipeline: string, streams: readonly string[]): string {
  return `SELECT stream FROM _sluice.streams WHERE ${areOf(pipeline, streams)}`;
}

export function streamRowOf({ rows }: Pick<QueryResult<Row>, 'rows'>): StreamRow | null {
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
    together: isTrue(row.together),
    halt: row.halt ?? null,
    quarantined: isTrue(row.quarantined),
  };
}

function isTrue(value: unknown): boolean {
  return value === true;
}

/** What `saveShape` and the makers of rows wrote. */
function shapeOf(json: unknown): Shape {
  return JSON.parse(String(json)) as Shape;
}

/** What a load has applied, for the transaction that applied it. A halt is over with it. */
export function advanceSql(owner: Owner, { cut, lsn, caught_up, committed_at_ms, together }: Advance): string {
  const more = [
    ...(caught_up ? ['catching_up_to = NULL'] : []),
    // An idle source's position moves without a commit of its own.
    ...(committed_at_ms == null ? [] : [`as_of = ${timeSql(committed_at_ms)}`]),
    `together = ${together === true}, halt = NULL`,
  ];
  return `UPDATE _sluice.streams SET applied_cut = ${cut}, applied_lsn = '${formatLsn(lsn)}', applied_at = now(), ${more.join(', ')}
    WHERE ${isOwner(owner)}`;
}

/** A time of ours (ms since the Unix epoch) as a timestamptz. */
export function timeSql(time_ms: number): string {
  return `${quoteLiteral(new Date(time_ms).toISOString())}::timestamptz`;
}

/** Cut that the pipeline's other streams have come to that move together; null: there are none. Cuts of another ledger's chain have other numbers. */
export function placeSql({ pipeline, stream }: Owner, incarnation: string): string {
  return `SELECT max(applied_cut)::text AS place FROM _sluice.streams WHERE pipeline = ${quoteLiteral(pipeline)}
    AND incarnation = ${quoteLiteral(incarnation)} AND stream <> ${quoteLiteral(stream.stream)} AND together AND halt IS NULL AND hold IS NULL AND catching_up_to IS NULL`;
}

/** Notes what a stream waits with; not where somebody works on it: whoever ends his work well takes the note away. */
export function noteHaltSql(pipeline: string, stream: string, code: string): string {
  const its = `pipeline = ${quoteLiteral(pipeline)} AND stream = ${quoteLiteral(stream)}`;
  return `UPDATE _sluice.streams SET halt = ${quoteLiteral(code)} WHERE ${its} AND halt IS DISTINCT FROM ${quoteLiteral(code)}
    AND EXISTS (SELECT FROM _sluice.streams WHERE ${its} FOR UPDATE SKIP LOCKED)`;
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
