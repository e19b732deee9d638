/**
 * The functions of the stack, each in a process of its own between two real servers, on the local engine's services: for what a process may take of memory (I8).
 * Queues are polled as Lambda polls them, one invocation of a function at a time; windows are called one after another until all is applied.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { FUNCTION_LIMITS } from '../../infra/aws/limits.ts';
import { type Backend, openBackend } from '../../infra/local/backend.ts';
import type { WindowOptions } from '../../infra/local/engine.ts';
import type { Environment } from '../../infra/local/environment.ts';
import { type Poller, startPoller } from '../../infra/local/poller.ts';
import { VISIBILITY_SECONDS } from '../../infra/local/resources.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { dynamoLedger } from '../../lib/ledger/dynamo.ts';
import type { Ledger } from '../../lib/ports.ts';
import type { FunctionAnswer, FunctionCall } from './fixtures/own-function.ts';
import { removeDirectory, scratchDirectory } from './local-engine.ts';
import type { TestPostgres } from './postgres.ts';

const NAMES = ['drain', 'extract', 'load'] as const;
export type OwnFunctionName = (typeof NAMES)[number];

const HOST = fileURLToPath(new URL('./fixtures/own-function.ts', import.meta.url));
/** Lambda's own: 15 minutes. */
const CALL_MS_MAX = 15 * 60_000;
/** Lambda gives Node's heap nine tenths of a function's memory, or a little less. */
const HEAP_OF_MEMORY = 0.9;
const WINDOWS_MAX = 60;
const LOOK_MS = 50;
/** Looks at which nothing runs and not all is applied: another window. */
const LOOKS_MAX = 10;

/** By function, bytes. */
export type Peaks = Readonly<Record<OwnFunctionName, number>>;

/** What a function was called for, so far. */
export interface Usage {
  readonly calls: number;
  /** From call to answer: what Lambda counts. */
  readonly busy_ms: number;
  /** Of its present processes. */
  readonly cpu_ms: number;
}

export interface OwnFunctions extends AsyncDisposable {
  readonly ledger: Ledger;
  readonly backend: Backend;
  /** Lines that the functions have printed. */
  readonly lines: readonly string[];
  /** New processes from here on; resolves when they can be called. */
  renew(): Promise<void>;
  /** One window, up to the source's end where `event` does not say otherwise. */
  window(event?: WindowOptions): Promise<Record<string, unknown>>;
  /** Windows until every stream has applied the chain's end. Throws the first halt, a window that failed, and when that does not come. */
  settle(): Promise<void>;
  /** The greatest resident size of a process of each since `renew`. */
  peaks(): Peaks;
  usage(): Readonly<Record<OwnFunctionName, Usage>>;
}

export interface OwnFunctionsOptions {
  /** Functions whose doorbells are answered; both where it is not said. */
  readonly answered?: readonly ('load' | 'extract')[];
  /** Invocations of load at once, each in a process of its own; 1 where it is not said. */
  readonly loaders?: number;
  /** What the functions have in the place of, or beside, the services' own environment. */
  readonly environment?: (own: Environment) => Promise<Environment>;
}

interface Own {
  readonly process: ChildProcess;
  readonly waiting: Map<number, { done(result: unknown): void; fail(error: Error): void }>;
  rss_bytes_max: number;
  cpu_ms: number;
}

/** Lines of the pipeline file, as they stand in their section. */
export interface PipelineLines {
  readonly pipeline?: string;
  readonly source?: string;
  readonly target?: string;
  readonly tables?: string;
  readonly schedule?: string;
}

export async function ownFunctions(
  servers: { readonly source: TestPostgres; readonly target: TestPostgres },
  more: PipelineLines = {},
  { answered = ['load', 'extract'], loaders = 1, environment }: OwnFunctionsOptions = {},
): Promise<OwnFunctions> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.adopt(await scratchDirectory(), removeDirectory);
  const text = pipelineText(servers, more);
  const configPath = `${directory}/given.yaml`;
  await writeFile(configPath, text);
  const pipeline = readPipeline(text, configPath);
  const backend = await openBackend({
    pipeline,
    configPath,
    stateDirectory: `${directory}/state`,
    environment: {
      PATH: process.env.PATH,
      SOURCE_PASSWORD: servers.source.password,
      TARGET_PASSWORD: servers.target.password,
    },
    onFatal: (error) => {
      throw error;
    },
  });
  stack.defer(() => backend.stop());
  const env = { ...backend.environment, ...(await environment?.(backend.environment)) };
  const modules = await bundles(`${directory}/bundles`);
  const ledger = dynamoLedger({
    client: backend.clients.dynamodb,
    table: backend.resources.table,
    pipeline: pipeline.pipeline,
    clock: {
      now: Date.now,
      sleep: async (ms) => {
        await sleep(ms);
      },
    },
  });

  const lines: string[] = [];
  const processes = { drain: 1, extract: 1, load: loaders };
  const owned = new Map<OwnFunctionName, Own[]>();
  const end = async (): Promise<void> => {
    await Promise.all([...owned.values()].flat().map(({ process }) => ended(process)));
    owned.clear();
  };
  stack.defer(end);
  const renew = async (): Promise<void> => {
    await end();
    for (const name of NAMES) {
      const starting = Array.from({ length: processes[name] }, () => start(name, modules[name], env, lines));
      owned.set(name, await Promise.all(starting));
    }
  };
  let calls = 0;
  const used: Record<OwnFunctionName, { calls: number; busy_ms: number }> = {
    drain: { calls: 0, busy_ms: 0 },
    extract: { calls: 0, busy_ms: 0 },
    load: { calls: 0, busy_ms: 0 },
  };
  const call = async (name: OwnFunctionName, event: unknown): Promise<unknown> => {
    const own = owned.get(name)?.find(({ waiting }) => waiting.size === 0) ?? owned.get(name)?.[0];
    if (own === undefined) throw new RangeError(`no process for ${name}`);
    calls += 1;
    const id = calls;
    const answer = new Promise<unknown>((done, fail) => own.waiting.set(id, { done, fail }));
    const began_ms = performance.now();
    own.process.send({ id, event, deadline_ms: Date.now() + CALL_MS_MAX } satisfies FunctionCall);
    try {
      return await answer;
    } finally {
      used[name].calls += 1;
      used[name].busy_ms += performance.now() - began_ms;
    }
  };
  await renew();
  const faults: unknown[] = [];
  const pollers = answered.map(
    (name): Poller =>
      startPoller({
        sqs: backend.clients.sqs,
        queue: backend.resources[name],
        region: 'us-east-1',
        visibility_seconds: VISIBILITY_SECONDS,
        concurrency: processes[name],
        invoke: (event) => call(name, event),
        onError: (error) => faults.push(error),
      }),
  );
  stack.defer(async () => {
    await Promise.all(pollers.map((poller) => poller.stop()));
  });

  const window = async (options: WindowOptions = {}): Promise<Record<string, unknown>> => {
    const event = { kind: 'window', pipeline: pipeline.pipeline, break_at_end_lsn: true, ring_all: true, ...options };
    const report = (await call('drain', event)) as Record<string, unknown>;
    if (report.stopped_by === 'failed') throw new Error(`the window failed: ${JSON.stringify(report.error)}`);
    return report;
  };
  const isSettled = async (): Promise<boolean> => {
    const head = await ledger.head();
    const bookmarks = await ledger.bookmarks();
    for (const { stream, halt } of bookmarks) {
      if (halt) throw new Error(`${stream} is halted: ${halt.code}: ${halt.message}`);
    }
    if (faults.length > 0) throw new Error(`a function failed: ${String(faults[0])}`);
    if (head === null || bookmarks.length === 0) return false;
    const cuts = await ledger.cutsAfter(Math.min(...bookmarks.map(({ applied_cut }) => applied_cut)), 10_000);
    return bookmarks.every(
      ({ state, stream, applied_cut }) =>
        state === 'live' && cuts.every((cut) => cut.number <= applied_cut || cut.streams[stream] === undefined),
    );
  };
  const held = stack.move();
  return {
    ledger,
    backend,
    lines,
    renew,
    window,
    settle: async () => {
      for (let windows = 0; windows < WINDOWS_MAX; windows += 1) {
        await window();
        for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
          const isBusy = pollers.some(({ running }) => running > 0);
          if (!isBusy && (await isSettled())) return;
          await sleep(LOOK_MS);
          if (isBusy) looks = 0;
        }
      }
      throw new Error(`not settled after ${WINDOWS_MAX} windows:\n${lines.slice(-20).join('\n')}`);
    },
    peaks: () => {
      const peak = (name: OwnFunctionName): number =>
        Math.max(0, ...(owned.get(name) ?? []).map(({ rss_bytes_max }) => rss_bytes_max));
      return { drain: peak('drain'), extract: peak('extract'), load: peak('load') };
    },
    usage: () => {
      const of = (name: OwnFunctionName): Usage => {
        const cpu_ms = (owned.get(name) ?? []).reduce((sum, own) => sum + own.cpu_ms, 0);
        return { ...used[name], cpu_ms };
      };
      return { drain: of('drain'), extract: of('extract'), load: of('load') };
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function pipelineText(
  { source, target }: { readonly source: TestPostgres; readonly target: TestPostgres },
  more: PipelineLines,
): string {
  const side = (server: TestPostgres, password: string, options = ''): string =>
    [
      `  host: ${server.host}`,
      `  port: ${server.port}`,
      `  user: ${server.user}`,
      `  password: \${env:${password}}`,
      `  database: ${server.database}`,
      options,
    ].join('\n');
  return `pipeline: ${more.pipeline ?? 'own'}
source:
${side(source, 'SOURCE_PASSWORD', more.source)}
tables: ${more.tables ?? '[public.*]'}
target:
${side(target, 'TARGET_PASSWORD', more.target)}
${more.schedule === undefined ? '' : `schedule: ${more.schedule}`}
`;
}

/** Puts them into `directory`. */
async function bundles(directory: string): Promise<Readonly<Record<OwnFunctionName, string>>> {
  built ??= bundled();
  await mkdir(directory);
  for (const [name, text] of await built) await writeFile(join(directory, name), text);
  return {
    drain: `${directory}/drain.mjs`,
    extract: `${directory}/extract.mjs`,
    load: `${directory}/load.mjs`,
  };
}

/** The same for all that one process asks for. */
let built: Promise<ReadonlyMap<string, Uint8Array>> | null = null;

/** By name of file: as the stack ships them (infra/aws/bundle.ts), but for the minifying. */
async function bundled(): Promise<ReadonlyMap<string, Uint8Array>> {
  const entry = (name: string): string => fileURLToPath(new URL(`../../functions/${name}.ts`, import.meta.url));
  const { outputFiles } = await build({
    entryPoints: Object.fromEntries(NAMES.map((name) => [name, entry(name)])),
    outdir: tmpdir(),
    write: false,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    mainFields: ['module', 'main'],
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    external: ['pg-native', 'cpu-features'],
    loader: { '.node': 'empty' },
    logLevel: 'silent',
  });
  return new Map(outputFiles.map(({ path, contents }) => [basename(path), contents]));
}

async function start(name: OwnFunctionName, module: string, env: Environment, lines: string[]): Promise<Own> {
  const heap_mb = Math.floor(FUNCTION_LIMITS[name].memory_mb * HEAP_OF_MEMORY);
  const child = fork(HOST, [module], {
    execArgv: [`--max-old-space-size=${heap_mb}`],
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  for (const output of [child.stdout, child.stderr]) {
    output?.on('data', (chunk: Buffer) => lines.push(...chunk.toString().split('\n').filter(Boolean)));
  }
  const own: Own = { process: child, waiting: new Map(), rss_bytes_max: 0, cpu_ms: 0 };
  await once(child, 'message');
  child.on('message', ({ id, result, error, rss_bytes_max, cpu_ms }: FunctionAnswer) => {
    own.cpu_ms = cpu_ms;
    own.rss_bytes_max = Math.max(own.rss_bytes_max, rss_bytes_max);
    const waiting = own.waiting.get(id);
    own.waiting.delete(id);
    if (error === undefined) waiting?.done(result);
    else waiting?.fail(new Error(`${name}: ${error}`));
  });
  child.on('exit', (code, signal) => {
    for (const waiting of own.waiting.values()) waiting.fail(new Error(`${name} ended with ${code ?? signal}`));
  });
  return own;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}
