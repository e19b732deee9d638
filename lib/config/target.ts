/**
 * Options of the target: its connection, where tables go, what becomes of deletions, and when a batch is due (design §3, Batch and Load).
 */
import * as z from 'zod';
import { connectionOptions, identifier } from './connection.ts';
import { option, orNull } from './option.ts';

const BATCH_ROWS_MAX = 10_000_000;
const BATCH_SECONDS_MAX = 86_400;
/** Lambda's default concurrency of an account is 1000; no target takes as many sessions. */
const LOADERS_MAX = 256;
const RETENTION_DAYS_MAX = 3650;
/** INDEX_MAX_KEYS of PostgreSQL. */
const INDEX_COLUMNS_MAX = 32;
/** Each level is one more join where keys are looked for. */
const FLATTENING_LEVELS_MAX = 10;

const ON_TYPE_CHANGE = ['widen', 'halt'] as const;
const ON_DROP_COLUMN = ['keep', 'drop'] as const;
const ON_TRUNCATE = ['apply', 'ignore', 'halt'] as const;
const CONSISTENCY = ['stream', 'transaction'] as const;
const CUSTOM_TYPES = ['create', 'text'] as const;
const ON_INVALID = ['halt', 'reject'] as const;
const ON_ERROR = ['halt', 'quarantine'] as const;
/** Their keys lie in memory while the stream is loaded. */
const QUARANTINE_ROWS_MAX = 100_000;

const indexColumns = z.array(identifier).min(1).max(INDEX_COLUMNS_MAX);
const index = z
  .union([
    indexColumns,
    z.strictObject({ columns: indexColumns, unique: z.boolean().optional(), where: z.string().min(1).optional() }),
  ])
  .transform((given) =>
    Array.isArray(given)
      ? { columns: given, unique: false, where: null }
      : { columns: given.columns, unique: given.unique ?? false, where: given.where ?? null },
  );

/** A grant each, on every table. */
const READERS_MAX = 64;

const readers = z
  .union([identifier, z.array(identifier).min(1).max(READERS_MAX)])
  .optional()
  .transform((given) => [...new Set(given === undefined ? [] : Array.isArray(given) ? given : [given])]);

export const targetOptions = z.strictObject({
  ...connectionOptions,
  default_target_schema: option(orNull(identifier), {
    sentence: 'Schema for every table that neither its entry nor `schema_mapping` sends elsewhere.',
    default_text: "the source's schema",
    example: 'replica',
  }),
  schema_mapping: option(z.record(identifier, identifier).default({}), {
    sentence: 'Target schema by source schema; goes before `default_target_schema`.',
    form: 'a map of source schema to target schema',
    default_text: 'none',
    example: '{ public: shop }',
  }),
  default_target_schema_select_permissions: option(readers, {
    sentence:
      'Roles that may read what is made here: USAGE on the schemas, SELECT on the tables, also where these were there before, and on `_sluice.positions`. `public` is everybody. A role that is missing is told and passed over; one that is taken out of the list keeps what it has.',
    form: 'the name of a role, or a list of them',
    default_text: 'none',
    example: '[analysts, dashboards]',
  }),
  hard_delete: option(z.boolean().default(false), {
    sentence:
      'Rows deleted on the source are deleted on the target; turns `add_metadata_columns` on. Otherwise they stay, and are marked where metadata columns are on.',
  }),
  add_metadata_columns: option(z.boolean().optional(), {
    sentence: 'Adds `_sdc_extracted_at`, `_sdc_batched_at` and `_sdc_deleted_at` (timestamptz) to target tables.',
    default_text: '`false`; `true` with `hard_delete`',
  }),
  consistency: option(z.enum(CONSISTENCY).default('stream'), {
    sentence:
      'What readers of several tables see: with `stream` each table is of one commit of the source by itself; with `transaction` all tables that follow the log are of the same one, for each cut is applied to all of them in one transaction. `_sluice.positions` says which are.',
  }),
  batch_size_rows: option(z.int().min(1).max(BATCH_ROWS_MAX).default(10_000), {
    sentence: 'A batch of a stream is due at this many rows.',
    unit: 'rows',
  }),
  batch_flush_interval: option(z.int().min(1).max(BATCH_SECONDS_MAX).default(60), {
    sentence: 'A batch older than this is due.',
    unit: 'seconds',
  }),
  batch_flush_min_time_gap: option(z.int().min(0).max(BATCH_SECONDS_MAX).default(60), {
    sentence: 'Least time between two batches of a stream that are due by time.',
    unit: 'seconds',
  }),
  flush_all_streams: option(z.boolean().default(false), {
    sentence: 'One stream with a full batch makes the batches of all streams due.',
  }),
  parallelism: option(z.int().min(-1).max(LOADERS_MAX).default(0), {
    sentence: 'Loaders at once: 0 is one per stream, -1 one per CPU core; never more than `max_parallelism`.',
    unit: 'loaders',
  }),
  max_parallelism: option(z.int().min(1).max(LOADERS_MAX).default(16), {
    sentence: 'Most loaders at once, whatever `parallelism` says.',
    unit: 'loaders',
  }),
  stage_retention_days: option(z.int().min(1).max(RETENTION_DAYS_MAX).default(14), {
    sentence: 'How long staged objects are kept: a halted stream must be resumed before they expire.',
    unit: 'days',
  }),
  custom_types: option(z.enum(CUSTOM_TYPES).default('create'), {
    sentence:
      "Enums, domains and composite types of the source's own: `create` makes them on the target under their schema and name, and follows them; `text` makes their columns text.",
  }),
  primary_key_required: option(z.boolean().default(true), {
    sentence:
      'Refuses tables without a primary key or replica identity index. `false` follows them: with REPLICA IDENTITY FULL, as many copies of each row as the source has; otherwise only what is added to them (INSERT, TRUNCATE).',
  }),
  on_type_change: option(z.enum(ON_TYPE_CHANGE).default('widen'), {
    sentence:
      "What a change of a column's type on the source does: `widen` changes the target's column, copying the table anew where its rows were written anew, and keeps the old values beside the new ones (`<name>_YYYYMMDD_HHMM`) where the new type cannot hold them all; `halt` stops the stream.",
  }),
  on_drop_column: option(z.enum(ON_DROP_COLUMN).default('keep'), {
    sentence:
      "What becomes of a target's column when the source drops its own: `keep` leaves it with its values (NULL in new rows), `drop` drops it.",
  }),
  validate_records: option(z.boolean().default(false), {
    sentence:
      "Checks every row against a JSON Schema before it is staged: `tables.json_schema`, or one made of the types of the table's columns. Deletions are not checked, and rows that the target has already are not either.",
  }),
  on_invalid: option(z.enum(ON_INVALID).default('halt'), {
    sentence:
      'What becomes of a row that is not valid: `halt` stops its stream; `reject` leaves the row out and puts it aside, for `sluice rejects`, and the target keeps what it had. A table without a key always halts.',
  }),
  on_error: option(z.enum(ON_ERROR).default('halt'), {
    sentence:
      "What becomes of a row that the target refuses (a constraint, a trigger, a value that its column's type does not take): `halt` stops its stream, naming the row's key; `quarantine` finds such rows by bisection, puts them aside, for `sluice rejects`, and applies the others. A table without a key always halts, and so does what refuses the whole table (a missing column, a missing right).",
  }),
  quarantine_rows_max: option(z.int().min(1).max(QUARANTINE_ROWS_MAX).default(1_000), {
    sentence: 'With `on_error: quarantine`, how many refused rows of one stream may wait: one more halts it.',
    unit: 'rows',
  }),
  indices: option(z.record(z.string(), z.array(index)).default({}), {
    sentence:
      'Indexes on target tables, by source table: lists of columns, or `{ columns, unique, where }`. They are made when the rows of a copy are in, and where they are missing; indexes that you make yourself are kept as well. `unique` (checked at commit) needs `hard_delete`.',
    form: 'a map of source tables (schema.table) to lists of columns, or of { columns, unique, where }',
    default_text: 'none',
    example: '{ public.orders: [[customer_id], { columns: [placed_at], where: "NOT done" }] }',
  }),
  data_flattening_max_level: option(z.int().min(0).max(FLATTENING_LEVELS_MAX).default(0), {
    sentence:
      'Keys of json objects become columns of their own beside the json column, which stays: `column__key`, and `column__key__child` of objects in objects down to this level. 0: none. A column has the type of what is seen at its key: text, numeric, boolean, jsonb (arrays, and objects at the last level); text where that differs. At most 250 columns a table, and fewer beside more than 50 of its own: a row must fit into its page.',
    unit: 'levels',
  }),
  on_truncate: option(z.enum(ON_TRUNCATE).default('apply'), {
    sentence:
      'What a TRUNCATE of the source does: `apply` empties the target table (with soft deletes: marks all rows), `ignore` leaves it, `halt` stops the stream.',
  }),
});
