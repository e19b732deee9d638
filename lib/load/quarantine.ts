/**
 * Rows that the target refuses, on their way aside (target.on_error: quarantine): into an object of the stage, below `rejected/loads/`, and into the ledger, before the
 * target's transaction commits (I4). The target's `_sluice.quarantine` says which of them wait; what the ledger has is brought in line with it.
 *
 * A load goes the fast way first. Where the target refuses a row it is done once more with care (divert.ts), and from its beginning while rows of the stream wait. With
 * `halt` the second try finds the row's key. Whoever dies in between does the same again: under the same id, so that no row is listed twice.
 */
import type { Pipeline } from '../config/schema.ts';
import type { Aside, Clock, Ledger, Log, Quarantined, Reject, Stage, TargetTransaction } from '../ports.ts';
import { RejectWriter } from '../validation/reject-writer.ts';
import { keyText, type RejectedRow, rejectedLine, rejectedRows } from '../validation/rejected.ts';
import { isRowRefusal } from './refusals.ts';

/** What becomes of rows that the target refuses. */
export interface Refusals {
  readonly on_error: 'halt' | 'quarantine';
  /** Rows of one stream that may wait. */
  readonly rows_max: number;
  /** Name for a new object. */
  readonly newObject: (stream: string) => string;
}

export function refusalsOf({ pipeline, target }: Pick<Pipeline, 'pipeline' | 'target'>, newId: () => string): Refusals {
  return {
    on_error: target.on_error,
    rows_max: target.quarantine_rows_max,
    newObject: (stream) => `${pipeline}/rejected/loads/${stream}/${newId()}`,
  };
}

interface Ports {
  readonly stage: Stage;
  readonly ledger: Pick<Ledger, 'rejects' | 'addReject' | 'removeRejects'>;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Log;
}

/** The first cut that is applied; or a chunk; or the end of an epoch (`chunk` null). */
type Place =
  | { readonly cut: number }
  | { readonly epoch: number; readonly plan: string; readonly chunk: number | null };

const DIGITS = 12;

function idOf(place: Place): string {
  const padded = (number: number): string => String(number).padStart(DIGITS, '0');
  if ('cut' in place) return `load-${padded(place.cut)}`;
  return `load-epoch-${padded(place.epoch)}-${place.chunk === null ? 'finish' : padded(place.chunk)}-${place.plan}`;
}

class Quarantine implements Aside {
  readonly id: string;
  readonly epoch: number | null;
  readonly plan: string | null;
  readonly kept: ReadonlySet<string>;
  readonly refuses: boolean;
  readonly rows_max: number;
  readonly #ports: Ports;
  readonly #stream: string;
  readonly #place: Place;
  readonly #refusals: Refusals;
  /** As the ledger had them when this one was opened. */
  readonly #known: readonly Reject[];
  #writer: RejectWriter;
  #own: Reject | null = null;
  /** Null: nothing was done with this one. */
  #before: Quarantined | null = null;
  #now: Quarantined = new Map();

  private constructor(ports: Ports, stream: string, place: Place, refusals: Refusals, known: readonly Reject[]) {
    this.#ports = ports;
    this.#stream = stream;
    this.#place = place;
    this.#refusals = refusals;
    this.#known = known;
    this.#writer = new RejectWriter(ports.stage, refusals.newObject(stream));
    this.id = idOf(place);
    this.epoch = 'cut' in place ? null : place.epoch;
    this.plan = 'cut' in place ? null : place.plan;
    this.kept = new Set(known.map(({ id }) => id));
    this.refuses = refusals.on_error === 'quarantine';
    this.rows_max = refusals.rows_max;
  }

  /** With the stream's row locked, or the chunk marked: nobody else does the same work. */
  static async open(ports: Ports, stream: string, place: Place, refusals: Refusals): Promise<Quarantine> {
    return new Quarantine(ports, stream, place, refusals, await refusedOf(ports.ledger, stream));
  }

  async add(row: RejectedRow): Promise<void> {
    await this.#writer.add(rejectedLine(row));
  }

  async keep(before: Quarantined, now: Quarantined): Promise<void> {
    this.#before = before;
    this.#now = now;
    const object = await this.#writer.complete();
    // Where the transaction is given up after this, and tried once more (finish.ts), the same rows come again.
    this.#writer = new RejectWriter(this.#ports.stage, this.#refusals.newObject(this.#stream));
    if (object === null) return;
    this.#own = {
      stream: this.#stream,
      id: this.id,
      object: object.object,
      object_bytes: object.object_bytes,
      rows: object.rows.get(this.#stream) ?? 0,
      cut: 'cut' in this.#place ? this.#place.cut : null,
      epoch: this.epoch,
      rejected_at_ms: this.#ports.clock.now(),
      refused: true,
    };
    await this.#ports.ledger.addReject(this.#own);
  }

  /** After the commit. Doing it late or not at all leaves in the list what is over: the next load of the stream sees to it. */
  async settle(): Promise<void> {
    const { ledger, log } = this.#ports;
    const [own, before] = [this.#own, this.#before];
    if (before === null) return;
    const stale: Reject[] = [];
    const changed: Reject[] = [];
    for (const reject of own === null ? this.#known : [...this.#known.filter(({ id }) => id !== own.id), own]) {
      const waiting = this.#now.get(reject.id)?.size ?? 0;
      // A chunk beside this one may be about to commit what it has put aside.
      const isKnown = reject.id === this.id || before.has(reject.id) || 'cut' in this.#place;
      if (waiting === 0 && isKnown) stale.push(reject);
      else if (waiting > 0 && waiting !== reject.rows) changed.push(reject);
    }
    if (stale.length > 0) await ledger.removeRejects(stale);
    for (const reject of changed) await this.#shorten(reject);
    if (own !== null && this.#now.has(own.id)) {
      log.warn('rows_quarantined', { stream: this.#stream, rows: own.rows, id: own.id });
    }
  }

  async abandon(): Promise<void> {
    await this.#writer.abandon();
  }

  /** Leaves what waits still: of each key the last line. */
  async #shorten(reject: Reject): Promise<void> {
    const { stage, ledger } = this.#ports;
    const waiting = this.#now.get(reject.id) ?? new Set();
    const last = new Map<string, RejectedRow>();
    for await (const row of rejectedRows(stage, reject)) {
      const key = keyText(row.key);
      if (waiting.has(key)) last.set(key, row);
    }
    const writer = new RejectWriter(stage, this.#refusals.newObject(this.#stream));
    for (const row of last.values()) await writer.add(rejectedLine(row));
    const written = await writer.complete();
    if (written === null) await ledger.removeRejects([reject]);
    else {
      const { object, object_bytes } = written;
      await ledger.addReject({ ...reject, object, object_bytes, rows: last.size });
    }
  }
}

async function refusedOf(ledger: Pick<Ledger, 'rejects'>, stream: string): Promise<Reject[]> {
  return (await ledger.rejects(stream)).filter(({ refused }) => refused === true);
}

/** How one try of a load goes about rows that are refused. */
export class Care {
  readonly #ports: Ports;
  readonly #refusals: Refusals | undefined;
  readonly #isCareful: boolean;
  readonly #opened: Quarantine[] = [];

  constructor(ports: Ports, refusals: Refusals | undefined, isCareful: boolean) {
    this.#ports = ports;
    this.#refusals = refusals;
    this.#isCareful = isCareful;
  }

  /** With the row locked, before anything is applied. `isCareful`: of this stream, where several are in the transaction. */
  async divert(
    tx: TargetTransaction,
    stream: string,
    { isCareful = this.#isCareful, checks = true }: { readonly isCareful?: boolean; readonly checks?: boolean } = {},
  ): Promise<void> {
    if (!this.#refusals || !tx.row || !(isCareful || tx.row.quarantined)) return;
    await tx.divert(await this.#open(stream, { cut: tx.row.applied_cut + 1 }), checks);
  }

  /** For a chunk, or the end of an epoch; undefined: the first row that is refused is thrown. */
  async aside(stream: string, place: Place): Promise<Aside | undefined> {
    return this.#isCareful ? await this.#open(stream, place) : undefined;
  }

  async #open(stream: string, place: Place): Promise<Quarantine> {
    if (!this.#refusals) throw new RangeError('nobody said what becomes of refused rows');
    const opened = await Quarantine.open(this.#ports, stream, place, this.#refusals);
    this.#opened.push(opened);
    return opened;
  }

  async run<T>(work: (care: Care) => Promise<T>): Promise<T> {
    try {
      const result = await work(this);
      for (const quarantine of this.#opened) await quarantine.settle();
      return result;
    } catch (error) {
      for (const quarantine of this.#opened) await quarantine.abandon();
      throw error;
    }
  }
}

/** Runs a load of one stream: as always, and where a row of it is refused, once more with care. */
export async function withCare<T>(
  ports: Ports,
  stream: string,
  refusals: Refusals | undefined,
  work: (care: Care) => Promise<T>,
): Promise<T> {
  const isCareful = refusals?.on_error === 'quarantine' && (await refusedOf(ports.ledger, stream)).length > 0;
  try {
    return await new Care(ports, refusals, isCareful).run(work);
  } catch (error) {
    if (!refusals || isCareful || !wantsCare(error)) throw error;
    return await new Care(ports, refusals, true).run(work);
  }
}

/** A row was refused, and nobody has looked for it yet. */
export function wantsCare(error: unknown): boolean {
  return isRowRefusal(error) && error.facts.key === undefined;
}
