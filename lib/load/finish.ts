/**
 * The last step of an epoch on the target: the shadow gets its key, then takes the table's place, and the stream goes on from the held position.
 *
 * Doing it again ends right after a crash at any point: the key is built by one statement of its own that the server finishes whether or not
 * anybody waits for it; all the rest is one short transaction.
 */
import { SluiceError } from '../errors.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import type { Clock, Epoch, Log } from '../ports.ts';
import { displayName } from '../shape.ts';
import { quoteTable } from '../sql-text.ts';
import { wantsMetadata, type LoadOptions } from './apply.ts';
import { beginIfMade, endPlans, markedChunksSql, type Owner, planRowOf, planRowSql, streamRowOf, streamRowSql } from './control.ts';
import { addKeySql, dropDefaultsSql, shadowKeyName } from './ddl.ts';
import { sameTable, dropTables, tableMoved } from './prepare.ts';
import { KEY_LIMITS, LOAD_LIMITS, type Session, SWAP_LIMITS } from './session.ts';
import { putInPlace } from './swap.ts';

export interface Finish {
  readonly epoch: Epoch;
  readonly plan: string;
  /** Past what every chunk saw. */
  readonly lsn: Lsn;
  /** Position of the cut that the stream goes on from. */
  readonly held_lsn: Lsn;
}
