/**
 * Keys of the rows of the log that were left out since their stream was captured, and neither loaded again nor forgotten: read from the stage when a window begins
 * (stream-checks.ts says what for).
 */
import type { Bookmark, Ledger, Stage } from '../ports.ts';
import { keyText, rejectedRows } from './rejected.ts';
import { REJECTED_KEYS_MAX } from './stream-checks.ts';

interface KeysPorts {
  readonly stage: Pick<Stage, 'read'>;
  readonly ledger: Pick<Ledger, 'rejects' | 'removeRejects'>;
}

/** By stream: `keyText` of each. What was left out of a cut that has never been recorded is forgotten: its changes come again. */
export async function rejectedKeys(
  { stage, ledger }: KeysPorts,
  { captured, head }: { readonly captured: readonly Bookmark[]; readonly head: number },
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const rejects = await ledger.rejects(null);
  const unrecorded = rejects.filter(({ cut }) => cut !== null && cut > head);
  if (unrecorded.length > 0) await ledger.removeRejects(unrecorded);
  const since = new Map(captured.map(({ stream, captured_cut }) => [stream, captured_cut]));
  const keys = new Map<string, Set<string>>();
  for (const reject of rejects) {
    const { stream, cut } = reject;
    const captured_cut = since.get(stream);
    // What the copy has, or has left out itself, does not come by the log.
    if (cut === null || cut > head || captured_cut === undefined || cut <= captured_cut) continue;
    const own = keys.get(stream) ?? new Set<string>();
    keys.set(stream, own);
    for await (const { key } of rejectedRows(stage, reject)) {
      own.add(keyText(key));
      if (own.size > REJECTED_KEYS_MAX) break;
    }
  }
  return keys;
}
