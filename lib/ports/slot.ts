/**
 * Contracts of the slot (see ports.ts): what is read from it, and in which words.
 */
import type { Lsn } from '../lsn.ts';
import type { Piece } from '../piece.ts';

/** Receives what a slot sends, synchronously and in order. `bytes` is valid only during the call: copy what must outlive it. */
export interface SlotSink {
  /** One message of the output plugin: `bytes[start, end)`. False: no more in this read; what follows waits for the next. */
  change(bytes: Buffer, start: number, end: number): boolean;
  /** One message of a megabyte or more, in the pieces in which it arrived, or packed; they may be kept. As `change` otherwise. */
  giantChange(pieces: readonly Piece[]): boolean;
  /** The server has sent everything up to `walEnd` that concerns this slot, and has nothing more at this moment. */
  keepalive(walEnd: Lsn): void;
  /** A warning of the server, in its place among the messages: what a plugin says of what it does not print. */
  warning?(text: string): void;
}

/** What was agreed on with the output plugin when the slot was opened. `numbers_as_text`: NaN and the infinities are told apart from NULL. */
export type SlotDialect =
  | { readonly plugin: 'pgoutput' }
  | { readonly plugin: 'wal2json'; readonly format: 1 | 2; readonly numbers_as_text: boolean };

/**
 * One open reading of the slot. Changes of committed transactions come in the order of their commits, from the first commit after the
 * position it was opened at. Nothing is confirmed but by `confirm`.
 */
export interface SlotReader {
  /** In the middle of what would have to be begun anew if the reading ended now. */
  readonly isBusy?: boolean;
  /** In which words the plugin speaks. Not given: pgoutput's. */
  readonly dialect?: SlotDialect;
  /**
   * Waits up to `wait_ms` for bytes, then hands every complete message that has arrived to `sink`, until the sink stops it, and
   * says whether there were any bytes. Between calls nothing is read from the socket: a caller that is slow slows the server down (I8).
   * Keepalives are answered by the adapter at once, with the confirmed position; they reach the sink as well.
   */
  read(sink: SlotSink, wait_ms: number): Promise<'data' | 'nothing'>;
  /** Asks the server for a keepalive, so that `nothing` can be told from a server that is busy decoding what is not for us. */
  askKeepalive(): void;
  /** Tells the server that everything up to `lsn` is durable here (I1). Sent at once; never goes back. */
  confirm(lsn: Lsn): void;
  /** Ends the reading cleanly (CopyDone), so that the slot is free when this resolves. Safe to call twice, and after an error. */
  close(): Promise<void>;
}
