/**
 * A field of a COPY line as text. COPY TO writes \b \f \n \r \t \v and \\, and no other escapes; \N is NULL. Pure.
 * https://www.postgresql.org/docs/current/sql-copy.html (Text Format)
 */
const BACKSLASH = 0x5c;
const NULL_LETTER = 0x4e; // N

const ESCAPED: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v', '\\': '\\' };

/** Of the field `line[start, end)`; null: NULL. Where it is not read, it is only told whether there is a value. */
export function copiedText(line: Buffer, start: number, end: number, isRead: boolean): string | null {
  if (end - start === 2 && line[start] === BACKSLASH && line[start + 1] === NULL_LETTER) return null;
  if (!isRead) return '';
  const text = line.toString('utf8', start, end);
  if (!text.includes('\\')) return text;
  return text.replaceAll(/\\(.)/gu, (_, letter: string) => {
    const meant = ESCAPED[letter];
    if (meant === undefined) throw new RangeError('COPY wrote an escape that it does not have');
    return meant;
  });
}
