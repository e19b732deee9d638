/**
 * Segments for tests of the loader: what `segmentSource` gives, made from rows instead of staged bytes. The text comes in small pieces that end
 * anywhere, as it does from the stage.
 */
import { Readable } from 'node:stream';
import type { SegmentSource } from '../../lib/ports.ts';
import type { Shape } from '../../lib/shape.ts';
import { type BlockKind, SEGMENT_VERSION, type SegmentHeader } from '../../lib/stage/segment.ts';

/** A value as PostgreSQL writes it; null is NULL. */
export type Value = string | null;
export type Line = readonly Value[];

/** OIDs of pg_type.dat that tests use. */
export const TYPE = {
  bool: 16,
  bytea: 17,
  int8: 20,
  int4: 23,
  text: 25,
  json: 114,
  float8: 701,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  timestamptz: 1184,
  interval: 1186,
  numeric: 1700,
  uuid: 2950,
  jsonb: 3802,
} as const;

/** `shapeOf({ id: 'int4', name: 'text' }, ['id'])`; a type is a name above or `[oid, modifier]`. */
export function shapeOf(
  columns: Readonly<Record<string, keyof typeof TYPE | readonly [oid: number, modifier: number]>>,
  key: readonly string[],
): Shape {
  const entries = Object.entries(columns);
  return {
    columns: entries.map(([name, type]) => {
      const [type_oid, type_modifier] = typeof type === 'string' ? [TYPE[type], -1] : type;
      return { name, type_oid, type_modifier };
    }),
    key: entries.flatMap(([name], index) => (key.includes(name) ? [index] : [])),
  };
}

/** COPY text format (https://www.postgresql.org/docs/current/sql-copy.html, Text Format). */
export function copyLine(values: Line): string {
  const escapes: Readonly<Record<string, string>> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };
  const fields = values.map((value) => (value === null ? '\\N' : value.replace(/[\\\t\n\r]/g, (c) => escapes[c] ?? c)));
  return `${fields.join('\t')}\n`;
}

export interface BlockOf {
  readonly kind: BlockKind;
  /** Names, in the order of a line; not for `delete` (the key) and `upsert` (all of the shape). */
  readonly columns?: readonly string[];
  /** For `rekey`: the old key's values, then `columns`. For `delete`: the key's values, then the time. */
  readonly lines: readonly Line[];
  /** What the header says, where it is not the number of lines. */
  readonly rows?: number | null;
}

export interface SegmentOf {
  readonly stream?: string;
  readonly shape: Shape;
  readonly blocks?: readonly BlockOf[];
  readonly operation?: 'changes' | 'truncate';
  readonly described?: SegmentHeader['described'];
  readonly extracted_at?: string;
}

export interface TestSegment extends SegmentSource {
  /** Indexes of the blocks that were read to their end, in order. */
  readonly finished: number[];
}

const PIECE_BYTES = 7;

export function segmentOf({
  stream = 's',
  shape,
  blocks = [],
  operation = 'changes',
  extracted_at = EXTRACTED_AT,
  described,
}: SegmentOf): TestSegment {
  const finished: number[] = [];
  const indexOf = (name: string): number => {
    const index = shape.columns.findIndex((column) => column.name === name);
    if (index < 0) throw new RangeError(`no column ${name}`);
    return index;
  };
  const all = shape.columns.map((_, index) => index);
  const header: SegmentHeader = {
    version: SEGMENT_VERSION,
    stream,
    operation,
    shape,
    ...(described ? { described } : {}),
    extracted_at,
    blocks: blocks.map(({ kind, columns, lines, rows }) => ({
      kind,
      columns: columns?.map(indexOf) ?? (kind === 'delete' ? shape.key : all),
      rows: rows === undefined ? lines.length : rows,
    })),
  };
  const block = (index: number): Readable => {
    const text = Buffer.from((blocks[index]?.lines ?? []).map(copyLine).join(''));
    const readable = Readable.from(piecesOf(text), { objectMode: false });
    readable.once('end', () => finished.push(index));
    return readable;
  };
  return { header, block, finished };
}

export const EXTRACTED_AT = '2026-01-02T03:04:05.678Z';

function* piecesOf(text: Buffer): Generator<Buffer> {
  // Small pieces at first, then the rest: enough to show that a line may end anywhere.
  let at = 0;
  for (let piece = 0; piece < 20 && at < text.length; piece++) {
    yield text.subarray(at, at + PIECE_BYTES);
    at += PIECE_BYTES;
  }
  if (at < text.length) yield text.subarray(at);
}
