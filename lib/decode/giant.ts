/**
 * A message of megabytes, made small: its large values are taken out, as the pieces in which they arrived, and what remains is an ordinary message
 * with a mark where each was. So a row of 100 MB is in memory once, and the decoder has one way to read a message (I8).
 */
import { TUPLE_COLUMNS_MAX, VALUE } from '../change.ts';
import { SluiceError } from '../errors.ts';
import { bytesOf, isPacked, PackedPiece, type Piece, textOf } from '../piece.ts';

/** Length that stands for a value that was taken out: no value of PostgreSQL has it (MaxAllocSize is 1 GiB less a byte). */
export const GIANT_LENGTH = 0xffffffff;
/** Values from here on are taken out. */
const GIANT_VALUE_BYTES_MIN = 64 * 1024;
/** Of a packed piece: a longer part is packed anew. */
const GIANT_PART_BYTES_MIN = 16 * 1024;
/** Row messages: tag, relation, then images of a tag and a tuple each. */
const ROW_MESSAGES = new Set([0x49 /* I */, 0x55 /* U */, 0x44 /* D */]);
const IMAGES = new Set([0x4e /* N */, 0x4b /* K */, 0x4f /* O */]);

export interface CompactMessage {
  readonly bytes: Buffer;
  /** The values taken out, in the order of the message. */
  readonly giants: (readonly Piece[])[];
}

/** Throws DECODE_FAILED for what is no row message: nothing else is so large. */
export function compactGiant(pieces: readonly Piece[]): CompactMessage {
  const reader = new PieceReader(pieces);
  const kept: Buffer[] = [];
  const giants: (readonly Piece[])[] = [];
  const keep = (length: number): Buffer => {
    const bytes = reader.bytes(length);
    kept.push(bytes);
    return bytes;
  };
  if (!ROW_MESSAGES.has(keep(1)[0] ?? 0)) throw fault(reader, 'a giant that is no row');
  keep(4); // the relation
  while (reader.left > 0) {
    if (!IMAGES.has(keep(1)[0] ?? 0)) throw fault(reader, 'an unknown image');
    const count = keep(2).readInt16BE();
    if (count < 0 || count > TUPLE_COLUMNS_MAX) throw fault(reader, `${count} columns`);
    for (let i = 0; i < count; i++) {
      if (keep(1)[0] !== VALUE.text) continue;
      const head = reader.bytes(4);
      const length = head.readUInt32BE();
      if (length > reader.left) throw fault(reader, `a value of ${length} bytes beyond the end`);
      if (length < GIANT_VALUE_BYTES_MIN) {
        kept.push(head);
        keep(length);
      } else {
        head.writeUInt32BE(GIANT_LENGTH);
        kept.push(head);
        giants.push(reader.take(length));
      }
    }
  }
  return { bytes: Buffer.concat(kept), giants };
}

class PieceReader {
  #pieces: readonly Piece[];
  #piece = 0;
  #at = 0;
  /** Text of the packed piece that is being read. */
  #text: { readonly piece: number; readonly bytes: Buffer } | null = null;
  left: number;
  read = 0;

  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces;
    this.left = bytesOf(pieces);
  }

  /** A copy of the next `length` bytes. */
  bytes(length: number): Buffer {
    return Buffer.concat(this.take(length).map(textOf));
  }

  /** The next `length` bytes: as views of what is not packed, and packed as it was; a part of a packed piece by itself. */
  take(length: number): Piece[] {
    if (length > this.left) throw fault(this, 'the end');
    const taken: Piece[] = [];
    let wanted = length;
    while (wanted > 0) {
      const piece = this.#pieces[this.#piece] as Piece;
      const isWhole = this.#at === 0 && piece.length <= wanted;
      const view = isPacked(piece)
        ? isWhole
          ? piece
          : partOf(this.#textOf(piece).subarray(this.#at, this.#at + wanted))
        : piece.subarray(this.#at, this.#at + wanted);
      if (view.length > 0) taken.push(view);
      wanted -= view.length;
      this.#at += view.length;
      if (this.#at === piece.length) {
        this.#piece++;
        this.#at = 0;
      }
    }
    this.left -= length;
    this.read += length;
    return taken;
  }

  #textOf(piece: PackedPiece): Buffer {
    if (this.#text?.piece !== this.#piece) this.#text = { piece: this.#piece, bytes: piece.text() };
    return this.#text.bytes;
  }
}

/** A view would hold the whole text. */
function partOf(text: Buffer): Piece {
  return text.length < GIANT_PART_BYTES_MIN ? Buffer.from(text) : PackedPiece.of(text);
}

function fault(reader: PieceReader, reason: string): SluiceError {
  return new SluiceError('DECODE_FAILED', { offset: reader.read, message: 'row', reason });
}
