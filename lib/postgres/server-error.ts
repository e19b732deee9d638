/**
 * What PostgreSQL's own errors may tell. Pure, and below everything: whoever prints an error that nobody has thought of asks here.
 *
 * PostgreSQL puts values of rows into DETAIL and CONTEXT always, and into the message of data errors (class 22 and 23): those parts are left out, and names are
 * given instead. SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */

/** The fields of an ErrorResponse that are used here, as `pg` hands them over. */
export interface ServerError extends Error {
  readonly code: string;
  readonly severity: string;
  readonly schema?: string | undefined;
  readonly table?: string | undefined;
  readonly column?: string | undefined;
  readonly constraint?: string | undefined;
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

/** Whether the message of such an error may be told. */
export function hidesNoValue(sqlstate: string): boolean {
  return MESSAGE_CLASSES.has(sqlstate.slice(0, 2)) || MESSAGE_STATES.has(sqlstate);
}

/** What the server said, without any value of a row: its message where that class holds none, else the names that the error carries. */
export function serverReason(error: ServerError): string {
  if (hidesNoValue(error.code)) return error.message;
  const names = (['schema', 'table', 'column', 'constraint'] as const)
    .filter((field) => error[field] !== undefined)
    .map((field) => `${field} ${error[field]}`);
  return names.length > 0 ? `an error at ${names.join(', ')}` : 'an error whose text may hold values';
}

/** Message and stack as they may be told: a stack begins with the message. */
export function toldError(error: Error): { readonly message: string; readonly stack: string } {
  const { message, stack = '' } = error;
  if (!isServerError(error) || hidesNoValue(error.code)) return { message, stack };
  const told = `${serverReason(error)} (SQLSTATE ${error.code})`;
  return {
    message: told,
    stack: `${error.name}: ${told}\n${stack.slice(stack.indexOf(message) + message.length + 1)}`,
  };
}
