/**
 * Who may read what is made here (target.default_target_schema_select_permissions): USAGE on the schemas, SELECT on the streams' tables and on the view
 * of their positions.
 *
 * On the path: after a load or a swap, in a transaction of its own, for all tables of the pipeline. So tables that were there before the option was set get it too, with the
 * next load of any of them; a swap hands a table's rights on by itself (swap.ts). A right that cannot be given is told, and keeps no row waiting.
 * https://www.postgresql.org/docs/current/ddl-priv.html
 */
import { asSluiceError } from '../errors.ts';
import type { Clock, Log } from '../ports.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { MAKING_LOCK_SQL } from './control.ts';
import { attempt } from './generated.ts';
import { LOAD_LIMITS, type Row, type Session } from './session.ts';

/** PostgreSQL's word for everybody, which no role can have as its name. */
const EVERYBODY = 'public';
/** Between two looks of one function. */
const LOOK_MS = 60_000;
/** Rights in one look: what is beyond is given by the next. */
const LACKING_MAX = 1_000;

/**
 * $1 pipeline, $2 roles, $3 most rows → what a role may not read yet; a role that is not there once, without a table. What a role may do through
 * another that it inherits from, or as everybody, it need not be given.
 */
const LACKING_SQL = `
  WITH reader AS (
    SELECT w.name, CASE WHEN w.name = '${EVERYBODY}' THEN 0::oid ELSE r.oid END AS oid
      FROM unnest($2::text[]) AS w (name) LEFT JOIN pg_roles r ON r.rolname = w.name
  ), place AS (
    SELECT target_schema AS schema_name, target_table AS table_name FROM _sluice.streams WHERE pipeline = $1 AND made
    UNION ALL SELECT '_sluice', 'positions'
  )
  SELECT reader.name AS reader, NULL AS "schema", NULL AS "table", false AS usage, false AS "select" FROM reader WHERE reader.oid IS NULL
  UNION ALL
  (SELECT reader.name, n.nspname::text, c.relname::text, NOT has_schema_privilege(reader.oid, n.oid, 'USAGE'),
          NOT has_table_privilege(reader.oid, c.oid, 'SELECT')
     FROM reader CROSS JOIN place JOIN pg_namespace n ON n.nspname = place.schema_name
     JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = place.table_name
    WHERE reader.oid IS NOT NULL
      AND NOT (has_schema_privilege(reader.oid, n.oid, 'USAGE') AND has_table_privilege(reader.oid, c.oid, 'SELECT'))
    ORDER BY 1, 2, 3 LIMIT $3)`;

interface Lacking extends Row {
  readonly reader: string;
  readonly schema: string | null;
  readonly table: string | null;
  readonly usage: boolean;
  readonly select: boolean;
}

/** Of one pipeline, as long as a function lives. */
export class ReaderGrants {
  #pipeline: string;
  #readers: readonly string[];
  #clock: Pick<Clock, 'now'>;
  #log: Log;
  #next_ms = Number.NEGATIVE_INFINITY;

  constructor(pipeline: string, readers: readonly string[], clock: Pick<Clock, 'now'>, log: Log) {
    this.#pipeline = pipeline;
    this.#readers = readers;
    this.#clock = clock;
    this.#log = log;
  }

  /** After what was made has been committed. Looks at most once a minute, but `now` where a table has just been made. Never throws: it is tried again. */
  async give(session: Session, when: 'now' | 'due' = 'due'): Promise<void> {
    if (this.#readers.length === 0 || (when === 'due' && this.#clock.now() < this.#next_ms)) return;
    this.#next_ms = this.#clock.now() + LOOK_MS;
    try {
      await grantReaders(session, this.#pipeline, this.#readers, this.#log);
    } catch (error) {
      this.#log.warn('readers_not_granted', { reason: asSluiceError(error).message });
    }
  }
}

/** Gives the roles what they lack on the pipeline's tables; those that are not there, or cannot be given it, are told. `_sluice` must have been made. */
async function grantReaders(session: Session, pipeline: string, readers: readonly string[], log: Log): Promise<void> {
  const find = async (): Promise<readonly Lacking[]> =>
    (await session.query<Lacking>(LACKING_SQL, [pipeline, readers, LACKING_MAX])).rows;
  const lacking = await session.transaction(LOAD_LIMITS, find);
  for (const { reader, schema } of lacking) if (schema === null) log.warn('reader_missing', { role: reader });
  const grants = statementsOf(lacking);
  if (grants.length === 0) return;
  const refused = new Map<string, string>();
  // Others change the rights on the same schema: one after the other.
  const give = async (): Promise<readonly Lacking[]> => {
    for (const { sql, name } of grants) {
      const reason = await attempt(session, sql, { action: sql });
      if (reason !== null) refused.set(name, reason);
    }
    return await find();
  };
  const left = await session.transaction(LOAD_LIMITS, give, MAKING_LOCK_SQL);
  const names = new Set(grants.map(({ name }) => name));
  // A GRANT of what one may not give is a warning of the server only: what counts is what the role may do now.
  for (const { name, sql } of statementsOf(left).filter((each) => names.has(each.name))) {
    log.warn('reader_not_granted', {
      what: name,
      sql,
      reason: refused.get(name) ?? 'the loading role may not give it',
    });
  }
  const still = new Set(statementsOf(left).map(({ name }) => name));
  log.info('readers_granted', { grants: grants.filter(({ name }) => !still.has(name)).length });
}

interface Grant {
  /** `SELECT on shop.orders to analysts`. */
  readonly name: string;
  readonly sql: string;
}

/** Each once, schemas first. */
function statementsOf(lacking: readonly Lacking[]): readonly Grant[] {
  const grants = new Map<string, Grant>();
  const add = (right: string, on: string, reader: string): void => {
    const to = reader === EVERYBODY ? 'PUBLIC' : quoteIdentifier(reader);
    const name = `${right} on ${on} to ${to}`;
    grants.set(name, { name, sql: `GRANT ${right} ON ${on} TO ${to}` });
  };
  for (const { reader, schema, usage } of lacking) {
    if (schema !== null && usage) add('USAGE', `SCHEMA ${quoteIdentifier(schema)}`, reader);
  }
  for (const { reader, schema, table, select } of lacking) {
    if (schema !== null && table !== null && select) add('SELECT', quoteTable({ schema, table }), reader);
  }
  return [...grants.values()];
}
