/**
 * Rows that were left out and that a pipeline forgets by itself: what has been read again since, and what has expired.
 */
import { courseOf } from '../epoch/kinds.ts';
import type { Epoch, Ledger, Reject, Stage } from '../ports.ts';
import { keyText, rejectedRows } from './rejected.ts';

const DAY_MS = 24 * 3600 * 1000;
/** Keys that are held to find what a run of INCREMENTAL has left out once more; those beyond stay twice. */
const KEYS_MAX = 100_000;

interface ForgetPorts {
  readonly ledger: Pick<Ledger, 'rejects' | 'removeRejects'>;
  readonly stage: Pick<Stage, 'read'>;
}

/**
 * After an epoch. One that has copied or compared the whole table: what was left out before is in it, or was left out once more. A run of INCREMENTAL reads rows
 * again (those of the last value, and of the lookback): what it has left out once more is not kept twice.
 */
export async function forgetCovered(ports: ForgetPorts, epoch: Epoch): Promise<void> {
  const { stream, number, kind, held_cut } = epoch;
  const isWhole = courseOf(kind).into === 'shadow' || kind === 'resync';
  if (!isWhole && kind !== 'incremental') return;
  const rejects = await ports.ledger.rejects(stream);
  const covered = isWhole
    ? rejects.filter((reject) => (reject.cut === null ? (reject.epoch ?? 0) < number : reject.cut <= held_cut))
    : await leftOutAgain(ports.stage, rejects, number);
  if (covered.length > 0) await ports.ledger.removeRejects(covered);
}

/** Of former runs, those of which every row is among what this one has left out. */
async function leftOutAgain(
  stage: ForgetPorts['stage'],
  rejects: readonly Reject[],
  number: number,
): Promise<Reject[]> {
  const now = rejects.filter(({ epoch }) => epoch === number);
  if (now.length === 0) return [];
  const keys = new Set<string>();
  for (const reject of now) {
    for await (const { key } of rejectedRows(stage, reject)) if (keys.size < KEYS_MAX) keys.add(keyText(key));
  }
  const again: Reject[] = [];
  for (const reject of rejects) {
    if (reject.epoch === null || reject.epoch >= number || reject.rows > keys.size) continue;
    if (await isWithin(stage, reject, keys)) again.push(reject);
  }
  return again;
}

async function isWithin(stage: ForgetPorts['stage'], reject: Reject, keys: ReadonlySet<string>): Promise<boolean> {
  for await (const { key } of rejectedRows(stage, reject)) if (!keys.has(keyText(key))) return false;
  return true;
}

/** What lies in the stage no more. */
export async function pruneRejects(
  ledger: Pick<Ledger, 'rejects' | 'removeRejects'>,
  now_ms: number,
  retention_days: number,
): Promise<number> {
  const before_ms = now_ms - retention_days * DAY_MS;
  const expired = (await ledger.rejects(null)).filter(({ rejected_at_ms }) => rejected_at_ms < before_ms);
  if (expired.length > 0) await ledger.removeRejects(expired);
  return expired.length;
}
