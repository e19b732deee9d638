/**
 * Columns of one row image as a wal2json message shows them: where each value lies, and which column of the table it is of. Reused from row to row.
 */
import { TUPLE_COLUMNS_MAX, type Tuple, VALUE } from '../change.ts';
import type { Piece } from '../piece.ts';
import { JSON_KIND, type JsonBytes, unescape } from './json-bytes.ts';
import type { KnownTable, SeenColumn } from './wal2json-table.ts';

const BOOL = 16;
const BYTEA = 17;
/** float4, float8, numeric: NaN and the infinities are printed as null, unless the plugin was asked for strings (2.6). */
const SPECIAL_NUMBERS = new Set([700, 701, 1700]);
const BACKSLASH = 0x5c;
const X = 0x78;
const HEX_PREFIX = Buffer.from('\\x');

export class Image {
  /** The message has it. */
  present = false;
  count = 0;
  readonly index = new Int32Array(TUPLE_COLUMNS_MAX);
  readonly kind = new Uint8Array(TUPLE_COLUMNS_MAX);
  readonly from = new Int32Array(TUPLE_COLUMNS_MAX);
  readonly to = new Int32Array(TUPLE_COLUMNS_MAX);
  /** 1: the string has escapes. Of a giant: its number. */
  readonly more = new Int32Array(TUPLE_COLUMNS_MAX);
  /** The columns, where they had to be read; null: they are as they were in the last message. */
  seen: SeenColumn[] | null = null;

  /** Takes the scalar that `json` has just read for that of column `index`. */
  put(index: number, json: JsonBytes): void {
    const i = this.count++;
    if (i >= TUPLE_COLUMNS_MAX) throw json.fault('too many columns');
    this.index[i] = index;
    this.kind[i] = json.kind;
    this.from[i] = json.from;
    this.to[i] = json.to;
    this.more[i] = json.kind === JSON_KIND.giant ? json.giant : json.escaped ? 1 : 0;
  }

  /** Finds the columns that had to be read among the table's; false: one is not there. */
  match(table: KnownTable): boolean {
    let next = 0;
    for (const [i, seen] of (this.seen ?? []).entries()) {
      const found = table.find(seen, next);
      this.index[i] = found;
      if (found < 0) return false;
      next = found + 1;
    }
    return true;
  }

  /** True: a column is missing that no row leaves out, or, of a `whole` row, any column. */
  lacks(table: KnownTable, whole: boolean): boolean {
    if (this.count === table.columns.length) return false;
    if (whole) return true;
    let at = 0;
    for (let column = 0; column < table.columns.length; column++) {
      if (at < this.count && this.index[at] === column) at++;
      else if (!table.mayBeLeftOut(column)) return true;
    }
    return false;
  }

  /** The columns as seen, also where they did not have to be read. */
  columns(table: KnownTable): readonly SeenColumn[] {
    return this.seen ?? Array.from(this.index.subarray(0, this.count), (column) => table.columns[column] as SeenColumn);
  }

  /**
   * Fills `tuple`, undoing escapes in place; columns that the image lacks become `missing`. Returns the places of those whose null may stand for NaN
   * or an infinity, or null for none.
   */
  fill(
    tuple: Tuple,
    table: KnownTable,
    bytes: Buffer,
    giants: readonly (readonly Piece[])[],
    missing: number,
    numbers_as_text: boolean,
  ): number[] | null {
    let unknown: number[] | null = null;
    tuple.bytes = bytes;
    tuple.count = table.count;
    tuple.giants = null;
    tuple.kind.fill(missing, 0, table.count);
    for (let i = 0; i < this.count; i++) {
      const column = this.index[i] as number;
      const place = table.places[column] as number;
      if (place < 0) continue;
      const type_oid = table.columns[column]?.type_oid as number;
      let from = this.from[i] as number;
      let to = this.to[i] as number;
      tuple.kind[place] = VALUE.text;
      switch (this.kind[i]) {
        case JSON_KIND.null:
          tuple.kind[place] = VALUE.null;
          if (!numbers_as_text && SPECIAL_NUMBERS.has(type_oid)) (unknown ??= []).push(place);
          break;
        case JSON_KIND.bare:
          if (type_oid === BOOL) to = from + 1; // true, false → t, f
          break;
        case JSON_KIND.string:
          if (this.more[i] === 1) to = unescape(bytes, from, to);
          if (type_oid === BYTEA) {
            // What wal2json leaves out comes back over the quote and the sign before it, which have been read.
            from -= 2;
            bytes[from] = BACKSLASH;
            bytes[from + 1] = X;
          }
          break;
        default: {
          const pieces = giants[this.more[i] as number] ?? [];
          tuple.giants ??= new Map();
          tuple.giants.set(place, type_oid === BYTEA ? [HEX_PREFIX, ...pieces] : pieces);
          to = from;
        }
      }
      tuple.start[place] = from;
      tuple.end[place] = to;
    }
    return unknown;
  }
}
