/**
 * Loads one chunk of an epoch and marks it, in one transaction: a chunk that comes twice, late, or beside others changes nothing that it should not.
 *
 * The mark comes first: whoever loads the same chunk at the same time waits for it. The plan's row is held by FOR SHARE, so that chunks load in
 * parallel, and an epoch does not end under one of them.
 */
import { SluiceError } from '../errors.ts';
import type { Chunk, SegmentSource } from '../ports.ts';
import { displayName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import type { Block } from '../stage/segment.ts';
import { Applier, assertRows, type LoadOptions, mayMakeTemps, mayWrite, wantsMetadata } from './apply.ts';
import {
  beginIfMade,
  countChunkSql,
  markChunk,
  type Owner,
  type PlanRow,
  planRowOf,
  planRowSql,
  saveForm,
  savePlanShape,
  streamRowOf,
  streamRowSql,
} from './control.ts';
import { addColumnsSql, setExtractedAtSql, typedColumns } from './ddl.ts';
import { assertNoMetadataNames, columnAt, grownShape, growthOf, keyNames } from './growth.ts';
import { LOAD_LIMITS, type Session } from './session.ts';
import { copySql, insertMissingSql, landedColumns, makeTempSql, type TableForm } from './sql.ts';

/** Looks at the table: one, and one more after it has been made to grow. It cannot have to grow for the same chunk again. */
const LOOKS_MAX = 2;

/** One chunk, and everything that its loading needs to know. */
interface Loading {
  readonly session: Session;
  readonly owner: Owner;
  readonly options: LoadOptions;
  readonly chunk: Chunk;
  readonly segment: SegmentSource;
}

/** False: the mark is there already, or the epoch is over. */
export async function loadChunk(loading: Loading): Promise<boolean> {
  try {
    for (let look = 1; look <= LOOKS_MAX; look++) {
      const outcome = await tryLoad(loading);
      if (outcome !== 'grow') return outcome === 'loaded';
      await loading.session.rollback();
      await grow(loading);
    }
    throw new SluiceError('SHAPE_CHANGED', {
      stream: loading.owner.stream.stream,
      change: 'its columns, again and again',
    });
  } finally {
    await loading.session.rollback();
  }
}

async function tryLoad(loading: Loading): Promise<'loaded' | 'not_needed' | 'grow'> {
  const { session, owner, chunk, segment, options } = loading;
  const { stream } = owner.stream;
  const set = setExtractedAtSql(segment.header.extracted_at);
  const answer = await beginIfMade(session, `${set}; ${planRowSql(owner, chunk.epoch, chunk.plan, 'FOR SHARE')}`);
  const plan = answer && planRowOf(answer);
  const form = plan && (await formOf(loading, plan));
  if (plan === null || form === null) return 'not_needed';

  const lacksMetadata = plan.shadow === null && wantsMetadata(options) && !form.metadata;
  if (lacksMetadata || growthOf(stream, form.shape, segment.header.shape).length > 0) return 'grow';
  if (!(await markChunk(session, owner, chunk.epoch, chunk.plan, chunk.number))) return 'not_needed';
  const rows =
    plan.shadow === null ? await upsertChunk(loading, form) : await copyChunk(loading, form, plan.overlapping);
  await session.commit(countChunkSql(owner, chunk.epoch, chunk.plan, chunk.number, rows));
  return 'loaded';
}

/** The table that the plan's chunks go into: its shadow, or the stream's table as its own row tells of it. */
async function formOf({ session, owner }: Loading, plan: PlanRow): Promise<TableForm | null> {
  if (plan.shadow) return { name: plan.shadow, shape: plan.shape, metadata: plan.metadata };
  const row = streamRowOf(await session.run(streamRowSql(owner, '')));
  return row && { name: row.target, shape: row.shape, metadata: row.metadata };
}

/** In place: a chunk's rows are written as those of a cut are. */
async function upsertChunk({ session, owner, options, segment }: Loading, form: TableForm): Promise<number> {
  const saveForm = (): never => {
    throw new RangeError('a table that was looked at has to grow again');
  };
  return await new Applier({ session, owner, options, form, catchingUp: false, saveForm }).apply(segment);
}

/** Into the shadow: as it is, or, where another chunk may have brought a row of the same key, as far as it is not there. */
async function copyChunk({ session, owner, segment }: Loading, form: TableForm, overlapping: boolean): Promise<number> {
  const { stream } = owner.stream;
  let rows = 0;
  for (const [index, block] of segment.header.blocks.entries()) {
    const columns = columnsOf(stream, segment, block);
    const copied = overlapping
      ? await insertMissing(session, form, columns, segment, index)
      : await session.copy(copySql(quoteTable(form.name), columns), segment.block(index), {
          ...mayWrite(session, form),
          copied: columns.map((column) => ({ column, name: column })),
        });
    assertRows(stream, block, copied);
    rows += copied;
  }
  return rows;
}

function columnsOf(stream: string, { header }: SegmentSource, block: Block): string[] {
  if (block.kind !== 'upsert')
    throw new SluiceError('UNEXPECTED', { reason: `a chunk of ${stream} with a block of ${block.kind}` });
  return block.columns.map((index) => columnAt(header.shape, index).name);
}

/**
 * The row that came first stays, although another chunk may have read a newer one: both were read after the held position, and the chain repairs
 * either.
 */
async function insertMissing(
  session: Session,
  form: TableForm,
  columns: readonly string[],
  segment: SegmentSource,
  index: number,
): Promise<number> {
  const landed = { temp: `pg_temp._sluice_${index}`, kind: 'upsert', columns, key: keyNames(form.shape) } as const;
  await session.run(makeTempSql(form, landed), mayMakeTemps(session));
  const copied = await session.copy(copySql(landed.temp, landedColumns(landed)), segment.block(index), {
    action: `copy into ${landed.temp}`,
    copied: columns.map((name, i) => ({ column: `c${i}`, name })),
  });
  await session.run(insertMissingSql(form, landed, segment.header.extracted_at), mayWrite(session, form));
  return copied;
}

/** In a transaction of its own, before the chunk's: what alters a table waits for all chunks that are being copied into it. */
async function grow({ session, owner, options, chunk, segment }: Loading): Promise<void> {
  const { stream } = owner.stream;
  const { shape } = segment.header;
  await session.transaction(LOAD_LIMITS, async () => {
    const row = streamRowOf(await session.run(streamRowSql(owner, 'FOR UPDATE')));
    const plan = planRowOf(await session.run(planRowSql(owner, chunk.epoch, chunk.plan, 'FOR UPDATE')));
    if (row === null || plan === null) return;
    if (plan.shadow === null) {
      const form = { name: row.target, shape: row.shape, metadata: row.metadata };
      const save = (grown: TableForm): Promise<void> => saveForm(session, owner, grown);
      await new Applier({ session, owner, options, form, catchingUp: false, saveForm: save }).grow(shape);
      return;
    }
    const added = growthOf(stream, plan.shape, shape);
    if (added.length === 0) return;
    const grown = grownShape(plan.shape, added);
    if (plan.metadata) assertNoMetadataNames(stream, grown);
    await session.run(addColumnsSql(plan.shadow, await typedColumns(session, added)), {
      action: `alter ${displayName(plan.shadow)}`,
    });
    await savePlanShape(session, owner, chunk.epoch, chunk.plan, grown);
  });
}
