/**
 * Reads and changes the publications of the source: carries out what publication.ts decides (step 1 of capturing a stream, I11), for tables with a key or
 * a full identity by the one, and for those that are only appended to by the other (append-publication.ts).
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import type { Published, RefusedUpdates, SourceTable } from '../ports.ts';
import { reasonOf, sourceFault, sqlstateOf } from '../postgres/faults.ts';
import { currentUser, one, serverVersion } from '../postgres/session.ts';
import { displayName } from '../shape.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { appendOperations, appendPublicationName, appendState, isAppendOnly } from './append-publication.ts';
import { readTables } from './catalog.ts';
import {
  needsWriterLock,
  type PublicationState,
  type Publishable,
  publicationSql,
  publicationStep,
  publishedTables,
} from './publication.ts';
import { tableList } from './publication-members.ts';
import { refusedUpdates } from './refused-updates.ts';
import { ReadFilters } from './row-filter.ts';

/** How often another who changes the same publication may come between. */
const PUBLISH_ATTEMPTS_MAX = 4;
/** A publication is added to under a lock that writers do not wait for; theirs, where it must be taken, is held back from them no longer than this. */
const PUBLISH_LOCK_WAIT_MS = 10_000;
const WRITER_LOCK_WAIT_MS = 3_000;

/** The publication as it is; null: there is none. */
export async function readPublication(client: Client, publication: string): Promise<PublicationState | null> {
  const sql = publicationSql(await serverVersion(client));
  const { rows } = await client.query<{ state: PublicationState | null }>(sql, [publication]);
  return one(rows).state;
}

/** How the tables are published: those that are only appended to by a publication of their own. */
export async function published(
  client: Client,
  publication: string,
  tables: readonly SourceTable[],
): Promise<Published> {
  const [appends, whole] = [tables.filter(isAppendOnly), tables.filter((table) => !isAppendOnly(table))];
  const main = publishedTables(publication, await readPublication(client, publication), whole);
  if (appends.length === 0) return main;
  const name = appendPublicationName(publication);
  const found = await readPublication(client, name);
  const state = found && appendState(name, found, await serverVersion(client));
  return new Map([...main, ...publishedTables(name, state, appends)]);
}

/** Makes the publications, or adds what they lack (port Source.publish). */
export async function publishAll(
  client: Client,
  publication: string,
  wanted: readonly SourceTable[],
  filters = new ReadFilters(),
): Promise<{ published: Published; altered: boolean; refused?: readonly RefusedUpdates[] }> {
  const [appends, whole] = [wanted.filter(isAppendOnly), wanted.filter((table) => !isAppendOnly(table))];
  const main = await publish(client, publication, whole, false, filters);
  if (appends.length === 0) return main;
  await withdraw(client, publication, appends);
  const more = await publish(client, appendPublicationName(publication), appends, true, filters);
  return {
    published: new Map([...main.published, ...more.published]),
    altered: main.altered || more.altered,
    refused: refusedUpdates(publication, await readPublication(client, publication), appends),
  };
}

/** Takes tables that have lost their key out of the publication that holds updates, for as long as they are in it the source refuses those. */
async function withdraw(client: Client, publication: string, tables: readonly SourceTable[]): Promise<void> {
  const state = await readPublication(client, publication);
  const members = new Set(state?.members.map(({ oid }) => oid));
  const held = tables.filter(({ oid }) => members.has(oid));
  if (held.length === 0) return;
  const sql = `ALTER PUBLICATION ${quoteIdentifier(publication)} DROP TABLE ${tableList(held)}`;
  try {
    await changePublication(client, sql, []);
  } catch (error) {
    throw await publishFault(client, publication, sql, held, error);
  }
}

/** Reads what is there, changes what is missing, and looks again, until the publication holds every table. `appends`: it is the one for such tables. */
async function publish(
  client: Client,
  publication: string,
  asked: readonly SourceTable[],
  appends: boolean,
  filters: ReadFilters,
): Promise<{ published: Published; altered: boolean }> {
  const version = await serverVersion(client);
  const wanted = await filters.printed(client, asked);
  const operations = appends ? appendOperations(version) : null;
  let added = false;
  let altered = false;
  let last: unknown;
  for (let attempt = 0; attempt < PUBLISH_ATTEMPTS_MAX; attempt++) {
    const found = await readPublication(client, publication);
    const state = found && appends ? appendState(publication, found, version) : found;
    const step = publicationStep(publication, state, wanted, { version, added, operations });
    if (step.kind === 'ready') return { published: publishedTables(publication, state, wanted), altered };
    if (step.kind === 'fault') throw step.fault;
    const locked = state !== null && needsWriterLock(version) ? step.tables : [];
    try {
      await changePublication(client, step.sql, locked);
      if (step.alters) altered = true;
      else added = state !== null;
    } catch (error) {
      // duplicate_object, unique_violation or "tuple concurrently updated" of the catalog: another window has just done the same.
      if (!['42710', '23505', 'XX000'].includes(sqlstateOf(error))) {
        throw await publishFault(client, publication, ownersSql(step.sql, locked), asked, error);
      }
      last = error;
    }
  }
  throw sourceFault(last, `change publication ${publication}`);
}

async function changePublication(client: Client, sql: string, locked: readonly Publishable[]): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(`SET LOCAL lock_timeout = ${locked.length > 0 ? WRITER_LOCK_WAIT_MS : PUBLISH_LOCK_WAIT_MS}`);
    if (locked.length > 0) await client.query(`LOCK TABLE ${tableList(locked)} IN SHARE ROW EXCLUSIVE MODE`);
    await client.query(sql);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {}); // The first error is the one to tell.
    throw error;
  }
}

/** What an owner runs to the same effect. */
function ownersSql(sql: string, locked: readonly Publishable[]): string {
  if (locked.length === 0) return sql;
  return `BEGIN; LOCK TABLE ${tableList(locked)} IN SHARE ROW EXCLUSIVE MODE; ${sql}; COMMIT`;
}

async function publishFault(
  client: Client,
  publication: string,
  sql: string,
  wanted: readonly SourceTable[],
  error: unknown,
): Promise<unknown> {
  const options = { cause: error };
  switch (sqlstateOf(error)) {
    case '42501': // insufficient_privilege: CREATE on the database, or ownership of the publication or of a table
      return new SluiceError(
        'PUBLICATION_NOT_ALLOWED',
        { user: await currentUser(client), publication, reason: reasonOf(error), sql },
        options,
      );
    case '25006': // read_only_sql_transaction
      return new SluiceError(
        'SOURCE_READ_ONLY',
        { action: `change publication ${publication}`, reason: reasonOf(error) },
        options,
      );
    case '55P03': {
      // lock_not_available
      const reason = `the tables that publication ${publication} takes in were locked by others for too long`;
      return new SluiceError('SOURCE_TRANSIENT', { reason, sqlstate: '55P03' }, options);
    }
    case '0A000': // feature_not_supported
    case '42P17': // invalid_object_definition
    case '42804': // datatype_mismatch
    case '22023': {
      const [table] = wanted.filter(({ filter }) => typeof filter === 'string').map(displayName);
      return table === undefined ? error : new SluiceError('ROW_FILTER', { table, reason: reasonOf(error) }, options);
    }
    case '42P01': // undefined_table
    case '3F000': {
      const existing = new Set((await readTables(client)).map(displayName));
      const gone = wanted.map(displayName).find((table) => !existing.has(table));
      return gone === undefined ? error : new SluiceError('TABLE_MISSING', { table: gone }, options);
    }
    default:
      return error;
  }
}
