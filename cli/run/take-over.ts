/**
 * `sluice run --stack`: one window of a deployed stack, run on this machine without a deadline, and then what it has to load without a function's time limit. For
 * a transaction that no window of 15 minutes comes to the end of (lib/window/unfinished.ts), and for a load of one.
 *
 * It is a window like those of the function: on the stack's ledger, bucket and queues, under the same lease, which it renews, so that the stack's own are skipped
 * meanwhile. Killed, it leaves what they leave. Bells for cuts are answered here; all others go to the stack's queues.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Runtime, runtimeOf } from '../../functions/clients.ts';
import { drainPorts, loadPorts } from '../../functions/ports.ts';
import { asSluiceError, SluiceError } from '../../lib/errors.ts';
import { refusalsOf } from '../../lib/load/quarantine.ts';
import { reportStatus } from '../../lib/operate.ts';
import { drain, type LoadReport, load } from '../../lib/pipeline.ts';
import type { Doorbell, LoadBell, RunReport } from '../../lib/ports.ts';
import { displayName } from '../../lib/shape.ts';
import { Ended, type Told } from '../failure.ts';
import type { CliIo } from '../io.ts';
import { readPipelineFile } from '../pipeline-file.ts';
import { stackEnvironment } from '../place/stack.ts';
import type { Terminal } from '../view/terminal.ts';
import { counted, duration } from '../view/text.ts';
import { type Interrupt, onInterrupt } from './interrupt.ts';
import { isTransient, WINDOW_TRIES_MAX, windowWait } from './patience.ts';
import { remarkOf } from './remarks.ts';
import { Reporter } from './reporter.ts';

export interface TakeOverOptions {
  readonly config: string;
  readonly stack: string;
  readonly json?: boolean;
  readonly untilCaughtUp?: boolean;
  readonly continuous?: boolean;
}

/** Renewed while the window lasts; a process that dies is missed after as long. */
const LEASE_MS = 60_000;
/** A window of the stack lasts 15 minutes at most, and its lease a minute more. */
const LEASE_WAIT_MS_MAX = 20 * 60_000;
const LEASE_POLL_MS = 5_000;
/** There is no deadline. */
const NEVER_MS = Number.MAX_SAFE_INTEGER;

/** Throws USAGE, what is wrong with the file and the stack, and Ended for a run that did not get where it should. */
export async function takeOver(options: TakeOverOptions, io: CliIo, terminal: Terminal): Promise<void> {
  const { config, stack, json = false, untilCaughtUp, continuous } = options;
  if (untilCaughtUp || continuous) {
    throw new SluiceError('USAGE', {
      problem: '--stack runs one window: --until-caught-up and --continuous have no meaning with it.',
      remedy: 'Leave them out.',
    });
  }
  const { pipeline } = await readPipelineFile(config);
  const reporter = new Reporter(io, terminal, json);
  const onLog = (line: string): void => {
    if (io.env.SLUICE_DEBUG) reporter.say([line]);
    const remark = remarkOf(JSON.parse(line) as Readonly<Record<string, unknown>>, (stream) => stream);
    if (remark) reporter.remark(remark);
  };
  const found = await stackEnvironment(stack, pipeline.pipeline);
  const env = { ...process.env, ...found, SLUICE_CONFIG: resolve(config), SLUICE_LEASE_MS: String(LEASE_MS) };
  const runtime = runtimeOf(env, pipeline, onLog);
  using interrupt = onInterrupt(() =>
    reporter.say(['Ending: the open window is brought to its end (Ctrl-C again ends at once)']),
  );
  reporter.say([`A window of the stack ${stack}, without a deadline`]);
  const began_ms = performance.now();
  const taken = new TakenOver(runtime, reporter, interrupt);
  const report = await taken.window();
  const loads = await taken.loads();
  reporter.close();
  const seconds = (performance.now() - began_ms) / 1000;
  const halted = await haltsOf(runtime, loads);
  const changes = loads.reduce((sum, load) => sum + load.changes, 0);
  const outcome = interrupt.signal.aborted ? 'interrupted' : halted.length > 0 ? 'halted' : 'done';
  reporter.fact('ended', { outcome, seconds, staged: report.changes, loaded: changes, halted: halted.length });
  if (!json) {
    const what = `${counted(report.changes, 'change')} staged, ${counted(changes, 'change')} loaded, in ${duration(seconds)}`;
    io.out(outcome === 'interrupted' ? `Ended before its end: ${what}. The next window goes on.` : `Done: ${what}.`);
  }
  if (outcome === 'interrupted') throw new Ended(1);
  if (halted.length > 0) throw new Ended(1, halted);
}

/** Why the streams wait that could not be loaded. */
async function haltsOf({ ports }: Runtime, loads: readonly LoadReport[]): Promise<Told[]> {
  const halted = new Set(loads.filter(({ outcome }) => outcome === 'halted').map(({ stream }) => stream));
  if (halted.size === 0) return [];
  const bookmarks = (await ports.ledger.bookmarks()).filter(({ stream }) => halted.has(stream));
  return bookmarks.flatMap(({ table, halt }) =>
    halt === null
      ? []
      : [{ code: halt.code, message: `${displayName(table)} is halted: ${halt.message}`, remedy: halt.remedy }],
  );
}

class TakenOver {
  readonly #runtime: Runtime;
  readonly #reporter: Reporter;
  readonly #interrupt: Interrupt;
  /** By stream: the newest says it all (I9). */
  readonly #bells = new Map<string, LoadBell>();
  readonly #doorbell: Doorbell;

  constructor(runtime: Runtime, reporter: Reporter, interrupt: Interrupt) {
    this.#runtime = runtime;
    this.#reporter = reporter;
    this.#interrupt = interrupt;
    const { doorbell } = runtime.ports;
    this.#doorbell = {
      ringExtract: (bells) => doorbell.ringExtract(bells),
      ringLoad: async (bells) => {
        for (const bell of bells) if (bell.kind === 'cuts') this.#bells.set(bell.stream, bell);
        await doorbell.ringLoad(bells.filter(({ kind }) => kind !== 'cuts'));
      },
    };
  }

  /** One that has come to where the source stood, or was asked to end. Throws Ended. */
  async window(): Promise<RunReport> {
    const since_ms = performance.now();
    for (let failures = 0; ; ) {
      const report = await this.#windowOnce();
      const { stopped_by, error } = report;
      if (stopped_by === 'skipped') {
        if (performance.now() - since_ms > LEASE_WAIT_MS_MAX || this.#interrupt.signal.aborted) throw skipped();
        this.#reporter.say(['A window of the stack is open: waiting for its end']);
        await this.#wait(LEASE_POLL_MS);
      } else if (error !== null) {
        failures += 1;
        if (!isTransient(error.code) || failures === WINDOW_TRIES_MAX) throw new Ended(1, [error]);
        this.#reporter.trouble(error, 'It is tried again.');
        await this.#wait(windowWait(failures));
      } else {
        this.#reporter.window(reportStatus(report));
        // A window of a file that has them short ends between two transactions; this one goes on.
        if (stopped_by !== 'max_run' && stopped_by !== 'lease_lost') return report;
      }
      if (this.#interrupt.signal.aborted) return report;
    }
  }

  /** What has been rung for. Throws what does not pass. */
  async loads(): Promise<LoadReport[]> {
    const reports: LoadReport[] = [];
    for (const bell of this.#bells.values()) {
      if (this.#interrupt.signal.aborted) break;
      const report = await this.#load(bell);
      reports.push(report);
      this.#reporter.fact('loaded', { ...report });
    }
    return reports;
  }

  async #windowOnce(): Promise<RunReport> {
    const { pipeline } = this.#runtime;
    const run = randomUUID();
    return await drain({ ...drainPorts(this.#runtime), doorbell: this.#doorbell }, pipeline, {
      run,
      owner: `sluice run on ${hostname()}/${run}`,
      lease_ms: LEASE_MS,
      deadline_ms: NEVER_MS,
      break_at_end_lsn: true,
      ring_all: true,
      // What is read by query is the stack's to begin.
      runs_since_ms: 0,
      asked: () => this.#interrupt.signal.aborted,
    });
  }

  async #load(bell: LoadBell): Promise<LoadReport> {
    const { pipeline, ports } = this.#runtime;
    for (let failures = 1; ; failures++) {
      try {
        return await load({ ...loadPorts(this.#runtime), doorbell: this.#doorbell }, bell, {
          deadline_ms: NEVER_MS,
          consistency: pipeline.target.consistency,
          refusals: refusalsOf(pipeline, ports.newId),
        });
      } catch (thrown) {
        const error = asSluiceError(thrown);
        if (!isTransient(error.code) || failures === WINDOW_TRIES_MAX) throw error;
        const { code, message, remedy } = error;
        this.#reporter.trouble({ code, message, remedy }, 'It is tried again.');
        await this.#wait(windowWait(failures));
      }
    }
  }

  async #wait(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#interrupt.signal }).catch(() => undefined); // Cut short when it is to end.
  }
}

function skipped(): SluiceError {
  return new SluiceError('USAGE', {
    problem: 'Another window has the lease, and has not given it back.',
    remedy: 'Look at what runs: the stack, or another sluice run --stack.',
  });
}
