/**
 * How the rows of one stream are checked: its schema (the file's, or one made of the catalog's types), what becomes of a row that is not valid, and the keys of
 * which rows have been left out since the stream was captured.
 *
 * Those keys matter to I7: a later change of such a row may leave a value out that was in the row that was left out, and the target must not get a row that the
 * source never had.
 */
import { SluiceError } from '../errors.ts';
import { displayName, type Shape, type TableName } from '../shape.ts';
import { catalogSchema, type JsonSchema } from './catalog-schema.ts';
import type { CompiledSchema, RowFault, SchemaCompiler } from './compiler.ts';
import type { RowKey } from './rejected.ts';
import { ROW_BYTES_MAX, RowCheck } from './row-check.ts';

export type OnInvalid = 'halt' | 'reject';

/** Keys of rows of one stream that were left out, and neither loaded again nor forgotten. */
export const REJECTED_KEYS_MAX = 100_000;

export class StreamChecks {
  readonly stream: string;
  readonly table: TableName;
  readonly on_invalid: OnInvalid;
  /** `keyText` of rows of the log that were left out. */
  readonly rejected: Set<string>;
  #compiler: SchemaCompiler;
  /** The file's; null: each shape has its own. */
  #compiled: CompiledSchema | null;

  /** Throws CONFIG_INVALID for a schema that cannot be. */
  constructor(options: {
    readonly stream: string;
    readonly table: TableName;
    readonly on_invalid: OnInvalid;
    readonly schema: JsonSchema | null;
    readonly compiler: SchemaCompiler;
    readonly rejected?: Iterable<string>;
  }) {
    const { stream, table, on_invalid, schema, compiler, rejected = [] } = options;
    this.stream = stream;
    this.table = table;
    this.on_invalid = on_invalid;
    this.rejected = new Set(rejected);
    this.#compiler = compiler;
    this.#compiled = schema === null ? null : compiled(compiler, schema, displayName(table));
  }

  forShape(shape: Shape): RowCheck {
    return new RowCheck(shape, this.#compiled ?? this.#compiler.compile(catalogSchema(shape)));
  }

  /** What becomes of it is the file's word; of a row without a key nothing could be said later. */
  rejects(shape: Shape): boolean {
    return this.on_invalid === 'reject' && shape.key.length > 0;
  }

  /** Another row was left out. Null, or why the stream cannot go on: so many are no exception any more. */
  noteRejected(key: string): SluiceError | null {
    this.rejected.add(key);
    if (this.rejected.size <= REJECTED_KEYS_MAX) return null;
    return new SluiceError('REJECTED_TOO_MANY', {
      table: displayName(this.table),
      stream: this.stream,
      rows_max: REJECTED_KEYS_MAX,
    });
  }

  invalid(key: RowKey, [fault]: readonly RowFault[]): SluiceError {
    const { column = null, keyword = '', wants = '' } = fault ?? {};
    const named = shownKey(key);
    return new SluiceError('RECORD_INVALID', {
      table: displayName(this.table),
      stream: this.stream,
      key: named === '' ? null : named,
      column,
      keyword,
      wants,
    });
  }
}

/** Of a row that is too large to be looked at. */
export const TOO_LARGE: RowFault = {
  column: null,
  keyword: 'size',
  wants: `must not have more than ${ROW_BYTES_MAX} bytes of text, to be checked`,
};

/** Of a row of which a value is in another row that was left out. */
export const RESTS_ON_REJECTED: RowFault = {
  column: null,
  keyword: 'unchanged',
  wants: 'must bring all its values: those that it leaves unchanged are of a row that was rejected before',
};

const KEY_CHARACTERS_MAX = 200;

/** `id = 7`; which row it is, and nothing else of it. */
export function shownKey({ columns, values }: RowKey): string {
  const text = columns.map((name, i) => `${name} = ${values[i]}`).join(', ');
  return text.length > KEY_CHARACTERS_MAX ? `${text.slice(0, KEY_CHARACTERS_MAX)}…` : text;
}

/** Throws CONFIG_INVALID. */
export function compiled(compiler: SchemaCompiler, schema: JsonSchema, table: string): CompiledSchema {
  try {
    return compiler.compile(schema);
  } catch (error) {
    throw new SluiceError(
      'CONFIG_INVALID',
      {
        problem: `tables: json_schema of ${table} is no schema that rows can be checked by: ${error instanceof Error ? error.message : String(error)}`,
        remedy: 'Correct the file that json_schema names (JSON Schema draft-07, 2019-09 or 2020-12).',
      },
      { cause: error },
    );
  }
}
