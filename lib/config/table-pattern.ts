/**
 * How tables are written in a pipeline file and on the command line.
 *
 *     name    = half "." half
 *     half    = bare | '"' any characters, a quote doubled '"'
 *     bare    = characters other than dot and quote; * stands for any characters, ? for one
 *
 * Halves are the catalog's own spelling: `public.Orders` is not `public.orders`. In quotes nothing is a wildcard. That is SQL's quoting without
 * SQL's folding to lower case, so that what `\dt` prints can be copied.
 */
import type { TableName } from '../shape.ts';

export interface PatternHalf {
  /** As written between the quotes, or bare. */
  readonly text: string;
  /** Whether `*` and `?` in the text stand for other characters. */
  readonly glob: boolean;
}

export interface TablePattern {
  readonly schema: PatternHalf;
  readonly table: PatternHalf;
}

export const tablePatternForm =
  'schema.table, or a glob such as public.*, with a name that holds a dot or a quote as public."odd.name"';

const HALF = '("(?:[^"]|"")+"|[^."]+)';
const PATTERN = new RegExp(`^${HALF}\\.${HALF}$`, 'su');
const WILDCARD = /[*?]/;

/** Null for what is no pattern. Spaces around a bare half are not part of it. */
export function parseTablePattern(text: string): TablePattern | null {
  const halves = PATTERN.exec(text.trim());
  if (!halves) return null;
  const schema = parseHalf(halves[1] ?? '');
  const table = parseHalf(halves[2] ?? '');
  return schema && table ? { schema, table } : null;
}

function parseHalf(written: string): PatternHalf | null {
  if (written.startsWith('"')) {
    const text = written.slice(1, -1).replaceAll('""', '"');
    return text.includes('\0') ? null : { text, glob: false };
  }
  const text = written.trim();
  if (text === '' || text.includes('\0')) return null;
  return { text, glob: WILDCARD.test(text) };
}

export function isGlob(pattern: TablePattern): boolean {
  return pattern.schema.glob || pattern.table.glob;
}

/** The one table that a pattern without wildcards names; null for a glob. */
export function exactName(pattern: TablePattern): TableName | null {
  return isGlob(pattern) ? null : { schema: pattern.schema.text, table: pattern.table.text };
}

/** A name as a pipeline file would have it: bare where that means the same, else quoted. The inverse of parsing. */
export function formatTableName(name: TableName): string {
  return `${formatHalf(name.schema)}.${formatHalf(name.table)}`;
}

/** The glob that takes every table of a schema. */
export function schemaGlob(schema: string): string {
  return `${formatHalf(schema)}.*`;
}

function formatHalf(half: string): string {
  const bare = !/[."*?]/.test(half) && half === half.trim() && half !== '';
  return bare ? half : `"${half.replaceAll('"', '""')}"`;
}

export function matchesPattern(pattern: TablePattern, name: TableName): boolean {
  return matchesHalf(pattern.schema, name.schema) && matchesHalf(pattern.table, name.table);
}

/**
 * Whether a half stands for a name. Walks both once with one way back, to the last `*`: time is at most their product, whatever the text
 * (I8); a pattern turned into a regular expression could take exponential time.
 */
function matchesHalf(half: PatternHalf, name: string): boolean {
  if (!half.glob) return half.text === name;
  const pattern = Array.from(half.text);
  const characters = Array.from(name);
  let p = 0;
  let star = -1;
  let resume = 0;
  let c = 0;
  while (c < characters.length) {
    if (pattern[p] === '*') {
      star = p++;
      resume = c;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === characters[c])) {
      p++;
      c++;
    } else if (star >= 0) {
      p = star + 1;
      c = ++resume;
    } else {
      return false;
    }
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}
