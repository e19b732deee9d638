/**
 * Entries of `tables`: which tables of the source are followed, and where each goes. A bare string is an entry with no options.
 */
import * as z from 'zod';
import { REPLICATION_METHODS } from '../ports/ledger.ts';
import { identifier } from './connection.ts';
import { form, option, orNull } from './option.ts';
import { tableScheduleOptions } from './schedule.ts';
import { parseTablePattern, tablePatternForm } from './table-pattern.ts';

const TABLE_ENTRIES_MAX = 10_000;

/** A key has no more columns than an index (INDEX_MAX_KEYS). */
const KEY_COLUMNS_MAX = 32;
const LOOKBACK = /^\d{1,15}(?:\.\d{1,9})?(?: (?:second|minute|hour|day|week|month)s?)?$/;

/** A name of a column is one of the catalog's; more than a table can have are no choice. */
const COLUMNS_MAX = 1_600;
const WHERE_CHARACTERS_MAX = 10_000;
const FILE_CHARACTERS_MAX = 1_000;

export const MASKS = ['hash', 'null', 'redact'] as const;
export type Mask = (typeof MASKS)[number];

const columnNames = form(z.array(identifier).min(1).max(COLUMNS_MAX), 'a list of names of columns');

const columnsOptions = z.strictObject({
  include: option(orNull(columnNames), {
    sentence: 'Only these columns.',
    form: 'a list of names of columns',
    default_text: 'all',
  }),
  exclude: option(orNull(columnNames), {
    sentence: 'All but these columns.',
    form: 'a list of names of columns',
    default_text: 'none',
  }),
});

/** YAML reads a bare null as no value. */
const maskKind = form(
  z.union([z.enum(MASKS), z.null().transform((): Mask => 'null')]),
  `${MASKS.slice(0, -1).join(', ')} or ${MASKS.at(-1)}`,
);

/** What is shipped has the schema itself in place of the file's name. */
const jsonSchema = form(
  z.union([z.string().min(1).max(FILE_CHARACTERS_MAX), z.record(z.string(), z.unknown())]),
  'the path of a JSON file, from the pipeline file; or the schema itself',
);

const table = form(
  z.string().refine((text) => parseTablePattern(text) !== null),
  tablePatternForm,
);

export const tableOptions = z.strictObject({
  table: option(table, {
    sentence:
      '`schema.table`, or a glob with * and ? in either half. Case counts; a name that holds a dot is written `public."odd.name"`.',
    default_text: 'required',
    example: 'public.orders',
  }),
  replication_method: option(z.enum(REPLICATION_METHODS).default('LOG_BASED'), {
    sentence:
      'How the table is followed. `LOG_BASED` reads its changes from the log; `INCREMENTAL` the rows that are new by their `replication_key`, at each window; `FULL_TABLE` copies it anew at each window. Views, materialized views and foreign tables: the last two.',
  }),
  replication_key: option(orNull(identifier), {
    sentence:
      'Column that `INCREMENTAL` follows, of any type that can be sorted: a change of a row must raise it. Deleted rows, and rows whose value goes back, are not seen.',
    default_text: 'required with `INCREMENTAL`',
    example: 'updated_at',
  }),
  lookback: option(
    orNull(
      z.union([z.number().nonnegative().max(Number.MAX_SAFE_INTEGER).transform(String), z.string().regex(LOOKBACK)]),
    ),
    {
      sentence:
        'How far before the last value of the replication key `INCREMENTAL` begins to read, for rows that are committed later than others with greater values: an interval where the key is a time, a number where it is one. At least as long as the longest transaction that writes to the table.',
      form: 'a number, or a number with seconds, minutes, hours, days, weeks or months',
      default_text: 'none',
      example: '10 minutes',
    },
  ),
  key_properties: option(orNull(form(z.array(identifier).min(1).max(KEY_COLUMNS_MAX), 'a list of names of columns')), {
    sentence:
      'Columns that identify a row, where the source has no primary key to say so: of a view, a materialized view, a foreign table, or a table without one. Not with `LOG_BASED`.',
    form: 'a list of names of columns',
    default_text: 'the primary key',
    example: '[id]',
  }),
  columns: option(orNull(columnsOptions), {
    sentence:
      'Which columns are replicated: `{ include: [...] }`, where a new column stays out, or `{ exclude: [...] }`, where it comes. Columns of the key cannot be left out.',
    form: '{ include: [NAME, …] } or { exclude: [NAME, …] }',
    default_text: 'all',
    example: '{ exclude: [notes] }',
  }),
  mask: option(z.record(identifier, maskKind).default({}), {
    sentence:
      "What stands for the values of a column, by its name: `hash` (SHA-256 of `mask_salt` and PostgreSQL's text of the value, in hexadecimal), `null`, or `redact` (the text [redacted]). NULL stays NULL. The values themselves leave the source's connection in no form.",
    form: 'a map of columns, each with hash, null or redact',
    default_text: 'none',
    example: '{ email: hash }',
  }),
  where: option(
    orNull(
      z
        .string()
        .min(1)
        .max(WHERE_CHARACTERS_MAX)
        .refine((text) => !text.includes('\0')),
    ),
    {
      sentence:
        'Only rows for which this SQL condition is true. With `LOG_BASED` it is a row filter of the publication: PostgreSQL 15 and newer, `pgoutput`, and only columns of the replica identity.',
      form: `a condition in SQL of at most ${WHERE_CHARACTERS_MAX} characters`,
      default_text: 'none',
      example: '"region = \'eu\'"',
    },
  ),
  json_schema: option(orNull(jsonSchema), {
    sentence:
      'JSON Schema (draft-07, 2019-09 or 2020-12) that each row must fit with `target.validate_records`: an object with a property for each column, as it is replicated. Integers, numbers and booleans are themselves where JSON has them exactly (else text), json and jsonb are documents, all other values are the text that PostgreSQL prints. A `pattern` runs as JavaScript runs it, without a limit of time: no repetitions in each other.',
    default_text: 'made of the types of the columns',
    example: 'schemas/orders.json',
  }),
  target_schema: option(orNull(identifier), {
    sentence: 'Schema of the target table.',
    default_text: '`target.schema_mapping`, `target.default_target_schema`, or as the source',
    example: 'shop',
  }),
  target_table: option(orNull(identifier), {
    sentence: 'Name of the target table; not with a glob.',
    default_text: 'as the source',
    example: 'orders',
  }),
  schedule: option(orNull(tableScheduleOptions), {
    sentence:
      'When the table is loaded, or read by query, where that is not at each window: one of `every` (with `anchor`) and `cron`. Windows run at these times too; with `LOG_BASED`, changes are staged by every window, so that the slot never waits.',
    form: 'a map of every or cron, timezone, anchor and paused',
    default_text: "the pipeline's",
    example: '{ cron: "0 6 * * ? *", timezone: Europe/Zurich }',
  }),
});

export type TableConfig = Readonly<z.output<typeof tableOptions>>;

const tableEntry = option(
  z.union([
    table.transform(
      (text): TableConfig => ({
        table: text,
        replication_method: 'LOG_BASED',
        replication_key: null,
        lookback: null,
        key_properties: null,
        columns: null,
        mask: {},
        where: null,
        json_schema: null,
        target_schema: null,
        target_table: null,
        schedule: null,
      }),
    ),
    tableOptions,
  ]),
  {
    sentence: 'A table, a glob, or a map with `table` and its options.',
    form: tablePatternForm,
    example: 'public.orders',
  },
);

export const tablesOption = option(z.array(tableEntry).min(1).max(TABLE_ENTRIES_MAX), {
  sentence: 'What is replicated, in order: a later entry overrides an earlier one for its table.',
  form: `a list of 1 to ${TABLE_ENTRIES_MAX} tables`,
  default_text: 'required',
  example: '[public.*]',
});
