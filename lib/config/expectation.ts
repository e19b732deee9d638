/**
 * What a declaration says, in words: for the messages about faults and for the reference page.
 */
import * as z from 'zod';
import type { Path } from './document.ts';
import { type OptionFacts, optionFacts } from './option.ts';
import { pipelineSchema } from './schema.ts';

type Schema = z.core.$ZodType;

/** The declaration at a path of the file; null where there is none. */
export function schemaAt(path: Path): Schema | null {
  let schema: Schema | null = pipelineSchema;
  for (const step of path) {
    schema = schema && child(schema, step);
  }
  return schema;
}

export function factsAt(path: Path): OptionFacts | null {
  const schema = schemaAt(path);
  return (schema && optionFacts(schema)) ?? null;
}

/** The options of a map, by name; empty for anything else. Of several branches, the one that is a map. */
export function optionsOf(schema: Schema): Readonly<Record<string, Schema>> {
  const plain = unwrap(schema);
  if (plain instanceof z.ZodObject) return plain.shape;
  if (plain instanceof z.ZodArray) return optionsOf(plain.element);
  if (!(plain instanceof z.ZodUnion)) return {};
  return Object.assign({}, ...plain.options.map((branch) => optionsOf(branch)));
}

const TYPES: Readonly<Record<string, string>> = {
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of options',
  string: 'text',
};

/** Completes "must be …". */
export function expectation(schema: Schema): string {
  const form = formOf(schema);
  if (form !== null) return form;
  const json = jsonSchemaOf(schema);
  if (json.enum) return oneOf(json.enum.map(String));
  if (json.type === 'integer') return `a whole number${bounds(json.minimum, json.maximum)}`;
  return TYPES[String(json.type)] ?? 'one of several forms';
}

/** The default that is declared for the option itself; null: none, or one that depends on others. */
export function defaultOf(schema: Schema): string | number | boolean | null {
  const standard: unknown = jsonSchemaOf(schema).default;
  return typeof standard === 'string' || typeof standard === 'number' || typeof standard === 'boolean'
    ? standard
    : null;
}

const jsonSchemas = new WeakMap<Schema, z.core.JSONSchema.BaseSchema>();

/** Made once for a declaration: a file can have many faults. */
function jsonSchemaOf(schema: Schema): z.core.JSONSchema.BaseSchema {
  const known = jsonSchemas.get(schema) ?? z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  jsonSchemas.set(schema, known);
  return known;
}

/** Declared for the option, or for the kind of value that it takes. */
function formOf(schema: Schema): string | null {
  const form = optionFacts(schema)?.form;
  if (form !== undefined) return form;
  const inner = unwrapOnce(schema);
  return inner && formOf(inner);
}

function bounds(minimum: number | undefined, maximum: number | undefined): string {
  // zod bounds a whole number by what a double can hold: no bound of ours.
  const from = minimum === undefined || minimum === Number.MIN_SAFE_INTEGER ? null : minimum;
  const to = maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? null : maximum;
  if (from !== null && to !== null) return ` from ${from} to ${to}`;
  if (to !== null) return `, at most ${to}`;
  return from === null ? '' : `, at least ${from}`;
}

function oneOf(values: readonly string[]): string {
  return values.length === 1 ? `${values[0]}` : `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`;
}

function child(schema: Schema, step: string | number): Schema | null {
  const plain = unwrap(schema);
  if (plain instanceof z.ZodObject) {
    const shape: Readonly<Record<string, Schema>> = plain.shape;
    return Object.hasOwn(shape, step) ? (shape[step] ?? null) : null;
  }
  if (plain instanceof z.ZodArray) return plain.element;
  if (plain instanceof z.ZodRecord) return plain.valueType;
  if (!(plain instanceof z.ZodUnion)) return null;
  for (const branch of plain.options) {
    const found = child(branch, step);
    if (found) return found;
  }
  return null;
}

/** Without what says only how a value may be left out, or what is made of it. */
function unwrap(schema: Schema): Schema {
  const inner = unwrapOnce(schema);
  return inner ? unwrap(inner) : schema;
}

function unwrapOnce(schema: Schema): Schema | null {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return schema.unwrap();
  }
  return schema instanceof z.ZodPipe ? schema.in : null;
}
