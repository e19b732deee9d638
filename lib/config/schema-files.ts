/**
 * The files that tables.json_schema names, for whoever reads the pipeline file from a disk: the command, and the synthesis of the stack. What they ship has the
 * schemas in it, for a function has no files of ours. Nothing is read here: that is passed in.
 */
import { SluiceError } from '../errors.ts';
import { KEY_REFUSED, parseConfig } from './document.ts';
import type { Pipeline } from './schema.ts';

type Schema = Readonly<Record<string, unknown>>;

/** Characters of one file: it is shipped with every function. */
const SCHEMA_CHARACTERS_MAX = 256 * 1024;

export interface SchemaFiles {
  /** Text of the pipeline file, and its name, for messages. */
  readonly text: string;
  readonly fileName: string;
  /** The file of this name beside the pipeline file; throws an Error that says why it cannot be read. */
  readonly read: (path: string) => string;
  /** Throws an Error where rows cannot be checked by the schema. */
  readonly compile: (schema: Schema) => unknown;
}

export function namesSchemas({ tables }: Pick<Pipeline, 'tables'>): boolean {
  return tables.some(({ json_schema }) => json_schema !== null);
}

/** The pipeline with every schema in it. Throws CONFIG_INVALID for the first that is none, with its place in the pipeline file. */
export function withSchemas(pipeline: Pipeline, files: SchemaFiles): Pipeline {
  if (!namesSchemas(pipeline)) return pipeline;
  const tables = pipeline.tables.map((entry, i) => {
    if (entry.json_schema === null) return entry;
    try {
      const schema = typeof entry.json_schema === 'string' ? parsed(files.read(entry.json_schema)) : entry.json_schema;
      files.compile(schema);
      return { ...entry, json_schema: schema };
    } catch (error) {
      const { line, column } = parseConfig(files.text).place(['tables', i, 'json_schema'], 'value');
      const named = typeof entry.json_schema === 'string' ? ` (${entry.json_schema})` : '';
      const reason = error instanceof Error ? error.message : String(error);
      const problem = `${files.fileName}:${line}:${column}  tables[${i}].json_schema${named}: ${reason}`;
      const remedy = 'Name a JSON file beside the pipeline file with a JSON Schema (draft-07, 2019-09 or 2020-12).';
      throw new SluiceError('CONFIG_INVALID', { problem, remedy, faults: 1 }, { cause: error });
    }
  });
  return { ...pipeline, tables };
}

function parsed(text: string): Schema {
  if (text.length > SCHEMA_CHARACTERS_MAX) throw new Error(`it has more than ${SCHEMA_CHARACTERS_MAX} characters`);
  const schema = jsonOf(text);
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) throw new Error('it is no JSON object');
  return schema as Schema;
}

function jsonOf(text: string): unknown {
  const keys = new Set<string>();
  const value = parsedJson(text, (key, part) => {
    keys.add(key);
    return part;
  });
  // What is asked of a column of this name would not be looked at.
  if (keys.has(KEY_REFUSED)) throw new Error(`it has the key ${KEY_REFUSED}, which is not taken`);
  return value;
}

function parsedJson(text: string, reviver: (key: string, part: unknown) => unknown): unknown {
  try {
    return JSON.parse(text, reviver);
  } catch {
    throw new Error('it is no JSON'); // The parser would quote it.
  }
}
