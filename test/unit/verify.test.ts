/** The decisions of `verify`: what differs between two ordered sides, what a second look says, and what a page shows of it. */
import { describe, expect, test } from 'vitest';
import { summaryLine, verifyPage } from '../../cli/view/verify.ts';
import { type Difference, type DigestRow, differences } from '../../lib/verify/differences.ts';
import { KEYS_SHOWN_MAX, type StreamFindings, Tally } from '../../lib/verify/findings.ts';
import { Passage } from '../../lib/verify/passage.ts';
import { differingBuckets, scan } from '../../lib/verify/scan.ts';
import { type Look, type Seen, verdictOf } from '../../lib/verify/verdict.ts';
import { Durable, memoryLedger, World } from '../support/memory-ports.ts';

async function* rowsOf(...pairs: readonly (readonly [place: string, digest: string])[]): AsyncGenerator<DigestRow> {
  for (const [place, digest] of pairs) yield { place, key: JSON.stringify([place]), digest };
}

describe('differences', () => {
  test('of two ordered sides', async () => {
    const found: Difference[] = [];
    for await (const one of differences(
      rowsOf(['a', '1'], ['b', '1'], ['d', '1']),
      rowsOf(['b', '1'], ['c', '1'], ['d', '2'], ['e', '1']),
    ))
      found.push(one);
    expect(found.map(({ place, source, target }) => [place, source, target])).toEqual([
      ['a', '1', null],
      ['c', null, '1'],
      ['d', '1', '2'],
      ['e', null, '1'],
    ]);
    expect(found[0]?.key).toEqual(['a']);
  });

  test('neither side is left open when nobody asks any more', async () => {
    let closed = 0;
    async function* endless(digest: string): AsyncGenerator<DigestRow> {
      try {
        for (let n = 1; ; n++) yield { place: String(n).padStart(9, '0'), key: null, digest };
      } finally {
        closed += 1;
      }
    }
    for await (const { key } of differences(endless('1'), endless('2'))) {
      expect(key).toBeNull();
      break;
    }
    expect(closed).toBe(2);
  });
});

describe('a second look', () => {
  const seen = (digest: string, version = 'v'): Seen => ({ digest, version });
  const look = (before: Seen | null, target: Seen | null, after: Seen | null): Look => ({ before, target, after });

  test.each([
    ['the same by now', look(seen('1'), seen('1', 't'), seen('1')), 'equal'],
    ['gone on both', look(null, null, null), 'equal'],
    ['another row', look(seen('1'), seen('2', 't'), seen('1')), 'different'],
    ['no row', look(seen('1'), null, seen('1')), 'different'],
    ['changed meanwhile', look(seen('1'), seen('2', 't'), seen('2', 'w')), 'again'],
    ['changed and changed back meanwhile', look(seen('1'), seen('2', 't'), seen('1', 'w')), 'again'],
    ['came meanwhile', look(null, null, seen('1')), 'again'],
    ['extra, at first sight', look(null, seen('1', 't'), null), 'again'],
    ['without versions, at first sight', look(seen('1', ''), seen('2', 't'), seen('1', '')), 'again'],
  ] as const)('%s', (_, now, verdict) => {
    expect(verdictOf(now, null)).toBe(verdict);
  });

  test('what may have come and gone must be seen twice, with the same row on the target', () => {
    const extra = look(null, seen('1', 't'), null);
    expect(verdictOf(extra, extra)).toBe('different');
    expect(verdictOf(look(null, seen('1', 'u'), null), extra)).toBe('again');
    expect(verdictOf(extra, look(seen('1'), seen('1', 't'), null))).toBe('again');
    const copies = look(seen('3', ''), seen('2', ''), seen('3', ''));
    expect(verdictOf(copies, copies)).toBe('different');
    expect(verdictOf(copies, look(seen('2', ''), seen('2', ''), seen('3', '')))).toBe('again');
  });
});

test('buckets differ by their rows, by their sums, and by being there', () => {
  const bucket = (n: number, rows: string, sum: string) => [n, { bucket: n, rows, sum }] as const;
  const here = new Map([bucket(0, '1', '5'), bucket(1, '1', '5'), bucket(2, '1', '5'), bucket(4, '1', '5')]);
  const there = new Map([bucket(0, '1', '5'), bucket(1, '2', '5'), bucket(2, '1', '-5'), bucket(3, '1', '5')]);
  expect(differingBuckets(here, there).toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4]);
});

test('of many keys, few are kept', () => {
  const tally = new Tally();
  for (let n = 0; n < 1_000; n++) tally.add([String(n)]);
  expect(tally.found).toMatchObject({ rows: 1_000 });
  expect(tally.found.keys).toHaveLength(KEYS_SHOWN_MAX);
});

describe('the page', () => {
  const none = { rows: 0, keys: [] };
  const found: StreamFindings = {
    stream: 's',
    table: 'public.a',
    target: 'public.a',
    outcome: 'different',
    remarks: [],
    error: null,
    rows: 60_000,
    key: ['a', 'b'],
    differing: { rows: 22, keys: [['1', 'x\u001b[31m']] },
    missing: none,
    extra: none,
    undecided: none,
    kept: 0,
    repaired: 0,
    not_compared: [{ column: 'mail', why: 'hashed' }],
  };

  test('names the keys, and nothing that a terminal would obey', () => {
    const page = verifyPage(
      [found, { ...found, table: 'public.bb', outcome: 'equal', differing: none }],
      100,
      (_, text) => text,
    );
    expect(page).toEqual([
      'different  public.a   60,000 rows, 22 differing',
      '  Not compared: mail (only their hash is on the target).',
      '  differing: a, b',
      String.raw`    ["1","x\u001b[31m"]`,
      '    and 21 more',
      'equal      public.bb  60,000 rows',
      '  Not compared: mail (only their hash is on the target).',
      '',
      '2 tables, 120,000 rows compared: 1 different, 1 equal',
    ]);
    expect(summaryLine([{ ...found, rows: 1 }])).toBe('1 table, 1 row compared: 1 different');
  });
});

test('a chain that does not move is not waited for without end', async () => {
  let now_ms = 0;
  const durable = new Durable();
  const ledger = memoryLedger(new World(), durable);
  let windows = 0;
  const passage = new Passage({
    clock: {
      now: () => now_ms,
      sleep: async (ms) => {
        now_ms += ms;
      },
    },
    ledger,
    advance: async () => {
      windows += 1;
    },
    idle_ms_max: 10_000,
  });
  expect(await passage.passed('s', 1n as never)).toBe('gone');
  durable.bookmarks.set('s', { stream: 's', state: 'live', halt: null, applied_cut: 0 } as never);
  expect(await passage.passed('s', 1n as never)).toBe('late');
  expect(now_ms).toBeLessThan(15_000);
  expect(windows).toBeGreaterThan(10);
  durable.bookmarks.set('s', { stream: 's', state: 'live', halt: { code: 'X' } } as never);
  expect(await passage.passed('s', 1n as never)).toBe('halted');
});

test('a table that is paused (tables[].schedule) is not waited for where the windows are somebody else’s', async () => {
  const durable = new Durable();
  const schedule = { served_ms: 0, next_ms: null, paused: true, cut: 0 };
  const set = (more: object) =>
    durable.bookmarks.set('s', { stream: 's', state: 'live', halt: null, applied_cut: 0, schedule, ...more } as never);
  durable.chain.push({ number: 0, end_lsn: 5n, streams: {} } as never);
  durable.chain.push({ number: 1, end_lsn: 10n, streams: { s: {} } } as never);
  let now_ms = 0;
  const passage = new Passage({
    clock: {
      now: () => now_ms,
      sleep: async (ms) => {
        now_ms += ms;
      },
    },
    ledger: memoryLedger(new World(), durable),
    advance: null,
    idle_ms_max: 600_000,
  });
  set({});
  expect(await passage.passed('s', 9n as never)).toBe('paused');
  set({ state: 'captured' });
  expect(await passage.passed('s', 9n as never)).toBe('paused');
  expect(now_ms).toBe(0);
  // What is applied all the same is compared.
  set({ applied_cut: 1 });
  expect(await passage.passed('s', 9n as never)).toBeNull();
  set({ schedule: { ...schedule, paused: false } });
  expect(await passage.passed('s', 9n as never)).toBe('late');
});

test('a stream that does not move is not waited for without end, though the chain moves on', async () => {
  let now_ms = 0;
  const durable = new Durable();
  durable.bookmarks.set('s', { stream: 's', state: 'syncing', halt: null, applied_cut: 0 } as never);
  durable.chain.push({ number: 0, end_lsn: 10n, streams: {} } as never);
  let windows = 0;
  const passage = new Passage({
    clock: {
      now: () => now_ms,
      sleep: async (ms) => {
        now_ms += ms;
      },
    },
    ledger: memoryLedger(new World(), durable),
    advance: async () => {
      windows += 1;
      durable.chain.push({ number: windows, end_lsn: 10n + BigInt(windows), streams: {} } as never);
      if (windows > 1_000) throw new Error('without end');
    },
    idle_ms_max: 10_000,
  });
  expect(await passage.passed('s', 1n as never)).toBe('late');
});

test('where one side cannot be read, the other is no longer asked when that is told', async () => {
  const answer = Promise.withResolvers<ReadonlyMap<number, never>>();
  let told = false;
  const ports = {
    source: { buckets: () => Promise.reject(new Error('no right to read it')) },
    target: { buckets: () => answer.promise },
    range_rows: 10,
  };
  const side = {
    from: 'a',
    values: ['n'],
    key: [],
    key_columns: [],
    conditions: [],
    nameOf: (name: string) => name,
    utf8: true,
    version: '',
  };
  const compared = { source: side, target: side, key: [], ranges: false, not_compared: [] };
  const onFull = () => Promise.resolve();
  const scanned = scan(ports as never, compared, 1, {
    onRows: () => undefined,
    onDifference: () => true,
    onFull,
  }).finally(() => {
    told = true;
  });
  scanned.catch(() => undefined); // Looked at below.
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(told).toBe(false);
  answer.resolve(new Map<number, never>());
  await expect(scanned).rejects.toThrow('no right to read it');
});
