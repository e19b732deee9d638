/**
 * Copies of a table that is written to all the time, by processes that are killed at random moments: a first sync, a reset, and a backfill of some rows
 * into a target that somebody has spoilt. Each ends equal to the source, and the slot follows the log all the while: a copy never holds it back.
 *
 * SLUICE_COPY_ROWS (default 100,000) is the size of the largest table, SLUICE_COPY_KILLS (default 3) how often the process is killed, over all three;
 * SLUICE_SEED the moments: printed, to be replayed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { expect, test } from 'vitest';
import { parseLsn } from '../../lib/lsn.ts';
import type { PipelineStatus } from '../../lib/operate.ts';
import { columnsOf, tableText } from '../support/compare.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { seeded } from '../support/seeded.ts';
import { type Workplace, workplace } from '../support/sluice.ts';
import { makeTpcb, TPCB_TABLES, writeTpcb } from '../support/tpcb.ts';

const ROWS = Number(process.env.SLUICE_COPY_ROWS ?? 100_000);
const KILLS = Number(process.env.SLUICE_COPY_KILLS ?? 3);
const SCALE = Math.max(1, Math.round(ROWS / 100_000));
const CLIENTS = 4;
const SEED = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
/** A process starts in a second or two; what a copy takes after that is drawn from here. */
const KILL_AFTER_MS = { least: 1_500, most: 3_000 + ROWS / 250 };
/** Longest time that the slot may be behind the log: a window of the run, and the start of the next process. */
const BEHIND_MS_MAX = 60_000;
const SAMPLE_MS = 500;
const RUNS_MAX = 50;
const TIMEOUT_MS = 240_000 + ROWS / 2;

interface Sample {
  readonly at_ms: number;
  readonly wal: bigint;
  readonly confirmed: bigint | null;
}

/** Looks at the slot and at the log until it is stopped. */
class SlotWatch {
  readonly #samples: Sample[] = [];
  readonly #ended: Promise<void>;
  #stopped = false;

  constructor(client: Client) {
    this.#ended = this.#watch(client);
  }

  async #watch(client: Client): Promise<void> {
    while (!this.#stopped) {
      const { rows } = await client.query<{ wal: string; confirmed: string | null }>(
        `SELECT pg_current_wal_flush_lsn()::text AS wal, (SELECT confirmed_flush_lsn::text FROM pg_replication_slots LIMIT 1) AS confirmed`,
      );
      const [row] = rows;
      if (row) {
        const confirmed = row.confirmed === null ? null : parseLsn(row.confirmed);
        this.#samples.push({ at_ms: Date.now(), wal: parseLsn(row.wal), confirmed });
      }
      await sleep(SAMPLE_MS);
    }
  }

  /** For how long, at worst, what the log had was not confirmed. */
  async behind_ms_max(): Promise<number> {
    this.#stopped = true;
    await this.#ended;
    let worst = 0;
    let reached = 0;
    for (const { at_ms, confirmed } of this.#samples) {
      if (confirmed === null) continue;
      // Neither goes back, so the moment when the log had what is confirmed now does not either.
      while ((this.#samples[reached + 1]?.wal ?? confirmed + 1n) <= confirmed) reached++;
      worst = Math.max(worst, at_ms - (this.#samples[reached]?.at_ms ?? at_ms));
    }
    return worst;
  }
}

/** Runs until everything has caught up, killed `kills` times on the way. Returns how many of the kills met a running process. */
async function runKilled(place: Workplace, kills: number, random: () => number): Promise<number> {
  let killed = 0;
  for (let run = 0; run < RUNS_MAX; run++) {
    const running = place.run('--until-caught-up');
    const wait_ms = KILL_AFTER_MS.least + random() * (KILL_AFTER_MS.most - KILL_AFTER_MS.least);
    const timer = killed < kills ? setTimeout(() => running.kill('SIGKILL'), wait_ms) : undefined;
    const { code, signal, err } = await running.ended;
    clearTimeout(timer);
    if (signal === 'SIGKILL') {
      killed++;
      continue;
    }
    expect(code, err).toBe(0);
    return killed;
  }
  throw new Error(`not caught up after ${RUNS_MAX} runs`);
}

async function accounts(place: Workplace): Promise<PipelineStatus['streams'][number]> {
  const { code, out, err } = await place.command('status', '--json').ended;
  expect(code, err).toBe(0);
  const { streams } = JSON.parse(out) as PipelineStatus;
  const found = streams.find(({ table }) => table === 'public.pgbench_accounts');
  if (!found) throw new Error('no stream of the accounts');
  return found;
}

async function expectEqual(source: TestPostgres, target: TestPostgres): Promise<void> {
  const [from, to] = [await source.connect(), await target.connect()];
  try {
    for (const table of TPCB_TABLES) {
      const name = { schema: 'public', table };
      const columns = await columnsOf(from, name);
      const expected = { table, ...(await tableText(from, name, columns)) };
      expect({ table, ...(await tableText(to, name, columns)) }).toEqual(expected);
    }
  } finally {
    await from.end();
    await to.end();
  }
}

test(
  `copies of ${ROWS.toLocaleString('en')} rows under writes: first sync, reset, backfill`,
  async () => {
    console.log(`moments of the kills: SLUICE_SEED=${SEED}`);
    const random = seeded(SEED);
    await using source = await startPostgres({
      settings: { shared_buffers: '256MB', max_wal_size: '4GB' },
      large: true,
    });
    await using target = await startPostgres({
      settings: { shared_buffers: '256MB', max_wal_size: '4GB' },
      large: true,
    });
    await using place = await workplace(source, target);
    await makeTpcb(source, SCALE);
    const [watcher, spoiler] = [await source.connect(), await target.connect()];
    const kills = (part: number): number => Math.floor((KILLS * (part + 1)) / 3) - Math.floor((KILLS * part) / 3);
    let killed = 0;

    const underWrites = async (what: string, kills_max: number): Promise<void> => {
      const began_ms = Date.now();
      const writes = await writeTpcb(source, { scale: SCALE, clients: CLIENTS, seconds: 3_600 });
      const watch = new SlotWatch(watcher);
      try {
        killed += await runKilled(place, kills_max, random);
      } finally {
        writes.stop();
        await writes.done;
      }
      const behind_ms = await watch.behind_ms_max();
      const last = await place.run('--until-caught-up').ended;
      expect(last, last.err).toMatchObject({ code: 0 });
      await expectEqual(source, target);
      console.log(`${what}: ${Math.round((Date.now() - began_ms) / 1000)} s, slot at most ${behind_ms} ms behind`);
      expect(behind_ms).toBeLessThan(BEHIND_MS_MAX);
    };

    try {
      await underWrites('first sync', kills(0));
      const first = await accounts(place);

      expect(await place.command('backfill', 'public.pgbench_accounts', '--reset').ended).toMatchObject({ code: 0 });
      await underWrites('reset', kills(1));
      const anew = await accounts(place);
      expect(anew.epoch_number).toBeGreaterThan(first.epoch_number);

      // What the log will not mend: rows that nobody writes to are wrong, or gone.
      const spoilt = await spoiler.query(
        `UPDATE pgbench_accounts SET filler = 'spoilt' WHERE aid % 1000 = 0; DELETE FROM pgbench_accounts WHERE aid % 1000 = 2`,
      );
      expect(spoilt).toHaveLength(2);
      const asked = await place.command('backfill', 'public.pgbench_accounts', '--where', 'aid % 2 = 0').ended;
      expect(asked, asked.err).toMatchObject({ code: 0 });
      await underWrites('backfill', kills(2));
      expect((await accounts(place)).epoch_number).toBe(anew.epoch_number + 1);
      expect(killed).toBeGreaterThan(KILLS / 2);
    } finally {
      await watcher.end();
      await spoiler.end();
    }
  },
  TIMEOUT_MS,
);
