/** The reading half of a window, over a reader that does what a test says: what is to be done next, and how the server is asked. */

import { describe, expect, test } from 'vitest';
import { PgoutputDecoder } from '../../lib/decode/pgoutput.ts';
import { type Lsn, lsnOf } from '../../lib/lsn.ts';
import type { SlotReader, SlotSink } from '../../lib/ports.ts';
import { Reading, type ReadingOptions, type Step } from '../../lib/window/reading.ts';
import { HandClock } from '../support/ledger-nouns.ts';
import * as pg from '../support/pgoutput.ts';

const lsn = (position: number): Lsn => lsnOf(BigInt(position));
const AGE_MS = 10_000;

/** `script`: what each read gives: messages, a keepalive, or nothing for the time of a wait. */
function reading(options: Partial<ReadingOptions> = {}) {
  const clock = new HandClock();
  const script: (readonly Buffer[] | { readonly keepalive: number })[] = [];
  let asks = 0;
  const state = { isBusy: false };
  const reader: SlotReader = {
    get isBusy() {
      return state.isBusy;
    },
    read: (sink: SlotSink, wait_ms) => {
      const next = script.shift();
      if (next === undefined) {
        clock.now_ms += wait_ms;
        return Promise.resolve('nothing');
      }
      if ('keepalive' in next) sink.keepalive(lsn(next.keepalive));
      else {
        const stopped = next.findIndex((message) => !sink.change(message, 0, message.length));
        if (stopped >= 0 && stopped + 1 < next.length) script.unshift(next.slice(stopped + 1));
      }
      return Promise.resolve('data');
    },
    askKeepalive: () => {
      asks++;
    },
    confirm: () => {},
    close: () => Promise.resolve(),
  };
  const read = new Reading({
    reader,
    decoder: (cut) => new PgoutputDecoder(cut),
    clock,
    streams: [{ stream: 'a', schema: 'public', table: 'a', key: ['id'] }],
    hard_delete: true,
    from: lsn(1_000),
    started_at_ms: clock.now(),
    end_lsn: null,
    no_data_ms: 3_600_000,
    max_run_ms: 86_400_000,
    deadline_ms: Number.POSITIVE_INFINITY,
    cut_age_ms_max: AGE_MS,
    asked: () => false,
    flushLsn: () => Promise.resolve(lsn(0)),
    ...options,
  });
  const steps = async (count: number): Promise<Step[]> => {
    const taken: Step[] = [];
    for (let i = 0; i < count; i++) taken.push(await read.next());
    return taken;
  };
  return { read, clock, script, steps, state, asks: () => asks };
}

const relation = pg.relation({ id: 1, table: 'a', columns: [{ name: 'id', key: true }] });
const transaction = (id: number, end: number): Buffer[] => [
  pg.begin(),
  relation,
  pg.insert(1, [String(id)]),
  pg.commit(BigInt(end)),
];

describe('a cut', () => {
  test('is not old at its first commit, however long nothing came before it', async () => {
    const { clock, script, steps, read } = reading();
    await steps(10);
    clock.now_ms += 3_600_000;
    script.push(transaction(1, 1_100));
    expect(await steps(1)).toEqual(['more']);
    expect(read.cut.changes).toBe(1);
    clock.now_ms += AGE_MS;
    script.push(transaction(2, 1_200));
    expect(await steps(1)).toEqual(['cut']);
    expect(read.cut.changes).toBe(2);
  });

  test('ends soon where nothing more comes', async () => {
    const { script, steps } = reading();
    script.push(transaction(1, 1_100));
    expect(await steps(3)).toEqual(['more', 'quiet', 'cut']);
  });

  test('does not end within a transaction', async () => {
    const { clock, script, steps } = reading();
    script.push(transaction(1, 1_100).slice(0, 3));
    expect(await steps(1)).toEqual(['more']);
    clock.now_ms += AGE_MS;
    expect(await steps(2)).toEqual(['quiet', 'quiet']);
    script.push([pg.commit(1_100n)]);
    expect(await steps(1)).toEqual(['cut']);
  });

  test('reading stops at the commit where it is due', async () => {
    const { clock, script, steps, read } = reading();
    script.push(transaction(1, 1_100));
    await steps(1);
    clock.now_ms += AGE_MS;
    script.push([...transaction(2, 1_200), ...transaction(3, 1_300)]);
    expect(await steps(1)).toEqual(['cut']);
    expect([read.cut.end_lsn, read.cut.changes]).toEqual([1_200n, 2]);
    read.cut.takePart();
    read.restart();
    expect(await steps(1)).toEqual(['more']);
    expect([read.cut.end_lsn, read.cut.changes]).toEqual([1_300n, 1]);
  });

  test('where nothing is for us, the position is recorded when it has moved far enough, and not too often', async () => {
    const { clock, script, steps, read } = reading();
    script.push({ keepalive: 1_000 + 16 * 1024 * 1024 });
    expect(await steps(2)).toEqual(['more', 'quiet']);
    clock.now_ms += 10_000;
    expect(await steps(1)).toEqual(['empty']);
    read.restart();
    clock.now_ms += 10_000;
    expect(await steps(1)).toEqual(['quiet']);
    script.push({ keepalive: 1_000 + 32 * 1024 * 1024 - 1 });
    expect(await steps(2)).toEqual(['more', 'quiet']);
  });
});

describe('the server', () => {
  test('is asked once until it answers: who was busy would answer all at once, and seem to stand still', async () => {
    const { script, steps, asks, read } = reading({ end_lsn: lsn(2_000) });
    await steps(20);
    expect(asks()).toBe(1);
    script.push({ keepalive: 1_500 });
    await steps(3);
    expect(asks()).toBe(2);
    expect(read.stopReason()).toBeNull();
  });

  test('that has answered thrice from the same place, a little before the end, has no more', async () => {
    const { script, steps, read } = reading({ end_lsn: lsn(2_000) });
    const reasons: unknown[] = [];
    for (let i = 0; i < 4; i++) {
      script.push({ keepalive: 1_990 });
      await steps(2);
      reasons.push(read.stopReason());
    }
    expect(reasons).toEqual([null, null, null, 'end_lsn']);
  });

  test('that moves on between its answers has more', async () => {
    const { script, steps, read } = reading({ end_lsn: lsn(2_000) });
    for (const keepalive of [1_500, 1_500, 1_500, 1_600, 1_600, 1_600]) {
      script.push({ keepalive });
      await steps(2);
      expect(read.stopReason()).toBeNull();
    }
  });

  test('is looked at where its log stands only when there was no data for as long as that takes', async () => {
    let looks = 0;
    const flushLsn = () => {
      looks++;
      return Promise.resolve(lsn(1_000));
    };
    const { steps, read } = reading({ no_data_ms: 1_000, flushLsn });
    await steps(4);
    expect([looks, read.stopReason()]).toEqual([0, null]);
    await steps(5);
    expect([looks, read.stopReason()]).toEqual([1, 'no_data']);
  });
});

describe('the end of a window', () => {
  test('is not told by a server that reads again what lies before the position', async () => {
    const { read, script, steps } = reading({ end_lsn: lsn(1_500) });
    // As long as a transaction is open, a walsender begins where that began, and says how far it has come.
    for (const position of [500, 600, 700, 800, 900]) script.push({ keepalive: position });
    await steps(5);
    expect(read.stopReason()).toBeNull();
    for (const position of [990, 990, 990]) script.push({ keepalive: position });
    await steps(3);
    expect(read.stopReason()).toBe('end_lsn');
  });

  test('waits for what a reader would have to begin anew, if the window has come no further yet', async () => {
    const { read, script, steps, state } = reading({ max_run_ms: 100 });
    state.isBusy = true;
    await steps(3);
    expect(read.stopReason()).toBeNull();
    script.push({ keepalive: 1_200 });
    await steps(1);
    expect(read.stopReason()).toBe('max_run');
  });
});
