/**
 * What an open cut is told (OpenCut), and how much of it is held before a part of it must be taken (I8).
 */
import type { Lsn } from '../lsn.ts';
import type { CapturedStream } from './captured.ts';
import type { OpenCut } from './open-cut.ts';

/** Lines of one part, over all streams. */
export const PART_TEXT_BYTES_MAX = 8 * 1024 * 1024;
/** Keys of one part: bounds the hash tables as the arena bounds the lines. */
export const PART_KEYS_MAX = 400_000;
/** Text of these keys: a deletion has no line, and its key may be kilobytes long. */
export const PART_KEY_BYTES_MAX = 32 * 1024 * 1024;
/** Shares of one part: bounds a run of barriers (TRUNCATE, changes of shape), each of which seals a share. */
export const PART_SHARES_MAX = 4_000;

export interface OpenCutOptions {
  readonly streams: readonly CapturedStream[];
  /** Every commit before it is older than the catalog that `streams` were read from. Not given: none is. */
  readonly catalog_lsn?: Lsn;
  /** False where deletions are only marked: rows then outlive their deletion within a cut as well. */
  readonly hard_delete: boolean;
  /** Asked at each commit: shall the cut end here? */
  readonly isDue: (cut: OpenCut) => boolean;
  /** Lines of one part, over all streams; PART_TEXT_BYTES_MAX where it is not said. */
  readonly part_text_bytes_max?: number;
}
