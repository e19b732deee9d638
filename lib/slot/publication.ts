/**
 * The publication: what it must hold, and the SQL that gets it there (step 1 of capturing a stream, I11).
 *
 * Pure. The same decision makes the window act, and the doctor advise. A publication that somebody else made is used as it is where it holds
 * everything; it is added to, never narrowed, and a person is asked before its settings are changed.
 * https://www.postgresql.org/docs/current/sql-createpublication.html
 */
import { SluiceError } from '../errors.ts';
import { displayName, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';

/** `pg_publication` and what is in it. */
export interface PublicationState {
  readonly all_tables: boolean;
  /** What it leaves out of insert, update, delete, truncate. */
  readonly silent: readonly string[];
  /** Changes of a partition are published as changes of its root (13+). */
  readonly via_root: boolean;
  readonly tables: readonly TableName[];
  /** Tables of which it publishes only some rows or columns (15+). */
  readonly partial: readonly TableName[];
}

/** SQL that reads a PublicationState as one json value `state`; null where there is no publication $1. */
export const PUBLICATION_SQL = `
  SELECT (
    SELECT json_build_object(
      'all_tables', p.puballtables,
      'silent', array_remove(ARRAY[
        CASE WHEN NOT p.pubinsert THEN 'insert' END,
        CASE WHEN NOT p.pubupdate THEN 'update' END,
        CASE WHEN NOT p.pubdelete THEN 'delete' END,
        CASE WHEN to_jsonb(p)->>'pubtruncate' = 'false' THEN 'truncate' END], NULL),
      'via_root', COALESCE((to_jsonb(p)->>'pubviaroot')::bool, false),
      'tables', COALESCE((
        SELECT json_agg(json_build_object('schema', t.schemaname, 'table', t.tablename))
          FROM pg_publication_tables t WHERE t.pubname = p.pubname), '[]'),
      'partial', COALESCE((
        SELECT json_agg(json_build_object('schema', n.nspname, 'table', c.relname))
          FROM pg_publication_rel r
          JOIN pg_class c ON c.oid = r.prrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE r.prpubid = p.oid
           AND (to_jsonb(r)->>'prqual' IS NOT NULL OR to_jsonb(r)->>'prattrs' IS NOT NULL)), '[]'))
      FROM pg_publication p
     WHERE p.pubname = $1) AS state`;

export type PublicationStep =
  | { readonly kind: 'ready' }
  /** `tables`: those that it takes in. */
  | { readonly kind: 'change'; readonly sql: string; readonly tables: readonly TableName[] }
  | { readonly kind: 'fault'; readonly fault: SluiceError };

/** What is to be done so that `publication` holds every change of `wanted`. `added`: what was missing has been added already. */
export function publicationStep(
  publication: string,
  state: PublicationState | null,
  wanted: readonly TableName[],
  added = false,
): PublicationStep {
  const name = quoteIdentifier(publication);
  if (!state) {
    const list = wanted.length > 0 ? ` FOR TABLE ${tableList(wanted)}` : '';
    return { kind: 'change', sql: `CREATE PUBLICATION ${name}${list}`, tables: wanted };
  }
  if (state.silent.length > 0) {
    return incomplete(
      publication,
      `every ${state.silent.join(', ')}`,
      `ALTER PUBLICATION ${name} SET (publish = 'insert, update, delete, truncate')`,
    );
  }
  const partial = new Set(state.partial.map(keyOf));
  const clipped = wanted.find((table) => partial.has(keyOf(table)));
  if (clipped) {
    const table = quoteTable(clipped);
    const again = `ALTER PUBLICATION ${name} DROP TABLE ONLY ${table}; ALTER PUBLICATION ${name} ADD TABLE ONLY ${table}`;
    return incomplete(publication, `rows or columns of ${displayName(clipped)}`, `BEGIN; ${again}; COMMIT`);
  }
  const held = new Set(state.tables.map(keyOf));
  const missing = wanted.filter((table) => !held.has(keyOf(table)));
  if (missing.length === 0) return { kind: 'ready' };
  const [first] = missing;
  if (first && state.all_tables && !state.via_root) {
    return { kind: 'fault', fault: new SluiceError('TABLE_MISSING', { table: displayName(first) }) };
  }
  if (first && (state.all_tables || added)) {
    return incomplete(
      publication,
      `${displayName(first)}, whose changes it publishes under the name of the partitioned table`,
      `ALTER PUBLICATION ${name} SET (publish_via_partition_root = false)`,
    );
  }
  return { kind: 'change', sql: `ALTER PUBLICATION ${name} ADD TABLE ${tableList(missing)}`, tables: missing };
}

/** ONLY: the table that was selected, and no tables that inherit from it. */
export function tableList(tables: readonly TableName[]): string {
  return tables.map((table) => `ONLY ${quoteTable(table)}`).join(', ');
}

/**
 * Whether a table must be locked against writers while a publication takes it in. Before these releases, a decoding that met a transaction with
 * changes from before and after kept the old publication in its cache, and dropped what came later, of every transaction
 * (fixed by "Distribute invalidations from change-in-progress catalogs" in 14.18, 15.13, 16.9 and 17.5).
 */
export function needsWriterLock(version: number): boolean {
  const fixed: Readonly<Record<number, number>> = { 14: 18, 15: 13, 16: 9, 17: 5 };
  const major = Math.floor(version / 10_000);
  const minor = version % 10_000;
  return major < 14 || minor < (fixed[major] ?? 0);
}

function incomplete(publication: string, what: string, sql: string): PublicationStep {
  return { kind: 'fault', fault: new SluiceError('PUBLICATION_INCOMPLETE', { publication, what, sql }) };
}

function keyOf(table: TableName): string {
  return JSON.stringify([table.schema, table.table]);
}
