/**
 * Whether a condition of the pipeline file stays where it is put: between brackets, among other conditions, in a statement of ours. One that closes the bracket and
 * opens another (`a) OR (b`) would read rows of other chunks; one that ends the statement would begin its own.
 *
 * Pure, and no parser of SQL: it knows what may hide a bracket (strings, quoted names, comments), as the server's scanner does with standard_conforming_strings,
 * which is pinned. What it cannot be sure of it refuses.
 * https://www.postgresql.org/docs/current/sql-syntax-lexical.html
 */

/** By what a piece begins with. A word is taken whole: within one, neither E' nor $ begins anything. */
const ESCAPED_STRING = /[eE]'(?:[^'\\]|\\[\s\S]|'')*'/uy;
const STRING = /'(?:[^']|'')*'/uy;
const NAME = /"(?:[^"]|"")*"/uy;
const DOLLAR_STRING = /\$([A-Za-z_\u{80}-\u{10ffff}][\w\u{80}-\u{10ffff}]*)?\$[\s\S]*?\$\1\$/uy;
const DOLLAR_BEGIN = /\$(?:[A-Za-z_\u{80}-\u{10ffff}][\w\u{80}-\u{10ffff}]*)?\$/uy;
const WORD = /[A-Za-z_\u{80}-\u{10ffff}][\w$\u{80}-\u{10ffff}]*/uy;
const LINE_COMMENT = /--[^\n\r]*/uy;
const COMMENT_EDGE = /\/\*|\*\//gu;
/** A string that goes on in another line keeps its escapes. */
const GOES_ON = /(?:\s|--[^\n\r]*)*'/uy;

/** What is wrong with it, a sentence without its subject; null: nothing. */
export function conditionFault(sql: string): string | null {
  let depth = 0;
  let at = 0;
  /** Where the piece that begins here ends; null: none of the kind does. */
  const end = (pattern: RegExp): number | null => {
    pattern.lastIndex = at;
    return pattern.test(sql) ? pattern.lastIndex : null;
  };
  while (at < sql.length) {
    const escaped = end(ESCAPED_STRING);
    if (escaped !== null) {
      at = escaped;
      if (end(GOES_ON) !== null) return "has a string E'…' that goes on after its end.";
      continue;
    }
    const piece = end(STRING) ?? end(NAME) ?? end(DOLLAR_STRING) ?? end(LINE_COMMENT);
    if (piece !== null) {
      at = piece;
      continue;
    }
    const character = sql.charAt(at);
    if (character === "'" || character === '"' || end(DOLLAR_BEGIN) !== null) return 'has a quote that does not end.';
    if (sql.startsWith('/*', at)) {
      const after = commentEnd(sql, at);
      if (after === null) return 'has a comment that does not end.';
      at = after;
      continue;
    }
    if (/[eE]/u.test(character) && sql.charAt(at + 1) === "'") return 'has a quote that does not end.';
    if (character === ';') return 'has a semicolon.';
    if (character === '(') depth++;
    if (character === ')' && --depth < 0) return 'closes a bracket that it has not opened.';
    at = end(WORD) ?? at + 1;
  }
  return depth > 0 ? 'opens a bracket that it does not close.' : null;
}

/** Comments nest. */
function commentEnd(sql: string, from: number): number | null {
  let depth = 0;
  COMMENT_EDGE.lastIndex = from;
  for (let edge = COMMENT_EDGE.exec(sql); edge !== null; edge = COMMENT_EDGE.exec(sql)) {
    depth += edge[0] === '/*' ? 1 : -1;
    if (depth === 0) return COMMENT_EDGE.lastIndex;
  }
  return null;
}
