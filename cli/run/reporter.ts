/**
 * Tells a run's course to whoever is there: a block that is drawn again and again on a terminal, a plain line now and then in a log, a JSON line a fact
 * for a program.
 */
import type { ReportStatus } from '../../lib/operate.ts';
import { errorLines, type Told } from '../failure.ts';
import type { CliIo } from '../io.ts';
import { progressBlock, progressLine } from '../view/progress.ts';
import { Block, type Terminal } from '../view/terminal.ts';
import { bytes, counted, duration } from '../view/text.ts';
import type { Progress } from './progress.ts';
import type { Remark } from './remarks.ts';

/** Between two plain lines of progress; there is none while nothing changes. */
export const PLAIN_LINE_MS = 5_000;
/** The same remark is not made again within this. */
const REMARK_AGAIN_MS = 60_000;
const REMARKS_KEPT_MAX = 1_000;

export class Reporter {
  readonly #io: CliIo;
  readonly #terminal: Terminal;
  readonly #json: boolean;
  readonly #block: Block | null;
  #remarked = new Map<string, number>();
  #line = { at_ms: Number.NEGATIVE_INFINITY, text: '' };

  constructor(io: CliIo, terminal: Terminal, json: boolean) {
    this.#io = io;
    this.#terminal = terminal;
    this.#json = json;
    this.#block = terminal.isLive && !json ? new Block(terminal) : null;
  }

  progress(progress: Progress): void {
    if (this.#block) {
      this.#block.draw(['', ...progressBlock(progress, this.#terminal.columns(), this.#terminal.paint)]);
      return;
    }
    const text = progressLine(progress);
    const now_ms = performance.now();
    if (text === this.#line.text || now_ms - this.#line.at_ms < PLAIN_LINE_MS) return;
    this.#line = { at_ms: now_ms, text };
    if (this.#json) this.fact('progress', { ...progress });
    else this.say([text]);
  }

  /** A window's report, when there is something in it; a failure is told by whoever decides what becomes of it. */
  window(report: ReportStatus): void {
    if (this.#json) this.fact('window', { ...report });
    else if (report.changes > 0) this.say([windowText(report)]);
  }

  remark({ level, lines }: Remark): void {
    const text = lines.join('\n');
    const now_ms = performance.now();
    const before_ms = this.#remarked.get(text);
    if (before_ms !== undefined && now_ms - before_ms < REMARK_AGAIN_MS) return;
    if (this.#remarked.size >= REMARKS_KEPT_MAX) this.#remarked.clear();
    this.#remarked.set(text, now_ms);
    if (this.#json) {
      this.fact('remark', { level, text });
      return;
    }
    const style = level === 'error' ? 'red' : level === 'warning' ? 'yellow' : null;
    this.say(style === null ? lines : lines.map((line) => this.#terminal.paint(style, line)));
  }

  /** An error that does not end the run. */
  trouble(error: Told, next: string): void {
    this.remark({ level: 'warning', lines: [...errorLines(error), `  ${next}`] });
  }

  /** For a person; nothing of it goes to a program. */
  say(lines: readonly string[]): void {
    if (this.#json) return;
    if (this.#block) this.#block.say(lines);
    else for (const line of lines) this.#io.err(`${timeOfDay()}  ${line}`);
  }

  /** For a program; nothing of it goes to a person. */
  fact(event: string, facts: Readonly<Record<string, unknown>>): void {
    if (this.#json) this.#io.out(JSON.stringify({ event, at: new Date().toISOString(), ...facts }));
  }

  /** The block goes; what follows is printed below what was said. */
  close(): void {
    this.#block?.clear();
  }
}

export function windowText(
  report: Pick<
    ReportStatus,
    'changes' | 'transactions' | 'cuts' | 'object_bytes' | 'rejected_rows' | 'started_at' | 'ended_at'
  >,
): string {
  const { changes, transactions, cuts, object_bytes, rejected_rows = 0, started_at, ended_at } = report;
  const rejected = rejected_rows === 0 ? '' : `, ${counted(rejected_rows, 'row')} rejected`;
  const seconds = (Date.parse(ended_at) - Date.parse(started_at)) / 1000;
  return `Window: ${counted(changes, 'change')} of ${counted(transactions, 'transaction')} in ${counted(cuts, 'cut')}, ${bytes(object_bytes)} staged${rejected}, in ${duration(seconds)}`;
}

function timeOfDay(): string {
  return new Date().toTimeString().slice(0, 8);
}
