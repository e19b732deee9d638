/**
 * What a segment means, once more: the operations of lib/stage/segment.ts, carried out row by row on a table in memory.
 *
 * Written from that page's words and as plainly as possible, so that it can be held against the folding before it and the SQL after it.
 */
import type { Share } from '../../lib/cut/share.ts';
import { joined } from '../../lib/piece.ts';
import type { Shape } from '../../lib/shape.ts';
import { BLOCK_KINDS, type BlockKind } from '../../lib/stage/segment.ts';

export type Value = string | null;
export type Values = Readonly<Record<string, Value>>;

/** A row of a target; `deleted_at` as the segment says it, null for a live row. */
export interface TargetRow {
  readonly values: Values;
  readonly deleted_at: string | null;
}

/** Rows by their key (`keyOf`). */
export type TargetRows = Map<string, TargetRow>;

/** A segment with its text, wherever that came from. */
export interface SegmentText {
  readonly operation: 'changes' | 'truncate';
  readonly shape: Shape;
  readonly blocks: readonly { readonly kind: BlockKind; readonly columns: readonly number[]; readonly text: Buffer }[];
}

export function segmentText({ operation, shape, blocks }: Share): SegmentText {
  return {
    operation,
    shape,
    blocks: blocks.map(({ kind, columns, pieces }) => ({ kind, columns, text: joined(pieces) })),
  };
}

export function keyOf(shape: Shape, values: Values): string {
  return JSON.stringify(shape.key.map((index) => values[nameAt(shape, index)]));
}

function nameAt(shape: Shape, index: number): string {
  const column = shape.columns[index];
  if (column === undefined) throw new RangeError(`no column ${index}`);
  return column.name;
}

const UNESCAPED: Readonly<Record<string, string>> = { '\\': '\\', n: '\n', r: '\r', t: '\t' };

/** COPY text, back to values. Throws for whatever the encoder should not have written. */
export function parseLines(text: Buffer): Value[][] {
  const whole = text.toString('utf8');
  if (whole === '') return [];
  if (!whole.endsWith('\n')) throw new Error('the last line has no end');
  if (whole.includes('\r')) throw new Error('a carriage return that is not escaped');
  return whole
    .slice(0, -1)
    .split('\n')
    .map((line) => line.split('\t').map(parseField));
}

function parseField(field: string): Value {
  if (field === '\\N') return null;
  return field.replaceAll(/\\([^]?)/g, (escape, letter: string) => {
    const meant = UNESCAPED[letter];
    if (meant === undefined) throw new Error(`an escape that nobody writes: ${JSON.stringify(escape)}`);
    return meant;
  });
}

/** One line: the key that it is about, and what it says. */
export interface Line {
  readonly key: string;
  readonly values: Values;
  /** Of a rekey: the key before. */
  readonly oldKey: string;
  /** Of a delete: the commit time. */
  readonly at: string;
}

export function linesOf(shape: Shape, block: SegmentText['blocks'][number]): Line[] {
  return parseLines(block.text).map((fields) => {
    const before = block.kind === 'rekey' ? fields.slice(0, shape.key.length) : [];
    const after = block.kind === 'delete' ? fields.slice(-1) : [];
    const own = fields.slice(before.length, fields.length - after.length);
    if (own.length !== block.columns.length) {
      throw new Error(`${own.length} fields for ${block.columns.length} columns of a ${block.kind}`);
    }
    const values = Object.fromEntries(block.columns.map((column, i) => [nameAt(shape, column), own[i] ?? null]));
    const [at] = after;
    return { key: keyOf(shape, values), values, oldKey: JSON.stringify(before), at: at ?? '' };
  });
}

/** `extracted_at`: what a TRUNCATE marks rows with where they are kept. */
export function applySegment(rows: TargetRows, segment: SegmentText, hard_delete: boolean, extracted_at: string): void {
  const { shape, operation, blocks } = segment;
  if (operation === 'truncate') {
    if (blocks.length > 0) throw new Error('a truncate with blocks');
    if (hard_delete) rows.clear();
    else
      for (const [key, { values, deleted_at }] of rows)
        rows.set(key, { values, deleted_at: deleted_at ?? extracted_at });
    return;
  }
  const order = blocks.map(({ kind }) => BLOCK_KINDS.indexOf(kind));
  if (order.some((place, i) => place < (order[i - 1] ?? 0))) throw new Error('blocks out of order');
  const marks: Line[] = [];
  for (const block of blocks) {
    for (const line of linesOf(shape, block)) {
      if (block.kind === 'rekey') rekey(rows, line);
      else if (block.kind === 'insert' || block.kind === 'upsert')
        rows.set(line.key, { values: line.values, deleted_at: null });
      else if (block.kind === 'update') update(rows, line);
      else if (hard_delete) rows.delete(line.key);
      else marks.push(line);
    }
  }
  for (const { key, at } of marks) {
    const row = rows.get(key);
    if (row) rows.set(key, { values: row.values, deleted_at: at });
  }
}

function update(rows: TargetRows, { key, values }: Line): void {
  const row = rows.get(key);
  if (row) rows.set(key, { values: { ...row.values, ...values }, deleted_at: null });
}

function rekey(rows: TargetRows, line: Line): void {
  const old = line.oldKey === line.key ? undefined : rows.get(line.oldKey);
  const there = rows.get(line.key);
  // A row that is only kept since its deletion is another row than the one that moves to its key.
  if (there && (there.deleted_at === null || !old)) update(rows, line);
  else if (old) rows.set(line.key, { values: { ...old.values, ...line.values }, deleted_at: null });
}

/** Throws where a share of changes is not what segment.ts says that it is: disjoint, in order, complete. */
export function assertWellFormed(share: Share, hard_delete: boolean): void {
  const problems: string[] = [];
  const claim = (holds: boolean, what: string): void => void (holds || problems.push(what));
  const segment = segmentText(share);
  const { shape } = segment;
  const keys: Record<BlockKind, string[]> = {
    rekey: [],
    delete: [],
    insert: [],
    upsert: [],
    update: [],
    remove: [],
    add: [],
    erase: [],
  };
  const sets = new Set<string>();
  for (const [i, block] of segment.blocks.entries()) {
    const lines = linesOf(shape, block);
    claim(lines.length > 0 && lines.length === share.blocks[i]?.rows, `${block.kind}: rows as counted, and some`);
    const set = JSON.stringify([block.kind, block.columns]);
    claim(!sets.has(set), `${block.kind}: one block for each set of columns`);
    sets.add(set);
    const all = shape.columns.map((_, index) => index);
    const expected =
      block.kind === 'delete' ? shape.key : block.kind === 'insert' || block.kind === 'upsert' ? all : null;
    if (expected) claim(JSON.stringify(block.columns) === JSON.stringify(expected), `${block.kind}: its columns`);
    else
      claim(
        shape.key.every((index) => block.columns.includes(index)),
        `${block.kind}: has the key`,
      );
    if (block.kind === 'update') claim(block.columns.length < all.length, 'update: lacks a column');
    for (const line of lines) {
      keys[block.kind].push(line.key);
      if (block.kind !== 'rekey') continue;
      keys.rekey.push(line.oldKey);
    }
  }
  claim(isSet([...keys.insert, ...keys.upsert, ...keys.update]), 'a key has at most one of insert, upsert and update');
  claim(isSet(keys.delete), 'a key has at most one delete');
  claim(isSet(keys.rekey), 'a key moves at most once, and nothing moves where something was');
  if (hard_delete) claim(isSet([...keys.delete, ...keys.upsert, ...keys.update]), 'a deleted key has nothing else');
  if (problems.length > 0) throw new Error(problems.join('; '));
}

function isSet(keys: readonly string[]): boolean {
  return new Set(keys).size === keys.length;
}
