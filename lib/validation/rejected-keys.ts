/**
 * Keys of rows that were left out since their stream was captured, and neither loaded again nor forgotten, while the target keeps what it had of them: read from
 * the stage when a window begins (stream-checks.ts says what for).
 *
 * Bounded: each object is read once, some side by side, and of a stream that has too many keys no more than that is read.
 */
import { courseOf } from '../epoch/kinds.ts';
import type { Bookmark, Ledger, Reject, Stage } from '../ports.ts';
import { keyText, rowsIn } from './rejected.ts';
import { REJECTED_KEYS_MAX } from './stream-checks.ts';

/** Objects that are read side by side: each is small, and takes a trip to the stage. */
const READ_AT_ONCE = 16;

interface KeysPorts {
  readonly stage: Pick<Stage, 'read'>;
  readonly ledger: Pick<Ledger, 'rejects' | 'removeRejects' | 'epoch'>;
}

/** By stream: `keyText` of each. What was left out of a cut that has never been recorded is forgotten: its changes come again. */
export async function rejectedKeys(
  { stage, ledger }: KeysPorts,
  { captured, head }: { readonly captured: readonly Bookmark[]; readonly head: number },
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  // What the target refused it knows by itself.
  const rejects = (await ledger.rejects(null)).filter(({ refused }) => refused !== true);
  const unrecorded = rejects.filter(({ cut }) => cut !== null && cut > head);
  if (unrecorded.length > 0) await ledger.removeRejects(unrecorded);
  const since = new Map(captured.map(({ stream, captured_cut }) => [stream, captured_cut]));
  const keys = new Map<string, Set<string>>();
  /** What is to be read, and for which streams: an object may hold rows of others as well. */
  const objects = new Map<string, { readonly at: Reject; readonly of: Set<string> }>();
  for (const reject of rejects) {
    const captured_cut = since.get(reject.stream);
    if (captured_cut === undefined || (reject.cut !== null && reject.cut > head)) continue;
    if (!(await isKept(ledger, reject, captured_cut))) continue;
    keys.set(reject.stream, new Set());
    const object = objects.get(reject.object) ?? { at: reject, of: new Set() };
    objects.set(reject.object, object);
    object.of.add(reject.stream);
  }
  // One iterator for all of them.
  const left = objects.values();
  const readSome = async (): Promise<void> => {
    for (const { at, of } of left) {
      if ([...of].every((stream) => isFull(keys.get(stream)))) continue;
      for await (const { stream, key } of rowsIn(stage, at)) {
        const own = of.has(stream) ? keys.get(stream) : undefined;
        if (own !== undefined && !isFull(own)) own.add(keyText(key));
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(READ_AT_ONCE, objects.size) }, readSome));
  return keys;
}

function isFull(keys: ReadonlySet<string> | undefined): boolean {
  return keys !== undefined && keys.size > REJECTED_KEYS_MAX;
}

/** Whether the target may have an older row of that key: what a whole copy has left out it does not have at all. */
async function isKept(
  ledger: Pick<Ledger, 'epoch'>,
  { stream, cut, epoch }: Reject,
  captured_cut: number,
): Promise<boolean> {
  if (cut !== null) return cut > captured_cut;
  const copied = epoch === null ? null : await ledger.epoch(stream, epoch);
  return copied === null || courseOf(copied.kind).into === 'table';
}
