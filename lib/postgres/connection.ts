/**
 * From the pipeline file's connection to a connected `pg` client, at both ends of the path.
 *
 * `clientConfig` is pure; the client itself is made by the caller. Every session has the same settings pinned (I6), so that a value's text is
 * the same whether the log, a query or a COPY carries it. Faults of connecting become errors that say which side, where and what to do.
 */
import type { Client, ClientConfig } from 'pg';
import { remedyIfItLasts } from '../error-catalogue/lasting.ts';
import { SluiceError } from '../errors.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { isServerError, isTransientState, lockSetting, networkReason, reasonOf } from './faults.ts';
import { type Ask, limitSilence, SILENCE_MS_MAX } from './silence.ts';
import { type Tls, tlsFault, tlsOptions } from './tls.ts';

export type { Tls } from './tls.ts';

/** An SSH tunnel to the database (tunnel.ts), with its secrets. */
export interface Ssh {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  /** As `ssh-keygen` writes it. */
  readonly private_key: string;
  readonly passphrase: string | null;
  /** `SHA256:…`, as `ssh-keygen -lf` prints it. */
  readonly host_key: string;
}

/** A connection of the pipeline file with its secrets resolved. */
export interface Connection {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string | null;
  readonly database: string;
  /** 0 or less: wait without end. */
  readonly connect_timeout_seconds: number;
  readonly application_name: string;
  readonly ssl?: Tls | null | undefined;
  /** Host and port are reached from there. */
  readonly ssh?: Ssh | null | undefined;
  /** The password is an IAM token: made for this connection, and good for no other kind of server. */
  readonly iam?: boolean;
}

export type Side = 'source' | 'target';

export interface Endpoint {
  readonly side: Side;
  readonly connection: Connection;
  /** A walsender's connection (https://www.postgresql.org/docs/current/protocol-replication.html). */
  readonly replication?: boolean;
  /** SILENCE_MS_MAX (silence.ts) where it is not said. */
  readonly silence_ms?: number;
  /** Whether the server is at work for a session that is silent for so long; left out: nobody asks. */
  readonly ask?: Ask;
}

/** How long a connection may be silent before TCP asks whether the other side is there; Node then gives up after ten more seconds. */
const KEEPALIVE_IDLE_MS = 30_000;
/** The longest wait for one lock, where nothing else is said; then the work is tried again. */
const LOCK_WAIT_MS_MAX = 60_000;
const TIMER_MS_MAX = 2 ** 31 - 1;
const CLOSE_WAIT_MS_MAX = 5_000;
/** https://www.postgresql.org/docs/current/multibyte.html */
const NOT_CONVERTED = 'PostgreSQL has no conversion from it to UTF8';

/**
 * The settings that decide how a value is written (I6), with the reason where it is not the design's own list:
 * - search_path: a regclass or regtype is printed with its schema where the path does not reach it; as in a subscription, nothing is on it.
 * - lc_monetary: money is a number of cents that the locale formats, with as many digits after the point as its currency has; in C both sides mean
 *   the same number. What people see of it on either side is as their own locale has it.
 * - xmloption, array_nulls, quote_all_identifiers, standard_conforming_strings: what the target reads, or a name that is printed, must not depend on
 *   the defaults of a role or database: an XML fragment, NULL in an array, a backslash in a literal.
 * - the timeouts: a limit that a role was given for its people would end a copy in the middle; what must be bounded is bounded here. Somebody's lock on one
 *   table may last for hours (VACUUM FULL, an ALTER TABLE that is not committed), and all others would wait with it.
 */
export const PINNED_SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: 'UTF8',
  DateStyle: 'ISO,MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  lc_monetary: 'C',
  xmloption: 'content',
  array_nulls: 'on',
  quote_all_identifiers: 'off',
  standard_conforming_strings: 'on',
  search_path: 'pg_catalog',
  statement_timeout: '0',
  lock_timeout: String(LOCK_WAIT_MS_MAX),
  idle_in_transaction_session_timeout: '0',
};

/** Timeouts that only later versions have (14+, 17+), so that they cannot stand in the list above. */
const LATER_TIMEOUTS_SQL = `SELECT set_config(name, '0', false) FROM unnest('{idle_session_timeout,transaction_timeout}'::text[]) AS name
  WHERE current_setting(name, true) IS NOT NULL`;

/** The pinned settings as SQL; LOCAL for the transaction only, where a pooler may hand the session to somebody else. */
export function pinSettingsSql(scope: 'SESSION' | 'LOCAL'): string {
  return Object.entries(PINNED_SETTINGS)
    .map(([name, value]) => `SET ${scope} ${name} = '${value}'`)
    .join('; ');
}

/**
 * A replication connection gets the pinned settings as start-up options, as a subscription's own does (libpqwalreceiver). An ordinary one gets
 * them by SET in `connectClient`: poolers and proxies refuse start-up options.
 */
function startupOptions(): string {
  return Object.entries(PINNED_SETTINGS)
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(' ');
}

/** 0: without end. */
function connectMs({ connect_timeout_seconds }: Connection): number {
  return Math.min(Math.max(0, connect_timeout_seconds) * 1000, TIMER_MS_MAX);
}

/**
 * The configuration of a `pg.Client` for one side. Every setting that `pg` would take from the environment (PGPASSWORD, PGSSLMODE, .pgpass)
 * is given, so that only the pipeline file counts.
 */
export function clientConfig({ connection, replication }: Endpoint): ClientConfig {
  const config: ClientConfig & { replication?: 'database' } = {
    host: connection.host,
    port: connection.port,
    user: connection.user,
    password: () => connection.password ?? '',
    database: connection.database,
    application_name: connection.application_name,
    connectionTimeoutMillis: connectMs(connection),
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_IDLE_MS,
    ssl: tlsOptions(connection.host, connection.ssl),
    sslnegotiation: 'postgres',
  };
  if (replication) {
    config.replication = 'database';
    config.options = startupOptions();
  }
  return config;
}

/**
 * Connects the client that `make` makes, and pins its settings. Throws CONNECTION_FAILED, AUTHENTICATION_FAILED, DATABASE_MISSING, TLS_FAILED
 * or REPLICATION_NOT_ALLOWED; the client is closed then. A connection that breaks while nobody waits for it fails the next query.
 */
export async function connectClient(make: () => Client, endpoint: Endpoint): Promise<Client> {
  const client = make();
  forgetEnvironment(client, endpoint);
  try {
    // `pg` tells some faults of authentication by an event only, and its promise would wait for ever.
    const { promise: failed, reject } = Promise.withResolvers<never>();
    failed.catch(() => {});
    client.on('error', reject);
    await Promise.race([client.connect(), failed]);
    const { silence_ms = SILENCE_MS_MAX, connection } = endpoint;
    limitSilence(client, Math.min(connectMs(connection) || silence_ms, silence_ms));
    if (!endpoint.replication) await client.query(`${pinSettingsSql('SESSION')}; ${LATER_TIMEOUTS_SQL}`);
    limitSilence(client, silence_ms, endpoint.ask);
    return client;
  } catch (error) {
    client.connection.stream.destroy();
    throw connectionFault(endpoint, error);
  }
}

/** `pg` takes PGOPTIONS and PGREPLICATION where neither is given, and nothing that may be given instead means none. */
function forgetEnvironment(client: Client, { replication }: Endpoint): void {
  if (replication) return;
  const { connectionParameters } = client as unknown as {
    readonly connectionParameters: { options?: string; replication?: string };
  };
  delete connectionParameters.options;
  delete connectionParameters.replication;
}

/** Ends the session and resolves when the server has let go of it, or after a bounded wait. Never throws. */
export async function closeClient(client: Client): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, CLOSE_WAIT_MS_MAX);
  try {
    await Promise.race([client.end(), late]);
  } catch {
    // It was gone already: closed is what was asked for.
  } finally {
    clearTimeout(timer);
    client.connection.stream.destroy();
  }
}

/** An error of connecting, as one of ours. Pure. */
export function connectionFault(endpoint: Endpoint, error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  const { host, port, user, database } = endpoint.connection;
  const facts = { side: endpoint.side, host, port, user, database, reason: reasonOf(error) };
  const options = { cause: error };
  if (isServerError(error)) return serverRefusal(endpoint, error.code, facts, options);

  const message = error instanceof Error ? error.message : String(error);
  const fault = tlsFault({ side: endpoint.side, host, ssl: endpoint.connection.ssl }, error);
  if (fault) return new SluiceError('TLS_FAILED', { ...facts, ...fault }, options);
  if (message.startsWith('SASL')) {
    const reason = endpoint.connection.password ? message : 'it asks for a password, and none is configured';
    return new SluiceError('AUTHENTICATION_FAILED', { ...facts, reason }, options);
  }
  if (message === 'timeout expired') {
    const reason = `no answer in ${endpoint.connection.connect_timeout_seconds} seconds (connect_timeout_seconds)`;
    return new SluiceError('CONNECTION_FAILED', { ...facts, reason }, options);
  }
  if (networkReason(error)) return new SluiceError('CONNECTION_FAILED', facts, options);
  return new SluiceError('UNEXPECTED', { reason: `${facts.reason} (connecting to the ${facts.side})` }, options);
}

function serverRefusal(
  endpoint: Endpoint,
  sqlstate: string,
  facts: Readonly<Record<string, string | number>>,
  options: ErrorOptions,
): SluiceError {
  const { user, password } = endpoint.connection;
  switch (sqlstate) {
    case '3D000': // invalid_catalog_name
      return new SluiceError('DATABASE_MISSING', facts, options);
    case '42501': // insufficient_privilege: to start a walsender; or no CONNECT on the database
      return endpoint.replication
        ? new SluiceError('REPLICATION_NOT_ALLOWED', { ...facts, user_sql: quoteIdentifier(user) }, options)
        : new SluiceError('AUTHENTICATION_FAILED', { ...facts, remedy: connectSql(endpoint) }, options);
    case '0A000': // feature_not_supported: the only encoding of databases that no client in UTF8 can connect to
      if (facts.reason?.toString().includes('MULE_INTERNAL')) {
        const encoding = { side: endpoint.side, encoding: 'MULE_INTERNAL', reason: NOT_CONVERTED };
        return new SluiceError('ENCODING_UNSUPPORTED', encoding, options);
      }
      return new SluiceError('UNEXPECTED', { reason: `${facts.reason} (SQLSTATE ${sqlstate})` }, options);
    case '28P01': // invalid_password
    case '28000': // invalid_authorization_specification: no such role, no LOGIN, no line of pg_hba.conf, no client certificate
    case '55000': {
      // object_not_in_prerequisite_state: the database takes no connections
      const reason = password ? facts.reason : `${facts.reason} (no password is configured)`;
      const remedy = refusalRemedy(endpoint, sqlstate);
      return new SluiceError('AUTHENTICATION_FAILED', { ...facts, reason, ...(remedy && { remedy }) }, options);
    }
    default:
      // Too many connections (53300), starting up or shutting down (57P0x), a proxy without a backend (08xxx); a replica that breaks off what is in the way of
      // replaying (40001), also what pins the settings: tried again.
      return /^(08|53|57)/.test(sqlstate) || isTransientState(sqlstate)
        ? new SluiceError(
            'CONNECTION_FAILED',
            { ...facts, ...waitingRemedy(endpoint, sqlstate, options.cause) },
            options,
          )
        : new SluiceError('UNEXPECTED', { reason: `${facts.reason} (SQLSTATE ${sqlstate})` }, options);
  }
}

function connectSql({ connection: { user, database } }: Endpoint): string {
  return `Run: GRANT CONNECT ON DATABASE ${quoteIdentifier(database)} TO ${quoteIdentifier(user)}`;
}

/** A server that answers is there: what keeps it from taking one connection more, or any yet. */
function waitingRemedy(
  { side, connection: { user }, replication }: Endpoint,
  sqlstate: string,
  error: unknown,
): { readonly remedy: string } | null {
  switch (sqlstate) {
    case '53300': // too_many_connections: of the server, the database or the role
      return {
        remedy: replication
          ? `It is tried again. If it lasts, raise max_wal_senders on the ${side}, or end what uses them up (pg_stat_replication).`
          : `It is tried again. If it lasts, raise max_connections on the ${side}, or the limit of the role (ALTER ROLE ${quoteIdentifier(user)} CONNECTION LIMIT -1) or database; or end what uses them up (pg_stat_activity).`,
      };
    case '53100': // disk_full
    case '53200': // out_of_memory, or of the lock table, which a connection needs as well
      return { remedy: remedyIfItLasts(side, { sqlstate, ...(isServerError(error) && lockSetting(error)) }, '') };
    case '57P03': // cannot_connect_now
      return { remedy: `It is tried again: the ${side} starts, stops or recovers. If it lasts, look into its log.` };
    default:
      return null;
  }
}

/** What the connection itself may lack. The server says it in its own language, so that only the SQLSTATE tells; null: the catalogue's remedy says it all. */
function refusalRemedy({ side, connection: { user, iam, ssl } }: Endpoint, sqlstate: string): string | null {
  if (iam) {
    return `Check that IAM authentication is on for the ${side}'s instance, that ${user} is a member of rds_iam, that this AWS identity may rds-db:connect as ${user}, and that ${side}.host (or ssl.server_name) is the instance's own endpoint.`;
  }
  if (sqlstate !== '28000') return null;
  const check = `Check user and password of the ${side} in the pipeline file, and the server's pg_hba.conf`;
  if (!ssl || ssl.mode === 'disable') return `${check}: where it takes the role by hostssl only, set ${side}.ssl.`;
  return ssl.cert === null
    ? `${check}: where it asks for a client certificate, give ${side}.ssl.cert and ${side}.ssl.key.`
    : `${check}: where it wants the client certificate to be the role's, its CN must be the role's name, or be mapped to it in pg_ident.conf.`;
}
