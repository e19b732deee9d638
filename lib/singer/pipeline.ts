/**
 * A pipeline file from the JSON files of a Singer pipeline: tap-postgres' config and catalog, and target-postgres' config. What it writes is valid as it is; what has
 * no counterpart is said. docs/MIGRATION.md has it option by option. Pure.
 */
import { pipelineName } from '../config/initial-pipeline.ts';
import { formatTableName, schemaGlob } from '../config/table-pattern.ts';
import { comment, scalar, wrapped } from '../config/yaml-text.ts';
import { type CatalogTables, catalogTables } from './catalog.ts';
import { flow } from './section.ts';
import { Settings } from './settings.ts';
import { type Tap, tapOf } from './tap.ts';
import { type SingerTarget, targetOf } from './target.ts';

/** A JSON file, read. */
export interface SingerFile {
  readonly path: string;
  readonly data: unknown;
}

export interface SingerFiles {
  readonly config: SingerFile;
  readonly catalog: SingerFile | null;
  readonly target: SingerFile | null;
  /** Null: made from the tap's id or its database's name. */
  readonly name: string | null;
}

export interface SingerPipeline {
  /** YAML. */
  readonly text: string;
  readonly name: string;
  /** Entries of `tables`. */
  readonly tables: number;
  /** What has no counterpart, or means something else here; sentences. */
  readonly remarks: readonly string[];
  /** Environment variables that the file refers to, in its order. */
  readonly environment: readonly string[];
}

/** Throws USAGE for files that are not what they should be. No message has a value of them that may be secret. */
export function singerPipeline({ config, catalog, target: target_file, name: given }: SingerFiles): SingerPipeline {
  const tap = tapOf(new Settings(config.data, config.path), config.path);
  const target = target_file && targetOf(new Settings(target_file.data, target_file.path), target_file.path);
  const name = given ?? pipelineName(tap.id);
  const options = {
    target_table: target?.table ?? null,
    primary_key_required: target?.primary_key_required ?? true,
  };
  const chosen = catalog && catalogTables(catalog.data, catalog.path, tap, options);
  const tables = chosen === null ? withoutCatalog(tap, options.target_table) : tablesOf(chosen, tap);
  const remarks = [
    ...tap.section.remarks,
    ...tables.remarks,
    ...(target?.section.remarks ?? []),
    ...(target === null
      ? []
      : ['target: tables that exist are not taken over: rename or drop them, or name another schema.']),
  ];
  const text = [
    '# A pipeline of Sluice, from the files of a Singer pipeline by `sluice init --from-singer`. Every option: docs/CONFIGURATION.md;',
    '# what differs, and why: docs/MIGRATION.md. Check it: sluice doctor -c FILE',
    ...(remarks.length === 0 ? [] : ['#', '# To be known:']),
    ...remarks.flatMap((remark) => bullet(comment(remark))),
    '',
    `pipeline: ${scalar(name)}`,
    '',
    ...tap.section.lines,
    '',
    'tables:',
    ...tables.lines,
    '',
    ...targetLines(target),
    '',
    '# Nothing in the files of a tap says when it runs.',
    'schedule:',
    '  every: 5 minutes',
    '',
  ].join('\n');
  const environment = [...tap.section.environment, ...(target?.section.environment ?? [])];
  return { text, name, tables: tables.count, remarks, environment };
}

function bullet(sentence: string): string[] {
  return wrapped(sentence, '#   ').map((line, i) => (i === 0 ? line.replace('#   ', '# - ') : line));
}

interface Tables {
  readonly lines: readonly string[];
  readonly count: number;
  readonly remarks: readonly string[];
}

function tablesOf({ lines, tables, remarks, unselected }: CatalogTables, tap: Tap): Tables {
  if (lines.length === 0) {
    const all = withoutCatalog(tap, null);
    return {
      ...all,
      remarks: [...remarks, 'the catalog selects nothing that can be replicated: tables are as without one.'],
    };
  }
  const left = unselected === 0 ? [] : [`  # The catalog has ${unselected} more, which are not selected.`];
  return { lines: [...lines, ...left], count: tables.length, remarks };
}

/** What a tap reads that has discovered its streams itself, and selects all of them. */
function withoutCatalog({ schemas, table, default_method, default_key }: Tap, target_table: string | null): Tables {
  const names =
    table === null ? null : (schemas.length > 0 ? schemas : ['public']).map((schema) => ({ schema, table }));
  const globs = names?.map(formatTableName) ?? (schemas.length > 0 ? schemas : ['public']).map(schemaGlob);
  const isQuery = default_method === 'FULL_TABLE' || (default_method === 'INCREMENTAL' && default_key !== null);
  const options = {
    replication_method: isQuery ? default_method : null,
    replication_key: isQuery && default_method === 'INCREMENTAL' ? default_key : null,
    target_table: names?.length === 1 ? target_table : null,
  };
  const isPlain = Object.values(options).every((value) => value === null);
  return {
    lines: globs.map((glob) => `  - ${isPlain ? flow(glob) : flow({ table: glob, ...options })}`),
    count: globs.length,
    remarks: [
      ...(default_method === 'INCREMENTAL' && default_key === null
        ? ['default_replication_method INCREMENTAL names no key: tables are LOG_BASED here.']
        : []),
      ...(target_table !== null && options.target_table === null
        ? ['target_table is left out: it names one table, and there may be many.']
        : []),
    ],
  };
}

function targetLines(target: SingerTarget | null): readonly string[] {
  if (target !== null) return target.section.lines;
  return [
    '# Without a target, `sluice run` starts an embedded PostgreSQL and fills that.',
    '# target:',
    '#   host: warehouse.internal',
    '#   user: loader',
    '#   password: ${env:TARGET_PASSWORD}',
    '#   database: analytics',
  ];
}
