/**
 * The local engine: what the stack is on AWS, in one process. It runs the same handlers (functions/) with the events that Lambda would pass,
 * windows by the schedule and loaders by the doorbells, on the services of backend.ts. After a stop, or a SIGKILL at any moment, it is started
 * again and goes on: all that must last is in stage, ledger and target.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { GetQueueAttributesCommand } from '@aws-sdk/client-sqs';
import type { ScheduleConfig } from '../../lib/config/schema.ts';
import { tableTimes } from '../../lib/config/times.ts';
import { asSluiceError, SluiceError } from '../../lib/errors.ts';
import { type Backend, type BackendOptions, openBackend } from './backend.ts';
import { type Poller, startPoller } from './poller.ts';
import { VISIBILITY_SECONDS } from './resources.ts';
import { Sandbox } from './sandbox.ts';
import { runSchedule, windowSucceeded } from './scheduler.ts';

export const FUNCTION_NAMES = ['drain', 'load', 'extract', 'backfill', 'operate'] as const;
export type FunctionName = (typeof FUNCTION_NAMES)[number];

/** Which thread a function runs in. Those that people call share one: they do little, and seldom. */
const SANDBOX_OF = {
  drain: 'drain',
  load: 'load',
  extract: 'load',
  backfill: 'operate',
  operate: 'operate',
} as const satisfies Record<FunctionName, FunctionName>;

export interface LogLine {
  /** The sandbox that wrote it. */
  readonly sandbox: string;
  readonly text: string;
  /** The line's object where it is JSON, as structured log lines are. */
  readonly record: Readonly<Record<string, unknown>> | null;
}

export interface EngineOptions extends Omit<BackendOptions, 'onError'> {
  /** Instead of the pipeline's. */
  readonly schedule?: ScheduleConfig;
  /** Invocations at once. */
  readonly concurrency: { readonly load: number; readonly extract: number };
  /** URLs of modules to run instead of those in functions/. */
  readonly functions?: Readonly<Partial<Record<FunctionName, string>>>;
  readonly onLog?: (line: LogLine) => void;
  /** What a window returned. */
  readonly onReport?: (report: unknown) => void;
  /** An invocation failed; what it was for is tried again by the next message or window. */
  readonly onFault?: (what: FunctionName | 'services', error: SluiceError) => void;
}

/** As the event of the function `drain` has them. */
export interface WindowOptions {
  readonly break_at_end_lsn?: boolean;
  readonly ring_all?: boolean;
  readonly runs_since_ms?: number;
  readonly ignore_schedules?: boolean;
}

export interface Engine {
  readonly backend: Backend;
  /** Runs one window now, after the one that is running, and resolves with its report. */
  window(options?: WindowOptions): Promise<unknown>;
  /** Runs windows by the schedule until `stop`, or until there will never be another. Windows that fail are told to `onFault`. */
  runSchedule(): Promise<void>;
  /** Calls a function as a person would on AWS; rejects with what it throws. */
  invoke(name: FunctionName, event: unknown): Promise<unknown>;
  /** Resolves when nothing is running and no doorbell waits. */
  idle(): Promise<void>;
  /** Asks what runs to end cleanly, waits, and ends it all: at most STOP_MS_MAX. Safe to call twice. */
  stop(): Promise<void>;
}

/** A function on Lambda has 15 minutes at most, and so has a window here: long enough, and the same code path when it is not. */
const FUNCTION_MS: Readonly<Record<FunctionName, number>> = {
  drain: 15 * 60_000,
  load: 15 * 60_000,
  extract: 15 * 60_000,
  backfill: 5 * 60_000,
  operate: 60_000,
};
/** For functions to end cleanly after they were asked. */
const GRACE_MS = 12_000;
export const STOP_MS_MAX = 20_000;
const IDLE_POLL_MS = 100;

/** Starts services and pollers: a second or two. STATE_IN_USE where another engine runs on the state directory. */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const backend = await openBackend({ ...options, onError: (error) => options.onFault?.('services', error) });
  return new RunningEngine(options, backend);
}

class RunningEngine implements Engine {
  readonly backend: Backend;
  readonly #options: EngineOptions;
  readonly #stopping = new AbortController();
  readonly #stopAt = new Float64Array(new SharedArrayBuffer(8)).fill(Number.POSITIVE_INFINITY);
  readonly #sandboxes: Readonly<Record<string, Sandbox>>;
  readonly #pollers: readonly Poller[];
  readonly #calls = new Set<Promise<unknown>>();
  #lastWindow: Promise<unknown> = Promise.resolve();
  #windows = 0;
  #stopped: Promise<void> | undefined;

  constructor(options: EngineOptions, backend: Backend) {
    this.#options = options;
    this.backend = backend;
    const names = [...new Set(Object.values(SANDBOX_OF))];
    this.#sandboxes = Object.fromEntries(names.map((name) => [name, this.#sandbox(name)]));
    this.#pollers = (['load', 'extract'] as const).map((name) => this.#poller(name));
  }

  async invoke(name: FunctionName, event: unknown): Promise<unknown> {
    if (this.#stopped !== undefined) {
      throw new SluiceError('LOCAL_ENGINE_FAILED', { action: `call the function ${name}`, reason: 'it is stopping' });
    }
    const sandbox = this.#sandboxes[SANDBOX_OF[name]];
    if (sandbox === undefined) throw new TypeError(`no sandbox for ${name}`);
    const call = sandbox.invoke(name, event, FUNCTION_MS[name]);
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }

  async window(options: WindowOptions = {}): Promise<unknown> {
    this.#windows += 1;
    const event = { kind: 'window', pipeline: this.#options.pipeline.pipeline, ...options };
    const report = this.#lastWindow.catch(() => undefined).then(() => this.invoke('drain', event));
    this.#lastWindow = report;
    try {
      const result = await report;
      this.#options.onReport?.(result);
      return result;
    } finally {
      this.#windows -= 1;
    }
  }

  async runSchedule(): Promise<void> {
    const { pipeline, schedule = pipeline.schedule } = this.#options;
    await runSchedule({
      schedule,
      tables: tableTimes({ tables: pipeline.tables, schedule }),
      clock: { now: Date.now, sleep: sleepUntilAborted },
      signal: this.#stopping.signal,
      window: async () => {
        try {
          return windowSucceeded(await this.window());
        } catch (thrown) {
          this.#options.onFault?.('drain', asSluiceError(thrown));
          return false;
        }
      },
    });
  }

  async idle(): Promise<void> {
    const { sqs } = this.backend.clients;
    const { load, extract } = this.backend.resources;
    while (this.#stopped === undefined) {
      const waiting = await Promise.all([load, extract].map((queue) => messagesIn(sqs, queue.url)));
      const running = this.#windows + this.#pollers.reduce((sum, poller) => sum + poller.running, 0);
      if (running === 0 && waiting.every((count) => count === 0)) return;
      await sleep(IDLE_POLL_MS);
    }
  }

  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    await this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    this.#stopAt.fill(Date.now());
    const ended = Promise.allSettled([...this.#calls, ...this.#pollers.map((poller) => poller.stop())]);
    const patience = new AbortController();
    await Promise.race([ended, sleepUntilAborted(GRACE_MS, patience.signal)]);
    patience.abort();
    await Promise.all(Object.values(this.#sandboxes).map((sandbox) => sandbox.end()));
    await ended; // What was still running has failed with its sandbox.
    await this.backend.stop();
  }

  #sandbox(name: FunctionName): Sandbox {
    const names = FUNCTION_NAMES.filter((one) => SANDBOX_OF[one] === name);
    const module = (one: FunctionName): string =>
      this.#options.functions?.[one] ?? new URL(`../../functions/${one}.ts`, import.meta.url).href;
    return new Sandbox({
      name,
      handlers: Object.fromEntries(names.map((one) => [one, module(one)])),
      environment: {
        ...this.backend.environment,
        AWS_LAMBDA_FUNCTION_NAME: `sluice-${this.#options.pipeline.pipeline}-${name}`,
      },
      stopAt: this.#stopAt.buffer,
      onLine: (sandbox, text) => this.#options.onLog?.({ sandbox, text, record: recordOf(text) }),
    });
  }

  #poller(name: 'load' | 'extract'): Poller {
    return startPoller({
      sqs: this.backend.clients.sqs,
      queue: this.backend.resources[name],
      region: this.backend.environment.AWS_REGION ?? '',
      visibility_seconds: VISIBILITY_SECONDS,
      concurrency: this.#options.concurrency[name],
      invoke: (event) => this.invoke(name, event),
      onError: (thrown) => this.#options.onFault?.(name, asSluiceError(thrown)),
    });
  }
}

async function messagesIn(sqs: Backend['clients']['sqs'], url: string): Promise<number> {
  const { Attributes: counts = {} } = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl: url,
      AttributeNames: ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'],
    }),
  );
  return Number(counts.ApproximateNumberOfMessages) + Number(counts.ApproximateNumberOfMessagesNotVisible);
}

function recordOf(text: string): Readonly<Record<string, unknown>> | null {
  if (!text.startsWith('{')) return null;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return null; // A line that only looks like JSON is text.
  }
}

async function sleepUntilAborted(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch((thrown: unknown) => {
    if (!signal.aborted) throw thrown;
  });
}
