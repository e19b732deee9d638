/**
 * Entries of `tables`: which tables of the source are followed, and where each goes. A bare string is an entry with no options.
 */
import * as z from 'zod';
import { identifier } from './connection.ts';
import { form, option, orNull } from './option.ts';
import { parseTablePattern, tablePatternForm } from './table-pattern.ts';

const TABLE_ENTRIES_MAX = 10_000;

const REPLICATION_METHODS = ['LOG_BASED'] as const;

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
    sentence: 'How the table is followed: `LOG_BASED` reads its changes from the log.',
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
});

export type TableConfig = Readonly<z.output<typeof tableOptions>>;

const tableEntry = option(
  z.union([
    table.transform(
      (text): TableConfig => ({
        table: text,
        replication_method: 'LOG_BASED',
        target_schema: null,
        target_table: null,
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
