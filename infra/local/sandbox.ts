/**
 * A worker thread that stands for a Lambda function: its own environment, its own modules, its own heap with a limit. It is started with the first
 * event, ended after a while without one (its memory is worth more than its start-up), and started again after a crash, which fails what
 * was running in it and nothing else.
 */
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Worker } from 'node:worker_threads';
import { asSluiceError, ERROR_CODES, type ErrorCode, type Facts, SluiceError } from '../../lib/errors.ts';
import type { Environment } from './environment.ts';
import { startThread } from './thread.ts';

export interface SandboxData {
  /** Module URLs by function name. */
  readonly handlers: Readonly<Record<string, string>>;
  /** One float64: the time, in ms since the Unix epoch, at which every invocation is to have ended; Infinity: none. */
  readonly stopAt: SharedArrayBuffer;
}

export interface Invocation {
  readonly id: number;
  readonly function_name: string;
  readonly request_id: string;
  readonly deadline_ms: number;
  /** JSON. */
  readonly event: string;
}

export interface InvocationResult {
  readonly id: number;
  /** JSON. */
  readonly result?: string;
  readonly error?: {
    readonly name: string;
    readonly message: string;
    readonly stack?: string;
    readonly code?: ErrorCode;
    readonly facts?: Facts;
  };
}

export interface SandboxOptions {
  readonly name: string;
  /** Paths or URLs of the modules that export `handler`, by function name. */
  readonly handlers: Readonly<Record<string, string>>;
  readonly environment: Environment;
  readonly stopAt: SharedArrayBuffer;
  /** A line that a function wrote to stdout or stderr. */
  readonly onLine: (sandbox: string, line: string) => void;
}

/** Far above what a function needs: what is large goes through buffers, which are not in this heap. */
const HEAP_MB_MAX = 256;
const YOUNG_HEAP_MB_MAX = 8;
const IDLE_MS = 10_000;

interface Pending {
  readonly done: (result: unknown) => void;
  readonly fail: (error: SluiceError) => void;
}

export class Sandbox {
  readonly #options: SandboxOptions;
  readonly #pending = new Map<number, Pending>();
  #thread: Worker | null = null;
  #ended: Promise<void> = Promise.resolve();
  #idle: NodeJS.Timeout | undefined;
  #invocations = 0;

  constructor(options: SandboxOptions) {
    this.#options = options;
  }

  /**
   * Calls the handler of `function_name`; resolves with what it returns. What it throws comes as a SluiceError, as does a crash of the sandbox
   * (LOCAL_ENGINE_FAILED). `timeout_ms` is what the handler is told it has; nobody cuts it off.
   */
  async invoke(function_name: string, event: unknown, timeout_ms: number): Promise<unknown> {
    clearTimeout(this.#idle);
    this.#thread ??= this.#start();
    const id = ++this.#invocations;
    const invocation: Invocation = {
      id,
      function_name,
      request_id: randomUUID(),
      deadline_ms: Date.now() + timeout_ms,
      event: JSON.stringify(event),
    };
    const result = new Promise((done, fail) => this.#pending.set(id, { done, fail }));
    this.#thread.postMessage(invocation);
    return await result;
  }

  get running(): number {
    return this.#pending.size;
  }

  /** Ends the thread. What is running in it fails. */
  async end(): Promise<void> {
    clearTimeout(this.#idle);
    await this.#thread?.terminate();
    await this.#ended;
  }

  #start(): Worker {
    const { name, handlers, environment, stopAt, onLine } = this.#options;
    const thread = startThread('./sandbox-thread.ts', {
      name,
      env: environment,
      workerData: { handlers, stopAt } satisfies SandboxData,
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX, maxYoungGenerationSizeMb: YOUNG_HEAP_MB_MAX },
    });
    for (const output of [thread.stdout, thread.stderr]) forEachLine(output, (line) => onLine(name, line));
    let fault: unknown = new Error('it ended by itself');
    thread.on('error', (error) => {
      fault = error;
    });
    thread.on('message', (result: InvocationResult) => this.#answer(result));
    this.#ended = new Promise((done) => {
      thread.once('exit', () => {
        if (this.#thread === thread) {
          this.#thread = null;
          this.#failPending(fault);
        }
        done();
      });
    });
    return thread;
  }

  #answer({ id, result, error }: InvocationResult): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (error) pending?.fail(errorOf(error));
    else pending?.done(JSON.parse(result ?? 'null'));
    if (this.#pending.size > 0) return;
    this.#idle = setTimeout(() => {
      const thread = this.#thread;
      this.#thread = null; // The next event starts another, and need not wait for this one's end.
      void thread?.terminate();
    }, IDLE_MS);
    this.#idle.unref();
  }

  #failPending(fault: unknown): void {
    const reason = fault instanceof Error ? fault.message : String(fault);
    for (const { fail } of this.#pending.values()) {
      const action = `finish a call of the function ${this.#options.name}`;
      fail(new SluiceError('LOCAL_ENGINE_FAILED', { action, reason }, { cause: fault }));
    }
    this.#pending.clear();
  }
}

/** A line is as long as a log line may be on Lambda; what is longer comes in pieces by readline's own measure. */
function forEachLine(output: Readable, onLine: (line: string) => void): void {
  createInterface({ input: output }).on('line', onLine);
}

/** The error as it was thrown on the other side; its code decides what is done about it (lib/errors.ts). */
function errorOf({ name, message, stack, code, facts }: NonNullable<InvocationResult['error']>): SluiceError {
  if (code !== undefined && ERROR_CODES.includes(code)) return new SluiceError(code, facts);
  const error = new Error(message);
  error.name = name;
  if (stack !== undefined) error.stack = stack;
  return asSluiceError(error);
}
