import { describe, expect, test } from 'vitest';
import { streamLag } from '../../lib/ledger/lag.ts';
import { lsnOf } from '../../lib/lsn.ts';
import type { Cut } from '../../lib/ports.ts';
import { aCut } from '../support/ledger-nouns.ts';

/** Cut `number` covers WAL from 100 × number on, was committed at second `number`, and has changes of `streams`. */
function cut(number: number, ...streams: string[]): Cut {
  return aCut({
    number,
    begin_lsn: lsnOf(BigInt(number) * 100n),
    end_lsn: lsnOf(BigInt(number) * 100n + 100n),
    committed_at_ms: number * 1000,
    recorded_at_ms: number * 1000 + 500,
    streams: Object.fromEntries(streams.map((stream) => [stream, { changes: 1, text_bytes: 1 }])),
  });
}

const chain = [cut(1, 'a'), cut(2, 'b'), cut(3, 'a', 'b'), cut(4), cut(5, 'a')];
const head = cut(5, 'a');
const lag = (stream: string, applied_cut: number, cuts = chain, complete = true) =>
  streamLag({ stream, applied_cut }, { cuts, complete }, head, 10_000);

describe('the lag of a stream', () => {
  test('begins at its oldest cut that is not applied', () => {
    expect(lag('a', 1)).toEqual({ cuts: 2, bytes: 300, seconds: 7 });
    expect(lag('b', 0)).toEqual({ cuts: 2, bytes: 400, seconds: 8 });
  });

  test('is nothing when later cuts hold nothing of it', () => {
    expect(lag('b', 3)).toEqual({ cuts: 0, bytes: 0, seconds: 0 });
    expect(lag('a', 5)).toEqual({ cuts: 0, bytes: 0, seconds: 0 });
    expect(lag('__proto__', 0)).toEqual({ cuts: 0, bytes: 0, seconds: 0 });
  });

  test('is not known when the part of the chain that was read does not reach it', () => {
    expect(lag('b', 3, chain.slice(0, 4), false)).toBeNull();
    expect(lag('a', 2, chain.slice(0, 4), false)).toMatchObject({ cuts: 1, bytes: 300 });
  });

  test('counts from when it was recorded where the commit time is not known, and never from the future', () => {
    const unknown = { ...cut(2, 'a'), committed_at_ms: null };
    expect(streamLag({ stream: 'a', applied_cut: 1 }, { cuts: [unknown], complete: true }, head, 10_000)?.seconds).toBe(
      7.5,
    );
    expect(streamLag({ stream: 'a', applied_cut: 1 }, { cuts: [unknown], complete: true }, head, 0)?.seconds).toBe(0);
  });
});
