/**
 * One more look at the slot when it has been opened, and is ours.
 *
 * Between the look at the ground and the opening, somebody may have moved the slot or made it anew. START_REPLICATION then begins further on without a word (its
 * position is only a lower bound), and what lies in between would be a hole (I1). While we read it nobody else can move it, so one look is enough.
 * https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION-SLOT-LOGICAL
 */
import type { Pipeline } from '../config/schema.ts';
import type { Cut, Source } from '../ports.ts';
import { slotFault } from '../slot/ground.ts';

/** `head`: where the reading begins. Throws SLOT_ADVANCED, and the other faults of a slot. */
export async function assertSlotInPlace(
  { look }: Pick<Source, 'look'>,
  { source: { replication_slot: slot, plugin, database, create_slot } }: Pipeline,
  head: Cut,
): Promise<void> {
  // Not of the whole ground: what had been inserted when the slot was made may not be flushed yet.
  const { slot: row } = await look();
  const fault = slotFault(row, { slot, plugin, database, create_slot, slot_intended: true, head });
  if (fault) throw fault;
}
