/**
 * One stream's share of a cut, folded, where the table has no key: rows are known by all their values, and what is kept is how many copies of each came
 * and went. Order within the share no longer matters, as in fold.ts.
 *
 * On the path it stands where the fold does. A value that an update left unchanged is taken from the old row, which REPLICA IDENTITY FULL logs whole
 * (I7); rows are told apart by their COPY text, and no value is ever a JavaScript value (I6).
 */
import { type OldImage, type Tuple, VALUE } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import type { Piece } from '../piece.ts';
import type { Shape } from '../shape.ts';
import type { BlockKind, CommitSpan } from '../stage/segment.ts';
import { lineBytesMax, NEWLINE, TAB, writeValue } from './copy-text.ts';
import { timestampText } from './deletion-times.ts';
import type { FoldedBlock } from './fold.ts';
import { giantLine } from './giant-line.ts';
import { KeyTable } from './key-table.ts';
import { Lines } from './lines.ts';

const ENTRIES_MIN = 32;

/**
 * A table without a key. `rows`: all its changes are followed (REPLICA IDENTITY FULL), or nothing but INSERT and TRUNCATE. `apart_before`: each transaction
 * whose commit record begins before it has a share of its own, so that the loader can leave out those that a copy has.
 */
export interface Keyless {
  readonly rows: 'multiset' | 'append';
  readonly apart_before: Lsn;
}

export class Multiset {
  readonly shape: Shape;
  /** Positions of the commit records of the first and the last transaction that have changed it. */
  commits: { first: Lsn; last: Lsn } | null = null;
  committedAt_us = 0;
  /** Rows outlive their deletion (soft delete): what was added and deleted leaves its mark. */
  #keepsDeleted: boolean;
  #rows = new KeyTable();
  /** By row: copies that inserts and updates brought, less those that updates replaced. */
  #net = new Int32Array(ENTRIES_MIN);
  #deleted = new Int32Array(ENTRIES_MIN);
  /** Of the last deletion, microseconds since the Unix epoch. */
  #deletedAt = new Float64Array(ENTRIES_MIN);
  /** Rows with giant values: such a change has a share of its own. */
  #giants: { readonly kind: 'remove' | 'add' | 'erase'; readonly pieces: readonly Piece[] }[] = [];
  #text: Buffer = Buffer.allocUnsafeSlow(1024);

  constructor(shape: Shape, keepsDeleted: boolean) {
    this.shape = shape;
    this.#keepsDeleted = keepsDeleted;
  }

  /** SegmentHeader.commits. */
  get span(): { readonly commits?: CommitSpan } {
    if (this.commits === null) return {};
    return { commits: { first: formatLsn(this.commits.first), last: formatLsn(this.commits.last) } };
  }

  /** Different rows that this share touches. */
  get keys(): number {
    return this.#rows.size;
  }

  get keyBytes(): number {
    return this.#rows.keyBytes;
  }

  /** Never: what bounds it is the number of its rows, and their text. */
  get isFull(): boolean {
    return false;
  }

  insert(row: Tuple): boolean {
    this.#count(row, 'add');
    return true;
  }

  /** `oldImage` must be full. The new row is completed from the old one before either is counted. */
  update(oldImage: OldImage, old: Tuple, row: Tuple): boolean {
    if (oldImage !== 'full') throw incomplete('an update without its old row');
    complete(old, row);
    this.#count(old, 'remove');
    this.#count(row, 'add');
    return true;
  }

  delete(old: Tuple): true {
    this.#count(old, 'erase');
    return true;
  }

  #count(row: Tuple, kind: 'remove' | 'add' | 'erase'): void {
    for (let i = 0; i < row.count; i++) {
      if (row.kind[i] === VALUE.unchanged) throw incomplete(`no value for column ${this.shape.columns[i]?.name}`);
    }
    if (row.giants) {
      this.#giants.push({ kind, pieces: this.#giantPieces(row, kind) });
      return;
    }
    const index = this.#entry(row);
    if (kind === 'erase') {
      this.#deleted[index] = (this.#deleted[index] as number) + 1;
      this.#deletedAt[index] = this.committedAt_us;
    } else {
      this.#net[index] = (this.#net[index] as number) + (kind === 'add' ? 1 : -1);
    }
  }

  #giantPieces(row: Tuple, kind: 'remove' | 'add' | 'erase'): Piece[] {
    const pieces = giantLine(row);
    const last = pieces.at(-1) as Buffer;
    const end = kind === 'erase' ? `${timestampText(this.committedAt_us)}\t1\n` : '1\n';
    return [...pieces.slice(0, -1), last.subarray(0, -1), Buffer.from(`\t${end}`)];
  }

  #entry(row: Tuple): number {
    const bytes_max = lineBytesMax(row);
    if (bytes_max > this.#text.length) {
      this.#text = Buffer.allocUnsafeSlow(Math.max(bytes_max, this.#text.length * 2));
    }
    let at = 0;
    for (let i = 0; i < row.count; i++) {
      if (i > 0) this.#text[at++] = TAB;
      at = writeValue(this.#text, at, row, i);
    }
    const before = this.#rows.size;
    const index = this.#rows.add(this.#text, 0, at);
    if (index === before && index === this.#net.length) this.#grow();
    return index;
  }

  #grow(): void {
    const size = this.#net.length * 2;
    const [net, deleted, deletedAt] = [new Int32Array(size), new Int32Array(size), new Float64Array(size)];
    net.set(this.#net);
    deleted.set(this.#deleted);
    deletedAt.set(this.#deletedAt);
    this.#net = net;
    this.#deleted = deleted;
    this.#deletedAt = deletedAt;
  }

  /** What the loader gets, in the order of BLOCK_KINDS. */
  blocks(): FoldedBlock[] {
    const lines = { remove: new Lines(), add: new Lines(), erase: new Lines() };
    const put = (kind: keyof typeof lines, index: number, copies: number): void => {
      if (copies === 0) return;
      const at = kind === 'erase' ? `${timestampText(this.#deletedAt[index] as number)}\t` : '';
      // A row without columns has no text, and no tab behind it.
      const tab = this.shape.columns.length > 0 ? '\t' : '';
      const tail = Buffer.from(`${tab}${at}${copies}${NEWLINE_TEXT}`);
      lines[kind].addWithTail(this.#rows.keys, this.#rows.keyStart(index), this.#rows.keyEnd(index), tail);
    };
    for (let index = 0; index < this.#rows.size; index++) {
      const { remove, add, erase } = this.#copies(index);
      put('remove', index, remove);
      put('add', index, add);
      put('erase', index, erase);
    }
    for (const { kind, pieces } of this.#giants) lines[kind].addPieces(pieces);
    const columns = this.shape.columns.map((_, i) => i);
    const block = (kind: BlockKind & keyof typeof lines): FoldedBlock => ({
      kind,
      columns,
      rows: lines[kind].count,
      pieces: lines[kind].pieces(),
    });
    return [block('remove'), block('add'), block('erase')].filter(({ rows }) => rows > 0);
  }

  #copies(index: number): { remove: number; add: number; erase: number } {
    const net = this.#net[index] as number;
    const deleted = this.#deleted[index] as number;
    if (this.#keepsDeleted) return { remove: Math.max(-net, 0), add: Math.max(net, 0), erase: deleted };
    const gone = Math.max(deleted - net, 0);
    const erase = Math.min(deleted, gone);
    return { remove: gone - erase, add: Math.max(net - deleted, 0), erase };
  }
}

const NEWLINE_TEXT = String.fromCharCode(NEWLINE);

function complete(old: Tuple, row: Tuple): void {
  for (let i = 0; i < row.count; i++) {
    if (row.kind[i] !== VALUE.unchanged || old.kind[i] !== VALUE.text) continue;
    row.kind[i] = VALUE.text;
    row.start[i] = old.start[i] as number;
    row.end[i] = old.end[i] as number;
    const giant = old.giants?.get(i);
    if (giant) (row.giants ??= new Map()).set(i, giant);
  }
}

function incomplete(reason: string): SluiceError {
  return new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason });
}
