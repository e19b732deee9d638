/**
 * YAML as `sluice init` writes it: names and values on one line each, and sentences as comments. Pure.
 */
const LINE_MAX = 118;

/** Text as a YAML scalar on one line: bare where that is safe, else as JSON, which YAML reads. */
export function scalar(text: string): string {
  const bare = /^[A-Za-z][A-Za-z0-9_./*?-]*$/.test(text) && !/^(true|false|null|yes|no|on|off)$/i.test(text);
  const address = /^[0-9]{1,3}(\.[0-9]{1,3}){3}$/.test(text);
  return bare || address ? text : JSON.stringify(text);
}

/** Text that stays on its line: a name may hold a line break. */
export function comment(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ');
}

/** A sentence as lines that begin with `lead`. */
export function wrapped(sentence: string, lead: string): string[] {
  const lines = sentence.match(new RegExp(`.{1,${LINE_MAX - lead.length}}(?:\\s|$)`, 'g')) ?? [];
  return lines.map((line) => `${lead}${line.trimEnd()}`);
}
