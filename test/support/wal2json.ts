/**
 * Messages of wal2json as version 2.5 prints them, written from its source (pg_decode_write_tuple, tuple_to_stringinfo), not from the decoder, so that
 * the two can disagree.
 */
import { NumberDoubts, type NumberDoubtsOptions } from '../../lib/decode/number-doubts.ts';
import { Wal2jsonDecoder } from '../../lib/decode/wal2json.ts';
import { Wal2jsonV1 } from '../../lib/decode/wal2json-v1.ts';
import { Wal2jsonV2 } from '../../lib/decode/wal2json-v2.ts';
import type { SourceTable } from '../../lib/ports.ts';
import { type Call, recorder } from './pgoutput.ts';
import { sourceTable } from './source-tables.ts';

export interface PrintedColumn {
  readonly name: string;
  /** As format_type prints it. */
  readonly type: string;
  readonly type_oid: number;
  readonly number: number;
  /** Text of the value; null: NULL; left out: unchanged. */
  readonly value?: string | null;
}

const NUMBERS = new Set([20, 21, 23, 26, 700, 701, 1700]);
const ESCAPES: Readonly<Record<string, string>> = {
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '"': '\\"',
  '\\': '\\\\',
};

/** escape_json of utils/adt/json.c. */
export function escapeJson(text: string): string {
  const escaped = Array.from(text, (letter) => {
    const code = letter.codePointAt(0) as number;
    return ESCAPES[letter] ?? (code < 0x20 ? `\\u${code.toString(16).padStart(4, '0')}` : letter);
  });
  return `"${escaped.join('')}"`;
}

function printType(type: string): string {
  return type.startsWith('"') && !type.endsWith(']') ? type : escapeJson(type);
}

function printValue({ value, type_oid }: PrintedColumn): string {
  if (value === null || value === undefined) return 'null';
  if (NUMBERS.has(type_oid)) return /^-?(nan|infinity)/i.test(value) ? 'null' : value;
  if (type_oid === 16) return value === 't' ? 'true' : 'false';
  return escapeJson(type_oid === 17 ? value.slice(2) : value);
}

function shown(columns: readonly PrintedColumn[]): PrintedColumn[] {
  return columns.filter(({ value }) => value !== undefined);
}

/** Format 2: `row` of an insert or update, `old` of an update or deletion. */
export function change2(
  action: 'I' | 'U' | 'D' | 'T',
  { schema, table }: { readonly schema: string; readonly table: string },
  images: { readonly row?: readonly PrintedColumn[]; readonly old?: readonly PrintedColumn[] } = {},
): Buffer {
  const column = (printed: PrintedColumn, position: boolean): string => {
    const { name, type, type_oid, number } = printed;
    const tail = position ? `,"position":${number}` : '';
    return `{"name":${escapeJson(name)},"type":${printType(type)},"typeoid":${type_oid | 0},"value":${printValue(printed)}${tail}}`;
  };
  const list = (name: string, columns: readonly PrintedColumn[] | undefined, position: boolean): string =>
    columns
      ? `,"${name}":[${shown(columns)
          .map((printed) => column(printed, position))
          .join(',')}]`
      : '';
  return Buffer.from(
    `{"action":"${action}","xid":7,"timestamp":"2026-11-21 10:00:00.25+00","lsn":"0/16B3748","schema":${escapeJson(schema)},"table":${escapeJson(table)}` +
      `${list('columns', images.row, true)}${list('identity', images.old, false)}}`,
  );
}

/** Format 1, in chunks. `first`: no comma before it. */
export function change1(
  kind: 'insert' | 'update' | 'delete',
  { schema, table }: { readonly schema: string; readonly table: string },
  images: { readonly row?: readonly PrintedColumn[]; readonly old?: readonly PrintedColumn[] },
  first = true,
): Buffer {
  const lists = (prefix: string, columns: readonly PrintedColumn[], positions: boolean): string =>
    [
      `"${prefix}names":[${columns.map(({ name }) => escapeJson(name)).join(',')}]`,
      `"${prefix}types":[${columns.map(({ type }) => printType(type)).join(',')}]`,
      `"${prefix}typeoids":[${columns.map(({ type_oid }) => type_oid).join(',')}]`,
      ...(positions ? [`"columnpositions":[${columns.map(({ number }) => number).join(',')}]`] : []),
      `"${prefix}values":[${columns.map(printValue).join(',')}]`,
    ].join(',');
  const row = images.row ? `,${lists('column', shown(images.row), true)}` : '';
  const old = images.old
    ? `,"oldkeys":{${lists(
        'key',
        shown(images.old).filter(({ value }) => value !== null),
        false,
      )}}`
    : '';
  return Buffer.from(
    `${first ? '' : ','}{"kind":"${kind}","schema":${escapeJson(schema)},"table":${escapeJson(table)}${row}${old}}`,
  );
}

export interface Decoding {
  readonly decoder: Wal2jsonDecoder;
  readonly calls: Call[];
  /** Codes of streams that were given up. */
  readonly failed: string[];
  /** How often the catalog was asked. */
  readonly asked: () => number;
  /** Decodes the messages, and asks the catalog where it must. */
  readonly feed: (...messages: readonly Buffer[]) => Promise<void>;
}

/** A decoder over a catalog, which may be of a later time than the first look at it. `doubts`: what the source has of numbers in doubt, and how many there may be. */
export function decoding(
  format: 1 | 2,
  first: readonly SourceTable[],
  catalog = first,
  numbers_as_text = false,
  doubts: Partial<Pick<NumberDoubtsOptions, 'lookUp' | 'rows_max'>> = {},
): Decoding {
  const { calls, sink } = recorder();
  const failed: string[] = [];
  let asked = 0;
  const decoder = new Wal2jsonDecoder(sink, {
    tables: first,
    catalog: () => {
      asked++;
      return Promise.resolve(catalog);
    },
    reader: format === 2 ? new Wal2jsonV2() : new Wal2jsonV1(),
    numbers_as_text,
    doubts: new NumberDoubts({
      lookUp: () => Promise.resolve([]),
      fail: (_, { code }) => failed.push(code),
      ...doubts,
    }),
  });
  const feed = async (...messages: readonly Buffer[]): Promise<void> => {
    for (const message of messages) {
      const bytes = Buffer.concat([Buffer.from('before'), message, Buffer.from('after')]);
      decoder.decode(bytes, 6, 6 + message.length);
      if (decoder.waits) await decoder.proceed();
    }
  };
  return { decoder, calls, failed, asked: () => asked, feed };
}

/** The catalog's view of printed columns. */
export function catalogOf(
  columns: readonly PrintedColumn[],
  key: readonly string[],
  more: Partial<SourceTable> = {},
): SourceTable {
  return sourceTable('public.t', {
    oid: 5000,
    columns: columns.map(({ name, type_oid, number }) => ({
      name,
      type_oid,
      type_modifier: -1,
      number,
      not_null: key.includes(name),
    })),
    key,
    ...more,
  });
}
