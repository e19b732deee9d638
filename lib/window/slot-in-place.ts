/**
 * One more look at the slot when it has been opened, and is ours.
 *
 * Between the look at the ground and the opening, somebody may have moved the slot or made it anew. START_REPLICATION then begins further on without a word (its
 * position is only a lower bound), and what lies in between would be a hole (I1). While we read it nobody else can move it, so one look is enough.
 * https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION-SLOT-LOGICAL
 */
import type { Pipeline } from '../config/schema.ts';
import { SluiceError } from '../errors.ts';
import type { Cut, Ledger, Source } from '../ports.ts';
import { isPositionLost, slotFault } from '../slot/ground.ts';

/** `head`: where the reading begins. Throws SLOT_ADVANCED, the other faults of a slot, and WINDOW_LOST. */
export async function assertSlotInPlace(
  ports: { readonly source: Pick<Source, 'look'>; readonly ledger: Pick<Ledger, 'head'> },
  { source: { replication_slot: slot, plugin, database, create_slot } }: Pipeline,
  head: Cut,
): Promise<void> {
  // Not of the whole ground: what had been inserted when the slot was made may not be flushed yet.
  const { slot: row } = await ports.source.look();
  const fault = slotFault(row, { slot, plugin, database, create_slot, slot_intended: true, head });
  if (fault) throw await unlessOvertaken(ports, head, fault);
}

/**
 * What a window failed with; WINDOW_LOST where that says that the place in the log is gone, and it is another window of ours that has gone on from `head` and then
 * moved the slot: one that lives on after its lease.
 */
export async function unlessOvertaken(
  { ledger }: { readonly ledger: Pick<Ledger, 'head'> },
  head: Cut,
  thrown: unknown,
): Promise<unknown> {
  if (!(thrown instanceof SluiceError) || !isPositionLost(thrown)) return thrown;
  const isLast = (await ledger.head())?.number === head.number;
  return isLast ? thrown : new SluiceError('WINDOW_LOST', { cut: head.number }, { cause: thrown });
}
