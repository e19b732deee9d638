/**
 * The demo's instruments: what has been written, cut, rung, and seen in the target, and how fast.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { GetQueueAttributesCommand } from '@aws-sdk/client-sqs';
import type { Engine } from '../../infra/local/engine.ts';
import { streamId } from '../../lib/config/stream-id.ts';
import { parseLsn } from '../../lib/lsn.ts';
import type { Cut } from '../../lib/ports.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import type { Connect } from '../../lib/postgres/session.ts';
import { Meter } from '../run/meter.ts';
import type { Progress } from '../run/progress.ts';
import { changesOf, type Sight } from '../run/watch.ts';
import { LagMeter } from './lag.ts';
import type { Stages } from './view.ts';
import type { Committed } from './writers.ts';

/** A lag is measured to within this. */
const ARRIVAL_POLL_MS = 100;
/** The queue is asked at every so many of those. */
const POLLS_PER_QUEUE_LOOK = 5;
/** Orders are measured: the busiest of the shop's tables. */
const MEASURED = streamId({ schema: 'shop', table: 'orders' });

export class Gauges {
  readonly #lag = new LagMeter();
  readonly #writing = new Meter();
  readonly #cutting = new Meter();
  #changes = 0;
  #transactions = 0;
  #windows = 0;
  #bells = 0;
  #cut: Stages['cut'] = null;
  /** Every table is copied, and shows nothing older than its copy: before, a row waits for that and not for the log. */
  #copied = false;

  committed({ changes, order }: Committed): void {
    this.#changes += changes;
    this.#transactions += 1;
    if (order && this.#copied) this.#lag.committed(order.lsn, order.at_ms);
  }

  window(): void {
    this.#windows += 1;
  }

  cuts(cuts: readonly Cut[]): void {
    const last = cuts.findLast(({ object }) => object !== null);
    if (!last) return;
    this.#cut = { number: last.number, changes: changesOf(last) };
  }

  /** True once: when every table has been copied. */
  sight({ at_ms, progress }: Sight): boolean {
    this.#writing.add(at_ms, this.#changes);
    this.#cutting.add(at_ms, progress.log.cuts);
    const { live, halted, total } = progress.streams;
    const isNew = !this.#copied && total > 0 && live + halted === total;
    this.#copied ||= isNew;
    return isNew;
  }

  get isCopied(): boolean {
    return this.#copied;
  }

  stages(progress: Progress): Stages {
    return {
      progress,
      written: {
        changes: this.#changes,
        transactions: this.#transactions,
        changes_per_second: this.#writing.per_second,
      },
      windows: this.#windows,
      cut: this.#cut,
      cuts_per_second: this.#cutting.per_second,
      bells: this.#bells,
      lag: { p50: this.#lag.quantile(0.5), p95: this.#lag.quantile(0.95) },
    };
  }

  /** Looks at what is applied, on the target itself, and at the queue, until it is stopped. */
  startArrivals({ backend }: Engine, connect: Connect): { stop(): Promise<void> } {
    const stopping = new AbortController();
    const { signal } = stopping;
    const run = async (): Promise<void> => {
      const client = await connect();
      try {
        for (let polls = 0; !signal.aborted; polls++) {
          // Before the first load there is no such table.
          const { rows: tables } = await client.query<{ there: boolean }>(
            "SELECT to_regclass('_sluice.streams') IS NOT NULL AS there",
          );
          if (tables[0]?.there) {
            const { rows } = await client.query<{ lsn: string }>(
              'SELECT applied_lsn::text AS lsn FROM _sluice.streams WHERE stream = $1',
              [MEASURED],
            );
            if (rows[0]) this.#lag.seen(parseLsn(rows[0].lsn), Date.now());
          }
          if (polls % POLLS_PER_QUEUE_LOOK === 0) this.#bells = await bellsOf(backend);
          await sleep(ARRIVAL_POLL_MS, undefined, { signal }).catch(() => undefined); // Cut short by the stop.
        }
      } finally {
        await closeClient(client);
      }
    };
    const running = run();
    running.catch(() => undefined); // `stop` tells.
    return {
      stop: async () => {
        stopping.abort();
        await running;
      },
    };
  }
}

/** Loads that are waiting or at work. */
async function bellsOf({ clients, resources }: Engine['backend']): Promise<number> {
  const { Attributes: counts = {} } = await clients.sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl: resources.load.url,
      AttributeNames: ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'],
    }),
  );
  return Number(counts.ApproximateNumberOfMessages) + Number(counts.ApproximateNumberOfMessagesNotVisible);
}
