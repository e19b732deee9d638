/**
 * The slot, opened where the chain ends, and the reading of it, with all that ends a window; and what a former window has staged of a transaction that it did not
 * come to the end of. On the path between the capture and the cut.
 */
import type { Pipeline } from '../config/schema.ts';
import type { CapturedStream } from '../cut/captured.ts';
import { CUT_AGE_CONTINUOUS_MS_MAX, CUT_AGE_MS_MAX } from '../cut/due.ts';
import { logDecoder } from '../decode/choose.ts';
import { LSN_ZERO, lsnMax } from '../lsn.ts';
import type { DrainPorts, OpenWindow, Window } from '../pipeline.ts';
import type { Bookmark, SlotReader } from '../ports.ts';
import { Reading } from './reading.ts';
import type { ShapeNews } from './shape-news.ts';
import { assertSlotInPlace } from './slot-in-place.ts';
import { windowMsMax } from './stop.ts';
import { UnfinishedCut } from './unfinished.ts';

interface ToRead extends OpenWindow {
  /** How the streams are followed. */
  readonly followed: readonly CapturedStream[];
  readonly captured: readonly Bookmark[];
  readonly news: ShapeNews | null;
}

export interface OpenReading {
  readonly reader: SlotReader;
  readonly reading: Reading;
  readonly unfinished: UnfinishedCut;
}

/** The reader is the caller's to close. Throws what opening the slot throws, and the ledger and the stage. */
export async function openReading(
  ports: DrainPorts,
  pipeline: Pipeline,
  window: Window,
  open: ToRead,
): Promise<OpenReading> {
  const { run, keeper, chain, ground, followed: streams } = open;
  const begin_lsn = chain.head.end_lsn;
  run.between(begin_lsn, ground.flush_lsn);
  const appends = streams.some(({ keyless }) => keyless?.rows === 'append');
  const reader = await ports.source.openSlot(begin_lsn, String(keeper.token), appends, streams);
  try {
    await assertSlotInPlace(ports, pipeline, chain.head);
    const { captured } = open;
    const { objects_max } = window;
    const by = { head: chain.head, dialect: reader.dialect, appends, streams, captured, objects_max };
    const unfinished = await UnfinishedCut.open(ports, pipeline, by);
    return { reader, reading: readingOf(ports, pipeline, window, open, { reader, unfinished }), unfinished };
  } catch (thrown) {
    await reader.close();
    throw thrown;
  }
}

function readingOf(
  { clock, source }: DrainPorts,
  { source: options, target, schedule }: Pipeline,
  window: Window,
  { run, chain, ground, streams, followed, catalog_lsn, news }: ToRead,
  { reader, unfinished }: Omit<OpenReading, 'reading'>,
): Reading {
  return new Reading({
    reader,
    decoder: (cut) => logDecoder(reader.dialect, { tables: streams.map(({ table }) => table), source, cut }),
    clock,
    streams: followed,
    catalog_lsn,
    hard_delete: target.hard_delete,
    from: chain.head.end_lsn,
    staged: unfinished.staged,
    started_at_ms: run.started_at_ms,
    end_lsn:
      (window.break_at_end_lsn ?? options.break_at_end_lsn) ? lsnMax(ground.flush_lsn, news?.lsn ?? LSN_ZERO) : null,
    no_data_ms: options.logical_poll_total_seconds * 1000,
    max_run_ms: windowMsMax(options.max_run_seconds * 1000, schedule.kind),
    deadline_ms: window.deadline_ms,
    cut_age_ms_max: schedule.kind === 'continuous' ? CUT_AGE_CONTINUOUS_MS_MAX : CUT_AGE_MS_MAX,
    asked: window.asked ?? (() => false),
    flushLsn: async () => (await source.look()).flush_lsn,
  });
}
