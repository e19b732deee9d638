/**
 * DynamoDB's typed attributes: how each kind of value is written and read back, and the size that DynamoDB will count.
 *
 * A noun's item is a table of fields (items.ts), so that a field is declared once for both directions. What is read was written by Sluice,
 * or by something else that has the right: every value is checked, and what is wrong is a Damage that names the field, never an
 * `undefined` further down the path.
 */
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import { formatLsn, type Lsn, parseLsn } from '../lsn.ts';

export type Attributes = Record<string, AttributeValue>;

/** Writes a value as an attribute (undefined: the attribute is absent) and reads it back. `read` throws Damage. */
export interface Codec<T> {
  write(value: T): AttributeValue | undefined;
  read(value: AttributeValue | undefined): T;
}

/** An attribute that is not what it should be; `path` says which, from the outside in. */
export class Damage extends Error {
  readonly path: readonly string[];
  readonly wanted: string;

  constructor(wanted: string, path: readonly string[] = []) {
    super(`${path.join('.') || 'it'} is not ${wanted}`);
    this.wanted = wanted;
    this.path = path;
  }
}

export const text: Codec<string> = {
  write: (value) => ({ S: value }),
  read: (value) => value?.S ?? fail('text'),
};

/** A whole number within JavaScript's safe range. */
export const whole: Codec<number> = {
  write: (value) => ({ N: String(Number.isSafeInteger(value) ? value : fail('a whole number')) }),
  read: (value) => {
    const read = numberOf(value);
    return Number.isSafeInteger(read) ? read : fail('a whole number');
  },
};

/** A measure: any finite number. */
export const measure: Codec<number> = {
  write: (value) => ({ N: String(Number.isFinite(value) ? value : fail('a number')) }),
  read: (value) => {
    const read = numberOf(value);
    return Number.isFinite(read) ? read : fail('a number');
  },
};

export const truth: Codec<boolean> = {
  write: (value) => ({ BOOL: value }),
  read: (value) => value?.BOOL ?? fail('true or false'),
};

/** As PostgreSQL prints it, so that a person who looks into the table can compare. Nothing sorts by it. */
export const lsn: Codec<Lsn> = {
  write: (value) => ({ S: formatLsn(value) }),
  read: (value) => {
    try {
      return parseLsn(text.read(value));
    } catch {
      return fail('an LSN');
    }
  },
};

export function oneOf<T extends string>(values: readonly T[]): Codec<T> {
  return {
    write: (value) => ({ S: value }),
    read: (value) => values.find((known) => known === value?.S) ?? fail(`one of ${values.join(', ')}`),
  };
}

/** DynamoDB's NULL for null: the attribute is there, and says that there is nothing. */
export function nullable<T>(codec: Codec<T>): Codec<T | null> {
  return {
    write: (value) => (value === null ? { NULL: true } : codec.write(value)),
    read: (value) => (value?.NULL ? null : codec.read(value)),
  };
}

/** Null is an attribute that is not there: what a condition can ask for with attribute_not_exists. */
export function absentWhenNull<T>(codec: Codec<T>): Codec<T | null> {
  return {
    write: (value) => (value === null ? undefined : codec.write(value)),
    read: (value) => (value === undefined ? null : codec.read(value)),
  };
}

export function list<T>(codec: Codec<T>): Codec<readonly T[]> {
  return {
    write: (values) => ({ L: values.map((value) => codec.write(value) ?? fail('a list without gaps')) }),
    read: (value) => (value?.L ?? fail('a list')).map((element, i) => within(String(i), () => codec.read(element))),
  };
}

/** What counts more than this in an item is packed. */
export const PACKED_BYTES_MIN = 32 * 1024;
/** Of what is unpacked: far more than an item could hold of it. */
const UNPACKED_BYTES_MAX = 64 * 1024 * 1024;

/**
 * A value that grows with the number of streams: as it is while it is small, and so readable in the table; else its JSON, zstd, as bytes. Thousands of streams
 * would be more than an item takes (I8).
 */
export function packedWhenLarge<T>(codec: Codec<T>): Codec<T> {
  return {
    write: (value) => {
      const plain = codec.write(value);
      if (plain === undefined || valueBytes(plain) < PACKED_BYTES_MIN) return plain;
      // Not as a Buffer: what is read back is none, and the two are compared.
      return { B: new Uint8Array(zstdCompressSync(JSON.stringify(plain))) };
    },
    read: (value) => codec.read(value?.B === undefined ? value : unpacked(value.B)),
  };
}

function unpacked(bytes: Uint8Array): AttributeValue {
  try {
    return JSON.parse(
      zstdDecompressSync(bytes, { maxOutputLength: UNPACKED_BYTES_MAX }).toString('utf8'),
    ) as AttributeValue;
  } catch {
    return fail('packed JSON');
  }
}

/** A map whose names are not known before: streams by their id. */
export function dictionary<T>(codec: Codec<T>): Codec<Readonly<Record<string, T>>> {
  return {
    write: (values) => ({
      M: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, codec.write(value) ?? fail('a map')])),
    }),
    // fromEntries defines properties and assigns none: a stream that is called __proto__ is a stream.
    read: (value) =>
      Object.fromEntries(
        Object.entries(value?.M ?? fail('a map')).map(([name, element]) => [
          name,
          within(name, () => codec.read(element)),
        ]),
      ),
  };
}

/** The fields of a noun: every one of them, the optional ones too. */
export type FieldCodecs<T> = { readonly [Field in keyof T]-?: Codec<Required<T>[Field]> };

/** A field that T may lack: absent when it is undefined, and left out when it is absent. */
export function optional<T>(codec: Codec<T>): Codec<T> {
  return {
    write: (value) => codec.write(value),
    read: (value) => (value === undefined ? (undefined as T) : codec.read(value)),
  };
}

export function map<T extends object>(fields: FieldCodecs<T>): Codec<T> {
  return {
    write: (value) => ({ M: writeFields(fields, value) }),
    read: (value) => readFields(fields, value?.M ?? fail('a map')),
  };
}

/** Attributes of the fields that `value` has; the others are left out. */
export function writeFields<T extends object>(fields: FieldCodecs<T>, value: Partial<T>): Attributes {
  const attributes: Attributes = {};
  for (const name of fieldNames(fields)) {
    const field = value[name];
    if (field === undefined) continue;
    const attribute = within(name, () => fields[name].write(field as Required<T>[typeof name]));
    if (attribute !== undefined) attributes[name] = attribute;
  }
  return attributes;
}

export function readFields<T extends object>(fields: FieldCodecs<T>, attributes: Attributes): T {
  const read: Partial<T> = {};
  for (const name of fieldNames(fields)) {
    const value = within(name, () => fields[name].read(attributes[name]));
    if (value !== undefined) read[name] = value;
  }
  return read as T;
}

function fieldNames<T extends object>(fields: FieldCodecs<T>): Extract<keyof T, string>[] {
  return Object.keys(fields) as Extract<keyof T, string>[];
}

function numberOf(value: AttributeValue | undefined): number {
  return value?.N === undefined || value.N === '' ? Number.NaN : Number(value.N);
}

function fail(wanted: string): never {
  throw new Damage(wanted);
}

function within<T>(name: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw error instanceof Damage ? new Damage(error.wanted, [name, ...error.path]) : error;
  }
}

/**
 * Bytes that DynamoDB counts for an item, rounded up
 * (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html): names and texts in UTF-8, a number by
 * its digits, and 3 bytes a list or map plus 1 an element.
 */
export function itemBytes(attributes: Attributes): number {
  return Object.entries(attributes).reduce(
    (sum, [name, value]) => sum + Buffer.byteLength(name) + valueBytes(value),
    0,
  );
}

function valueBytes(value: AttributeValue): number {
  if (value.S !== undefined) return Buffer.byteLength(value.S);
  if (value.B !== undefined) return value.B.length;
  if (value.N !== undefined) return Math.ceil(value.N.length / 2) + 2;
  if (value.L !== undefined) return value.L.reduce((sum, element) => sum + 1 + valueBytes(element), 3);
  if (value.M !== undefined) return 3 + Object.keys(value.M).length + itemBytes(value.M);
  return 1;
}
