/**
 * What the doctor asks the source, over one connection. Nothing is changed there.
 */
import type { Client } from 'pg';
import type { Pipeline } from '../config/schema.ts';
import { type Selection, selectTables } from '../config/selection.ts';
import type { SluiceError } from '../errors.ts';
import type { Ground, SourceTable } from '../ports.ts';
import { type Connect, onSource } from '../postgres/session.ts';
import { customTypeOids, type SourceType } from '../shape.ts';
import { appendPublicationName } from '../slot/append-publication.ts';
import { readTables } from '../slot/catalog.ts';
import type { PublicationState } from '../slot/publication.ts';
import { readPublication } from '../slot/publish.ts';
import { publishedFilter, type ReadFilter, ReadFilters, ROW_FILTERS_SINCE } from '../slot/row-filter.ts';
import { look } from '../slot/source.ts';
import { readTypes } from '../slot/types.ts';
import { type FailoverSurvey, surveyFailover } from './failover.ts';
import { probePlugin } from './probe-plugin.ts';

export interface SourceSurvey {
  readonly ground: Ground;
  /** All that the role sees. */
  readonly tables: readonly SourceTable[];
  readonly selection: Selection;
  readonly publication: PublicationState | null;
  /** That of tables that are only appended to, and whether the role may alter it. Null or left out: there is none. */
  readonly append_publication?: { readonly state: PublicationState; readonly owned: boolean } | null;
  /** Types of the selected tables' columns by OID, of those that are not PostgreSQL's own. */
  readonly types: ReadonlyMap<number, SourceType>;
  /** Why its output plugin cannot be used; null or left out: nothing is known to be in the way. */
  readonly plugin?: SluiceError | null;
  /** Of the selected tables, by oid: those that the role owns, so that it may publish them. */
  readonly owned: ReadonlySet<number>;
  /** Columns that an index begins with, by `columnKey`, of the tables that are read by query. Left out: nobody looked. */
  readonly indexed?: ReadonlySet<string>;
  /** Row filters as the source reads them, by the table's OID; or why it does not. Left out: nobody asked. */
  readonly filters?: ReadonlyMap<number, ReadFilter | SluiceError>;
  /** What keeps the slot on standbys; left out: it is not to be kept there. */
  readonly failover?: FailoverSurvey;
  readonly rights: SourceRights;
  readonly limits: SourceLimits;
}

/** A column of a table, by its OID. */
export function columnKey(table: number, column: string): string {
  return `${table}/${column}`;
}

export interface SourceRights {
  readonly creates_in_database: boolean;
  /** False where there is no publication. */
  readonly owns_publication: boolean;
}

/** Settings and how much of them is used; null where the server's version does not have the setting. */
export interface SourceLimits {
  readonly slots_max: number;
  readonly slots_used: number;
  readonly senders_max: number;
  readonly senders_used: number;
  /** MB; -1: no limit. */
  readonly slot_wal_keep_mb: number | null;
  /** ms; 0: none. */
  readonly wal_sender_timeout_ms: number;
  /** Seconds; 0: never. */
  readonly idle_slot_timeout_seconds: number | null;
  /** WAL that our slot holds; null without one. */
  readonly slot_wal_bytes: number | null;
}

/** pg_settings has one unit for each setting, whatever the file says: MB, ms, and seconds or minutes by version, which is asked for. */
const LIMITS_SQL = `
  WITH setting AS (
    SELECT name, setting::int8 * CASE WHEN unit = 'min' THEN 60 ELSE 1 END AS value
      FROM pg_settings
     WHERE name IN ('max_replication_slots', 'max_wal_senders', 'max_slot_wal_keep_size', 'wal_sender_timeout', 'idle_replication_slot_timeout')
  )
  SELECT (SELECT value FROM setting WHERE name = 'max_replication_slots')::float8 AS slots_max,
         (SELECT count(*) FROM pg_replication_slots)::float8 AS slots_used,
         (SELECT value FROM setting WHERE name = 'max_wal_senders')::float8 AS senders_max,
         (SELECT count(*) FROM pg_stat_replication)::float8 AS senders_used,
         (SELECT value FROM setting WHERE name = 'max_slot_wal_keep_size')::float8 AS slot_wal_keep_mb,
         (SELECT value FROM setting WHERE name = 'wal_sender_timeout')::float8 AS wal_sender_timeout_ms,
         (SELECT value FROM setting WHERE name = 'idle_replication_slot_timeout')::float8 AS idle_slot_timeout_seconds,
         CASE WHEN NOT pg_is_in_recovery() THEN
           (SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = $1) END::float8 AS slot_wal_bytes`;

const RIGHTS_SQL = `
  SELECT has_database_privilege(current_database(), 'CREATE') AS creates_in_database,
         COALESCE((SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = $1), false) AS owns_publication`;

const OWNED_SQL = `
  SELECT oid::int8::text AS oid FROM pg_class WHERE oid = ANY ($1::oid[]) AND pg_has_role(relowner, 'USAGE')`;

/** $1: OIDs. Of an index over an expression there is no attribute. */
const INDEXED_SQL = `
  SELECT DISTINCT i.indrelid::int8::text AS oid, a.attname::text AS name
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
   WHERE i.indrelid = ANY ($1::oid[]) AND i.indisvalid AND i.indpred IS NULL
     AND (SELECT amname FROM pg_am m JOIN pg_class c ON c.relam = m.oid WHERE c.oid = i.indexrelid) = 'btree'`;

async function surveyIndexes(client: Client, { streams }: Selection): Promise<ReadonlySet<string>> {
  const oids = streams.filter(({ options }) => options.replication_key !== null).map(({ table }) => table.oid);
  if (oids.length === 0) return new Set();
  const { rows } = await client.query<{ oid: string; name: string }>(INDEXED_SQL, [oids]);
  return new Set(rows.map(({ oid, name }) => columnKey(Number(oid), name)));
}

async function surveyAppends(
  client: Client,
  name: string,
): Promise<NonNullable<SourceSurvey['append_publication']> | null> {
  const state = await readPublication(client, name);
  return state && { state, owned: (await one<SourceRights>(client, RIGHTS_SQL, [name])).owns_publication };
}

export function surveySource(connect: Connect, pipeline: Pipeline): Promise<SourceSurvey> {
  return onSource(connect, 'be examined', async (client) => {
    const { replication_slot, publication_name, failover } = pipeline.source;
    const tables = await readTables(client);
    const selection = selectTables(tables, pipeline);
    const oids = selection.streams.map(({ table }) => table.oid);
    const columns = selection.streams.flatMap(({ table }) => [...table.columns, ...(table.generated ?? [])]);
    const owned = await client.query<{ oid: string }>(OWNED_SQL, [oids]);
    const ground = await look(client, replication_slot);
    return {
      ground,
      plugin: pipeline.source.plugin === 'wal2json' && !ground.slot ? await probePlugin(client) : null,
      tables,
      selection,
      publication: await readPublication(client, publication_name),
      append_publication: await surveyAppends(client, appendPublicationName(publication_name)),
      types: await readTypes(client, customTypeOids(columns)),
      indexed: await surveyIndexes(client, selection),
      filters: await surveyFilters(client, pipeline, ground, selection),
      owned: new Set(owned.rows.map(({ oid }) => Number(oid))),
      rights: await one<SourceRights>(client, RIGHTS_SQL, [publication_name]),
      ...(failover && { failover: await surveyFailover(client) }),
      limits: await one<SourceLimits>(client, LIMITS_SQL, [replication_slot]),
    };
  });
}

async function one<T extends object>(client: Client, sql: string, values: readonly string[]): Promise<T> {
  const { rows } = await client.query<T>(sql, [...values]);
  const [row] = rows;
  if (row === undefined) throw new RangeError('a query that always has a row gave none');
  return row;
}

/** Each is made a view of that is rolled back, which a standby does not do. */
async function surveyFilters(
  client: Client,
  { source: { plugin } }: Pipeline,
  { version, in_recovery }: Ground,
  { streams }: Selection,
): Promise<ReadonlyMap<number, ReadFilter | SluiceError>> {
  const found = new Map<number, ReadFilter | SluiceError>();
  if (in_recovery || version < ROW_FILTERS_SINCE || plugin !== 'pgoutput') return found;
  const filters = new ReadFilters();
  for (const stream of streams) {
    const where = publishedFilter(stream);
    if (where !== null) found.set(stream.table.oid, await filters.read(client, stream.table, where));
  }
  return found;
}
