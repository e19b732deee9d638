/**
 * The reference page and the JSON Schema say what the code does: they are written from the declarations, and this fails when they are stale.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { factsAt, optionsOf, schemaAt } from '../../lib/config/expectation.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { configurationPage, EXAMPLE, pipelineJsonSchema } from '../../lib/config/reference.ts';

const STALE = 'stale: run `node docs/generate-configuration.ts`';
const SECTIONS = [
  [],
  ['source'],
  ['source', 'ssl'],
  ['source', 'ssh'],
  ['tables'],
  ['target'],
  ['target', 'ssl'],
  ['target', 'ssh'],
  ['schedule'],
];

const docs = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

test('docs/CONFIGURATION.md is what the declarations say', () => {
  expect(docs('CONFIGURATION.md') === configurationPage(), STALE).toBe(true);
});

test('docs/pipeline.schema.json is what the declarations say', () => {
  expect(docs('pipeline.schema.json') === `${JSON.stringify(pipelineJsonSchema(), null, 2)}\n`, STALE).toBe(true);
});

test("the page's example is a valid file", () => {
  const pipeline = readPipeline(EXAMPLE, 'example');
  expect(configurationPage()).toContain(EXAMPLE);
  expect(pipeline.source.break_at_end_lsn).toBe(true);
  expect(pipeline.tables).toHaveLength(2);
});

describe('every option', () => {
  const options = SECTIONS.flatMap((section) => {
    const schema = schemaAt(section);
    return Object.keys(schema ? optionsOf(schema) : {}).map((name) => [...section, name]);
  });

  test('is found', () => {
    expect(options.length).toBeGreaterThan(50);
  });

  test.each(options.map((path) => [path.join('.'), path] as const))(
    '%s has its sentence on the page',
    (_name, path) => {
      const page = configurationPage();
      expect(page).toContain(`| \`${path.at(-1)}\` |`);
      expect(factsAt(path)?.sentence).toMatch(/^.{8,}\.$/);
    },
  );

  test('of a number has a unit, but a port', () => {
    const numbers = options.filter((path) => {
      const type = configurationPage()
        .split('\n')
        .find((line) => line.startsWith(`| \`${path.at(-1)}\` |`));
      return /\| a whole number(?: from|,)/.test(type ?? '');
    });
    expect(numbers.length).toBeGreaterThan(8);
    for (const path of numbers) {
      if (!path.at(-1)?.endsWith('port')) expect([path, factsAt(path)?.unit]).toEqual([path, expect.any(String)]);
    }
  });
});

test('the JSON Schema knows bounds, defaults, and refuses other keys', () => {
  const schema = pipelineJsonSchema();
  expect(schema).toMatchObject({
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    required: ['pipeline', 'tables'],
    additionalProperties: false,
    properties: {
      source: {
        additionalProperties: false,
        properties: { port: { type: 'integer', minimum: 1, maximum: 65_535, default: 5432 } },
      },
      target: { properties: { on_truncate: { enum: ['apply', 'ignore', 'halt'], default: 'apply' } } },
    },
  });
});
