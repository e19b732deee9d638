/**
 * JSON Schema by ajv (port SchemaCompiler): draft-07 unless `$schema` names 2019-09 or 2020-12, with the formats of ajv-formats. A keyword or a format that is not
 * known is a fault of the schema, and not passed over. https://ajv.js.org/strict-mode.html
 */
import { _, Ajv, type ErrorObject, type Options, str, type ValidateFunction } from 'ajv';
import { Ajv2019 } from 'ajv/dist/2019.js';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { boundedPattern, PatternTooSlow } from './bounded-pattern.ts';
import type { JsonSchema } from './catalog-schema.ts';
import type { CompiledSchema, Judge, RowFault, RowRecord, SchemaCompiler } from './compiler.ts';
import { isMultipleOf } from './multiple-of.ts';

/** Of one row; a document may have thousands. */
const FAULTS_MAX = 10;
const WANTS_CHARACTERS_MAX = 200;

const OPTIONS: Options = {
  allErrors: true,
  // What many refer to is compiled once.
  inlineRefs: false,
  // A row that lacks a column `constructor` must not be taken to have what every object inherits.
  ownProperties: true,
  strictSchema: true,
  strictNumbers: true,
  strictTypes: false,
  strictTuples: false,
  strictRequired: false,
  allowUnionTypes: true,
  // Its messages would go to the console.
  logger: false,
  // `code` is for schemas that are written out as modules, which none is.
  code: { regExp: Object.assign(boundedPattern, { code: 'boundedPattern' }) },
};

const DRAFTS: readonly (readonly [RegExp, () => Ajv])[] = [
  [/^https?:\/\/json-schema\.org\/draft-07\/schema#?$/u, () => new Ajv(OPTIONS)],
  [/^https:\/\/json-schema\.org\/draft\/2019-09\/schema#?$/u, () => new Ajv2019(OPTIONS)],
  [/^https:\/\/json-schema\.org\/draft\/2020-12\/schema#?$/u, () => new Ajv2020(OPTIONS)],
];

/** Keywords at the top that say nothing of the row as a whole but which columns it has, and what each must be. */
const BY_COLUMN = new Set(['type', 'properties', 'required', 'title', 'description', '$schema', '$id', '$comment']);
/** Where parts lie that others refer to. */
const DEFINITIONS = ['$defs', 'definitions'];
const OF_COLUMNS = [
  '$schema',
  '$id',
  '$anchor',
  ...DEFINITIONS,
  'properties',
  'patternProperties',
  'additionalProperties',
];
const ANNOTATIONS = new Set([
  'title',
  'description',
  'default',
  'examples',
  '$comment',
  'readOnly',
  'writeOnly',
  'deprecated',
]);

export const ajvCompiler: SchemaCompiler = { compile };

function compile(schema: JsonSchema): CompiledSchema {
  const { properties } = schema;
  const known = isMap(properties) ? properties : {};
  const isByColumn = Object.keys(schema).every((keyword) => BY_COLUMN.has(keyword) || DEFINITIONS.includes(keyword));
  return {
    whole: judge(validatorOf(schema)),
    partial: judge(
      validatorOf(Object.fromEntries(Object.entries(schema).filter(([name]) => OF_COLUMNS.includes(name)))),
    ),
    reads: (column, isText) => !isByColumn || (Object.hasOwn(known, column) && !takesAll(known[column], isText)),
  };
}

function validatorOf(schema: JsonSchema): ValidateFunction {
  const { $schema = 'http://json-schema.org/draft-07/schema#' } = schema;
  const draft = typeof $schema === 'string' ? DRAFTS.find(([names]) => names.test($schema)) : undefined;
  if (draft === undefined) throw new Error('$schema must name draft-07, 2019-09 or 2020-12');
  const ajv = draft[1]();
  formats.default(ajv);
  // ajv divides doubles, by which 19.99 is no multiple of 0.01.
  ajv.removeKeyword('multipleOf');
  ajv.addKeyword({
    keyword: 'multipleOf',
    type: 'number',
    schemaType: 'number',
    validate: isMultipleOf,
    error: {
      message: ({ schemaCode }) => str`must be multiple of ${schemaCode}`,
      params: ({ schemaCode }) => _`{multipleOf: ${schemaCode}}`,
    },
  });
  const validate = ajv.compile(schema);
  if ('$async' in validate) throw new Error('$async is not for rows');
  return validate;
}

function takesAll(schema: unknown, isText: boolean): boolean {
  if (schema === true) return true;
  if (!isMap(schema)) return false;
  const told = Object.keys(schema).filter((keyword) => !ANNOTATIONS.has(keyword));
  if (told.length === 0) return true;
  const types = [schema.type].flat();
  return isText && told.length === 1 && types.includes('string');
}

function judge(validate: ValidateFunction): Judge {
  return (row: RowRecord) => {
    try {
      return validate(row) ? [] : (validate.errors ?? []).slice(0, FAULTS_MAX).map(faultOf);
    } catch (error) {
      // Under `not` and among the names of a document as well: what is not decided is not valid.
      if (error instanceof PatternTooSlow) return [{ column: null, keyword: 'pattern', wants: error.wants }];
      throw error;
    }
  };
}

/** Its path goes no further than the column: what lies deeper may be a name out of a document. */
function faultOf({ instancePath, keyword, message = '', params }: ErrorObject): RowFault {
  const [, first] = instancePath.split('/');
  const named: unknown = params.missingProperty ?? params.additionalProperty ?? params.unevaluatedProperty;
  const column = first?.replaceAll('~1', '/').replaceAll('~0', '~') ?? (typeof named === 'string' ? named : null);
  const allowed: unknown = params.allowedValues ?? (keyword === 'const' ? [params.allowedValue] : undefined);
  const list = Array.isArray(allowed) ? `: ${allowed.map((value) => JSON.stringify(value)).join(', ')}` : '';
  return { column, keyword, wants: `${message}${list}`.slice(0, WANTS_CHARACTERS_MAX) };
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
