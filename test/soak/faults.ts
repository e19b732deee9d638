/**
 * What befalls the line in a soak: kinds of faults, each of which is done, lasts a moment, and is over. Whoever is hit must go on by itself.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { TestPostgres } from '../support/postgres.ts';
import { query } from '../support/postgres.ts';
import type { ProxiedConnection, TcpProxy } from '../support/tcp-proxy.ts';
import type { Runner } from './runner.ts';

export interface Struck {
  readonly source: TestPostgres;
  readonly target: TestPostgres;
  readonly to_source: TcpProxy;
  readonly to_target: TcpProxy;
  readonly runner: Runner;
  readonly below: (n: number) => number;
  /** A command beside the run; its exit code. */
  readonly command: (name: string, ...args: string[]) => Promise<number | null>;
}

/** How often it met something; 0: there was nothing there to be met. */
export type Fault = (struck: Struck) => Promise<number>;

/** Shorter than what waits for an answer; and longer than the lease of a window. */
const STALL_MS = [1_000, 4_000, 9_000, 20_000] as const;
const SLOW_BYTES_PER_SECOND = 150_000;
const SLOW_MS = 5_000;
const REFUSE_MS = 3_000;
const FULL_MS = 2_500;
const LOST_MS = 5_000;
const LOOK_MS = 50;
const MEET_MS_MAX = 5_000;
const TRAP_MS = 6_000;
const TRAP_BYTES_MAX_LOG2 = 18;
const CONNECTS_AT_ONCE = 8;

const isWalsender = ({ startup }: ProxiedConnection): boolean => startup.replication !== undefined;
const isQuery = (connection: ProxiedConnection): boolean => !isWalsender(connection);

/** Connections come and go: tries until there was one, for a while. */
async function met(strike: () => number | Promise<number>): Promise<number> {
  for (let waited_ms = 0; waited_ms < MEET_MS_MAX; waited_ms += LOOK_MS) {
    const count = await strike();
    if (count > 0) return count;
    await sleep(LOOK_MS);
  }
  return 0;
}

async function healed(proxy: TcpProxy, ms: number): Promise<void> {
  await sleep(ms);
  await proxy.heal();
}

const either = ({ below, to_source, to_target }: Struck): TcpProxy => (below(2) === 0 ? to_source : to_target);

const stalled = async (
  proxy: TcpProxy,
  struck: Struck,
  which: (one: ProxiedConnection) => boolean,
): Promise<number> => {
  const met = new Set(proxy.connections.filter(which));
  const look = setInterval(() => {
    for (const one of proxy.connections) if (which(one)) met.add(one);
  }, LOOK_MS);
  proxy.stall(which, ([undefined, 'up', 'down'] as const)[struck.below(3)]);
  await healed(proxy, STALL_MS[struck.below(STALL_MS.length)] ?? 1_000);
  clearInterval(look);
  return met.size;
};

/** The connection breaks in the middle of what it is sending: after so many bytes more. */
const trapped = async (proxy: TcpProxy, { below }: Struck): Promise<number> => {
  const before = proxy.faults;
  const kind = (['cut', 'reset', 'lose_client', 'lose_server'] as const)[below(4)] ?? 'cut';
  proxy.after(below(2 ** (1 + below(TRAP_BYTES_MAX_LOG2))), below(2) === 0 ? 'up' : 'down', kind, { times: 3 });
  await healed(proxy, TRAP_MS);
  return proxy.faults - before;
};

const lost = (proxy: TcpProxy): number => {
  const { connections } = proxy;
  for (const connection of connections) connection.fault('lose_client');
  return connections.length;
};

const terminated = async (server: TestPostgres, where: string): Promise<number> => {
  const rows = await query(
    server,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE pid <> pg_backend_pid() AND application_name LIKE 'sluice/%' AND ${where}`,
  );
  return rows.length;
};

/** Connections until there are no more, for a moment. */
const filled = async (server: TestPostgres): Promise<number> => {
  const held: Client[] = [];
  let refused = 0;
  try {
    const until_ms = Date.now() + FULL_MS;
    while (Date.now() < until_ms) {
      const tried = await Promise.allSettled(Array.from({ length: CONNECTS_AT_ONCE }, () => server.connect()));
      held.push(...tried.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : [])));
      refused += tried.filter(({ status }) => status === 'rejected').length;
      if (refused > 0) await sleep(100);
    }
  } finally {
    await Promise.allSettled(held.map((client) => client.end()));
  }
  return Math.min(refused, 1);
};

const once = async (work: Promise<unknown>): Promise<number> => {
  await work;
  return 1;
};

export const FAULTS = {
  process_killed: async ({ runner }) => Number(runner.kill('SIGKILL')),
  process_ended: async ({ runner }) => Number(runner.kill('SIGTERM')),
  source_cut: async ({ to_source }) => await met(() => to_source.cut()),
  target_cut: async ({ to_target }) => await met(() => to_target.cut()),
  source_reset: async ({ to_source }) => await met(() => to_source.reset()),
  target_reset: async ({ to_target }) => await met(() => to_target.reset()),
  source_client_lost: async ({ to_source }) => {
    const count = await met(() => lost(to_source));
    await healed(to_source, LOST_MS);
    return count;
  },
  target_client_lost: async ({ to_target }) => {
    const count = await met(() => lost(to_target));
    await healed(to_target, LOST_MS);
    return count;
  },
  walsender_stalled: async (struck) => await stalled(struck.to_source, struck, isWalsender),
  source_queries_stalled: async (struck) => await stalled(struck.to_source, struck, isQuery),
  target_stalled: async (struck) => await stalled(struck.to_target, struck, () => true),
  broken_midway: async (struck) => await trapped(either(struck), struck),
  slowed: async (struck) => {
    const proxy = either(struck);
    proxy.slow(SLOW_BYTES_PER_SECOND);
    return await once(healed(proxy, SLOW_MS));
  },
  source_refuses: async ({ to_source }) => await once(to_source.refuse().then(() => healed(to_source, REFUSE_MS))),
  target_refuses: async ({ to_target }) => await once(to_target.refuse().then(() => healed(to_target, REFUSE_MS))),
  source_restarted: async ({ source }) => await once(source.restart()),
  target_restarted: async ({ target }) => await once(target.restart()),
  source_crashed: async ({ source }) => await once(source.restart({}, 'immediate')),
  target_crashed: async ({ target }) => await once(target.restart({}, 'immediate')),
  walsender_terminated: async ({ source }) => await met(() => terminated(source, "backend_type = 'walsender'")),
  source_backends_terminated: async ({ source }) =>
    await met(() => terminated(source, "backend_type = 'client backend'")),
  target_backends_terminated: async ({ target }) => await met(() => terminated(target, 'true')),
  source_full: async ({ source }) => await filled(source),
  target_full: async ({ target }) => await filled(target),
} satisfies Record<string, Fault>;
export type FaultKind = keyof typeof FAULTS;
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[];

/** What a person does now and then, while all this goes on. */
export const REQUESTS = {
  backfill: async ({ command }) =>
    Number((await command('backfill', 'soak.orders', '--where', 'customer < 500')) === 0),
  reset: async ({ command, below }) => {
    const tables = ['soak.documents', 'soak.evolving', 'soak.keyless', 'public.pgbench_tellers', 'soak.bulk'];
    return Number((await command('backfill', tables[below(tables.length)] ?? 'soak.bulk', '--reset')) === 0);
  },
  verify_chain: async ({ command }) => Number((await command('verify', '--chain')) === 0),
} satisfies Record<string, Fault>;
export type RequestKind = keyof typeof REQUESTS;
export const REQUEST_KINDS = Object.keys(REQUESTS) as RequestKind[];
