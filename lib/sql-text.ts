/**
 * SQL text from names and values: the only two ways a name or a literal of somebody else's gets into a statement.
 * As PostgreSQL's quote_ident and quote_literal, except that an identifier is always quoted: no list of reserved words to keep.
 * (https://www.postgresql.org/docs/current/sql-syntax-lexical.html)
 */
import type { TableName } from './shape.ts';

/** NAMEDATALEN - 1: what is longer is cut by the server, without a word. */
export const IDENTIFIER_BYTES_MAX = 63;

/** `na"me` → `"na""me"`. Throws RangeError for what cannot be an identifier: the empty name and one with a zero byte. */
export function quoteIdentifier(name: string): string {
  if (name === '' || name.includes('\0')) throw new RangeError('not an identifier: empty, or with a zero byte');
  return `"${name.replaceAll('"', '""')}"`;
}

/** `name` and `suffix`; where that is too long, `name` is cut between two characters. */
export function fittingName(name: string, suffix: string): string {
  let stem = '';
  for (const character of name) {
    if (Buffer.byteLength(stem + character + suffix) > IDENTIFIER_BYTES_MAX) break;
    stem += character;
  }
  return stem + suffix;
}

export function quoteTable(name: TableName): string {
  return `${quoteIdentifier(name.schema)}.${quoteIdentifier(name.table)}`;
}

/** `it's` → `'it''s'`; a backslash makes it an escape string, so that it means the same whatever standard_conforming_strings says. */
export function quoteLiteral(value: string): string {
  if (value.includes('\0')) throw new RangeError('not a text value: it holds a zero byte');
  const quoted = `'${value.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`;
  return value.includes('\\') ? ` E${quoted}` : quoted;
}
