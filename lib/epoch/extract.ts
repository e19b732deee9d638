/**
 * The steps of an epoch on the source's side: the plan, and each chunk (design §3, Epochs).
 *
 * Any step may run twice, at once or after a crash: a plan wins by one conditional write, a chunk is staged once, and bells are rung after the
 * writes that they point at.
 */
import { SluiceError } from '../errors.ts';
import type {
  Bookmark,
  Chunk,
  Clock,
  Doorbell,
  Epoch,
  ExtractBell,
  Extractor,
  Ledger,
  Log,
  SourceTable,
  Stage,
  Target,
} from '../ports.ts';
import { displayName } from '../shape.ts';
import { tableShape } from '../slot/table-shape.ts';
import { appendChunk } from '../stage/encode.ts';
import { ringEpochWork, ringLoad } from '../window/announce.ts';
import { planChunks, rangeColumn } from './plan.ts';

/** Rows of a chunk: some seconds of copying, so that a chunk that breaks costs little and parallel readers share evenly. */
const CHUNK_ROWS = 250_000;
const CHUNKS_MAX = 5_000;

interface EpochPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly extractor: Extractor;
  readonly stage: Stage;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
  readonly target: Target;
  readonly newId: () => string;
}

/** Plans the epoch and rings for its chunks; one that is planned already is only rung for. Number of chunks; null: the epoch is over. */
export async function planEpoch(ports: EpochPorts, bookmark: Bookmark, epoch: Epoch): Promise<number | null> {
  const { extractor, ledger, target } = ports;
  if (epoch.state === 'done' || epoch.state === 'cancelled') return null;
  if (epoch.state === 'planned') {
    await ringEpochWork(ports, epoch);
    return epoch.chunks;
  }
  const { stream } = bookmark;
  const table = await tableOf(extractor, bookmark);
  const column = rangeColumn(table);
  const { ranges, may_overlap } = planChunks({
    table,
    version: await extractor.version(),
    bounds: column === null ? null : await extractor.keyBounds(table, column),
    chunk_rows: CHUNK_ROWS,
    chunks_max: CHUNKS_MAX,
  });
  const plan = ports.newId();
  const planned: Epoch = {
    ...epoch,
    state: 'planned',
    plan,
    chunks: ranges.length,
    rows_estimate: table.rows_estimate,
  };
  await ledger.saveChunks(
    ranges.map((range, number) => ({ stream, epoch: epoch.number, plan, number, range, staged: null, loaded: false })),
  );
  // Looked at before anything is copied: a target that will not take the stream is better known now.
  await target.prepareEpoch(targetOf(bookmark), planned, plan, tableShape(table), bookmark.incarnation, may_overlap);
  if (!(await ledger.updateEpoch(planned, 'opened'))) return null;
  // A stream that was captured anew meanwhile waits for another epoch.
  const { captured_cut } = bookmark;
  await ledger.updateBookmark(stream, { state: 'syncing' }, { captured_cut, epoch: epoch.number });
  await ringEpochWork(ports, planned);
  return ranges.length;
}

/** Reads one chunk into the stage. Rows; null: it was staged before, or its plan is not the epoch's. */
export async function readChunk(
  ports: EpochPorts,
  bookmark: Bookmark,
  epoch: Epoch,
  bell: ExtractBell & { kind: 'chunk' },
  object: string,
): Promise<number | null> {
  const { extractor, stage, ledger, clock } = ports;
  const { stream } = bookmark;
  if (epoch.state !== 'planned' || epoch.plan !== bell.plan) return null;
  const chunk = await ledger.chunk(stream, bell.epoch, bell.plan, bell.chunk);
  if (!chunk) return null;
  const loadBell = { kind: 'chunk', stream, epoch: bell.epoch, plan: bell.plan, chunk: bell.chunk } as const;
  if (chunk.staged) {
    if (!chunk.loaded) await ringLoad(ports, [loadBell]);
    return null;
  }
  const table = await tableOf(extractor, bookmark);
  const writer = stage.begin(object);
  try {
    const read = await extractor.readChunk(table, chunk.range, epoch.where);
    const head = {
      stream,
      operation: 'changes',
      shape: tableShape(read.table),
      extracted_at: new Date(clock.now()).toISOString(),
    } as const;
    const { text_bytes } = await appendChunk(writer, head, read.lines);
    const { rows, lsn } = await read.result();
    await writer.complete();
    const staged: Chunk = { ...chunk, staged: { object, object_bytes: writer.bytes, rows, text_bytes, lsn } };
    const first = await ledger.stageChunk(staged);
    await ringLoad(ports, [loadBell]);
    return first ? rows : null;
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

async function tableOf(extractor: Extractor, { table: name }: Bookmark): Promise<SourceTable> {
  const table = await extractor.table(name);
  if (!table) throw new SluiceError('TABLE_MISSING', { table: displayName(name) });
  return table;
}

function targetOf({ stream, target }: Bookmark) {
  return { stream, target };
}
