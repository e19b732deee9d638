/**
 * Gathers lines that lie scattered in a buffer into a few large pieces, in order, copying only the short runs: neighbours are joined, and what is long
 * is handed on as a view of where it lies.
 */
import { isPacked, type Piece } from '../piece.ts';

const PAGE_BYTES = 256 * 1024;
/** From here a run is worth a piece of its own. */
const VIEW_BYTES_MIN = 16 * 1024;

export class Lines {
  #pieces: Piece[] = [];
  #page: Buffer | null = null;
  #pageUsed = 0;
  #bytes: Buffer | null = null;
  #runStart = 0;
  #runEnd = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds the line `bytes[start, end)`. The buffer must not change until the pieces have been used. */
  add(bytes: Buffer, start: number, end: number): void {
    this.#count++;
    this.#addRun(bytes, start, end);
  }

  /** Adds the line `bytes[start, end)` + `tail`. */
  addWithTail(bytes: Buffer, start: number, end: number, tail: Buffer): void {
    this.#count++;
    this.#endRun();
    this.#copy(bytes, start, end);
    this.#copy(tail, 0, tail.length);
  }

  /** Adds a line that is in pieces. They must not change until they have been used. */
  addPieces(pieces: readonly Piece[]): void {
    this.#count++;
    this.#endRun();
    for (const piece of pieces) {
      if (!isPacked(piece) && piece.length < VIEW_BYTES_MIN) {
        this.#copy(piece, 0, piece.length);
      } else {
        this.#endPage();
        this.#pieces.push(piece);
      }
    }
  }

  pieces(): Piece[] {
    this.#endRun();
    this.#endPage();
    return this.#pieces;
  }

  #addRun(bytes: Buffer, start: number, end: number): void {
    if (bytes === this.#bytes && start === this.#runEnd) {
      this.#runEnd = end;
      return;
    }
    this.#endRun();
    this.#bytes = bytes;
    this.#runStart = start;
    this.#runEnd = end;
  }

  #endRun(): void {
    if (!this.#bytes) return;
    if (this.#runEnd - this.#runStart >= VIEW_BYTES_MIN) {
      this.#endPage();
      this.#pieces.push(this.#bytes.subarray(this.#runStart, this.#runEnd));
    } else {
      this.#copy(this.#bytes, this.#runStart, this.#runEnd);
    }
    this.#bytes = null;
  }

  #copy(bytes: Buffer, start: number, end: number): void {
    let from = start;
    while (from < end) {
      if (!this.#page || this.#pageUsed === this.#page.length) {
        this.#endPage();
        this.#page = Buffer.allocUnsafeSlow(PAGE_BYTES);
      }
      const copied = bytes.copy(this.#page, this.#pageUsed, from, end);
      this.#pageUsed += copied;
      from += copied;
    }
  }

  #endPage(): void {
    if (this.#page && this.#pageUsed > 0) this.#pieces.push(this.#page.subarray(0, this.#pageUsed));
    this.#page = null;
    this.#pageUsed = 0;
  }
}
