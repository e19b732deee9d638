/**
 * Whether everything is applied that the source had when the run began. Pure.
 *
 * Of the log, the goal is a cut: the chain's end when a window had read everything up to that position. A stream has it when it is live and either has applied that
 * cut, or lacks nothing that is recorded for it: changes that came later do not move the goal.
 */
import type { PipelineStatus, StreamStatus } from '../../lib/operate.ts';
import type { Told } from '../failure.ts';

export interface Remaining {
  readonly halted: readonly StreamStatus[];
  readonly unfinished: readonly StreamStatus[];
  /** Selected, and not captured yet: ids. */
  readonly missing: readonly string[];
}

/**
 * What `selected` streams still lack. `goal_cut` is null while no window has come as far. `since_ms`: when the run began; streams that are read by query have one
 * run of theirs since then.
 */
export function remaining(
  { streams }: Pick<PipelineStatus, 'streams'>,
  selected: ReadonlySet<string>,
  goal_cut: number | null,
  since_ms = 0,
): Remaining {
  const own = streams.filter(({ stream }) => selected.has(stream));
  const known = new Set(own.map(({ stream }) => stream));
  return {
    halted: own.filter(isHalted),
    unfinished: own.filter((stream) => !isHalted(stream) && !hasApplied(stream, goal_cut, since_ms)),
    missing: [...selected].filter((id) => !known.has(id)),
  };
}

/** One whose resync has been asked for waits for a window, not for a person. */
function isHalted({ state, resync_requested }: StreamStatus): boolean {
  return state === 'halted' && !resync_requested;
}

function hasApplied(
  { state, reset_requested, resync_requested, applied_cut, lag, method, as_of }: StreamStatus,
  goal_cut: number | null,
  since_ms: number,
): boolean {
  if (goal_cut === null || state !== 'live' || reset_requested || resync_requested) return false;
  if (method !== 'LOG_BASED') return as_of !== null && Date.parse(as_of) >= since_ms;
  return applied_cut >= goal_cut || lag?.cuts === 0;
}

/** Nothing is left to wait for: what is halted waits for a person. */
export function isSettled({ unfinished, missing }: Remaining): boolean {
  return unfinished.length === 0 && missing.length === 0;
}

/** Why streams are halted, each with the table's name. */
export function haltsOf({ halted }: Pick<Remaining, 'halted'>): Told[] {
  return halted.flatMap(({ table, halt }) =>
    halt === null ? [] : [{ code: halt.code, message: `${table} is halted: ${halt.message}`, remedy: halt.remedy }],
  );
}

/** Whether only another window can help: a stream is not captured, or shall be captured anew, or catches up to a position that no window has read yet. */
export function needsWindow({ unfinished, missing }: Remaining, goal_cut: number | null): boolean {
  return (
    goal_cut === null ||
    missing.length > 0 ||
    unfinished.some(
      ({ state, reset_requested, resync_requested, method }) =>
        // A run that was under way is done: this run's is opened by a window.
        state !== 'live' || reset_requested || resync_requested || method !== 'LOG_BASED',
    )
  );
}

/** Changes whenever anything has moved. */
export function mark({
  head,
  streams,
  unfinished,
}: Pick<PipelineStatus, 'head' | 'streams'> & Partial<Pick<PipelineStatus, 'unfinished'>>): string {
  const places = streams.map(({ stream, state, reset_requested, resync_requested, applied_cut, epoch }) => [
    stream,
    state,
    reset_requested,
    resync_requested,
    applied_cut,
    epoch?.number,
    epoch?.chunks_staged,
    epoch?.chunks_loaded,
  ]);
  return JSON.stringify([head?.lsn, places, unfinished?.changes]);
}
