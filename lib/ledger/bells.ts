/**
 * What a doorbell's message says (I9), as text and back. Pure. A message is an invitation to look into the chain and nothing more, so one
 * that cannot be read is BELL_INVALID: said once, and forgotten.
 */
import { createHash } from 'node:crypto';
import * as z from 'zod';
import { SluiceError } from '../errors.ts';
import type { ExtractBell, LoadBell } from '../ports.ts';

const stream = z.string().min(1);
const natural = z.int().min(0);
const chunk = z.object({ kind: z.literal('chunk'), stream, epoch: natural, plan: z.string().min(1), chunk: natural });

const loadBell = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('cuts'), stream, cut: natural }),
  chunk,
  z.object({ kind: z.literal('finish'), stream, epoch: natural }),
]) satisfies z.ZodType<LoadBell>;

const extractBell = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('plan'), stream, epoch: natural }),
  chunk,
]) satisfies z.ZodType<ExtractBell>;

/** A bell as the body of a message. */
export function bellBody(pipeline: string, bell: LoadBell | ExtractBell): string {
  return JSON.stringify({ pipeline, ...bell });
}

/** Throws BELL_INVALID. */
export function parseLoadBell(pipeline: string, body: string): LoadBell {
  return parseBell(loadBell, 'load', pipeline, body);
}

/** Throws BELL_INVALID. */
export function parseExtractBell(pipeline: string, body: string): ExtractBell {
  return parseBell(extractBell, 'extract', pipeline, body);
}

function parseBell<T>(schema: z.ZodType<T>, queue: 'load' | 'extract', pipeline: string, body: string): T {
  const invalid = (reason: string) => new SluiceError('BELL_INVALID', { queue, pipeline, reason });
  let message: unknown;
  try {
    message = JSON.parse(body);
  } catch {
    throw invalid('it is not JSON');
  }
  const addressed = z.object({ pipeline: z.string() }).safeParse(message);
  if (!addressed.success) throw invalid('it names no pipeline');
  if (addressed.data.pipeline !== pipeline) throw invalid('it is meant for another pipeline');
  const bell = schema.safeParse(message);
  if (bell.success) return bell.data;
  const [issue] = bell.error.issues;
  throw invalid(`${issue?.path.join('.') || 'kind'}: ${issue?.message}`);
}

/**
 * The message group of a bell: its messages are handed out one at a time, in order (I5). What concerns a stream's chain or the course of its epoch has
 * the stream's group; a chunk has a group of its own, so that chunks are worked on side by side.
 */
export function bellGroup(bell: LoadBell | ExtractBell): string {
  switch (bell.kind) {
    case 'chunk':
      return groupOf(bell.stream, `/${bell.chunk}`);
    case 'cuts':
    case 'finish':
    case 'plan':
      return groupOf(bell.stream, '');
    default:
      return bell satisfies never;
  }
}

/** SQS takes 128 letters, digits and ASCII punctuation (SendMessage, MessageGroupId); a table's name may be anything. */
const GROUP_CHARACTERS = /^[!-~]+$/;
const GROUP_LENGTH_MAX = 128;

function groupOf(stream: string, suffix: string): string {
  const group = `${stream}${suffix}`;
  if (GROUP_CHARACTERS.test(group) && group.length <= GROUP_LENGTH_MAX) return group;
  return `sha256:${createHash('sha256').update(stream).digest('hex')}${suffix}`;
}

/** What is sent for a bell: `id` is unique in its ring. */
export interface Ring {
  readonly id: string;
  readonly body: string;
  readonly group: string;
}

/** SendMessageBatch takes ten messages, and 256 KiB over all of them. */
export const RINGS_MAX = 10;
export const RING_BYTES_MAX = 256 * 1024;

/** Rings in the batches in which they are sent; in their order. */
export function ringBatches(rings: readonly Ring[]): Ring[][] {
  const batches: Ring[][] = [];
  let bytes = 0;
  for (const ring of rings) {
    const size = Buffer.byteLength(ring.body);
    const batch = batches.at(-1);
    if (batch && batch.length < RINGS_MAX && bytes + size <= RING_BYTES_MAX) {
      batch.push(ring);
      bytes += size;
    } else {
      batches.push([ring]);
      bytes = size;
    }
  }
  return batches;
}
