/**
 * Where one stream's segments lie in a cut's objects: from the ledger item, or from the index at the end of the last. Almost every cut has one; each window that a
 * long transaction took has left one of its own (Cut.earlier), and no range reaches from one into the next.
 */
import { buffer } from 'node:stream/consumers';
import * as z from 'zod';
import { SluiceError } from '../errors.ts';
import type { Cut, CutPart, Stage } from '../ports.ts';
import type { ByteRange } from './segment.ts';

const indexSchema = z.record(z.string(), z.array(z.tuple([z.int().min(0), z.int().min(0)])));

/** Throws STAGE_MISSING, STAGE_CORRUPT. */
export async function cutRanges(stage: Pick<Stage, 'read'>, cut: Cut, stream: string): Promise<readonly ByteRange[]> {
  const own = cut.streams[stream];
  if (!own || cut.object === null) return [];
  if (own.ranges) return own.ranges;
  if (cut.index === null)
    throw new SluiceError('STAGE_CORRUPT', { object: cut.object, stream, reason: 'it has no index' });
  const text = (await buffer(await stage.read(...placeIn(objectsOf(cut), cut.index)))).toString('utf8');
  const ranges = parseIndex(text)?.[stream];
  if (!ranges) throw new SluiceError('STAGE_CORRUPT', { object: cut.object, stream, reason: 'its index is damaged' });
  return ranges;
}

/** In the order of their bytes. */
export function objectsOf({ object, object_bytes, earlier = [] }: Cut): readonly CutPart[] {
  if (object === null) return earlier;
  const before = earlier.reduce((sum, part) => sum + part.object_bytes, 0);
  return [...earlier, { object, object_bytes: object_bytes - before }];
}

/** The object that a range of their bytes lies in, and where. Throws STAGE_CORRUPT. */
export function placeIn(objects: readonly CutPart[], [offset, bytes]: ByteRange): [object: string, range: ByteRange] {
  let begin = 0;
  for (const [i, { object, object_bytes }] of objects.entries()) {
    const isLast = i + 1 === objects.length;
    if (isLast || offset + bytes <= begin + object_bytes) {
      if (offset >= begin) return [object, [offset - begin, bytes]];
      break;
    }
    begin += object_bytes;
  }
  const reason = `no object of it has the bytes from ${offset} to ${offset + bytes}`;
  throw new SluiceError('STAGE_CORRUPT', { object: objects.at(-1)?.object ?? '', reason });
}

function parseIndex(text: string): Record<string, ByteRange[]> | null {
  try {
    return indexSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
