/**
 * The first pipeline file of a source, with comments that say what it does and what else it could say. What it writes is valid as it is; without a
 * target it replicates into an embedded PostgreSQL.
 */
import type * as z from 'zod';
import type { SourceTable } from '../ports.ts';
import type { ConnectionUrl } from './connection-url.ts';
import { defaultOf } from './expectation.ts';
import { optionFacts } from './option.ts';
import { byQuery, queryFault } from './queryable.ts';
import { defaultPublicationName, defaultSlotName } from './schema.ts';
import { followFaults, withoutFolded } from './selection.ts';
import { sourceOptions } from './source.ts';
import { formatTableName, schemaGlob } from './table-pattern.ts';
import { targetOptions } from './target.ts';
import { comment, scalar, wrapped } from './yaml-text.ts';

export interface InitialPipeline {
  /** YAML. */
  readonly text: string;
  readonly name: string;
  /** How many tables its globs take now. */
  readonly followed: number;
  readonly skipped: readonly { readonly table: string; readonly reason: string }[];
}

export interface InitialPipelineInput {
  readonly connection: Omit<ConnectionUrl, 'password'>;
  /** Whether the server asked for a password. */
  readonly has_password: boolean;
  readonly tables: readonly SourceTable[];
  /** Null: made from the database's. */
  readonly name: string | null;
}

export const SOURCE_PASSWORD = 'SOURCE_PASSWORD';
const NAMES_LISTED_MAX = 12;
const SKIPPED_LISTED_MAX = 40;
const NAME_MAX = 40;
const SOURCE_SHOWN = ['break_at_end_lsn', 'logical_poll_total_seconds', 'max_run_seconds'] as const;
const TARGET_SHOWN = [
  'default_target_schema',
  'hard_delete',
  'add_metadata_columns',
  'batch_size_rows',
  'on_truncate',
] as const;

export function initialPipeline({ connection, has_password, tables, name }: InitialPipelineInput): InitialPipeline {
  const pipeline = name ?? pipelineName(connection.database);
  const faultOf = followFaults(tables, { user: connection.user, fold_partitions: true });
  const faults = withoutFolded(tables).map((table) => [table, faultOf.get(table) ?? null] as const);
  const followed = faults.flatMap(([table, fault]) => (fault ? [] : [table]));
  const skipped = faults.flatMap(([table, fault]) =>
    fault ? [{ table: formatTableName(table), reason: fault.message }] : [],
  );
  const by_query = faults.flatMap(([table, fault]) => (fault && isReadable(table, connection.user) ? [table] : []));
  const text = [
    '# A pipeline of Sluice, as `sluice init` found the source. Every option: docs/CONFIGURATION.md',
    '# Check it:  sluice doctor -c FILE        Run it:  sluice run -c FILE',
    `pipeline: ${scalar(pipeline)}`,
    '',
    ...sourceLines(connection, has_password),
    '',
    ...tableLines(followed, skipped),
    ...queryLines(by_query),
    '',
    ...targetLines(),
    '',
    'schedule:',
    '  every: 5 minutes',
    '  # Or cron: "0 6 * * ? *" with timezone, or continuous: true.',
    '',
  ].join('\n');
  return { text, name: pipeline, followed: followed.length, skipped };
}

/** A database's name as a pipeline's: `Web_Shop` → `web-shop`. */
export function pipelineName(database: string): string {
  const words = database.toLowerCase().match(/[a-z0-9]+/g) ?? [];
  const name = words
    .join('-')
    .replace(/^[0-9-]+/, '')
    .slice(0, NAME_MAX)
    .replace(/-$/, '');
  return name === '' ? 'pipeline' : name;
}

function sourceLines(connection: InitialPipelineInput['connection'], has_password: boolean): string[] {
  const { host, port, user, database, ssl_mode, ssl_ca } = connection;
  const ca = ssl_ca === null ? '' : `, ca: ${JSON.stringify(ssl_ca)}`;
  return [
    'source:',
    `  host: ${scalar(host)}`,
    `  port: ${port}`,
    `  user: ${scalar(user)}`,
    ...(has_password
      ? [
          `  # The password is not in this file: set the environment variable ${SOURCE_PASSWORD}, or name an entry of`,
          '  # AWS Secrets Manager: { secret: NAME, key: password }.',
          `  password: \${env:${SOURCE_PASSWORD}}`,
        ]
      : ['  # The server asked for no password. If it should: password: ${env:SOURCE_PASSWORD}']),
    `  database: ${scalar(database)}`,
    ...(ssl_mode === 'disable' ? ['  # ssl: true'] : [`  ssl: { mode: ${ssl_mode}${ca} }`]),
    '  # Made by the first run where the role may:',
    `  # replication_slot: ${comment(defaultSlotName(database))}`,
    `  # publication_name: ${comment(defaultPublicationName(database))}`,
    ...optionLines('  ', sourceOptions.shape, SOURCE_SHOWN),
  ];
}

function tableLines(followed: readonly SourceTable[], skipped: InitialPipeline['skipped']): string[] {
  const bySchema = Map.groupBy(followed, (table) => table.schema);
  const entries = [...bySchema].flatMap(([schema, tables]) => {
    const analysed = tables.filter((table) => table.rows_estimate >= 0);
    const rows = analysed.reduce((sum, table) => sum + table.rows_estimate, 0);
    const size = analysed.length === 0 ? 'never analysed' : `about ${rows.toLocaleString('en-US')} rows`;
    const names = tables.slice(0, NAMES_LISTED_MAX).map((table) => table.table);
    const more = tables.length > names.length ? `, and ${tables.length - names.length} more` : '';
    const count = tables.length === 1 ? '1 table' : `${tables.length} tables`;
    return [`  # ${count}, ${size}: ${comment(names.join(', '))}${more}`, `  - ${scalar(schemaGlob(schema))}`];
  });
  const none = ['  # Nothing that can be followed was found; this takes what there will be.', '  - public.*'];
  const listed = skipped.slice(0, SKIPPED_LISTED_MAX).map(({ reason }) => `  #   ${comment(reason)}`);
  const more = skipped.length - listed.length;
  return [
    'tables:',
    ...(entries.length > 0 ? entries : none),
    ...(skipped.length > 0 ? ['  # Left out, because the log cannot be followed for them:', ...listed] : []),
    ...(more > 0 ? [`  #   and ${more} more`] : []),
  ];
}

function isReadable(table: SourceTable, user: string): boolean {
  const options = {
    replication_method: 'FULL_TABLE',
    replication_key: null,
    lookback: null,
    key_properties: null,
  } as const;
  return queryFault(byQuery(table, null), user, options) === null;
}

/** Entries for what the log does not have, to be uncommented. */
function queryLines(tables: readonly SourceTable[]): string[] {
  if (tables.length === 0) return [];
  const name = (table: SourceTable): string => scalar(formatTableName(table));
  const listed = tables.slice(0, NAMES_LISTED_MAX);
  const [first] = listed.map(name);
  return [
    '  # What the log does not have can be read by query at each window: a fresh copy,',
    ...listed.map((table) => `  # - { table: ${name(table)}, replication_method: FULL_TABLE }`),
    ...(tables.length > listed.length ? [`  #   and ${tables.length - listed.length} more`] : []),
    '  # or what is new by a column that each change of a row raises:',
    `  # - { table: ${first}, replication_method: INCREMENTAL, replication_key: COLUMN, key_properties: [COLUMN] }`,
  ];
}

function targetLines(): string[] {
  return [
    '# Without a target, `sluice run` starts an embedded PostgreSQL and fills that.',
    '# target:',
    '#   host: warehouse.internal',
    '#   user: loader',
    '#   password: ${env:TARGET_PASSWORD}',
    '#   database: analytics',
    ...optionLines('#   ', targetOptions.shape, TARGET_SHOWN),
  ];
}

/** Options with their defaults, as comments. */
function optionLines(
  indent: string,
  shape: Readonly<Record<string, z.core.$ZodType>>,
  names: readonly string[],
): string[] {
  return names.flatMap((name) => {
    const schema = shape[name];
    const facts = schema && optionFacts(schema);
    if (!schema || !facts) return [];
    const value = defaultOf(schema) ?? facts.example ?? facts.default_text?.replaceAll('`', '').split(';')[0] ?? '';
    const lead = indent.startsWith('#') ? indent : `${indent}# `;
    const remark = indent.startsWith('#') ? `${indent}# ` : lead;
    return [...wrapped(facts.sentence ?? '', remark), `${lead}${name}: ${value}`];
  });
}
