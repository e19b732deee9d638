/**
 * Patterns of schemas end, whatever they are and whatever they are tested on; those that cannot take long are tested as they are; and no answer is another.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ajvCompiler } from '../../lib/validation/ajv-compiler.ts';
import { boundedPattern, PATTERN_MS_MAX, PatternTooSlow } from '../../lib/validation/bounded-pattern.ts';

const BAD = `${'a'.repeat(40)}!`;
const CATASTROPHES: readonly (readonly [string, string])[] = [
  ['^(a+)+$', BAD],
  ['^(a|aa)+$', 'a'.repeat(60) + '!'],
  ['^(?:a?){30}a{30}b$', 'a'.repeat(45)],
  ['(?:\\w+\\s?)+\\?$', 'word '.repeat(30)],
  ['\\s+$', `${' '.repeat(1_000_000)}x`],
  ['^a*a*a*a*a*b$', 'a'.repeat(2_000)],
];
/** It ends in time, on a machine that does much else as well. */
const SOON_MS = PATTERN_MS_MAX + 2_000;

test.each(CATASTROPHES)('%s ends', (source, text) => {
  const pattern = boundedPattern(source, 'u');
  const began = performance.now();
  expect(() => pattern.test(text)).toThrow(PatternTooSlow);
  expect(performance.now() - began).toBeLessThan(SOON_MS);
  // And answers the next.
  expect(pattern.test('!?-')).toBe(new RegExp(source, 'u').test('!?-'));
});

test('the message has the pattern and no value', () => {
  expect(() => boundedPattern('^(a+)+$', 'u').test(BAD)).toThrow('must be decided by pattern "^(a+)+$" within 1000 ms');
});

test('what has few ways through is not slowed', () => {
  const patterns = [
    '^[A-Z]{2}[0-9]{4,6}$',
    '^\\S+@\\S+\\.\\S+$',
    '^(?:red|green|blue)$',
    '^\\d+(?:\\.\\d+)?$',
    '^[^\\s]*$',
  ];
  const texts = ['AB1234', 'somebody@some.example', 'green', '3.14159', 'x'.repeat(1_000)];
  for (const [i, source] of patterns.entries()) {
    const pattern = boundedPattern(source, 'u');
    const began = performance.now();
    for (let n = 0; n < 20_000; n++) pattern.test(texts[i] ?? '');
    // 200,000 a second and more; with a limit of time it is some thousands.
    expect(performance.now() - began, source).toBeLessThan(1_500);
  }
});

test('no answer is another than that of the pattern itself', () => {
  const atoms = fc.constantFrom(
    'a',
    'b',
    '.',
    '[ab]',
    '[^b)*]',
    '\\d',
    '\\)',
    '(a|b)',
    '(?:ab)',
    '(?=a)',
    '\\u{1f600}',
    '\\p{L}',
  );
  const parts = fc.tuple(atoms, fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,3}', '*?'));
  const sources = fc
    .tuple(fc.constantFrom('', '^'), fc.array(parts, { minLength: 1, maxLength: 4 }), fc.constantFrom('', '$', '|b'))
    .map(([begin, middle, end]) => begin + middle.map((part) => part.join('')).join('') + end);
  const texts = fc.string({ unit: fc.constantFrom('a', 'b', '1', ')', '😀', '\n'), maxLength: 14 });
  fc.assert(
    fc.property(sources, texts, (source, text) => {
      const isPattern = (() => {
        try {
          return new RegExp(source, 'u');
        } catch {
          return null; // A lookahead is not repeated.
        }
      })();
      if (isPattern === null) expect(() => boundedPattern(source, 'u')).toThrow(SyntaxError);
      else expect(boundedPattern(source, 'u').test(text)).toBe(isPattern.test(text));
    }),
    { numRuns: 2_000 },
  );
});

describe('a schema with a pattern that does not end', () => {
  const slow = { pattern: '^(a+)+$' };
  test.each([
    ['of a column', { properties: { v: slow } }],
    ['that must not match', { properties: { v: { not: slow } } }],
    ['that one of two must match', { properties: { v: { anyOf: [slow, { const: 'x' }] } } }],
    [
      'of names in a document',
      { properties: { v: true, d: { patternProperties: { '^(a+)+$': { type: 'string' } } } } },
    ],
  ])('%s: the row is not valid', (_, schema) => {
    const { whole } = ajvCompiler.compile(schema);
    expect(whole({ v: BAD, d: { [BAD]: 1 } })).toEqual([
      { column: null, keyword: 'pattern', wants: expect.stringContaining('must be decided by pattern "^(a+)+$"') },
    ]);
    expect(whole({ v: 'x', d: {} }).every(({ wants }) => !wants.includes('decided'))).toBe(true);
  });
});
