/**
 * Before a window reads: the slot is kept on standbys or not, as the pipeline file says by now (source.failover).
 *
 * A slot that cannot be changed (a role that may not open a walsender's connection) is read all the same: what is at stake is how things go on after a
 * failover, and doctor says so as well.
 */
import type { Pipeline } from '../config/schema.ts';
import { asSluiceError } from '../errors.ts';
import type { Ground, Log, Source } from '../ports.ts';

/** Nobody may be reading the slot. Throws only what is worth another try. */
export async function followFailover(
  { source, log }: { readonly source: Source; readonly log: Log },
  { source: { replication_slot: slot, failover } }: Pipeline,
  ground: Ground,
): Promise<void> {
  const is = ground.slot?.failover ?? null;
  // Before 17 no slot says anything of it.
  if (failover === null || is === null || is === failover || source.setFailover === undefined) return;
  try {
    await source.setFailover(failover);
    log.info('slot_failover_set', { slot, failover });
  } catch (error) {
    const { code, message, remedy, disposition } = asSluiceError(error);
    if (disposition === 'retry') throw error;
    log.warn('slot_failover_not_set', { slot, failover, code, message, remedy });
  }
}
