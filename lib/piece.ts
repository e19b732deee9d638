/**
 * Text of a giant value, in pieces. A message of many megabytes is compressed as it arrives and stays so until its pieces are staged one by one: hexadecimal
 * digits and JSON take half or less, so that a process that reads a row of hundreds of megabytes stays smaller than the row (I8).
 */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** Text of one packed piece: what is unpacked at a time. */
const PIECE_TEXT_BYTES = 1024 * 1024;
/** A message of fewer bytes is kept as it came: packing costs time. */
export const PACKED_MESSAGE_BYTES_MIN = 16 * 1024 * 1024;

/** As for what is staged: higher levels take longer, and digits are no smaller by them. */
const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

/** Text as it came, or packed. */
export type Piece = Buffer | PackedPiece;

export class PackedPiece {
  /** Bytes of the text, before it is changed. */
  readonly length: number;
  readonly #packed: Buffer;
  readonly #isCompressed: boolean;
  readonly #change: ((text: Buffer) => Buffer) | null;

  private constructor(
    packed: Buffer,
    { length, isCompressed }: { readonly length: number; readonly isCompressed: boolean },
    change: ((text: Buffer) => Buffer) | null,
  ) {
    this.length = length;
    this.#packed = packed;
    this.#isCompressed = isCompressed;
    this.#change = change;
  }

  /** Keeps nothing of `text` itself. */
  static of(text: Buffer): PackedPiece {
    const compressed = zstdCompressSync(text, ZSTD);
    const isCompressed = compressed.length < text.length;
    // A copy in both cases, of exactly its size: the compressor's own buffer is larger.
    return new PackedPiece(exactly(isCompressed ? compressed : text), { length: text.length, isCompressed }, null);
  }

  /** The same text, changed when it is unpacked. */
  changed(change: (text: Buffer) => Buffer): PackedPiece {
    return new PackedPiece(this.#packed, { length: this.length, isCompressed: this.#isCompressed }, change);
  }

  /** Unpacks it: bytes of the caller's own. */
  text(): Buffer {
    const text = this.#isCompressed
      ? zstdDecompressSync(this.#packed, { maxOutputLength: this.length, chunkSize: Math.max(this.length, 64) })
      : Buffer.from(this.#packed);
    return this.#change === null ? text : this.#change(text);
  }
}

/** Puts pieces of text together into packed ones. What is pushed may be overwritten afterwards. */
export class Packer {
  readonly #packed: PackedPiece[] = [];
  #page: Buffer = NO_BYTES;
  #used = 0;

  push(text: Buffer): void {
    for (let at = 0; at < text.length; ) {
      if (this.#page.length === 0) this.#page = Buffer.allocUnsafeSlow(PIECE_TEXT_BYTES);
      const copied = text.copy(this.#page, this.#used, at);
      at += copied;
      this.#used += copied;
      if (this.#used === this.#page.length) this.#pack();
    }
  }

  /** What was pushed, packed. */
  end(): PackedPiece[] {
    if (this.#used > 0) this.#pack();
    this.#page = NO_BYTES;
    return this.#packed;
  }

  #pack(): void {
    this.#packed.push(PackedPiece.of(this.#page.subarray(0, this.#used)));
    this.#used = 0;
  }
}

const NO_BYTES: Buffer = Buffer.alloc(0);

function exactly(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}

export function isPacked(piece: Piece): piece is PackedPiece {
  return piece instanceof PackedPiece;
}

export function textOf(piece: Piece): Buffer {
  return isPacked(piece) ? piece.text() : piece;
}

/** All of the text: only of what is known to be small, or must be seen whole. */
export function joined(pieces: readonly Piece[]): Buffer {
  return Buffer.concat(pieces.map(textOf));
}

export function bytesOf(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

/** The first `bytes` of the text, or all of it. */
export function headOf(pieces: readonly Piece[], bytes: number): Buffer {
  const head: Buffer[] = [];
  let left = bytes;
  for (const piece of pieces) {
    if (left <= 0) break;
    const text = textOf(piece).subarray(0, left);
    head.push(text);
    left -= text.length;
  }
  return Buffer.concat(head);
}
