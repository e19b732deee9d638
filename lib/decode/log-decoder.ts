/** What a window needs of a decoder, whichever plugin's messages it reads. */
import type { Piece } from '../piece.ts';

export interface LogDecoder {
  /** Decodes the message `bytes[start, end)`, which it may overwrite. Throws DECODE_FAILED. */
  decode(bytes: Buffer, start: number, end: number): void;
  /** Decodes a message that is held in pieces, without putting it together. Throws DECODE_FAILED. */
  decodeGiant(pieces: readonly Piece[]): void;
  /** The last message is kept: it tells of something that only the catalog explains. Nothing may follow it before `proceed`. */
  readonly waits: boolean;
  /** Asks the catalog and decodes the message that was kept. */
  proceed(): Promise<void>;
  /** Values that the log left out are looked up on the source and given to the sink: before what has been decoded is staged. */
  settle(): Promise<void>;
}
