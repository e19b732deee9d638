/**
 * Takes cuts out of the ledger that nobody needs any more: applied by every stream, and older than the stage keeps their objects; and what it says of rows that
 * were left out, when these have expired.
 */
import type { Pipeline } from '../config/schema.ts';
import { isLogBased } from '../ledger/method.ts';
import type { Bookmark, Clock, Cut, Ledger, Log } from '../ports.ts';
import { pruneRejects } from '../validation/forget.ts';

const DAY_MS = 24 * 3600 * 1000;

export async function prune(
  { ledger, clock, log }: { readonly ledger: Ledger; readonly clock: Clock; readonly log: Log },
  pipeline: Pipeline,
  bookmarks: readonly Bookmark[],
  head: Cut,
): Promise<void> {
  const rejects = await pruneRejects(ledger, clock.now(), pipeline.target.stage_retention_days);
  if (rejects > 0) log.info('rejects_pruned', { objects: rejects });
  const applied = Math.min(head.number - 1, ...bookmarks.filter(isLogBased).map((bookmark) => bookmark.applied_cut));
  if (applied < 0) return;
  const pruned = await ledger.prune(applied, clock.now() - pipeline.target.stage_retention_days * DAY_MS);
  if (pruned > 0) log.info('cuts_pruned', { cuts: pruned });
}
