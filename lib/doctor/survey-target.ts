/**
 * What the doctor asks the target, over one connection. Nothing is changed there.
 */
import type { Client } from 'pg';
import { targetFault } from '../load/faults.ts';
import { Session } from '../load/session.ts';
import { type LackingType, lackingTypes } from '../load/types.ts';
import { closeClient } from '../postgres/connection.ts';
import type { Connect } from '../postgres/session.ts';
import type { SourceType, TableName } from '../shape.ts';
import { type ReaderSurvey, surveyReaders } from './readers.ts';

export interface TargetSurvey {
  readonly server: TargetServer;
  /** The target schemas, and `_sluice`. */
  readonly schemas: readonly TargetSchema[];
  /** What is at the places of the target tables. */
  readonly tables: readonly TargetTable[];
  /** Of the types that the source's columns have, those that the target lacks and cannot be given: their columns will be text. */
  readonly types_lacking: readonly LackingType[];
  /** `_sluice.streams`: null where it has not been made; `unreadable` where another role's is there. */
  readonly streams: readonly TargetStreamRow[] | 'unreadable' | null;
  /** Roles that are to read what is made. Left out: nobody asked. */
  readonly readers?: readonly ReaderSurvey[];
}

export interface TargetServer {
  readonly version: number;
  readonly system_identifier: string;
  readonly in_recovery: boolean;
  readonly read_only: boolean;
  readonly encoding: string;
  readonly user: string;
  readonly database: string;
  readonly creates_in_database: boolean;
}

export interface TargetSchema {
  readonly name: string;
  readonly there: boolean;
  /** The role may use it and make tables in it. */
  readonly writable: boolean;
}

export interface TargetTable extends TableName {
  readonly kind: string;
  readonly owned: boolean;
}

export interface TargetStreamRow {
  readonly pipeline: string;
  readonly stream: string;
  readonly incarnation: string;
  readonly target_schema: string;
  readonly target_table: string;
  readonly made: boolean;
}

const SERVER_SQL = `
  SELECT current_setting('server_version_num')::int4 AS version,
         (SELECT system_identifier FROM pg_control_system())::text AS system_identifier,
         pg_is_in_recovery() AS in_recovery,
         current_setting('transaction_read_only') = 'on' AS read_only,
         getdatabaseencoding() AS encoding,
         current_user AS user,
         current_database() AS database,
         has_database_privilege(current_database(), 'CREATE') AS creates_in_database`;

const SCHEMAS_SQL = `
  SELECT wanted.name,
         n.oid IS NOT NULL AS there,
         COALESCE(has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE'), false) AS writable
    FROM unnest($1::text[]) AS wanted (name)
    LEFT JOIN pg_namespace n ON n.nspname = wanted.name
   ORDER BY wanted.name COLLATE "C"`;

const TABLES_SQL = `
  SELECT n.nspname AS schema, c.relname AS table, c.relkind::text AS kind, pg_has_role(c.relowner, 'USAGE') AS owned
    FROM unnest($1::text[], $2::text[]) AS wanted (schema_name, table_name)
    JOIN pg_namespace n ON n.nspname = wanted.schema_name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.table_name`;

/** Null: there is no table `_sluice.streams`. All that a loader does with it needs all of these rights. */
const STREAMS_READABLE_SQL = `
  SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
         AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AS readable
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = '_sluice' AND c.relname = 'streams'`;

const STREAMS_SQL = 'SELECT pipeline, stream, incarnation, target_schema, target_table, made FROM _sluice.streams';

/** `targets`: where the streams go; `types`: of their columns; `readers`: roles that are to read them. Throws what connecting throws. */
export async function surveyTarget(
  connect: Connect,
  targets: readonly TableName[],
  types: readonly SourceType[],
  readers: readonly string[] = [],
): Promise<TargetSurvey> {
  const client = await connect();
  try {
    const { rows } = await client.query<TargetServer>(SERVER_SQL);
    const [server] = rows;
    if (server === undefined) throw new RangeError('a query that always has a row gave none');
    const names = [...new Set(['_sluice', ...targets.map(({ schema }) => schema)])];
    const schemas = await client.query<TargetSchema>(SCHEMAS_SQL, [names]);
    const places = [targets.map(({ schema }) => schema), targets.map(({ table }) => table)];
    const tables = await client.query<TargetTable>(TABLES_SQL, places);
    const uses = types.map((type) => ({ type_oid: 0, type_modifier: -1, type }));
    const types_lacking = await lackingTypes(new Session(client, { stream: 'any stream', table: 'any table' }), uses);
    return {
      server,
      schemas: schemas.rows,
      tables: tables.rows,
      types_lacking,
      streams: await readStreams(client),
      readers: await surveyReaders(client, readers, names),
    };
  } catch (error) {
    const { host, port, user = '', database = '' } = client;
    const server = { host, port, user, database };
    throw targetFault(error, { stream: 'any stream', table: 'any table', action: 'read the catalog', server });
  } finally {
    await closeClient(client);
  }
}

async function readStreams(client: Client): Promise<TargetSurvey['streams']> {
  const { rows } = await client.query<{ readable: boolean }>(STREAMS_READABLE_SQL);
  const [streams] = rows;
  if (streams === undefined) return null;
  return streams.readable ? (await client.query<TargetStreamRow>(STREAMS_SQL)).rows : 'unreadable';
}
