/**
 * What the target or the way to it said, as one of our errors. Pure: the SQLSTATE decides, never the wording.
 *
 * On the path it stands between `session.ts` and everybody who asks whether to try again or to halt (errors.ts). No message of the server is
 * passed on, because triggers, casts and COPY quote row values in it: the condition's name and the names of table, column and constraint are.
 * For the same reason the server's error is not kept as the cause; a copy without its texts is.
 */
import { asSluiceError, SluiceError } from '../errors.ts';
import { isServerError, isTransientState, lockSetting, networkReason, type ServerError } from '../postgres/faults.ts';
import { conditionName, isOfPostgres } from './conditions.ts';

export interface CopiedColumn {
  readonly column: string;
  readonly name: string;
}

/** What was being done, where. Names and numbers only. */
export interface TargetContext {
  readonly stream: string;
  readonly table: string;
  /** Completes "it may not …": `make tables in schema "shop"`. */
  readonly action: string;
  /** SQL that an owner of the target can run when the right to `action` is missing. */
  readonly grant_sql?: string | undefined;
  /** Columns that a COPY writes, as the server knows them and as they are called: to name the one that a line broke at. */
  readonly copied?: readonly CopiedColumn[] | undefined;
  /** Null before there is a connection. */
  readonly server: {
    readonly host: string;
    readonly port: number;
    readonly user: string;
    readonly database: string;
  } | null;
}

type Verdict =
  | 'transient'
  | 'rejects'
  | 'unexpected'
  | 'not_allowed'
  | 'read_only'
  | 'authentication'
  | 'database_missing'
  | 'dependents';

/**
 * By class, where not `BY_STATE` or `isTransientState` says otherwise. A class that is not here is unexpected, and halts; one that PostgreSQL does not have is
 * what a trigger of the target's own refuses a row with.
 */
const BY_CLASS: Readonly<Record<string, Verdict>> = {
  '08': 'transient',
  '09': 'rejects',
  '0A': 'rejects',
  '21': 'rejects',
  '22': 'rejects',
  '23': 'rejects',
  '27': 'rejects',
  '28': 'authentication',
  '2B': 'dependents',
  '38': 'rejects',
  '39': 'rejects',
  '3D': 'database_missing',
  '3F': 'rejects',
  '40': 'transient',
  '42': 'rejects',
  '44': 'rejects',
  '53': 'transient',
  '54': 'rejects',
  '55': 'rejects',
  '57': 'transient',
  '58': 'unexpected',
  P0: 'rejects',
};

const BY_STATE: Readonly<Record<string, Verdict>> = {
  '08P01': 'unexpected', // protocol_violation: ours or a proxy's, and the same next time
  '25006': 'read_only',
  '42501': 'not_allowed',
  '42601': 'unexpected', // syntax_error: in SQL of ours
  '57P04': 'database_missing',
};

/**
 * Where a statement that changes a table finds that another has changed or dropped its row of the catalog meanwhile: "tuple concurrently updated". Before 18
 * a GRANT on a table takes no lock on it, so it meets an ALTER TABLE there (src/backend/access/heap/heapam.c).
 */
const CATALOG_RACES: ReadonlySet<unknown> = new Set(['simple_heap_update', 'simple_heap_delete']);
const INTERNAL_ERROR = 'XX000';

function verdictOf(sqlstate: string, routine: unknown): Verdict {
  if (sqlstate === INTERNAL_ERROR && CATALOG_RACES.has(routine)) return 'transient';
  const own = BY_STATE[sqlstate];
  if (own) return own;
  if (isTransientState(sqlstate)) return 'transient';
  return BY_CLASS[sqlstate.slice(0, 2)] ?? (isOfPostgres(sqlstate) ? 'unexpected' : 'rejects');
}

/**
 * What changing a table failed with, where other objects depend on its old form and the server says only that it cannot do it: "cannot alter type of a
 * column used by a view", "cannot truncate a table referenced in a foreign key constraint".
 */
export function dependentsFault(error: unknown): unknown {
  if (!(error instanceof SluiceError) || error.facts.sqlstate !== '0A000') return error;
  return new SluiceError('TARGET_DEPENDENTS', error.facts, { cause: error });
}

/**
 * A failed statement on the target, or a failed connection to it. What is a SluiceError already stays as it is; what is neither a server's
 * word nor the network's is UNEXPECTED.
 */
export function targetFault(error: unknown, context: TargetContext): SluiceError {
  if (error instanceof SluiceError) return error;
  if (isServerError(error)) return serverFault(error, context);
  const network = networkReason(error);
  if (network === null) return asSluiceError(error);
  if (context.server === null) {
    const facts = {
      side: 'target',
      host: addressOf(error, 'address'),
      port: addressOf(error, 'port'),
      reason: network,
    };
    return new SluiceError('CONNECTION_FAILED', facts, { cause: error });
  }
  const facts = { stream: context.stream, reason: network, sqlstate: '08006' };
  return new SluiceError('TARGET_TRANSIENT', facts, { cause: error });
}

function serverFault(error: ServerError, context: TargetContext): SluiceError {
  const { stream, table, action, server } = context;
  const sqlstate = error.code;
  const reason = [conditionName(sqlstate), namesOf(error, context)].filter(Boolean).join(' at ');
  const facts = { stream, table, reason, sqlstate };
  const options = { cause: withoutTexts(error) };
  const verdict = verdictOf(sqlstate, 'routine' in error ? error.routine : null);
  switch (verdict) {
    case 'transient':
      return new SluiceError('TARGET_TRANSIENT', { ...facts, ...lockSetting(error) }, options);
    case 'rejects':
      return new SluiceError('TARGET_REJECTS', facts, options);
    case 'dependents':
      return new SluiceError('TARGET_DEPENDENTS', facts, options);
    case 'read_only':
      return new SluiceError('TARGET_READ_ONLY', { ...facts, host: server?.host, port: server?.port }, options);
    case 'not_allowed':
      return new SluiceError(
        'TARGET_NOT_ALLOWED',
        { ...facts, user: server?.user, reason: `it may not ${action}`, sql: context.grant_sql },
        options,
      );
    case 'authentication':
      return new SluiceError(
        'AUTHENTICATION_FAILED',
        { ...facts, side: 'target', host: server?.host, port: server?.port, user: server?.user },
        options,
      );
    case 'database_missing':
      return new SluiceError('DATABASE_MISSING', { ...facts, side: 'target', database: server?.database }, options);
    case 'unexpected':
      return new SluiceError(
        'UNEXPECTED',
        { ...facts, reason: `${reason} (SQLSTATE ${sqlstate}, to ${action})` },
        options,
      );
    default:
      return verdict satisfies never;
  }
}

/** The tables, columns and constraints that the error names, and the line of the COPY where it is about one. */
function namesOf(error: ServerError, context: TargetContext): string {
  const names = (['table', 'column', 'constraint'] as const)
    .filter((field) => error[field] !== undefined)
    .map((field) => `${field} ${error[field]}`);
  const place =
    'where' in error && typeof error.where === 'string' ? copyPlace(error.where, context.copied ?? []) : null;
  if (place?.name !== undefined) names.push(`column ${place.name}`);
  if (place) names.push(`line ${place.line}`);
  return names.join(', ');
}

/**
 * Line (from 1) and column out of the context of a failed COPY, without the value that follows them: `COPY x, line 3, column c1: "…"`.
 * Null where it is not the context of a COPY (the wording is in the server's language).
 */
export function copyPlace(
  where: string,
  copied: readonly CopiedColumn[],
): { readonly line: number; readonly name: string | undefined } | null {
  const match = /^COPY [^,\n]{1,200}, line ([0-9]{1,18})/.exec(where);
  if (!match) return null;
  const rest = where.slice(match[0].length);
  const name = copied.find(({ column }) => rest.startsWith(`, column ${column}:`))?.name;
  return { line: Number(match[1]), name };
}

/** Host or port out of a socket's error. */
function addressOf(error: unknown, field: 'address' | 'port'): string {
  const holder: object = error instanceof Error ? error : {};
  return field in holder ? String((holder as Record<string, unknown>)[field]) : '?';
}

/** The server's error without message, detail, hint and context: what is left names things and says where in PostgreSQL it arose. */
function withoutTexts(error: ServerError): Error {
  const bare = new Error(conditionName(error.code));
  bare.name = 'PostgresError';
  delete bare.stack;
  const kept = ['code', 'severity', 'schema', 'table', 'column', 'dataType', 'constraint', 'file', 'line', 'routine'];
  const fields = Object.entries(error).filter(([field, value]) => kept.includes(field) && value !== undefined);
  return Object.assign(bare, Object.fromEntries(fields));
}
