/**
 * What is asked of whoever understands JSON Schema (ajv-compiler.ts), and what it answers. Loaded only by pipelines that validate, so that others start without it.
 */
import type { JsonSchema } from './catalog-schema.ts';
import type { JsonValue } from './values.ts';

/** One thing that is wrong with a row. Of the schema and never of the row's values: it goes into logs. */
export interface RowFault {
  /** Null: the row as a whole. */
  readonly column: string | null;
  /** Of JSON Schema: `type`, `minimum`, `required`. */
  readonly keyword: string;
  /** What it wants, as a sentence without its subject: `must be >= 0`. */
  readonly wants: string;
}

export type RowRecord = Readonly<Record<string, JsonValue>>;

/** Empty: the row is valid. */
export type Judge = (row: RowRecord) => readonly RowFault[];

export interface CompiledSchema {
  /** Of a row of which every column is there. */
  readonly whole: Judge;
  /** Of a row that lacks some: only what the schema says of single columns (properties, patternProperties, additionalProperties). */
  readonly partial: Judge;
  /** Whether the value of a column counts; false: any value of its kind will do, and it need not be read. */
  readonly reads: (column: string, isText: boolean) => boolean;
}

export interface SchemaCompiler {
  /** Throws an Error whose message says what is wrong with the schema, without values of rows. */
  readonly compile: (schema: JsonSchema) => CompiledSchema;
}
