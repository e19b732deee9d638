/**
 * Where a timeline of the source ended, by the history of the one that is written now: whether what had been read before a promotion, or a restore, is in the
 * log that goes on (I1). A slot alone does not tell: somebody's tool may have made it there, and the log may have grown past our position with other changes.
 *
 * Only a walsender tells (TIMELINE_HISTORY); the file itself can be read by few roles.
 * https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-TIMELINE-HISTORY
 */
import type { Client } from 'pg';
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../lsn.ts';
import type { Cut, Ground, Source } from '../ports.ts';
import { one } from '../postgres/session.ts';

/** Lines of the file: a timeline, where it ended, and why, for each that came before. Null: `timeline` is not among them. Pure. */
export function endOfTimeline(history: string, timeline: number): Lsn | null {
  for (const line of history.split('\n')) {
    const [, number, lsn] = /^\s*(\d+)\s+([0-9A-F]{1,8}\/[0-9A-F]{1,8})(?:\s|$)/.exec(line) ?? [];
    if (number !== undefined && lsn !== undefined && Number(number) === timeline) return parseLsn(lsn);
  }
  return null;
}

/** On a walsender's connection. `now`: the timeline that is written now. */
export async function readTimelineEnd(client: Client, timeline: number, now: number): Promise<Lsn | null> {
  const { rows } = await client.query<{ content: Buffer | string }>(`TIMELINE_HISTORY ${Math.trunc(now)}`);
  const { content } = one(rows);
  // bytea before 14, text from then on.
  return endOfTimeline(typeof content === 'string' ? content : content.toString('latin1'), timeline);
}

/**
 * What is wrong with a source that writes a later timeline than the chain's end is of; null: nothing, or it is the same timeline. Throws what is worth another
 * try. Where nobody can tell, it is taken for another cluster: a person decides.
 */
export async function timelineFault(
  { timelineEnd }: Pick<Source, 'timelineEnd'>,
  ground: Pick<Ground, 'timeline'>,
  head: Pick<Cut, 'timeline' | 'end_lsn'>,
): Promise<SluiceError | null> {
  const { timeline: now } = ground;
  const { timeline: before, end_lsn } = head;
  if (now <= before) return null;
  const changed = (reason: string): SluiceError =>
    new SluiceError('CLUSTER_CHANGED', { what: 'timeline', found: now, expected: before, reason });
  if (!timelineEnd) return changed('nobody can ask where the former one ended');
  try {
    const ended = await timelineEnd(before, now);
    if (ended === null) return changed(`timeline ${now} does not come from it`);
    return ended < end_lsn ? new SluiceError('CLUSTER_BEHIND', { expected: formatLsn(end_lsn) }) : null;
  } catch (error) {
    if (!(error instanceof SluiceError) || error.disposition === 'retry') throw error;
    return changed(`where the former one ended is told to a replication connection only: ${error.message}`);
  }
}
