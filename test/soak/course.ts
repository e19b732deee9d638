/**
 * A soak: a source under a mixed load, a target, and `sluice run` between them, whose process, connections and servers are broken again and again. In the end
 * all is left in peace, the line catches up, and both sides are compared.
 */
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { TableName } from '../../lib/shape.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { seededBelow } from '../support/seeded.ts';
import { type Workplace, workplace } from '../support/sluice.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { makeTpcb, TPCB_TABLES } from '../support/tpcb.ts';
import { compareTables, type Difference } from './compare.ts';
import { FAULT_KINDS, FAULTS, type FaultKind, REQUEST_KINDS, REQUESTS, type Struck } from './faults.ts';
import { type Quarter, quarters, type Sample, slopePerMinute, tally } from './figures.ts';
import { freeze } from './frozen.ts';
import { Runner, type RunnerCounts } from './runner.ts';
import { makeSoakTables, SOAK_TABLES, type SoakTable, soakTable, tablesYaml } from './tables.ts';
import { type LoadCounts, startLoad } from './writers.ts';

export interface SoakOptions {
  readonly seconds: number;
  readonly seed: number;
  /** Kinds to draw from; left out: all. Each comes once before one comes twice. */
  readonly faults?: readonly FaultKind[];
  /** Share of the processes that are armed with a failpoint. */
  readonly armed?: number;
  /** Between two faults, on average. */
  readonly fault_every_ms?: number;
  readonly big_rows?: number;
  readonly pause_ms?: number;
  /** Of the pipeline file's source. */
  readonly slot_reader?: 'stream' | 'peek';
  readonly onProgress?: (line: string) => void;
}

export interface SoakReport {
  readonly seed: number;
  readonly seconds: number;
  readonly slot_reader: string;
  readonly load: LoadCounts & { readonly wal_bytes: number };
  readonly run: RunnerCounts;
  readonly faults: Readonly<Record<string, number>>;
  readonly requests: Readonly<Record<string, number>>;
  readonly catch_up_seconds: number;
  readonly rows_compared: number;
  readonly differences: readonly Difference[];
  readonly chain: Readonly<Record<string, unknown>>;
  /** Streams that wait for a person in the end; and what was said when one halted on the way. */
  readonly halted: readonly string[];
  readonly rss_bytes: readonly (Quarter | null)[];
  /** Of all samples, over all processes; and of each process that lived long. */
  readonly rss_bytes_per_minute: number | null;
  readonly long_lived: readonly { readonly lived_ms: number; readonly bytes_per_minute: number }[];
  readonly lag_seconds: readonly (Quarter | null)[];
  readonly last_words: readonly string[];
  /** What is wrong, in sentences; none: nothing. */
  readonly problems: readonly string[];
}

const SETTINGS = { max_connections: '60', max_wal_size: '2GB', deadlock_timeout: '1s' } as const;
const LAG_EVERY_MS = 1_000;
/** Once in peace: to catch up, and to be silent. */
const CATCH_UP_MS_MAX = 600_000;
const REQUEST_EVERY_FAULTS = 7;
/** Of the time: faults end, and the processes live as long as they like. The middle third of a soak has faults of servers and network only, so that processes grow old. */
const MIDDLE = [1 / 3, 2 / 3] as const;
/** Shorter soaks have no middle. */
const LONG_MS = 180_000;
const PROCESS_FAULTS: readonly FaultKind[] = ['process_killed', 'process_ended'];

/** Takes `seconds`, what catching up takes, and some for the servers. Throws what has nothing to do with the line. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const directory = await mkdtemp(join(tmpdir(), 'sluice-test-soak-'));
  try {
    await using source = await startPostgres({ settings: SETTINGS, large: true });
    await using target = await startPostgres({ settings: SETTINGS, large: true });
    return await course(options, { source, target, directory });
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  }
}

interface Ground {
  readonly source: TestPostgres;
  readonly target: TestPostgres;
  readonly directory: string;
}

async function course(options: SoakOptions, { source, target, directory }: Ground): Promise<SoakReport> {
  const { seed, slot_reader = 'stream', onProgress = () => undefined } = options;
  await using to_source = await startTcpProxy(source);
  await using to_target = await startTcpProxy(target);
  await makeTpcb(source, 1);
  const admin = await source.connect();
  await makeSoakTables(admin);
  const frozen = await freeze(join(directory, 'frozen'));
  const lsn_before = await position(admin);
  await admin.end();
  await using place = await workplace(
    { ...source, host: to_source.host, port: to_source.port },
    { ...target, host: to_target.host, port: to_target.port },
    {
      pipeline: 'soak',
      launcher: frozen.launcher,
      tables: tablesYaml(),
      source: `  connect_timeout_seconds: 5\n  max_run_seconds: 20\n  slot_reader: ${slot_reader}`,
      target:
        '  connect_timeout_seconds: 5\n  hard_delete: true\n  primary_key_required: false\n  on_drop_column: drop\n  batch_flush_interval: 2\n  batch_flush_min_time_gap: 1',
    },
  );
  const transcript = createWriteStream(process.env.SLUICE_SOAK_LOG ?? join(directory, 'transcript.log'));
  const began_ms = Date.now();
  const below = seededBelow(seed);
  const load = startLoad({
    server: source,
    seed: seed + 1,
    big_rows: options.big_rows ?? 10_000,
    pause_ms: options.pause_ms ?? 150,
  });
  const runner = new Runner({ place, frozen, directory, seed: seed + 2, began_ms, transcript });
  runner.arm(options.armed ?? 0.6);
  runner.start();
  const lag = watchLag(target, began_ms);
  const struck: Struck = {
    source,
    target,
    to_source,
    to_target,
    runner,
    below,
    command: async (name, ...args) => {
      const { code, err } = await place.command(name, ...args).ended;
      transcript.write(`--- ${name}: ${code} ${err}\n`);
      return code;
    },
  };
  const problems: string[] = [];
  const { faults, requests } = await strike(options, struck, began_ms, (line) => {
    transcript.write(`--- ${line}\n`);
    onProgress(line);
  });

  onProgress('the load ends, and the faults with it');
  await load.stop();
  await runner.stop();
  await Promise.all([to_source.heal(), to_target.heal()]);
  const lag_samples = await lag.stop();
  const quiet_ms = Date.now();
  const last = place.run('--until-caught-up');
  const patience = setTimeout(() => last.kill('SIGKILL'), CATCH_UP_MS_MAX);
  const ended = await last.ended;
  clearTimeout(patience);
  const catch_up_seconds = (Date.now() - quiet_ms) / 1000;
  transcript.write(`${ended.out}${ended.err}\n`);
  if (ended.code !== 0)
    problems.push(`the last run ended with ${ended.signal ?? ended.code}: ${ended.err.slice(-1_500)}`);

  const [from, to] = [await source.connect(), await target.connect()];
  const tables: TableName[] = [
    ...TPCB_TABLES.map((table) => ({ schema: 'public', table })),
    ...Object.keys(SOAK_TABLES).map((table) => soakTable(table as SoakTable)),
  ];
  const { rows, differences } = await compareTables(from, to, tables);
  const wal_bytes = (await position(from)) - lsn_before;
  await Promise.all([from.end(), to.end()]);
  const chain = await asked(place, 'verify', '--chain', '--json');
  const status = await asked(place, 'status', '--json');
  const halted = (status.streams as { table?: unknown; halt?: unknown }[])
    .filter(({ halt }) => halt !== null && halt !== undefined)
    .map((stream) => JSON.stringify(stream));
  problems.push(
    ...differences.map(({ table, problem }) => `${table}: ${problem}`),
    ...halted.map((stream) => `halted: ${stream}`),
    ...runner.counts.halts.map((halt) => `halted on the way: ${halt}`),
    ...(Number(chain.fault_count) > 0 ? [`the chain: ${JSON.stringify(chain.faults)}`] : []),
  );
  transcript.end();
  return {
    seed,
    seconds: (quiet_ms - began_ms) / 1000,
    slot_reader,
    load: { ...load.counts, wal_bytes },
    run: runner.counts,
    faults,
    requests,
    catch_up_seconds,
    rows_compared: rows,
    differences,
    chain,
    halted,
    rss_bytes: quarters(runner.rss, quiet_ms - began_ms),
    rss_bytes_per_minute: slopePerMinute(runner.rss),
    long_lived: runner.slopes,
    lag_seconds: quarters(lag_samples, quiet_ms - began_ms),
    last_words: runner.last_words,
    problems,
  };
}

/** Faults, one after another, and now and then what a person asks for. */
async function strike(
  options: SoakOptions,
  struck: Struck,
  began_ms: number,
  tell: (line: string) => void,
): Promise<{ faults: Record<string, number>; requests: Record<string, number> }> {
  const { seconds, faults: kinds = FAULT_KINDS, fault_every_ms = 6_000, armed = 0.6 } = options;
  const [faults, requests]: [Record<string, number>, Record<string, number>] = [{}, {}];
  const length_ms = seconds * 1000;
  const { below, runner } = struck;
  let deck: FaultKind[] = [];
  for (let turn = 1; ; turn++) {
    await sleep(Math.max(0, Math.min(fault_every_ms / 2 + below(fault_every_ms), began_ms + length_ms - Date.now())));
    const gone = (Date.now() - began_ms) / length_ms;
    if (gone >= 1) return { faults, requests };
    const is_middle = length_ms >= LONG_MS && gone >= MIDDLE[0] && gone < MIDDLE[1];
    runner.arm(is_middle ? 0 : armed);
    if (deck.length === 0) deck = shuffled(kinds, below);
    const kind = deck.pop();
    if (kind === undefined || (is_middle && PROCESS_FAULTS.includes(kind))) continue;
    const met = await FAULTS[kind](struck);
    if (met > 0) tally(faults, kind, met);
    tell(`${Math.round(gone * 100)} %: ${kind} ${met}`);
    if (turn % REQUEST_EVERY_FAULTS !== 0) continue;
    const request = REQUEST_KINDS[below(REQUEST_KINDS.length)] ?? 'backfill';
    const done = await REQUESTS[request](struck);
    tally(requests, done > 0 ? request : `${request}, refused`);
    tell(`${request}: ${done > 0 ? 'asked for' : 'not possible just now'}`);
  }
}

function shuffled<T>(given: readonly T[], below: (n: number) => number): T[] {
  const left = [...given];
  for (let i = left.length - 1; i > 0; i--) {
    const j = below(i + 1);
    [left[i], left[j]] = [left[j] as T, left[i] as T];
  }
  return left;
}

/** How old the newest beat is that the target shows: what a reader there sees, from the write on. */
function watchLag(target: TestPostgres, began_ms: number): { stop(): Promise<Sample[]> } {
  const samples: Sample[] = [];
  const stopping = new AbortController();
  const watching = (async () => {
    let client: Client | null = null;
    while (!stopping.signal.aborted) {
      try {
        client ??= await target.connect();
        const { rows } = await client.query<{ seconds: number | null }>(
          'SELECT extract(epoch FROM clock_timestamp() - max(at))::float8 AS seconds FROM soak.beat',
        );
        const value = rows[0]?.seconds ?? null;
        if (value !== null) samples.push({ at_ms: Date.now() - began_ms, value });
      } catch {
        client?.end().catch(() => undefined); // The target is gone, full or has no such table yet.
        client = null;
      }
      await sleep(LAG_EVERY_MS);
    }
    await client?.end().catch(() => undefined);
  })();
  return {
    stop: async () => {
      stopping.abort();
      await watching;
      return samples;
    },
  };
}

async function asked(place: Workplace, name: string, ...args: string[]): Promise<Record<string, unknown>> {
  const { out, err, code } = await place.command(name, ...args).ended;
  if (!out.startsWith('{')) throw new Error(`sluice ${name} ended with ${code}: ${err}`);
  return JSON.parse(out) as Record<string, unknown>;
}

async function position(client: Client): Promise<number> {
  const { rows } = await client.query<{ bytes: string }>("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS bytes");
  return Number(rows[0]?.bytes);
}
