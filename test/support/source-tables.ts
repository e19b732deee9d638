/**
 * Tables of a source as the catalog would tell them, for tests that need no server.
 */
import type { SourceTable } from '../../lib/ports.ts';

/** An ordinary table with primary key `id`, unless `over` says otherwise; `name` is split at its first dot. */
export function sourceTable(name: string, over: Partial<SourceTable> = {}): SourceTable {
  const dot = name.indexOf('.');
  return {
    schema: name.slice(0, dot),
    table: name.slice(dot + 1),
    oid: 16_384,
    kind: 'r',
    persistence: 'p',
    replica_identity: 'd',
    columns: [
      { name: 'id', type_oid: 20, type_modifier: -1, not_null: true },
      { name: 'note', type_oid: 25, type_modifier: -1, not_null: false },
    ],
    key: ['id'],
    may_select: true,
    row_security: false,
    rows_estimate: 1000,
    pages: 10,
    toasted: false,
    ...over,
  };
}
