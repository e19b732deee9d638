/**
 * How far a cut has been read in the plugin's own messages; and the passing over of so many of them in the next window, where they are staged already
 * (unfinished.ts). Part of the reading half of a window; pure.
 *
 * What a slot sends of committed transactions after a position is the same every time, but for descriptions of tables, which pgoutput sends anew in each session:
 * so changes alone are counted. That it is the same is not trusted: their bytes, the transaction and the place of its commit must be those that were noted.
 */
import type { OpenCut } from '../cut/open-cut.ts';
import { SluiceError } from '../errors.ts';
import { LSN_ZERO, type Lsn } from '../lsn.ts';
import type { SlotDialect } from '../ports.ts';

/** Of a cut, from its beginning on. */
export interface ReadSoFar {
  /** Changes as the plugin sent them, and their bytes. */
  readonly messages: number;
  readonly message_bytes: number;
  /** The transaction of the last of them, and where the record of its commit begins. */
  readonly xid: number;
  readonly commit_lsn: Lsn;
}

/** What is staged of a cut, to be passed over, and what counts as the cut's when that is done. */
export interface StagedRead extends ReadSoFar {
  readonly counted: Pick<OpenCut, 'changes' | 'text_bytes' | 'counts'>;
}

/** Insert, Update, Delete, Truncate. */
const PGOUTPUT_CHANGES = new Set([0x49, 0x55, 0x44, 0x54]);

export class PassingOver {
  #cut: OpenCut;
  #isPgoutput: boolean;
  #messages = 0;
  #message_bytes = 0;
  #xid = 0;
  #commit_lsn: Lsn = LSN_ZERO;
  #staged: StagedRead | null;

  constructor(cut: OpenCut, dialect: SlotDialect | undefined, staged: StagedRead | null) {
    this.#cut = cut;
    this.#isPgoutput = dialect?.plugin !== 'wal2json';
    this.#staged = staged;
    cut.passesOver = staged !== null;
  }

  /** What comes is staged already. */
  get isOn(): boolean {
    return this.#staged !== null;
  }

  get read(): ReadSoFar {
    const [messages, message_bytes] = [this.#messages, this.#message_bytes];
    return { messages, message_bytes, xid: this.#xid, commit_lsn: this.#commit_lsn };
  }

  /** After a message has been given to the cut. Throws TRANSACTION_CHANGED. */
  count(letter: number | undefined, bytes: number): void {
    if (this.#isPgoutput && !PGOUTPUT_CHANGES.has(letter as number)) return;
    this.#messages++;
    this.#message_bytes += bytes;
    this.#xid = this.#cut.xid;
    this.#commit_lsn = this.#cut.commit_lsn;
    if (this.#staged !== null && this.#messages === this.#staged.messages) this.#end(this.#staged);
  }

  /** After each read. Throws TRANSACTION_CHANGED where the changes that are staged can no longer come. */
  look(): void {
    if (this.#staged === null) return;
    const { commit_lsn, inTransaction, end_lsn } = this.#cut;
    const isPast = inTransaction ? commit_lsn > this.#staged.commit_lsn : end_lsn > this.#staged.commit_lsn;
    if (isPast) throw changed(this.#staged, `it has ${this.#messages} changes`);
  }

  /** The next cut begins. */
  restart(): void {
    this.#messages = 0;
    this.#message_bytes = 0;
  }

  #end(staged: StagedRead): void {
    const { xid, commit_lsn, inTransaction } = this.#cut;
    if (!inTransaction || xid !== staged.xid || commit_lsn !== staged.commit_lsn) {
      throw changed(staged, `so many changes come up to one of transaction ${xid}`);
    }
    if (this.#message_bytes !== staged.message_bytes) throw changed(staged, `they have ${this.#message_bytes} bytes`);
    this.#staged = null;
    this.#cut.goOn(staged.counted);
  }
}

function changed({ xid, messages, message_bytes }: StagedRead, reason: string): SluiceError {
  return new SluiceError('TRANSACTION_CHANGED', { xid, messages, bytes: message_bytes, reason });
}
