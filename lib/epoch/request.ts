/**
 * Epochs that somebody has asked for (backfill, repair): kept as requests, opened one after another when their stream is free.
 *
 * On the path: whoever asks opens at once where he can; so do the end of an epoch (lib/load/epoch-steps.ts) and each window (lib/window/capture.ts), for
 * whoever died in between. A stream of the log stays captured all the while, so that no cut is needed (I11): `held_cut` says which capture it is of.
 */
import { createHash } from 'node:crypto';
import { isLogBased } from '../ledger/method.ts';
import type { Bookmark, ChunkRange, Clock, Doorbell, Epoch, EpochRequest, Ledger, Log } from '../ports.ts';
import { ringExtract } from '../window/announce.ts';

/** JSON of the ranges that one epoch is given: an item of the ledger holds 400 KB, and each character of a key may be six bytes of JSON there. */
export const RANGES_BYTES_MAX = 128 * 1024;
/** Keys of one chunk that is given as a list: some pages of one statement. */
const KEYS_MAX = 500;

export interface RequestPorts {
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Log;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
}

/** What is asked for of one stream. */
export interface Wanted {
  readonly kind: EpochRequest['kind'];
  readonly where: string | null;
  readonly ranges: readonly ChunkRange[] | null;
}

/** `opened`: its epoch has begun; `waiting`: the stream is busy with another, or halted, and this one's turn comes. */
export type Requested = 'opened' | 'waiting';

/** Keeps the request, and opens its epoch if the stream is free. The same request made twice waits once. */
export async function requestEpoch(ports: RequestPorts, stream: string, wanted: Wanted): Promise<Requested> {
  const { ledger, clock } = ports;
  const same = (await ledger.epochRequests(stream)).find((request) => isSame(request, wanted));
  const requested_at_ms = clock.now();
  const id = same?.id ?? requestId(requested_at_ms, wanted);
  if (same === undefined) await ledger.addEpochRequest({ stream, id, ...wanted, requested_at_ms });
  const bookmark = await ledger.bookmark(stream);
  const opened = bookmark === null ? null : await openRequested(ports, bookmark);
  return opened === id ? 'opened' : 'waiting';
}

/** Opens the stream's oldest request if it is free for it. Resolves with the request's id; null: there is none, or the stream is busy. */
export async function openRequested(ports: RequestPorts, seen: Bookmark): Promise<string | null> {
  const { ledger, clock, log } = ports;
  const { stream } = seen;
  if (!isLogBased(seen)) {
    await dropRequests(ports, (asked) => asked === stream);
    return null;
  }
  const [request] = await ledger.epochRequests(stream);
  if (request === undefined || !isFree(seen)) return null;
  // One that died after opening it has left its request here.
  const newest = seen.epoch > 0 ? await ledger.epoch(stream, seen.epoch) : null;
  const standing = newest?.request === request.id ? newest : null;
  if (standing !== null && (standing.state === 'done' || standing.state === 'cancelled')) {
    await ledger.removeEpochRequest(request);
    return null;
  }
  const epoch = standing ?? epochOf(request, seen, clock.now());
  if (standing === null && !(await ledger.openEpoch(epoch))) return null;
  // Captured anew meanwhile: the window opens another epoch, and the request waits for that one's end.
  const at = { captured_cut: seen.captured_cut, epoch: epoch.number };
  if (!(await ledger.updateBookmark(stream, { state: 'syncing' }, at))) return null;
  await ledger.removeEpochRequest(request);
  log.info('epoch_opened', { stream, epoch: epoch.number, kind: epoch.kind, request: request.id });
  await ringExtract(ports, [{ kind: 'plan', stream, epoch: epoch.number }]);
  return request.id;
}

/** Opens what waits, of every stream that is free: one epoch each. */
export async function openAllRequested(ports: RequestPorts, bookmarks: readonly Bookmark[]): Promise<void> {
  const waiting = new Set((await ports.ledger.epochRequests(null)).map(({ stream }) => stream));
  for (const bookmark of bookmarks) if (waiting.has(bookmark.stream)) await openRequested(ports, bookmark);
}

/** What was asked of streams that are not followed by the log any more: should one come back, it is copied as a whole. */
export async function dropRequests(
  { ledger, log }: Pick<RequestPorts, 'ledger' | 'log'>,
  isLeft: (stream: string) => boolean,
): Promise<void> {
  for (const request of await ledger.epochRequests(null)) {
    const { stream, id, kind } = request;
    if (!isLeft(stream)) continue;
    await ledger.removeEpochRequest(request);
    log.warn('request_dropped', { stream, request: id, kind });
  }
}

/** Requests that have these keys read again, in as many epochs as they need. `keys`: PostgreSQL's text of each column. */
export function repairOf(columns: readonly string[], keys: readonly (readonly string[])[]): Wanted[] {
  const wanted: Wanted[] = [];
  let ranges: ChunkRange[] = [];
  let chunk: (readonly string[])[] = [];
  let bytes = 0;
  const endChunk = (): void => {
    if (chunk.length > 0) ranges.push({ by: 'keys', columns, keys: chunk });
    chunk = [];
  };
  const endRequest = (): void => {
    endChunk();
    if (ranges.length > 0) wanted.push({ kind: 'repair', where: null, ranges });
    ranges = [];
    bytes = 0;
  };
  for (const key of keys) {
    const key_bytes = Buffer.byteLength(JSON.stringify(key)) + 1;
    if (bytes > 0 && bytes + key_bytes > RANGES_BYTES_MAX) endRequest();
    bytes += key_bytes;
    chunk.push(key);
    if (chunk.length === KEYS_MAX) endChunk();
  }
  endRequest();
  return wanted;
}

/** No epoch has it, nobody waits for a person, and it is not about to be captured anew. */
function isFree({ state, halt, reset_requested, resync_requested }: Bookmark): boolean {
  return (
    (state === 'live' || state === 'catching_up') && halt === null && !reset_requested && resync_requested !== true
  );
}

function epochOf(request: EpochRequest, { stream, epoch, captured_cut, applied_cut }: Bookmark, now_ms: number): Epoch {
  return {
    stream,
    number: epoch + 1,
    kind: request.kind,
    where: request.where,
    ranges: request.ranges,
    request: request.id,
    state: 'opened',
    plan: null,
    chunks: null,
    rows_estimate: -1,
    held_cut: Math.max(applied_cut, captured_cut),
    opened_at_ms: now_ms,
    rung_at_ms: now_ms,
    done_at_ms: null,
  };
}

function isSame(request: EpochRequest, wanted: Wanted): boolean {
  return contentOf(request) === contentOf(wanted);
}

function contentOf({ kind, where, ranges }: Wanted): string {
  return JSON.stringify([kind, where, ranges]);
}

/** Sorted by age; what is asked for at the same moment is told apart by what it says. */
function requestId(now_ms: number, wanted: Wanted): string {
  const digest = createHash('sha256').update(contentOf(wanted)).digest('hex').slice(0, 12);
  return `${String(now_ms).padStart(15, '0')}-${digest}`;
}

/** A list of keys without some: other ranges stay as they are. Pure. */
export function rangeWithout(
  range: ChunkRange,
  keys: readonly { readonly columns: readonly string[]; readonly values: readonly string[] }[],
): ChunkRange {
  if (range.by !== 'keys' || keys.length === 0) return range;
  const without = new Set(
    keys.map(({ columns, values }) => JSON.stringify(range.columns.map((name) => values[columns.indexOf(name)]))),
  );
  return { ...range, keys: range.keys.filter((key) => !without.has(JSON.stringify(key))) };
}
