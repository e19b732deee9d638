/**
 * A Singer catalog as entries of `tables`: streams that are selected, how each is replicated, and the columns that are left out. Pure.
 *
 * Metadata is a list of breadcrumbs (https://github.com/singer-io/getting-started/blob/master/docs/DISCOVERY_MODE.md#metadata): the empty one is the stream's, and
 * ["properties", NAME] a column's. Older catalogs have some of it in the stream itself, or in its schema.
 */
import { formatTableName } from '../config/table-pattern.ts';
import type { TableName } from '../shape.ts';
import { flow } from './section.ts';
import { isJson, type Json, wrong } from './settings.ts';
import type { Tap } from './tap.ts';

const METHODS = ['LOG_BASED', 'INCREMENTAL', 'FULL_TABLE'] as const;
type Method = (typeof METHODS)[number];

export interface CatalogTables {
  /** Lines of YAML below `tables:`. */
  readonly lines: readonly string[];
  readonly tables: readonly TableName[];
  readonly remarks: readonly string[];
  /** Streams that the catalog has and does not select. */
  readonly unselected: number;
}

/** Throws USAGE for what is no catalog. `primary_key_required`: as the target has it. */
export function catalogTables(
  catalog: unknown,
  file: string,
  tap: Tap,
  {
    target_table,
    primary_key_required,
  }: { readonly target_table: string | null; readonly primary_key_required: boolean },
): CatalogTables {
  const streams = isJson(catalog) ? catalog.streams : undefined;
  if (!Array.isArray(streams)) throw wrong(file, 'is no catalog: it has no streams.');
  const entries: { readonly table: TableName; readonly options: Json }[] = [];
  const remarks: string[] = [];
  let unselected = 0;
  for (const stream of streams.filter(isJson)) {
    const found = streamOf(stream);
    if (!found.selected) {
      unselected++;
      continue;
    }
    const name = nameOf(stream, found.root, tap.database);
    if (name === null) {
      remarks.push(`${stringOf(stream.tap_stream_id) ?? 'a stream'} is left out: the catalog does not say its schema.`);
      continue;
    }
    const { table, database } = name;
    if (database !== null && database !== tap.database) {
      remarks.push(`${formatTableName(table)} is left out: it is in database ${database}, and a pipeline reads one.`);
      continue;
    }
    const remark = (sentence: string): void => void remarks.push(`${formatTableName(table)}: ${sentence}`);
    const options = optionsOf(found, tap, primary_key_required, remark);
    if (options !== null) entries.push({ table, options });
  }
  if (target_table !== null) {
    const [only] = entries;
    if (entries.length === 1 && only) entries[0] = { ...only, options: { ...only.options, target_table } };
    else remarks.push('target_table is left out: it names one table, and the catalog selects several.');
  }
  return {
    lines: entries.map(({ table, options }) => lineOf(table, options)),
    tables: entries.map(({ table }) => table),
    remarks,
    unselected,
  };
}

function lineOf(table: TableName, options: Json): string {
  const name = formatTableName(table);
  return Object.values(options).every((value) => value === null)
    ? `  - ${flow(name)}`
    : `  - ${flow({ table: name, ...options })}`;
}

interface Stream {
  readonly selected: boolean;
  /** Of the empty breadcrumb, over what the stream itself says. */
  readonly root: Json;
  readonly columns: ReadonlyMap<string, Json>;
}

function streamOf(stream: Json): Stream {
  const metadata = Array.isArray(stream.metadata) ? stream.metadata.filter(isJson) : [];
  let root: Json = {};
  const columns = new Map<string, Json>();
  for (const { breadcrumb, metadata: said } of metadata) {
    if (!Array.isArray(breadcrumb) || !isJson(said)) continue;
    const [kind, name] = breadcrumb as unknown[];
    if (breadcrumb.length === 0) root = said;
    else if (kind === 'properties' && typeof name === 'string' && breadcrumb.length === 2) columns.set(name, said);
  }
  const schema = isJson(stream.schema) ? stream.schema : {};
  const old = {
    'replication-method': stream.replication_method,
    'replication-key': stream.replication_key,
    'is-view': stream.is_view,
    'database-name': stream.database_name,
    'schema-name': stream.schema_name,
    'table-key-properties': stream.key_properties,
    selected: schema.selected ?? stream.selected,
  };
  const whole = { ...old, ...root };
  return { selected: isTrue(whole.selected), root: whole, columns };
}

/** `schema-table`, or `database-schema-table` (singer-io), where metadata does not say it. */
function nameOf(
  stream: Json,
  root: Json,
  database: string,
): { readonly table: TableName; readonly database: string | null } | null {
  const named = stringOf(root['schema-name']);
  const in_database = stringOf(root['database-name']);
  const id = stringOf(stream.tap_stream_id) ?? '';
  const own = stringOf(stream.table_name) ?? stringOf(stream.table);
  if (named !== null) {
    const stream_name = stringOf(stream.stream) ?? id;
    const table = own ?? (stream_name.startsWith(`${named}-`) ? stream_name.slice(named.length + 1) : stream_name);
    return table === '' ? null : { table: { schema: named, table }, database: in_database };
  }
  const inDatabase = id.startsWith(`${database}-`) ? id.slice(database.length + 1) : id;
  const at = inDatabase.indexOf('-');
  if (at <= 0 || at === inDatabase.length - 1) return null;
  return { table: { schema: inDatabase.slice(0, at), table: inDatabase.slice(at + 1) }, database: in_database };
}

/** Null: the stream cannot be replicated as the catalog has it. */
function optionsOf(
  { root, columns }: Stream,
  tap: Tap,
  primary_key_required: boolean,
  remark: (sentence: string) => void,
): Json | null {
  const is_view = isTrue(root['is-view']);
  const key = textsOf(root['view-key-properties']);
  const table_key = root['table-key-properties'];
  let method = methodOf(
    stringOf(root['replication-method']) ?? stringOf(root['forced-replication-method']) ?? tap.default_method,
  );
  if (method === null) {
    method = is_view ? 'FULL_TABLE' : 'LOG_BASED';
    remark(`the catalog gives it no replication method that is known: it is ${method} here.`);
  }
  if (is_view && method === 'LOG_BASED') {
    method = 'FULL_TABLE';
    remark('a view is not in the log: it is FULL_TABLE here.');
  }
  const replication_key = stringOf(root['replication-key']) ?? tap.default_key;
  if (method === 'INCREMENTAL' && replication_key === null) {
    remark('it is left out: INCREMENTAL needs a replication-key.');
    return null;
  }
  if (is_view && method === 'INCREMENTAL' && key.length === 0) {
    remark('INCREMENTAL of a view needs its key: add key_properties: [COLUMN].');
  }
  if (
    !is_view &&
    method !== 'FULL_TABLE' &&
    Array.isArray(table_key) &&
    table_key.length === 0 &&
    primary_key_required
  ) {
    remark('it has no primary key, and is refused: give it one, or set target.primary_key_required: false.');
  }
  return {
    replication_method: method === 'LOG_BASED' ? null : method,
    replication_key: method === 'INCREMENTAL' ? replication_key : null,
    key_properties: is_view && key.length > 0 ? key : null,
    columns: columnsOf(
      columns,
      [
        ...textsOf(is_view ? root['view-key-properties'] : table_key),
        ...(method === 'INCREMENTAL' && replication_key ? [replication_key] : []),
      ],
      remark,
    ),
  };
}

/** As singer.should_sync_field has it: what is automatic is there, what is not selected is not, and what says nothing is. */
function columnsOf(
  columns: ReadonlyMap<string, Json>,
  keys: readonly string[],
  remark: (sentence: string) => void,
): { readonly exclude: readonly string[] } | null {
  const exclude: string[] = [];
  const unsupported: string[] = [];
  for (const [name, { inclusion, selected }] of columns) {
    if (inclusion === 'automatic') continue;
    if (selected !== undefined && selected !== null && !isTrue(selected)) exclude.push(name);
    else if (inclusion === 'unsupported') unsupported.push(name);
  }
  const needed = exclude.filter((name) => keys.includes(name));
  if (needed.length > 0) remark(`${needed.join(', ')}: of a key, and replicated, selected or not.`);
  if (unsupported.length > 0) {
    remark(
      `columns that the tap did not support are replicated: ${unsupported.join(', ')}. Exclude them where they shall not be.`,
    );
  }
  const left = exclude.filter((name) => !keys.includes(name));
  return left.length === 0 ? null : { exclude: left };
}

function methodOf(value: unknown): Method | null {
  return METHODS.find((method) => method === String(value).toUpperCase()) ?? null;
}

function stringOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((text): text is string => typeof text === 'string') : [];
}

function isTrue(value: unknown): boolean {
  return value === true || String(value).toLowerCase() === 'true';
}
