/**
 * What a bookmark alone tells of a table with a schedule of its own (table-schedules.ts): whether it is rung for again (I9), or waits.
 */
import type { Bookmark, Epoch } from '../ports.ts';

/**
 * Whether a stream has nothing to be rung for: its changes wait for its own time, and what it was rung for is applied. Told by the bookmark alone, so that
 * whoever rings again need not know the file.
 */
export function waitsForItsTime({ schedule, state, applied_cut }: Bookmark): boolean {
  return schedule?.cut != null && state === 'live' && applied_cut >= schedule.cut;
}

/** Kinds of epochs that nobody has asked for. */
const BY_ITSELF: readonly Epoch['kind'][] = ['first_sync', 'full_table', 'incremental'];

/** Whether an epoch waits until its table is no longer paused. What has begun is brought to its end. */
export function isHeldBack({ schedule }: Bookmark, { kind, state }: Epoch): boolean {
  return schedule?.paused === true && state === 'opened' && BY_ITSELF.includes(kind);
}
