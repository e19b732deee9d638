/**
 * What becomes of one stream that cannot go on as it is; the others do (I10). It waits for a person with its error and remedy in its bookmark; or, where
 * the log does not hold what it needs, the next window captures it anew and copies it.
 */
import { givenUp } from '../epoch/cancel.ts';
import type { SluiceError } from '../errors.ts';
import type { Bookmark, Clock, Doorbell, Ledger, Log } from '../ports.ts';

interface HaltPorts {
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
}

export async function haltStream(
  { ledger, clock, log }: HaltPorts,
  stream: string,
  fault: SluiceError,
  at: { readonly cut: number | null; readonly must_reset: boolean },
  /** What is noted with it, in the same write. */
  also: Partial<Pick<Bookmark, 'reset_requested' | 'followed'>> = {},
): Promise<void> {
  const { code, message, remedy } = fault;
  await ledger.updateBookmark(stream, { halt: { code, message, remedy, at_ms: clock.now(), ...at }, ...also });
  log.error('stream_halted', { stream, code, message, remedy, cut: at.cut });
}

/** Has the next capture take the stream in anew, for changes of it have been passed over, or may have been. */
export async function captureAnew(
  { ledger, log }: { readonly ledger: Pick<Ledger, 'updateBookmark'>; readonly log: Log },
  stream: string,
  facts: { readonly table?: string; readonly reason: string | null },
): Promise<void> {
  await ledger.updateBookmark(stream, { reset_requested: true });
  log.warn('captured_anew', { stream, ...facts });
}

/**
 * Has the stream copied anew; its table stays as it is until then. `seen`: the bookmark that the fault was met with. Once it has been captured anew the
 * fault is that of a log that nobody applies any more.
 */
export async function copyAnew(
  { ledger, log }: { readonly ledger: Ledger; readonly log: Log },
  seen: Pick<Bookmark, 'stream' | 'captured_cut'>,
  fault: SluiceError,
): Promise<void> {
  const { stream, captured_cut } = seen;
  const now = await ledger.bookmark(stream);
  if (!now || now.reset_requested || now.captured_cut !== captured_cut) return;
  await ledger.updateBookmark(stream, { reset_requested: true });
  const { code, message, facts } = fault;
  log.warn('table_recopied', { stream, code, message, cut: facts.cut ?? null });
}

/**
 * An epoch that somebody asked for beside the log ends alone; a stream that fails halts alone (I10), and one whose log does not hold what it needs is copied
 * anew; what is transient, or the fault of the ground, is somebody else's to try again.
 */
export async function haltOrThrow(
  ports: HaltPorts & { readonly doorbell: Doorbell },
  bookmark: Bookmark,
  fault: SluiceError,
  epoch: number | null,
): Promise<'halted' | 'nothing'> {
  if (epoch !== null && (await givenUp(ports, bookmark.stream, epoch, fault))) return 'nothing';
  if (fault.copiesAnew) {
    await copyAnew(ports, bookmark, fault);
    return 'nothing';
  }
  if (!fault.haltsStream) throw fault;
  const cut = typeof fault.facts.cut === 'number' ? fault.facts.cut : null;
  await haltStream(ports, bookmark.stream, fault, { cut, must_reset: false });
  return 'halted';
}

/** Changes of the stream have been passed over. Where it can be copied anew as soon as its table is there, nobody need ask for that. */
export async function stopStream(ports: HaltPorts, stream: string, fault: SluiceError): Promise<void> {
  if (fault.copiesAnew) return await captureAnew(ports, stream, { reason: fault.message });
  // Copied anew as soon as its names are as they were.
  const mayComeBack = fault.code === 'TABLE_RENAMED' || fault.code === 'TABLE_NAME_LONG';
  await haltStream(ports, stream, fault, { cut: null, must_reset: true }, mayComeBack ? { reset_requested: true } : {});
}
