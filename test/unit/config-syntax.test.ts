/**
 * Texts that are no YAML, or no map.
 */
import { expect, test } from 'vitest';
import { faultsOf, HEAD, testFaults } from '../support/config-cases.ts';

testFaults([
  ['empty', '', '1:1', 'The file is empty.', 'sluice init'],
  ['only remarks', '# nothing\n', '1:1', 'The file is empty.', 'sluice init'],
  ['a list', '- a.b\n', '1:1', 'The file has no map of options at its top.', 'sluice init'],
  ['text', 'shop\n', '1:1', 'The file has no map of options at its top.', 'sluice init'],
  ['key twice', `${HEAD}pipeline: other\n`, '3:1', 'The key stands twice in the same map.', 'Remove one'],
  ['tab', `pipeline: shop\nsource:\n\thost: h\n`, '3:1', 'A tab is used to indent.', 'spaces'],
  ['colon in text', 'pipeline: a: b\n', '1:11', 'A map begins on the line of its key.', 'in quotes'],
  ['open quote', 'pipeline: "a\n', '2:1', 'A character is missing', 'Correct the YAML'],
  ['two documents', `${HEAD}---\n${HEAD}`, '3:1', 'A second document begins', 'one document'],
  ['tag', 'pipeline: !name shop\n', '1:11', 'A tag (!) is not known.', 'Remove it'],
  ...['binary aGk=', 'timestamp 2020-01-01', 'set { a }', 'omap [a: b]', 'merge x', 'js/function "x"'].map(
    (tag) => [`tag !!${tag}`, `pipeline: !!${tag}\n`, '1:11', 'A tag (!) is not known.', 'Remove it'] as const,
  ),
  // Passed over by whoever reads a map, the column would not be masked.
  [
    '__proto__ among masks',
    `pipeline: shop\ntables:\n  - { table: a.b, mask: { "__proto__": redact } }\n`,
    '3:27',
    'The key __proto__ is not taken anywhere.',
    'exclude',
  ],
  [
    '__proto__ in a schema',
    `pipeline: shop\ntables:\n  - { table: a.b, json_schema: { properties: { __proto__: {} } } }\n`,
    '3:48',
    'The key __proto__ is not taken anywhere.',
    'exclude',
  ],
  [
    'glob taken for an alias',
    'pipeline: shop\ntables:\n  - *.orders\n',
    '3:5',
    'A value that begins with * is an alias',
    '"*.orders"',
  ],
  ['key that is a list', '[a]: b\n', '1:1', 'A key is not text.', 'plain text'],
  ['reserved character', 'pipeline: @shop\n', '1:11', 'This is not valid YAML (BAD_SCALAR_START).', 'in quotes'],
  ['too long', `# ${'x'.repeat(2 ** 20)}`, '1:1', 'The file is longer than', 'check that this is one'],
]);

test('nesting has an end', () => {
  expect(faultsOf('['.repeat(5000))).toEqual([expect.stringContaining('Lists and maps are nested too deep.')]);
});

test('aliases of aliases are counted', () => {
  const lines = ['a: &a [x, x, x, x, x, x, x, x, x, x]'];
  for (const [from, to] of ['ab', 'bc', 'cd', 'de', 'ef']) {
    lines.push(`${to}: &${to} [${Array.from({ length: 10 }, () => `*${from}`).join(', ')}]`);
  }
  expect(faultsOf(lines.join('\n'))).toEqual([expect.stringContaining('more than 100 aliases')]);
});

test('merge keys are keys, and no key gets into what every object inherits', () => {
  expect(faultsOf(`${HEAD}source: { <<: { host: h } }\n`)).toEqual([expect.stringContaining('is not an option.')]);
  for (const key of ['__proto__', 'constructor', 'prototype']) {
    expect(faultsOf(`${HEAD}${key}: { polluted: yes, prototype: { polluted: yes } }\n`)).toHaveLength(1);
  }
  expect(Object.keys(Object.prototype)).toEqual([]);
  expect({}).not.toHaveProperty('polluted');
});

test('an alias of itself ends in faults, not in a loop', () => {
  expect(faultsOf('pipeline: &a [*a]\ntables: &b [*b]\n').length).toBeGreaterThan(0);
});
