/**
 * Applies a segment with care: what the target refuses of it is found by bisection (bisect.ts), each try behind a savepoint, and put aside with its reason; the rest is
 * applied (target.on_error: quarantine). Where nothing may be put aside, the row is found all the same, so that a stream halts with its key.
 *
 * On the path only after the set as a whole was refused, or while rows of the stream wait: then a change that leaves out a value of such a row (I7) joins it. What is
 * put aside is durable, and known to the ledger, before the transaction commits (I4). Rows without a key cannot be put aside.
 */
import { SluiceError } from '../errors.ts';
import type { Aside, Quarantined, SegmentSource } from '../ports.ts';
import type { Block, SegmentHeader } from '../stage/segment.ts';
import { keyText, type RejectedRow } from '../validation/rejected.ts';
import { RESTS_ON_REJECTED } from '../validation/stream-checks.ts';
import { applyAllBut } from './bisect.ts';
import { assertRows, drain } from './blocks.ts';
import type { Owner } from './control.ts';
import { batchesOf, Lines } from './copy-lines.ts';
import { QuarantinedKeys } from './quarantined-keys.ts';
import { attempt, checkDeferred } from './refusals.ts';
import { faultOf, keyLine, operationOf, rejectedRow, rowKey, withKey, withoutLine } from './refused-row.ts';
import type { Session } from './session.ts';

/** Beyond those that may wait. */
const SEARCHED_ROWS = 16;
/** Of refused rows that are held until the others are in; beyond, they are put aside at once. */
const HELD_BYTES_MAX = 32 * 1024 * 1024;
/** Rows that are refused are tried again, all together, as long as that takes some of them in; at most so often. */
const ROUNDS_MAX = 3;

/** How a set of lines is applied. */
export interface Groups {
  /** Nothing is done with the block. */
  isUnused(block: Block): boolean;
  /** It is applied after all others. */
  isLast(block: Block): boolean;
  apply(block: Block, index: number, text: Buffer): Promise<void>;
  /** A row is left out: its key, as a line. */
  refused(key: Buffer): Promise<void>;
  /** All are in but those. */
  finish(): Promise<void>;
  /** Remembers what is known of the table; called when what came after it is rolled back. */
  remember(): () => void;
}

interface Batch {
  readonly block: Block;
  readonly index: number;
  readonly lines: Lines;
}

/** One line. */
interface Refused extends Batch {
  readonly refusal: SluiceError;
}

export class Diverter {
  readonly #session: Session;
  readonly #stream: string;
  readonly #aside: Aside;
  readonly #checks: boolean;
  readonly #keys: QuarantinedKeys;
  readonly #before: Quarantined;
  /** Of a table that is copied. */
  readonly #isCopy: boolean;
  /** What the rows of the segment were refused for when they were one set. */
  #first: SluiceError | null = null;

  constructor(
    session: Session,
    owner: Owner,
    aside: Aside,
    { checks, keys }: { readonly checks: boolean; readonly keys: QuarantinedKeys },
  ) {
    this.#session = session;
    this.#stream = owner.stream.stream;
    this.#aside = aside;
    this.#checks = checks;
    this.#keys = keys;
    this.#before = keys.byId();
    this.#isCopy = aside.epoch !== null;
  }

  /** For changes of the stream's own table. */
  static async open(session: Session, owner: Owner, aside: Aside, checks: boolean): Promise<Diverter> {
    return new Diverter(session, owner, aside, { checks, keys: await QuarantinedKeys.read(session, owner, aside) });
  }

  /** Rows that may be found guilty before the search is given up: some are taken when the others are in. */
  get searched_max(): number {
    const { refuses, rows_max } = this.#aside;
    return refuses ? 2 * rows_max + SEARCHED_ROWS : SEARCHED_ROWS;
  }

  /** What ends the search. */
  tooMany(refusal: SluiceError): SluiceError {
    const { refuses, rows_max } = this.#aside;
    if (!refuses) return refusal;
    return new SluiceError('QUARANTINE_FULL', { stream: this.#stream, rows_max, reason: refusal.facts.reason });
  }

  /** The table was emptied. */
  truncated(): void {
    this.#keys.clearAll();
  }

  /** Resolves with the number of rows that came. Throws QUARANTINE_FULL, TARGET_REJECTS where nothing is put aside, and what applying throws beside refusals. */
  async apply(segment: SegmentSource, groups: Groups): Promise<number> {
    const { header } = segment;
    this.#first = null;
    let final: Refused[] = [];
    let left: Refused[] = [];
    const last: Batch[] = [];
    let rows = 0;
    let found = 0;
    const hold = async (to: Refused[], refused: readonly Refused[]): Promise<void> => {
      found += refused.length;
      to.push(...refused);
      const all = [...final, ...left];
      if (all.reduce((bytes, { lines }) => bytes + lines.text.length, 0) <= HELD_BYTES_MAX) return;
      await this.#leaveOut(header, groups, all);
      [final, left] = [[], []];
    };
    for (const [index, block] of header.blocks.entries()) {
      if (groups.isUnused(block)) {
        await drain(segment, index);
        continue;
      }
      let of_block = 0;
      for await (const lines of batchesOf(this.#stream, segment.block(index))) {
        of_block += lines.count;
        const batch = { block, index, lines };
        if (groups.isLast(block)) {
          last.push(batch);
          continue;
        }
        const refused = await this.#take(header, groups, await this.#withoutResting(header, batch), found);
        // When the old keys are deleted, a change of key would find no row, and come to nothing without a word.
        await hold(block.kind === 'rekey' ? final : left, refused);
      }
      assertRows(this.#stream, block, of_block);
      rows += of_block;
    }
    for (const batch of last) await hold(left, await this.#take(header, groups, batch, found));
    // One that came alone waits for nobody.
    const rounds = rows > 1 ? ROUNDS_MAX : 0;
    for (let round = 0; round < rounds && left.length > 0; round++) {
      const again: Refused[] = [];
      for (const batch of together(left, round % 2 === 0)) {
        again.push(...(await this.#take(header, groups, batch, again.length)));
      }
      if (again.length === left.length) break;
      left = again;
    }
    await this.#leaveOut(header, groups, [...final, ...left]);
    await groups.finish();
    return rows;
  }

  async #leaveOut(header: SegmentHeader, groups: Groups, all: readonly Refused[]): Promise<void> {
    for (const refused of guiltyFirst(all, this.#first)) {
      await this.#putAside(header, refused);
      await groups.refused(keyLine(header.shape, refused.block, refused.lines));
    }
  }

  /** A row that is known by its values alone (refill.ts). */
  async refuse(row: Omit<RejectedRow, 'stream' | 'committed_at' | 'faults'>, refusal: SluiceError): Promise<void> {
    const { refuses, rows_max } = this.#aside;
    if (!refuses || row.key.columns.length === 0) throw withKey(refusal, row.key);
    this.#keys.add(keyText(row.key));
    if (this.#keys.waiting > rows_max) throw this.tooMany(refusal);
    await this.#aside.add({ stream: this.#stream, committed_at: null, faults: [faultOf(refusal)], ...row });
  }

  /** The last thing in the transaction but what is written of it in `_sluice`. */
  async keep(): Promise<void> {
    await this.#keys.save();
    await this.#aside.keep(this.#before, this.#keys.byId());
  }

  /** Applies what can be; what is left was refused, each row by itself. `found`: rows of the segment that were before. */
  async #take(header: SegmentHeader, groups: Groups, batch: Batch, found: number): Promise<Refused[]> {
    const { block, index, lines } = batch;
    const refused: Refused[] = [];
    const most = this.searched_max;
    // What fails before any of these rows is applied is not theirs to answer for.
    const checks = this.#checks && (await attempt(this.#session, () => checkDeferred(this.#session))) === null;
    await applyAllBut<SluiceError>(
      {
        attempt: async (from, to) => {
          const takeBack = groups.remember();
          const refusal = await attempt(this.#session, async () => {
            await groups.apply(block, index, lines.slice(from, to));
            if (checks) await checkDeferred(this.#session);
          });
          if (refusal === null) this.#passed(header, batch, from, to);
          else {
            takeBack();
            this.#first ??= refusal;
          }
          return refusal;
        },
        refuse: (line, refusal) => {
          // A copy: the batch it came in need not be held for it.
          refused.push({ block, index, lines: new Lines(Buffer.from(lines.slice(line, line + 1))), refusal });
          if (found + refused.length <= most) return;
          const first = guiltyFirst(refused, this.#first)[0] as Refused;
          throw this.tooMany(withKey(first.refusal, rowKey(header.shape, block, first.lines.fields(0))));
        },
      },
      0,
      lines.count,
    );
    return refused;
  }

  /** Whole rows, and deletions, end the waiting of their keys. */
  #passed({ shape }: SegmentHeader, { block, lines }: Batch, from: number, to: number): void {
    if (this.#keys.isEmpty || block.kind === 'update') return;
    for (let line = from; line < to; line++) this.#keys.clear(keyText(rowKey(shape, block, lines.fields(line))));
  }

  /** Puts aside those rows that lack values of a row that waits; the others are left. */
  async #withoutResting(header: SegmentHeader, batch: Batch): Promise<Batch> {
    const { block, index, lines } = batch;
    if (this.#keys.isEmpty || (block.kind !== 'update' && block.kind !== 'rekey')) return batch;
    const kept: Buffer[] = [];
    for (let line = 0; line < lines.count; line++) {
      const fields = lines.fields(line);
      const key = rowKey(header.shape, block, fields);
      const old = block.kind === 'rekey' ? { ...key, values: fields.slice(0, key.values.length).map(String) } : key;
      if (!this.#keys.has(keyText(key)) && !this.#keys.has(keyText(old))) {
        kept.push(lines.slice(line, line + 1));
        continue;
      }
      this.#keys.add(keyText(key));
      const row = rejectedRow(header.shape, block, fields, 'update');
      await this.#aside.add({
        stream: this.#stream,
        key,
        committed_at: null,
        faults: [RESTS_ON_REJECTED],
        ...row,
      });
    }
    if (kept.length === lines.count) return batch;
    return { block, index, lines: new Lines(Buffer.concat(kept)) };
  }

  async #putAside({ shape }: SegmentHeader, { block, lines, refusal }: Refused): Promise<void> {
    const fields = lines.fields(0);
    const key = rowKey(shape, block, fields);
    const operation = operationOf(block, this.#isCopy);
    await this.refuse({ key, ...rejectedRow(shape, block, fields, operation) }, refusal);
  }
}

/** Refused lines of each block as one batch, in the order of the blocks. Turned round, where the ones that others wait for came last. */
function together(refused: readonly Refused[], isTurned: boolean): Batch[] {
  return [...Map.groupBy(refused, ({ index }) => index)].flatMap(([index, own]) => {
    const [first] = own;
    const texts = own.map(({ lines }) => lines.text);
    return first
      ? [{ block: first.block, index, lines: new Lines(Buffer.concat(isTurned ? texts.toReversed() : texts)) }]
      : [];
  });
}

/** A row that is refused for the reason of all comes before one that may only wait for it. */
function guiltyFirst(refused: readonly Refused[], all: SluiceError | null): Refused[] {
  const isLike = ({ refusal }: Refused): boolean => withoutLine(refusal) === (all && withoutLine(all));
  return [...refused.filter(isLike), ...refused.filter((one) => !isLike(one))];
}
