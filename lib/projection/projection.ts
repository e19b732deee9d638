/**
 * What the pipeline file hides of a stream: columns that are left out, and those of which something else stands for each value. Pure.
 *
 * On the path before anything is staged, for the log (tuple.ts) and for copies (select.ts, lines.ts) alike; shapes and descriptions of tables are
 * projected with them (table.ts), so that what is hidden is in no object, no header, and in no table of the target.
 */
import type { Mask, TableConfig } from '../config/tables.ts';
import { SluiceError } from '../errors.ts';
import type { SourceTable } from '../ports.ts';
import { type Column, displayName, type GeneratedColumn, OWN_TYPE_OID_END } from '../shape.ts';

export type Treatment = 'keep' | 'drop' | Mask;

export interface Projection {
  /** What becomes of the column of this name. */
  readonly treatmentOf: (name: string) => Treatment;
  /** Of the hashes; empty where nothing is hashed. */
  readonly salt: string;
}

/** What stands for a value that is redacted. */
export const REDACTED = '[redacted]';
/** pg_type.dat: text. */
const TEXT_OID = 25;

/** Null: nothing is hidden. `salt` must be there where a column is hashed: CONFIG_INVALID. */
export function projectionOf(
  options: Pick<TableConfig, 'table' | 'columns' | 'mask'>,
  salt: string | null,
): Projection | null {
  const { columns, mask } = options;
  const masks = new Map(Object.entries(mask));
  if (columns === null && masks.size === 0) return null;
  if (salt === null && [...masks.values()].includes('hash')) {
    throw new SluiceError('CONFIG_INVALID', {
      problem: `tables: a column of ${options.table} is hashed, and there is no mask_salt`,
      remedy: `Add mask_salt: \${env:NAME} or { secret: NAME }.`,
    });
  }
  const included = columns?.include ? new Set(columns.include) : null;
  const excluded = new Set(columns?.exclude);
  return {
    salt: salt ?? '',
    treatmentOf: (name) => {
      if (excluded.has(name) || (included && !included.has(name))) return 'drop';
      return masks.get(name) ?? 'keep';
    },
  };
}

/**
 * The projection of one table: also without what is computed from a hidden column, unless the file says of it by name what is to be done. The expression is not
 * parsed: what looks like the name of a hidden column counts as one.
 */
export function projectionFor(
  projection: Projection,
  { columns, generated = [] }: Pick<SourceTable, 'columns' | 'generated'>,
): Projection {
  const hidden = new Set(
    [...columns, ...generated].map(({ name }) => name).filter((name) => projection.treatmentOf(name) !== 'keep'),
  );
  const telling = new Set(
    generated
      .filter((column) => tells(column, hidden) && projection.treatmentOf(column.name) === 'keep')
      .map(({ name }) => name),
  );
  if (telling.size === 0) return projection;
  return { ...projection, treatmentOf: (name) => (telling.has(name) ? 'drop' : projection.treatmentOf(name)) };
}

/** Identifiers, quoted or not; strings are taken apart as well, which hides more rather than less. */
const IDENTIFIERS = /"(?:[^"]|"")+"|[\p{L}_][\p{L}\p{N}_$]*/gu;

function identifiersIn(sql: string): ReadonlySet<string> {
  const found = sql.match(IDENTIFIERS) ?? [];
  return new Set(found.map((word) => (word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word)));
}

function tells({ expression }: GeneratedColumn, hidden: ReadonlySet<string>): boolean {
  const names = identifiersIn(expression);
  // The whole row may be named, by its table's name.
  return hidden.size > 0 && ([...names].some((name) => hidden.has(name)) || /\.\*/u.test(expression));
}

/**
 * The column as a stream has it that treats its values so. A hash and what is redacted are text. What is always NULL keeps its type where every server has
 * it; the labels of an enum are values too.
 */
export function projectedColumn<T extends Column>(column: T, treatment: Exclude<Treatment, 'drop'>): T {
  if (treatment === 'keep' || (treatment === 'null' && column.type_oid < OWN_TYPE_OID_END)) return column;
  const { type: _, ...rest } = column;
  return { ...rest, type_oid: TEXT_OID, type_modifier: -1 } as T;
}

/** Types of which equal values are written alike, so that their hashes are equal as well: pg_type.dat. */
const WRITTEN_ALIKE = new Map([
  [16, 'bool'],
  [17, 'bytea'],
  [18, '"char"'],
  [19, 'name'],
  [20, 'int8'],
  [21, 'int2'],
  [23, 'int4'],
  [25, 'text'],
  [26, 'oid'],
  [829, 'macaddr'],
  [774, 'macaddr8'],
  [1043, 'varchar'],
  [1082, 'date'],
  [1083, 'time'],
  [1114, 'timestamp'],
  [1184, 'timestamptz'],
  [2950, 'uuid'],
]);

/** What keeps a table from being replicated as the file would have it; CONFIG_INVALID. Null: nothing. */
export function projectionFault(
  table: Pick<SourceTable, 'schema' | 'table' | 'columns' | 'generated' | 'key'>,
  options: Pick<TableConfig, 'table' | 'columns' | 'mask'> & Partial<Pick<TableConfig, 'replication_key'>>,
): SluiceError | null {
  const projection = projectionFor(projectionOf(options, '') ?? KEEPS, table);
  const name = displayName(table);
  const wrong = (problem: string, remedy: string): SluiceError =>
    new SluiceError('CONFIG_INVALID', { problem: `tables: ${options.table}: ${problem}`, remedy });
  for (const key of table.key) {
    const treatment = projection.treatmentOf(key);
    if (treatment === 'keep') continue;
    if (treatment === 'drop') {
      return wrong(
        `column ${key} is of the key of ${name}, and columns leaves it out`,
        'Replicate it; `mask: { COLUMN: hash }` hides the values of a key.',
      );
    }
    if (treatment !== 'hash') {
      return wrong(
        `column ${key} is of the key of ${name}, and mask ${treatment} would make its rows one`,
        'Use hash for a column of the key.',
      );
    }
    const column = table.columns.find((candidate) => candidate.name === key);
    if (column && !WRITTEN_ALIKE.has(column.type_oid)) {
      return wrong(
        `column ${key} is of the key of ${name}, and has a type of which equal values may be written in several ways, so that their hashes would differ`,
        `Hash only key columns of the types ${[...WRITTEN_ALIKE.values()].join(', ')}.`,
      );
    }
  }
  const { replication_key = null } = options;
  if (replication_key !== null && projection.treatmentOf(replication_key) !== 'keep') {
    return wrong(
      `column ${replication_key} is its replication key, the last value of which lies in the ledger`,
      'Follow another column, or do not hide it.',
    );
  }
  // One that has none has nothing to lose.
  if (
    table.columns.length > 0 &&
    table.columns.every(({ name: column }) => projection.treatmentOf(column) === 'drop')
  ) {
    return wrong(`columns leaves nothing of ${name}`, 'Include at least one column.');
  }
  return null;
}

const KEEPS: Projection = { treatmentOf: () => 'keep', salt: '' };

/** Columns that the file names and the table does not have. They may have been dropped; or it is a typing error, and something is not hidden. */
export function unknownColumns(
  { columns, generated = [] }: Pick<SourceTable, 'columns' | 'generated'>,
  options: Pick<TableConfig, 'columns' | 'mask'>,
): string[] {
  const known = new Set([...columns, ...generated].map(({ name }) => name));
  const named = [
    ...(options.columns?.include ?? []),
    ...(options.columns?.exclude ?? []),
    ...Object.keys(options.mask),
  ];
  return [...new Set(named)].filter((name) => !known.has(name));
}
