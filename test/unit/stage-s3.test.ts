/** The writer of an object when S3 is slow or fails: what is in flight, what is said, what is left behind. */
import type { S3Client } from '@aws-sdk/client-s3';
import { describe, expect, test } from 'vitest';
import {
  PART_BYTES_FIRST,
  PART_BYTES_LAST,
  PARTS_MAX,
  PARTS_TOTAL_BYTES_MAX,
  PendingParts,
  partBytes,
} from '../../lib/stage/parts.ts';
import { s3Stage } from '../../lib/stage/s3.ts';
import { keptLog } from '../support/ledger-nouns.ts';

interface Call {
  readonly name: string;
  readonly input: {
    readonly PartNumber?: number;
    readonly Body?: Buffer;
    readonly MultipartUpload?: { Parts: { PartNumber: number }[] };
  };
  readonly done: () => void;
  readonly fail: (error: Error) => void;
}

/** An S3 that answers at once, but for UploadPart, which waits for the test; and for what `refused` names. */
function heldS3(refused = '') {
  const calls: Call[] = [];
  const held = (name: string, input: Call['input'], signal: AbortSignal | undefined): Promise<object> => {
    const { promise, resolve, reject } = Promise.withResolvers<object>();
    calls.push({ name, input, done: () => resolve({ ETag: 'e' }), fail: reject });
    signal?.addEventListener('abort', () => reject(Object.assign(new Error('aborted'), { name: 'AbortError' })));
    return promise;
  };
  const client = {
    send: async (
      command: { constructor: { name: string }; input: Call['input'] },
      options?: { abortSignal: AbortSignal },
    ) => {
      const name = command.constructor.name.replace('Command', '');
      if (name === 'UploadPart') return await held(name, command.input, options?.abortSignal);
      calls.push({ name, input: command.input, done: () => {}, fail: () => {} });
      if (name === refused) throw Object.assign(new Error('not allowed'), { name: 'AccessDenied' });
      return { UploadId: 'u' };
    },
  } as unknown as S3Client;
  const log = keptLog();
  return {
    calls,
    parts: () => calls.filter(({ name }) => name === 'UploadPart'),
    names: () => calls.map(({ name }) => name),
    log,
    stage: s3Stage({ client, bucket: 'b', log }),
  };
}

/** Whether the promise is settled when everything that can go on has gone on. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const settled = promise.then(
    () => true,
    () => true,
  );
  return await Promise.race([settled, new Promise<boolean>((turn) => setTimeout(turn, 5, false))]);
}

const full = () => Buffer.alloc(PART_BYTES_FIRST + 1);

describe('an object that is written', () => {
  test('holds its writer back while two parts are in flight', async () => {
    const { stage, parts } = heldS3();
    const writer = stage.begin('o');
    await writer.append(full());
    const second = writer.append(full());
    expect(await isSettled(second)).toBe(false);
    expect(parts()).toHaveLength(2);
    parts()[1]?.done();
    await second;
    const third = writer.append(full());
    expect(await isSettled(third)).toBe(false);
    expect(parts()).toHaveLength(3);
    await writer.abandon();
    await expect(third).rejects.toMatchObject({ code: 'AWS_TRANSIENT' });
  });

  test('names its parts in order, in whatever order they arrive', async () => {
    const { stage, parts, calls } = heldS3();
    const writer = stage.begin('o');
    await writer.append(full());
    const second = writer.append(full());
    expect(await isSettled(second)).toBe(false);
    parts()[1]?.done();
    await second;
    const completed = writer.complete();
    expect(await isSettled(completed)).toBe(false);
    parts()[2]?.done();
    parts()[0]?.done();
    await completed;
    const { input } = calls.at(-1) ?? {};
    expect(input?.MultipartUpload?.Parts.map(({ PartNumber }) => PartNumber)).toEqual([1, 2, 3]);
  });

  test('that fails says so at the next call and at every one after it', async () => {
    const { stage, parts, names } = heldS3();
    const writer = stage.begin('o');
    await writer.append(full());
    parts()[0]?.fail(Object.assign(new Error('slow down'), { name: 'SlowDown' }));
    await new Promise(setImmediate);
    await expect(writer.append(Buffer.from('x'))).rejects.toMatchObject({ code: 'AWS_TRANSIENT' });
    await expect(writer.complete()).rejects.toMatchObject({ code: 'AWS_TRANSIENT' });
    await writer.abandon();
    expect(names()).toEqual(['CreateMultipartUpload', 'UploadPart', 'AbortMultipartUpload']);
  });

  test('that is small is one call, and none when it is abandoned', async () => {
    const small = heldS3();
    const writer = small.stage.begin('o');
    await writer.append(Buffer.alloc(PART_BYTES_FIRST));
    await writer.complete();
    await writer.abandon();
    expect(small.names()).toEqual(['PutObject']);

    const abandoned = heldS3();
    const other = abandoned.stage.begin('o');
    await other.append(Buffer.alloc(100));
    await other.abandon();
    expect(abandoned.names()).toEqual([]);
  });

  test('that cannot be abandoned is logged, and nothing is thrown', async () => {
    const { stage, log, parts } = heldS3('AbortMultipartUpload');
    const writer = stage.begin('o');
    await writer.append(full());
    parts()[0]?.done();
    await writer.abandon();
    expect(log.lines).toMatchObject([{ level: 'warn', event: 'stage_abandon_failed', facts: { code: 'AWS_DENIED' } }]);
  });
});

describe('parts', () => {
  test('grow, so that the largest object fits into as many as S3 takes', () => {
    expect([1, 2500, 2501, 5001, 10_000].map(partBytes)).toEqual(
      [1, 1, 2, 4, 4].map((times) => times * PART_BYTES_FIRST),
    );
    let total = 0;
    for (let number = 1; number <= PARTS_MAX; number += 1) total += partBytes(number);
    expect(total).toBe(PARTS_TOTAL_BYTES_MAX);
    expect(partBytes(PARTS_MAX)).toBe(PART_BYTES_LAST);
  });

  test('are taken in order from buffers of any size', () => {
    const parts = new PendingParts();
    const bytes = Buffer.alloc(2 * PART_BYTES_FIRST + 100);
    for (let i = 0; i < bytes.length; i += 4096) bytes.writeUInt32BE(i, i);
    const taken: Buffer[] = [];
    for (const [from, to] of [
      [0, 5],
      [5, 5],
      [5, 100_000],
      [100_000, 2 * PART_BYTES_FIRST + 50],
      [2 * PART_BYTES_FIRST + 50, bytes.length],
    ] as const) {
      parts.push(bytes.subarray(from, to));
      for (let part = parts.full(); part !== null; part = parts.full()) taken.push(part);
    }
    expect(taken.map(({ length }) => length)).toEqual([PART_BYTES_FIRST, PART_BYTES_FIRST]);
    taken.push(parts.rest());
    expect(Buffer.concat(taken).equals(bytes)).toBe(true);
    expect(parts.rest()).toHaveLength(0);
  });

  test('that lie within one buffer are not copied', () => {
    const parts = new PendingParts();
    const bytes = Buffer.alloc(PART_BYTES_FIRST + 1);
    parts.push(bytes);
    expect(parts.full()?.buffer).toBe(bytes.buffer);
  });
});
