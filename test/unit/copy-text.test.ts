/** COPY text: what is escaped and what is not, at the lengths where the way of writing changes, and that a line never needs more room than was said. */
import { describe, expect, test } from 'vitest';
import {
  escapedPieces,
  fieldEnd,
  lineBytesMax,
  NEWLINE,
  TAB,
  writeEscaped,
  writeValue,
} from '../../lib/cut/copy-text.ts';
import { giantLine } from '../../lib/cut/giant-line.ts';
import { joined } from '../../lib/piece.ts';
import { type Row, tupleOf, UNCHANGED } from '../support/pgoutput.ts';
import { parseLines } from '../support/shares.ts';

function escaped(text: string | Buffer): Buffer {
  const bytes = Buffer.concat([Buffer.from('<'), Buffer.from(text), Buffer.from('>')]);
  const out = Buffer.alloc(2 * bytes.length + 8, 0xee);
  const end = writeEscaped(out, 3, bytes, 1, bytes.length - 1);
  expect([...out.subarray(0, 3), ...out.subarray(end)].every((byte) => byte === 0xee)).toBe(true);
  return out.subarray(3, end);
}

/** The line of a row, as folding writes it. */
function lineOf(row: Row): { readonly text: Buffer; readonly max: number } {
  const tuple = tupleOf(row);
  const max = lineBytesMax(tuple);
  const out = Buffer.alloc(max + 16, 0xee);
  let at = 0;
  for (let i = 0; i < tuple.count; i++) {
    if (row[i] === UNCHANGED) continue;
    at = writeValue(out, at, tuple, i);
    out[at++] = TAB;
  }
  out[at - 1] = NEWLINE;
  return { text: out.subarray(0, at), max };
}

test.each([
  ['', ''],
  ['plain', 'plain'],
  ['\\', '\\\\'],
  ['\t', '\\t'],
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\\N', '\\\\N'],
  ['\\.', '\\\\.'],
  ['a\tb\nc\rd\\e', 'a\\tb\\nc\\rd\\\\e'],
  // Bytes that COPY takes as they are.
  ['\b\f\v\u0001\u007f', '\b\f\v\u0001\u007f'],
  ['"\',;$', '"\',;$'],
  ['ü😀', 'ü😀'],
])('%j is written as %j', (text, expected) => {
  expect(escaped(text).toString()).toBe(expected);
});

test('every byte but four stands for itself', () => {
  for (let byte = 0; byte < 256; byte++) {
    const written = escaped(Buffer.from([byte]));
    if ('\\\t\n\r'.includes(String.fromCharCode(byte))) expect(written).toHaveLength(2);
    else expect([...written]).toEqual([byte]);
  }
});

describe('around the length from which runs are copied', () => {
  const lengths = [0, 1, 46, 47, 48, 49, 50, 96, 1000];
  const patterns = ['x', '\t', 'x\\', '\nxx', 'ab\r\n', 'ü\t'];
  test.each(lengths)('%i bytes', (length) => {
    for (const pattern of patterns) {
      // Cut by bytes: what is left of a letter is bytes like any others.
      const bytes = Buffer.from(pattern.repeat(length + 1)).subarray(0, length);
      const byByte = Buffer.concat([...bytes].map((byte) => escaped(Buffer.from([byte]))));
      expect(escaped(bytes)).toEqual(byByte);
    }
  });

  test.each([47, 48, 49, 50])('an escape at each place of %i bytes', (length) => {
    for (let at = 0; at < length; at++) {
      const bytes = Buffer.alloc(length, 'x').fill('\t', at, at + 1);
      expect(escaped(bytes).toString()).toBe(`${'x'.repeat(at)}\\t${'x'.repeat(length - at - 1)}`);
    }
  });
});

describe('values', () => {
  test('NULL, the empty string, and the text of NULL are three', () => {
    expect(lineOf([null, '', '\\N', 'N']).text.toString()).toBe('\\N\t\t\\\\N\tN\n');
  });

  test('a line is read back as it was', () => {
    const row = ['a\tb', '', null, '\\N', 'c\nd', '\\', 'x'.repeat(60), '\\\t'.repeat(40), 'ü😀'];
    expect(parseLines(lineOf(row).text)).toEqual([row]);
  });
});

describe('the room for a line', () => {
  const KIB = 1024;
  test.each<[string, Row]>([
    ['no text', [null, null]],
    ['empty strings', ['', '', '']],
    ['nothing to escape', ['abc', 'x'.repeat(100)]],
    ['all to escape', ['\t'.repeat(100), '\\'.repeat(49), '\n']],
    ['values that are left out', ['k', UNCHANGED, '\t', UNCHANGED]],
    ['256 KiB to escape, reckoned', ['\t'.repeat(256 * KIB)]],
    ['more than 256 KiB to escape, counted', ['\t'.repeat(256 * KIB + 1)]],
    ['more than 256 KiB over two values', ['\t'.repeat(200 * KIB), null, '\\x'.repeat(60 * KIB)]],
    ['1664 columns', Array.from({ length: 1664 }, (_, i) => (i % 2 ? null : '\t'))],
  ])('%s', (_name, row) => {
    const { text, max } = lineOf(row);
    expect(text.length).toBeLessThanOrEqual(max);
  });

  test('a large value that needs no escapes gets no room for them', () => {
    const { text, max } = lineOf(['x'.repeat(300 * KIB)]);
    expect(max - text.length).toBeLessThan(8);
  });
});

test('a field ends at its tab, at the end of the line, or where there is no more', () => {
  const bytes = Buffer.from('ab\t\tcd\nnext');
  const ends = [0, 3, 4, 7].map((at) => fieldEnd(bytes, at, 7));
  expect(ends).toEqual([2, 3, 6, 7]);
  expect(fieldEnd(bytes, 7, bytes.length)).toBe(bytes.length);
});

describe('values of megabytes', () => {
  test('pieces without escapes are handed on as they are, the others are escaped', () => {
    const plain = Buffer.alloc(100_000, 'x');
    const odd = Buffer.from('a\tb');
    const [first, second, third] = escapedPieces([plain, odd, Buffer.alloc(0)]);
    expect(first).toBe(plain);
    expect(second).toEqual(Buffer.from('a\\tb'));
    expect(third).toHaveLength(0);
  });

  test('a line with giants at any place is the line that it would be', () => {
    const giant = Buffer.from('\\\tgiant');
    const rows: Row[] = [
      ['k', '', null],
      ['k', 'v\t', ''],
      ['', UNCHANGED, 'w\\'],
    ];
    for (const row of rows) {
      for (const at of [0, 1, 2]) {
        const tuple = tupleOf(row.with(at, ''));
        tuple.giants = new Map([[at, [giant.subarray(0, 1), giant.subarray(1, 1), giant.subarray(1)]]]);
        expect(joined(giantLine(tuple)).toString()).toBe(lineOf(row.with(at, giant)).text.toString());
      }
    }
  });

  test('a value in very many pieces is one', () => {
    const tuple = tupleOf(['k', '']);
    const pieces = Array.from({ length: 300_000 }, () => Buffer.from('x'));
    tuple.giants = new Map([[1, pieces]]);
    expect(joined(giantLine(tuple))).toHaveLength(300_003);
  });
});
