/**
 * What a refusal says of: one row, or the whole table. Under divert.ts (rows that are put aside) and under the search for the row that a stream halts with.
 *
 * A missing column, a missing right, a policy: no row is to blame, and bisection would find every row guilty. What a row can be refused for are its values: their
 * types and sizes, constraints, and what a function of the target's own raises (https://www.postgresql.org/docs/current/errcodes-appendix.html).
 */
import { SluiceError } from '../errors.ts';
import { isOfPostgres } from './conditions.ts';
import type { Session } from './session.ts';

/** Classes of SQLSTATEs: triggered action, cardinality, data, integrity, triggered data change, routines, WITH CHECK OPTION, program limits (a row too large for an index), PL/pgSQL. */
const OF_ROWS: ReadonlySet<string> = new Set(['09', '21', '22', '23', '27', '38', '39', '44', '54', 'P0']);

/** True: other rows of the same statement may be taken. A class that PostgreSQL does not have comes from a function that raises it. */
export function isRowRefusal(error: unknown): error is SluiceError {
  if (!(error instanceof SluiceError) || error.code !== 'TARGET_REJECTS') return false;
  const { sqlstate } = error.facts;
  return typeof sqlstate === 'string' && (OF_ROWS.has(sqlstate.slice(0, 2)) || !isOfPostgres(sqlstate));
}

const SAVEPOINT = '_sluice_try';

/** Runs `work` so that it alone can be taken back. Resolves with the refusal of a row, after taking it back; throws everything else. */
export async function attempt(session: Session, work: () => Promise<void>): Promise<SluiceError | null> {
  await session.run(`SAVEPOINT ${SAVEPOINT}`);
  try {
    await work();
    await session.run(`RELEASE SAVEPOINT ${SAVEPOINT}`);
    return null;
  } catch (error) {
    if (!isRowRefusal(error)) throw error;
    await session.run(`ROLLBACK TO SAVEPOINT ${SAVEPOINT}; RELEASE SAVEPOINT ${SAVEPOINT}`);
    return error;
  }
}

/** Looks at what is deferred to the commit, and leaves it deferred: rolling back restores the pending checks (https://www.postgresql.org/docs/current/sql-set-constraints.html). */
export async function checkDeferred(session: Session): Promise<void> {
  await session.run(
    'SAVEPOINT _sluice_checks; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT _sluice_checks; RELEASE SAVEPOINT _sluice_checks',
  );
}
