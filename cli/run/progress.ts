/**
 * How a run gets on, as figures: what is shown on a terminal, told in plain lines, and given to programs. Pure, but for the meters that it is made with.
 */
import { courseOf } from '../../lib/epoch/kinds.ts';
import type { PipelineStatus, StreamStatus } from '../../lib/operate.ts';
import { Meter, secondsLeft } from './meter.ts';

/** One table that is being copied. */
export interface Copying {
  readonly table: string;
  /** Read from the source and staged. */
  readonly rows_staged: number;
  /** In the target. */
  readonly rows_loaded: number;
  /** Of its text. */
  readonly bytes_loaded: number;
  /** An estimate until all is staged; null: nobody can tell. */
  readonly bytes_total: number | null;
  /** 0 to 100; null: it is not planned yet. */
  readonly percent: number | null;
  /** Exact once all is staged, an estimate before; null: the source has none. */
  readonly rows_total: number | null;
  readonly rows_per_second: number;
  readonly seconds_left: number | null;
}

export interface Progress {
  readonly streams: Readonly<Record<'total' | 'live' | 'catching_up' | 'copying' | 'waiting' | 'halted', number>>;
  readonly copying: readonly Copying[];
  /** Of this run: what has been read from the log and recorded. `lsn` is null before the first window. */
  readonly log: {
    readonly lsn: string | null;
    readonly cuts: number;
    readonly changes: number;
    readonly object_bytes: number;
    readonly changes_per_second: number;
    readonly bytes_per_second: number;
  };
  /** Of this run: what has been loaded. */
  readonly applied: { readonly rows: number; readonly changes: number; readonly changes_per_second: number };
  /** Of the live stream that is furthest behind what is recorded; null: it cannot be told. */
  readonly lag: { readonly seconds: number; readonly bytes: number } | null;
}

/** What the cuts of this run hold together. */
export interface Recorded {
  readonly cuts: number;
  readonly changes: number;
  readonly object_bytes: number;
}

interface CopiedRows {
  /** A copy may begin and end between two looks: its number tells. */
  epoch: number;
  /** Rows of that copy that are not this run's. */
  before: number;
  /** Of the copies before. */
  done: number;
  last: number;
}

export class ProgressMaker {
  readonly #copies = new Map<string, Meter>();
  readonly #changes = new Meter();
  readonly #bytes = new Meter();
  readonly #applied = new Meter();
  readonly #rows = new Map<string, CopiedRows>();
  #changesBefore: number | null = null;

  /** `status`: of the streams that are shown. Called with times that never go back. */
  make(at_ms: number, status: Pick<PipelineStatus, 'head' | 'streams'>, recorded: Recorded): Progress {
    const { streams } = status;
    const changes = sum(streams, (stream) => stream.changes_applied);
    const isFirst = this.#changesBefore === null;
    this.#changesBefore ??= changes;
    const applied = Math.max(0, changes - this.#changesBefore);
    this.#changes.add(at_ms, recorded.changes);
    this.#bytes.add(at_ms, recorded.object_bytes);
    this.#applied.add(at_ms, applied);
    const inState = (state: StreamStatus['state']): number => streams.filter((stream) => stream.state === state).length;
    return {
      streams: {
        total: streams.length,
        live: inState('live'),
        catching_up: inState('catching_up'),
        copying: inState('syncing'),
        waiting: inState('captured'),
        halted: inState('halted'),
      },
      copying: streams.flatMap((stream) => this.#copying(at_ms, stream)),
      log: {
        lsn: status.head === null || status.head.cut === 0 ? null : status.head.lsn,
        ...recorded,
        changes_per_second: this.#changes.per_second,
        bytes_per_second: this.#bytes.per_second,
      },
      applied: {
        rows: sum(streams, (stream) => this.#rowsCopied(stream, isFirst)),
        changes: applied,
        changes_per_second: this.#applied.per_second,
      },
      lag: worstLag(streams),
    };
  }

  /** In this run: what stands in the target at the first look is not counted, what a new copy brings is. */
  #rowsCopied({ stream, epoch, epoch_number, rows_copied }: StreamStatus, isFirst: boolean): number {
    // Of the copy that is under way, or of the last one; in place, rows come on top of what was copied before.
    const inPlace = epoch !== null && courseOf(epoch.kind).into === 'table';
    const rows = (inPlace ? rows_copied : 0) + (epoch?.rows_loaded ?? rows_copied);
    const copied = this.#rows.get(stream) ?? {
      epoch: epoch_number,
      before: isFirst ? rows : 0,
      done: 0,
      last: 0,
    };
    if (epoch_number !== copied.epoch) {
      Object.assign(copied, { epoch: epoch_number, before: inPlace ? rows_copied : 0, done: copied.last });
    }
    copied.last = copied.done + Math.max(0, rows - copied.before);
    this.#rows.set(stream, copied);
    return copied.last;
  }

  #copying(at_ms: number, { stream, table, epoch, state }: StreamStatus): Copying[] {
    if (epoch === null || (state !== 'captured' && state !== 'syncing')) {
      this.#copies.delete(stream);
      return [];
    }
    const meter = this.#copies.get(stream) ?? new Meter();
    this.#copies.set(stream, meter);
    const { rows_staged, rows_loaded, rows_total, bytes_loaded, bytes_total } = epoch;
    meter.add(at_ms, rows_loaded);
    const rows_per_second = meter.per_second;
    // By the pace of the last moments; where nobody knows how many rows there are, by that of the whole epoch.
    const seconds_left =
      rows_total === null ? epoch.seconds_left : secondsLeft(rows_total - rows_loaded, rows_per_second);
    const bytes = { bytes_loaded, bytes_total, percent: epoch.percent };
    return [{ table, rows_staged, rows_loaded, rows_total, ...bytes, rows_per_second, seconds_left }];
  }
}

function worstLag(streams: readonly StreamStatus[]): Progress['lag'] {
  const logged = streams.filter(({ method }) => method === 'LOG_BASED');
  const applying = logged.filter(({ state }) => state === 'live' || state === 'catching_up');
  if (applying.length === 0 || applying.some(({ lag }) => lag === null)) return null;
  return {
    seconds: Math.max(...applying.map(({ lag }) => lag?.seconds ?? 0)),
    bytes: Math.max(...applying.map(({ lag }) => lag?.bytes ?? 0)),
  };
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
