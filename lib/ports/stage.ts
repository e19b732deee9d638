/**
 * Contracts of the stage (see ports.ts): objects that are written once, and read by range.
 */

import type { Readable } from 'node:stream';
import type { ByteRange } from '../stage/segment.ts';

/** One object that is being written. It exists when `complete` has resolved, and not before. */
export interface StageWriter {
  readonly object: string;
  /** Bytes appended so far: the offset of what is appended next. */
  readonly bytes: number;
  /** Appends; resolves when there is room for more (bounded: a part or two in flight). The buffer must not change afterwards. */
  append(bytes: Buffer): Promise<void>;
  /** Makes the object durable. */
  complete(): Promise<void>;
  /** Gives the object up; nothing is left that costs anything. Never throws. */
  abandon(): Promise<void>;
}

export interface Stage {
  /** Begins an object. Names are never used twice, so a late writer overwrites nothing. */
  begin(object: string): StageWriter;
  /** The bytes of one range. STAGE_MISSING when there is no such object. */
  read(object: string, range: ByteRange): Promise<Readable>;
}
