/**
 * Theorems about reading a pipeline file, whatever it holds: it ends in a pipeline or in one typed error with places inside the text; what it
 * accepts it reads again as the same; and text in the place of a secret is never told.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkPipeline, readPipeline } from '../../lib/config/read.ts';
import { SluiceError } from '../../lib/errors.ts';

const GOOD = `pipeline: shop
source:
  host: db.internal
  user: sluice
  password: \${env:SOURCE_PASSWORD}
  database: shop
  ssl: { mode: verify-full, ca: ./ca.pem }
tables:
  - public.*
  - { table: public.orders, target_table: "all orders" }
target:
  host: warehouse
  user: loader
  password: { secret: prod/warehouse, key: password }
  database: analytics
  hard_delete: true
schedule: { every: 5 minutes, anchor: "06:00" }
`;

function ends(text: string): void {
  const { pipeline, faults } = checkPipeline(text);
  expect(pipeline === null).toBe(faults.length > 0);
  const lines = text.split('\n').length;
  for (const fault of faults) {
    expect(fault.line).toBeGreaterThanOrEqual(1);
    expect(fault.line).toBeLessThanOrEqual(lines);
    expect(fault.column).toBeGreaterThanOrEqual(1);
    expect(fault.problem).not.toBe('');
    expect(fault.remedy).not.toBe('');
  }
  if (pipeline) {
    expect(readPipeline(text, 'p')).toEqual(pipeline);
  } else {
    expect(() => readPipeline(text, 'p')).toThrow(SluiceError);
  }
}

test('any text', () => {
  const yamlish = fc.string({
    unit: fc.constantFrom(...Array.from('ab:-*&!%@#"\'[]{}|>,? \n\t'), 'source', 'tables', ': '),
    maxLength: 60,
  });
  fc.assert(fc.property(fc.oneof(fc.string({ unit: 'binary' }), yamlish), ends), { numRuns: 800 });
});

test('a good file with a piece cut out, doubled, or replaced', () => {
  const at = fc.nat({ max: GOOD.length });
  const piece = fc.oneof(
    fc.constant(''),
    fc.string({ maxLength: 6 }),
    fc.constantFrom('\n', ': ', '  ', '*', '- ', '{', '"'),
  );
  fc.assert(
    fc.property(at, fc.nat({ max: 12 }), piece, (start, length, text) => {
      ends(GOOD.slice(0, start) + text + GOOD.slice(start + length));
    }),
    { numRuns: 800 },
  );
});

test('any data under any key', () => {
  const keys = fc.constantFrom(
    'pipeline',
    'source',
    'tables',
    'target',
    'schedule',
    'host',
    'password',
    'ssl',
    'table',
    'every',
    'schema_mapping',
    '__proto__',
  );
  const data = fc.jsonValue({ maxDepth: 3 });
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      data,
      fc.dictionary(keys, tie('tree'), { maxKeys: 5 }),
      fc.array(tie('tree'), { maxLength: 3 }),
    ),
  }));
  fc.assert(
    fc.property(fc.dictionary(keys, tree, { maxKeys: 5 }), (file) => ends(JSON.stringify(file))),
    { numRuns: 500 },
  );
});

test('what stands in the place of a secret is never told', () => {
  const secret = fc.string({
    unit: fc.constantFrom(...Array.from('abcXYZ0189!$%&*/@:{}[]#"\'-. ,')),
    minLength: 6,
    maxLength: 24,
  });
  const place = fc.constantFrom('source', 'target');
  const written = fc.constantFrom(
    (value: string) => value,
    (value: string) => JSON.stringify(value),
    (value: string) => `'${value}'`,
    (value: string) => `{ secret: ${value} }`,
    (value: string) => `[${value}]`,
  );
  fc.assert(
    fc.property(secret, place, written, (core, side, write) => {
      // A marker that no message holds by itself.
      const value = `Q7${core}7Q`;
      const text = `pipeline: shop\ntables: [a.b]\n${side}:\n  host: h\n  user: u\n  database: d\n  password: ${write(value)}\n  zzz: 1\n`;
      try {
        readPipeline(text, 'p');
      } catch (error) {
        const told =
          error instanceof SluiceError
            ? `${error.message} ${error.remedy} ${JSON.stringify(error.facts)}`
            : String(error);
        expect(told).not.toContain('Q7');
        expect(told).not.toContain(core);
        return;
      }
      throw new Error('an unknown key was accepted');
    }),
    { numRuns: 800 },
  );
});
