/**
 * Ends an epoch that goes on beside the log before it is done: because somebody wants it, or because it cannot go on. The stream's table keeps what it has, and
 * the stream goes on from what is applied (lib/load/cancel.ts).
 *
 * Only such an epoch can be given up: after a capture, or a new slot, the log alone does not say what the rows are.
 */
import type { SluiceError } from '../errors.ts';
import type { Doorbell, Epoch, Ledger, Log } from '../ports.ts';
import { ringLoad } from '../window/announce.ts';
import { courseOf } from './kinds.ts';

interface CancelPorts {
  readonly log: Log;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/** False: it is over, or none that may be cancelled. */
export async function cancelEpoch(ports: CancelPorts, epoch: Epoch, reason: string): Promise<boolean> {
  const { stream, number, kind } = epoch;
  if (courseOf(kind).goes_on_from !== 'applied' || !(await endEpoch(ports.ledger, epoch, reason))) return false;
  // The loader releases the target; where this bell is lost, each window rings again.
  await ringLoad(ports, [{ kind: 'finish', stream, epoch: number }]);
  return true;
}

/** False: it is over. Two looks: its plan may win meanwhile. */
export async function endEpoch(ledger: Ledger, seen: Epoch, reason: string): Promise<boolean> {
  let epoch: Epoch | null = seen;
  for (let look = 0; look < 2; look++) {
    if (!epoch || isOver(epoch)) return false;
    if (await ledger.updateEpoch({ ...epoch, state: 'cancelled', reason }, epoch.state)) return true;
    epoch = await ledger.epoch(seen.stream, seen.number);
  }
  return false;
}

function isOver({ state }: Epoch): boolean {
  return state === 'done' || state === 'cancelled';
}

/**
 * Gives the epoch up for a fault that would otherwise halt its stream, or have it copied anew: what was asked for beside it is no reason for either. True: it is done.
 *
 * A repair that the stream itself needs (doubts) is tried once more, when more of the log has been applied; then the fault is the stream's.
 */
export async function givenUp(
  ports: CancelPorts,
  stream: string,
  number: number,
  fault: SluiceError,
): Promise<boolean> {
  const isOfCondition = fault.code === 'BACKFILL_WHERE';
  if (!isOfCondition && !fault.haltsStream && !fault.copiesAnew) return false;
  const epoch = await ports.ledger.epoch(stream, number);
  if (epoch === null) return false;
  // Another chunk of it has failed before this one.
  if (isOver(epoch)) return true;
  const isOfItself = fault.copiesAnew || isOfKeys(fault);
  if (epoch.kind === 'repair' && (!isOfItself || (await followsAnother(ports, epoch)))) return false;
  if (!(await cancelEpoch(ports, epoch, `${fault.message} ${fault.remedy}`))) return false;
  const { code, message, remedy } = fault;
  ports.log.error('epoch_given_up', { stream, epoch: number, kind: epoch.kind, code, message, remedy });
  return true;
}

/** Class 22: a key that it was given is no value of the source's type, as one that was put into the target by hand. */
function isOfKeys({ code, facts }: SluiceError): boolean {
  return code === 'SOURCE_REFUSES' && String(facts.sqlstate).startsWith('22');
}

async function followsAnother({ ledger }: CancelPorts, { stream, number }: Epoch): Promise<boolean> {
  const before = await ledger.epoch(stream, number - 1);
  return before?.kind === 'repair' && before.state === 'cancelled';
}
