/**
 * From commit to sight: a transaction a millisecond on the source, and a reader of the target who notes when it sees which.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Figure } from './figures.ts';
import { onServers } from './measures.ts';
import { Subscription } from './peers.ts';
import { sluice } from './sluice.ts';

const TRANSACTIONS_PER_SECOND = 1_000;
const LOOK_MS = 20;
const WARM_UP_SECONDS = 10;

/** Transactions one after another on one connection, each a row; when each was committed, by id. */
class Writer {
  readonly committed_ms: number[] = [];
  #ends = false;
  #writing: Promise<void> | null = null;

  start(client: Client): void {
    this.#writing = this.#write(client);
  }

  async #write(client: Client): Promise<void> {
    const began_ms = performance.now();
    while (!this.#ends) {
      const due = ((performance.now() - began_ms) * TRANSACTIONS_PER_SECOND) / 1000;
      while (this.committed_ms.length < due && !this.#ends) {
        await client.query(`INSERT INTO ticks VALUES (${this.committed_ms.length}, now())`);
        this.committed_ms.push(performance.now());
      }
      await sleep(1);
    }
  }

  async stop(): Promise<void> {
    this.#ends = true;
    await this.#writing;
  }
}

/** Of the rows that come into sight in `seconds`, after a warm-up. */
async function latencies(from: Client, to: Client, seconds: number): Promise<number[]> {
  const writer = new Writer();
  writer.start(from);
  const began_ms = performance.now();
  const found: number[] = [];
  let seen = -1;
  for (;;) {
    const elapsed_s = (performance.now() - began_ms) / 1000;
    if (elapsed_s >= WARM_UP_SECONDS + seconds) break;
    const { rows } = await to.query<{ id: number | null }>('SELECT max(id) AS id FROM ticks');
    const now_ms = performance.now();
    const newest = rows[0]?.id ?? -1;
    if (elapsed_s >= WARM_UP_SECONDS) {
      for (const at_ms of writer.committed_ms.slice(seen + 1, newest + 1)) found.push(now_ms - at_ms);
    }
    seen = Math.max(seen, newest);
    await sleep(LOOK_MS);
  }
  await writer.stop();
  return found.toSorted((a, b) => a - b);
}

const at = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;

export async function latency(scale: number): Promise<Figure[]> {
  const seconds = Math.max(5, 60 * scale);
  const figures = (who: string, found: readonly number[]): Figure[] => [
    { work: 'latency', who: `${who}, p50`, value: at(found, 0.5), unit: 'ms' },
    { work: 'latency', who: `${who}, p95`, value: at(found, 0.95), unit: 'ms' },
  ];
  return await onServers(async (servers) => {
    const { source, target, from } = servers;
    await from.query('CREATE TABLE ticks (id int PRIMARY KEY, at timestamptz)');
    const subscription = await Subscription.to(source, target, ['public.ticks']);
    await subscription.copy();
    const native = await latencies(from, subscription.target, seconds);
    await subscription[Symbol.asyncDispose]();
    await from.query('TRUNCATE ticks');
    const schedule = '{ continuous: true }';
    // Who wants seconds says so: by default a table is loaded each minute.
    const target_lines = '  batch_flush_interval: 1\n  batch_flush_min_time_gap: 1';
    const pipeline = { name: 'bench', tables: '[public.ticks]', schedule, target: target_lines };
    await using measured = await sluice(servers, pipeline);
    await measured.firstSync();
    const to = await target.connect();
    const ending = new AbortController();
    const windows = (async () => {
      while (!ending.signal.aborted) await measured.own.window({ break_at_end_lsn: false, ring_all: false });
    })();
    const ours = await latencies(from, to, seconds);
    ending.abort();
    await windows;
    await to.end();
    return [...figures('native subscription', native), ...figures('Sluice, continuous', ours)];
  });
}
