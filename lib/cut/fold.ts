/**
 * One stream's share of a cut, folded: each key ends as at most one row and one deletion, whatever happened to it in between (design §3, Cut and
 * segments). A hot row costs one row. Order within the share no longer matters, so the loader's SQL can work on sets.
 *
 * Rows are COPY lines in the arena; a row that lacks unchanged values (I7) is merged with what the cut already has of it, field by field, and
 * otherwise stays partial under its set of columns. Nothing is parsed and no value is ever a JavaScript value (I6).
 */
import { type OldImage, type Tuple, VALUE } from '../change.ts';
import type { Lsn } from '../lsn.ts';
import { hasLsnColumn, isLsnColumn } from '../lsn-column.ts';
import type { Piece } from '../piece.ts';
import type { Shape } from '../shape.ts';
import type { BlockKind } from '../stage/segment.ts';
import type { Arena } from './arena.ts';
import { ColumnSets } from './column-sets.ts';
import { CommitPositions, POSITION_BYTES_MAX } from './commit-positions.ts';
import { fieldEnd, lineBytesMax, NEWLINE, TAB, writeValue } from './copy-text.ts';
import { DeletionTimes } from './deletion-times.ts';
import { giantLine } from './giant-line.ts';
import { KeyTable } from './key-table.ts';
import { KeyText } from './key-text.ts';
import { Lines } from './lines.ts';

/** Different sets of present columns in one share; each costs the loader a COPY. More of them, and the share is staged. */
const COLUMN_SETS_MAX = 64;
const NO_LINE = -1;
const FULL = -1;

export interface FoldedBlock {
  readonly kind: BlockKind;
  readonly columns: readonly number[];
  readonly rows: number;
  /** COPY text, in pieces that are views of the arena: to be used, once, before the arena is reset. */
  readonly pieces: Piece[];
}

export class Fold {
  readonly shape: Shape;
  #arena: Arena;
  /** Rows outlive their deletion (soft delete): the last values stay beside the mark. */
  #keepsDeleted: boolean;
  #keys: KeyTable;
  #lineAt: Int32Array;
  #lineEnd: Int32Array;
  #lineSet: Int32Array;
  /** Microseconds since the Unix epoch; NaN: not deleted. */
  #deletedAt: Float64Array;
  /** 1: the source did not have the key before this share. Of no use where rows outlive their deletion. */
  #isNew: Uint8Array;
  #sets = new ColumnSets();
  #rekeys: { at: number; end: number; set: number }[] = [];
  /** Entries of the keys that rows were moved from by a `rekey`. */
  #left = new Set<number>();
  /** The line of a row with giant values: such a row has a share of its own, so that nothing is ever merged with it. */
  #giant: { readonly kind: 'rekey' | 'row'; readonly pieces: readonly Piece[]; readonly set: number } | null = null;
  #key: KeyText;
  #oldKey: KeyText;
  #present: Uint8Array;
  /** Where rows have them: the last column of the shape is their position, and no row of the log has that. */
  #positions: CommitPositions | null;

  /** `expected`: what the stream's last share had; this one is likely to have as much. */
  constructor(arena: Arena, shape: Shape, keepsDeleted: boolean, expected?: Pick<Fold, 'keys' | 'keyBytes'>) {
    this.#keys = new KeyTable(expected && { size: expected.keys, keyBytes: expected.keyBytes });
    const entries = this.#keys.room;
    this.#lineAt = new Int32Array(entries);
    this.#lineEnd = new Int32Array(entries);
    this.#lineSet = new Int32Array(entries);
    this.#deletedAt = new Float64Array(entries);
    this.#isNew = new Uint8Array(entries);
    this.#arena = arena;
    this.shape = shape;
    this.#keepsDeleted = keepsDeleted;
    this.#key = new KeyText(shape);
    this.#oldKey = new KeyText(shape);
    this.#present = new Uint8Array(shape.columns.length);
    this.#positions = hasLsnColumn(shape) ? new CommitPositions() : null;
    if (this.#positions) this.#present[shape.columns.length - 1] = 1;
  }

  /** Keys that this share touches. */
  get keys(): number {
    return this.#keys.size;
  }

  get keyBytes(): number {
    return this.#keys.keyBytes;
  }

  get isFull(): boolean {
    return this.#sets.size >= COLUMN_SETS_MAX;
  }

  /** False, here and below: the share must be staged before this change (see `#rekey`). */
  insert(row: Tuple): boolean {
    this.#key.read(row);
    if (this.#isLeft()) return false;
    const before = this.#keys.size;
    const index = this.#entry();
    if (index === before && !this.#keepsDeleted) this.#isNew[index] = 1;
    this.#put(index, row);
    return true;
  }

  update(oldImage: OldImage, old: Tuple, row: Tuple): boolean {
    if (oldImage !== 'none') this.#complete(oldImage, old, row);
    this.#key.read(row);
    if (oldImage !== 'none') {
      this.#oldKey.read(old);
      if (!this.#key.equals(this.#oldKey)) return this.#move(row);
    }
    this.#put(this.#entry(), row);
    return true;
  }

  delete(old: Tuple, deleted_at_us: number): true {
    this.#key.read(old);
    this.#mark(this.#entry(), deleted_at_us);
    return true;
  }

  /** The time of a change of key's deletion is its transaction's: set before the transaction's changes. */
  committedAt_us = 0;

  /** And where it commits. */
  set commit_lsn(lsn: Lsn) {
    if (this.#positions) this.#positions.at = lsn;
  }

  /** A change of key: a delete and an insert. */
  #move(row: Tuple): boolean {
    if (this.#isLeft()) return false;
    const from = this.#keys.find(this.#oldKey.bytes, 0, this.#oldKey.end);
    if (isWhole(row)) {
      this.#markOld();
      this.#put(this.#entry(), row);
      return true;
    }
    if (from >= 0 && this.#lineAt[from] !== NO_LINE && this.#lineSet[from] === FULL) {
      const at = this.#lineAt[from] as number;
      const end = this.#lineEnd[from] as number;
      this.#markOld();
      this.#merge(this.#entry(), row, at, end, FULL);
      return true;
    }
    return this.#rekey(from, row);
  }

  /**
   * The key changed and a value is absent: only the target's row has it. Such moves are applied before everything else of the share, so neither key
   * may have been touched in it; and no other row may come to the key that was left, for the loader must see that one did (lib/load/doubts.ts).
   */
  #rekey(from: number, row: Tuple): boolean {
    const to = this.#keys.find(this.#key.bytes, 0, this.#key.end);
    if (from >= 0 || to >= 0) return false;
    const set = this.#setOf(row);
    if (row.giants) {
      const oldKey = Buffer.from(`${this.#oldKey.bytes.toString('latin1', 0, this.#oldKey.end)}\t`, 'latin1');
      this.#giant = { kind: 'rekey', pieces: [oldKey, ...giantLine(row, this.#positions?.text)], set };
    } else {
      this.#rekeys.push({ ...this.#writeRekey(row), set });
    }
    this.#entry();
    this.#left.add(this.#markOld());
    return true;
  }

  /** True: the current key is one that a row was moved from. */
  #isLeft(): boolean {
    return this.#left.size > 0 && this.#left.has(this.#keys.find(this.#key.bytes, 0, this.#key.end));
  }

  /** The old key, and what the row has. */
  #writeRekey(row: Tuple): { at: number; end: number } {
    this.#arena.reserve(this.#oldKey.end + 1 + lineBytesMax(row) + POSITION_BYTES_MAX);
    const start = this.#arena.used;
    let at = start + this.#oldKey.bytes.copy(this.#arena.bytes, start, 0, this.#oldKey.end);
    this.#arena.bytes[at++] = TAB;
    at = this.#writePresent(at, row);
    this.#arena.commit(at);
    return { at: start, end: at };
  }

  #markOld(): number {
    const before = this.#keys.size;
    const index = this.#keys.add(this.#oldKey.bytes, 0, this.#oldKey.end);
    if (index === before) this.#openEntry(index);
    this.#mark(index, this.committedAt_us);
    return index;
  }

  #mark(index: number, deleted_at_us: number): void {
    if (!this.#keepsDeleted) this.#lineAt[index] = NO_LINE;
    this.#positions?.noteDeleted(index);
    this.#deletedAt[index] = deleted_at_us;
  }

  /** Index of the current key's entry. */
  #entry(): number {
    const before = this.#keys.size;
    const index = this.#keys.add(this.#key.bytes, 0, this.#key.end);
    if (index === before) this.#openEntry(index);
    return index;
  }

  #openEntry(index: number): void {
    if (index === this.#lineAt.length) {
      const size = this.#lineAt.length * 2;
      this.#lineAt = grown(this.#lineAt, new Int32Array(size));
      this.#lineEnd = grown(this.#lineEnd, new Int32Array(size));
      this.#lineSet = grown(this.#lineSet, new Int32Array(size));
      this.#deletedAt = grown(this.#deletedAt, new Float64Array(size));
      this.#isNew = grown(this.#isNew, new Uint8Array(size));
    }
    this.#lineAt[index] = NO_LINE;
    this.#deletedAt[index] = Number.NaN;
    this.#isNew[index] = 0;
  }

  #put(index: number, row: Tuple): void {
    this.#deletedAt[index] = Number.NaN;
    const whole = isWhole(row);
    if (row.giants) {
      this.#giant = {
        kind: 'row',
        pieces: giantLine(row, this.#positions?.text),
        set: whole ? FULL : this.#setOf(row),
      };
      return;
    }
    if (!whole && this.#lineAt[index] !== NO_LINE) {
      const at = this.#lineAt[index] as number;
      this.#merge(index, row, at, this.#lineEnd[index] as number, this.#lineSet[index] as number);
      return;
    }
    this.#arena.reserve(lineBytesMax(row) + POSITION_BYTES_MAX);
    const start = this.#arena.used;
    const set = whole ? FULL : this.#setOf(row);
    this.#take(index, start, this.#writePresent(start, row), set);
  }

  /** Writes the row's present values over the line `[at, end)` of `set`. */
  #merge(index: number, row: Tuple, lineAt: number, lineEnd: number, set: number): void {
    this.#deletedAt[index] = Number.NaN;
    this.#arena.reserve(lineBytesMax(row) + (lineEnd - lineAt) + POSITION_BYTES_MAX);
    const out = this.#arena.bytes;
    const had = set === FULL ? null : this.#sets.at(set).has;
    const start = this.#arena.used;
    let at = start;
    let from = lineAt;
    let whole = true;
    for (let i = 0; i < row.count; i++) {
      const inLine = had === null || had[i] === 1;
      const fieldStart = from;
      let fieldStop = from;
      if (inLine) {
        fieldStop = fieldEnd(out, from, lineEnd);
        from = fieldStop + 1;
      }
      if (row.kind[i] !== VALUE.unchanged) at = writeValue(out, at, row, i);
      else if (inLine) at += out.copy(out, at, fieldStart, fieldStop);
      else {
        this.#present[i] = 0;
        whole = false;
        continue;
      }
      this.#present[i] = 1;
      out[at++] = TAB;
    }
    at = this.#writePosition(at);
    out[at - 1] = NEWLINE;
    this.#take(index, start, at, whole ? FULL : this.#sets.numberOf(this.#present));
  }

  #take(index: number, start: number, end: number, set: number): void {
    this.#arena.commit(end);
    this.#lineAt[index] = start;
    this.#lineEnd[index] = end;
    this.#lineSet[index] = set;
  }

  #writePresent(at: number, row: Tuple): number {
    const out = this.#arena.bytes;
    let position = at;
    for (let i = 0; i < row.count; i++) {
      if (row.kind[i] === VALUE.unchanged) continue;
      position = writeValue(out, position, row, i);
      out[position++] = TAB;
    }
    position = this.#writePosition(position);
    out[position - 1] = NEWLINE;
    return position;
  }

  #writePosition(at: number): number {
    if (this.#positions === null) return at;
    const end = at + this.#positions.text.copy(this.#arena.bytes, at);
    this.#arena.bytes[end] = TAB;
    return end + 1;
  }

  #setOf(row: Tuple): number {
    for (let i = 0; i < row.count; i++) this.#present[i] = row.kind[i] === VALUE.unchanged ? 0 : 1;
    return this.#sets.numberOf(this.#present);
  }

  /**
   * Fills in what the new image leaves out and the old one has: under REPLICA IDENTITY FULL every unchanged value (I7), and else a key's
   * value that lies outside the row.
   */
  #complete(oldImage: OldImage, old: Tuple, row: Tuple): void {
    for (let i = 0; i < row.count; i++) {
      if (row.kind[i] !== VALUE.unchanged || old.kind[i] !== VALUE.text) continue;
      if (oldImage === 'key' && !this.shape.key.includes(i)) continue;
      row.kind[i] = VALUE.text;
      row.start[i] = old.start[i] as number;
      row.end[i] = old.end[i] as number;
      const giant = old.giants?.get(i);
      if (giant) (row.giants ??= new Map()).set(i, giant);
    }
  }

  /** What the loader gets, in the order of BLOCK_KINDS. */
  blocks(): FoldedBlock[] {
    const { bytes } = this.#arena;
    const deletes = new Lines();
    const inserts = new Lines();
    const upserts = new Lines();
    const updates = new Map<number, Lines>();
    const deletedAt = new DeletionTimes();
    for (let index = 0; index < this.#keys.size; index++) {
      const deleted_at_us = this.#deletedAt[index] as number;
      if (!Number.isNaN(deleted_at_us)) {
        deletes.addWithTail(
          this.#keys.keys,
          this.#keys.keyStart(index),
          this.#keys.keyEnd(index),
          deletedAt.tail(deleted_at_us, this.#positions?.deletedAt(index) ?? null),
        );
      }
      const lineAt = this.#lineAt[index] as number;
      if (lineAt === NO_LINE) continue;
      const set = this.#lineSet[index] as number;
      const whole = this.#isNew[index] === 1 ? inserts : upserts;
      const lines = set === FULL ? whole : linesOf(updates, set);
      lines.add(bytes, lineAt, this.#lineEnd[index] as number);
    }
    const rekeys = new Map<number, Lines>();
    for (const { at, end, set } of this.#rekeys) linesOf(rekeys, set).add(bytes, at, end);
    if (this.#giant) {
      const { kind, pieces, set } = this.#giant;
      const lines = kind === 'rekey' ? linesOf(rekeys, set) : set === FULL ? upserts : linesOf(updates, set);
      lines.addPieces(pieces);
    }
    const all = this.shape.columns.map((_, i) => i);
    const ofDelete = [...this.shape.key, ...all.filter((i) => isLsnColumn(this.shape.columns[i] ?? {}))];
    return [
      ...this.#partial('rekey', rekeys),
      block('delete', ofDelete, deletes),
      block('insert', all, inserts),
      block('upsert', all, upserts),
      ...this.#partial('update', updates),
    ].filter(({ rows }) => rows > 0);
  }

  #partial(kind: BlockKind, bySet: Map<number, Lines>): FoldedBlock[] {
    return [...bySet].map(([set, lines]) => block(kind, this.#sets.at(set).columns, lines));
  }
}

function block(kind: BlockKind, columns: readonly number[], lines: Lines): FoldedBlock {
  return { kind, columns, rows: lines.count, pieces: lines.pieces() };
}

function linesOf(bySet: Map<number, Lines>, set: number): Lines {
  let lines = bySet.get(set);
  if (!lines) {
    lines = new Lines();
    bySet.set(set, lines);
  }
  return lines;
}

function isWhole(row: Tuple): boolean {
  for (let i = 0; i < row.count; i++) if (row.kind[i] === VALUE.unchanged) return false;
  return true;
}

function grown<T extends Int32Array | Float64Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
