/**
 * The publication: what it must hold, and the SQL that gets it there (step 1 of capturing a stream, I11); and how it publishes each table, so that a
 * window sees when somebody has altered it since the last one.
 *
 * Pure. The same decision makes the window act, and the doctor advise. A publication that somebody else made is used as it is where it holds
 * everything; it is added to, never narrowed, and a person is asked before it stops doing what it did.
 * https://www.postgresql.org/docs/current/sql-createpublication.html
 */
import { SluiceError } from '../errors.ts';
import type { Published, SourceTable } from '../ports.ts';
import { GENERATED_PUBLISHED_SINCE } from '../postgres/versions.ts';
import { displayName, type TableName, tableKey } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { isFolded, memberList } from './publication-members.ts';
import { filterStep, ROW_FILTERS_SINCE } from './row-filter.ts';

/** Tables by schema are published since 15. */
const SCHEMAS_SINCE = 150_000;
/** FirstNormalObjectId (access/transam.h): what is older is the system's, and never published. */
const USER_OID_BEGIN = 16_384;

/** `pg_publication` and what is in it. */
export interface PublicationState {
  /** Of the publication and its settings: another text after each ALTER PUBLICATION … SET (…). */
  readonly revision: string;
  readonly all_tables: boolean;
  /** What it leaves out of insert, update, delete, truncate. */
  readonly silent: readonly string[];
  /** Changes of a partition are published as changes of its root (13+). */
  readonly via_root: boolean;
  /** 18+, pg_publication.pubgencols: n none, s stored. Null: the server has no such setting. */
  readonly generated_columns: 'n' | 's' | null;
  /** By the names under which changes come. */
  readonly tables: readonly PublishedTable[];
  /** What was added by name, with a partitioned table whose partitions come in its stead. `filter`: its row filter, as the catalog prints it (15+). */
  readonly members: readonly (TableName & {
    readonly oid: number;
    readonly filter?: string | null;
    readonly column_list?: boolean;
  })[];
  /** The role that asks is its owner. */
  readonly owned?: boolean;
  /** Tables of which it publishes only some rows or columns (15+). */
  readonly partial: readonly TableName[];
}

export interface PublishedTable extends TableName {
  /** How it got in: OIDs of the entries (pg_publication_rel, pg_publication_namespace) for it, its schema, and what it is a partition of. Empty: all tables are in. */
  readonly entries: string;
}

/**
 * SQL that reads a PublicationState as one json value `state`; null where there is no publication $1. What it holds is put together from the catalog,
 * and not read from pg_publication_tables, which opens every table and so waits for an ALTER TABLE that is under way on any of them.
 */
export function publicationSql(version: number): string {
  const bySchema =
    version >= SCHEMAS_SINCE
      ? `UNION ALL
        SELECT above.leaf, 'n' || s.oid
          FROM above JOIN pg_class c ON c.oid = above.oid
          JOIN pg_publication_namespace s ON s.pnnspid = c.relnamespace
          JOIN publication p ON p.id = s.pnpubid`
      : '';
  const namedBySchema =
    version >= SCHEMAS_SINCE
      ? `UNION
      SELECT c.oid
        FROM publication p JOIN pg_publication_namespace s ON s.pnpubid = p.id JOIN pg_class c ON c.relnamespace = s.pnnspid`
      : '';
  return `
    WITH RECURSIVE publication AS (
      SELECT p.oid AS id, p.xmin::text AS since, p.* FROM pg_publication p WHERE p.pubname = $1
    ), named AS (
      SELECT r.prrelid AS oid FROM pg_publication_rel r JOIN publication p ON p.id = r.prpubid
       UNION
      SELECT c.oid FROM publication p, pg_class c WHERE p.puballtables AND c.oid >= ${USER_OID_BEGIN}
      ${namedBySchema}
    ), tree AS (
      SELECT oid, oid AS named FROM named
       UNION
      SELECT i.inhrelid, tree.named
        FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
    ), held AS (
      SELECT c.oid, n.nspname AS schemaname, c.relname AS tablename
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relpersistence = 'p' AND c.oid IN (SELECT oid FROM tree)
         AND CASE WHEN COALESCE((SELECT (to_jsonb(p)->>'pubviaroot')::bool FROM publication p), false)
               THEN c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM tree WHERE tree.oid = c.oid AND tree.named <> c.oid)
               ELSE c.relkind = 'r' END
    ), above AS (
      SELECT held.oid AS leaf, held.oid FROM held
       UNION ALL
      SELECT above.leaf, i.inhparent
        FROM above
        JOIN pg_class c ON c.oid = above.oid AND c.relispartition
        JOIN pg_inherits i ON i.inhrelid = above.oid
    ), entries AS (
      SELECT leaf, string_agg(DISTINCT entry, ',' ORDER BY entry) AS entries
        FROM (SELECT above.leaf, 'r' || r.oid AS entry
                FROM above
                JOIN pg_publication_rel r ON r.prrelid = above.oid
                JOIN publication p ON p.id = r.prpubid
              ${bySchema}) AS entry
       GROUP BY leaf
    ), members AS (
      SELECT c.oid, n.nspname, c.relname,
             ${version >= ROW_FILTERS_SINCE ? 'pg_get_expr(r.prqual, r.prrelid)' : 'NULL::text'} AS filter,
             to_jsonb(r)->>'prattrs' IS NOT NULL AS column_list,
             to_jsonb(r)->>'prqual' IS NOT NULL OR to_jsonb(r)->>'prattrs' IS NOT NULL AS partial
        FROM publication p
        JOIN pg_publication_rel r ON r.prpubid = p.id
        JOIN pg_class c ON c.oid = r.prrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    )
    SELECT (
      SELECT json_build_object(
        'revision', p.id || '.' || p.since,
        'all_tables', p.puballtables,
        'owned', pg_get_userbyid(p.pubowner) = current_user,
        'silent', array_remove(ARRAY[
          CASE WHEN NOT p.pubinsert THEN 'insert' END,
          CASE WHEN NOT p.pubupdate THEN 'update' END,
          CASE WHEN NOT p.pubdelete THEN 'delete' END,
          CASE WHEN to_jsonb(p)->>'pubtruncate' = 'false' THEN 'truncate' END], NULL),
        'via_root', COALESCE((to_jsonb(p)->>'pubviaroot')::bool, false),
        'generated_columns', to_jsonb(p)->>'pubgencols',
        'tables', COALESCE((
          SELECT json_agg(json_build_object('schema', schemaname, 'table', tablename, 'entries', COALESCE(entries, '')))
            FROM held LEFT JOIN entries ON entries.leaf = held.oid), '[]'),
        'members', COALESCE((
          SELECT json_agg(json_build_object('schema', nspname, 'table', relname, 'oid', oid::int8, 'filter', filter, 'column_list', column_list)) FROM members), '[]'),
        'partial', COALESCE((
          SELECT json_agg(json_build_object('schema', nspname, 'table', relname)) FROM members WHERE partial), '[]'))
        FROM publication p) AS state`;
}

/** What a table must be known by to be published. */
export type Publishable = TableName &
  Pick<SourceTable, 'kind' | 'replica_identity'> &
  Partial<Pick<SourceTable, 'generated' | 'partition_of' | 'filter'>> & {
    /** The filter as the catalog prints it. */
    readonly printed?: string | null;
  };

export type PublicationStep =
  | { readonly kind: 'ready' }
  /** `tables`: those that it takes in, or publishes otherwise from then on. `alters`: its settings are changed, which are those of all its tables. */
  | { readonly kind: 'change'; readonly sql: string; readonly tables: readonly Publishable[]; readonly alters: boolean }
  | { readonly kind: 'fault'; readonly fault: SluiceError };

export interface PublicationDemand {
  /** server_version_num. */
  readonly version: number;
  /** What was missing has been added already. */
  readonly added?: boolean;
  /** What it publishes where it is made, as its `publish`; null: everything. */
  readonly operations?: string | null;
}

/**
 * What is to be done so that `publication` holds every change of `wanted`, on a server of `version` (server_version_num). `added`: what was missing has
 * been added already.
 */
export function publicationStep(
  publication: string,
  state: PublicationState | null,
  wanted: readonly Publishable[],
  { version, added = false, operations = null }: PublicationDemand,
): PublicationStep {
  const name = quoteIdentifier(publication);
  const roots = wanted.filter(isFolded);
  const computed = version >= GENERATED_PUBLISHED_SINCE ? wanted.filter(hasComputedIdentity) : [];
  if (!state) {
    const list = wanted.length > 0 ? ` FOR TABLE ${memberList(wanted)}` : '';
    const publish = operations === null ? [] : [`publish = '${operations}'`];
    const settings = [...publish, settingList(roots.length > 0, computed.length > 0)]
      .filter((part) => part !== '')
      .join(', ');
    const more = settings === '' ? '' : ` WITH (${settings})`;
    return { kind: 'change', sql: `CREATE PUBLICATION ${name}${list}${more}`, tables: wanted, alters: false };
  }
  const fault = incompleteFault(publication, state, wanted);
  if (fault) return { kind: 'fault', fault };

  // Before anything is added: a table that needs a setting must not be in without it for a moment.
  const lacksRoot = roots.length > 0 && !state.via_root;
  const lacksGenerated = computed.length > 0 && state.generated_columns === 'n';
  if (lacksRoot || lacksGenerated) {
    const sql = `ALTER PUBLICATION ${name} SET (${settingList(lacksRoot, lacksGenerated)})`;
    return {
      kind: 'change',
      sql,
      tables: [...(lacksRoot ? roots : []), ...(lacksGenerated ? computed : [])],
      alters: true,
    };
  }

  const held = new Set(state.tables.map(tableKey));
  const missing = wanted.filter((table) => !held.has(tableKey(table)));
  const [first] = missing;
  if (!first) return filterStep(publication, state, wanted);
  if (state.all_tables && (!state.via_root || isFolded(first))) {
    return { kind: 'fault', fault: new SluiceError('TABLE_MISSING', { table: displayName(first) }) };
  }
  // One that is no partition has been dropped or renamed meanwhile: adding it again says so.
  if (state.all_tables || (added && first.partition_of !== undefined)) {
    const root = state.members.find(({ oid }) => first.partition_of?.includes(oid));
    return {
      kind: 'fault',
      fault: incomplete(
        publication,
        `${displayName(first)}, whose changes it publishes under the name of the partitioned table`,
        root && roots.length > 0
          ? `ALTER PUBLICATION ${name} DROP TABLE ${quoteTable(root)}`
          : `ALTER PUBLICATION ${name} SET (publish_via_partition_root = false)`,
      ),
    };
  }
  const sql = `ALTER PUBLICATION ${name} ADD TABLE ${memberList(missing)}`;
  return { kind: 'change', sql, tables: missing, alters: false };
}

/** How `state` publishes each of the tables (port Source.published). Throws PUBLICATION_INCOMPLETE. */
export function publishedTables(
  publication: string,
  state: PublicationState | null,
  tables: readonly (TableName & Pick<Publishable, 'filter'>)[],
): Published {
  if (!state) return new Map();
  const entries = new Map(state.tables.map((table) => [tableKey(table), table.entries]));
  const held = tables.filter((table) => entries.has(tableKey(table)));
  const fault = held.length > 0 ? incompleteFault(publication, state, held) : null;
  if (fault) throw fault;
  return new Map(held.map((table) => [tableKey(table), `${state.revision} ${entries.get(tableKey(table))}`]));
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

/** It leaves out operations, or rows or columns of one of the tables. */
function incompleteFault(
  publication: string,
  state: PublicationState,
  wanted: readonly (TableName & Pick<Publishable, 'filter'>)[],
): SluiceError | null {
  const name = quoteIdentifier(publication);
  if (state.silent.length > 0) {
    const sql = `ALTER PUBLICATION ${name} SET (publish = 'insert, update, delete, truncate')`;
    return incomplete(publication, `every ${state.silent.join(', ')}`, sql);
  }
  const partial = new Set(state.partial.map(tableKey));
  const listed = new Set(state.members.filter(({ column_list }) => column_list).map(tableKey));
  // A filter that somebody has a say in is looked at by itself (row-filter.ts).
  const clipped = wanted.find(
    (table) => partial.has(tableKey(table)) && (table.filter === undefined || listed.has(tableKey(table))),
  );
  if (!clipped) return null;
  const table = quoteTable(clipped);
  const again = `ALTER PUBLICATION ${name} DROP TABLE ONLY ${table}; ALTER PUBLICATION ${name} ADD TABLE ONLY ${table}`;
  return incomplete(publication, `rows or columns of ${displayName(clipped)}`, `BEGIN; ${again}; COMMIT`);
}

function incomplete(publication: string, what: string, sql: string): SluiceError {
  return new SluiceError('PUBLICATION_INCOMPLETE', { publication, what, sql });
}

/**
 * Since 18 the source refuses updates and deletes of a table whose identity has a generated column that is not published. That of a partition is its
 * own, and may be made FULL at any time.
 */
function hasComputedIdentity({ kind, replica_identity, generated }: Publishable): boolean {
  return (replica_identity === 'f' || kind === 'p') && (generated ?? []).some(({ storage }) => storage === 's');
}

function settingList(via_root: boolean, generated: boolean): string {
  return [
    ...(via_root ? ['publish_via_partition_root = true'] : []),
    ...(generated ? ['publish_generated_columns = stored'] : []),
  ].join(', ');
}
