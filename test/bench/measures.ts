/**
 * What is measured of each workload, one run of it. Everything that is compared is measured on the same servers, one after the other.
 */
import type { Client } from 'pg';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import type { Figure } from './figures.ts';
import { advanceAlone, copyAcross, peekOnce, pgcopydb, recvlogical, Subscription } from './peers.ts';
import { type Measured, sluice } from './sluice.ts';
import {
  HOT_KEYS,
  manyTables,
  ONE_TRANSACTION,
  OTHERS,
  ROWS_AND_CHANGES,
  WIDE_ROWS,
  type Workload,
} from './workloads.ts';

export interface Servers {
  readonly source: TestPostgres;
  readonly target: TestPostgres;
  readonly from: Client;
}

/** Invocations of load at once: on one machine as many as it has cores. */
const LOADERS = 2;

const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '8GB',
  checkpoint_timeout: '1h',
  max_worker_processes: '16',
  autovacuum: 'off',
};

/** Two servers for one workload. */
export async function onServers<T>(work: (servers: Servers) => Promise<T>): Promise<T> {
  await using source = await startPostgres({ settings: SETTINGS, large: true });
  await using target = await startPostgres({ settings: SETTINGS, large: true });
  const from = await source.connect();
  try {
    return await work({ source, target, from });
  } finally {
    await from.end();
  }
}

async function slot({ from }: Servers, name: string): Promise<void> {
  await from.query(`SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
}

async function flushed({ target, from }: Servers): Promise<void> {
  const to = await target.connect();
  await Promise.all([from.query('CHECKPOINT'), to.query('CHECKPOINT')]);
  await to.end();
}

/** A pipeline that has captured its tables, and whose loaders sleep: what it drains is what a function alone does. */
async function drainer(servers: Servers, { tables }: Workload, name: string, source = ''): Promise<Measured> {
  const measured = await sluice(servers, { name, tables, source }, { answered: [] });
  await measured.drain();
  return measured;
}

/** W1 and W2. */
export async function rowsAndChanges(scale: number): Promise<Figure[]> {
  return await onServers(async (servers) => {
    const { source, target, from } = servers;
    const work = ROWS_AND_CHANGES;
    const rows = await work.fill(from, scale);
    const figures: Figure[] = [];
    const copied = (who: string, seconds: number | null): void => {
      figures.push({ work: 'W1', who, value: seconds === null ? null : rows / seconds, unit: 'rows/s' });
    };
    copied('COPY TO → COPY FROM', await copyAcross(source, target, 'public.w'));
    copied('pgcopydb clone', await pgcopydb(source, target));
    const subscription = await Subscription.to(source, target, ['public.w']);
    copied('native subscription', await subscription.copy());
    await subscription.disable();
    await flushed(servers);
    const measured = await sluice(servers, { name: 'bench', tables: work.tables }, { loaders: LOADERS });
    copied('Sluice', await measured.firstSync());
    figures.push(...peaks('W1', measured));

    await using stream = await drainer(servers, work, 'stream', '  slot_reader: stream');
    await using peek = await drainer(servers, work, 'peek', '  slot_reader: peek');
    await slot(servers, 'peer');
    const changes = await work.change(from, scale);
    await flushed(servers);
    const done = (who: string, seconds: number | null): void => {
      figures.push({ work: 'W2', who, value: seconds === null ? null : changes / seconds, unit: 'changes/s' });
    };
    done('one call of peek, thrown away', await peekOnce(source, 'peer', 'native'));
    done('pg_recvlogical to /dev/null', await recvlogical(source, 'peer', 'native'));
    done('Sluice, slot → stage, by stream', await stream.drain());
    done('Sluice, slot → stage, by peek', await peek.drain());
    await flushed(servers);
    done('native subscription, applied', await subscription.apply());
    await subscription[Symbol.asyncDispose]();
    await flushed(servers);
    await measured.own.renew();
    done('Sluice, slot → target', await measured.visible());
    figures.push(...peaks('W2', measured));
    await measured[Symbol.asyncDispose]();
    return figures;
  });
}

/** Applied by Sluice and by a subscription, from the same backlog on. */
async function applied(id: string, work: Workload, scale: number, tables?: readonly string[]): Promise<Figure[]> {
  return await onServers(async (servers) => {
    const { source, target, from } = servers;
    await work.fill(from, scale);
    const subscription = tables ? await Subscription.to(source, target, tables) : null;
    await subscription?.copy();
    await subscription?.disable();
    await using measured = await sluice(servers, { name: 'bench', tables: work.tables }, { loaders: LOADERS });
    await measured.firstSync();
    const changes = await work.change(from, scale);
    await flushed(servers);
    const figures: Figure[] = [];
    const done = (who: string, seconds: number): void => {
      figures.push({ work: id, who, value: changes / seconds, unit: 'changes/s' });
    };
    if (subscription) done('native subscription, applied', await subscription.apply());
    await subscription?.[Symbol.asyncDispose]();
    await flushed(servers);
    await measured.own.renew();
    done('Sluice, slot → target', await measured.visible());
    return [...figures, ...peaks(id, measured)];
  });
}

export const hotKeys = (scale: number): Promise<Figure[]> => applied('W3', HOT_KEYS, scale, ['public.hot']);
export const wideRows = (scale: number): Promise<Figure[]> => applied('W4', WIDE_ROWS, scale, ['public.wide']);
export const oneTransaction = (scale: number): Promise<Figure[]> =>
  applied('W6', ONE_TRANSACTION, scale, ['public.once']);

export async function tables(scale: number, count: number): Promise<Figure[]> {
  const names = Array.from({ length: count }, (_, i) => `many.t${i}`);
  return await applied(count === 200 ? 'W5' : `W5, ${count} tables`, manyTables(count), scale, names);
}

/** W7: how long it takes to see that nothing is for us. */
export async function othersOnly(scale: number): Promise<Figure[]> {
  return await onServers(async (servers) => {
    const { source, from } = servers;
    await OTHERS.fill(from, scale);
    await using stream = await drainer(servers, OTHERS, 'stream', '  slot_reader: stream');
    await using peek = await drainer(servers, OTHERS, 'peek', '  slot_reader: peek');
    await slot(servers, 'peer');
    await OTHERS.change(from, scale);
    const took = (who: string, value: number): Figure => ({ work: 'W7', who, value, unit: 's' });
    await flushed(servers);
    return [
      took('pg_replication_slot_advance', await advanceAlone(source, 'peer')),
      took('Sluice, by stream', await stream.drain()),
      took('Sluice, by peek', await peek.drain()),
    ];
  });
}

function peaks(work: string, { own }: Measured): Figure[] {
  return Object.entries(own.peaks())
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => ({ work, who: `Sluice, ${name}: peak of memory`, value: bytes / 2 ** 20, unit: 'MiB' }));
}
