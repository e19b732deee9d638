/**
 * Ends an epoch in place before it is done: no chunk of it is loaded from here on, what was loaded stays, and the stream goes on from what was applied.
 *
 * Rows of loaded chunks are newer than that, so it catches up to the newest of them, as after an epoch that was finished (doubts.ts). One short
 * transaction: done again, it changes nothing.
 */
import { formatLsn, type Lsn } from '../lsn.ts';
import type { Epoch } from '../ports.ts';
import { beginIfMade, endPlans, isOwner, markedChunksSql, type Owner, streamRowOf, streamRowSql } from './control.ts';
import type { Session } from './session.ts';

/** `lsnOf`: past what these chunks saw; asked when no more of them can be loaded. */
export async function cancel(
  session: Session,
  owner: Owner,
  epoch: Epoch,
  lsnOf: (chunks: ReadonlySet<number>) => Promise<Lsn | null>,
): Promise<void> {
  const answer = await beginIfMade(session, streamRowSql(owner, 'FOR UPDATE'));
  try {
    const row = answer && streamRowOf(answer);
    if (row === null || row.epoch >= epoch.number || (row.hold !== null && row.hold > epoch.number)) return;
    let lsn: Lsn | null = null;
    if (row.hold === epoch.number && epoch.plan !== null) {
      // Waits for chunks that are being loaded; those that come later find no plan.
      await endPlans(session, owner);
      const { rows } = await session.run(markedChunksSql(owner, epoch.number, epoch.plan));
      if (rows.length > 0) lsn = await lsnOf(new Set(rows.map(({ chunk }) => Number(chunk))));
    }
    // Also where nobody has prepared it yet: who does so from here on finds it over.
    const hold = row.hold === epoch.number ? null : row.hold;
    const catching_up = lsn === null ? '' : `, catching_up_to = GREATEST(catching_up_to, '${formatLsn(lsn)}'::pg_lsn)`;
    await session.commit(
      `UPDATE _sluice.streams SET hold = ${hold ?? 'NULL'}, epoch = ${epoch.number}${catching_up} WHERE ${isOwner(owner)}`,
    );
  } finally {
    await session.rollback();
  }
}
