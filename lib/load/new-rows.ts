/**
 * Rows whose keys the source did not have when their segment begins (`insert`, lib/stage/segment.ts), into a table that is at the same place: it does not have
 * them either, unless somebody else writes to it. Taken at its word, the log saves looking for each key; a word that does not hold costs one try.
 */
import { SluiceError } from '../errors.ts';
import { mayWrite } from './blocks.ts';
import type { Session } from './session.ts';
import { insertNewSql, type Landed, type TableForm } from './sql.ts';

/** SQLSTATE unique_violation. */
const UNIQUE_VIOLATION = '23505';

/** `landed` reads from the temporary table `temp`. True: the rows are in, and it is empty. False: the table has one of the keys; nothing is done, and they must be written as any others. */
export async function insertNew(
  session: Session,
  form: TableForm,
  landed: Landed,
  extracted_at: string,
  temp: string,
): Promise<boolean> {
  const insert = `SAVEPOINT sluice_new; ${insertNewSql(form, landed, extracted_at)}; RELEASE sluice_new`;
  try {
    await session.run(`${insert}; TRUNCATE ${temp}`, mayWrite(session, form));
    return true;
  } catch (error) {
    if (!(error instanceof SluiceError) || error.facts.sqlstate !== UNIQUE_VIOLATION) throw error;
    await session.run('ROLLBACK TO sluice_new; RELEASE sluice_new');
    return false;
  }
}
