/**
 * The terminal that a command shows its progress on (standard error), and a block of lines at its bottom that is drawn again and again while other
 * lines scroll by above it. Where there is no terminal, there is no block: callers print plain lines then.
 */
import { styleText } from 'node:util';
import { fit, harmless, widthOf } from './text.ts';

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan';

export interface Terminal {
  /** A person watches: a block may be drawn. */
  readonly isLive: boolean;
  readonly columns: () => number;
  readonly rows: () => number;
  readonly write: (text: string) => void;
  /** Colours where they are wanted, else the text as it is. */
  readonly paint: (style: Style, text: string) => string;
}

/** What is used of a stream such as process.stderr. */
export interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

/** Of a file or a pipe: wide enough for any table of ours. */
const COLUMNS_DEFAULT = 160;
const ROWS_DEFAULT = 24;

/** NO_COLOR (https://no-color.org), TERM=dumb and CI are respected. */
export function terminalOf(output: Output, env: Readonly<Record<string, string | undefined>>): Terminal {
  const isTerminal = output.isTTY === true && env.TERM !== 'dumb';
  const isPainted = isTerminal && !env.NO_COLOR;
  return {
    isLive: isTerminal && !env.CI,
    columns: () => output.columns || COLUMNS_DEFAULT,
    rows: () => output.rows || ROWS_DEFAULT,
    write: (text) => output.write(text),
    paint: (style, text) => (isPainted ? styleText(style, text, { validateStream: false }) : text),
  };
}

/** To the block's first line: the cursor stands after its last one. */
const up = (lines: number): string => (lines > 0 ? `\u001b[${lines}A\r` : '\r');
const CLEAR_BELOW = '\u001b[J';

export class Block {
  readonly #terminal: Terminal;
  /** Widths of the lines that stand there now. */
  #drawn: number[] = [];
  #lines: readonly string[] = [];

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** Puts `lines` where the block was. What does not fit into the terminal is left out, from the end. */
  draw(lines: readonly string[]): void {
    this.#lines = lines;
    this.#replace([]);
  }

  /** Prints lines that stay, above the block. */
  say(lines: readonly string[]): void {
    this.#replace(lines);
  }

  /** Takes the block away. */
  clear(): void {
    this.#lines = [];
    this.#replace([]);
  }

  #replace(said: readonly string[]): void {
    const { columns, rows, write } = this.#terminal;
    const width = columns();
    // A terminal that was made narrower has broken the lines that were too long for it.
    const height = this.#drawn.reduce((sum, drawn) => sum + Math.max(1, Math.ceil(drawn / width)), 0);
    const shown = this.#lines.slice(0, Math.max(0, rows() - 1)).map((line) => clipped(line, width - 1));
    this.#drawn = shown.map(widthOf);
    write(`${up(height)}${CLEAR_BELOW}${[...said, ...shown].map((line) => `${harmless(line)}\n`).join('')}`);
  }
}

/** A line that is too long loses its colours with its end. */
function clipped(line: string, width: number): string {
  // oxlint-disable-next-line no-control-regex -- the colours that `paint` has put there
  return widthOf(line) <= width ? line : fit(line.replaceAll(/\u001b\[[0-9;]*m/g, ''), width);
}
