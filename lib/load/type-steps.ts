/**
 * What makes a type of the target the same as the source's: statements, or why there are none. Pure.
 *
 * On the path it is asked by types.ts, before a segment or a chunk is loaded whose columns use the type. Beside changes a type only ever grows: their
 * definition may be older than the target's, and then nothing is taken away that a newer one has brought. What does not fit is copied anew.
 */
import { SluiceError } from '../errors.ts';
import type { SourceType, TypeName } from '../shape.ts';
import { quoteIdentifier, quoteLiteral } from '../sql-text.ts';

/** Types that are made on the target. */
export type MadeType = Extract<SourceType, { readonly kind: 'enum' | 'domain' | 'composite' }>;

/** A type of the target as its catalog has it. */
export interface FoundType {
  readonly oid: string;
  /** pg_type.typtype. */
  readonly kind: string;
  /** OID of the array of it; '0': it has none. */
  readonly array: string;
  readonly labels: readonly string[] | null;
  /** Name and type of each attribute; null for the row of a table, and for what is no composite. */
  readonly attributes: readonly (readonly [name: string, type: string])[] | null;
  /** Of a domain, as format_type writes it. */
  readonly base: string | null;
}

/** Statements: `together` in one transaction; then `alone`, each in one of its own. */
export interface TypeSteps {
  readonly together: readonly string[];
  readonly alone: readonly string[];
}

/** What is known beside the two definitions. */
export interface Moment {
  /** `copy`: the source has just been asked, and all rows come anew. `change`: the definition may be older than the target's. */
  readonly at: 'copy' | 'change';
  readonly renamed: readonly RenamedLabel[];
}

/** A label of an enum that was renamed on the source. */
export interface RenamedLabel {
  readonly type: TypeName;
  readonly from: string;
  readonly to: string;
}

const NOTHING: TypeSteps = { together: [], alone: [] };
const LETTERS = { enum: 'e', domain: 'd', composite: 'c' } as const;

const id = quoteIdentifier;

export function typeSql({ schema, name }: TypeName): string {
  return `${id(schema)}.${id(name)}`;
}

export function typeText({ schema, name }: TypeName): string {
  return `${schema}.${name}`;
}

export function isMade(type: SourceType): type is MadeType {
  return type.kind in LETTERS;
}

/**
 * Steps from `found` (null: there is none) to `type`. `parts`: the target's names of the types it is made of, of its base or of its attributes in
 * order. Throws TYPE_TAKEN where another type has the name; and where it cannot be told what has become of a label or attribute, TABLE_REWRITTEN beside
 * changes, so that the source is asked, and TYPE_UNFOLLOWED when it has been.
 */
export function stepsTo(
  stream: string,
  type: MadeType,
  parts: readonly string[],
  found: FoundType | null,
  moment: Moment,
): TypeSteps {
  if (found === null) return { together: [createSql(type, parts)], alone: [] };
  const { kind } = type;
  if (found.kind !== LETTERS[kind] || (kind === 'composite' && found.attributes === null)) {
    throw taken(stream, type, `there is something else of this name, which is no ${kind} type`);
  }
  switch (kind) {
    case 'enum':
      return enumSteps(stream, type, found.labels ?? [], moment);
    case 'domain':
      if (found.base === parts[0]) return NOTHING;
      throw taken(stream, type, `there is a domain of this name over ${found.base}, not over ${parts[0]}`);
    case 'composite':
      return compositeSteps(stream, type, parts, found.attributes ?? [], moment);
    default:
      return kind satisfies never;
  }
}

function createSql(type: MadeType, parts: readonly string[]): string {
  switch (type.kind) {
    case 'enum':
      return `CREATE TYPE ${typeSql(type)} AS ENUM (${type.labels.map(quoteLiteral).join(', ')})`;
    case 'domain':
      return `CREATE DOMAIN ${typeSql(type)} AS ${partAt(parts, 0)}`;
    case 'composite': {
      const attributes = type.attributes.map(({ name }, i) => `${id(name)} ${partAt(parts, i)}`);
      return `CREATE TYPE ${typeSql(type)} AS (${attributes.join(', ')})`;
    }
    default:
      return type satisfies never;
  }
}

function partAt(parts: readonly string[], index: number): string {
  const part = parts[index];
  if (part === undefined) throw new RangeError(`part ${index} of ${parts.length}`);
  return part;
}

/** A label is never taken away on the source: one that only the target has is newer than the definition, or was renamed since. */
function enumSteps(
  stream: string,
  type: Extract<MadeType, { kind: 'enum' }>,
  labels: readonly string[],
  moment: Moment,
): TypeSteps {
  const wanted = type.labels;
  const renames = moment.renamed.filter(
    (label) => typeText(label.type) === typeText(type) && labels.includes(label.from) && !labels.includes(label.to),
  );
  const newNames = new Map(renames.map(({ from, to }) => [from, to]));
  const has = labels.map((label) => newNames.get(label) ?? label);
  const gaps = gapsBetween(has, wanted);
  if (gaps === null) throw taken(stream, type, 'there is an enum of this name with the same labels in another order');
  if (has.length > 0 && wanted.length > 0 && !wanted.some((label) => has.includes(label))) {
    throw taken(stream, type, 'there is an enum of this name without any of its labels');
  }
  const doubtful = gaps.find(({ has: old, wanted: now }) => old.length > 0 && now.length > 0);
  if (doubtful) {
    const [from, to] = [doubtful.has[0] ?? '', doubtful.wanted[0] ?? ''];
    const change = `label ${to} stands where the target has ${from}: renamed, or added`;
    const alter = `ALTER TYPE ${typeSql(type)}`;
    throw unfollowed(stream, type, moment, change, [
      `${alter} RENAME VALUE ${quoteLiteral(from)} TO ${quoteLiteral(to)}`,
      `${alter} ADD VALUE ${quoteLiteral(to)} AFTER ${quoteLiteral(from)}`,
    ]);
  }
  const alone: string[] = [];
  for (const [index, label] of wanted.entries()) {
    if (has.includes(label)) continue;
    const before = wanted[index - 1];
    const place =
      before !== undefined
        ? ` AFTER ${quoteLiteral(before)}`
        : has[0] !== undefined
          ? ` BEFORE ${quoteLiteral(has[0])}`
          : '';
    alone.push(`ALTER TYPE ${typeSql(type)} ADD VALUE IF NOT EXISTS ${quoteLiteral(label)}${place}`);
  }
  const together = renames.map(
    ({ from, to }) => `ALTER TYPE ${typeSql(type)} RENAME VALUE ${quoteLiteral(from)} TO ${quoteLiteral(to)}`,
  );
  return { together, alone };
}

/**
 * An attribute is only ever added behind the others. So what takes the place of another before one that is there still is the same under another
 * name; at the end that cannot be told from one that was dropped and one that was added.
 */
function compositeSteps(
  stream: string,
  type: Extract<MadeType, { kind: 'composite' }>,
  parts: readonly string[],
  found: NonNullable<FoundType['attributes']>,
  moment: Moment,
): TypeSteps {
  const wanted = new Map(type.attributes.map(({ name }, i) => [name, partAt(parts, i)]));
  const has = new Map(found);
  for (const [name, part] of wanted) {
    const old = has.get(name);
    if (old !== undefined && old !== part)
      throw taken(stream, type, `attribute ${name} is of type ${old}, not ${part}`);
  }
  const gaps = gapsBetween([...has.keys()], [...wanted.keys()]);
  if (gaps === null) throw taken(stream, type, 'its attributes are in another order');
  const renames: string[] = [];
  const drops: string[] = [];
  const adds: string[] = [];
  for (const gap of gaps) {
    const add = (name: string): string => `ADD ATTRIBUTE ${id(name)} ${wanted.get(name)}`;
    const drop = (name: string): string => `DROP ATTRIBUTE ${id(name)}`;
    const rename = (from: string, to: string): string => `RENAME ATTRIBUTE ${id(from)} TO ${id(to)}`;
    const alike =
      gap.has.length === gap.wanted.length &&
      gap.has.every((name, i) => has.get(name) === wanted.get(gap.wanted[i] ?? ''));
    const renamed = alike && !gap.last;
    const others = gap.last && !gap.wanted.some((name) => gap.has.some((old) => has.get(old) === wanted.get(name)));
    if (gap.wanted.length === 0) drops.push(...gap.has.map(drop));
    else if (gap.has.length > 0 && others) {
      drops.push(...gap.has.map(drop));
      adds.push(...gap.wanted.map(add));
    } else if (gap.has.length === 0 && gap.last) adds.push(...gap.wanted.map(add));
    else if (renamed) renames.push(...gap.has.map((name, i) => rename(name, gap.wanted[i] ?? '')));
    else {
      const [from, to] = [gap.has[0], gap.wanted[0] ?? ''];
      const alter = `ALTER TYPE ${typeSql(type)}`;
      const lacks = `it lacks attribute ${to}, which is not its last`;
      if (from === undefined) throw moment.at === 'copy' ? taken(stream, type, lacks) : rewritten(stream, type, lacks);
      throw unfollowed(
        stream,
        type,
        moment,
        `attribute ${to} stands where the target has ${from}: renamed, or another`,
        [`${alter} ${rename(from, to)}`, `${alter} ${drop(from)}, ${add(to)}`],
      );
    }
  }
  const alter = `ALTER TYPE ${typeSql(type)}`;
  // RENAME takes no other action beside it.
  const together = renames.map((action) => `${alter} ${action}`);
  const rest = [...(moment.at === 'copy' ? drops : []), ...adds];
  if (rest.length > 0) together.push(`${alter} ${rest.join(', ')}`);
  return { together, alone: [] };
}

/** What lies between two names that both lists have, or at an end. */
interface Gap {
  readonly has: readonly string[];
  readonly wanted: readonly string[];
  /** Behind all that both have. */
  readonly last: boolean;
}

/** The places where the lists differ, in order. Null: names that both have are in another order. */
export function gapsBetween(has: readonly string[], wanted: readonly string[]): Gap[] | null {
  const inBoth = wanted.filter((name) => has.includes(name));
  const kept = has.filter((name) => wanted.includes(name));
  if (kept.some((name, i) => name !== inBoth[i])) return null;
  const gaps: Gap[] = [];
  let [h, w] = [0, 0];
  for (const next of [...kept, null]) {
    const [h2, w2] = next === null ? [has.length, wanted.length] : [has.indexOf(next), wanted.indexOf(next)];
    if (h2 > h || w2 > w) gaps.push({ has: has.slice(h, h2), wanted: wanted.slice(w, w2), last: next === null });
    [h, w] = [h2 + 1, w2 + 1];
  }
  return gaps;
}

export function taken(stream: string, type: TypeName, reason: string): SluiceError {
  return new SluiceError('TYPE_TAKEN', { stream, type: typeText(type), reason });
}

function rewritten(stream: string, type: TypeName, what: string): SluiceError {
  return new SluiceError('TABLE_REWRITTEN', { stream, what: `type ${typeText(type)}: ${what}.` });
}

function unfollowed(
  stream: string,
  type: TypeName,
  moment: Moment,
  change: string,
  sql: readonly string[],
): SluiceError {
  if (moment.at === 'change') return rewritten(stream, type, change);
  return new SluiceError('TYPE_UNFOLLOWED', { stream, type: typeText(type), change, sql: sql.join('; or: ') });
}
