/**
 * Chunks of a table, read by query (port Extractor): `COPY (SELECT …) TO STDOUT`, from the socket to whoever stages it, without a look at the rows (I6).
 *
 * One connection and one transaction a chunk, closed when its lines have ended, failed, or been given up. Memory holds what is on its way (I8).
 * https://www.postgresql.org/docs/current/sql-copy.html
 */
import { PassThrough } from 'node:stream';
import type { Client } from 'pg';
import { byQuery } from '../config/queryable.ts';
import { SluiceError } from '../errors.ts';
import { LSN_ZERO, type Lsn, lsnMax, parseLsn } from '../lsn.ts';
import type {
  ChunkRange,
  ChunkRead,
  ChunkRequest,
  Extractor,
  Pages,
  PagesRequest,
  SampleRequest,
  SourceTable,
  TableSample,
} from '../ports.ts';
import { closeClient } from '../postgres/connection.ts';
import { CopyOut } from '../postgres/copy-out.ts';
import { isOfProcedure, isServerError, reasonOf, sourceFault, sqlstateOf } from '../postgres/faults.ts';
import { awaitFlushed, lastRecordEnd, readInsertLsn, WAL_SIZES_SQL, type WalSizes } from '../postgres/log-position.ts';
import { beginReadOnlySql } from '../postgres/read-only.ts';
import { type Connect, one, onSource, serverVersion } from '../postgres/session.ts';
import { GENERATED_PUBLISHED_SINCE } from '../postgres/versions.ts';
import { selectList } from '../projection/select.ts';
import { customTypeOids, displayName, type GeneratedColumn, type TableName, withTypes } from '../shape.ts';
import { type CatalogRow, tableOf, tablesSql } from '../slot/catalog.ts';
import { readTypes } from '../slot/types.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { assertNotRewritten, type ExactSnapshot, exactSnapshot, takeSnapshotSql } from './exact-snapshot.ts';
import { readPages } from './pages.ts';
import { rangeColumnNames, rangeConditions } from './range-sql.ts';
import { fromSql, sampleTable } from './sample.ts';
import { awaitReplay, replicaSnapshot, type Secondary, type ServerSeen } from './secondary.ts';
import { whereFault } from './where.ts';

/** `"char"`, and when a byte of it that is no ASCII came to be printed as `\ooo` (release notes of 16). */
const CHAR_OID = 18;
const CHAR_ESCAPED_SINCE = 160_000;
/** Lines on their way to the stage. */
const LINES_BYTES_MAX = 1024 * 1024;

export interface ExtractorOptions {
  readonly connect: Connect;
  /** A walsender's connection to the same database, for the copies of tables without a key. */
  readonly connectReplication: Connect;
  /** Names of the publications that the tables are read by: what these bring of generated columns, a copy brings as well. */
  readonly publications: readonly string[];
  /** A replica that rows are read from (source.use_secondary); null or left out: all is read from the primary. */
  readonly secondary?: Secondary | null;
}

export function postgresExtractor(options: ExtractorOptions): Extractor {
  const { connect, publications } = options;
  return {
    table: (name) =>
      onSource(connect, `describe ${displayName(name)}`, (client) => readTable(client, name, publications)),
    insertLsn: () => onSource(connect, 'tell its position', readInsertLsn),
    position: () => onSource(connect, 'tell its position', readPosition),
    pages: (table, request) => pagesOn(options, table, request),
    sample: (table, request) => sampleOn(options, table, request),
    readChunk: async (table, range, request) => {
      chunkSql(table, range, request); // A bound that is none is refused before anything is asked.
      const secondary = secondaryFor(options, table, request);
      const client = await (secondary?.connect ?? connect)();
      let exact: ExactSnapshot | null = null;
      try {
        const replica = secondary && (await awaitReplay(client, connect, secondary.from_lsn, secondary));
        if (isExact(table, request)) exact = await exactSnapshot(client, options.connectReplication, table);
        return await openChunk(client, { table, range, request, publications, exact, replica, primary: connect });
      } catch (error) {
        const fault = whereFault(error, table, request) ?? (await tableFault(client, table, error));
        await closeClient(client);
        throw fault;
      } finally {
        await exact?.close();
      }
    },
  };
}

/** Of a table without a key, whose copy goes on by the log: what the snapshot has must be known to the commit. */
function isExact(table: SourceTable, { is_logged }: Pick<ChunkRequest, 'is_logged'>): boolean {
  return is_logged && table.key.length === 0;
}

/**
 * The replica, where it can be read from: it has no slots to begin an exact snapshot with, and no rows of unlogged tables; and without a position to
 * wait for, nobody could say when it may be read.
 */
function secondaryFor(
  { secondary }: ExtractorOptions,
  table: SourceTable,
  request: Pick<ChunkRequest, 'is_logged' | 'from_lsn'>,
): (Secondary & { readonly from_lsn: Lsn }) | null {
  const { from_lsn } = request;
  if (!secondary || from_lsn === null || isExact(table, request) || table.persistence === 'u') return null;
  return { ...secondary, from_lsn };
}

async function sampleOn(options: ExtractorOptions, table: SourceTable, request: SampleRequest): Promise<TableSample> {
  const secondary = secondaryFor(options, table, { is_logged: false, from_lsn: request.from_lsn });
  return await onSource(secondary?.connect ?? options.connect, `look into ${displayName(table)}`, async (client) => {
    try {
      if (secondary) await awaitReplay(client, options.connect, secondary.from_lsn, secondary);
      return await sampleTable(client, table, request);
    } catch (error) {
      const { filter = null } = request;
      throw whereFault(error, table, { where: null, filter }) ?? (await tableFault(client, table, error));
    }
  });
}

async function pagesOn(options: ExtractorOptions, table: SourceTable, request: PagesRequest): Promise<Pages> {
  const secondary = secondaryFor(options, table, { is_logged: false, from_lsn: request.from_lsn });
  return await onSource(secondary?.connect ?? options.connect, `look into ${displayName(table)}`, async (client) => {
    try {
      if (secondary) await awaitReplay(client, options.connect, secondary.from_lsn, secondary);
      return await readPages(client, table, request);
    } catch (error) {
      const { filter = null } = request;
      throw whereFault(error, table, { where: null, filter }) ?? (await tableFault(client, table, error));
    }
  });
}

/**
 * The COPY of one chunk, of a server of `version`. Throws RangeError for a ctid that is none: nothing of a ledger's text gets into a statement
 * unseen.
 */
export function chunkSql(
  table: SourceTable,
  range: ChunkRange,
  { filter = null, where, projection = null }: Pick<ChunkRequest, 'where' | 'filter' | 'projection'>,
  version = CHAR_ESCAPED_SINCE,
): string {
  const columns = selectList(table, projection, ({ name, type_oid }) =>
    type_oid === CHAR_OID && version < CHAR_ESCAPED_SINCE ? charSql(quoteIdentifier(name)) : quoteIdentifier(name),
  );
  const conditions = rangeConditions(range);
  // Each has its lines to itself, so that a comment at its end does not swallow the rest.
  for (const condition of [filter, where]) if (condition !== null) conditions.push(`(${condition}\n)`);
  const condition = conditions.length > 0 ? ` WHERE ${conditions.join(' AND ')}` : '';
  return `COPY (SELECT ${columns} FROM ${fromSql(table)}${condition}) TO STDOUT`;
}

/** A `"char"` as servers print it since 16; before, one above 127 is a byte that is no text. The log's are mended by lib/cut/copy-text.ts. */
function charSql(column: string): string {
  const byte = `(${column}::int4 & 255)`;
  const octal = [`${byte} >> 6`, `(${byte} >> 3) & 7`, `${byte} & 7`].map((digit) => `(${digit})::text`).join(' || ');
  return `CASE WHEN ${column}::int4 < 0 THEN E'\\\\' || ${octal} ELSE ${column}::text END`;
}

async function readTable(
  client: Client,
  name: TableName,
  publications: readonly string[],
): Promise<SourceTable | null> {
  const version = await serverVersion(client);
  const sql = tablesSql(version, true);
  const { rows } = await client.query<CatalogRow>(sql, [name.schema, name.table]);
  if (!rows[0]) return null;
  const table = tableOf(rows[0]);
  const generated = table.generated ?? [];
  const types = await readTypes(client, customTypeOids([...table.columns, ...generated]));
  const carried = generated.length > 0 && version >= GENERATED_PUBLISHED_SINCE;
  const published = carried ? await readPublished(client, generated, publications) : new Set<string>();
  const columns = [
    ...table.columns,
    ...generated
      .filter((column) => published.has(column.name))
      .map(({ name, number, type_oid, type_modifier }) => ({
        name,
        type_oid,
        type_modifier,
        not_null: false,
        ...(number === undefined ? {} : { number }),
      })),
  ].toSorted((a, b) => (a.number ?? 0) - (b.number ?? 0));
  return { ...table, columns: withTypes(columns, types), generated: withTypes(generated, types) };
}

/** Names of the table's columns that the log brings. Only stored generated columns can be among them, and only since 18. */
async function readPublished(
  client: Client,
  generated: readonly GeneratedColumn[],
  publications: readonly string[],
): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ published: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = ANY ($1) AND pubgencols = 's') AS published`,
    [publications],
  );
  const stored = generated.filter(({ storage }) => storage === 's').map(({ name }) => name);
  return new Set(rows[0]?.published ? stored : []);
}

/** As `insertLsn`; where the source is a standby itself, what it has replayed. Of no use where the log goes on from it. */
async function readPosition(client: Client): Promise<Lsn> {
  const { rows } = await client.query<WalSizes & { lsn: string | null }>(
    `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS lsn, ${WAL_SIZES_SQL}`,
  );
  const row = one(rows);
  return lastRecordEnd(parseLsn(row.lsn ?? '0/0'), row);
}

interface ChunkAsked extends Pick<ExtractorOptions, 'publications'> {
  readonly table: SourceTable;
  readonly range: ChunkRange;
  readonly request: ChunkRequest;
  readonly exact: ExactSnapshot | null;
  /** The replica that `client` is connected to, as it was when it had replayed enough; null: it is the primary. */
  readonly replica: ServerSeen | null;
  readonly primary: Connect;
}

/** Kinds that LOCK TABLE takes on every version. (Views since 11; materialized views and foreign tables never.) */
const LOCKED_KINDS: ReadonlySet<string> = new Set(['r', 'p']);

/**
 * Begins the chunk's transaction, and locks its table before the snapshot, which locking does not take: what the snapshot says of the columns and
 * what COPY reads by them are then the same, for nobody alters the table from here on. A rewrite that had committed between a snapshot and the lock
 * would show an empty table.
 *
 * A view, or a foreign table, is locked by a query that reads nothing. That one would take the snapshot, so each statement has its own here (READ
 * COMMITTED); the rows are those of one statement all the same.
 */
async function beginChunk(client: Client, table: SourceTable): Promise<void> {
  const locks = LOCKED_KINDS.has(table.kind);
  await client.query(beginReadOnlySql(locks ? 'REPEATABLE READ' : 'READ COMMITTED', policiesOn(table)));
  const name = quoteTable(table);
  await client.query(locks ? `LOCK TABLE ${name} IN ACCESS SHARE MODE` : `SELECT FROM ${name} WHERE false`);
}

/** What a view shows is what it is for. */
function policiesOn({ kind }: SourceTable): 'on' | 'off' {
  return kind === 'v' ? 'on' : 'off';
}

/** Takes the transaction's snapshot. A position past every commit that it sees. */
async function chunkPosition(client: Client, { exact, replica, primary, table, request }: ChunkAsked): Promise<Lsn> {
  if (replica) return await replicaSnapshot(client, primary, replica, request.is_logged);
  // The first query takes the transaction's snapshot, and then calls the function. A commit is in a snapshot only after its record is in
  // the log, so every commit that this snapshot sees ends at or before the position. Read before the snapshot, it could miss one.
  if (exact === null) return await (request.is_logged ? readInsertLsn(client) : readPosition(client));
  await client.query(takeSnapshotSql(exact));
  await assertNotRewritten(client, table);
  return exact.lsn;
}

async function openChunk(client: Client, asked: ChunkAsked): Promise<ChunkRead> {
  const { range, request, publications } = asked;
  await beginChunk(client, asked.table);
  const lsn = await chunkPosition(client, asked);
  const found = await readTable(client, asked.table, publications);
  if (!found) throw new SluiceError('TABLE_MISSING', { table: displayName(asked.table) });
  const { by_query } = asked.table;
  const table = by_query ? byQuery(found, by_query.key_properties) : found;
  if (asked.exact === null && isExact(table, request)) {
    throw new SluiceError('TABLE_REWRITTEN', { stream: displayName(table), what: 'it has lost its key.' });
  }

  // Told apart from a condition that names a column which is not there.
  const gone = rangeColumnNames(range).find((name) => !table.columns.some((column) => column.name === name));
  if (gone !== undefined) {
    const what = `its column ${gone}, by which it was to be read, is gone.`;
    throw new SluiceError('TABLE_REWRITTEN', { stream: displayName(table), what });
  }
  const sql = chunkSql(table, range, request, await serverVersion(client));
  const copy = client.query(new CopyOut(sql));
  const lines = new PassThrough({ highWaterMark: LINES_BYTES_MAX });
  const { promise, resolve, reject } = Promise.withResolvers<{ rows: number; lsn: Lsn }>();
  promise.catch(() => {}); // Whoever asks for the result learns of the failure, and nobody has to ask.
  const fail = async (error: Error): Promise<void> => {
    lines.destroy(whereFault(error, table, request) ?? (await tableFault(client, table, error)));
  };
  const finish = async (): Promise<void> => {
    try {
      // The command's tag, with the number of rows, comes after its last line: this query waits its turn behind it. A transaction that
      // failed at its very end is rolled back by its COMMIT.
      const { command } = await client.query('COMMIT');
      if (command === 'COMMIT') {
        const last = lsnMax(lsn, await lastPosition(client, asked));
        // A replica, and a slot that a snapshot begins with, have seen nothing that is not on the disk.
        if (asked.replica === null && asked.exact === null) await awaitFlushed(client, last);
        resolve({ rows: copy.rows, lsn: last });
      } else reject(unfinished(table));
    } catch (error) {
      reject(sourceFault(error, `read ${displayName(table)}`));
    } finally {
      await closeClient(client);
    }
  };
  copy.on('error', (error: Error) => void fail(error));
  copy.pipe(lines);
  lines.once('error', reject);
  lines.once('end', () => void finish());
  lines.once('close', () => {
    if (lines.readableEnded) return;
    // Failed, or given up by the reader; then COPY is still running, and only the end of the connection stops it.
    client.connection.stream.destroy();
    reject(unfinished(table));
    void closeClient(client);
  });
  return { table, lines, result: () => promise };
}

/** Where each statement had a snapshot of its own, that of the rows was taken after the first position. */
async function lastPosition(client: Client, { table, replica, primary, request }: ChunkAsked): Promise<Lsn> {
  if (LOCKED_KINDS.has(table.kind)) return LSN_ZERO;
  const read = request.is_logged ? readInsertLsn : readPosition;
  return await (replica ? onSource(primary, 'tell its position', read) : read(client));
}

function unfinished(table: SourceTable): SluiceError {
  const reason = `the chunk of ${displayName(table)} was not read to its end`;
  return new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
}

/** What a failed read of `table` means. Asks the server once more where the SQLSTATE leaves it open, if the connection still answers. */
async function tableFault(client: Client, table: SourceTable, error: unknown): Promise<SluiceError> {
  const options = { cause: error };
  const name = displayName(table);
  // A function behind a view: what it reports says nothing of the table.
  if (isServerError(error) && isOfProcedure(error)) return sourceFault(error, `read ${name}`);
  switch (sqlstateOf(error)) {
    case '42P01': // undefined_table
    case '3F000': // invalid_schema_name
      // Also where a view makes a name of a value.
      return (await isThere(client, table))
        ? sourceFault(error, `read ${name}`)
        : new SluiceError('TABLE_MISSING', { table: name }, options);
    case '42703': // undefined_column
      return new SluiceError('TABLE_REWRITTEN', { stream: name, what: reasonOf(error) }, options);
    case '55000': // object_not_in_prerequisite_state
      return table.kind === 'm'
        ? new SluiceError('VIEW_NOT_POPULATED', { table: name, table_sql: quoteTable(table) }, options)
        : sourceFault(error, `read ${name}`);
    case '42501':
      return (await deniedRead(client, table, options)) ?? sourceFault(error, `read ${name}`);
    default:
      return sourceFault(error, `read ${name}`);
  }
}

async function isThere(client: Client, { oid, schema, table }: SourceTable): Promise<boolean> {
  try {
    await client.query('ROLLBACK');
    const { rows } = await client.query(
      'SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1 AND nspname = $2 AND relname = $3',
      [oid, schema, table],
    );
    return rows.length > 0;
  } catch {
    return false; // The first error is the one to tell.
  }
}

/** insufficient_privilege is also what row_security = off says where a policy would hide rows. */
async function deniedRead(client: Client, table: SourceTable, options: ErrorOptions): Promise<SluiceError | null> {
  try {
    await client.query('ROLLBACK');
    const { rows } = await client.query<{ user: string; row_security: boolean }>(
      'SELECT current_user AS user, row_security_active($1::oid) AS row_security',
      [table.oid],
    );
    const [row] = rows;
    if (!row) return null;
    const user_sql = quoteIdentifier(row.user);
    const facts = { table: displayName(table), user: row.user, user_sql };
    if (row.row_security) return new SluiceError('TABLE_ROW_SECURITY', facts, options);
    const sql = `GRANT USAGE ON SCHEMA ${quoteIdentifier(table.schema)} TO ${user_sql}; GRANT SELECT ON ${quoteTable(table)} TO ${user_sql};`;
    return new SluiceError('TABLE_UNREADABLE', { ...facts, sql }, options);
  } catch {
    return null; // The first error is the one to tell.
  }
}
