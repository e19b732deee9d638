/**
 * What a segment's shape asks of the target's table: nothing, some steps of DDL, or that the table be copied anew. Pure.
 *
 * Columns are known by their numbers (column-numbers.ts); from these follow renames, new columns, dropped ones and changes of type. A step is taken only
 * where it leaves every row as the source has it; where the log does not hold what rows have become, TABLE_REWRITTEN is thrown, and nothing of the
 * segment is applied. While a stream catches up a segment may be older than the table: its columns are found by number, and the table only grows.
 */
import { SluiceError } from '../errors.ts';
import { withoutLsnColumn } from '../lsn-column.ts';
import { type Column, type DescribedColumn, type Shape, sameType, type TableDescription } from '../shape.ts';
import { greatestOf, numberColumns } from './column-numbers.ts';
import { columnAt, METADATA_COLUMNS, withoutNumber } from './columns.ts';
import { flattenedNames } from './flatten.ts';
import { freeName, renameSteps } from './names.ts';

export type Step =
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'drop'; readonly name: string }
  | { readonly kind: 'retype'; readonly before: Column; readonly column: Column }
  /** `missing`: what rows that are there have in it, as text. */
  | { readonly kind: 'add'; readonly column: Column; readonly missing: string | null };

export interface Reshaping {
  /** For errors. */
  readonly stream: string;
  readonly table: Shape;
  readonly segment: Shape;
  readonly described: TableDescription | undefined;
  readonly catching_up: boolean;
  readonly on_type_change: 'widen' | 'halt';
  readonly on_drop_column: 'keep' | 'drop';
  /** Names the columns that make way. */
  readonly now_ms: number;
}

export interface Reshaped {
  /** In this order. */
  readonly steps: readonly Step[];
  readonly shape: Shape;
  /** The shape is another one, also where there is nothing to be done for it: a column that is kept is no longer the source's. */
  readonly is_changed: boolean;
  /** What the segment's columns are called on the target; null: the column is gone, and its values are of no use. */
  readonly names: readonly (string | null)[];
}

/** Throws TABLE_REWRITTEN, and SHAPE_CHANGED where a change of type shall halt. */
export function reshape(asked: Reshaping): Reshaped {
  const { stream, segment, described, catching_up } = asked;
  const table = numbered(asked.table, segment);
  const rewritten = (what: string): SluiceError => new SluiceError('TABLE_REWRITTEN', { stream, what });
  const numbers = numberColumns({ previous: table, segment, described, may_be_older: catching_up });
  if (numbers === null) throw rewritten('some columns look the same and may be others by now.');

  const columns = segment.columns.map((column, i) => ({ ...column, number: numbers[i] as number }));
  assertSameKey(table, { columns, key: segment.key }, rewritten);
  const known = new Map(
    table.columns.flatMap((column) => (column.number === undefined ? [] : [[column.number, column]])),
  );
  const retyped = columns.flatMap((column) => {
    const before = known.get(column.number);
    return before === undefined || sameType(before, column) ? [] : [{ before, column }];
  });
  assertFollowable(asked, retyped, rewritten);
  const files = filesOf(table, described);
  if (files === 'rewritten') throw rewritten('its rows were written anew by a change of its definition.');

  assertComputedAlike(table, described, retyped, rewritten);
  const after = new Map((described?.columns ?? []).map((column) => [column.number, column]));
  const greatest = greatestOf(table);
  const computed = new Map((table.generated ?? []).map((column) => [column.number, column]));
  const added = columns.filter(({ number }) => {
    // Computed on both sides, and in the log all the same (publish_generated_columns).
    if (known.has(number) || (computed.has(number) && after.get(number)?.generated !== '')) return false;
    return !catching_up || (number > greatest && after.get(number)?.dropped === false);
  });
  for (const column of added) assertKnownBefore(column, after.get(column.number), table, files, rewritten);

  const dropped = catching_up ? [] : gone(known, numbers, after);
  const renamed = catching_up
    ? []
    : columns.flatMap((column) => {
        const from = known.get(column.number)?.name;
        return from === undefined || from === column.name ? [] : [{ from, to: column.name }];
      });
  return plan(asked, table, { columns, added, dropped, renamed, retyped });
}

interface Found {
  readonly columns: readonly (Column & { readonly number: number })[];
  readonly added: readonly (Column & { readonly number: number })[];
  readonly dropped: readonly Column[];
  readonly renamed: readonly { readonly from: string; readonly to: string }[];
  readonly retyped: readonly Retyped[];
}

interface Retyped {
  readonly before: Column;
  readonly column: Column;
}

/** Steps in an order in which no name is taken twice, and the table that they make. */
function plan(asked: Reshaping, table: Shape, { columns, added, dropped, renamed, retyped }: Found): Reshaped {
  const { on_drop_column, described, segment, catching_up, now_ms } = asked;
  const steps: Step[] = [];
  const droppedNumbers = new Set(dropped.map(({ number }) => number));
  const segmentColumns = new Map(columns.map((column) => [column.number, column]));
  let rest = table.columns.filter(({ number }) => number === undefined || !droppedNumbers.has(number));
  if (on_drop_column === 'drop') steps.push(...dropped.map(({ name }) => ({ kind: 'drop' as const, name })));
  else rest = table.columns.map((column) => (droppedNumbers.has(column.number) ? withoutNumber(column) : column));

  // Whatever stands in the way of a name that is needed is kept under another.
  const needed = new Set([...renamed.map(({ to }) => to), ...added.map(({ name }) => name)]);
  const taken = new Set<string>([
    ...rest.map(({ name }) => name),
    ...needed,
    ...flattenedNames(table),
    ...METADATA_COLUMNS,
  ]);
  const leaves = new Set(renamed.map(({ from }) => from));
  const away = new Map<string, string>();
  for (const { name, number } of rest) {
    if (!needed.has(name) || (number !== undefined && leaves.has(name))) continue;
    const to = freeName(name, now_ms, taken);
    taken.add(to);
    away.set(name, to);
  }
  steps.push(...[...away].map(([from, to]) => ({ kind: 'rename' as const, from, to })));
  steps.push(...renameSteps(renamed, taken).map((rename) => ({ kind: 'rename' as const, ...rename })));
  steps.push(...retyped.map((change) => ({ kind: 'retype' as const, ...change })));
  const missing = new Map((described?.columns ?? []).map((column) => [column.number, column.missing]));
  steps.push(...added.map((column) => ({ kind: 'add' as const, column, missing: missing.get(column.number) ?? null })));

  const after = rest.map((column) => {
    if (column.number === undefined || (away.has(column.name) && !leaves.has(column.name)))
      return { ...column, name: away.get(column.name) ?? column.name };
    const now = segmentColumns.get(column.number);
    return now === undefined || catching_up ? column : now;
  });
  const all = [...after, ...added];
  const shape = {
    ...table,
    columns: all,
    key: keyOf(all, columns, segment.key),
    greatest: Math.max(greatestOf(table), ...columns.map(({ number }) => number)),
  };
  const names = new Map(all.flatMap(({ number, name }) => (number === undefined ? [] : [[number, name]])));
  return {
    steps,
    shape,
    is_changed: steps.length + dropped.length > 0,
    names: columns.map(({ number }) => names.get(number) ?? null),
  };
}

function keyOf(all: readonly Column[], columns: Found['columns'], key: readonly number[]): number[] {
  const numbers = new Set(key.map((index) => columns[index]?.number));
  return all.flatMap(({ number }, i) => (number !== undefined && numbers.has(number) ? [i] : []));
}

/** A table that was made from shapes without numbers has them by place. */
function numbered(table: Shape, segment: Shape): Shape {
  if (table.columns.length === 0 || table.columns.some(({ number }) => number !== undefined)) return table;
  if (segment.columns.some(({ number }) => number !== undefined)) {
    const columns = table.columns.map((column) => {
      const same = segment.columns.find(({ name }) => name === column.name);
      return same?.number === undefined ? column : { ...column, number: same.number };
    });
    return { ...table, columns };
  }
  return { ...table, columns: table.columns.map((column, i) => ({ ...column, number: i + 1 })) };
}

type Rewritten = (what: string) => SluiceError;

/** Whoever has another key has other rows: what one segment calls a row is not what the table does. */
function assertSameKey(table: Shape, segment: Shape, rewritten: Rewritten): void {
  const numbersOf = (shape: Shape): (number | undefined)[] => shape.key.map((index) => columnAt(shape, index).number);
  const before = new Set(numbersOf(table));
  const now = numbersOf(segment);
  if (now.length === before.size && now.every((number) => before.has(number))) return;
  const names = (shape: Shape): string => shape.key.map((index) => columnAt(shape, index).name).join(', ') || 'none';
  throw rewritten(`its key was (${names(table)}) and is (${names(segment)}).`);
}

function assertFollowable(
  { stream, table, described, catching_up, on_type_change }: Reshaping,
  retyped: readonly Retyped[],
  rewritten: Rewritten,
): void {
  const [first] = retyped;
  if (first === undefined) return;
  const { column } = first;
  if (on_type_change === 'halt') {
    throw new SluiceError('SHAPE_CHANGED', {
      stream,
      change: `the type of column ${column.name} has changed (target.on_type_change is halt)`,
    });
  }
  const sameFile = described !== undefined && table.filenode !== undefined && described.filenode === table.filenode;
  if (catching_up || !sameFile) throw rewritten(`the type of column ${column.name} has changed.`);
}

/** What the source computes is made from its definition, which the log does not tell. */
function assertComputedAlike(
  table: Shape,
  described: TableDescription | undefined,
  retyped: readonly Retyped[],
  rewritten: Rewritten,
): void {
  const computed = table.generated ?? [];
  if (retyped.length > 0 && computed.length > 0)
    throw rewritten('a type has changed beside columns that are computed.');
  if (!described || table.definition === undefined || described.definition === table.definition) return;
  const greatest = Math.max(greatestOf(table), ...computed.map(({ number }) => number ?? 0));
  const added = described.columns.find(
    ({ number, generated, dropped }) => number > greatest && generated !== '' && !dropped,
  );
  if (added) throw rewritten(`column ${added.name} was added, which is computed.`);
  const names = new Map(described.columns.map((column) => [column.number, column]));
  const changed = computed.find(({ number, name }) => {
    const now = number === undefined ? undefined : names.get(number);
    return now !== undefined && (now.dropped || now.name !== name);
  });
  if (changed) throw rewritten(`column ${changed.name}, which is computed, was dropped or renamed.`);
}

/**
 * - same:      no row was written anew since the table was copied
 * - other:     they were, by whatever moves rows (VACUUM FULL, CLUSTER, TRUNCATE), or it is not known
 * - rewritten: they were, and a column's definition has changed as well
 */
type Files = 'same' | 'other' | 'rewritten';

function filesOf(table: Shape, described: TableDescription | undefined): Files {
  if (!described || table.filenode === undefined) return 'other';
  if (table.filenode === described.filenode) return 'same';
  if (table.definition === undefined || described.definition === undefined) return 'other';
  return table.definition === described.definition ? 'other' : 'rewritten';
}

function assertKnownBefore(
  column: Column,
  described: DescribedColumn | undefined,
  table: Shape,
  files: Files,
  rewritten: Rewritten,
): void {
  const wasGenerated = table.generated?.some(({ number }) => number === column.number) ?? false;
  if (wasGenerated) throw rewritten(`column ${column.name} was computed by the source, and no longer is.`);
  const isKnown = described !== undefined && (described.missing !== null || files === 'same');
  if (!isKnown) throw rewritten(`column ${column.name} was added, and what older rows have in it is not known.`);
}

/** Numbers that the table has and the source no longer has. One that the source has and the log leaves out stays as it is. */
function gone(
  known: ReadonlyMap<number, Column>,
  numbers: readonly number[],
  after: ReadonlyMap<number, DescribedColumn>,
): Column[] {
  const now = new Set(numbers);
  return [...known.values()].filter(({ number }) => {
    if (number === undefined || now.has(number)) return false;
    return after.get(number)?.dropped ?? false;
  });
}

/** Whether two shapes read from the catalog are of the same table: columns by number, name and type, and the key. */
export function sameShape(table: Shape, chunk: Shape): boolean {
  const [before, now] = [withoutLsnColumn(table), withoutLsnColumn(chunk)];
  const source = numbered(before, now).columns.filter(({ number }) => number !== undefined);
  const columns = numbered(now, before).columns;
  if (source.length !== columns.length) return false;
  const byNumber = new Map(source.map((column) => [column.number, column]));
  const same = columns.every((column) => {
    const known = byNumber.get(column.number);
    return known !== undefined && known.name === column.name && sameType(known, column);
  });
  const keyNames = (shape: Shape): string =>
    JSON.stringify(shape.key.map((index) => columnAt(shape, index).name).sort());
  return same && keyNames(table) === keyNames(chunk);
}
