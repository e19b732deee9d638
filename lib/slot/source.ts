/**
 * The source's primary, by query (port Source): the ground of a window, the tables, and what capturing a stream needs (I11): publication, slot, writers.
 *
 * Each call opens a connection, does one thing in one transaction, and closes it. Reading the slot itself is `reader.ts`'s; deciding whether the
 * ground is firm is `ground.ts`'s.
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../lsn.ts';
import type { Ground, SlotRow, Source, SourceTable, Writer } from '../ports.ts';
import { reasonOf, sqlstateOf } from '../postgres/faults.ts';
import { readInsertLsn } from '../postgres/log-position.ts';
import { type Connect, currentUser, one, onSource, serverVersion } from '../postgres/session.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { readTables } from './catalog.ts';
import { describe } from './describe.ts';
import { failoverFault, setFailover } from './failover.ts';
import { FILLED_BEFORE_SQL } from './partitions.ts';
import { advanceSql } from './peek-sql.ts';
import { publishAll, published } from './publish.ts';
import { ReadFilters } from './row-filter.ts';
import { DROP_LOST_SLOT_SQL, GROUND_SQL, OPEN_TRANSACTIONS_SQL, WRITERS_SQL } from './source-sql.ts';
import { readTimelineEnd } from './timelines.ts';
import { readIdentities, readSpecialNumbers } from './wal2json-source.ts';

const CREATE_SLOT_WAIT_MS = 60_000;
const BLOCKERS_SHOWN_MAX = 5;

export interface SourceOptions {
  readonly connect: Connect;
  /** A walsender's connection. Left out: a slot that is there is not changed. */
  readonly connectReplication?: Connect;
  readonly openSlot: Source['openSlot'];
  readonly config: {
    readonly database: string;
    readonly replication_slot: string;
    readonly publication_name: string;
    /** pgoutput where it is not said. */
    readonly plugin?: 'pgoutput' | 'wal2json';
    /** The slot is kept on standbys as well (17+); null: it is somebody else's, and stays as it is. */
    readonly failover?: boolean | null;
  };
  /** How long the making of a slot may wait for transactions that are open already. */
  readonly create_slot_wait_ms?: number;
}

export function postgresSource(given: SourceOptions): Source {
  const { connect, connectReplication, openSlot, config, create_slot_wait_ms } = given;
  const { replication_slot: slot, publication_name: publication, plugin = 'pgoutput' } = config;
  const filters = new ReadFilters();
  return {
    look: () => onSource(connect, 'say how it stands', (client) => look(client, slot)),
    tables: () => onSource(connect, 'list its tables', readTables),
    published: (tables) =>
      onSource(connect, `read publication ${publication}`, (client) =>
        plugin === 'wal2json' ? readIdentities(client, tables) : published(client, publication, tables),
      ),
    publish: (tables) =>
      onSource(connect, `change publication ${publication}`, async (client) =>
        plugin === 'wal2json'
          ? { published: await readIdentities(client, tables), altered: false } // It has no publication, and needs none.
          : await publishAll(client, publication, tables, filters),
      ),
    filterFaults: async (tables) => {
      const filtered = tables.filter(({ filter }) => typeof filter === 'string');
      if (filtered.length === 0) return new Map();
      return await onSource(connect, 'read row filters', (client) => filters.faults(client, filtered));
    },
    filledBefore: (partitions) =>
      onSource(connect, 'describe its partitions', (client) => readFilledBefore(client, partitions)),
    createSlot: () =>
      onSource(connect, `make replication slot ${slot}`, (client) =>
        createSlot(client, slot, plugin, config.failover ?? false, create_slot_wait_ms ?? CREATE_SLOT_WAIT_MS),
      ),
    ...(connectReplication && {
      setFailover: (failover) =>
        onSource(connectReplication, `change replication slot ${slot}`, (client) =>
          setFailover(client, slot, failover),
        ),
      timelineEnd: (timeline, now) =>
        onSource(connectReplication, 'tell its history', (client) => readTimelineEnd(client, timeline, now)),
    }),
    dropLostSlot: () => onSource(connect, `drop replication slot ${slot}`, (client) => dropLostSlot(client, slot)),
    advanceSlot: (lsn) =>
      onSource(connect, `advance replication slot ${slot}`, (client) =>
        advanceSlot(client, slot, plugin, publication, lsn),
      ),
    writers: (tables) => onSource(connect, 'show its locks', (client) => readWriters(client, tables)),
    insertLsn: () => onSource(connect, 'tell its position', readInsertLsn),
    describe: (tables, types) => onSource(connect, 'describe its tables', (client) => describe(client, tables, types)),
    specialNumbers: (query) => onSource(connect, 'look up numbers', (client) => readSpecialNumbers(client, query)),
    terminate: (pid) => onSource(connect, `end process ${pid}`, (client) => terminate(client, slot, pid)),
    openSlot,
  };
}

interface GroundRow extends Omit<Ground, 'flush_lsn' | 'slot'> {
  readonly flush_lsn: string;
  readonly slot: (Omit<SlotRow, 'confirmed_lsn'> & { readonly confirmed_lsn: string }) | null;
}

/** Ground as `client` sees it. */
export async function look(client: Client, slot: string): Promise<Ground> {
  const { rows } = await client.query<GroundRow>(GROUND_SQL, [slot]);
  const row = one(rows);
  return {
    ...row,
    flush_lsn: parseLsn(row.flush_lsn),
    slot: row.slot && { ...row.slot, confirmed_lsn: parseLsn(row.slot.confirmed_lsn) },
  };
}

async function createSlot(
  client: Client,
  slot: string,
  plugin: string,
  failover: boolean,
  wait_ms: number,
): Promise<Lsn> {
  const fault = failoverFault(await serverVersion(client), failover);
  if (fault) throw fault;
  const more = failover ? ', failover => true' : '';
  try {
    // The server waits here for every transaction that is open in the cluster: without a limit, for ever.
    await client.query(`SET statement_timeout = ${wait_ms}`);
    const { rows } = await client.query<{ lsn: string }>(
      `SELECT lsn::text FROM pg_create_logical_replication_slot($1, $2, false${more})`,
      [slot, plugin],
    );
    return parseLsn(one(rows).lsn);
  } catch (error) {
    throw await createSlotFault(client, slot, wait_ms, error);
  }
}

/** Why a slot could not be made; `client` asks what is in the way. What no SQLSTATE tells stays as it was thrown. */
export async function createSlotFault(client: Client, slot: string, wait_ms: number, error: unknown): Promise<unknown> {
  const options = { cause: error };
  switch (sqlstateOf(error)) {
    case '58P01': // undefined_file: its library
      return await pluginMissing(client, error);
    case '42710': // duplicate_object
      return new SluiceError('SLOT_FOREIGN', { slot }, options);
    case '53400': // configuration_limit_exceeded
      return new SluiceError('SLOTS_EXHAUSTED', {}, options);
    case '42501': {
      const user = await currentUser(client);
      return new SluiceError('REPLICATION_NOT_ALLOWED', { user, user_sql: quoteIdentifier(user) }, options);
    }
    case '55P03': // lock_not_available: of one such transaction
    case '57014': {
      const { rows } = await client.query<{ pid: number | null; gid: string | null }>(OPEN_TRANSACTIONS_SQL, [
        BLOCKERS_SHOWN_MAX,
      ]);
      const blockers = rows.map(({ pid, gid }) => (pid === null ? `prepared transaction ${gid}` : `process ${pid}`));
      const facts = { slot, wait_seconds: wait_ms / 1000, blockers: blockers.join(', ') || 'they have ended since' };
      return new SluiceError('SLOT_BLOCKED', facts, options);
    }
    case '55000': {
      const { rows } = await client.query<{ wal_level: string }>("SELECT current_setting('wal_level') AS wal_level");
      const { wal_level } = one(rows);
      return wal_level === 'logical' ? error : new SluiceError('WAL_LEVEL', { wal_level }, options);
    }
    default:
      return error;
  }
}

async function dropLostSlot(client: Client, slot: string): Promise<void> {
  try {
    await client.query(DROP_LOST_SLOT_SQL, [slot]);
  } catch (error) {
    if (sqlstateOf(error) !== '55006') throw error;
    throw await slotActive(client, slot, error);
  }
}

async function slotActive(client: Client, slot: string, cause: unknown): Promise<SluiceError> {
  const { slot: now } = await look(client, slot);
  const facts = { slot, pid: now?.active_pid, application_name: now?.active_application, client: now?.active_client };
  return new SluiceError('SLOT_ACTIVE', facts, { cause });
}

async function advanceSlot(client: Client, slot: string, plugin: string, publication: string, lsn: Lsn): Promise<void> {
  const { slot: before } = await look(client, slot);
  if (!before) throw new SluiceError('SLOT_MISSING', { slot, lsn: formatLsn(lsn), known: false });
  try {
    await client.query(advanceSql(slot, lsn, await serverVersion(client), plugin, publication));
  } catch (error) {
    if (sqlstateOf(error) !== '55006') throw error;
    throw await slotActive(client, slot, error);
  }
}

/** PostgreSQL brings pgoutput with it: only the other can be missing. */
export async function pluginMissing(client: Client, error: unknown): Promise<SluiceError> {
  const major = Math.floor((await serverVersion(client)) / 10_000);
  return new SluiceError('PLUGIN_MISSING', { plugin: 'wal2json', major, reason: reasonOf(error) }, { cause: error });
}

async function readWriters(client: Client, tables: readonly SourceTable[]): Promise<Writer[]> {
  const { rows } = await client.query<Writer>(WRITERS_SQL, [
    // Who writes to a partition by its own name locks that one only.
    tables.flatMap(({ oid, partitions = [] }) => [oid, ...partitions.map((partition) => partition.oid)]),
  ]);
  return rows;
}

async function readFilledBefore(client: Client, partitions: readonly number[]): Promise<number[]> {
  const { rows } = await client.query<{ oid: string }>(FILLED_BEFORE_SQL, [partitions]);
  return rows.map(({ oid }) => Number(oid));
}

/** Only while it is the reader of our slot: a pid may be somebody else's by now. */
async function terminate(client: Client, slot: string, pid: number): Promise<void> {
  await client.query(
    'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid = $2',
    [slot, pid],
  );
}
