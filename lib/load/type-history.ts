/**
 * What a change of a type has made of values that are in the log or in the table already. Pure.
 *
 * On the path beside reshape.ts: the log says neither that a type was changed nor when. A value of a composite type is written by the places of its
 * attributes, so one from before an attribute was dropped means something else now; and a value that the type no longer takes was written before its
 * label was renamed, or its attributes were others. Then the table is read again (TABLE_REWRITTEN).
 */
import { isDeepStrictEqual } from 'node:util';
import { definitionsIn, type Shape, type SourceType, type TypeUse } from '../shape.ts';
import { gapsBetween, type RenamedLabel, typeText } from './type-steps.ts';

/** An attribute that the table's columns had and the segment's have no longer, as text; null: there is none. */
export function lostAttribute(table: Shape, segment: Shape): string | null {
  const before = definedIn(table.columns, 'composite');
  for (const [name, now] of definedIn(segment.columns, 'composite')) {
    const old = before.get(name);
    if (old === undefined || isRenamed(old, now)) continue;
    const attributes = new Set(now.attributes.map((attribute) => attribute.name));
    const lost = old.attributes.find((attribute) => !attributes.has(attribute.name));
    if (lost) return `attribute ${lost.name} of type ${name}`;
  }
  return null;
}

/** The same types in the same places, whatever they are called: no value has changed. What is added stands behind them. */
function isRenamed(old: Composite, now: Composite): boolean {
  const [before, after] = [old, now].map(({ attributes }) => new Set(attributes.map(({ name }) => name)));
  return old.attributes.every((attribute, i) => {
    const other = now.attributes[i];
    if (other === undefined || other.type_oid !== attribute.type_oid) return false;
    return other.name === attribute.name || !(before?.has(other.name) || after?.has(attribute.name));
  });
}

/**
 * Labels that the table's columns had under another name. A label keeps its place and none is ever dropped: as many labels between two that are there
 * still are the same ones. Where others were added in the same place it cannot be told, and nothing is said.
 */
export function renamedLabels(table: Shape, segment: Shape): RenamedLabel[] {
  const before = definedIn(table.columns, 'enum');
  return [...definedIn(segment.columns, 'enum')].flatMap(([name, now]) => {
    const old = before.get(name);
    const gaps = old === undefined ? null : gapsBetween(old.labels, now.labels);
    return (gaps ?? [])
      .filter(({ has, wanted }) => has.length === wanted.length)
      .flatMap(({ has, wanted }) => has.map((from, i) => ({ type: now, from, to: wanted[i] ?? from })));
  });
}

/** Whether a type of some column is defined otherwise than before. In what order its fields come says nothing: jsonb, which keeps shapes, has one of its own. */
export function typesDiffer(table: Shape, changed: Shape): boolean {
  const definitions = ({ columns }: Shape): unknown => columns.map(({ type }) => type ?? null);
  return !isDeepStrictEqual(definitions(table), definitions(changed));
}

type Of<K extends SourceType['kind']> = Extract<SourceType, { readonly kind: K }>;
type Composite = Of<'composite'>;

/** Types of one kind in `uses`, by name. */
function definedIn<K extends 'enum' | 'composite'>(uses: readonly TypeUse[], kind: K): ReadonlyMap<string, Of<K>> {
  const found = new Map<string, Of<K>>();
  for (const type of definitionsIn(uses)) if (type.kind === kind) found.set(typeText(type), type as Of<K>);
  return found;
}
