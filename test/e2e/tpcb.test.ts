/**
 * A source under pgbench's writes, and a process that is killed again and again: in the end every table is equal, row for row, as text.
 *
 * SLUICE_TPCB_SCALE (default 1) is how many hundred thousand accounts there are, SLUICE_TPCB_SECONDS (default 6) is how long the writes last, SLUICE_TPCB_KILLS (default 6) how often the process is killed,
 * SLUICE_SEED the moments: printed, to be replayed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { columnsOf, tableText } from '../support/compare.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { seeded } from '../support/seeded.ts';
import { workplace } from '../support/sluice.ts';
import { makeTpcb, TPCB_TABLES, writeTpcb } from '../support/tpcb.ts';

const SCALE = Number(process.env.SLUICE_TPCB_SCALE ?? 1);
const CLIENTS = 4;
const SECONDS = Number(process.env.SLUICE_TPCB_SECONDS ?? 6);
const KILLS = Number(process.env.SLUICE_TPCB_KILLS ?? 6);
const KILL_AFTER_MS_MAX = 2_500;

let source: TestPostgres;

beforeAll(async () => {
  source = await startPostgres({ settings: { shared_buffers: '128MB', max_wal_size: '4GB' }, large: true });
  await makeTpcb(source, SCALE);
});

afterAll(async () => {
  await source?.stop();
});

async function expectEqual(target: TestPostgres): Promise<void> {
  const [from, to] = [await source.connect(), await target.connect()];
  try {
    for (const table of TPCB_TABLES) {
      const name = { schema: 'public', table };
      const columns = await columnsOf(from, name);
      expect({ table, ...(await tableText(to, name, columns)) }).toEqual({
        table,
        ...(await tableText(from, name, columns)),
      });
    }
  } finally {
    await from.end();
    await to.end();
  }
}

async function dropSlot(): Promise<void> {
  const client = await source.connect();
  try {
    await client.query(`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active`);
  } finally {
    await client.end();
  }
}

describe(`pgbench, ${SCALE} × 100,000 accounts`, () => {
  test('run before, during and after the writes ends equal', async () => {
    await using target = await startPostgres({ large: true });
    await using place = await workplace(source, target);
    const before = await place.run('--until-caught-up').ended;
    expect(before, before.err).toMatchObject({ code: 0 });
    await expectEqual(target);

    const writes = await writeTpcb(source, { scale: SCALE, clients: CLIENTS, seconds: SECONDS });
    await sleep(1_000);
    const during = await place.run('--until-caught-up').ended;
    expect(during, during.err).toMatchObject({ code: 0 });
    await writes.done;

    const after = await place.run('--until-caught-up').ended;
    expect(after, after.err).toMatchObject({ code: 0 });
    await expectEqual(target);
    await dropSlot();
  });

  test('killed at random moments, from the first sync on, and started again: nothing lost, nothing doubled', async () => {
    const seed = Number(process.env.SLUICE_SEED ?? Math.floor(Math.random() * 2 ** 31));
    console.log(`moments of the kills: SLUICE_SEED=${seed}`);
    const random = seeded(seed);
    await using target = await startPostgres({ large: true });
    await using place = await workplace(source, target);
    const writes = await writeTpcb(source, { scale: SCALE, clients: CLIENTS, seconds: 600 });
    let killed = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const run = place.run('--until-caught-up');
      const timer = setTimeout(() => run.kill('SIGKILL'), 400 + random() * KILL_AFTER_MS_MAX);
      const { code, signal, err } = await run.ended;
      clearTimeout(timer);
      if (signal === 'SIGKILL') killed++;
      else expect(code, err).toBe(0);
    }
    writes.stop();
    await writes.done;
    expect(killed).toBeGreaterThan(KILLS / 2);
    const last = await place.run('--until-caught-up').ended;
    expect(last, last.err).toMatchObject({ code: 0 });
    await expectEqual(target);
    await dropSlot();
  });
});
