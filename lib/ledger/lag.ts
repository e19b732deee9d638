/**
 * How far each stream is behind what is recorded for it: in cuts, in bytes of WAL, and in seconds. Pure.
 *
 * The chain's end alone does not tell: it moves on with other tables' changes, and a stream that has none is behind nothing. So a stream's lag
 * begins at the first cut after its applied one that has changes of its own.
 */
import { lsnBytesBetween } from '../lsn.ts';
import type { Bookmark, Cut } from '../ports.ts';

export interface StreamLag {
  /** Cuts with changes of the stream that are recorded and not applied. */
  readonly cuts: number;
  /** WAL from the beginning of the oldest of them to the end of the chain. */
  readonly bytes: number;
  /** Since the oldest of them was committed on the source. */
  readonly seconds: number;
}

/** Part of the chain in order, and whether it reaches to the end of it. */
export interface ChainPart {
  readonly cuts: readonly Cut[];
  readonly complete: boolean;
}

const NO_LAG: StreamLag = { cuts: 0, bytes: 0, seconds: 0 };

/**
 * `part` begins at or before the stream's applied cut. Null where it ends too early to tell: no change of the stream in it, and more cuts after it. Where
 * it holds the oldest change and not the chain's end, `cuts` is what it holds: at least so many.
 */
export function streamLag(
  bookmark: Pick<Bookmark, 'stream' | 'applied_cut'>,
  part: ChainPart,
  head: Cut,
  now_ms: number,
): StreamLag | null {
  const waiting = part.cuts.filter(
    (cut) => cut.number > bookmark.applied_cut && Object.hasOwn(cut.streams, bookmark.stream),
  );
  const [oldest] = waiting;
  if (!oldest) return part.complete ? NO_LAG : null;
  const since_ms = oldest.committed_at_ms ?? oldest.recorded_at_ms;
  return {
    cuts: waiting.length,
    bytes: lsnBytesBetween(oldest.begin_lsn, head.end_lsn),
    seconds: Math.max(0, (now_ms - since_ms) / 1000),
  };
}

/**
 * How long a stream that is loaded at times of its own has been behind, seconds: since the time that it is to be loaded for; 0 where that is done. Null: it has
 * no such times.
 */
export function scheduledSeconds({ schedule, applied_cut }: Bookmark, now_ms: number): number | null {
  if (schedule?.cut == null) return null;
  return applied_cut >= schedule.cut ? 0 : Math.max(0, (now_ms - schedule.served_ms) / 1000);
}
