/**
 * `verify --chain`: walks the ledger from what the target has applied to where the slot stands, and shows that no position is missing and that every staged
 * object that is still needed is there and whole (I1, I2, I4). No row of a table is read, and nothing is changed.
 *
 * The slot is looked at first, then the target, then the ledger's head: whoever moves them meanwhile records first, so that what is seen later is never behind.
 * What is applied by everybody may be pruned while it is walked, and is not asked for. Faults are collected, and the walk goes on.
 */
import { courseOf } from '../epoch/kinds.ts';
import { asSluiceError, type ErrorCode, SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { formatLsn } from '../lsn.ts';
import type { Bookmark, Chunk, Cut, Ground, Ledger, Stage, TargetRow } from '../ports.ts';
import { displayName } from '../shape.ts';
import { cutRanges, objectsOf, placeIn } from '../stage/cut-ranges.ts';
import { segmentSource } from '../stage/frames.ts';
import type { ByteRange } from '../stage/segment.ts';

/** Cuts that are asked for at once. */
const CUTS_AT_ONCE = 200;
/** Told one by one; of more, only how many. */
const FAULTS_TOLD_MAX = 100;

/** In the stage. */
type Place = readonly [object: string, range: ByteRange];

export interface ChainPorts {
  readonly ledger: Pick<Ledger, 'head' | 'cutsAfter' | 'bookmarks' | 'epoch' | 'chunks'>;
  readonly stage: Pick<Stage, 'read'>;
  /** As Source.look. */
  readonly look: () => Promise<Ground>;
  /** What is wrong with the slot for a chain that ends with this cut; null: nothing. */
  readonly slotFault: (ground: Ground, head: Cut) => SluiceError | null;
  /** The stream's row on the target, without a lock; null: there is none. */
  readonly row: (bookmark: Bookmark) => Promise<Pick<TargetRow, 'incarnation' | 'applied_cut'> | null>;
  readonly onProgress?: (at: { readonly cut: number; readonly to_cut: number }) => void;
}

export interface ChainFault {
  readonly code: ErrorCode;
  /** What it is about: `cut 17`, `public.orders`, `slot sluice_shop`. */
  readonly subject: string;
  readonly problem: string;
  readonly remedy: string;
}

export interface ChainFindings {
  /** The walk went over the cuts after `from_cut`, up to `to_cut`. */
  readonly from_cut: number;
  readonly to_cut: number;
  readonly slot_lsn: string | null;
  readonly head_lsn: string;
  readonly cuts: number;
  /** Of cuts, and of chunks that are not loaded yet. */
  readonly objects: number;
  readonly segments: number;
  readonly object_bytes: number;
  readonly faults: readonly ChainFault[];
  /** All of them, also those that are not told. */
  readonly fault_count: number;
}

/** Throws USAGE where there is no chain, and faults of the ground: what cannot be asked is not proven. */
export async function verifyChain(ports: ChainPorts): Promise<ChainFindings> {
  const { ledger } = ports;
  const ground = await ports.look();
  const bookmarks = (await ledger.bookmarks()).filter(isLogBased);
  const walk = new Walk(ports);
  const needed = await neededAfter(ports, bookmarks, walk);
  const head = await ledger.head();
  if (head === null) {
    throw new SluiceError('USAGE', { problem: 'There is no chain yet.', remedy: 'sluice run --until-caught-up' });
  }
  const fault = bookmarks.length > 0 ? ports.slotFault(ground, head) : null;
  if (fault) walk.fault(`slot`, fault);
  for (const [bookmark, after] of needed) walk.assertReachable(bookmark, after, head);
  const from = Math.min(head.number, ...needed.values());
  await walk.cuts(from, head, needed);
  for (const bookmark of bookmarks) await walk.chunks(bookmark);
  return walk.findings(from, head, ground);
}

/** After which cut each stream needs the chain. A copy goes on from the cut that captured it, whatever the target has applied before. */
async function neededAfter(
  { row, ledger }: ChainPorts,
  bookmarks: readonly Bookmark[],
  walk: Walk,
): Promise<ReadonlyMap<Bookmark, number>> {
  const needed = new Map<Bookmark, number>();
  for (const bookmark of bookmarks) {
    const { stream, state, epoch: number, captured_cut, incarnation } = bookmark;
    const epoch = number > 0 ? await ledger.epoch(stream, number) : null;
    const isCopied =
      state === 'captured' || (state === 'syncing' && epoch !== null && courseOf(epoch.kind).goes_on_from === 'held');
    if (isCopied) {
      needed.set(bookmark, epoch?.held_cut ?? captured_cut);
      continue;
    }
    const found = await row(bookmark);
    const facts = { stream: displayName(bookmark.table) };
    if (found === null) {
      walk.fault(facts.stream, new SluiceError('TARGET_ROW_MISSING', facts));
    } else if (found.incarnation !== incarnation) {
      const both = { found: found.incarnation, expected: incarnation };
      walk.fault(facts.stream, new SluiceError('LEDGER_INCARNATION', { ...facts, ...both }));
    } else needed.set(bookmark, found.applied_cut);
  }
  return needed;
}

class Walk {
  readonly #ports: ChainPorts;
  readonly #faults: ChainFault[] = [];
  #fault_count = 0;
  #cuts = 0;
  #objects = 0;
  #segments = 0;
  #object_bytes = 0;

  constructor(ports: ChainPorts) {
    this.#ports = ports;
  }

  fault(subject: string, { code, message, remedy }: SluiceError): void {
    this.#fault_count++;
    if (this.#faults.length < FAULTS_TOLD_MAX) this.#faults.push({ code, subject, problem: message, remedy });
  }

  /** The target may not be ahead of the ledger: one of them was restored. */
  assertReachable({ stream, table }: Bookmark, after: number, head: Cut): void {
    if (after <= head.number) return;
    const facts = { stream, applied: after, expected: after + 1 };
    this.fault(displayName(table), new SluiceError('LEDGER_GAP', facts));
  }

  /** Every cut after `from`, and every object of which somebody needs a part. */
  async cuts(from: number, head: Cut, needed: ReadonlyMap<Bookmark, number>): Promise<void> {
    const { ledger, onProgress } = this.#ports;
    let before: Cut | null = (await ledger.cutsAfter(from - 1, 1)).find(({ number }) => number === from) ?? null;
    for (let number = from; number < head.number; ) {
      const cuts = await ledger.cutsAfter(number, CUTS_AT_ONCE);
      if (cuts.length === 0) {
        this.#gap(number + 1, 'it is not there');
        return;
      }
      for (const cut of cuts) {
        if (cut.number !== number + 1) this.#gap(number + 1, 'it is not there');
        else if (before !== null) this.#follows(before, cut);
        await this.#objectOf(cut, needed);
        this.#cuts++;
        before = cut;
        number = cut.number;
        onProgress?.({ cut: number, to_cut: head.number });
        if (number >= head.number) return;
      }
    }
  }

  #follows(before: Cut, cut: Cut): void {
    if (cut.begin_lsn !== before.end_lsn) {
      const [ends, begins] = [formatLsn(before.end_lsn), formatLsn(cut.begin_lsn)];
      this.#gap(cut.number, `it begins at ${begins}, and the one before it ends at ${ends}`);
    }
    if (cut.incarnation !== before.incarnation) this.#gap(cut.number, 'it is of another ledger than the one before it');
  }

  #gap(number: number, reason: string): void {
    const item = `cut ${number}`;
    this.fault(item, new SluiceError('LEDGER_DAMAGED', { item, reason }));
  }

  async #objectOf(cut: Cut, needed: ReadonlyMap<Bookmark, number>): Promise<void> {
    const objects = objectsOf(cut);
    const streams = [...needed].filter(
      ([{ stream }, after]) => cut.number > after && cut.streams[stream] !== undefined,
    );
    if (cut.object === null || streams.length === 0) return;
    this.#objects += objects.length;
    this.#object_bytes += cut.object_bytes;
    for (const [{ stream, table }] of streams) {
      const places = async (): Promise<readonly Place[]> =>
        (await cutRanges(this.#ports.stage, cut, stream)).map((range) => placeIn(objects, range));
      await this.#read(`cut ${cut.number} of ${displayName(table)}`, stream, places);
    }
  }

  /** What an epoch has staged and not loaded. */
  async chunks({ stream, table, epoch: number, state }: Bookmark): Promise<void> {
    const { ledger } = this.#ports;
    const epoch = state === 'syncing' && number > 0 ? await ledger.epoch(stream, number) : null;
    if (epoch?.state !== 'planned' || epoch.plan === null) return;
    const waits = ({ loaded, staged }: Chunk): boolean => !loaded && staged !== null && staged.object !== null;
    for (const chunk of (await ledger.chunks(stream, number, epoch.plan)).filter(waits)) {
      const { object, object_bytes } = chunk.staged ?? { object: null, object_bytes: 0 };
      if (object === null) continue;
      this.#objects++;
      this.#object_bytes += object_bytes;
      const whole: readonly Place[] = [[object, [0, object_bytes]]];
      await this.#read(`chunk ${chunk.number} of ${displayName(table)}`, stream, () => Promise.resolve(whole));
    }
  }

  /** Reads every frame, whose checksums are looked at on the way. Throws what is worth another try. */
  async #read(subject: string, stream: string, placesOf: () => Promise<readonly Place[]>): Promise<void> {
    try {
      for (const place of await placesOf()) {
        for await (const segment of segmentSource(this.#ports.stage, ...place, stream)) {
          for (const index of segment.header.blocks.keys()) for await (const _ of segment.block(index));
          this.#segments++;
        }
      }
    } catch (thrown) {
      const error = asSluiceError(thrown);
      if (error.code !== 'STAGE_MISSING' && error.code !== 'STAGE_CORRUPT') throw error;
      this.fault(subject, error);
    }
  }

  findings(from: number, head: Cut, { slot }: Ground): ChainFindings {
    return {
      from_cut: from,
      to_cut: head.number,
      slot_lsn: slot ? formatLsn(slot.confirmed_lsn) : null,
      head_lsn: formatLsn(head.end_lsn),
      cuts: this.#cuts,
      objects: this.#objects,
      segments: this.#segments,
      object_bytes: this.#object_bytes,
      faults: this.#faults,
      fault_count: this.#fault_count,
    };
  }
}
