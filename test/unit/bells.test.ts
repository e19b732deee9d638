import type { SendMessageBatchCommand, SQSClient } from '@aws-sdk/client-sqs';
import { describe, expect, test } from 'vitest';
import {
  bellBody,
  bellGroup,
  parseExtractBell,
  parseLoadBell,
  RING_BYTES_MAX,
  RINGS_MAX,
  ringBatches,
} from '../../lib/ledger/bells.ts';
import { RING_ATTEMPTS_MAX, sqsDoorbell } from '../../lib/ledger/doorbell.ts';
import type { ExtractBell, LoadBell } from '../../lib/ports.ts';
import { HandClock } from '../support/ledger-nouns.ts';

const LOAD_BELLS: LoadBell[] = [
  { kind: 'cuts', stream: 'public.t', cut: 0 },
  { kind: 'chunk', stream: 'public.t', epoch: 1, plan: 'p', chunk: 7 },
  { kind: 'finish', stream: 'ünï "code"', epoch: 2 },
];
const EXTRACT_BELLS: ExtractBell[] = [
  { kind: 'plan', stream: 'public.t', epoch: 1 },
  { kind: 'chunk', stream: 'public.t', epoch: 1, plan: 'p', chunk: 7 },
];

describe('a bell', () => {
  test.each(LOAD_BELLS)('of the load queue comes back as it was: $kind', (bell) => {
    expect(parseLoadBell('shop', bellBody('shop', bell))).toEqual(bell);
  });

  test.each(EXTRACT_BELLS)('of the extract queue comes back as it was: $kind', (bell) => {
    expect(parseExtractBell('shop', bellBody('shop', bell))).toEqual(bell);
  });

  test.each([
    ['nothing', ''],
    ['text', 'hello'],
    ['null', 'null'],
    ['a list', '[]'],
    ['no pipeline', '{"kind":"cuts","stream":"s","cut":1}'],
    ['another pipeline', bellBody('other', { kind: 'cuts', stream: 's', cut: 1 })],
    ['no kind', '{"pipeline":"shop","stream":"s","cut":1}'],
    ['an unknown kind', '{"pipeline":"shop","kind":"purge","stream":"s"}'],
    ['a bell of the other queue', bellBody('shop', { kind: 'plan', stream: 's', epoch: 1 })],
    ['a cut that is text', '{"pipeline":"shop","kind":"cuts","stream":"s","cut":"1"}'],
    ['a negative cut', '{"pipeline":"shop","kind":"cuts","stream":"s","cut":-1}'],
    ['a cut past what is safe', '{"pipeline":"shop","kind":"cuts","stream":"s","cut":9007199254740993}'],
    ['no stream', '{"pipeline":"shop","kind":"cuts","stream":"","cut":1}'],
  ])('that is %s is BELL_INVALID', (_, body) => {
    expect(() => parseLoadBell('shop', body)).toThrow(expect.objectContaining({ code: 'BELL_INVALID' }));
  });
});

describe('message groups', () => {
  test('keep a stream together and let chunks go side by side', () => {
    const chunk = (chunk: number) => bellGroup({ kind: 'chunk', stream: 's', epoch: 1, plan: 'p', chunk });
    expect(bellGroup({ kind: 'cuts', stream: 's', cut: 1 })).toBe('s');
    expect(bellGroup({ kind: 'finish', stream: 's', epoch: 1 })).toBe('s');
    expect(bellGroup({ kind: 'plan', stream: 's', epoch: 1 })).toBe('s');
    expect([chunk(1), chunk(2)]).toEqual(['s/1', 's/2']);
  });

  test.each(['töäst', 'with space', 'x'.repeat(200), 'tab\t'])('are what SQS takes for %j', (stream) => {
    const group = bellGroup({ kind: 'chunk', stream, epoch: 1, plan: 'p', chunk: Number.MAX_SAFE_INTEGER });
    expect(group).toMatch(/^[!-~]{1,128}$/);
    expect(group).not.toBe(
      bellGroup({ kind: 'chunk', stream: `${stream}x`, epoch: 1, plan: 'p', chunk: Number.MAX_SAFE_INTEGER }),
    );
  });
});

describe('batches', () => {
  const ring = (size: number, id: number) => ({ id: String(id), body: 'x'.repeat(size), group: 'g' });

  test('hold ten messages and keep their order', () => {
    const rings = Array.from({ length: 25 }, (_, i) => ring(10, i));
    const batches = ringBatches(rings);
    expect(batches.map(({ length }) => length)).toEqual([RINGS_MAX, RINGS_MAX, 5]);
    expect(batches.flat()).toEqual(rings);
  });

  test('hold 256 KiB', () => {
    const third = RING_BYTES_MAX / 2;
    expect(ringBatches([ring(third, 1), ring(third, 2), ring(1, 3)]).map(({ length }) => length)).toEqual([2, 1]);
    expect(ringBatches([])).toEqual([]);
  });
});

describe('ringing', () => {
  /** An SQS that leaves messages out as `refuse` says, by the attempt at each batch. */
  function ringing(refuse: (attempt: number, ids: string[]) => { Id: string; Code: string; SenderFault: boolean }[]) {
    const sent: string[][] = [];
    const client = {
      send: ({ input }: SendMessageBatchCommand) => {
        const ids = (input.Entries ?? []).map(({ Id }) => Id ?? '');
        sent.push(ids);
        return Promise.resolve({ Failed: refuse(sent.length, ids) });
      },
    } as unknown as SQSClient;
    const clock = new HandClock();
    const doorbell = sqsDoorbell({ client, pipeline: 'shop', load_queue_url: 'l', extract_queue_url: 'e', clock });
    return { sent, clock, doorbell };
  }
  const busy = (Id = '') => ({ Id, Code: 'InternalError', SenderFault: false });

  test('tries again only what was not taken, with the same id', async () => {
    const { sent, doorbell, clock } = ringing((attempt, ids) => (attempt === 1 ? [busy(ids[1])] : []));
    await doorbell.ringLoad(LOAD_BELLS);
    expect(sent).toHaveLength(2);
    expect(sent[1]).toEqual([sent[0]?.[1]]);
    expect(clock.slept).toHaveLength(1);
  });

  test('gives up after some attempts', async () => {
    const { sent, doorbell } = ringing((_, ids) => [busy(ids[0])]);
    await expect(doorbell.ringLoad(LOAD_BELLS)).rejects.toMatchObject({ code: 'AWS_TRANSIENT' });
    expect(sent).toHaveLength(RING_ATTEMPTS_MAX);
  });

  test('does not try again what is our own fault', async () => {
    const { sent, doorbell } = ringing((_, ids) => [
      { Id: ids[0] ?? '', Code: 'InvalidParameterValue', SenderFault: true },
    ]);
    await expect(doorbell.ringExtract(EXTRACT_BELLS)).rejects.toMatchObject({
      code: 'UNEXPECTED',
      message: expect.stringContaining('InvalidParameterValue'),
    });
    expect(sent).toHaveLength(1);
  });

  test('sends nothing for no bells', async () => {
    const { sent, doorbell } = ringing(() => []);
    await doorbell.ringLoad([]);
    expect(sent).toEqual([]);
  });
});
