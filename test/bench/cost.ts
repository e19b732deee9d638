/**
 * What it costs: the seconds, requests and bytes that windows and loads take here, at the prices of docs/COST.md.
 *
 * Seconds are those of functions that share two cores with both servers: on Lambda each has a core of its own, so that what is reckoned is too much rather than too little.
 */
import { readFile } from 'node:fs/promises';
import { FUNCTION_LIMITS } from '../../infra/aws/limits.ts';
import type { Figure } from './figures.ts';
import { onServers } from './measures.ts';
import { counted, type Requests } from './requests.ts';
import { type Measured, sluice } from './sluice.ts';
import { manyTables, ROWS_AND_CHANGES, type Workload } from './workloads.ts';

const FUNCTIONS = ['drain', 'extract', 'load'] as const;
const IDLE_WINDOWS = 10;
const SMALL_TABLES = 20;
const MINUTES_A_MONTH = 730 * 60;
/** A source's changes of a month. */
const MONTHLY_CHANGES = { idle: 0, small: 30e6, busy: 1e9 } as const;
const EVERY_MINUTES = [1, 15] as const;

/** What was used, by the names of the price table. */
type Used = Requests & { lambda_gb_second: number; lambda_request: number };

export type Prices = ReadonlyMap<string, number>;

/** The rows `| \`name\` | … | price |` of the page's tables, in US dollars. */
export async function prices(): Promise<Prices> {
  const page = await readFile(new URL('../../docs/COST.md', import.meta.url), 'utf8');
  const rows = page.matchAll(/^\| `(\w+)` \|[^|]*\| ([0-9.]+) \|/gm);
  return new Map([...rows].map(([, name = '', price]) => [name, Number(price)]));
}

export function priceOf(known: Prices, name: string): number {
  const price = known.get(name);
  if (price === undefined) throw new Error(`docs/COST.md has no price of ${name}`);
  return price;
}

/** Bytes that are put lie there for as long as the stage keeps them: two weeks. */
function dollars(known: Prices, { s3_put_bytes, ...used }: Used): number {
  const stored = (s3_put_bytes / 1e9) * priceOf(known, 's3_gb_month') * 0.5;
  return Object.entries(used).reduce((sum, [name, amount]) => sum + amount * priceOf(known, name), stored);
}

/** What `work` uses. */
async function using(measured: Measured, requests: Requests, work: () => Promise<unknown>): Promise<Used> {
  const [usage_before, requests_before] = [measured.own.usage(), { ...requests }];
  await work();
  const usage = measured.own.usage();
  let [lambda_gb_second, lambda_request] = [0, 0];
  for (const name of FUNCTIONS) {
    const busy_s = (usage[name].busy_ms - usage_before[name].busy_ms) / 1000;
    lambda_gb_second += (busy_s * FUNCTION_LIMITS[name].memory_mb) / 1024;
    lambda_request += usage[name].calls - usage_before[name].calls;
  }
  const asked = Object.fromEntries(
    Object.entries(requests).map(([name, now]) => [name, now - requests_before[name as keyof Requests]]),
  ) as unknown as Requests;
  return { ...asked, lambda_gb_second, lambda_request };
}

interface Spent {
  /** Of one window in which there is nothing. */
  readonly idle: number;
  /** Of one window with the workload's changes, and its loads. */
  readonly work: number;
  readonly changes: number;
}

async function spent(known: Prices, work: Workload, scale: number): Promise<Spent> {
  return await onServers(async (servers) => {
    await work.fill(servers.from, scale);
    await using counter = counted();
    await using measured = await sluice(
      servers,
      { name: 'bench', tables: work.tables },
      { environment: (own) => counter.environment(own) },
    );
    await measured.firstSync();
    const idle = await using(measured, counter.requests, async () => {
      for (let i = 0; i < IDLE_WINDOWS; i++) await measured.own.window();
    });
    const changes = await work.change(servers.from, scale);
    const worked = await using(measured, counter.requests, () => measured.visible());
    return { idle: dollars(known, idle) / IDLE_WINDOWS, work: dollars(known, worked), changes };
  });
}

export async function cost(scale: number): Promise<Figure[]> {
  const known = await prices();
  const bulk = await spent(known, ROWS_AND_CHANGES, scale);
  const small = await spent(known, manyTables(SMALL_TABLES), 1);
  const million = (bulk.work / bulk.changes) * 1e6;
  const fixed = priceOf(known, 'fixed_month');
  const figures: Figure[] = [{ work: 'cost', who: 'Sluice, a million changes (W2)', value: million, unit: 'US$' }];
  for (const minutes of EVERY_MINUTES) {
    const windows = MINUTES_A_MONTH / minutes;
    for (const [size, changes] of Object.entries(MONTHLY_CHANGES)) {
      // Twenty tables have changes in each window; what is more of them than in the small workload costs as in bulk.
      const perWindow = changes === 0 ? small.idle : small.work;
      const more = Math.max(0, changes - small.changes * windows);
      const value = fixed + windows * perWindow + (more / 1e6) * million;
      figures.push({ work: 'cost', who: `Sluice, a month, ${size}, each ${minutes} min`, value, unit: 'US$' });
    }
  }
  const hours = MINUTES_A_MONTH / 60;
  return [
    ...figures,
    {
      work: 'cost',
      who: 'AWS DMS Serverless, 1 DCU, a month',
      value: hours * priceOf(known, 'dms_dcu_hour'),
      unit: 'US$',
    },
    { work: 'cost', who: 't4g.small, a month', value: hours * priceOf(known, 't4g_small_hour'), unit: 'US$' },
  ];
}
