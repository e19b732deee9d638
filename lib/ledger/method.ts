/**
 * Which streams the chain is about. Those that are read by query alone have a bookmark like all others, and no cut has anything of them: they hold no cut back,
 * apply none, and lag behind none.
 */
import type { Bookmark } from '../ports.ts';

export function isLogBased({ method = 'LOG_BASED' }: Pick<Bookmark, 'method'>): boolean {
  return method === 'LOG_BASED';
}
