/**
 * Halting one stream: it waits for a person with its error and remedy in its bookmark; the others go on (I10).
 */
import type { SluiceError } from '../errors.ts';
import type { Clock, Ledger, Log } from '../ports.ts';

export async function haltStream(
  { ledger, clock, log }: { readonly ledger: Ledger; readonly clock: Clock; readonly log: Log },
  stream: string,
  fault: SluiceError,
  at: { readonly cut: number | null; readonly must_reset: boolean },
): Promise<void> {
  const { code, message, remedy } = fault;
  await ledger.updateBookmark(stream, { halt: { code, message, remedy, at_ms: clock.now(), ...at } });
  log.error('stream_halted', { stream, code, message, remedy, cut: at.cut });
}
