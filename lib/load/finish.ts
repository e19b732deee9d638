/**
 * The last step of an epoch on the target: the shadow gets its key, then takes the table's place, and the stream goes on: from the held position, or, where
 * rows went into its own table beside what was applied, from there (lib/epoch/kinds.ts).
 *
 * Doing it again ends right after a crash at any point: the key is built by one statement of its own that the server finishes whether or not
 * anybody waits for it; all the rest is one short transaction.
 */
import { courseOf } from '../epoch/kinds.ts';
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import type { Aside, Clock, Epoch, Log } from '../ports.ts';
import { displayName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import type { Keeping } from './carry.ts';
import { EXTRACTED_AT } from './columns.ts';
import {
  beginIfMade,
  endPlans,
  markedChunksSql,
  type Owner,
  planRowOf,
  planRowSql,
  streamRowOf,
  streamRowSql,
  timeSql,
} from './control.ts';
import { addKeySql, dropDefaultsSql, shadowKeyName } from './ddl.ts';
import { flattenShadow } from './flatten-shadow.ts';
import { type IndexOption, indexShadow } from './indices.ts';
import { dropTables, sameTable, tableMoved } from './prepare.ts';
import { forgetQuarantinedSql } from './quarantined-keys.ts';
import { KEY_LIMITS, type Limits, LOAD_LIMITS, type Session, SWAP_LIMITS } from './session.ts';
import { putInPlace } from './swap.ts';

export interface Finish {
  readonly epoch: Epoch;
  readonly plan: string;
  /** Past what every chunk saw; null: no log goes on from it. */
  readonly lsn: Lsn | null;
  /** Position of the cut that the stream goes on from. */
  readonly held_lsn: Lsn;
  /** What is kept of the table that a shadow replaces. */
  readonly keeping: Keeping;
  readonly indices: readonly IndexOption[];
  /** target.data_flattening_max_level. */
  readonly flattening_level: number;
  readonly patience: SwapPatience;
  /** For rows that a table which stays refuses; null: the first is thrown. */
  readonly aside: Aside | null;
}

/** Whoever reads the table for long keeps the swap waiting: each try gives up soon, lets the others read, and after a pause comes the next. */
export interface SwapPatience {
  readonly limits: Limits;
  /** One less than there are tries. */
  readonly pauses_ms: readonly number[];
}
export const SWAP_PATIENCE: SwapPatience = { limits: SWAP_LIMITS, pauses_ms: [1_000, 2_000, 4_000, 8_000, 15_000] };

/** lock_not_available: https://www.postgresql.org/docs/current/errcodes-appendix.html */
const LOCK_NOT_AVAILABLE = '55P03';

/** A key that is built while another finisher builds it is found there at the next look. */
const KEY_LOOKS_MAX = 2;

/** Throws EPOCH_INCOMPLETE, TARGET_TABLE_TAKEN, TARGET_DEPENDENTS, and TARGET_TRANSIENT where a lock cannot be had in time. */
export async function finish(session: Session, owner: Owner, what: Finish, clock: Clock, log: Log): Promise<void> {
  const began_ms = clock.now();
  if (what.flattening_level > 0) {
    if ((await lookAtShadow(session, owner, what)) === 'over') return;
    await flattenShadow(
      session,
      owner,
      { epoch: what.epoch.number, plan: what.plan, level: what.flattening_level },
      log,
    );
  }
  for (let look = 1; ; look++) {
    const left = await lookAtShadow(session, owner, what);
    if (left === 'over') return;
    if (left === 'keyed') break;
    try {
      await session.runAlone(KEY_LIMITS, left.sql, { action: 'build the key of its shadow table' });
    } catch (error) {
      if (look === KEY_LOOKS_MAX) throw error;
    }
  }
  await indexPlanned(session, owner, what, log);
  const keyed_ms = clock.now();
  if (!(await swapWhenFree(session, owner, what, clock, log)) || courseOf(what.epoch.kind).into === 'table') return;
  const facts = { stream: owner.stream.stream, table: displayName(owner.stream.target), epoch: what.epoch.number };
  log.info('epoch_swapped', { ...facts, key_ms: keyed_ms - began_ms, swap_ms: clock.now() - keyed_ms });
  await analyze(session, owner, log);
}

/** The shadow, if it is there still, gets the indexes that it is to have in the table's place. */
async function indexPlanned(session: Session, owner: Owner, { epoch, plan, indices }: Finish, log: Log): Promise<void> {
  if (indices.length === 0) return;
  const answer = await beginIfMade(session, planRowSql(owner, epoch.number, plan, ''));
  await session.rollback();
  const planned = answer && planRowOf(answer);
  if (!planned?.shadow) return;
  // As for the key: two finishers do not build the same index side by side.
  const lock = planRowSql(owner, epoch.number, plan, 'FOR UPDATE');
  await indexShadow({ session, owner, indices, log }, planned.shadow, planned.shape, lock);
}

/** What the shadow still lacks, as one text of statements that are a transaction by themselves. */
async function lookAtShadow(
  session: Session,
  owner: Owner,
  { epoch, plan }: Finish,
): Promise<'over' | 'keyed' | { readonly sql: string }> {
  const lock = planRowSql(owner, epoch.number, plan, 'FOR UPDATE');
  const answer = await beginIfMade(session, lock);
  try {
    const planned = answer && planRowOf(answer);
    if (planned === null) return await assertOver(session, owner, epoch, answer !== null);
    if (!sameTable(planned.target, owner.stream.target))
      throw tableMoved(owner.stream.stream, planned.target, owner.stream.target);
    const marks = await session.run(markedChunksSql(owner, epoch.number, plan));
    if (marks.rowCount !== epoch.chunks) {
      throw new SluiceError('EPOCH_INCOMPLETE', {
        stream: owner.stream.stream,
        epoch: epoch.number,
        loaded: marks.rowCount,
        chunks: epoch.chunks,
      });
    }
    if (planned.shadow === null) return 'keyed';
    const { rows } = await session.query<{ key: boolean; defaults: boolean }>(
      `SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'p') AS key,
         EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::regclass AND attname = $2 AND atthasdef) AS defaults`,
      [quoteTable(planned.shadow), EXTRACTED_AT],
    );
    const statements = [
      ...(rows[0]?.key || planned.shape.key.length === 0
        ? []
        : [addKeySql(planned.shadow, shadowKeyName(planned.shadow), planned.shape)]),
      ...(rows[0]?.defaults ? [dropDefaultsSql(planned.shadow)] : []),
    ];
    // The plan's row stays locked meanwhile: two finishers do not build the same index side by side.
    return statements.length === 0 ? 'keyed' : { sql: [lock, ...statements].join('; ') };
  } finally {
    await session.rollback();
  }
}

/** A plan that is not there has been finished, or was never prepared. */
async function assertOver(session: Session, owner: Owner, epoch: Epoch, made: boolean): Promise<'over'> {
  const row = made ? streamRowOf(await session.run(streamRowSql(owner, ''))) : null;
  if (row !== null && row.epoch >= epoch.number) return 'over';
  throw new SluiceError('UNEXPECTED', {
    reason: `epoch ${epoch.number} of ${owner.stream.stream} is finished and was not prepared`,
  });
}

/** Tries again while the lock cannot be had. Throws TARGET_TRANSIENT after the last try: the old table is as it was, and the bell comes again. */
async function swapWhenFree(session: Session, owner: Owner, what: Finish, clock: Clock, log: Log): Promise<boolean> {
  for (const pause_ms of what.patience.pauses_ms) {
    try {
      return await swap(session, owner, what, log);
    } catch (error) {
      if (!(error instanceof SluiceError) || error.facts.sqlstate !== LOCK_NOT_AVAILABLE) throw error;
      log.warn('swap_waits_for_lock', {
        stream: owner.stream.stream,
        table: displayName(owner.stream.target),
        pause_ms,
      });
      await clock.sleep(pause_ms);
    }
  }
  return await swap(session, owner, what, log);
}

/** False: somebody else has finished it. */
async function swap(session: Session, owner: Owner, what: Finish, log: Log): Promise<boolean> {
  const { epoch, plan, lsn, held_lsn } = what;
  return await session.transaction(what.patience.limits, async () => {
    const row = streamRowOf(await session.run(streamRowSql(owner, 'FOR UPDATE')));
    const planned = planRowOf(await session.run(planRowSql(owner, epoch.number, plan, 'FOR UPDATE')));
    if (row === null || planned === null || row.hold !== epoch.number) return false;
    const { shadow } = planned;
    const form = shadow === null ? row : await putInPlace(session, owner, row, planned, shadow, what, log);
    if (shadow !== null) await session.run(forgetQuarantinedSql(owner, epoch.number, plan));
    const shadows = await endPlans(session, owner);
    await dropTables(
      session,
      shadows.filter(({ table }) => table !== shadow?.table),
    );
    const { goes_on_from } = courseOf(epoch.kind);
    // Beside rows of the chunks' time lie rows of what was applied: until the chain has come past both, the stream catches up.
    const catching_up_to = goes_on_from === 'applied' ? 'GREATEST(catching_up_to, $4::pg_lsn)' : '$4::pg_lsn';
    const applied =
      goes_on_from === 'applied'
        ? ''
        : `, incarnation = $7, applied_cut = $8, applied_lsn = $9, applied_at = now(), as_of = ${timeSql(epoch.opened_at_ms)},
         by_query = ${goes_on_from === 'none'}`;
    await session.query(
      `UPDATE _sluice.streams SET hold = NULL, halt = NULL, epoch = $3, catching_up_to = ${catching_up_to}, shape = $5::jsonb, metadata = $6,
         made = made OR ${shadow !== null}${applied}
       WHERE pipeline = $1 AND stream = $2`,
      [
        owner.pipeline,
        owner.stream.stream,
        epoch.number,
        lsn === null ? null : formatLsn(lsn),
        JSON.stringify(form.shape),
        form.metadata,
        ...(goes_on_from === 'applied' ? [] : [planned.incarnation, epoch.held_cut, formatLsn(held_lsn)]),
      ],
    );
    return true;
  });
}

/** A table without statistics is planned badly until autovacuum comes by; where this fails, that still happens. */
async function analyze(session: Session, owner: Owner, log: Log): Promise<void> {
  const table = displayName(owner.stream.target);
  try {
    await session.runAlone(LOAD_LIMITS, `ANALYZE ${quoteTable(owner.stream.target)}`, { action: `analyze ${table}` });
  } catch (error) {
    const reason = error instanceof SluiceError ? error.message : String(error);
    log.warn('analyze_failed', { stream: owner.stream.stream, table, reason });
  }
}
