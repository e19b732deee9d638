/**
 * What a copy would lose of the table that it replaces: columns that the source has dropped and the target keeps, and old values of columns whose new
 * type cannot hold them. They are carried into the shadow by key, before it takes the table's place.
 *
 * On the path just before the swap (swap.ts), in its transaction. Rows are found by the key's columns, which are known by their numbers; a table without a
 * key, or with another one, has no such way, and its kept columns go with it.
 */
import { isLsnColumn } from '../lsn-column.ts';
import { type Column, displayName, type Shape, sameType, type TableName } from '../shape.ts';
import { quoteIdentifier, quoteTable } from '../sql-text.ts';
import { columnAt, METADATA_COLUMNS, withoutNumber } from './columns.ts';
import { flattenedNames } from './flatten.ts';
import { generatedNames } from './generated.ts';
import { freeName } from './names.ts';
import type { Session } from './session.ts';
import { typesThere } from './types-there.ts';
import { isWidening } from './widening.ts';

const id = quoteIdentifier;

export interface Keeping {
  readonly on_type_change: 'widen' | 'halt';
  readonly on_drop_column: 'keep' | 'drop';
  readonly now_ms: number;
  /** Rows that the copy does not have are kept, as gone since its beginning, ms since the Unix epoch (carry-rows.ts); null: they go. */
  readonly gone_at_ms: number | null;
}

/** A column of the old table, and what it is called in the new one. */
export interface Carried {
  readonly column: Column;
  readonly as: string;
}

/** What of `table` is to be carried into a table of shape `plan`. Pure. */
export function carried(table: Shape, plan: Shape, { on_type_change, on_drop_column, now_ms }: Keeping): Carried[] {
  const now = new Map(plan.columns.map((column) => [column.number, column]));
  const taken = new Set<string>([
    ...plan.columns.map(({ name }) => name),
    ...(plan.generated ?? []).map(({ name }) => name),
    ...flattenedNames(plan),
    ...METADATA_COLUMNS,
  ]);
  const key = new Set(table.key);
  // Values that must not be seen any more; those that stand for them are in the copy.
  const hidden = new Set<number | undefined>(plan.hidden);
  const found: Carried[] = [];
  for (const [i, column] of table.columns.entries()) {
    const same = column.number === undefined ? undefined : now.get(column.number);
    if (column.number !== undefined && (hidden.has(column.number) || isLsnColumn(column))) continue;
    const isGone = same === undefined && (column.number === undefined || on_drop_column === 'keep');
    const isLost = same !== undefined && on_type_change === 'widen' && !key.has(i) && !isWidening(column, same);
    if (!isGone && !isLost) continue;
    const as = isLost || taken.has(column.name) ? freeName(column.name, now_ms, taken) : column.name;
    taken.add(as);
    found.push({ column, as });
  }
  return found;
}

/** The same key by number, in both tables; null where it is another. `bySight`: types differ, and their texts are compared. Pure. */
export function keyPairs(
  table: Shape,
  plan: Shape,
): { readonly old: string; readonly now: string; readonly bySight: boolean }[] | null {
  const before = new Map(table.key.map((index) => [columnAt(table, index).number, columnAt(table, index)]));
  if (plan.key.length === 0 || plan.key.length !== before.size || before.has(undefined)) return null;
  const pairs = plan.key.map((index) => {
    const column = columnAt(plan, index);
    const old = before.get(column.number);
    return old && { old: old.name, now: column.name, bySight: !sameType(old, column) || column.type !== undefined };
  });
  return pairs.every((pair) => pair !== undefined) ? pairs : null;
}

/** Resolves with the shape of the shadow by then. */
export async function carryOver(
  session: Session,
  from: { readonly name: TableName; readonly shape: Shape },
  shadow: { readonly name: TableName; readonly shape: Shape },
  keeping: Keeping,
): Promise<Shape> {
  const wanted = carried(from.shape, shadow.shape, keeping);
  const key = keyPairs(from.shape, shadow.shape);
  if (wanted.length === 0 || key === null) return shadow.shape;
  const types = await typesThere(session, from.name);
  const computed = generatedNames(from.shape);
  const columns = wanted.filter(({ column: { name } }) => types.has(name) && !computed.has(name));
  if (columns.length === 0) return shadow.shape;
  const into = quoteTable(shadow.name);
  const added = columns.map(({ column, as }) => `ADD COLUMN ${id(as)} ${types.get(column.name)}`);
  const set = columns.map(({ column, as }) => `${id(as)} = o.${id(column.name)}`);
  const same = key.map(({ old, now, bySight }) =>
    bySight ? `o.${id(old)}::text = s.${id(now)}::text` : `o.${id(old)} = s.${id(now)}`,
  );
  await session.run(
    `ALTER TABLE ${into} ${added.join(', ')}; UPDATE ${into} AS s SET ${set.join(', ')} FROM ${quoteTable(from.name)} AS o WHERE ${same.join(' AND ')}`,
    { action: `keep columns of ${displayName(from.name)}` },
  );
  const kept = columns.map(({ column, as }) => withoutNumber({ ...column, name: as }));
  return { ...shadow.shape, columns: [...shadow.shape.columns, ...kept] };
}
