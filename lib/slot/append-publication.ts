/**
 * Tables whose rows the log cannot tell apart: without a key, and without REPLICA IDENTITY FULL. Only what is added to them can be followed, and they are
 * published apart, by a publication that holds INSERT and TRUNCATE alone: one that held more would make the source refuse their updates and deletes
 * (https://www.postgresql.org/docs/current/logical-replication-publication.html).
 *
 * On the path beside publication.ts, whose decision it narrows. Pure.
 */
import { createHash } from 'node:crypto';
import { SluiceError } from '../errors.ts';
import type { SourceTable } from '../ports.ts';
import { TRUNCATE_LOGGED_SINCE } from '../postgres/versions.ts';
import type { TableName } from '../shape.ts';
import { fittingName, IDENTIFIER_BYTES_MAX, quoteIdentifier, quoteTable } from '../sql-text.ts';
import type { PublicationState } from './publication.ts';

const SUFFIX = '_append';
const DIGEST_LETTERS = 8;

/** The log has neither a key nor the whole old row. */
export function isAppendOnly({ key, replica_identity }: Pick<SourceTable, 'key' | 'replica_identity'>): boolean {
  return key.length === 0 && replica_identity !== 'f';
}

/** What makes all changes of such a table followed. */
export function fullIdentitySql(table: TableName): string {
  return `ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY FULL`;
}

/** `<publication>_append`; where that is too long, cut, and told apart by a digest of the whole name. */
export function appendPublicationName(publication: string): string {
  if (Buffer.byteLength(publication + SUFFIX) <= IDENTIFIER_BYTES_MAX) return publication + SUFFIX;
  const digest = createHash('sha256').update(publication).digest('hex').slice(0, DIGEST_LETTERS);
  return fittingName(publication, `_${digest}${SUFFIX}`);
}

/** What such a publication publishes, on a server of `version` (server_version_num). */
export function appendOperations(version: number): string {
  return version >= TRUNCATE_LOGGED_SINCE ? 'insert, truncate' : 'insert';
}

/**
 * The state of such a publication, as publication.ts takes one: what it is meant to leave out is not left out. Throws PUBLICATION_INCOMPLETE where it holds
 * less than it should; and where it holds more, for then the source refuses what is more.
 */
export function appendState(publication: string, state: PublicationState, version: number): PublicationState {
  const lacks = state.silent.filter((operation) => operation === 'insert' || operation === 'truncate');
  const more = ['update', 'delete'].filter((operation) => !state.silent.includes(operation));
  if (lacks.length === 0 && more.length === 0) return { ...state, silent: [] };
  const what =
    more.length > 0
      ? `that its tables have no key, and publishes ${more.join(' and ')}, which the source then refuses`
      : `every ${lacks.join(', ')}`;
  const sql = `ALTER PUBLICATION ${quoteIdentifier(publication)} SET (publish = '${appendOperations(version)}')`;
  throw new SluiceError('PUBLICATION_INCOMPLETE', { publication, what, sql });
}
