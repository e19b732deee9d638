/**
 * The cut that is being filled: takes decoded changes, folds those of captured streams, and gives itself up in parts (I3: a part may end anywhere, a
 * cut only at a commit).
 *
 * Two arenas take turns: while one is compressed and uploaded, the other is filled. More than that is never held (I8).
 */
import { type ChangeSink, type OldImage, type Relation, Tuple } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { formatLsn, LSN_ZERO, type Lsn } from '../lsn.ts';
import { displayName, type Shape } from '../shape.ts';
import { RejectedLines } from '../validation/rejected.ts';
import { imageOf, type RowImage } from '../validation/row-image.ts';
import { Arena } from './arena.ts';
import { type CapturedStream, CapturedStreams } from './captured.ts';
import { Fold } from './fold.ts';
import { charColumns, charFault, loggedShape } from './logged-shape.ts';
import { Multiset } from './multiset.ts';
import {
  assertCount,
  giantBytes,
  isTorn,
  noRows,
  type OpenStream,
  opened,
  projected,
  type Sealed,
  shareOf,
  tornFault,
} from './open-stream.ts';
import {
  type OpenCutOptions,
  PART_KEY_BYTES_MAX,
  PART_KEYS_MAX,
  PART_SHARES_MAX,
  PART_TEXT_BYTES_MAX,
} from './part-limits.ts';
import type { Share, StreamCount } from './share.ts';

export class OpenCut implements ChangeSink {
  #options: OpenCutOptions;
  #captured: CapturedStreams;
  #relations = new Map<number, OpenStream | null>();
  #arena: Arena;
  #spare: Arena;
  #sealed: Sealed[] = [];
  #messages = 0;
  #partKeys = 0;
  #partKeyBytes = 0;
  #partStarted = false;
  #partGiantBytes = 0;
  #committed_at_us = 0;
  #commit_lsn: Lsn = LSN_ZERO;
  /** Shares that tell of a shape, in this cut. */
  #told = 0;
  /** Streams whose shares end with the transaction. */
  #apart = new Set<OpenStream>();
  /** Of the part: rows that are not valid and were left out, to be staged with it. */
  readonly rejected = new RejectedLines();
  /** Rows without what is hidden of them. */
  #row = new Tuple();
  #old = new Tuple();

  /** Position after the last commit or keepalive: where the cut ends if it ends now. */
  end_lsn: Lsn = LSN_ZERO;
  committed_at_ms: number | null = null;
  inTransaction = false;
  xid = 0; // of the newest transaction
  /** Changes are staged already: they are read for what they say of tables, transactions and rows that are not valid, and not taken. */
  passesOver = false;
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
    this.#captured = new CapturedStreams(options.streams, options.catalog_lsn ?? LSN_ZERO);
  }

  get hasChanges(): boolean {
    return this.changes > 0 || this.#told > 0;
  }

  /** The part is full, and must be taken before more is read. */
  get partIsFull(): boolean {
    if (this.#arena.used + this.#partGiantBytes >= this.#arena.capacity) return true;
    if (this.#partKeys >= PART_KEYS_MAX || this.#partKeyBytes >= PART_KEY_BYTES_MAX) return true;
    return this.#sealed.length >= PART_SHARES_MAX || this.rejected.bytes >= PART_TEXT_BYTES_MAX;
  }

  /** Begins the next cut: what was counted is reset. The last part must have been taken. */
  restart(): void {
    if (this.#partStarted) throw new SluiceError('UNEXPECTED', { reason: 'a cut was begun before the last was taken' });
    this.changes = 0;
    this.#told = 0;
    this.text_bytes = 0;
    this.transactions = 0;
    this.committed_at_ms = null;
    this.isDue = false;
    this.counts = new Map();
  }

  /** The changes that have been passed over count as this cut's: they are staged. What comes now is taken. */
  goOn(staged: Pick<OpenCut, 'changes' | 'text_bytes' | 'counts'>): void {
    this.passesOver = false;
    this.changes = staged.changes;
    this.text_bytes = staged.text_bytes;
    this.counts = staged.counts;
  }

  /** Where the commit record of the newest transaction begins. */
  get commit_lsn(): Lsn {
    return this.#commit_lsn;
  }

  begin(xid: number, committed_at_us: number, commit_lsn: Lsn = LSN_ZERO): void {
    this.inTransaction = true;
    this.xid = xid;
    this.#commit_lsn = commit_lsn;
    this.#committed_at_us = committed_at_us;
  }

  commit(end_lsn: Lsn): void {
    this.inTransaction = false;
    for (const stream of this.#apart) this.#seal(stream);
    this.#apart.clear();
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
    const message = ++this.#messages;
    const found = this.#captured.of(relation, this.#commit_lsn);
    if (found?.fault) this.faults.set(found.stream.stream, found.fault);
    const captured = found?.fault ? null : (found?.stream ?? null);
    const known = this.#relations.get(relation.id) ?? null;
    // The table goes by another name now: what it left under the old one comes first.
    if (known && known.captured !== captured) this.#seal(known);
    if (!captured) {
      this.#relations.set(relation.id, null);
      return;
    }
    const logged = loggedShape(relation, captured);
    if (logged instanceof SluiceError) {
      if (known) this.#seal(known);
      this.faults.set(captured.stream, logged);
      this.#relations.set(relation.id, null);
      return;
    }
    const { shape, tuples = null, fault = null, check } = opened(logged, captured);
    if (known && known.captured === captured) {
      // Also where it looks the same: a column that was dropped and another that was added under its name look the same.
      this.#seal(known);
      known.shape = shape;
      known.chars = charColumns(shape);
      known.tuples = tuples;
      known.fault = fault;
      known.check = check;
      known.message = message;
      return;
    }
    for (const [id, stream] of this.#relations) {
      // The table was dropped and made again under its name: what the old one left comes first.
      if (stream?.captured !== captured) continue;
      this.#seal(stream);
      this.#relations.set(id, null);
    }
    const made = noRows(captured, relation.id, message, shape);
    const stream = { ...made, chars: charColumns(shape), tuples, fault, check };
    this.#relations.set(relation.id, stream);
  }

  /** The stream of this relation cannot be followed any further: what it has is given up as it is, and the rest is passed over. */
  fail(relation: number, fault: SluiceError): void {
    const stream = this.#relations.get(relation);
    if (!stream) return;
    this.#seal(stream);
    this.#relations.set(relation, null);
    this.faults.set(stream.captured.stream, fault);
  }

  insert(relation: number, logged: Tuple): void {
    const stream = this.#streamOf(relation, logged.count);
    if (!stream) return;
    const row = projected(stream, logged, this.#row);
    if (!this.#isReadable(stream, relation, row)) return;
    if (stream.captured.filtered && isTorn(row)) return this.fail(relation, tornFault(stream.captured));
    if (stream.check && !this.#isValid(stream, 'insert', imageOf(row))) return;
    this.#change(stream, giantBytes(row), (fold) => fold.insert(row));
  }

  update(relation: number, oldImage: OldImage, loggedOld: Tuple, logged: Tuple): void {
    const stream = this.#streamOf(relation, logged.count);
    if (!stream || !this.#isFollowed(stream, relation, oldImage)) return;
    const hasOld = oldImage !== 'none';
    const old = hasOld && stream.tuples ? this.#old : loggedOld;
    const row = stream.tuples ? this.#row : logged;
    if (hasOld) stream.tuples?.projectBoth(loggedOld, old, logged, row);
    else stream.tuples?.project(logged, row);
    if (!this.#isReadable(stream, relation, row) || (oldImage !== 'none' && !this.#isReadable(stream, relation, old)))
      return;
    if (stream.check && !this.#isValid(stream, 'update', { row, oldImage, old })) return;
    // The old image's giants count: the row takes those that it leaves out from there.
    this.#change(stream, giantBytes(row) + giantBytes(old), (fold) => fold.update(oldImage, old, row));
  }

  delete(relation: number, oldImage: 'key' | 'full', logged: Tuple): void {
    const stream = this.#streamOf(relation, logged.count);
    if (!stream || !this.#isFollowed(stream, relation, oldImage)) return;
    const old = projected(stream, logged, this.#old);
    if (!this.#isReadable(stream, relation, old)) return;
    stream.check?.deleted(old);
    // Of a key's values the bytes are taken as they come; without a key the whole row is.
    this.#change(stream, stream.captured.keyless ? giantBytes(old) : 0, (fold) =>
      fold.delete(old, this.#committed_at_us),
    );
  }

  truncate(relations: readonly number[]): void {
    for (const relation of relations) {
      const stream = this.#streamOf(relation, null);
      if (!stream) continue;
      stream.check?.truncated();
      if (this.passesOver) continue;
      this.#seal(stream);
      const at = stream.captured.keyless ? formatLsn(this.#positionFor(stream)) : null;
      const commits = at === null ? {} : { commits: { first: at, last: at } };
      this.#sealed.push({ stream, message: stream.message, shape: stream.shape, fold: null, ...commits });
      this.#partStarted = true;
      this.#count(stream, 0);
    }
  }

  /** A share without rows that tells of the table's shape, as the catalog has it. Outside a transaction, with the stream's last change before it. */
  tell(captured: CapturedStream, oid: number, shape: Shape): void {
    const message = ++this.#messages;
    const stream = this.#relations.get(oid) ?? noRows(captured, oid, message, shape);
    this.#seal(stream);
    stream.message = message;
    const at = formatLsn(this.end_lsn);
    const commits = captured.keyless ? { commits: { first: at, last: at } } : {};
    this.#sealed.push({ stream, message, shape, fold: null, tells: true, ...commits });
    this.#partStarted = true;
    this.#told++;
  }

  /** Gives up what is held, in order, and goes on in the other arena. The shares must have been used before the next part is taken. */
  takePart(): Share[] {
    for (const stream of this.#relations.values()) if (stream) this.#seal(stream);
    const shares = this.#sealed.map(shareOf);
    this.#sealed = [];
    this.#partKeys = 0;
    this.#partKeyBytes = 0;
    this.#partStarted = false;
    this.#partGiantBytes = 0;
    const spare = this.#spare;
    this.#spare = this.#arena;
    this.#arena = spare;
    this.#arena.reset();
    return shares.filter(({ operation, blocks, tells }) => operation === 'truncate' || blocks.length > 0 || tells);
  }

  #change(stream: OpenStream, giant_bytes: number, apply: (fold: Fold | Multiset) => boolean): void {
    if (this.passesOver) return;
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
    // A multiset's rows are in its own table of them.
    const row_bytes = fold instanceof Multiset ? fold.keyBytes - keyBytes : 0;
    if (fold.isFull || giant_bytes > 0) this.#seal(stream);
    // The line has them; here they would be held until the next row.
    this.#row.giants = null;
    this.#old.giants = null;
    this.#partGiantBytes += giant_bytes + row_bytes;
    this.#count(stream, this.#arena.used - before + giant_bytes + row_bytes);
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

  /** Of the transaction. Without one, the loader would take it for a part of the copy. */
  #positionFor({ captured }: OpenStream): Lsn {
    if (this.#commit_lsn > LSN_ZERO) return this.#commit_lsn;
    throw new SluiceError('UNEXPECTED', { reason: `a transaction of ${captured.stream} came without its position` });
  }

  #foldOf(stream: OpenStream): Fold | Multiset {
    const { keyless } = stream.captured;
    const keepsDeleted = !this.#options.hard_delete;
    stream.fold ??= keyless
      ? new Multiset(stream.shape, keepsDeleted)
      : new Fold(this.#arena, stream.shape, keepsDeleted, stream.expected);
    stream.fold.committedAt_us = this.#committed_at_us;
    if (stream.fold instanceof Multiset) {
      const last = this.#positionFor(stream);
      stream.fold.commits = { first: stream.fold.commits?.first ?? last, last };
      if (keyless && this.#commit_lsn < keyless.apart_before) this.#apart.add(stream);
    } else stream.fold.commit_lsn = this.#commit_lsn;
    this.#partStarted = true;
    return stream.fold;
  }

  /** Ends the stream's share: what comes next begins another, after this one in the order. */
  #seal(stream: OpenStream): void {
    if (!stream.fold) return;
    this.#sealed.push({ stream, message: stream.message, shape: stream.shape, fold: stream.fold });
    stream.expected = { keys: stream.fold.keys, keyBytes: stream.fold.keyBytes };
    stream.fold = null;
  }

  /** Without a key, a change can be followed only if the log has the whole old row; and is, only if all of the table's changes are. */
  #isFollowed(stream: OpenStream, relation: number, oldImage: OldImage): boolean {
    const { keyless } = stream.captured;
    if (!keyless || oldImage === 'full') return keyless?.rows !== 'append';
    if (keyless.rows === 'multiset') {
      const what = 'it has no key, and REPLICA IDENTITY FULL no longer.';
      this.fail(relation, new SluiceError('TABLE_REWRITTEN', { stream: displayName(stream.captured), what }));
    }
    return false;
  }

  #isReadable(stream: OpenStream, relation: number, row: Tuple): boolean {
    const fault = stream.chars.length === 0 ? null : charFault(row, stream.chars, stream.captured);
    if (fault) this.fail(relation, fault);
    return fault === null;
  }

  /** False: the row is left out, or its stream cannot go on. One that has left its key is gone from there all the same. */
  #isValid(stream: OpenStream, operation: 'insert' | 'update', image: RowImage): boolean {
    const verdict = stream.check?.judge(operation, image, this.#committed_at_us);
    if (!verdict) return true;
    if (verdict instanceof SluiceError) {
      this.fail(stream.oid, verdict);
      return false;
    }
    if (!this.passesOver) {
      this.rejected.add(verdict.line);
      this.changes++;
      this.text_bytes += verdict.line.text.length;
    }
    if (verdict.moved) {
      this.#change(stream, 0, (fold) => {
        fold.delete(image.old, this.#committed_at_us);
        return true;
      });
    }
    if (verdict.fault) this.fail(stream.oid, verdict.fault);
    return false;
  }

  /** Null: not ours. */
  #streamOf(relation: number, count: number | null): OpenStream | null {
    const stream = this.#relations.get(relation);
    if (stream === undefined) {
      const reason = `relation ${relation} was not described`;
      throw new SluiceError('DECODE_FAILED', { offset: 0, message: 'row', reason });
    }
    if (stream && count !== null) assertCount(stream, count);
    if (stream?.captured.log_from !== undefined && this.#commit_lsn < stream.captured.log_from) return null;
    if (stream?.fault) {
      this.fail(relation, stream.fault);
      return null;
    }
    return stream;
  }
}
