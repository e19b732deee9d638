/**
 * Whether the target's rows of a stream and the ledger tell of the same past (I4, I12). Either may have been restored to an earlier time.
 *
 * On the path it stands behind the lock of the stream's row, before anything is applied. A target that is behind what it had applied just goes on from its own row, as
 * long as the log alone can bring it on; one from before its last copy cannot, nor can anybody go on from a cut that is another one by now.
 */
import { SluiceError } from '../errors.ts';
import { formatLsn } from '../lsn.ts';
import type { Bookmark, Cut, Doorbell, Ledger, Log, TargetRow, TargetStream, TargetTransaction } from '../ports.ts';
import { displayName } from '../shape.ts';
import { ringLoad } from '../window/announce.ts';

/** Epochs that are looked back at for the last one that was done. */
const EPOCHS_LOOKED_MAX = 100;

function wentBack({ table }: Bookmark, what: string): SluiceError {
  return new SluiceError('TARGET_WENT_BACK', { stream: displayName(table), what });
}

/** Of a stream that cuts are applied to. Throws LEDGER_INCARNATION, TARGET_WENT_BACK. Pure. */
export function assertAgrees(bookmark: Bookmark, row: Pick<TargetRow, 'incarnation' | 'applied_cut'>): void {
  const { table, incarnation, captured_cut } = bookmark;
  if (row.incarnation !== incarnation) {
    const facts = { stream: displayName(table), found: row.incarnation, expected: incarnation };
    throw new SluiceError('LEDGER_INCARNATION', facts);
  }
  // Its copy began at the cut that captured it, and the row has been past that since.
  if (row.applied_cut >= captured_cut) return;
  throw wentBack(bookmark, `they stand at cut ${row.applied_cut}, and its last copy began at cut ${captured_cut}`);
}

/** A row that is held, of a stream that no epoch has as far as the ledger knows. Throws TARGET_WENT_BACK; resolves where somebody is at work. */
export async function assertHeld(
  { ledger }: { readonly ledger: Ledger },
  { stream }: Bookmark,
  hold: number,
): Promise<void> {
  const epoch = await ledger.epoch(stream, hold);
  // Who ends an epoch lets go of the row, then says so in the bookmark, then in the epoch.
  if (epoch?.state !== 'done' && epoch?.state !== 'cancelled') return;
  const now = await ledger.bookmark(stream);
  if (!now || now.epoch < hold || now.state === 'captured' || now.state === 'syncing') return;
  throw wentBack(now, `they wait for the end of copy ${hold}, which is over`);
}

/**
 * The row stands where the next cut begins; `cuts` are those after some cut, in order. Throws LEDGER_BEHIND where the ledger has another cut of that number, or none
 * that is so new.
 */
export async function assertFollows(
  { ledger }: { readonly ledger: Ledger },
  bookmark: Bookmark,
  { applied_cut, applied_lsn }: Pick<TargetRow, 'applied_cut' | 'applied_lsn'>,
  cuts: readonly Cut[],
): Promise<void> {
  const facts = { stream: displayName(bookmark.table), applied: applied_cut, lsn: formatLsn(applied_lsn) };
  const next = cuts.find(({ number }) => number === applied_cut + 1);
  if (next) {
    if (next.begin_lsn === applied_lsn) return;
    throw new SluiceError('LEDGER_BEHIND', { ...facts, found: `its next cut begins at ${formatLsn(next.begin_lsn)}` });
  }
  // The ledger's mirror lags behind who died after a commit; and where the ledger is the older one. Asked only then.
  if (bookmark.applied_cut >= applied_cut) return;
  const head = await ledger.head();
  if (head !== null && head.number >= applied_cut) return;
  throw new SluiceError('LEDGER_BEHIND', { ...facts, found: `its newest cut is ${head?.number ?? 'none'}` });
}

/** The ledger has seen the row further on than it is: the target was restored, and its other streams with it, idle ones too. */
export function isSetBack({ applied_cut }: Bookmark, row: Pick<TargetRow, 'applied_cut'>): boolean {
  return row.applied_cut < applied_cut;
}

/** Tells of a target that was set back, and rings for its other streams: nothing else would, of those that nobody writes to any more. */
export async function ringSetBack(
  ports: { readonly ledger: Ledger; readonly doorbell: Doorbell; readonly log: Log },
  { stream, applied_cut: known }: Bookmark,
  applied_cut: number,
): Promise<void> {
  ports.log.warn('target_went_back', { stream, cut: applied_cut, known_cut: known });
  const others = (await ports.ledger.bookmarks()).filter(
    (one) =>
      one.stream !== stream &&
      one.halt === null &&
      (one.state === 'live' || one.state === 'catching_up') &&
      one.applied_cut > applied_cut,
  );
  await ringLoad(
    ports,
    others.map((one) => ({ kind: 'cuts', stream: one.stream, cut: one.applied_cut })),
  );
}

interface RowPorts {
  readonly ledger: Ledger;
  readonly target: { transaction<T>(stream: TargetStream, work: (tx: TargetTransaction) => Promise<T>): Promise<T> };
}

/** A chunk that the ledger knows as loaded, and of which the target has no mark. Throws TARGET_WENT_BACK; resolves where its epoch is over. */
export async function assertChunkOver({ target }: RowPorts, bookmark: Bookmark, epoch: number): Promise<void> {
  const { stream, target: table } = bookmark;
  const row = await target.transaction({ stream, target: table }, (tx) => Promise.resolve(tx.row));
  const isOver = row !== null && ((row.epoch ?? 0) >= epoch || (row.hold !== null && row.hold > epoch));
  if (!isOver) throw wentBack(bookmark, `they lack a part of copy ${epoch}, which had been loaded`);
}

/**
 * Before a run of INCREMENTAL: the target has what the last one has brought. The bookmark in the ledger says from where it goes on, and what lies before that is not
 * read again. Throws TARGET_WENT_BACK.
 */
export async function assertHasRuns({ ledger, target }: RowPorts, bookmark: Bookmark, before: number): Promise<void> {
  const { stream, target: table } = bookmark;
  const row = await target.transaction({ stream, target: table }, (tx) => Promise.resolve(tx.row));
  // One that is not there is told by who prepares the run.
  if (row?.epoch === undefined) return;
  const oldest = Math.max(row.epoch, before - EPOCHS_LOOKED_MAX);
  for (let number = before - 1; number > oldest; number--) {
    const epoch = await ledger.epoch(stream, number);
    if (epoch?.state === 'done') throw wentBack(bookmark, `they lack run ${number}, which had been loaded`);
  }
}
