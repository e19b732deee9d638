/**
 * `sluice demo` (npm start): a small shop on an embedded source, written to and replicated to an embedded target, with a look at each stage; in the end
 * both sides are compared.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { displayName } from '../lib/shape.ts';
import { type Audience, type Shown, show } from './demo/show.ts';
import { isEqual, stageBlock, stageText, summaryLines } from './demo/view.ts';
import { WRITERS } from './demo/writers.ts';
import { Ended } from './failure.ts';
import type { CliIo } from './io.ts';
import { doorLines, shellWord } from './place/embedded.ts';
import { onInterrupt } from './run/interrupt.ts';
import { PLAIN_LINE_MS } from './run/reporter.ts';
import { copyBars } from './view/progress.ts';
import { Block, type Terminal } from './view/terminal.ts';
import { count, duration, padStart, wrap } from './view/text.ts';

/** Where the course is shown, and where the result is printed. */
interface Screens {
  readonly terminal: Terminal;
  readonly page: Terminal;
}

interface DemoOptions {
  readonly rows: number;
  readonly seconds: number;
  readonly keep?: boolean;
  readonly state?: string;
  readonly json?: boolean;
}

const ROWS_DEFAULT = 50_000;
const ROWS_MIN = 1_000;
const ROWS_MAX = 5_000_000;
const SECONDS_DEFAULT = 45;
const SECONDS_MAX = 86_400;

/**
 * Windows of some seconds, back to back, as a schedule of `continuous: true` has them on AWS; doorbells are rung each second, because somebody
 * watches.
 */
const PIPELINE = `# The pipeline of \`sluice demo\`. Source and target name no host: they are embedded PostgreSQL servers.
pipeline: demo
source:
  max_run_seconds: 5
tables:
  - shop.*
  - Back Office.*
target:
  hard_delete: true
  batch_flush_interval: 1
  batch_flush_min_time_gap: 1
schedule:
  continuous: true
`;

export function registerDemo(program: Command, io: CliIo, screens: Screens): void {
  program
    .command('demo')
    .description('embedded source and target, live writes, each stage, and a comparison in the end')
    .option('--keep', 'go on until Ctrl-C, and keep the servers’ state')
    .option('--rows <n>', 'rows of the shop at the beginning', wholeBetween(ROWS_MIN, ROWS_MAX), ROWS_DEFAULT)
    .option('--seconds <n>', 'how long the shop is written to', wholeBetween(1, SECONDS_MAX), SECONDS_DEFAULT)
    .option('--state <dir>', 'directory for everything, which stays (default: a temporary one, which is removed)')
    .option('--json', 'the summary as JSON')
    .action((options: DemoOptions) => demo(options, io, screens));
}

function wholeBetween(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** Throws Ended(1) when the two sides differ, and what keeps the demo from its end. */
export async function demo(options: DemoOptions, io: CliIo, screens: Screens): Promise<void> {
  const directory = options.state ? resolve(options.state) : await mkdtemp(join(tmpdir(), 'sluice-demo-'));
  const stays = options.keep || options.state !== undefined;
  const stage = new Stage(options, screens, io);
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, 'pipeline.yaml');
    await writeFile(path, PIPELINE);
    stage.begin(path);
    using interrupt = onInterrupt(() => stage.asked());
    const shown = await show({
      path,
      state: directory,
      environment: io.env,
      rows: options.rows,
      seconds: options.keep ? null : options.seconds,
      signal: interrupt.signal,
      audience: stage,
    });
    stage.end(shown);
    if (stays && !options.json) {
      const place = `-c ${shellWord(path)} --state ${shellWord(directory)}`;
      io.out(
        `\nIts state stays: sluice demo --state ${shellWord(directory)} goes on with it, sluice status ${place} shows it.`,
      );
    }
    if (!isEqual(shown)) throw new Ended(1);
  } finally {
    stage.close();
    if (!stays) await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  }
}

const SUMMARY_WIDTH_MAX = 100;
const TIME_WIDTH = 7;

/** What is seen of the demo: steps that stay, and below them the stages, on a terminal; a line now and then elsewhere. */
class Stage implements Audience {
  readonly #options: DemoOptions;
  readonly #terminal: Terminal;
  readonly #page: Terminal;
  readonly #io: CliIo;
  readonly #block: Block | null;
  readonly #began_ms = performance.now();
  #until_ms: number | null = null;
  #line_ms = performance.now();

  constructor(options: DemoOptions, { terminal, page }: Screens, io: CliIo) {
    this.#options = options;
    this.#terminal = terminal;
    this.#page = page;
    this.#io = io;
    this.#block = terminal.isLive ? new Block(terminal) : null;
  }

  begin(path: string): void {
    const { paint } = this.#terminal;
    this.#say([paint('bold', 'Sluice demo: the database of a shop is replicated while it is written to.'), '']);
    this.#step([`Two PostgreSQL servers are started. The pipeline file is ${path}`]);
  }

  opened({ version, doors }: Parameters<Audience['opened']>[0]): void {
    const number = `${Math.floor(version / 10_000)}.${version % 10_000}`;
    this.#step([
      `Source and target run, PostgreSQL ${number}; beside them S3, SQS and DynamoDB, as on AWS. To look inside:`,
      ...(doors === null ? [] : doorLines(doors)),
    ]);
  }

  filled(rows: number): void {
    this.#step([
      `The shop is there: ${count(rows)} rows in two schemas. Its tables are copied, and it is written to meanwhile.`,
    ]);
  }

  writing(seconds: number | null): void {
    this.#line_ms = performance.now();
    this.#until_ms = seconds === null ? null : this.#line_ms + seconds * 1000;
    const end = seconds === null ? 'until Ctrl-C' : `for ${duration(seconds)}`;
    this.#step([
      `${WRITERS} connections write to it ${end}: orders, new prices, changed keys, large texts, deletions, TRUNCATE.`,
    ]);
  }

  copied(): void {
    this.#step(['Every table is copied: from here on the target follows the log.']);
  }

  stages(stages: Parameters<Audience['stages']>[0]): void {
    if (this.#block) {
      const { columns, paint } = this.#terminal;
      const left =
        this.#until_ms === null
          ? ''
          : paint('dim', `  ${duration(Math.max(0, (this.#until_ms - performance.now()) / 1000))} of writes left`);
      const bars = copyBars(stages.progress, columns(), paint);
      this.#block.draw([
        '',
        ...bars,
        ...(bars.length > 0 ? [''] : []),
        ...stageBlock(stages, columns(), paint),
        ...(left === '' ? [] : ['', left]),
      ]);
      return;
    }
    const now_ms = performance.now();
    if (now_ms - this.#line_ms < PLAIN_LINE_MS) return;
    this.#line_ms = now_ms;
    this.#step([stageText(stages)]);
  }

  remark({ level, lines }: Parameters<Audience['remark']>[0]): void {
    this.#step(
      lines.map((line) => (level === 'info' ? line : this.#terminal.paint(level === 'error' ? 'red' : 'yellow', line))),
    );
  }

  asked(): void {
    this.#until_ms = null;
    this.#step(['The writes end now; what is on its way still arrives (Ctrl-C again ends at once).']);
  }

  stopped(): void {
    this.#until_ms = null;
    this.#step(['The writes have ended. What is on its way arrives.']);
  }

  comparing(): void {
    this.#step(['Both sides print every row as text, and the texts are compared.']);
  }

  end(shown: Shown): void {
    this.close();
    if (this.#options.json) {
      this.#io.out(JSON.stringify(jsonOf(shown)));
      return;
    }
    const width = Math.min(SUMMARY_WIDTH_MAX, this.#page.columns());
    for (const line of ['', ...summaryLines(shown, width, this.#page.paint)]) this.#io.out(line);
  }

  close(): void {
    this.#block?.clear();
  }

  /** Each with the time since the beginning. */
  #step([first = '', ...rest]: readonly string[]): void {
    const time = padStart(`${((performance.now() - this.#began_ms) / 1000).toFixed(1)} s`, TIME_WIDTH);
    const indent = ' '.repeat(TIME_WIDTH + 2);
    const [top = '', ...below] = wrap(first, this.#terminal.columns() - 1, indent);
    const begin = `${this.#terminal.paint('dim', time)}  ${top.slice(indent.length)}`;
    this.#say([begin, ...below, ...rest.map((line) => indent + line)]);
  }

  #say(lines: readonly string[]): void {
    if (this.#block) this.#block.say(lines);
    else for (const line of lines) this.#io.err(line);
  }
}

function jsonOf({ comparisons, stages, seconds }: Shown) {
  const { progress, written, windows, lag } = stages;
  return {
    equal: isEqual({ comparisons }),
    tables: comparisons.map(({ table, ...rest }) => ({ table: displayName(table), ...rest })),
    seconds,
    written: { changes: written.changes, transactions: written.transactions },
    windows,
    cuts: progress.log.cuts,
    staged_bytes: progress.log.object_bytes,
    applied: { rows: progress.applied.rows, changes: progress.applied.changes },
    lag_seconds: lag,
  };
}
