/**
 * What a window will report of itself (design §3, Window 6), gathered as it goes.
 */
import type { SluiceError } from '../errors.ts';
import type { Lsn } from '../lsn.ts';
import type { Clock, Cut, Log, RunReport, SlotRow, StopReason, Unfinished } from '../ports.ts';
import { slotRoom } from '../slot/room.ts';

type Stage = keyof RunReport['seconds'];

export class RunLog {
  #clock: Clock;
  #run: string;
  #started_at_ms: number;
  #seconds: Record<Stage, number> = { ground: 0, read: 0, stage: 0, record: 0 };
  #streams: Record<string, { changes: number; text_bytes: number }> = {};
  #cuts = 0;
  #changes = 0;
  #text_bytes = 0;
  #object_bytes = 0;
  #transactions = 0;
  #rejected_rows = 0;
  #unfinished: RunReport['unfinished'];
  #slot: RunReport['slot'];
  #fault: SluiceError | null = null;
  #begin_lsn: Lsn | null = null;
  #end_lsn: Lsn | null = null;
  #source_lsn: Lsn | null = null;

  constructor(clock: Clock, run: string) {
    this.#clock = clock;
    this.#run = run;
    this.#started_at_ms = clock.now();
  }

  get started_at_ms(): number {
    return this.#started_at_ms;
  }

  /** Runs `work` and books its time. Stages overlap, so that their sum may exceed the window's time. */
  async timed<T>(stage: Stage, work: () => Promise<T>): Promise<T> {
    const began_ms = this.#clock.now();
    try {
      return await work();
    } finally {
      this.#seconds[stage] += (this.#clock.now() - began_ms) / 1000;
    }
  }

  /** Reading begins at `begin_lsn`; the source's log ended at `source_lsn` then. */
  between(begin_lsn: Lsn, source_lsn: Lsn): void {
    this.#begin_lsn = begin_lsn;
    this.#end_lsn = begin_lsn;
    this.#source_lsn = source_lsn;
  }

  recorded(cut: Cut, transactions: number): void {
    this.#end_lsn = cut.end_lsn;
    this.#transactions += transactions;
    if (cut.object === null) return;
    this.#cuts++;
    this.#object_bytes += cut.object_bytes;
    for (const [stream, { changes, text_bytes }] of Object.entries(cut.streams)) {
      const own = (this.#streams[stream] ??= { changes: 0, text_bytes: 0 });
      own.changes += changes;
      own.text_bytes += text_bytes;
      this.#changes += changes;
      this.#text_bytes += text_bytes;
    }
  }

  /** The slot as it is before it is read: tells of one that the source may soon give up. */
  sawSlot(slot: SlotRow | null, log: Log): void {
    if (slot === null) return;
    this.#slot = slotRoom(slot);
    const { kept_wal_bytes, safe_wal_bytes, at_risk } = this.#slot;
    if (at_risk) log.warn('slot_at_risk', { wal_status: slot.wal_status, kept_wal_bytes, safe_wal_bytes });
  }

  /** So many rows were left out of the cut. */
  rejected(rows: number): void {
    this.#rejected_rows += rows;
  }

  /** It has ended inside this transaction; null: nobody knows. */
  unfinished(unfinished: Unfinished | null): void {
    if (unfinished === null) return;
    const { xid, changes, text_bytes, tables, windows, stalled } = unfinished;
    this.#unfinished = { xid, changes, text_bytes, tables, windows, stalled };
  }

  /** What could not be done beside the reading, which goes on: the window ends with it. The first one counts. */
  failsWith(fault: SluiceError): void {
    this.#fault ??= fault;
  }

  get fault(): SluiceError | null {
    return this.#fault;
  }

  report(stopped_by: StopReason, error: SluiceError | null): RunReport {
    return {
      run: this.#run,
      started_at_ms: this.#started_at_ms,
      ended_at_ms: this.#clock.now(),
      stopped_by,
      error: error && { code: error.code, message: error.message, remedy: error.remedy },
      begin_lsn: this.#begin_lsn,
      end_lsn: this.#end_lsn,
      source_lsn: this.#source_lsn,
      cuts: this.#cuts,
      transactions: this.#transactions,
      changes: this.#changes,
      text_bytes: this.#text_bytes,
      object_bytes: this.#object_bytes,
      ...(this.#rejected_rows > 0 ? { rejected_rows: this.#rejected_rows } : {}),
      ...(this.#unfinished ? { unfinished: this.#unfinished } : {}),
      ...(this.#slot ? { slot: this.#slot } : {}),
      streams: this.#streams,
      seconds: this.#seconds,
    };
  }
}
