/**
 * What PostgreSQL's own errors may tell. Pure, and below everything: whoever prints an error that nobody has thought of asks here.
 *
 * PostgreSQL puts values of rows into DETAIL and CONTEXT always, into the message of data errors (class 22 and 23), and wherever a value is looked up as a name or a
 * function composes the message itself: those parts are left out, and names are given instead. SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */

/** The fields of an ErrorResponse that are used here, as `pg` hands them over. */
export interface ServerError extends Error {
  readonly code: string;
  readonly severity: string;
  readonly schema?: string | undefined;
  readonly table?: string | undefined;
  readonly column?: string | undefined;
  readonly constraint?: string | undefined;
  /** Where in the statement; only of what its parsing has found. */
  readonly position?: string | undefined;
  /** CONTEXT: what called what. */
  readonly where?: string | undefined;
  /** The function of PostgreSQL's own source that has reported it. */
  readonly routine?: string | undefined;
}

const SQLSTATE = /^[0-9A-Z]{5}$/;

/** True for what a server reported; false for what broke on the way to it. (EPIPE looks like a SQLSTATE: the severity tells.) */
export function isServerError(error: unknown): error is ServerError {
  if (!(error instanceof Error) || !('code' in error) || !('severity' in error)) return false;
  return typeof error.code === 'string' && SQLSTATE.test(error.code);
}

/** Classes whose messages name objects, settings and states only. 22023 names an object too, unlike the rest of class 22. */
const MESSAGE_CLASSES = new Set(['08', '0A', '25', '28', '3D', '3F', '40', '42', '53', '54', '55', '57', '58', 'XX']);
const MESSAGE_STATES = new Set(['22023', '72000', 'F0000']);

/** Whether messages of that state hold no values, as long as they speak of our statement itself (`mayTell`). */
export function hidesNoValue(sqlstate: string): boolean {
  return MESSAGE_CLASSES.has(sqlstate.slice(0, 2)) || MESSAGE_STATES.has(sqlstate);
}

/** Names that are not there, and syntax: of our statement if there is a position in it, else maybe of a value (`v::regclass`, `AT TIME ZONE v`, `to_tsquery(v)`). */
const NAME_STATES = /^(?:22023|3F|42(?!501|804|P17))/;
/** PostgreSQL puts what is no word of its own into these, by language (https://www.postgresql.org/docs/current/error-style-guide.html). */
const QUOTE = /["'`\u00ab\u00bb\u2018-\u201f\u2039\u203a\u300c-\u300f]/u;

function mayTell(error: ServerError): boolean {
  if (!hidesNoValue(error.code) || isOfProcedure(error)) return false;
  return error.position !== undefined || !NAME_STATES.test(error.code) || !QUOTE.test(error.message);
}

/**
 * Whether code in the database has brought it about, and not our statement: SQLSTATE and message are what that code made them. PL/pgSQL's RAISE, and all that names
 * its language in the context, which no translation of PostgreSQL leaves out.
 */
export function isOfProcedure({ where, routine }: ServerError): boolean {
  return routine === 'exec_stmt_raise' || (where?.includes('PL/') ?? false);
}

/** What the server said, without any value of a row: its message where that class holds none, else the names that the error carries. */
export function serverReason(error: ServerError): string {
  if (mayTell(error)) return error.message;
  const names = (['schema', 'table', 'column', 'constraint'] as const)
    .filter((field) => error[field] !== undefined)
    .map((field) => `${field} ${error[field]}`);
  return names.length > 0 ? `an error at ${names.join(', ')}` : 'an error whose text may hold values';
}

/** Message and stack as they may be told: a stack begins with the message. */
export function toldError(error: Error): { readonly message: string; readonly stack: string } {
  const { message, stack = '' } = error;
  if (!isServerError(error) || mayTell(error)) return { message, stack };
  const told = `${serverReason(error)} (SQLSTATE ${error.code})`;
  return {
    message: told,
    stack: `${error.name}: ${told}\n${stack.slice(stack.indexOf(message) + message.length + 1)}`,
  };
}
