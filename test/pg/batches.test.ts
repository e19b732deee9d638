/**
 * The batch options, by what is loaded when: one long window reads the slot, loaders answer its bells as they come, and the sequence of the loads is held
 * against what the pipeline file says.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { drain, load } from '../../lib/pipeline.ts';
import { type FreshLine, freshLine } from '../support/fresh-line.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';

let source: TestPostgres;
let target: TestPostgres;

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
}, 60_000);

afterAll(async () => {
  await source?.stop();
  await target?.stop();
});

const WINDOW_MS = 60_000;
const WAIT_MS_MAX = 30_000;
const POLL_MS = 20;

interface Loaded {
  readonly table: string;
  readonly changes: number;
  readonly cuts: number;
  readonly at_ms: number;
  /** After the window was asked to end. */
  readonly at_end: boolean;
}

interface During {
  readonly loaded: readonly Loaded[];
  /** Inserts rows, and resolves when they have been recorded, in a cut of their own. */
  readonly write: (table: string, rows: number) => Promise<void>;
  /** Resolves when there are so many loads. */
  readonly loads: (count: number) => Promise<void>;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const began_ms = Date.now();
  while (!isSo()) {
    if (Date.now() - began_ms > WAIT_MS_MAX) throw new Error(`waited for ${what}`);
    await sleep(POLL_MS);
  }
}

/** Loads of one window, in their order. Those that find nothing are left out. */
async function during(more: string, act: (window: During) => Promise<void>): Promise<Loaded[]> {
  await using fresh: FreshLine = await freshLine(
    { source, target },
    'CREATE TABLE t (id serial PRIMARY KEY); CREATE TABLE u (id serial PRIMARY KEY)',
    { target: more },
  );
  await fresh.settle();
  const { line, from } = fresh;
  const { loadBells, chain } = line.durable;
  let isEnding = false;
  let hasEnded = false;
  const loaded: Loaded[] = [];
  const deadline_ms = Date.now() + WINDOW_MS;
  const window = drain(line.ports(), line.pipeline, {
    run: 'long',
    owner: 'long',
    lease_ms: WINDOW_MS,
    deadline_ms,
    break_at_end_lsn: false,
    asked: () => isEnding,
  }).finally(() => {
    hasEnded = true;
  });
  const loading = (async () => {
    for (;;) {
      const bell = loadBells.shift();
      if (bell) {
        const at_end = isEnding;
        const { changes, cuts } = await load(line.ports(), bell, { deadline_ms });
        const { table } =
          [...line.durable.bookmarks.values()].find(({ stream }) => stream === bell.stream)?.table ?? {};
        if (cuts > 0 && changes > 0 && table) loaded.push({ table, changes, cuts, at_ms: Date.now(), at_end });
      } else if (hasEnded) return;
      else await sleep(POLL_MS);
    }
  })();
  const write = async (table: string, rows: number): Promise<void> => {
    const length = chain.length;
    await from.query(`INSERT INTO ${table} SELECT FROM generate_series(1, ${rows})`);
    await until('the cut', () => chain.slice(length).some(({ object }) => object !== null));
  };
  try {
    await act({ loaded, write, loads: (count) => until(`${count} loads`, () => loaded.length >= count) });
    // What would be due by now is loaded by now.
    await sleep(300);
  } finally {
    isEnding = true;
    await Promise.all([window, loading]);
  }
  expect((await window).error).toBe(null);
  await fresh.equal();
  return loaded;
}

const told = (loaded: readonly Loaded[]): unknown =>
  loaded.map(({ table, changes, cuts, at_end }) => ({ table, changes, cuts, at_end }));

test('batch_size_rows: so many rows are loaded at once, however many cuts they came in; the window loads the rest', async () => {
  const writes = async ({ write }: During): Promise<void> => {
    for (const rows of [4, 5, 1, 3]) await write('t', rows);
  };
  expect(told(await during('batch_size_rows: 10', writes))).toEqual([
    { table: 't', changes: 10, cuts: 3, at_end: false },
    { table: 't', changes: 3, cuts: 1, at_end: true },
  ]);
  expect(told(await during('batch_size_rows: 3', writes))).toEqual([
    { table: 't', changes: 4, cuts: 1, at_end: false },
    { table: 't', changes: 5, cuts: 1, at_end: false },
    { table: 't', changes: 4, cuts: 2, at_end: false },
  ]);
});

test('batch_flush_interval: a batch that is not full is loaded when it is so old', async () => {
  let written_ms = 0;
  const loaded = await during('batch_flush_interval: 2, batch_flush_min_time_gap: 0', async ({ write, loads }) => {
    await write('t', 1);
    written_ms = Date.now();
    await loads(1);
  });
  expect(told(loaded)).toEqual([{ table: 't', changes: 1, cuts: 1, at_end: false }]);
  // From when the cut was recorded, a moment before.
  expect((loaded[0]?.at_ms ?? 0) - written_ms).toBeGreaterThan(1_500);
});

test('batch_flush_min_time_gap: time alone does not load a stream sooner again', async () => {
  const loaded = await during('batch_flush_interval: 1, batch_flush_min_time_gap: 4', async ({ write, loads }) => {
    await write('t', 1);
    await loads(1);
    await write('t', 2);
    // Another stream has a gap of its own.
    await write('u', 3);
    await loads(3);
  });
  expect(loaded.map(({ table, changes, at_end }) => [table, changes, at_end])).toEqual([
    ['t', 1, false],
    ['u', 3, false],
    ['t', 2, false],
  ]);
  expect((loaded[2]?.at_ms ?? 0) - (loaded[0]?.at_ms ?? 0)).toBeGreaterThan(3_500);
});

test.each([true, false])('flush_all_streams: %s', async (flush_all_streams) => {
  const options = `batch_size_rows: 5, flush_all_streams: ${flush_all_streams}`;
  const loaded = await during(options, async ({ write }) => {
    await write('u', 2);
    await write('t', 5);
  });
  const sequence = loaded.map(({ table, changes, at_end }) => ({ table, changes, at_end }));
  expect(sequence.toSorted((a, b) => (a.table < b.table ? -1 : 1))).toEqual([
    { table: 't', changes: 5, at_end: false },
    { table: 'u', changes: 2, at_end: !flush_all_streams },
  ]);
});
