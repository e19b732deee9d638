/**
 * Failpoints: where a real process kills itself, before or after a call of a port. The product knows nothing of them: a preload (failpoints-preload.ts) puts
 * itself between the functions and their adapters.
 *
 * A point is `port.method:before` or `port.method:after`, the second being "done, and the answer lost". Which there are is read from the contracts in
 * lib/ports: a new call is a new point.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { seeded } from './seeded.ts';

/** What has calls: the interfaces of lib/ports, and in which file. */
const INTERFACES = {
  ledger: ['ledger.ts', 'Ledger'],
  stage: ['stage.ts', 'Stage'],
  object: ['stage.ts', 'StageWriter'],
  doorbell: ['doorbell.ts', 'Doorbell'],
  source: ['source.ts', 'Source'],
  slot: ['slot.ts', 'SlotReader'],
  extractor: ['source.ts', 'Extractor'],
  chunk: ['source.ts', 'ChunkRead'],
  comparer: ['comparer.ts', 'Comparer'],
  target: ['target.ts', 'Target'],
  transaction: ['target.ts', 'TargetTransaction'],
} as const;
export type WatchedPort = keyof typeof INTERFACES;

const PORTS = new URL('../../lib/ports/', import.meta.url);
const PRELOAD = 'test/support/failpoints-preload.ts';
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** How the process knows; its threads have the same environment. */
const VARIABLE = 'SLUICE_TEST_FAILPOINT';

/** Every point there is, in the order of the contracts. */
export function allPoints(): string[] {
  return Object.entries(INTERFACES).flatMap(([port, [file, name]]) =>
    methodsOf(readFileSync(new URL(file, PORTS), 'utf8'), name).flatMap((method) => [
      `${port}.${method}:before`,
      `${port}.${method}:after`,
    ]),
  );
}

/** The formatter gives each member of an interface lines of its own, indented by two. */
function methodsOf(text: string, name: string): string[] {
  const [, body] = new RegExp(`^export interface ${name} \\{\\n(.*?)^\\}`, 'ms').exec(text) ?? [];
  const methods = [...(body ?? '').matchAll(/^ {2}(\w+)\??(?:<[^(]*>)?\(/gm)].map(([, method]) => method ?? '');
  if (methods.length === 0) throw new RangeError(`lib/ports has no ${name}, or it has no method`);
  return methods;
}

/** At the `n`-th time that a thread comes to a point, or anywhere by chance. `log`: a file that gets the point's name at the moment of death. */
export type Failpoint =
  | { readonly at: string; readonly n: number; readonly log: string }
  | { readonly rate: number; readonly seed: number; readonly log: string };

/** Environment of a process that is to die there; `root` is where its copy of the project is. */
export function failpointEnvironment(failpoint: Failpoint, root = ROOT): Record<string, string> {
  return { NODE_OPTIONS: `--require ${join(root, PRELOAD)}`, [VARIABLE]: JSON.stringify(failpoint) };
}

/** Where processes died, the first one first. */
export function deathsIn(log: string): string[] {
  return linesOf(log);
}

/** Points that armed processes have come past, or died at; some more than once. */
export function passedIn(log: string): string[] {
  return [...linesOf(passedLog(log)), ...linesOf(log)];
}

const passedLog = (log: string): string => `${log}.passed`;

function linesOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n').slice(0, -1);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw thrown;
  }
}

export function deathLog(directory: string): string {
  return join(directory, 'deaths.log');
}

type Method = (...args: unknown[]) => unknown;

/** What a thread passes on its way; it does not come past the one that it is armed for. */
export class Passage {
  readonly #armed: Failpoint;
  readonly #random: () => number;
  readonly #passed = new Set<string>();
  #times = 0;

  constructor(armed: Failpoint, thread: number) {
    this.#armed = armed;
    this.#random = seeded('seed' in armed ? armed.seed + thread : 0);
  }

  static fromEnvironment(env: NodeJS.ProcessEnv, thread: number): Passage | null {
    const text = env[VARIABLE];
    return text === undefined ? null : new Passage(JSON.parse(text) as Failpoint, thread);
  }

  pass(point: string): void {
    const armed = this.#armed;
    if ('rate' in armed ? this.#random() < armed.rate : point === armed.at && ++this.#times === armed.n) {
      this.#die(point);
    }
    if (this.#passed.has(point)) return;
    this.#passed.add(point);
    appendFileSync(passedLog(armed.log), `${point}\n`);
  }

  #die(point: string): never {
    appendFileSync(this.#armed.log, `${point}\n`);
    process.kill(process.pid, 'SIGKILL');
    // The signal is for the whole process and ends this thread too; until it has come, nothing more is done here.
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
}

/** `given`, whose calls are points on the way of `passage`; so is what it hands out. */
export function watched<Port extends object>(passage: Passage, port: WatchedPort, given: Port): Port {
  return new Proxy(given, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function' || typeof name !== 'string') return value;
      const method = value as Method;
      return (...args: unknown[]): unknown => {
        passage.pass(`${port}.${name}:before`);
        const result = method.apply(target, argumentsOf(passage, `${port}.${name}`, args));
        const done = (answer: unknown): unknown => {
          passage.pass(`${port}.${name}:after`);
          return answerOf(passage, `${port}.${name}`, answer);
        };
        return result instanceof Promise ? later(result, done) : done(result);
      };
    },
  });
}

async function later(result: Promise<unknown>, done: (answer: unknown) => unknown): Promise<unknown> {
  return done(await result);
}

/** Ports that a port hands out. */
const ANSWERS: Readonly<Record<string, WatchedPort>> = {
  'stage.begin': 'object',
  'source.openSlot': 'slot',
  'extractor.readChunk': 'chunk',
};

function answerOf(passage: Passage, call: string, answer: unknown): unknown {
  const port = ANSWERS[call];
  return port !== undefined && typeof answer === 'object' && answer !== null ? watched(passage, port, answer) : answer;
}

/** Ports that a port hands to a callback. */
function argumentsOf(passage: Passage, call: string, args: unknown[]): unknown[] {
  const [streams, work] = args;
  if (typeof work !== 'function') return args;
  const inner = work as Method;
  const transaction = (given: unknown): unknown =>
    typeof given === 'object' && given !== null ? watched(passage, 'transaction', given) : given;
  if (call === 'target.transaction') return [streams, (tx: unknown) => inner(transaction(tx))];
  if (call !== 'target.transactionOver') return args;
  return [streams, (of: Method) => inner((stream: unknown) => transaction(of(stream)))];
}
