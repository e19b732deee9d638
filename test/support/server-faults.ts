/**
 * What befalls a PostgreSQL server in a life: it crashes, is demoted and promoted again, has no connection left. And one try of a line (line.ts) beside it,
 * with all that was said.
 */
import { chown, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { asSluiceError } from '../../lib/errors.ts';
import type { Line } from './line.ts';
import { query, type TestPostgres } from './postgres.ts';

const BELLS_MAX = 100;
const RECOVERY_WAIT_MS = 20_000;
const POLL_MS = 20;

export interface Said {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

export interface Tried {
  /** What the window ended with; null: well. */
  readonly window: Said | null;
  /** What answering its bells ended with, each once. */
  readonly bells: readonly Said[];
  /** Codes of the halts by stream. */
  readonly halts: Readonly<Record<string, string>>;
}

/** One window, and its bells: one that fails is not rung again before the next window. */
export async function attempt(line: Line): Promise<Tried> {
  await line.window().catch(() => undefined); // Its report says it.
  const bells = await answer(line);
  const halts = Object.fromEntries(
    [...line.durable.bookmarks.values()].flatMap(({ table, halt }) => (halt ? [[table.table, halt.code]] : [])),
  );
  return { window: line.durable.reports.at(-1)?.error ?? null, bells, halts };
}

/** Answers the bells that wait. What went wrong, each once. */
export async function answer(line: Line): Promise<readonly Said[]> {
  const said = new Map<string, Said>();
  const { extractBells, loadBells } = line.durable;
  for (let bells = 0; bells < BELLS_MAX && extractBells.length + loadBells.length > 0; bells++) {
    try {
      await line.pump();
    } catch (thrown) {
      const { code, message, remedy } = asSluiceError(thrown);
      said.set(`${code} ${remedy}`, { code, message, remedy });
    }
  }
  return [...said.values()];
}

/** Where our slot stands on the source. */
export async function confirmedLsn(source: TestPostgres, slot: string): Promise<bigint> {
  const [row] = await query(
    source,
    `SELECT (confirmed_flush_lsn - '0/0')::text AS bytes FROM pg_replication_slots WHERE slot_name = '${slot}'`,
  );
  return BigInt(String(row?.bytes));
}

/** One of its processes is killed: the postmaster ends all others at once, and recovers from the log. Resolves when it takes connections again. */
export async function crash(server: TestPostgres): Promise<void> {
  const [row] = await query(
    server,
    "SELECT pid, pg_postmaster_start_time()::text FROM pg_stat_activity WHERE backend_type = 'walwriter'",
  );
  process.kill(Number(row?.pid), 'SIGKILL');
  const until_ms = Date.now() + RECOVERY_WAIT_MS;
  for (;;) {
    await sleep(POLL_MS);
    const [now] = await query(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'").catch(
      () => [],
    ); // It recovers.
    if (now && now.pid !== row?.pid) return;
    if (Date.now() > until_ms) throw new Error('the server did not come back');
  }
}

/** It is started anew as a standby, that nobody sends a log to; as a switch-over leaves the former primary. */
export async function demote(server: TestPostgres): Promise<void> {
  const signal = join(server.dataDirectory, 'standby.signal');
  await writeFile(signal, '');
  await chown(signal, server.account.uid, server.account.gid);
  await server.restart();
}

/** As a primary of the same timeline: nothing has happened elsewhere. */
export async function restore(server: TestPostgres): Promise<void> {
  await rm(join(server.dataDirectory, 'standby.signal'));
  await server.restart();
}

/** Connections of `user` until the server takes no more. Gives what lets them go. */
export async function useUpConnections(
  { host, port, database }: TestPostgres,
  login: { readonly user: string; readonly password: string },
  replication?: 'database',
): Promise<() => Promise<void>> {
  const clients: Client[] = [];
  for (;;) {
    const client = new Client({ host, port, database, ...login, ...(replication && { replication }) });
    client.on('error', () => undefined);
    const isFull = await client.connect().then(
      () => false,
      (thrown: { readonly code?: string }) => {
        if (thrown.code !== '53300') throw thrown;
        return true;
      },
    );
    if (isFull) return async () => void (await Promise.all(clients.map((open) => open.end())));
    clients.push(client);
  }
}
