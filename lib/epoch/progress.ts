/**
 * How far an epoch has come, in rows, bytes, percent and remaining time. Pure: what is known of it lies in its item and its chunks'.
 *
 * Estimates are the source's, and say so by their names: they become exact as chunks are staged. Of a backfill by a condition nobody knows how many rows it
 * means, so that its chunks are what is counted.
 */
import type { Chunk, Epoch } from '../ports.ts';

export interface EpochProgress {
  readonly chunks_staged: number;
  readonly chunks_loaded: number;
  /** Of those that are staged, the ones whose rows the target had already: nothing is copied for them (resync). */
  readonly chunks_equal: number;
  readonly rows_staged: number;
  readonly rows_loaded: number;
  /** Of its COPY text, before compression. */
  readonly bytes_staged: number;
  readonly bytes_loaded: number;
  /** Exact once all is staged, an estimate before; null: nobody can tell. */
  readonly rows_total: number | null;
  readonly bytes_total: number | null;
  /** 0 to 100, of what is in the target; null: it is not planned yet. */
  readonly percent: number | null;
  /** At the pace that it has had; null: it cannot be told yet. */
  readonly seconds_left: number | null;
}

/** An estimate never says that all is there before it is. */
const PERCENT_MAX_UNFINISHED = 99;

export function epochProgress(epoch: Epoch, chunks: readonly Chunk[], now_ms: number): EpochProgress {
  const staged = chunks.flatMap((chunk) => (chunk.staged === null ? [] : [{ ...chunk.staged, loaded: chunk.loaded }]));
  const loaded = staged.filter((chunk) => chunk.loaded);
  const rows_staged = total(staged, ({ rows }) => rows);
  const rows_loaded = total(loaded, ({ rows }) => rows);
  const bytes_staged = total(staged, ({ text_bytes }) => text_bytes);
  const isAllStaged = epoch.chunks !== null && staged.length === epoch.chunks;
  const rows_total = isAllStaged ? rows_staged : estimated(epoch, rows_staged);
  const bytes_total = isAllStaged
    ? bytes_staged
    : rows_total === null || rows_staged === 0
      ? null
      : Math.round((bytes_staged / rows_staged) * rows_total);
  const part = partOf(epoch, { rows_loaded, rows_total, chunks_loaded: loaded.length });
  const isAllLoaded = epoch.chunks !== null && loaded.length === epoch.chunks;
  return {
    chunks_staged: staged.length,
    chunks_loaded: loaded.length,
    chunks_equal: staged.filter(({ object }) => object === null).length,
    rows_staged,
    rows_loaded,
    bytes_staged,
    bytes_loaded: total(loaded, ({ text_bytes }) => text_bytes),
    rows_total,
    bytes_total,
    percent: part === null ? null : isAllLoaded ? 100 : Math.min(PERCENT_MAX_UNFINISHED, Math.floor(part * 100)),
    seconds_left: isAllLoaded ? 0 : secondsLeft(part, now_ms - epoch.opened_at_ms),
  };
}

/** The table's rows, as far as an epoch of all of them goes by these. */
function estimated({ where, rows_estimate, ranges }: Epoch, rows_staged: number): number | null {
  if (where !== null || (ranges ?? null) !== null || rows_estimate < 0) return null;
  return Math.max(rows_estimate, rows_staged);
}

function partOf(
  { chunks }: Epoch,
  { rows_loaded, rows_total, chunks_loaded }: { rows_loaded: number; rows_total: number | null; chunks_loaded: number },
): number | null {
  if (chunks === null) return null;
  if (rows_total !== null && rows_total > 0) return Math.min(1, rows_loaded / rows_total);
  return chunks === 0 ? 1 : chunks_loaded / chunks;
}

function secondsLeft(part: number | null, elapsed_ms: number): number | null {
  if (part === null || part <= 0 || elapsed_ms <= 0) return null;
  return Math.round((elapsed_ms * (1 - part)) / part / 1000);
}

function total<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((sum, item) => sum + value(item), 0);
}
