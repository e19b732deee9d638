/**
 * The first step of an epoch on the target: hold the stream, and make an empty shadow table for the plan, unless its rows go into the stream's own.
 *
 * On the path: before the source's position is read and chunks are planned (design §3, Epochs). Whether there is anything to do is decided by
 * `epochStart`, which is pure. Two planners may come at once: each gets its own shadow, and the plan that is finished wins.
 */
import { courseOf } from '../epoch/kinds.ts';
import { SluiceError } from '../errors.ts';
import { assertLsnNameFree } from '../lsn-column.ts';
import type { Epoch, Log } from '../ports.ts';
import { displayName, type Shape, type TableName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import { assertNoMetadataNames } from './columns.ts';
import {
  beginIfMade,
  endPlans,
  isOwner,
  MAKING_LOCK_SQL,
  makeControl,
  makeSchema,
  mayMakeTables,
  type Owner,
  planRowOf,
  planRowSql,
  type StreamRow,
  savePlan,
  streamRowOf,
  streamRowSql,
} from './control.ts';
import { addKeySql, shadowKeyName, shadowName } from './ddl.ts';
import { forgetDoubtsSql } from './doubts.ts';
import { assertEncoding } from './encoding.ts';
import { dropUniques, type IndexOption } from './indices.ts';
import { LOAD_LIMITS, type Session } from './session.ts';
import { createShadow } from './shadow.ts';
import type { CustomTypes } from './types.ts';

export interface Preparation {
  readonly epoch: Epoch;
  readonly plan: string;
  readonly shape: Shape;
  readonly incarnation: string;
  readonly overlapping: boolean;
  /** The table is to have the metadata columns. */
  readonly metadata: boolean;
  readonly custom_types: CustomTypes;
  readonly indices: readonly IndexOption[];
  readonly log: Log;
}

/**
 * - `over`:  this epoch, or a newer one, has been finished or begun: nothing is to be done
 * - `join`:  this epoch holds the stream already
 * - `begin`: what an older epoch left behind is cleared away, and the hold is set
 * - `adopt`: as `begin`, and the row comes from another ledger, whose numbers mean nothing
 */
export type EpochStart = 'over' | 'join' | 'begin' | 'adopt';

/** Throws LEDGER_INCARNATION, TARGET_ROW_MISSING or TARGET_TABLE_MOVED where the epoch may not begin. */
function epochStart(row: StreamRow | null, owner: Owner, { epoch, incarnation }: Preparation): EpochStart {
  const { stream, target } = owner.stream;
  const inPlace = courseOf(epoch.kind).into === 'table';
  if (row === null) {
    if (inPlace) throw new SluiceError('TARGET_ROW_MISSING', { stream });
    return 'begin';
  }
  if (row.incarnation !== incarnation) {
    if (epoch.kind === 'reset') return 'adopt';
    throw new SluiceError('LEDGER_INCARNATION', { stream, found: row.incarnation, expected: incarnation });
  }
  if (epoch.number <= row.epoch || (row.hold !== null && epoch.number < row.hold)) return 'over';
  const joins = row.hold === epoch.number;
  if (!sameTable(row.target, target) && (joins || inPlace)) throw tableMoved(stream, row.target, target);
  if (inPlace && !row.made) throw new SluiceError('TARGET_ROW_MISSING', { stream });
  return joins ? 'join' : 'begin';
}

export function sameTable(a: TableName, b: TableName): boolean {
  return a.schema === b.schema && a.table === b.table;
}

export function tableMoved(stream: string, found: TableName, expected: TableName): SluiceError {
  return new SluiceError('TARGET_TABLE_MOVED', { stream, found: displayName(found), expected: displayName(expected) });
}

/** One transaction: all of it, or nothing. Doing it again changes nothing. */
export async function prepare(session: Session, owner: Owner, preparation: Preparation): Promise<void> {
  const { epoch, plan, shape, metadata } = preparation;
  if (await isPrepared(session, owner, preparation)) return;
  if (metadata) assertNoMetadataNames(owner.stream.stream, shape);
  assertLsnNameFree(owner.stream.stream, shape);
  const work = async (): Promise<void> => {
    await assertEncoding(session);
    await makeControl(session);
    const row = streamRowOf(await session.run(streamRowSql(owner, 'FOR UPDATE')));
    const start = epochStart(row, owner, preparation);
    if (start === 'over') return;
    await assertNotTaken(session, owner, row);
    if (start !== 'join') await hold(session, owner, row, preparation);
    if (courseOf(epoch.kind).into === 'table') await dropUniques(session, owner.stream.target, preparation.indices);
    const planned = planRowOf(await session.run(planRowSql(owner, epoch.number, plan, '')));
    if (planned === null) await makeShadow(session, owner, preparation);
  };
  await session.transaction(LOAD_LIMITS, work, MAKING_LOCK_SQL);
}

/** True without taking any lock where this plan has been prepared: its row is there as long as its epoch holds the stream. */
async function isPrepared(session: Session, owner: Owner, { epoch, plan, incarnation }: Preparation): Promise<boolean> {
  const answer = await beginIfMade(session, planRowSql(owner, epoch.number, plan, ''));
  await session.rollback();
  const planned = answer && planRowOf(answer);
  return planned !== null && planned.incarnation === incarnation && sameTable(planned.target, owner.stream.target);
}

/** Throws TARGET_TABLE_TAKEN where another stream owns the table, or where there is one that no swap of this stream has made. */
async function assertNotTaken(session: Session, owner: Owner, row: StreamRow | null): Promise<void> {
  const { stream, target } = owner.stream;
  const { rows } = await session.query<{ taken_by: string | null; there: boolean }>(
    `SELECT (SELECT pipeline || ', stream ' || stream FROM _sluice.streams
        WHERE target_schema = $1 AND target_table = $2 AND (pipeline, stream) <> ($3, $4)) AS taken_by,
      EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2) AS there`,
    [target.schema, target.table, owner.pipeline, stream],
  );
  const [found] = rows;
  const ours = row !== null && row.made && sameTable(row.target, target);
  if (found?.taken_by != null) throw tableTaken(owner, `in _sluice.streams it belongs to pipeline ${found.taken_by}`);
  if (found?.there && !ours) throw tableTaken(owner, 'it exists, and Sluice did not make it');
}

export function tableTaken({ stream }: Owner, reason: string): SluiceError {
  return new SluiceError('TARGET_TABLE_TAKEN', { stream: stream.stream, table: displayName(stream.target), reason });
}

/** Sets the hold, and clears away what older epochs have left: plans, shadows, marks. */
async function hold(session: Session, owner: Owner, row: StreamRow | null, preparation: Preparation): Promise<void> {
  const { epoch, incarnation, shape, metadata } = preparation;
  const { stream, target } = owner.stream;
  const shadows = await endPlans(session, owner);
  await dropTables(session, shadows);
  // What is applied stays as it is beside rows of an epoch that goes on from it: so does what is not sure of it.
  const forget = courseOf(epoch.kind).goes_on_from === 'applied' ? [] : [forgetDoubtsSql(owner)];
  await session.run([`DELETE FROM _sluice.chunks WHERE ${isOwner(owner)}`, ...forget].join('; '));
  const made = row !== null && row.made && sameTable(row.target, target);
  // The numbers of another ledger mean nothing; `finish` writes those of this one.
  const done = row !== null && row.incarnation === incarnation ? row.epoch : 0;
  const values = [owner.pipeline, stream, incarnation, target.schema, target.table, made, epoch.number, done];
  if (row !== null) {
    await session.query(
      `UPDATE _sluice.streams SET incarnation = $3, target_schema = $4, target_table = $5, made = $6, hold = $7, epoch = $8,
         together = false
       WHERE pipeline = $1 AND stream = $2`,
      values,
    );
    return;
  }
  await session.query(
    `INSERT INTO _sluice.streams (pipeline, stream, incarnation, target_schema, target_table, made, hold, epoch, metadata, shape,
       applied_cut, applied_lsn) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, '0/0')`,
    [...values, metadata, JSON.stringify(shape), epoch.held_cut],
  );
}

export async function dropTables(session: Session, tables: readonly TableName[]): Promise<void> {
  if (tables.length === 0) return;
  await session.run(`DROP TABLE IF EXISTS ${tables.map(quoteTable).join(', ')}`, { action: 'drop its shadow tables' });
}

/** The plan's row, and its shadow table. With the key from the start where chunks may overlap; otherwise it is made once, at the end. */
async function makeShadow(session: Session, owner: Owner, preparation: Preparation): Promise<void> {
  const { epoch, plan, shape, incarnation, overlapping, metadata, custom_types, log } = preparation;
  const { target } = owner.stream;
  const row = { incarnation, target, overlapping, metadata, shape };
  if (courseOf(epoch.kind).into === 'table') {
    await savePlan(session, owner, epoch.number, plan, { ...row, shadow: null });
    return;
  }
  const schema = await session.query('SELECT FROM pg_namespace WHERE nspname = $1', [target.schema]);
  if (schema.rowCount === 0) await makeSchema(session, target.schema);
  const shadow = shadowName(target, epoch.number, plan);
  const purpose = mayMakeTables(session, target.schema);
  const made = await createShadow(session, shadow, shape, { metadata, custom_types, target, log, purpose });
  if (overlapping) await session.run(addKeySql(shadow, shadowKeyName(shadow), shape), purpose);
  await savePlan(session, owner, epoch.number, plan, { ...row, shadow, shape: made });
}
