/**
 * The pipeline file: its sections and their options, and `Pipeline`, what the rest of Sluice is given of it.
 *
 * Options are declared once, in `connection.ts`, `source.ts`, `tables.ts`, `target.ts` and `schedule.ts`; here defaults that depend on other
 * options are filled in. `read.ts` turns the text of a file into a Pipeline; `rules.ts` has what options must say together.
 */
import * as z from 'zod';
import { IDENTIFIER_BYTES_MAX } from '../sql-text.ts';
import { option, orNull } from './option.ts';
import { SCHEDULE_DEFAULT, type ScheduleConfig, scheduleOf, scheduleOptions } from './schedule.ts';
import { type SecretReference, secretReference } from './secret-reference.ts';
import { sourceOptions } from './source.ts';
import { type TableConfig, tablesOption } from './tables.ts';
import { targetOptions } from './target.ts';

export type { SslConfig, SslMode } from './connection.ts';
export type { ScheduleConfig } from './schedule.ts';
export type { AuthorityReference, PasswordReference, PemReference, SecretReference } from './secret-reference.ts';
export type { TableConfig } from './tables.ts';

/** CloudFormation's stack names and directories are made from it, and application_name must hold it. */
const PIPELINE_NAME_MAX = 40;

export const pipelineSchema = z.strictObject({
  pipeline: option(
    z
      .string()
      .max(PIPELINE_NAME_MAX)
      .regex(/^[a-z](?:-?[a-z0-9])*$/),
    {
      sentence: 'Name of the pipeline: of its stack, its state, and its connections.',
      form: `lower-case letters, digits and single hyphens, beginning with a letter, at most ${PIPELINE_NAME_MAX}`,
      default_text: 'required',
      example: 'shop',
    },
  ),
  source: option(sourceOptions.prefault({}), {
    sentence: 'The database that is read. Left out: an embedded PostgreSQL (local engine only).',
    form: 'a map of options',
    default_text: 'embedded',
  }),
  tables: tablesOption,
  target: option(targetOptions.prefault({}), {
    sentence: 'The database that is written. Left out: an embedded PostgreSQL (local engine only).',
    form: 'a map of options',
    default_text: 'embedded',
  }),
  mask_salt: option(orNull(secretReference), {
    sentence:
      'What is put before each value that is hashed (`tables.mask`), so that nobody can guess values by their hashes.',
    default_text: 'required where a column is hashed',
    secret: true,
  }),
  schedule: option(scheduleOptions.optional(), {
    sentence: 'When windows run.',
    form: 'a map of options',
    default_text: '`every: 5 minutes`',
  }),
});

/** What the file says, checked and with the defaults of single options. */
export type PipelineFile = z.output<typeof pipelineSchema>;

/** All keys present: `undefined` is gone, by a default that depends on other options. */
type Filled<T> = { readonly [K in keyof T]-?: Exclude<T[K], undefined> };

/** The pipeline as the rest of Sluice sees it. Keys and units are the file's (`docs/CONFIGURATION.md`); nothing is left undefined. */
export interface Pipeline {
  /** The name. */
  readonly pipeline: string;
  readonly source: SourceConfig;
  readonly tables: readonly TableConfig[];
  readonly target: TargetConfig;
  readonly mask_salt: SecretReference | null;
  readonly schedule: ScheduleConfig;
}

/** `host: null` is an embedded server: the local engine knows its address, and brings user, password and database `postgres`. */
export interface SourceConfig extends Filled<Omit<PipelineFile['source'], 'failover'>> {
  /** Null: the slot is somebody else's, and stays as it is. */
  readonly failover: boolean | null;
  /** `itersize` where the file gives it: rows of a chunk where a table that is read by query is copied; null: as for other copies. */
  readonly query_chunk_rows: number | null;
}
export type TargetConfig = Filled<PipelineFile['target']>;
/** What source and target have in common. */
export type ConnectionConfig = Pick<SourceConfig, keyof SourceConfig & keyof TargetConfig>;

const EMBEDDED_NAME = 'postgres';
/** Rows. */
const ITERSIZE_DEFAULT = 20_000;

/** Fills in what depends on other options. The file has passed the rules of `rules.ts`. */
export function pipelineOf(file: PipelineFile): Pipeline {
  const database = file.source.database ?? EMBEDDED_NAME;
  const said = file.source.itersize ?? file.source.batch_fetch_limit;
  const itersize = said ?? ITERSIZE_DEFAULT;
  return {
    pipeline: file.pipeline,
    source: {
      ...file.source,
      user: file.source.user ?? EMBEDDED_NAME,
      database,
      application_name: file.source.application_name ?? defaultApplicationName(file.pipeline),
      secondary_port: file.source.secondary_port ?? file.source.port,
      failover: file.source.failover ?? (file.source.create_slot ? false : null),
      // Amazon RDS takes no token for a walsender.
      slot_reader: file.source.slot_reader ?? (file.source.password?.from === 'iam' ? 'peek' : 'stream'),
      replication_slot: file.source.replication_slot ?? defaultSlotName(database),
      publication_name: file.source.publication_name ?? defaultPublicationName(database),
      itersize,
      batch_fetch_limit: itersize,
      query_chunk_rows: said ?? null,
      // wal2json tells of each partition by its own name.
      fold_partitions: file.source.fold_partitions && file.source.plugin === 'pgoutput',
    },
    tables: file.tables,
    target: {
      ...file.target,
      user: file.target.user ?? EMBEDDED_NAME,
      database: file.target.database ?? EMBEDDED_NAME,
      application_name: file.target.application_name ?? defaultApplicationName(file.pipeline),
      add_metadata_columns: file.target.add_metadata_columns ?? file.target.hard_delete,
    },
    mask_salt: file.mask_salt,
    schedule: file.schedule === undefined ? SCHEDULE_DEFAULT : scheduleOf(file.schedule),
  };
}

/** `sluice_<database>`: lower-cased, other characters than `[a-z0-9_]` become `_`, 63 bytes at most, as slot names must be. */
export function defaultSlotName(database: string): string {
  return `sluice_${database.toLowerCase().replaceAll(/[^a-z0-9_]/gu, '_')}`.slice(0, IDENTIFIER_BYTES_MAX);
}

/** As the slot: the two are found together. */
export function defaultPublicationName(database: string): string {
  return defaultSlotName(database);
}

function defaultApplicationName(pipeline: string): string {
  return `sluice/${pipeline}`;
}

/** Loaders that work at once for so many streams on so many CPU cores; at least one. */
export function loadersAtOnce(target: TargetConfig, streams: number, cores: number): number {
  const wanted = target.parallelism === 0 ? streams : target.parallelism === -1 ? cores : target.parallelism;
  return Math.max(1, Math.min(wanted, target.max_parallelism));
}
