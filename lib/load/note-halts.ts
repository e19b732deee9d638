/**
 * Tells readers of the target which streams wait for a person (`_sluice.positions`). The ledger decides; this is its mirror, and the best that can be done:
 * a target that cannot be written to now is told with the next load.
 */
import { asSluiceError } from '../errors.ts';
import type { Halt, Log, Target } from '../ports.ts';

export async function noteHalts(
  { target, log }: { readonly target: Pick<Target, 'noteHalts'>; readonly log: Log },
  bookmarks: readonly { readonly stream: string; readonly halt: Pick<Halt, 'code'> | null }[],
): Promise<void> {
  const halts = bookmarks.flatMap(({ stream, halt }) => (halt === null ? [] : [{ stream, code: halt.code }]));
  if (halts.length === 0) return;
  try {
    await target.noteHalts(halts);
  } catch (thrown) {
    const { code, message } = asSluiceError(thrown);
    log.warn('halts_not_noted', { streams: halts.length, code, message });
  }
}
