/**
 * The cut that is being filled: takes decoded changes, folds those of captured streams, and gives itself up in parts (I3: a part may end anywhere, a
 * cut only at a commit).
 *
 * Two arenas take turns: while one is compressed and uploaded, the other is filled. More than that is never held (I8).
 */
import type { ChangeSink, OldImage, Relation, Tuple } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { LSN_ZERO, type Lsn } from '../lsn.ts';
import { type Column, type Shape, sameShape, tableKey } from '../shape.ts';
import { Arena } from './arena.ts';
import { Fold, type FoldedBlock } from './fold.ts';

/** Lines of one part, over all streams. */
export const PART_TEXT_BYTES_MAX = 8 * 1024 * 1024;
/** Keys of one part: bounds the hash tables as the arena bounds the lines. */
const PART_KEYS_MAX = 400_000;
/** Text of these keys: a deletion has no line, and its key may be kilobytes long. */
const PART_KEY_BYTES_MAX = 32 * 1024 * 1024;
/** Shares of one part: bounds a run of barriers (TRUNCATE, changes of shape), each of which seals a share. */
const PART_SHARES_MAX = 4_000;

/** A stream that the chain has captured. `key` names the columns where the log does not tell them (REPLICA IDENTITY FULL). */
export interface CapturedStream {
  readonly stream: string;
  readonly schema: string;
  readonly table: string;
  readonly key: readonly string[];
}

/** One stream's share of a part, ready to be encoded as a segment. */
export interface Share {
  readonly stream: string;
  readonly operation: 'changes' | 'truncate';
  readonly shape: Shape;
  readonly blocks: readonly FoldedBlock[];
}

export interface StreamCount {
  changes: number;
  text_bytes: number;
}

interface OpenStream {
  readonly captured: CapturedStream;
  shape: Shape;
  fold: Fold | null;
}

export interface OpenCutOptions {
  readonly streams: readonly CapturedStream[];
  /** False where deletions are only marked: rows then outlive their deletion within a cut as well. */
  readonly hard_delete: boolean;
  /** Asked at each commit: shall the cut end here? */
  readonly isDue: (cut: OpenCut) => boolean;
  /** Lines of one part, over all streams; PART_TEXT_BYTES_MAX where it is not said. */
  readonly part_text_bytes_max?: number;
}

export class OpenCut implements ChangeSink {
  #options: OpenCutOptions;
  #captured: Map<string, CapturedStream>;
  #relations = new Map<number, OpenStream | null>();
  #arena: Arena;
  #spare: Arena;
  #sealed: (Share | { stream: OpenStream; fold: Fold })[] = [];
  #partKeys = 0;
  #partKeyBytes = 0;
  #partStarted = false;
  #partGiantBytes = 0;
  #committed_at_us = 0;

  /** Position after the last commit or keepalive: where the cut ends if it ends now. */
  end_lsn: Lsn = LSN_ZERO;
  committed_at_ms: number | null = null;
  inTransaction = false;
  /** Set at a commit when the cut shall end there; reading stops with it. */
  isDue = false;
  changes = 0;
  text_bytes = 0;
  transactions = 0;
  counts = new Map<string, StreamCount>();
  /** Streams that cannot be followed any further: their changes are passed over from here on. To be halted before the cut is recorded. */
  readonly faults = new Map<string, SluiceError>();

  constructor(options: OpenCutOptions) {
    this.#options = options;
    this.#arena = new Arena(options.part_text_bytes_max ?? PART_TEXT_BYTES_MAX);
    this.#spare = new Arena(this.#arena.capacity);
    this.#captured = new Map(options.streams.map((stream) => [tableKey(stream), stream]));
  }

  get hasChanges(): boolean {
    return this.changes > 0;
  }

  /** The part is full, and must be taken before more is read. */
  get partIsFull(): boolean {
    if (this.#arena.used + this.#partGiantBytes >= this.#arena.capacity) return true;
    if (this.#partKeys >= PART_KEYS_MAX || this.#partKeyBytes >= PART_KEY_BYTES_MAX) return true;
    return this.#sealed.length >= PART_SHARES_MAX;
  }

  /** Begins the next cut: what was counted is reset. The last part must have been taken. */
  restart(): void {
    if (this.#partStarted) throw new SluiceError('UNEXPECTED', { reason: 'a cut was begun before the last was taken' });
    this.changes = 0;
    this.text_bytes = 0;
    this.transactions = 0;
    this.committed_at_ms = null;
    this.isDue = false;
    this.counts = new Map();
  }

  begin(_xid: number, committed_at_us: number): void {
    this.inTransaction = true;
    this.#committed_at_us = committed_at_us;
  }

  commit(end_lsn: Lsn): void {
    this.inTransaction = false;
    this.end_lsn = end_lsn;
    this.transactions++;
    this.committed_at_ms = Math.floor(this.#committed_at_us / 1000);
    this.isDue = this.#options.isDue(this);
  }

  /** The server has sent everything up to `walEnd`: where the cut ends, if nothing more comes. */
  keepalive(walEnd: Lsn): void {
    if (!this.inTransaction && walEnd > this.end_lsn) this.end_lsn = walEnd;
  }

  relation(relation: Relation): void {
    const captured = this.#captured.get(tableKey(relation));
    const known = this.#relations.get(relation.id) ?? null;
    // The table goes by another name now: what it left under the old one comes first.
    if (known && known.captured !== captured) this.#seal(known);
    if (!captured) {
      this.#relations.set(relation.id, null);
      return;
    }
    const shape = shapeOf(relation, captured);
    if (shape instanceof SluiceError) {
      if (known) this.#seal(known);
      this.faults.set(captured.stream, shape);
      this.#relations.set(relation.id, null);
      return;
    }
    if (known && known.captured === captured) {
      if (sameShape(known.shape, shape)) return;
      this.#seal(known);
      known.shape = shape;
      return;
    }
    for (const [id, stream] of this.#relations) {
      // The table was dropped and made again under its name: what the old one left comes first.
      if (stream?.captured !== captured) continue;
      this.#seal(stream);
      this.#relations.set(id, null);
    }
    this.#relations.set(relation.id, { captured, shape, fold: null });
  }

  insert(relation: number, row: Tuple): void {
    const stream = this.#streamOf(relation, row.count);
    if (!stream) return;
    this.#change(stream, giantBytes(row), (fold) => fold.insert(row));
  }

  update(relation: number, oldImage: OldImage, old: Tuple, row: Tuple): void {
    const stream = this.#streamOf(relation, row.count);
    if (!stream) return;
    // The old image's giants count: the row takes those that it leaves out from there.
    this.#change(stream, giantBytes(row) + giantBytes(old), (fold) => fold.update(oldImage, old, row));
  }

  delete(relation: number, _oldImage: 'key' | 'full', old: Tuple): void {
    const stream = this.#streamOf(relation, old.count);
    if (!stream) return;
    this.#change(stream, 0, (fold) => {
      fold.delete(old, this.#committed_at_us);
      return true;
    });
  }

  truncate(relations: readonly number[]): void {
    for (const relation of relations) {
      const stream = this.#streamOf(relation, null);
      if (!stream) continue;
      this.#seal(stream);
      this.#sealed.push({ stream: stream.captured.stream, operation: 'truncate', shape: stream.shape, blocks: [] });
      this.#partStarted = true;
      this.#count(stream, 0);
    }
  }

  /** Gives up what is held, in order, and goes on in the other arena. The shares must have been used before the next part is taken. */
  takePart(): Share[] {
    for (const stream of this.#relations.values()) if (stream) this.#seal(stream);
    const shares = this.#sealed.map((entry) =>
      'fold' in entry
        ? {
            stream: entry.stream.captured.stream,
            operation: 'changes' as const,
            shape: entry.fold.shape,
            blocks: entry.fold.blocks(),
          }
        : entry,
    );
    this.#sealed = [];
    this.#partKeys = 0;
    this.#partKeyBytes = 0;
    this.#partStarted = false;
    this.#partGiantBytes = 0;
    const spare = this.#spare;
    this.#spare = this.#arena;
    this.#arena = spare;
    this.#arena.reset();
    return shares.filter(({ operation, blocks }) => operation === 'truncate' || blocks.length > 0);
  }

  #change(stream: OpenStream, giant_bytes: number, apply: (fold: Fold) => boolean): void {
    // A giant has a share of its own, and is given up at once: it is not in the arena, and nothing may be merged with it.
    if (giant_bytes > 0) this.#seal(stream);
    const before = this.#arena.used;
    let fold = this.#foldOf(stream);
    let { keys, keyBytes } = fold;
    if (!apply(fold)) {
      this.#seal(stream);
      fold = this.#foldOf(stream);
      keys = 0;
      keyBytes = 0;
      if (!apply(fold)) throw new SluiceError('UNEXPECTED', { reason: 'a change was refused by an empty share' });
    }
    this.#partKeys += fold.keys - keys;
    this.#partKeyBytes += fold.keyBytes - keyBytes;
    if (fold.isFull || giant_bytes > 0) this.#seal(stream);
    this.#partGiantBytes += giant_bytes;
    this.#count(stream, this.#arena.used - before + giant_bytes);
  }

  #count(stream: OpenStream, text_bytes: number): void {
    this.changes++;
    this.text_bytes += text_bytes;
    const name = stream.captured.stream;
    const count = this.counts.get(name);
    if (count) {
      count.changes++;
      count.text_bytes += text_bytes;
    } else {
      this.counts.set(name, { changes: 1, text_bytes });
    }
  }

  #foldOf(stream: OpenStream): Fold {
    stream.fold ??= new Fold(this.#arena, stream.shape, !this.#options.hard_delete);
    stream.fold.committedAt_us = this.#committed_at_us;
    this.#partStarted = true;
    return stream.fold;
  }

  /** Ends the stream's share: what comes next begins another, after this one in the order. */
  #seal(stream: OpenStream): void {
    if (!stream.fold) return;
    this.#sealed.push({ stream, fold: stream.fold });
    stream.fold = null;
  }

  /** Null: not ours. */
  #streamOf(relation: number, count: number | null): OpenStream | null {
    const stream = this.#relations.get(relation);
    if (stream === undefined) {
      const reason = `relation ${relation} was not described`;
      throw new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason });
    }
    if (stream && count !== null && count !== stream.shape.columns.length) {
      const reason = `${count} columns where the relation has ${stream.shape.columns.length}`;
      throw new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason });
    }
    return stream;
  }
}

function giantBytes(row: Tuple): number {
  if (row.giants === null) return 0;
  let bytes = 0;
  for (const pieces of row.giants.values()) for (const piece of pieces) bytes += piece.length;
  return bytes;
}

/** The key is what identifies a row in the log; under REPLICA IDENTITY FULL every column does, and the catalog's primary key is taken. */
function shapeOf(relation: Relation, captured: CapturedStream): Shape | SluiceError {
  const columns: Column[] = relation.columns.map(({ name, type_oid, type_modifier }) => ({
    name,
    type_oid,
    type_modifier,
  }));
  const isKey =
    relation.replica_identity === 'f'
      ? (i: number) => captured.key.includes(columns[i]?.name ?? '')
      : (i: number) => relation.columns[i]?.identity === true;
  const key = columns.map((_, i) => i).filter(isKey);
  if (key.length === 0) {
    return new SluiceError('SHAPE_CHANGED', {
      stream: `${captured.schema}.${captured.table}`,
      change: 'it no longer has a key (primary key or replica identity index)',
    });
  }
  return { columns, key };
}
