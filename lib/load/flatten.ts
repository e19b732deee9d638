/**
 * Columns that stand for keys of json columns (target.data_flattening_max_level): which there are to be, of which type, and what they are called. Pure.
 *
 * The json column itself stays as it is, exact (I6, I7); what stands beside it follows from it, row by row, and nothing of it is staged. The table's shape
 * remembers what each column stands for (`flattened`), so that a name, once given, stays. A type only grows: whatever a key had before can be shown as text.
 */
import { createHash } from 'node:crypto';
import type { Column, Flattened, FlattenedColumn, FlattenedKind, Shape, TypeUse } from '../shape.ts';
import { fittingName, IDENTIFIER_BYTES_MAX } from '../sql-text.ts';
import { METADATA_COLUMNS } from './columns.ts';
import { generatedNames } from './generated.ts';

/** Keys of one table that get columns; fewer where the table has many columns of its own (flatten-table.ts). */
export const FLATTENED_COLUMNS_MAX = 250;
const DIGEST_DIGITS = 8;
const SEPARATOR = '__';

export const NONE: Flattened = { level: 0, columns: [], is_full: false };

/** OIDs of pg_type.dat. */
const JSON_OID = 114;
const JSONB_OID = 3802;
const KIND_OIDS: Readonly<Record<FlattenedKind, number>> = { text: 25, numeric: 1700, boolean: 16, jsonb: JSONB_OID };

/** What was seen at a key; `object`: at the last level, deeper keys have no columns. */
export type SeenKind = 'string' | 'number' | 'boolean' | 'array' | 'object';

/** A key that has been found in rows. */
export interface FoundKey {
  /** Name of the json column. */
  readonly of: string;
  readonly path: readonly string[];
  readonly kinds: readonly SeenKind[];
}

export interface JsonColumn {
  readonly name: string;
  readonly type: 'json' | 'jsonb';
}

/** The columns of the table that hold json, and which it does not compute itself. */
export function jsonColumnsOf(shape: Shape): JsonColumn[] {
  const computed = generatedNames(shape);
  // Beside columns with numbers, one without is kept since the source dropped it.
  const isNumbered = shape.columns.some(({ number }) => number !== undefined);
  return shape.columns.flatMap((column) => {
    const isKept = isNumbered && column.number === undefined;
    const type = isKept || computed.has(column.name) ? null : jsonType(column);
    return type === null ? [] : [{ name: column.name, type }];
  });
}

function jsonType({ type_oid, type }: TypeUse): JsonColumn['type'] | null {
  if (type?.kind === 'domain') return jsonType(type.base);
  if (type !== undefined) return null;
  if (type_oid === JSON_OID) return 'json';
  return type_oid === JSONB_OID ? 'jsonb' : null;
}

export function flattenedNames({ flattened }: Shape): string[] {
  return (flattened?.columns ?? []).map(({ name }) => name);
}

/** Tells any two keys apart. */
export function keyId({ of, path }: Pick<FlattenedColumn, 'of' | 'path'>): string {
  return JSON.stringify([of, path]);
}

export interface Grown {
  readonly flattened: Flattened;
  readonly added: readonly FlattenedColumn[];
  /** Their type is to become text. */
  readonly retyped: readonly FlattenedColumn[];
}

/**
 * What is to become of the columns when `found` is in the rows, in the order in which keys are to get columns. `taken`: names that the table has, or is to have. `room`:
 * columns that it can still take.
 */
export function grown(
  before: Flattened,
  found: readonly FoundKey[],
  { taken, room }: { readonly taken: ReadonlySet<string>; readonly room: number },
): Grown {
  const known = new Map(before.columns.map((column) => [keyId(column), column]));
  const parents = new Set<string>();
  for (const { of, path } of [...before.columns, ...found])
    for (let depth = 1; depth < path.length; depth++) parents.add(keyId({ of, path: path.slice(0, depth) }));
  const names = new Set([...taken, ...before.columns.map(({ name }) => name), ...METADATA_COLUMNS]);
  const added: FlattenedColumn[] = [];
  const retyped: FlattenedColumn[] = [];
  let is_full = before.is_full;
  for (const { of, path, kinds: all } of found) {
    const key = keyId({ of, path });
    // Where the option was set lower since, keys below have columns, and the object needs none.
    const kinds = parents.has(key) ? all.filter((kind) => kind !== 'object') : all;
    const seen = mergedKind(kinds);
    if (seen === null) continue;
    const objects = kinds.includes('object');
    const old = known.get(key);
    if (old !== undefined) {
      const kind = old.kind === seen ? seen : 'text';
      known.set(key, { ...old, kind, objects: old.objects || objects });
      if (kind !== old.kind) retyped.push({ ...old, kind });
      continue;
    }
    if (known.size >= FLATTENED_COLUMNS_MAX || added.length >= room) {
      is_full = true;
      continue;
    }
    const name = nameOf(of, path, names);
    names.add(name);
    const column = { name, of, path, kind: seen, objects };
    added.push(column);
    known.set(key, column);
  }
  return { flattened: { ...before, columns: [...known.values()], is_full }, added, retyped };
}

function mergedKind(seen: readonly SeenKind[]): FlattenedKind | null {
  const kinds = new Set(seen.map(kindOf));
  const [kind] = kinds;
  return kinds.size > 1 ? 'text' : (kind ?? null);
}

function kindOf(seen: SeenKind): FlattenedKind {
  switch (seen) {
    case 'string':
      return 'text';
    case 'number':
      return 'numeric';
    case 'boolean':
      return 'boolean';
    case 'array':
    case 'object':
      return 'jsonb';
    default:
      return seen satisfies never;
  }
}

/** `given`, where it is free; `column__key__child`; where that is too long or taken, with a digest of the key, which is the same wherever it is made. */
export function nameOf(of: string, path: readonly string[], taken: ReadonlySet<string>, given?: string): string {
  if (given !== undefined && !taken.has(given)) return given;
  const plain = [of, ...path].join(SEPARATOR);
  if (Buffer.byteLength(plain) <= IDENTIFIER_BYTES_MAX && !taken.has(plain)) return plain;
  for (let n = 1; ; n++) {
    const digest = createHash('sha256')
      .update(JSON.stringify([of, path, n]))
      .digest('hex')
      .slice(0, DIGEST_DIGITS);
    const name = fittingName(plain, `_${digest}`);
    if (!taken.has(name)) return name;
  }
}

/** As an ordinary column that the source does not have: what becomes of it when its json column is kept after the source has dropped it. */
export function asKept({ name, kind }: FlattenedColumn): Column {
  return { name, type_oid: KIND_OIDS[kind], type_modifier: -1 };
}

/**
 * The columns of `before` that a copy into a table of shape `now` is to have again, whatever its rows hold: whoever reads them need not do without. Those of what is no
 * longer a json column go, and those below the level.
 */
export function knownAgain(before: Shape, now: Shape, level: number): FlattenedColumn[] {
  const json = new Set(jsonColumnsOf(now).map(({ name }) => name));
  // By name first: a view that was made anew has other numbers.
  const nowOf = (name: string): string | undefined =>
    json.has(name) ? name : [...json].find((other) => identityOf(now, other) === identityOf(before, name));
  return (before.flattened?.columns ?? []).flatMap((column) => {
    const of = nowOf(column.of);
    if (of === undefined || column.path.length > level) return [];
    return of === column.of ? [column] : [{ ...column, of, name: nameOf(of, column.path, new Set()) }];
  });
}

/** `before`, with what stands beside a json column that `now` no longer has as ordinary columns, which are kept where that is asked for; what is hidden is not. */
export function withKept(before: Shape, now: Shape): Shape {
  const { flattened } = before;
  if (flattened === undefined) return before;
  const there = new Set<number | string>([
    ...now.columns.map(({ number, name }) => number ?? name),
    ...(now.hidden ?? []),
  ]);
  const names = new Set(now.columns.map(({ name }) => name));
  const kept = flattened.columns.filter(({ of }) => !names.has(of) && !there.has(identityOf(before, of)));
  if (kept.length === 0) return before;
  return { ...before, columns: [...before.columns, ...kept.map(asKept)] };
}

/** What a column is known by: its number; in a shape without numbers, its name. */
function identityOf({ columns }: Shape, name: string): number | string {
  return columns.find((column) => column.name === name)?.number ?? name;
}
