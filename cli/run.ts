/**
 * `sluice run`: the local engine against the databases of a pipeline file. By the schedule until somebody ends it, back to back, or until everything is
 * applied that the source had at the beginning.
 */
import type { Command } from 'commander';
import { SIDES } from '../infra/local/databases.ts';
import type { LogLine } from '../infra/local/engine.ts';
import { asSluiceError, SluiceError } from '../lib/errors.ts';
import { formatLsn } from '../lib/lsn.ts';
import type { ReportStatus } from '../lib/operate.ts';
import { ringAgain } from '../lib/window/announce.ts';
import { Ended, type Told, toldOf } from './failure.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile } from './pipeline-file.ts';
import { doorLines, openDoors } from './place/embedded.ts';
import { type CaughtUp, catchUp } from './run/catch-up.ts';
import { haltsOf } from './run/caught-up.ts';
import { isOfTables } from './run/ground.ts';
import { type Interrupt, onInterrupt } from './run/interrupt.ts';
import { groundLines, headLines } from './run/opening.ts';
import { BellFaults } from './run/patience.ts';
import { remarkOf } from './run/remarks.ts';
import { Reporter } from './run/reporter.ts';
import { openSession, type Session } from './run/session.ts';
import { takeOver } from './run/take-over.ts';
import { Watch } from './run/watch.ts';
import type { Terminal } from './view/terminal.ts';
import { counted, duration } from './view/text.ts';

interface RunOptions {
  readonly config: string;
  readonly state: string;
  readonly untilCaughtUp?: boolean;
  readonly continuous?: boolean;
  readonly json?: boolean;
  readonly stack?: string;
}

export function registerRun(program: Command, io: CliIo, terminal: Terminal): void {
  program
    .command('run')
    .description('replicate, on this machine: by the schedule of the file until Ctrl-C')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--until-caught-up', 'end when everything is applied that the source had at the beginning')
    .option('--continuous', 'windows back to back instead of by the schedule')
    .option(
      '--stack <name>',
      'one window of a deployed stack (sluice-PIPELINE), without a deadline, and what it has to load',
    )
    .option('--json', 'tell the course as JSON lines')
    .addHelpText(
      'after',
      '\nWhat must last is in the state directory: stop it, kill it, start it again, and it goes on. Ctrl-C ends the window that is open cleanly; a second one\nends at once.',
    )
    .action((options: RunOptions) => run(options, io, terminal));
}

/** Throws what is wrong with file, state and databases; Ended for a run that did not get where it should. */
export async function run(options: RunOptions, io: CliIo, terminal: Terminal): Promise<void> {
  if (options.stack !== undefined) return await takeOver({ ...options, stack: options.stack }, io, terminal);
  if (options.untilCaughtUp && options.continuous) {
    throw new SluiceError('USAGE', {
      problem: '--until-caught-up and --continuous exclude each other.',
      remedy: 'Give one of them, or none: then windows run by the schedule.',
    });
  }
  const file = await readPipelineFile(options.config);
  await new Run(options, io, terminal).run(file);
}

class Run {
  readonly #options: RunOptions;
  readonly #io: CliIo;
  readonly #reporter: Reporter;
  readonly #faults = new BellFaults();
  readonly #fatal = Promise.withResolvers<never>();
  readonly #began_ms = performance.now();
  #watch: Watch | null = null;

  constructor(options: RunOptions, io: CliIo, terminal: Terminal) {
    this.#options = options;
    this.#io = io;
    this.#reporter = new Reporter(io, terminal, options.json ?? false);
    this.#fatal.promise.catch(() => undefined); // It is waited for below, together with the work.
  }

  async run(file: Parameters<typeof openSession>[0]['file']): Promise<void> {
    const { config: path, state, continuous } = this.#options;
    const reporter = this.#reporter;
    const embedded = SIDES.filter((side) => file.pipeline[side].host === null);
    if (embedded.length > 0) reporter.say([`Starting an embedded PostgreSQL as ${embedded.join(' and as ')}`]);
    const session = await openSession({
      file,
      path,
      state,
      environment: this.#io.env,
      lasting: !this.#options.untilCaughtUp,
      ...(continuous && { schedule: { kind: 'continuous', paused: false } }),
      onLog: (line) => this.#log(line),
      onReport: (report) => this.#report(report as ReportStatus),
      onFault: (what, error) => this.#fault(what, error),
      onFatal: (error) => this.#fatal.reject(error),
    });
    const { engine, ports, pipeline, selected } = session;
    using interrupt = onInterrupt(() => {
      reporter.say(['Ending: the open window is brought to its end (Ctrl-C again ends at once)']);
      engine.stop().catch(() => undefined); // Told below, where it is waited for.
    });
    try {
      const watch = new Watch({
        ports,
        pipeline: pipeline.pipeline,
        // A run that lasts takes in what a glob comes to match.
        selected: this.#options.untilCaughtUp ? selected : null,
        onSight: ({ progress }) => reporter.progress(progress),
      });
      this.#watch = watch;
      await this.#open(session);
      // The engine has emptied the queues: what they said is said again, and goes on at once.
      const head = await ports.ledger.head();
      if (head) await ringAgain(ports, await ports.ledger.bookmarks(), head, true);
      await watch.look();
      watch.start((thrown) => this.#lookFailed(thrown, interrupt));
      await Promise.race([this.#work(session, interrupt), this.#fatal.promise]);
    } finally {
      await this.#watch?.stop();
      await engine.stop();
      reporter.close();
    }
  }

  async #open({ pipeline, survey, engine, selected, findings }: Session): Promise<void> {
    const reporter = this.#reporter;
    const { config, state } = this.#options;
    reporter.say(headLines({ pipeline, path: config, state, survey }));
    const doors = await openDoors(engine.backend.databases, state);
    if (doors) reporter.say(['  to look into what is embedded:', ...doorLines(doors).map((line) => `    ${line}`)]);
    reporter.fact('started', { pipeline: pipeline.pipeline, state, streams: [...selected] });
    for (const lines of groundLines(findings)) reporter.remark({ level: 'warning', lines });
  }

  async #work(session: Session, interrupt: Interrupt): Promise<void> {
    if (this.#options.untilCaughtUp) await this.#untilCaughtUp(session, interrupt);
    else await this.#lasting(session, interrupt);
  }

  async #lasting({ engine }: Session, { signal }: Interrupt): Promise<void> {
    await engine.runSchedule();
    if (!signal.aborted) {
      this.#reporter.say([
        'The schedule has no more windows (is it paused?): ending when what is recorded has been loaded.',
      ]);
      await engine.idle();
    }
    await this.#watch?.stop();
    this.#reporter.close();
    this.#end(signal.aborted ? 'interrupted' : 'done', [`Ended. ${this.#goesOn()}`]);
  }

  async #untilCaughtUp(session: Session, { signal }: Interrupt): Promise<void> {
    const { engine, selected, survey, findings } = session;
    if (survey.source instanceof SluiceError || this.#watch === null) throw survey.source;
    const lsn = formatLsn(survey.source.ground.flush_lsn);
    const result = await catchUp({
      engine,
      watch: this.#watch,
      selected,
      lsn,
      faults: this.#faults,
      signal,
      onTrouble: (error, next) => this.#reporter.trouble(error, next),
    });
    await this.#watch.stop();
    this.#reporter.close();
    if (result.outcome === 'interrupted') {
      this.#end('interrupted', [`Ended before everything was applied. ${this.#goesOn()}`]);
      throw new Ended(1);
    }
    const errors = [...haltsOf(result.left), ...findings.filter(isOfTables).map(toldOf)];
    this.#end(errors.length > 0 ? 'halted' : 'caught_up', [this.#summary(result, lsn)], { lsn });
    if (errors.length > 0) throw new Ended(1, errors);
  }

  #end(outcome: string, lines: readonly string[], facts: Readonly<Record<string, unknown>> = {}): void {
    const seconds = (performance.now() - this.#began_ms) / 1000;
    if (this.#options.json) this.#reporter.fact('ended', { outcome, seconds, ...facts });
    else for (const line of lines) this.#io.out(line);
  }

  #summary({ sight }: Exclude<CaughtUp, { outcome: 'interrupted' }>, lsn: string): string {
    const { streams, applied } = sight.progress;
    const seconds = (performance.now() - this.#began_ms) / 1000;
    const halted = streams.halted > 0 ? `, ${counted(streams.halted, 'stream')} halted` : '';
    return `Caught up with the source at ${lsn}: ${counted(streams.total - streams.halted, 'stream')}${halted}; ${counted(applied.rows, 'row')} copied, ${counted(applied.changes, 'change')} applied, in ${duration(seconds)}.`;
  }

  #goesOn(): string {
    return `It goes on from ${this.#options.state} when the same command is given again.`;
  }

  #log({ sandbox, text, record }: LogLine): void {
    if (this.#io.env.SLUICE_DEBUG) this.#reporter.say([`${sandbox}: ${text}`]);
    if (record === null) return;
    const { event, error } = record;
    if (event === 'loaded' || event === 'extracted') this.#faults.succeeded();
    if (event === 'bell_retried' || event === 'bell_failed') this.#faults.failed(error as Told, Date.now());
    const remark = remarkOf(record, (stream) => this.#watch?.tableOf(stream) ?? stream);
    if (remark) this.#reporter.remark(remark);
  }

  #report(report: ReportStatus): void {
    this.#reporter.window(report);
    // Until caught up, what becomes of a failure is decided with it.
    if (report.error && !this.#options.untilCaughtUp)
      this.#reporter.trouble(report.error, 'The next window tries again.');
  }

  #fault(what: string, error: SluiceError): void {
    if (what === 'drain' && this.#options.untilCaughtUp) return;
    if (what === 'load' || what === 'extract') this.#faults.failed(error, Date.now());
    this.#reporter.trouble(error, 'It is tried again.');
  }

  /** The ledger could not be read just now. When the engine is ending, that is no wonder. */
  #lookFailed(thrown: unknown, { signal }: Interrupt): void {
    if (!signal.aborted) this.#reporter.trouble(asSluiceError(thrown), 'It is looked at again.');
  }
}
