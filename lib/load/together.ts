/**
 * The loads of `consistency: transaction`: whoever is rung for applies each cut to all streams that have caught up, in one transaction of the target, so that
 * readers see all tables at one commit of the source (I4, I5).
 *
 * On the path it stands in the place of `applyCuts`, which stays what brings a stream up alone. Streams that are copied, that catch up or wait for a person
 * stand aside, and join when they are where the others are (muster.ts). One that is refused gives the transaction up, halts alone (I10), and the others go on.
 */
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import type { Lsn } from '../lsn.ts';
import type { Bookmark, Cut, LoadBell, TargetTransaction, TransactionOf } from '../ports.ts';
import { displayName } from '../shape.ts';
import { ringLoad } from '../window/announce.ts';
import { haltOrThrow } from '../window/halt.ts';
import { assertAgrees, assertFollows, isSetBack } from './agreement.ts';
import { type Muster, muster, type Standing } from './muster.ts';
import { noteHalts } from './note-halts.ts';
import { Care, wantsCare } from './quarantine.ts';
import {
  applyCut,
  applyCuts,
  assertNoGap,
  beforeJump,
  CUTS_MAX,
  captureOf,
  type LoadLimits,
  type LoadOutcome,
  type StepPorts,
  streamOf,
  TEXT_BYTES_MAX,
} from './steps.ts';

/** Mirrors that are written to the ledger at once. */
const MIRRORS_AT_ONCE = 8;

/** Applies what is due to all streams together; the one that was rung for comes up alone before, where it has to. Throws as `load` does. */
export async function loadTogether(
  ports: StepPorts,
  { stream }: LoadBell & { kind: 'cuts' },
  limits: LoadLimits,
): Promise<LoadOutcome> {
  /** Refused in this load: they wait for a person, or to be copied anew. */
  const refused = new Set<string>();
  const done = { cuts: 0, changes: 0, halts: 0 };
  const careful = await carefulOf(ports, limits);
  const refuse = async (bookmark: Bookmark, fault: unknown): Promise<void> => {
    if (!(fault instanceof SluiceError)) throw fault;
    const outcome = await haltOrThrow(ports, bookmark, fault, null);
    refused.add(bookmark.stream);
    if (outcome === 'halted') done.halts++;
  };
  const alone = async (bookmark: Bookmark): Promise<void> => {
    try {
      const { cuts, changes } = await applyCuts(ports, bookmark, { ...limits, meets_others: true });
      done.cuts += cuts;
      done.changes += changes;
    } catch (thrown) {
      await refuse(bookmark, thrown);
    }
  };

  const rung = await ports.ledger.bookmark(stream);
  if (rung?.state === 'catching_up' && mayApply(rung)) await alone(rung);
  let hasComeUp = false;
  for (;;) {
    const bookmarks = (await ports.ledger.bookmarks()).filter(isLogBased);
    const streams = bookmarks.filter((bookmark) => mayApply(bookmark) && !refused.has(bookmark.stream));
    const step = await moveTogether(ports, streams, limits, { refuse, careful });
    if (step !== 'again') {
      done.cuts += step.cuts;
      done.changes += step.changes;
      const isBehind = step.behind.some((one) => one.stream === stream);
      const own = bookmarks.find((bookmark) => bookmark.stream === stream);
      if (isBehind && own && !hasComeUp) {
        hasComeUp = true;
        await alone(own);
      } else if (!step.more) {
        await noteHalts(ports, (await ports.ledger.bookmarks()).filter(isLogBased));
        // Only who is not behind itself rings for those who are: they would ring each other without end.
        if (!isBehind && !hasComeUp) await ringBehind(ports, step);
        break;
      }
    }
    if (ports.clock.now() >= limits.deadline_ms) {
      await ringLoad(ports, [{ kind: 'cuts', stream, cut: rung?.applied_cut ?? 0 }]);
      break;
    }
  }
  const { cuts, changes, halts } = done;
  const applied = cuts > 0 ? 'applied' : 'nothing';
  return { outcome: halts > 0 ? 'halted' : applied, cuts, changes, rows: 0 };
}

/** Cuts may be applied to it, as far as the ledger knows. One that is to be copied anew would be refused again. */
function mayApply({ halt, state, reset_requested, resync_requested }: Bookmark): boolean {
  if (halt !== null || reset_requested || resync_requested === true) return false;
  return state === 'live' || state === 'catching_up';
}

interface Moved {
  readonly cuts: number;
  readonly changes: number;
  readonly more: boolean;
  readonly behind: readonly Standing[];
}

const NOBODY: Moved = { cuts: 0, changes: 0, more: false, behind: [] };

/** What a stream was refused with, on its way out of the transaction of all. */
class Refused extends Error {
  readonly bookmark: Bookmark;
  readonly fault: unknown;

  constructor(bookmark: Bookmark, fault: unknown) {
    super('a stream was refused');
    this.bookmark = bookmark;
    this.fault = fault;
  }
}

/** Runs what concerns one stream: what it throws is that stream's. */
async function ofStream<T>(bookmark: Bookmark, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (fault) {
    throw new Refused(bookmark, fault);
  }
}

/** One target transaction, and the mirrors of what it did. `again`: nothing was done, and another look will find other streams. */
async function moveTogether(
  ports: StepPorts,
  bookmarks: readonly Bookmark[],
  limits: LoadLimits,
  { refuse, careful }: Refusing,
): Promise<Moved | 'again'> {
  if (bookmarks.length === 0) return NOBODY;
  try {
    const care = new Care(ports, limits.refusals, false);
    const step = await care.run(() =>
      ports.target.transactionOver(bookmarks.map(streamOf), (of) =>
        applyTogether(ports, bookmarks, of, limits, { care, careful }),
      ),
    );
    if (step === null) return NOBODY;
    if (step === 'again') return step;
    await mirror(ports, step);
    return step;
  } catch (thrown) {
    if (thrown instanceof Refused) {
      const { stream } = thrown.bookmark;
      if (limits.refusals && wantsCare(thrown.fault) && !careful.has(stream)) {
        careful.set(stream, { checks: false });
        return 'again';
      }
      await refuse(thrown.bookmark, thrown.fault);
      return 'again';
    }
    // What is checked at the commit (deferred constraints) names its table.
    const bookmark = bookmarks.find((one) => isAt(one, thrown));
    if (limits.refusals && wantsCare(thrown) && checkMore(careful, bookmarks, bookmark)) return 'again';
    if (!bookmark) throw thrown;
    await refuse(bookmark, thrown);
    return 'again';
  }
}

interface Refusing {
  readonly refuse: (bookmark: Bookmark, fault: unknown) => Promise<void>;
  readonly careful: Careful;
}

/** Streams of which rows are looked for that the target refuses; `checks`: also by constraints that are deferred to the commit, and `last`: when the others are in. */
type Careful = Map<string, { readonly checks: boolean; readonly last?: boolean }>;

/** Those of which the list of what waits may have to be brought up. */
async function carefulOf({ ledger }: StepPorts, { refusals }: LoadLimits): Promise<Careful> {
  const rejects = refusals?.on_error === 'quarantine' ? await ledger.rejects(null) : [];
  return new Map(rejects.flatMap(({ stream, refused }) => (refused ? [[stream, { checks: false }]] : [])));
}

/** Refused at the commit: by a row of the table that is named; where that is known to be innocent, or is not here, by any. False: all have been looked at. */
function checkMore(careful: Careful, bookmarks: readonly Bookmark[], named: Bookmark | undefined): boolean {
  const isNew = ({ stream }: Bookmark): boolean => careful.get(stream)?.checks !== true;
  const suspects = named && isNew(named) ? [named] : bookmarks.filter(isNew);
  for (const { stream } of suspects) careful.set(stream, { checks: true, last: stream === named?.stream });
  return suspects.length > 0;
}

function isAt({ target }: Bookmark, thrown: unknown): boolean {
  const cause: unknown = thrown instanceof SluiceError ? thrown.cause : null;
  if (typeof cause !== 'object' || cause === null || !('schema' in cause) || !('table' in cause)) return false;
  return cause.schema === target.schema && cause.table === target.table;
}

interface Step extends Moved {
  readonly cut: number;
  readonly lsn: Lsn;
  /** Those that stand at `cut` now, with their changes. */
  readonly joined: readonly { readonly bookmark: Bookmark; readonly changes: number }[];
}

interface Member {
  readonly bookmark: Bookmark;
  readonly tx: TargetTransaction;
  readonly row: NonNullable<TargetTransaction['row']>;
  changes: number;
  committed_at_ms: number | null;
}

async function applyTogether(
  ports: StepPorts,
  bookmarks: readonly Bookmark[],
  of: TransactionOf,
  limits: LoadLimits,
  { care, careful }: { readonly care: Care; readonly careful: Careful },
): Promise<Step | 'again' | null> {
  const present = new Map<string, Member>();
  for (const bookmark of bookmarks) {
    const member = await ofStream(bookmark, () => memberOf(bookmark, of(bookmark.stream)));
    if (member) present.set(bookmark.stream, member);
  }
  // Held or locked on the target, though the ledger knows of nobody who works on them: looked at alone.
  const aside = bookmarks.filter(({ stream, state }) => state === 'live' && !present.has(stream));
  for (const { bookmark, row } of present.values()) {
    if (!isSetBack(bookmark, row)) continue;
    const { stream, applied_cut: known_cut } = bookmark;
    ports.log.warn('target_went_back', { stream, cut: row.applied_cut, known_cut });
  }
  const mustered = muster([...present.values()].map(standingOf));
  if (mustered === null) return null;
  // What one has refers to what another has: whoever is checked with each row comes last.
  const members = mustered.members
    .flatMap(({ stream }) => present.get(stream) ?? [])
    .toSorted((a, b) => checksOf(careful, a) - checksOf(careful, b));
  const cuts = await nextCuts(ports, members, mustered);
  // A window notes that it has passed over a stream's changes before it records a cut that lacks them: who looks after the cuts is told in time.
  if (cuts.length > 0 && !(await mayAllApply(ports, members))) return 'again';
  for (const { bookmark, tx } of members) {
    const how = careful.get(bookmark.stream);
    const which = { isCareful: how !== undefined, checks: how?.checks ?? false };
    await ofStream(bookmark, () => care.divert(tx, bookmark.stream, which));
  }
  const { applied, changes } = await applyAll(ports, members, cuts, limits);
  const first = members.find(({ row }) => row.applied_cut === mustered.from);
  if (!first) return null;
  const last = applied.at(-1);
  const { cut, lsn } = last
    ? { cut: last.number, lsn: last.end_lsn }
    : { cut: first.row.applied_cut, lsn: first.row.applied_lsn };
  const joined = members.filter(({ row }) => row.applied_cut <= cut);
  // Where one transaction did not hold all that a late one lacks, it is on its way to the others, who stay where they are.
  const together = cut >= mustered.place;
  for (const { bookmark, tx, row, committed_at_ms } of joined) {
    if (row.applied_cut === cut && row.together === together && row.halt == null) continue;
    await ofStream(bookmark, () => tx.advance({ cut, lsn, caught_up: true, committed_at_ms, together }));
  }
  return {
    cut,
    lsn,
    joined,
    cuts: applied.length,
    changes,
    more: applied.length < cuts.length || cuts.length === CUTS_MAX,
    behind: [...mustered.behind, ...aside.map(({ stream, applied_cut }) => ({ stream, applied_cut, together: false }))],
  };
}

/** The later the higher. */
function checksOf(careful: Careful, { bookmark }: Member): number {
  const how = careful.get(bookmark.stream);
  if (how?.last) return 2;
  return how?.checks ? 1 : 0;
}

/** Null: it stands aside. Throws TARGET_ROW_MISSING, LEDGER_INCARNATION and TARGET_WENT_BACK. */
function memberOf(bookmark: Bookmark, tx: TargetTransaction | null): Member | null {
  if (tx === null) return null;
  const { row } = tx;
  if (!row) throw new SluiceError('TARGET_ROW_MISSING', { stream: displayName(bookmark.table) });
  if (row.hold !== null || row.catching_up_to !== null) return null;
  assertAgrees(bookmark, row);
  return { bookmark, tx, row, changes: 0, committed_at_ms: null };
}

function standingOf({ bookmark, row }: Member): Standing {
  return { stream: bookmark.stream, applied_cut: row.applied_cut, together: row.together === true };
}

async function mayAllApply({ ledger }: StepPorts, members: readonly Member[]): Promise<boolean> {
  const may = new Set((await ledger.bookmarks()).filter(mayApply).map(({ stream }) => stream));
  return members.every(({ bookmark }) => may.has(bookmark.stream));
}

/** After those that the last member has. A gap is the fault of whoever lacks a cut, never skipped (I4). */
async function nextCuts({ ledger }: StepPorts, members: readonly Member[], { from }: Muster): Promise<readonly Cut[]> {
  const after = await ledger.cutsAfter(from, CUTS_MAX);
  for (const { bookmark, row } of members) {
    await ofStream(bookmark, () => assertFollows({ ledger }, bookmark, row, after));
  }
  const cuts = beforeJump(after);
  const last = members.find(({ row }) => row.applied_cut === from);
  if (last) await ofStream(last.bookmark, () => assertNoGap(last.bookmark, from, cuts));
  return cuts;
}

/** Cut by cut, of each the streams that lack it, as far as one transaction and the time go. Resolves with the cuts that were applied. */
async function applyAll(
  { stage, clock }: StepPorts,
  members: readonly Member[],
  cuts: readonly Cut[],
  { deadline_ms }: LoadLimits,
): Promise<{ readonly applied: readonly Cut[]; readonly changes: number }> {
  const applied: Cut[] = [];
  let text_bytes = 0;
  let changes = 0;
  for (const cut of cuts) {
    if (applied.length > 0 && (text_bytes >= TEXT_BYTES_MAX || clock.now() >= deadline_ms)) break;
    for (const member of members) {
      if (member.row.applied_cut >= cut.number) continue;
      const own = await ofStream(member.bookmark, () => applyCut(stage, cut, member.bookmark.stream, member.tx));
      member.committed_at_ms = cut.committed_at_ms ?? member.committed_at_ms;
      member.changes += own?.changes ?? 0;
      changes += own?.changes ?? 0;
      text_bytes += own?.text_bytes ?? 0;
    }
    applied.push(cut);
  }
  return { applied, changes };
}

/** Brings the bookmarks of all that stand at the cut up to it. One that was captured anew meanwhile tells of something else, and stays. */
async function mirror({ ledger, clock }: StepPorts, { joined, cut, lsn }: Step): Promise<void> {
  const behind = joined.filter(({ bookmark }) => bookmark.applied_cut !== cut || bookmark.state !== 'live');
  for (let at = 0; at < behind.length; at += MIRRORS_AT_ONCE) {
    await Promise.all(
      behind.slice(at, at + MIRRORS_AT_ONCE).map(({ bookmark, changes }) => {
        const fields = {
          applied_cut: cut,
          applied_lsn: lsn,
          applied_at_ms: clock.now(),
          changes_applied: bookmark.changes_applied + changes,
          ...(bookmark.state === 'catching_up' ? { state: 'live' as const } : {}),
        };
        return ledger.updateBookmark(bookmark.stream, fields, captureOf(bookmark));
      }),
    );
  }
}

async function ringBehind(ports: StepPorts, { behind }: Moved): Promise<void> {
  const bells = behind.map(({ stream, applied_cut }) => ({ kind: 'cuts' as const, stream, cut: applied_cut }));
  await ringLoad(ports, bells);
}
