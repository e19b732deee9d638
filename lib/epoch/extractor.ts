/**
 * Chunks of a table, read by query (port Extractor): `COPY (SELECT …) TO STDOUT`, from the socket to whoever stages it, without a look at the rows (I6).
 *
 * One connection and one transaction a chunk, closed when its lines have ended, failed, or been given up. Memory holds what is on its way (I8).
 * https://www.postgresql.org/docs/current/sql-copy.html
 */
import { PassThrough } from 'node:stream';
import type { Client } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { SluiceError } from '../errors.ts';
import { type Lsn, parseLsn } from '../lsn.ts';
import type { ChunkRange, ChunkRead, Extractor, SourceTable } from '../ports.ts';
import { closeClient, pinSettingsSql } from '../postgres/connection.ts';
import { reasonOf, sourceFault, sqlstateOf } from '../postgres/faults.ts';
import { type Connect, onSource, serverVersion } from '../postgres/session.ts';
import { GENERATED_PUBLISHED_SINCE } from '../postgres/versions.ts';
import { customTypeOids, displayName, type GeneratedColumn, type TableName, withTypes } from '../shape.ts';
import { type CatalogRow, tableOf, tablesSql } from '../slot/catalog.ts';
import { readTypes } from '../slot/types.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { assertNotRewritten, type ExactSnapshot, exactSnapshot, takeSnapshotSql } from './exact-snapshot.ts';
import { rangeConditions } from './range-sql.ts';

/** `"char"`, and when a byte of it that is no ASCII came to be printed as `\ooo` (release notes of 16). */
const CHAR_OID = 18;
const CHAR_ESCAPED_SINCE = 160_000;
/** A chunk waits for whoever alters the table; its bell comes again. */
const LOCK_WAIT_MS_MAX = 60_000;
/** Lines on their way to the stage. */
const LINES_BYTES_MAX = 1024 * 1024;

export interface ExtractorOptions {
  readonly connect: Connect;
  /** A walsender's connection to the same database, for the copies of tables without a key. */
  readonly connectReplication: Connect;
  /** Names of the publications that the tables are read by: what these bring of generated columns, a copy brings as well. */
  readonly publications: readonly string[];
}

export function postgresExtractor({ connect, connectReplication, publications }: ExtractorOptions): Extractor {
  return {
    table: (name) =>
      onSource(connect, `describe ${displayName(name)}`, (client) => readTable(client, name, publications)),
    version: () => onSource(connect, 'tell its version', serverVersion),
    keyBounds: (table, column) =>
      onSource(connect, `read the bounds of ${displayName(table)}`, async (client) => {
        try {
          return await readBounds(client, table, column);
        } catch (error) {
          throw await tableFault(client, table, error);
        }
      }),
    insertLsn: () => onSource(connect, 'tell its position', readInsertLsn),
    readChunk: async (table, range, where) => {
      chunkSql(table, range, where); // A bound that is none is refused before anything is asked.
      const client = await connect();
      let snapshot: ExactSnapshot | null = null;
      try {
        if (table.key.length === 0) snapshot = await exactSnapshot(client, connectReplication, table);
        return await openChunk(client, { table, range, where, publications }, snapshot);
      } catch (error) {
        const fault = await tableFault(client, table, error);
        await closeClient(client);
        throw fault;
      } finally {
        await snapshot?.close();
      }
    },
  };
}

/**
 * The COPY of one chunk, of a server of `version`. Throws RangeError for a ctid that is none: nothing of a ledger's text gets into a statement
 * unseen.
 */
export function chunkSql(
  table: SourceTable,
  range: ChunkRange,
  where: string | null,
  version = CHAR_ESCAPED_SINCE,
): string {
  const columns = table.columns
    .map(({ name, type_oid }) =>
      type_oid === CHAR_OID && version < CHAR_ESCAPED_SINCE ? charSql(quoteIdentifier(name)) : quoteIdentifier(name),
    )
    .join(', ');
  const conditions = rangeConditions(range);
  // A line of its own, so that a comment at its end does not swallow the rest.
  if (where !== null) conditions.push(`(${where}\n)`);
  const condition = conditions.length > 0 ? ` WHERE ${conditions.join(' AND ')}` : '';
  return `COPY (SELECT ${columns} FROM ${fromSql(table)}${condition}) TO STDOUT`;
}

/** A `"char"` as servers print it since 16; before, one above 127 is a byte that is no text. The log's are mended by lib/cut/copy-text.ts. */
function charSql(column: string): string {
  const byte = `(${column}::int4 & 255)`;
  const octal = [`${byte} >> 6`, `(${byte} >> 3) & 7`, `${byte} & 7`].map((digit) => `(${digit})::text`).join(' || ');
  return `CASE WHEN ${column}::int4 < 0 THEN E'\\\\' || ${octal} ELSE ${column}::text END`;
}

/** ONLY: tables that inherit from it are streams of their own. The rows of a partitioned table are its partitions'. */
function fromSql(table: SourceTable): string {
  return table.kind === 'p' ? quoteTable(table) : `ONLY ${quoteTable(table)}`;
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

async function readBounds(
  client: Client,
  table: SourceTable,
  column: string,
): Promise<{ min: string; max: string } | null> {
  const name = quoteIdentifier(column);
  await client.query('SET row_security = off');
  const { rows } = await client.query<{ min: string | null; max: string | null }>(
    `SELECT min(${name})::text AS min, max(${name})::text AS max FROM ${fromSql(table)}`,
  );
  const [row] = rows;
  return row && row.min !== null && row.max !== null ? { min: row.min, max: row.max } : null;
}

async function readInsertLsn(client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  const [row] = rows;
  if (!row) throw new RangeError('no position');
  return parseLsn(row.lsn);
}

interface ChunkAsked extends Pick<ExtractorOptions, 'publications'> {
  readonly table: SourceTable;
  readonly range: ChunkRange;
  readonly where: string | null;
}

async function openChunk(
  client: Client,
  { table: asked, range, where, publications }: ChunkAsked,
  snapshot: ExactSnapshot | null,
): Promise<ChunkRead> {
  // Pinned once more for this transaction: a pooler may give each transaction another session. With row_security off, rows that a policy
  // would hide are an error, and not a smaller table.
  await client.query(
    `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${pinSettingsSql('LOCAL')}; SET LOCAL row_security = off; SET LOCAL lock_timeout = ${LOCK_WAIT_MS_MAX}`,
  );
  // Before the snapshot, which LOCK does not take: what it says of the columns and what COPY reads by them are then the same, for nobody alters
  // the table from here on. A rewrite that had committed between a snapshot and the lock would show an empty table.
  await client.query(`LOCK TABLE ${quoteTable(asked)} IN ACCESS SHARE MODE`);
  if (snapshot) await client.query(takeSnapshotSql(snapshot));
  // The first query takes the transaction's snapshot, and then calls the function. A commit is in a snapshot only after its record is in
  // the log, so every commit that this snapshot sees ends at or before the position. Read before the snapshot, it could miss one.
  const lsn = snapshot?.lsn ?? (await readInsertLsn(client));
  if (snapshot) await assertNotRewritten(client, asked);
  const table = await readTable(client, asked, publications);
  if (!table) throw new SluiceError('TABLE_MISSING', { table: displayName(asked) });
  if (snapshot === null && table.key.length === 0) {
    throw new SluiceError('TABLE_REWRITTEN', { stream: displayName(table), what: 'it has lost its key.' });
  }

  const copy = client.query(copyTo(chunkSql(table, range, where, await serverVersion(client))));
  const lines = new PassThrough({ highWaterMark: LINES_BYTES_MAX });
  const { promise, resolve, reject } = Promise.withResolvers<{ rows: number; lsn: Lsn }>();
  promise.catch(() => {}); // Whoever asks for the result learns of the failure, and nobody has to ask.
  const fail = async (error: Error): Promise<void> => {
    lines.destroy(await tableFault(client, table, error));
  };
  const finish = async (): Promise<void> => {
    try {
      // The command's tag, with the number of rows, comes after its last line: this query waits its turn behind it. A transaction that
      // failed at its very end is rolled back by its COMMIT.
      const { command } = await client.query('COMMIT');
      if (command === 'COMMIT') resolve({ rows: copy.rowCount, lsn });
      else reject(unfinished(table));
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

function unfinished(table: SourceTable): SluiceError {
  const reason = `the chunk of ${displayName(table)} was not read to its end`;
  return new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: 'none' });
}

/** What a failed read of `table` means. Asks the server once more where the SQLSTATE leaves it open, if the connection still answers. */
async function tableFault(client: Client, table: SourceTable, error: unknown): Promise<SluiceError> {
  const options = { cause: error };
  const name = displayName(table);
  switch (sqlstateOf(error)) {
    case '42P01': // undefined_table
    case '3F000': // invalid_schema_name
      return new SluiceError('TABLE_MISSING', { table: name }, options);
    case '42703': // undefined_column
      return new SluiceError('TABLE_REWRITTEN', { stream: name, what: reasonOf(error) }, options);
    case '42501':
      return (await deniedRead(client, table, options)) ?? sourceFault(error, `read ${name}`);
    default:
      return sourceFault(error, `read ${name}`);
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
