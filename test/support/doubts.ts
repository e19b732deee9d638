/**
 * The notes that lib/load/doubts.ts keeps in the target while a stream catches up, as a model in memory: one statement there is one line here, so that
 * its reasoning can be tried on thousands of histories. That the SQL does the same is shown on a server (test/pg).
 */
import { applySegment, type Line, linesOf, type SegmentText, type TargetRows } from './shares.ts';
import { MARKED_BY_TRUNCATE } from './source-table.ts';

export class Doubts {
  /** Keys whose row is missing, or may have another row's values. */
  readonly unknown = new Set<string>();
  #vacated = new Set<string>();
  #moved = new Map<string, { readonly key: string; readonly other: string }>();

  /** Applies the segment, and notes what is not sure. */
  apply(rows: TargetRows, segment: SegmentText, hard_delete: boolean): void {
    if (segment.operation === 'truncate') {
      applySegment(rows, segment, hard_delete, MARKED_BY_TRUNCATE);
      this.unknown.clear();
      this.#vacated.clear();
      this.#moved.clear();
      return;
    }
    // Where rows are kept, deletions are marked last, and noted with that.
    const isLast = (kind: string): number => Number(!hard_delete && kind === 'delete');
    for (const block of segment.blocks.toSorted((a, b) => isLast(a.kind) - isLast(b.kind))) {
      const lines = linesOf(segment.shape, block);
      if (block.kind === 'rekey') this.#beforeRekey(rows, lines);
      if (block.kind === 'update') {
        for (const { key } of lines) if (rows.get(key)?.deleted_at !== null) this.unknown.add(key);
      }
      applySegment(rows, { ...segment, blocks: [block] }, hard_delete, MARKED_BY_TRUNCATE);
      const keys = lines.map(({ key }) => key);
      if (block.kind === 'rekey') for (const key of keys) if (!rows.has(key)) this.unknown.add(key);
      const isWhole = block.kind === 'insert' || block.kind === 'upsert';
      if (isWhole) this.#refill(keys);
      // A key that is left a second time was filled in between, though folding shows nothing of it.
      if (block.kind === 'delete') this.#refill(keys.filter((key) => this.#vacated.has(key)));
      if (block.kind === 'delete' || isWhole) this.#know(keys);
      if (block.kind === 'delete') for (const key of keys) this.#vacated.add(key);
    }
  }

  #beforeRekey(rows: TargetRows, lines: readonly Line[]): void {
    const inherited = lines.flatMap(({ oldKey, key }) =>
      [...this.#moved.values()].filter(({ other }) => other === oldKey).map((move) => ({ key: move.key, other: key })),
    );
    for (const { key, other } of inherited) this.#move(key, other);
    for (const { oldKey, key } of lines) if (!rows.has(key)) this.#move(oldKey, key);
    const doubtful = lines.filter(({ oldKey, key }) => this.#vacated.has(key) || this.unknown.has(oldKey));
    for (const { key } of doubtful) this.unknown.add(key);
    this.#refill(lines.map(({ key }) => key));
  }

  #move(key: string, other: string): void {
    this.#moved.set(JSON.stringify([key, other]), { key, other });
  }

  #refill(keys: readonly string[]): void {
    for (const { key, other } of this.#moved.values()) if (keys.includes(key)) this.unknown.add(other);
  }

  #know(keys: readonly string[]): void {
    for (const key of keys) this.unknown.delete(key);
    for (const [id, { other }] of this.#moved) if (keys.includes(other)) this.#moved.delete(id);
  }
}
