/** A body that stands still while it is waited for is opened again at the byte reached, a bounded number of times; one that nobody reads is left alone. */
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { resumingReadable, STALLS_MAX } from '../../lib/stage/resume.ts';
import { keptLog } from '../support/ledger-nouns.ts';

const STALL_MS = 40;
const TEXT = Buffer.from('abcdefghijklmnopqrstuvwxyz');

/** Brings so many bytes, one by one, and then nothing. */
const stalling = (skip: number, bytes: number): Readable => {
  let at = skip;
  return new Readable({
    read() {
      if (at < Math.min(skip + bytes, TEXT.length)) this.push(TEXT.subarray(at, ++at));
      else if (at === TEXT.length) this.push(null);
    },
  });
};

function opened(bytesOf: (opening: number) => number) {
  const skips: number[] = [];
  const bodies: Readable[] = [];
  const open = async (skip: number): Promise<Readable> => {
    skips.push(skip);
    const body = stalling(skip, bytesOf(skips.length));
    bodies.push(body);
    return body;
  };
  const options = { open, bytes: TEXT.length, object: 'o', log: keptLog(), stall_ms: STALL_MS };
  return { skips, bodies, options };
}

describe('a body that stands still', () => {
  test('is opened again at the byte reached', async () => {
    const { skips, bodies, options } = opened((opening) => (opening === 1 ? 10 : 100));
    expect(await buffer(await resumingReadable(options))).toEqual(TEXT);
    expect(skips).toEqual([0, 10]);
    expect(bodies[0]?.destroyed).toBe(true);
  });

  test('again and again, is given up, also if it brings a little each time', async () => {
    const { skips, options } = opened(() => 2);
    await expect(resumingReadable(options).then(buffer)).rejects.toMatchObject({
      code: 'AWS_TRANSIENT',
      message: expect.stringContaining('stood still'),
    });
    expect(skips).toHaveLength(STALLS_MAX);
  });

  test('because nobody reads it, is not opened again', async () => {
    const { skips, options } = opened(() => 100);
    const pieces: string[] = [];
    for await (const piece of await resumingReadable(options)) {
      pieces.push(String(piece));
      if (pieces.length < 3) await new Promise((resolve) => setTimeout(resolve, 3 * STALL_MS));
    }
    expect(pieces.join('')).toBe(String(TEXT));
    expect(skips).toEqual([0]);
  });
});
