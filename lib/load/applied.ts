/**
 * What an `Applier` works with (apply.ts): of a stream in one transaction, or of a chunk in the stream's own table.
 */
import type { ChunkRange, Clock, Log } from '../ports.ts';
import type { Shape } from '../shape.ts';
import type { Owner } from './control.ts';
import type { LoadOptions } from './options.ts';
import type { Session } from './session.ts';
import type { TableForm } from './sql.ts';

export interface Applied {
  readonly session: Session;
  readonly owner: Owner;
  readonly options: LoadOptions;
  readonly form: TableForm;
  /** The rows may be newer than what is applied to them (doubts.ts). */
  readonly catchingUp: boolean;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Log;
  /** Called, in the transaction, whenever the table has been altered. */
  readonly saveForm: (form: TableForm) => Promise<void>;
  /** The segments are chunks of an epoch in place, and no changes of the log. */
  readonly chunk?: AppliedChunk;
  /** Which of several streams of the transaction it is: temporary tables of each have names of their own. Left out: the only one. */
  readonly number?: number;
}

/** A chunk of rows as they were at one moment, in the stream's own table. */
export interface AppliedChunk {
  readonly range: ChunkRange;
  /** Rows of the range that it did not bring go. */
  readonly replaces: boolean;
  /** Locks the stream's row, and resolves with what the table is by then: other chunks may alter it. */
  readonly lockForm: () => Promise<Shape>;
}
