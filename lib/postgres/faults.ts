/**
 * What PostgreSQL or the network said, as one of our errors: the SQLSTATE decides, never the wording (it is in the server's language).
 *
 * Pure. A reason that is passed on never carries a row's values: PostgreSQL puts them into DETAIL and CONTEXT always, and into the message
 * of data errors (class 22 and 23), so those parts are left out and names are given instead.
 * SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
import { SluiceError } from '../errors.ts';
import { isServerError, type ServerError, serverReason } from './server-error.ts';

export { hidesNoValue, isOfProcedure, isServerError, type ServerError } from './server-error.ts';

/** The SQLSTATE; empty where no server said anything. */
export function sqlstateOf(error: unknown): string {
  return isServerError(error) ? error.code : '';
}

/** Classes that mean the server or the way to it, not the statement: https://www.postgresql.org/docs/current/errcodes-appendix.html */
const TRANSIENT_CLASSES = new Set(['08', '53']);
const TRANSIENT_STATES = new Set([
  '40001', // serialization_failure
  '40P01', // deadlock_detected
  '55006', // object_in_use
  '55P03', // lock_not_available
  '57014', // query_canceled: a statement_timeout, or a person
  '57P01', // admin_shutdown
  '57P02', // crash_shutdown
  '57P03', // cannot_connect_now
  '57P05', // idle_session_timeout
  '58000', // system_error
  '58030', // io_error
  '25P03', // idle_in_transaction_session_timeout
  '25P04', // transaction_timeout
  '72000', // snapshot_too_old
]);

/** True where the same statement may succeed later with nobody doing anything. Narrow on purpose: the rest waits for a person. */
export function isTransientState(sqlstate: string): boolean {
  return TRANSIENT_CLASSES.has(sqlstate.slice(0, 2)) || TRANSIENT_STATES.has(sqlstate);
}

/**
 * Of out_of_memory, where it is the shared lock table that is full: the setting that the server's hint names, for a name is in no language. Else nothing.
 */
export function lockSetting(error: ServerError): { readonly setting?: string } {
  if (error.code !== '53200' || !('hint' in error)) return {};
  const [setting] = /max(?:_pred)?_locks_per_transaction/.exec(String(error.hint)) ?? [];
  return setting === undefined ? {} : { setting };
}

const NETWORK_REASONS: Readonly<Record<string, string>> = {
  ENOTFOUND: 'its name is not known',
  EAI_AGAIN: 'its name cannot be resolved at the moment',
  EAI_FAIL: 'its name cannot be resolved',
  ECONNREFUSED: 'it refuses connections: nothing listens on that port',
  ECONNRESET: 'the connection was reset',
  ECONNABORTED: 'the connection was aborted',
  EHOSTUNREACH: 'there is no route to the host',
  ENETUNREACH: 'there is no route to the network',
  ENOENT: 'there is no such socket',
  EPIPE: 'the connection was closed',
  ETIMEDOUT: 'no answer in time',
};

/** Errors of `pg` itself about a connection that is gone; they have no code. */
const LOST_CONNECTION = /^(Connection terminated|Client has encountered a connection error|Client was closed)/;

/** Why the network failed, as a short sentence; null where it is no fault of the network. */
export function networkReason(error: unknown): string | null {
  if (!(error instanceof Error) || isServerError(error)) return null;
  // A host with several addresses gives an AggregateError with the code of its parts and an empty message.
  const parts = error instanceof AggregateError ? error.errors : [];
  for (const part of [error, ...parts]) {
    const code = part instanceof Error && 'code' in part ? String(part.code) : '';
    const reason = NETWORK_REASONS[code];
    if (reason) return `${reason} (${code})`;
  }
  return LOST_CONNECTION.test(error.message) ? 'the server closed the connection' : null;
}

/** What the server said, without any value of a row; else what the network, or whoever threw, says. */
export function reasonOf(error: unknown): string {
  if (isServerError(error)) return serverReason(error);
  const network = networkReason(error);
  if (network) return network;
  return error instanceof Error ? error.message : String(error);
}

/** A failed query on the source. `action` completes "The source refuses to …". What is a SluiceError already stays as it is. */
export function sourceFault(error: unknown, action: string): SluiceError {
  if (error instanceof SluiceError) return error;
  const options = { cause: error };
  if (isServerError(error)) {
    const facts = { action, reason: reasonOf(error), sqlstate: error.code, ...lockSetting(error) };
    return new SluiceError(isTransientState(error.code) ? 'SOURCE_TRANSIENT' : 'SOURCE_REFUSES', facts, options);
  }
  const network = networkReason(error);
  if (network) return new SluiceError('SOURCE_TRANSIENT', { action, reason: network, sqlstate: '08006' }, options);
  return new SluiceError('UNEXPECTED', { reason: `${reasonOf(error)} (to ${action})` }, options);
}
