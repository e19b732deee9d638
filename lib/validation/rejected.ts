/**
 * A row that was left out (target.on_invalid: reject; target.on_error: quarantine), as it lies in the stage: one line of JSON in an object below `rejected/`, with the reasons and what the row
 * was. For people, and for the keys of what is to be read again: the values go no further (I6).
 *
 * A value is cut at VALUE_CHARACTERS_MAX, for the row itself is on the source.
 */
import { createInterface } from 'node:readline';
import { SluiceError } from '../errors.ts';
import type { Stage } from '../ports.ts';
import type { RowFault } from './compiler.ts';
import type { ColumnText } from './row-check.ts';

/** Of one value in a line. */
const VALUE_CHARACTERS_MAX = 4_096;

export const REJECTED_OPERATIONS = ['insert', 'update', 'copy', 'write', 'delete'] as const;
export type RejectedOperation = (typeof REJECTED_OPERATIONS)[number];

/** Names and PostgreSQL's text of the key's columns, in the order of the key. */
export interface RowKey {
  readonly columns: readonly string[];
  readonly values: readonly string[];
}

export interface RejectedRow {
  /** Stream id. */
  readonly stream: string;
  /** Of the log; or a copied row. `write`: a whole row that the target refused, for a cut does not say whether it was inserted or updated. */
  readonly operation: RejectedOperation;
  readonly key: RowKey;
  /** Commit time of the transaction (ISO 8601); null: a copied row, or one that the target refused. */
  readonly committed_at: string | null;
  readonly faults: readonly RowFault[];
  /** PostgreSQL's text of the columns that the log has; cut where they are long. */
  readonly row: Readonly<Record<string, string | null>>;
}

/** One line of the object, and whose it is. */
export interface RejectedLine {
  readonly stream: string;
  readonly text: Buffer;
}

/** Lines of one part of a cut, until they are staged. */
export class RejectedLines {
  #lines: RejectedLine[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  add(line: RejectedLine): void {
    this.#lines.push(line);
    this.#bytes += line.text.length;
  }

  /** In order; none are left. */
  take(): readonly RejectedLine[] {
    const lines = this.#lines;
    this.#lines = [];
    this.#bytes = 0;
    return lines;
  }
}

export function rejectedLine(row: RejectedRow): RejectedLine {
  return { stream: row.stream, text: Buffer.from(`${JSON.stringify(row)}\n`) };
}

/** By column, for `RejectedRow.row`. */
export function shownRow(names: readonly string[], row: readonly ColumnText[]): RejectedRow['row'] {
  return Object.fromEntries(
    names.flatMap((name, i) => {
      const text = row[i];
      return text === undefined ? [] : [[name, text === null ? null : shownText(text)]];
    }),
  );
}

function shownText(text: string): string {
  if (text.length <= VALUE_CHARACTERS_MAX) return text;
  return `${text.slice(0, VALUE_CHARACTERS_MAX)}… (${text.length} characters)`;
}

/** Tells keys of one table apart. */
export function keyText({ values }: Pick<RowKey, 'values'>): string {
  return JSON.stringify(values);
}

/** Where the rows lie that were left out of what lies in `object`. */
export function rejectedObject(object: string): string {
  const at = object.indexOf('/');
  return `${object.slice(0, at)}/rejected${object.slice(at)}`;
}

/** Rows of one stream, as `rowsIn`. */
export async function* rejectedRows(
  stage: Pick<Stage, 'read'>,
  { stream, ...at }: { readonly object: string; readonly object_bytes: number; readonly stream: string },
): AsyncGenerator<RejectedRow, void, undefined> {
  for await (const row of rowsIn(stage, at)) if (row.stream === stream) yield row;
}

/** Rows of all streams in an object that `rejectedLine` has filled, in order; of one that has expired there are none any more. Throws what the stage throws. */
export async function* rowsIn(
  stage: Pick<Stage, 'read'>,
  { object, object_bytes }: { readonly object: string; readonly object_bytes: number },
): AsyncGenerator<RejectedRow, void, undefined> {
  const input = await stage.read(object, [0, object_bytes]).catch(expired);
  if (input === null) return;
  // An error of the input does not end the lines by itself.
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => undefined); // It is thrown below, or nobody asks any more.
  input.once('error', (error) => failed.reject(error));
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await Promise.race([lines.next(), failed.promise]);
      if (next.done) return;
      yield JSON.parse(next.value) as RejectedRow;
    }
  } finally {
    input.destroy();
  }
}

function expired(error: unknown): null {
  if (error instanceof SluiceError && error.code === 'STAGE_MISSING') return null;
  throw error;
}
