/**
 * What a person asks of rows beside the running stream: some of them again (`backfill --where`), and to stop that (`--cancel`). A whole table anew is a
 * capture (requestResets of lib/operate.ts).
 *
 * Beside the path: only the ledger is written to, and what is asked for begins when its stream is free (request.ts).
 */
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { namedStreams, type OperatePorts } from '../operate.ts';
import type { Bookmark } from '../ports.ts';
import { displayName, type TableName } from '../shape.ts';
import { cancelEpoch } from './cancel.ts';
import { courseOf } from './kinds.ts';
import { type Requested, requestEpoch } from './request.ts';

/** What was done about one stream. */
export interface BackfillAsked {
  readonly stream: string;
  readonly table: string;
  /** `waiting`: behind another epoch, or until the stream goes on. */
  readonly backfill: Requested;
}

/**
 * Asks for the rows that match `where` of every stream that one of `named` means. `check` looks at the condition on the source and throws BACKFILL_WHERE. Throws
 * USAGE for a name that means none, and for streams that cannot have it. Nothing is asked for then.
 */
export async function requestBackfills(
  ports: OperatePorts,
  named: readonly string[],
  where: string,
  check: (table: TableName, where: string) => Promise<void>,
): Promise<BackfillAsked[]> {
  const bookmarks = await namedStreams(ports.ledger, named);
  for (const bookmark of bookmarks) assertPossible(bookmark);
  for (const { table } of bookmarks) await check(table, where);
  const asked: BackfillAsked[] = [];
  for (const { stream, table } of bookmarks) {
    const backfill = await requestEpoch(ports, stream, { kind: 'backfill', where, ranges: null });
    ports.log.info('backfill_requested', { stream, backfill });
    asked.push({ stream, table: displayName(table), backfill });
  }
  return asked;
}

/** What was cancelled of one stream. */
export interface BackfillCancelled {
  readonly stream: string;
  readonly table: string;
  /** Requests that had not begun. */
  readonly requests: number;
  /** Number of the epoch that was under way; null: there was none. */
  readonly epoch: number | null;
}

/**
 * Ends what was asked for of these streams, begun or not: rows that have been read again stay. Throws USAGE for a name that means no stream, and where a whole
 * table is being copied: the log alone does not say what its rows are, so that has to be gone through with.
 */
export async function cancelBackfills(ports: OperatePorts, named: readonly string[]): Promise<BackfillCancelled[]> {
  const { ledger, log } = ports;
  const streams = await namedStreams(ledger, named);
  for (const bookmark of streams) await assertNotCopied(ports, bookmark);
  const cancelled: BackfillCancelled[] = [];
  for (const { stream, table } of streams) {
    const requests = await ledger.epochRequests(stream);
    for (const request of requests) await ledger.removeEpochRequest(request);
    // Looked at now: what waited may have begun since the names were looked up.
    const number = (await ledger.bookmark(stream))?.epoch ?? 0;
    const epoch = number > 0 ? await ledger.epoch(stream, number) : null;
    const ended = epoch !== null && (await cancelEpoch(ports, epoch, 'It was cancelled.'));
    log.info('backfill_cancelled', { stream, requests: requests.length, epoch: ended ? number : null });
    cancelled.push({ stream, table: displayName(table), requests: requests.length, epoch: ended ? number : null });
  }
  return cancelled;
}

async function assertNotCopied({ ledger }: OperatePorts, bookmark: Bookmark): Promise<void> {
  const { stream, table, state, epoch: number, method } = bookmark;
  const epoch = state === 'syncing' ? await ledger.epoch(stream, number) : null;
  if (state !== 'captured' && (epoch === null || courseOf(epoch.kind).goes_on_from === 'applied')) return;
  if (!isLogBased(bookmark)) {
    throw new SluiceError('USAGE', {
      problem: `${displayName(table)} is replicated by query (${method}), and its run is gone through with: nobody has asked for it.`,
      remedy: 'To stop it for good, take the table out of the pipeline file.',
    });
  }
  throw new SluiceError('USAGE', {
    problem: `${displayName(table)} is being copied as a whole, which cannot be cancelled: the log alone does not say what its rows are.`,
    remedy:
      'Its target table stays as it is until the copy is complete. To stop it for good, take the table out of the pipeline file.',
  });
}

function assertPossible(bookmark: Bookmark): void {
  const { stream, table, method, followed } = bookmark;
  const name = displayName(table);
  if (!isLogBased(bookmark)) {
    throw new SluiceError('USAGE', {
      problem: `${name} is replicated by query (${method}): its rows are read again anyhow.`,
      remedy: `To begin it anew: sluice backfill ${stream} --reset`,
    });
  }
  if (followed?.key !== undefined && followed.key === '') {
    throw new SluiceError('USAGE', {
      problem: `${name} has no key, so that nothing tells which rows of the target are meant.`,
      remedy: `Copy it anew: sluice backfill ${stream} --reset`,
    });
  }
}
