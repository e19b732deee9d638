/**
 * Where one stream's segments lie in a cut's object: from the ledger item, or from the index at the end of the object.
 */
import { buffer } from 'node:stream/consumers';
import * as z from 'zod';
import { SluiceError } from '../errors.ts';
import type { Cut, Stage } from '../ports.ts';
import type { ByteRange } from './segment.ts';

const indexSchema = z.record(z.string(), z.array(z.tuple([z.int().min(0), z.int().min(0)])));

/** Throws STAGE_MISSING, STAGE_CORRUPT. */
export async function cutRanges(stage: Pick<Stage, 'read'>, cut: Cut, stream: string): Promise<readonly ByteRange[]> {
  const own = cut.streams[stream];
  if (!own || cut.object === null) return [];
  if (own.ranges) return own.ranges;
  if (cut.index === null)
    throw new SluiceError('STAGE_CORRUPT', { object: cut.object, stream, reason: 'it has no index' });
  const text = (await buffer(await stage.read(cut.object, cut.index))).toString('utf8');
  const ranges = parseIndex(text)?.[stream];
  if (!ranges) throw new SluiceError('STAGE_CORRUPT', { object: cut.object, stream, reason: 'its index is damaged' });
  return ranges;
}

function parseIndex(text: string): Record<string, ByteRange[]> | null {
  try {
    return indexSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
