/**
 * Tables that are only appended to and that the publication of the others holds all the same: one FOR ALL TABLES, or by schema, or by a partitioned table
 * above. For as long as it does, the source refuses their updates and deletes, and no ALTER PUBLICATION … DROP TABLE takes them out of it.
 *
 * Told by each window and by the doctor; what was added by name the window takes out itself (publish.ts). Pure.
 * https://www.postgresql.org/docs/current/logical-replication-publication.html
 */
import type { RefusedUpdates, SourceTable } from '../ports.ts';
import { displayName, tableKey } from '../shape.ts';
import { quoteIdentifier } from '../sql-text.ts';
import { fullIdentitySql } from './append-publication.ts';
import type { PublicationState } from './publication.ts';

/** `appends`: tables that are only appended to (isAppendOnly). */
export function refusedUpdates(
  publication: string,
  state: PublicationState | null,
  appends: readonly SourceTable[],
): RefusedUpdates[] {
  const refused = ['update', 'delete'].filter((operation) => !state?.silent.includes(operation));
  if (!state || refused.length === 0) return [];
  const held = new Set(state.tables.map(tableKey));
  const members = new Set(state.members.map(({ oid }) => oid));
  return appends
    .filter(({ oid }) => !members.has(oid))
    .filter(
      (table) =>
        state.all_tables || held.has(tableKey(table)) || (table.partition_of ?? []).some((oid) => members.has(oid)),
    )
    .map(({ schema, table }) => ({
      table: { schema, table },
      problem: `Publication ${publication} holds ${displayName({ schema, table })}, which has neither a key nor REPLICA IDENTITY FULL: the source refuses every ${refused.join(' and ')} of it.`,
      remedy: `Run: ${fullIdentitySql({ schema, table })}, which makes its updates and deletes followed as well; or name another source.publication_name, which is then made of the other tables by name, and run: DROP PUBLICATION ${quoteIdentifier(publication)}.`,
    }));
}
