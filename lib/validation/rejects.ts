/**
 * What a person asks of rows that were left out (target.on_invalid: reject; target.on_error: quarantine): which there are and why, to have them read again, to forget them.
 *
 * Beside the path: rows come back by an epoch (repair), as the source has them by then, and are checked as any others.
 */
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import { type Requested, repairOf, requestEpoch } from '../epoch/request.ts';
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { namedStreams, type OperatePorts } from '../operate.ts';
import type { Bookmark, Ledger, Reject, Stage } from '../ports.ts';
import { displayName } from '../shape.ts';
import { keyText, type RejectedRow, type RowKey, rejectedRows } from './rejected.ts';
import { rowsOf } from './rejected-count.ts';

/** Keys of one stream that are read again one by one; more are a table's worth. */
const LOAD_KEYS_MAX = 100_000;

/** Lambda answers with 6 MB at most. */
const ANSWER_ROWS_MAX = 100;
const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

/** Of one stream; as `sluice rejects` lists it. */
export interface RejectsOf {
  readonly stream: string;
  readonly table: string;
  /** A row that was left out twice is two. */
  readonly rows: number;
  readonly first_at: string;
  readonly last_at: string;
}

export interface RejectPorts extends OperatePorts {
  readonly stage: Pick<Stage, 'read'>;
}

/** Streams of which rows are put aside, in the order of their tables' names. */
export async function listRejects(ledger: Pick<Ledger, 'rejects' | 'bookmarks'>): Promise<RejectsOf[]> {
  const tables = new Map((await ledger.bookmarks()).map(({ stream, table }) => [stream, displayName(table)]));
  const byStream = Map.groupBy(await ledger.rejects(null), ({ stream }) => stream);
  return [...byStream]
    .map(([stream, rejects]): RejectsOf => {
      const times = rejects.map(({ rejected_at_ms }) => rejected_at_ms);
      return {
        stream,
        table: tables.get(stream) ?? stream,
        rows: rowsOf(rejects),
        first_at: iso(times.reduce((a, b) => Math.min(a, b))),
        last_at: iso(times.reduce((a, b) => Math.max(a, b))),
      };
    })
    .toSorted((a, b) => (a.table < b.table ? -1 : 1));
}

/** One row as it was put aside. */
export interface ShownReject extends RejectedRow {
  readonly table: string;
  readonly rejected_at: string;
}

/** The rows themselves, the oldest first, of every stream that `named` means. Throws USAGE for a name that means none. */
export async function* readRejects(
  { ledger, stage }: Pick<RejectPorts, 'ledger' | 'stage'>,
  named: string,
): AsyncGenerator<ShownReject, void, undefined> {
  for (const { stream, table } of await namedStreams(ledger, [named])) {
    for (const reject of byAge(await ledger.rejects(stream))) {
      for await (const row of rejectedRows(stage, reject)) {
        yield { ...row, table: displayName(table), rejected_at: iso(reject.rejected_at_ms) };
      }
    }
  }
}

/** What one answer of a function may hold: the first rows that fit, and whether there are more. */
export async function firstRejects(
  ports: Pick<RejectPorts, 'ledger' | 'stage'>,
  named: string,
): Promise<{ readonly rows: readonly ShownReject[]; readonly more: boolean }> {
  const rows: ShownReject[] = [];
  let bytes = 0;
  for await (const row of readRejects(ports, named)) {
    bytes += Buffer.byteLength(JSON.stringify(row));
    if (rows.length === ANSWER_ROWS_MAX || bytes > ANSWER_BYTES_MAX) return { rows, more: true };
    rows.push(row);
  }
  return { rows, more: false };
}

function byAge(rejects: readonly Reject[]): Reject[] {
  return rejects.toSorted((a, b) => a.rejected_at_ms - b.rejected_at_ms);
}

/** What was done about one stream. */
export interface RejectsHandled {
  readonly stream: string;
  readonly table: string;
  readonly rows: number;
  /** Null: nothing was to be read again. */
  readonly load: Requested | null;
}

/**
 * Asks for the rows to be read again by their keys, and forgets them: one that is still not valid is put aside again. Throws USAGE for a name that means no stream,
 * and for a stream of which rows cannot be had by their keys; nothing is asked for then.
 */
export async function loadRejects(
  ports: RejectPorts,
  pipeline: Pick<Pipeline, 'tables'>,
  named: string,
): Promise<RejectsHandled[]> {
  const { ledger, log } = ports;
  const wanted: { bookmark: Bookmark; rejects: Reject[]; keys: RowKey[] }[] = [];
  for (const bookmark of await namedStreams(ledger, [named])) {
    const rejects = await ledger.rejects(bookmark.stream);
    const keys = rejects.length === 0 ? [] : await keysOf(ports, bookmark, rejects);
    if (keys.length > 0) assertLoadable(bookmark, pipeline, keys);
    wanted.push({ bookmark, rejects, keys });
  }
  const handled: RejectsHandled[] = [];
  for (const { bookmark, rejects, keys } of wanted) {
    const { stream, table } = bookmark;
    let load: Requested | null = null;
    // The key may have had other columns before.
    for (const [, own] of Map.groupBy(keys, ({ columns }) => JSON.stringify(columns))) {
      const columns = own[0]?.columns ?? [];
      for (const request of repairOf(
        columns,
        own.map(({ values }) => values),
      )) {
        load = await requestEpoch(ports, stream, request);
      }
    }
    // Only now: whoever dies in between asks twice.
    await ledger.removeRejects(rejects);
    log.info('rejects_loaded', { stream, rows: keys.length, load });
    handled.push({ stream, table: displayName(table), rows: keys.length, load });
  }
  return handled;
}

/** Forgets them: what the target has stays as it is. Throws USAGE for a name that means no stream. */
export async function discardRejects(
  { ledger, log }: Pick<OperatePorts, 'ledger' | 'log'>,
  named: string,
): Promise<RejectsHandled[]> {
  const handled: RejectsHandled[] = [];
  for (const { stream, table } of await namedStreams(ledger, [named])) {
    const rejects = await ledger.rejects(stream);
    await ledger.removeRejects(rejects);
    log.info('rejects_discarded', { stream, rows: rowsOf(rejects) });
    handled.push({ stream, table: displayName(table), rows: rowsOf(rejects), load: null });
  }
  return handled;
}

/** Each key once. */
async function keysOf({ stage }: RejectPorts, bookmark: Bookmark, rejects: readonly Reject[]): Promise<RowKey[]> {
  const keys = new Map<string, RowKey>();
  for (const reject of rejects) {
    for await (const { key } of rejectedRows(stage, reject)) {
      keys.set(`${JSON.stringify(key.columns)} ${keyText(key)}`, key);
      if (keys.size > LOAD_KEYS_MAX) {
        throw unloadable(bookmark, `more than ${LOAD_KEYS_MAX} rows of it were rejected`);
      }
    }
  }
  return [...keys.values()];
}

function assertLoadable(bookmark: Bookmark, pipeline: Pick<Pipeline, 'tables'>, keys: readonly RowKey[]): void {
  if (!isLogBased(bookmark)) throw unloadable(bookmark, 'it is replicated by query, run after run');
  const mask = streamOptions(pipeline, bookmark.table)?.mask ?? {};
  const masked = keys.flatMap(({ columns }) => columns).find((column) => Object.hasOwn(mask, column));
  if (masked === undefined) return;
  throw unloadable(bookmark, `its key has a column that the pipeline file hides (${masked})`);
}

function unloadable({ stream, table }: Bookmark, reason: string): SluiceError {
  return new SluiceError('USAGE', {
    problem: `Rejected rows of ${displayName(table)} cannot be read again one by one: ${reason}.`,
    remedy: `Copy it anew: sluice backfill ${stream} --reset`,
  });
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
