/**
 * Rows of the log against their stream's schema: after the projection and before the fold, so that what is checked is what would be staged. For OpenCut; made anew
 * for each description of the table.
 *
 * What an update leaves unchanged is filled in from the old row where the log has that; else only the columns that are there are checked (I7). Deletions are not
 * checked: they bring no row.
 */
import type { Tuple } from '../change.ts';
import type { SluiceError } from '../errors.ts';
import { withoutLsnColumn } from '../lsn-column.ts';
import type { Shape } from '../shape.ts';
import type { RowFault } from './compiler.ts';
import { keyText, type RejectedLine, rejectedLine, shownRow } from './rejected.ts';
import { ROW_BYTES_MAX, type RowCheck } from './row-check.ts';
import { imageBytes, imageOf, isPartial, keyOf, presenceOf, type RowImage, textOf } from './row-image.ts';
import { RESTS_ON_REJECTED, type StreamChecks, TOO_LARGE } from './stream-checks.ts';

/** The row is left out. */
export interface Rejection {
  readonly line: RejectedLine;
  /** It has left its old key, under which the source has no row any more. */
  readonly moved: boolean;
  /** Why its stream cannot go on at all; null: it can. */
  readonly fault: SluiceError | null;
}

export class LogCheck {
  #checks: StreamChecks;
  #check: RowCheck;
  #shape: Shape;

  constructor(checks: StreamChecks, shape: Shape) {
    this.#checks = checks;
    // No row of the log has it, and no schema speaks of it.
    this.#shape = withoutLsnColumn(shape);
    this.#check = checks.forShape(this.#shape);
  }

  /** Null: it is valid. A fault: its stream halts. */
  judge(operation: 'insert' | 'update', image: RowImage, committed_at_us: number): SluiceError | Rejection | null {
    const faults = this.#faults(image);
    if (faults.length === 0) {
      // It has all its values: whatever was wrong with it before is over.
      if (this.#checks.rejected.size > 0 && !isPartial(image, this.#shape)) this.#forget(image);
      return null;
    }
    const key = keyOf(image, this.#shape);
    if (!this.#checks.rejects(this.#shape)) return this.#checks.invalid(key, faults);
    const moved = this.#hasMoved(image);
    if (moved) this.#forget(imageOf(image.old));
    const fault = this.#checks.noteRejected(this.#keyText(image));
    const line = rejectedLine({
      stream: this.#checks.stream,
      operation,
      key,
      committed_at: new Date(committed_at_us / 1000).toISOString(),
      faults,
      row: faults.includes(TOO_LARGE) ? {} : this.#shown(image),
    });
    return { line, moved, fault };
  }

  /** A row is gone, with whatever of it was left out. */
  deleted(old: Tuple): void {
    if (this.#checks.rejected.size > 0) this.#forget(imageOf(old));
  }

  /** All rows are gone. */
  truncated(): void {
    this.#checks.rejected.clear();
  }

  #faults(image: RowImage): readonly RowFault[] {
    if (imageBytes(image, this.#shape) > ROW_BYTES_MAX) return [TOO_LARGE];
    if (this.#restsOnRejected(image)) return [RESTS_ON_REJECTED];
    const { reads } = this.#check;
    const row = this.#shape.columns.map((_, i) =>
      reads[i] ? textOf(image, this.#shape, i) : presenceOf(image, this.#shape, i),
    );
    return this.#check.faults(row);
  }

  #restsOnRejected(image: RowImage): boolean {
    const { rejected } = this.#checks;
    if (rejected.size === 0 || !isPartial(image, this.#shape)) return false;
    if (rejected.has(this.#keyText(image))) return true;
    return image.oldImage !== 'none' && rejected.has(this.#keyText(imageOf(image.old)));
  }

  #hasMoved(image: RowImage): boolean {
    return image.oldImage !== 'none' && this.#keyText(image) !== this.#keyText(imageOf(image.old));
  }

  #forget(image: RowImage): void {
    this.#checks.rejected.delete(this.#keyText(image));
  }

  #keyText(image: RowImage): string {
    return keyText(keyOf(image, this.#shape));
  }

  #shown(image: RowImage): Readonly<Record<string, string | null>> {
    return shownRow(
      this.#shape.columns.map(({ name }) => name),
      this.#shape.columns.map((_, i) => textOf(image, this.#shape, i)),
    );
  }
}
