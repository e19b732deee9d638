/**
 * Loads one chunk of an epoch and marks it, in one transaction: a chunk that comes twice, late, or beside others changes nothing that it should not.
 *
 * The mark comes first: whoever loads the same chunk at the same time waits for it. The plan's row is held by FOR SHARE, so that chunks load in
 * parallel, and an epoch does not end under one of them.
 */
import { Readable } from 'node:stream';
import { courseOf } from '../epoch/kinds.ts';
import { SluiceError } from '../errors.ts';
import type { Aside, Chunk, Clock, Epoch, Log, SegmentSource } from '../ports.ts';
import type { Shape } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import type { Block } from '../stage/segment.ts';
import { Applier } from './apply.ts';
import { assertRows, mayMakeTemps, mayWrite } from './blocks.ts';
import { columnAt, keyNames } from './columns.ts';
import {
  beginIfMade,
  countChunkSql,
  markChunk,
  type Owner,
  type PlanRow,
  planRowOf,
  planRowSql,
  saveForm,
  streamRowOf,
  streamRowSql,
} from './control.ts';
import { setExtractedAtSql } from './ddl.ts';
import { Diverter } from './divert.ts';
import { isShallow } from './flatten-table.ts';
import { generatedNames } from './generated.ts';
import { copyEmptyRowsSql } from './multiset.ts';
import { type LoadOptions, wantsMetadata } from './options.ts';
import { QuarantinedKeys } from './quarantined-keys.ts';
import { sameShape } from './reshape.ts';
import { LOAD_LIMITS, type Session } from './session.ts';
import { copySql, insertMissingSql, landedColumns, makeTempSql, type TableForm } from './sql.ts';

/** One chunk, and everything that its loading needs to know. */
interface Loading {
  readonly session: Session;
  readonly owner: Owner;
  readonly options: LoadOptions;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Log;
  readonly kind: Epoch['kind'];
  readonly chunk: Chunk;
  readonly segment: SegmentSource;
  /** For rows that are refused; null: the first is thrown. */
  readonly aside: Aside | null;
}

/** False: the mark is there already, or the epoch is over. Throws TABLE_REWRITTEN where the chunk was read from another shape than was planned for. */
export async function loadChunk(loading: Loading): Promise<boolean> {
  try {
    let outcome = await tryLoad(loading);
    if (outcome === 'lacks_columns') {
      await loading.session.rollback();
      await addColumns(loading);
      outcome = await tryLoad(loading);
    }
    return outcome === 'loaded';
  } finally {
    await loading.session.rollback();
  }
}

async function tryLoad(loading: Loading): Promise<'loaded' | 'not_needed' | 'lacks_columns'> {
  const { session, owner, chunk, segment, options } = loading;
  const { stream } = owner.stream;
  const set = setExtractedAtSql(segment.header.extracted_at);
  const answer = await beginIfMade(session, `${set}; ${planRowSql(owner, chunk.epoch, chunk.plan, 'FOR SHARE')}`);
  const plan = answer && planRowOf(answer);
  const form = plan && (await formOf(loading, plan));
  if (plan === null || form === null) return 'not_needed';

  if (!sameShape(form.shape, segment.header.shape)) {
    throw new SluiceError('TABLE_REWRITTEN', { stream, what: 'its shape was altered while it was copied.' });
  }
  const lacks =
    (wantsMetadata(options) && !form.metadata) || isShallow(form.shape, options.data_flattening_max_level ?? 0);
  if (plan.shadow === null && lacks) return 'lacks_columns';
  if (!(await markChunk(session, owner, chunk.epoch, chunk.plan, chunk.number))) return 'not_needed';
  const diverter = await diverterOf(loading, plan);
  const rows =
    plan.shadow === null
      ? await upsertChunk(loading, form, diverter)
      : await copyChunk(loading, form, plan.overlapping, diverter);
  await diverter?.keep();
  await session.commit(countChunkSql(owner, chunk.epoch, chunk.plan, chunk.number, rows));
  return 'loaded';
}

/** The target has the chunk's rows already (resync): the mark is all. False as `loadChunk`. */
export async function markHeldChunk(
  session: Session,
  owner: Owner,
  { epoch, plan, number }: Pick<Chunk, 'epoch' | 'plan' | 'number'>,
): Promise<boolean> {
  try {
    const answer = await beginIfMade(session, planRowSql(owner, epoch, plan, 'FOR SHARE'));
    if (!answer || planRowOf(answer) === null) return false;
    if (!(await markChunk(session, owner, epoch, plan, number))) return false;
    await session.commit();
    return true;
  } finally {
    await session.rollback();
  }
}

interface ChunkForm extends TableForm {
  /** In place: rows of the stream's table may be in doubt (doubts.ts). */
  readonly catchingUp: boolean;
}

/** The table that the plan's chunks go into: its shadow, or the stream's table as its own row tells of it. */
async function formOf({ session, owner }: Loading, plan: PlanRow): Promise<ChunkForm | null> {
  if (plan.shadow) return { name: plan.shadow, shape: plan.shape, metadata: plan.metadata, catchingUp: false };
  const row = streamRowOf(await session.run(streamRowSql(owner, '')));
  return row && { name: row.target, shape: row.shape, metadata: row.metadata, catchingUp: row.catching_up_to !== null };
}

/** Rows of a shadow have nothing to do with those that wait for the table that it replaces. */
async function diverterOf({ session, owner, aside }: Loading, { shadow }: PlanRow): Promise<Diverter | null> {
  if (aside === null) return null;
  if (shadow === null) return await Diverter.open(session, owner, aside, true);
  const keys = await QuarantinedKeys.ofCopy(session, owner, aside);
  return new Diverter(session, owner, aside, { checks: true, keys });
}

/** In place: a chunk's rows are written as those of a cut are. */
async function upsertChunk(
  { session, owner, options, clock, log, segment, kind, chunk }: Loading,
  { catchingUp, ...form }: ChunkForm,
  diverter: Diverter | null,
): Promise<number> {
  // Its shape and its metadata columns have been looked at; only keys of json may need more. Where two chunks find some side by side, the second waits for the row, and
  // has no lock on the table by then (apply.ts).
  let isLocked = false;
  const lockForm = async (): Promise<Shape> => {
    isLocked = true;
    return streamRowOf(await session.run(streamRowSql(owner, 'FOR UPDATE')))?.shape ?? form.shape;
  };
  const save = async (changed: TableForm): Promise<void> => {
    if (!isLocked) throw new RangeError('a table that was looked at has to be altered again');
    await saveForm(session, owner, changed);
  };
  const { range } = chunk;
  const applied = { range, replaces: courseOf(kind).replaces, lockForm };
  const applier = new Applier({
    session,
    owner,
    options,
    form,
    catchingUp,
    clock,
    log,
    saveForm: save,
    chunk: applied,
  });
  if (diverter !== null) applier.divert(diverter);
  return await applier.apply(segment);
}

/** Into the shadow: as it is, or, where another chunk may have brought a row of the same key, as far as it is not there. */
async function copyChunk(
  { session, owner, segment }: Loading,
  form: TableForm,
  overlapping: boolean,
  diverter: Diverter | null,
): Promise<number> {
  const { stream } = owner.stream;
  const { header } = segment;
  // COPY refuses a column that the table computes; INSERT leaves it out.
  const computed = generatedNames(form.shape);
  const copy = async (block: Block, index: number, lines: Readable): Promise<number> => {
    const columns = columnsOf(stream, segment, block);
    const written = columns.map((name) => (computed.has(name) ? null : name));
    return overlapping || written.includes(null)
      ? await insertMissing(session, form, written, lines, { index, extracted_at: header.extracted_at })
      : await session.copy(copyRowsSql(form, columns), lines, {
          ...mayWrite(session, form),
          copied: columns.map((column) => ({ column, name: column })),
        });
  };
  if (diverter !== null && header.shape.key.length > 0) {
    return await diverter.apply(segment, {
      isUnused: () => false,
      isLast: () => false,
      apply: async (block, index, text) => {
        await copy(block, index, Readable.from([text]));
      },
      refused: async () => {},
      finish: async () => {},
      remember: () => () => {},
    });
  }
  let rows = 0;
  for (const [index, block] of header.blocks.entries()) {
    const copied = await copy(block, index, segment.block(index));
    assertRows(stream, block, copied);
    rows += copied;
  }
  return rows;
}

function copyRowsSql({ name, metadata }: TableForm, columns: readonly string[]): string {
  const table = quoteTable(name);
  return columns.length === 0 && metadata ? copyEmptyRowsSql(table) : copySql(table, columns);
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
  columns: readonly (string | null)[],
  lines: Readable,
  { index, extracted_at }: { readonly index: number; readonly extracted_at: string },
): Promise<number> {
  const landed = { temp: `pg_temp._sluice_${index}`, kind: 'upsert', columns, key: keyNames(form.shape) } as const;
  await session.run(`DROP TABLE IF EXISTS ${landed.temp}; ${makeTempSql(form, landed)}`, mayMakeTemps(session));
  const copied = await session.copy(copySql(landed.temp, landedColumns(landed)), lines, {
    action: `copy into ${landed.temp}`,
    copied: columns.map((name, i) => ({ column: `c${i}`, name: name ?? `column ${i + 1}` })),
  });
  await session.run(insertMissingSql(form, landed, extracted_at), mayWrite(session, form));
  return copied;
}

/** In a transaction of its own, before the chunk's: what alters a table waits for all chunks that are being copied into it. */
async function addColumns({ session, owner, options, clock, log }: Loading): Promise<void> {
  await session.transaction(LOAD_LIMITS, async () => {
    const row = streamRowOf(await session.run(streamRowSql(owner, 'FOR UPDATE')));
    if (row === null) return;
    const form = { name: row.target, shape: row.shape, metadata: row.metadata };
    const save = (changed: TableForm): Promise<void> => saveForm(session, owner, changed);
    const applier = new Applier({ session, owner, options, form, catchingUp: false, clock, log, saveForm: save });
    await applier.addMetadata();
    await applier.deepen([]);
  });
}
