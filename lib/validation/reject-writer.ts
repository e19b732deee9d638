/**
 * Rows that are left out of a cut or a chunk, on their way into the stage: an object of their own, which is begun with the first of them. It is complete, and known
 * to the ledger, before the cut or the chunk is recorded (I1).
 */
import { SluiceError } from '../errors.ts';
import type { Ledger, Reject, Stage, StageWriter } from '../ports.ts';
import type { RejectedLine } from './rejected.ts';

/** Gathered into one piece before it is appended. */
const PIECE_BYTES = 256 * 1024;

/** What lies in the stage. */
export interface RejectedObject {
  readonly object: string;
  readonly object_bytes: number;
  /** By stream. */
  readonly rows: ReadonlyMap<string, number>;
}

export class RejectWriter {
  #stage: Stage;
  #object: string;
  #writer: StageWriter | null = null;
  #rows = new Map<string, number>();
  #pieces: Buffer[] = [];
  #bytes = 0;

  constructor(stage: Stage, object: string) {
    this.#stage = stage;
    this.#object = object;
  }

  async add({ stream, text }: RejectedLine): Promise<void> {
    this.#rows.set(stream, (this.#rows.get(stream) ?? 0) + 1);
    this.#pieces.push(text);
    this.#bytes += text.length;
    if (this.#bytes >= PIECE_BYTES) await this.#flush();
  }

  /** Null: there were none, and nothing lies in the stage. */
  async complete(): Promise<RejectedObject | null> {
    await this.#flush();
    if (this.#writer === null) return null;
    await this.#writer.complete();
    return { object: this.#object, object_bytes: this.#writer.bytes, rows: this.#rows };
  }

  async abandon(): Promise<void> {
    await this.#writer?.abandon();
  }

  async #flush(): Promise<void> {
    if (this.#bytes === 0) return;
    const piece = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#bytes = 0;
    this.#writer ??= this.#stage.begin(this.#object);
    await this.#writer.append(piece);
  }
}

/** What the rows were left out of. */
export type LeftOutOf =
  | { readonly cut: number }
  | { readonly epoch: number; readonly plan: string; readonly chunk: number };

/** Tells the ledger where they lie. Returns how many they are. */
export async function keepRejects(
  ledger: Pick<Ledger, 'addReject'>,
  rejected: RejectedObject | null,
  from: LeftOutOf,
  now_ms: number,
): Promise<number> {
  if (rejected === null) return 0;
  const { object, object_bytes } = rejected;
  let all = 0;
  for (const [stream, rows] of rejected.rows) {
    all += rows;
    const reject: Reject = {
      stream,
      id: rejectId(from, object),
      object,
      object_bytes,
      rows,
      cut: 'cut' in from ? from.cut : null,
      epoch: 'cut' in from ? null : from.epoch,
      rejected_at_ms: now_ms,
    };
    await ledger.addReject(reject);
  }
  return all;
}

/**
 * Records a cut of which rows were left out: they are known to the ledger before it is (I1), and after it. For a window that has lost its lease may take them for those of a
 * cut that was never recorded (rejected-keys.ts), or leave its own behind, of a cut whose number another has taken by now.
 */
export async function recordedWith<Recorded>(
  ledger: Pick<Ledger, 'addReject' | 'removeRejects'>,
  rejected: readonly RejectedObject[],
  cut: number,
  now_ms: number,
  record: () => Promise<Recorded>,
): Promise<{ readonly recorded: Recorded; readonly rejected_rows: number }> {
  if (rejected.length === 0) return { recorded: await record(), rejected_rows: 0 };
  const keep = async (): Promise<number> => {
    let rows = 0;
    for (const object of rejected) rows += await keepRejects(ledger, object, { cut }, now_ms);
    return rows;
  };
  const rejected_rows = await keep();
  let recorded: Recorded;
  try {
    recorded = await record();
  } catch (error) {
    if (error instanceof SluiceError && error.code === 'WINDOW_LOST') {
      const ours = rejected.flatMap(({ object, rows }) =>
        [...rows.keys()].map((stream) => ({ stream, id: rejectId({ cut }, object) })),
      );
      await ledger.removeRejects(ours);
    }
    throw error;
  }
  await keep();
  return { recorded, rejected_rows };
}

const DIGITS = 12;

/** Of one object of a cut, for another window may stage one of the same number; of the same chunk always the same: who reads it once more leaves the same rows out. */
function rejectId(from: LeftOutOf, object: string): string {
  const padded = (number: number): string => String(number).padStart(DIGITS, '0');
  if ('cut' in from) return `cut-${padded(from.cut)}-${object.slice(object.lastIndexOf('-') + 1)}`;
  return `epoch-${padded(from.epoch)}-${padded(from.chunk)}-${from.plan}`;
}
