/**
 * A column's text as the JSON value that a schema speaks of. Beside the path: what is made here is looked at and forgotten, and the text travels on (I6).
 *
 * Numbers are JSON numbers where that is exact, for a schema must not judge another value than the row has; else they stay text. So do NaN, the infinities and
 * all types that JSON has nothing for.
 */
import { type Column, type TypeUse } from '../shape.ts';

export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

/** pg_type.dat. */
export const TYPE = {
  bool: 16,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  json: 114,
  float4: 700,
  float8: 701,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  timestamp: 1114,
  timestamptz: 1184,
  numeric: 1700,
  jsonb: 3802,
} as const;

const INTEGERS: ReadonlySet<number> = new Set([TYPE.int2, TYPE.int4, TYPE.int8, TYPE.oid]);
const FLOATS: ReadonlySet<number> = new Set([TYPE.float4, TYPE.float8]);
const DOCUMENTS: ReadonlySet<number> = new Set([TYPE.json, TYPE.jsonb]);

/** What a column's text becomes. `text` stays as it is. */
export type ValueKind = 'integer' | 'numeric' | 'float' | 'boolean' | 'json' | 'text';

/** A domain is read as what it is over, where that is known. */
export function valueKind(column: Pick<Column, 'type_oid' | 'type'>): ValueKind {
  const oid = baseOf(column).type_oid;
  if (INTEGERS.has(oid)) return 'integer';
  if (oid === TYPE.numeric) return 'numeric';
  if (FLOATS.has(oid)) return 'float';
  if (oid === TYPE.bool) return 'boolean';
  return DOCUMENTS.has(oid) ? 'json' : 'text';
}

/** What a domain is over in the end; any other type itself. */
export function baseOf<Use extends Pick<TypeUse, 'type_oid' | 'type'>>(use: Use): Use | TypeUse {
  return use.type?.kind === 'domain' ? baseOf(use.type.base) : use;
}

/** Throws nothing: text that is not of its kind stays text, and the schema refuses it. */
export function jsonValue(kind: ValueKind, text: string): JsonValue {
  switch (kind) {
    case 'integer': {
      const number = Number(text);
      return Number.isSafeInteger(number) ? number : text;
    }
    case 'numeric':
      return isExact(text) ? Number(text) : text;
    case 'float': {
      // Printed so that it reads back as the same (extra_float_digits is pinned).
      const number = Number(text);
      return Number.isFinite(number) ? number : text;
    }
    case 'boolean':
      return text === 't' || text === 'true' ? true : text === 'f' || text === 'false' ? false : text;
    case 'json':
      try {
        return JSON.parse(text) as JsonValue;
      } catch {
        return text; // Deeper than a parser goes, or a number of json that JSON.parse has no room for.
      }
    case 'text':
      return text;
    default:
      return kind satisfies never;
  }
}

/** DBL_DIG: any decimal of so many digits is told apart from all others by its double. */
const EXACT_DIGITS = 15;
/** Further from zero, or nearer to it, doubles have gaps or end. */
const EXPONENT_MAX = 290;
const DECIMAL = /^-?(\d+)(?:\.(\d+))?$/u;

function isExact(text: string): boolean {
  const parts = DECIMAL.exec(text);
  if (parts === null) return false;
  const digits = `${parts[1] ?? ''}${parts[2] ?? ''}`.replace(/^0+/u, '').replace(/0+$/u, '');
  if (digits.length <= EXACT_DIGITS)
    return (parts[1] ?? '').length <= EXPONENT_MAX && (parts[2] ?? '').length <= EXPONENT_MAX;
  return (parts[2] ?? '').replace(/0+$/u, '') === '' && Number.isSafeInteger(Number(text));
}
