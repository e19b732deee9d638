/**
 * The JSON Schema of a table of which the pipeline file names none: made from the types of its columns, as tap-postgres makes a stream's. What PostgreSQL has let
 * in passes, but for values that JSON has nothing for: NaN and the infinities, and times that are no date-time (infinity, before Christ, after the year 9999).
 *
 * Pure; made for each description of a table.
 */
import type { Column, Shape } from '../shape.ts';
import { baseOf, TYPE } from './values.ts';

export type JsonSchema = Readonly<Record<string, unknown>>;

/** VARHDRSZ (postgres.h): a modifier of varchar(n) and char(n) is n + 4. */
const MODIFIER_BYTES = 4;
/** Of integers that no double holds, and of numbers with more digits than one has: they are checked as text (values.ts). */
const INTEGER_TEXT = '^-?[0-9]+$';
const DECIMAL_TEXT = '^-?[0-9]+([.][0-9]+)?$';

export function catalogSchema({ columns, key }: Shape): JsonSchema {
  return {
    type: 'object',
    properties: Object.fromEntries(columns.map((column, i) => [column.name, columnSchema(column, key.includes(i))])),
    required: key.map((i) => columns[i]?.name ?? ''),
  };
}

function columnSchema(column: Column, isKey: boolean): JsonSchema {
  const types = (...names: string[]): readonly string[] => (isKey ? names : ['null', ...names]);
  const { type_oid, type_modifier } = baseOf(column);
  switch (type_oid) {
    case TYPE.bool:
      return { type: types('boolean') };
    case TYPE.int2:
      return { type: types('integer'), minimum: -32_768, maximum: 32_767 };
    case TYPE.int4:
      return { type: types('integer'), minimum: -2_147_483_648, maximum: 2_147_483_647 };
    case TYPE.oid:
      return { type: types('integer'), minimum: 0, maximum: 4_294_967_295 };
    case TYPE.int8:
      return { type: types('integer', 'string'), pattern: INTEGER_TEXT };
    case TYPE.numeric:
      return { type: types('number', 'string'), pattern: DECIMAL_TEXT };
    case TYPE.float4:
    case TYPE.float8:
      return { type: types('number') };
    case TYPE.json:
    case TYPE.jsonb:
      return {};
    case TYPE.date:
      return { type: types('string'), format: 'date' };
    case TYPE.timestamp:
      return { type: types('string'), format: 'iso-date-time' };
    case TYPE.timestamptz:
      return { type: types('string'), format: 'date-time' };
    case TYPE.varchar:
    case TYPE.bpchar:
      return type_modifier > MODIFIER_BYTES
        ? { type: types('string'), maxLength: type_modifier - MODIFIER_BYTES }
        : { type: types('string') };
    default:
      return { type: types('string') };
  }
}
