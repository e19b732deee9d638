/**
 * The steps of an epoch on the source's side: the plan, and each chunk (design §3, Epochs).
 *
 * Any step may run twice, at once or after a crash: a plan wins by one conditional write, a chunk is staged once, and bells are rung after the
 * writes that they point at.
 */
import { SluiceError } from '../errors.ts';
import { isLogBased } from '../ledger/method.ts';
import { assertHasRuns } from '../load/agreement.ts';
import type { Lsn } from '../lsn.ts';
import type {
  Bookmark,
  Chunk,
  Clock,
  Comparer,
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
import { type PageOptions, planRun, valueBefore } from './incremental.ts';
import { courseOf } from './kinds.ts';
import type { PlanWays } from './plan.ts';
import { CHUNK_SIZE, planTable, type TablePlan } from './plan-table.ts';
import { rangeWithout } from './request.ts';
import { comparedOrReset, heldChunk } from './resync.ts';

interface EpochPorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly extractor: Extractor;
  readonly comparer: Comparer;
  readonly stage: Stage;
  readonly ledger: Ledger;
  readonly doorbell: Doorbell;
  readonly target: Target;
  readonly newId: () => string;
}

/** Plans the epoch and rings for its chunks; one that is planned already is only rung for. Number of chunks; null: the epoch is over. */
export async function planEpoch(
  ports: EpochPorts,
  bookmark: Bookmark,
  epoch: Epoch,
  paging: PageOptions,
): Promise<number | null> {
  const { extractor, ledger, target } = ports;
  if (epoch.state === 'done' || epoch.state === 'cancelled') return null;
  if (epoch.state === 'planned') {
    await ringEpochWork(ports, epoch);
    return epoch.chunks;
  }
  if (epoch.kind === 'resync') {
    const settled = await comparedOrReset(ports, bookmark, epoch);
    if (settled !== epoch) return settled && (await planEpoch(ports, bookmark, settled, paging));
  }
  const { stream } = bookmark;
  if (epoch.kind === 'incremental') await assertHasRuns(ports, bookmark, epoch.number);
  const is_logged = isLogBased(bookmark);
  const positionNow = () => (is_logged ? extractor.insertLsn() : extractor.position());
  const table = await tableOf(extractor, bookmark);
  // A replica is looked into when it has the table as it is described here; one that is behind for longer is waited for again, up to the same position.
  const described_lsn = epoch.from_lsn ?? (await positionNow());
  const ways = { is_logged, only_keys: courseOf(epoch.kind).replaces };
  const planning = { bookmark, epoch, table, ways, paging, from_lsn: described_lsn };
  const planning_ended = planRanges(ports, planning).catch(async (error: unknown) => {
    const isBehind = error instanceof SluiceError && error.code === 'REPLICA_BEHIND';
    if (isBehind) await ledger.updateEpoch({ ...epoch, from_lsn: described_lsn }, 'opened');
    throw error;
  });
  const { ranges, may_overlap, rows_estimate, bytes_estimate, replication_value } = await planning_ended;
  const plan = ports.newId();
  const planned: Epoch = {
    ...epoch,
    state: 'planned',
    plan,
    chunks: ranges.length,
    rows_estimate,
    bytes_estimate,
    ...(replication_value === undefined ? {} : { replication_value }),
  };
  await ledger.saveChunks(
    ranges.map((range, number) => ({ stream, epoch: epoch.number, plan, number, range, staged: null, loaded: false })),
  );
  // Looked at before anything is copied: a target that will not take the stream is better known now.
  await target.prepareEpoch(targetOf(bookmark), planned, plan, tableShape(table), bookmark.incarnation, may_overlap);
  // After the hold: whatever the target has by now, no chunk is older than that.
  const from_lsn = await positionNow();
  if (!(await ledger.updateEpoch({ ...planned, from_lsn }, 'opened'))) return null;
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
  const held = epoch.kind === 'resync' ? await heldChunk(ports, bookmark, chunk, table) : null;
  if (held) {
    const first = await ledger.stageChunk(held);
    await ringLoad(ports, [loadBell]);
    return first ? 0 : null;
  }
  const writer = stage.begin(object);
  try {
    const read = await extractor.readChunk(table, chunk.range, {
      where: epoch.where,
      is_logged: isLogBased(bookmark),
      from_lsn: epoch.from_lsn ?? null,
    });
    const head = {
      stream,
      operation: 'changes',
      shape: tableShape(read.table),
      extracted_at: new Date(clock.now()).toISOString(),
    } as const;
    const { text_bytes } = await appendChunk(writer, head, read.lines);
    const { rows, lsn, left_out = [] } = await read.result();
    await writer.complete();
    // What is not valid on the source stays on the target as it is.
    const range = rangeWithout(chunk.range, left_out);
    const staged: Chunk = { ...chunk, range, staged: { object, object_bytes: writer.bytes, rows, text_bytes, lsn } };
    const first = await ledger.stageChunk(staged);
    await ringLoad(ports, [loadBell]);
    return first ? rows : null;
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

interface Planning {
  readonly bookmark: Bookmark;
  readonly epoch: Epoch;
  readonly table: SourceTable;
  readonly ways: PlanWays;
  readonly paging: PageOptions;
  readonly from_lsn: Lsn;
}

/** The ranges that the epoch was opened with, the pages of a run, or the table cut into chunks; and where the next run begins. */
async function planRanges(
  { extractor }: EpochPorts,
  { bookmark, epoch, table, ways, paging, from_lsn }: Planning,
): Promise<TablePlan & { readonly replication_value?: string | null }> {
  const { ranges = null, rows_estimate, kind } = epoch;
  if (ranges !== null) return { ranges, may_overlap: false, rows_estimate, bytes_estimate: -1 };
  if (kind === 'incremental') return await planRun(extractor, bookmark, table, paging, from_lsn);
  const copiesForRuns = bookmark.method === 'INCREMENTAL' && courseOf(kind).into === 'shadow';
  const replication_value = copiesForRuns ? await valueBefore(extractor, bookmark, table, from_lsn) : undefined;
  const chunk_rows = ways.is_logged ? null : paging.chunk_rows;
  const size = chunk_rows === null ? CHUNK_SIZE : { ...CHUNK_SIZE, chunk_rows };
  const plan = await planTable(extractor, table, ways, { from_lsn, size });
  return replication_value === undefined ? plan : { ...plan, replication_value };
}

async function tableOf(extractor: Extractor, { table: name }: Bookmark): Promise<SourceTable> {
  const table = await extractor.table(name);
  if (!table) throw new SluiceError('TABLE_MISSING', { table: displayName(name) });
  return table;
}

function targetOf({ stream, target }: Bookmark) {
  return { stream, target };
}
