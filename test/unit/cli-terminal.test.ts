/** The block at the bottom of a terminal, Ctrl-C, and how a command fails. */
import { EventEmitter } from 'node:events';
import { CommanderError } from 'commander';
import { describe, expect, test } from 'vitest';
import { Ended, failureOf, toldOf } from '../../cli/failure.ts';
import { onInterrupt } from '../../cli/run/interrupt.ts';
import { Block, type Terminal, terminalOf } from '../../cli/view/terminal.ts';
import { SluiceError } from '../../lib/errors.ts';

/** What a terminal shows, of what is written to it: as much of its language as the block speaks. */
class Screen implements Terminal {
  readonly isLive = true;
  lines: string[] = [''];
  width: number;
  height: number;
  #row = 0;

  constructor(width = 20, height = 10) {
    this.width = width;
    this.height = height;
  }

  columns = (): number => this.width;
  rows = (): number => this.height;
  paint = (_style: string, text: string): string => text;
  write = (text: string): void => {
    // oxlint-disable-next-line no-control-regex -- the terminal's own language
    for (const [token] of text.matchAll(/\u001b\[\d*[AJ]|\r|\n|[^\u001b\r\n]+/g)) {
      if (token.endsWith('A') && token.startsWith('\u001b'))
        this.#row = Math.max(0, this.#row - Number(token.slice(2, -1)));
      else if (token === '\u001b[J') this.lines = [...this.lines.slice(0, this.#row), ''];
      else if (token === '\n') this.lines[++this.#row] ??= '';
      else if (token !== '\r') this.lines[this.#row] = token;
    }
  };

  /** As a terminal does it whose lines have become too long. */
  narrow(width: number): void {
    this.width = width;
    this.lines = this.lines.flatMap((line) => line.match(new RegExp(`.{1,${width}}`, 'g')) ?? ['']);
    this.#row = this.lines.length - 1;
  }
}

describe('the block', () => {
  test('is drawn anew in its place, and what is said stays above it', () => {
    const screen = new Screen();
    const block = new Block(screen);
    block.draw(['one', 'two']);
    block.say(['said']);
    block.draw(['three']);
    block.say(['more', 'said']);
    expect(screen.lines).toEqual(['said', 'more', 'said', 'three', '']);
    block.clear();
    expect(screen.lines).toEqual(['said', 'more', 'said', '']);
  });

  test('never takes more lines than the terminal has, nor more than a line for each', () => {
    const screen = new Screen(10, 4);
    new Block(screen).draw(['a line that is too long', '2', '3', '4', '5']);
    expect(screen.lines).toEqual(['a line t…', '2', '3', '']);
  });

  test('shows what would clear it', () => {
    const screen = new Screen(40);
    new Block(screen).say(['a\u001b[2Jb']);
    expect(screen.lines).toEqual(['a\\u001b[2Jb', '']);
  });

  test('finds its place again in a terminal that was made narrower', () => {
    const screen = new Screen(20);
    const block = new Block(screen);
    block.say(['stays']);
    block.draw(['123456789012345678', 'short']);
    screen.narrow(10);
    block.draw(['after']);
    expect(screen.lines).toEqual(['stays', 'after', '']);
  });
});

describe('a terminal', () => {
  const output = { isTTY: true, columns: 80, rows: 24, write: () => true };

  test('is watched by a person only where it is one, and not in CI', () => {
    expect(terminalOf(output, {}).isLive).toBe(true);
    expect(terminalOf(output, { CI: 'true' }).isLive).toBe(false);
    expect(terminalOf(output, { TERM: 'dumb' }).isLive).toBe(false);
    expect(terminalOf({ write: () => true }, {}).isLive).toBe(false);
  });

  test('has colours unless NO_COLOR says otherwise', () => {
    expect(terminalOf(output, {}).paint('red', 'x')).toBe('\u001b[31mx\u001b[39m');
    expect(terminalOf(output, { NO_COLOR: '1' }).paint('red', 'x')).toBe('x');
    expect(terminalOf({ write: () => true }, {}).paint('red', 'x')).toBe('x');
  });
});

describe('Ctrl-C', () => {
  test('once asks, copies of it within a moment count as one, and the second ends at once', async () => {
    const signals = new EventEmitter();
    const said: string[] = [];
    using interrupt = onInterrupt(
      () => said.push('asked'),
      signals,
      () => said.push('ended'),
    );
    expect(interrupt.signal.aborted).toBe(false);
    signals.emit('SIGINT');
    signals.emit('SIGINT');
    expect(interrupt.signal.aborted).toBe(true);
    expect(said).toEqual(['asked']);
    await new Promise((resolve) => setTimeout(resolve, 350));
    signals.emit('SIGTERM');
    expect(said).toEqual(['asked', 'ended']);
  });

  test('does again what it always does afterwards', () => {
    const signals = new EventEmitter();
    {
      using _ = onInterrupt(
        () => undefined,
        signals,
        () => undefined,
      );
      expect(signals.listenerCount('SIGINT')).toBe(1);
    }
    expect(signals.eventNames()).toEqual([]);
  });
});

describe('a failure', () => {
  test('tells code, meaning and remedy; usage ends with 2, all else with 1', () => {
    const usage = new SluiceError('USAGE', { problem: 'No such thing.', remedy: 'Try another.' });
    expect(failureOf(usage, false)).toEqual({
      exit_code: 2,
      errors: [{ code: 'USAGE', message: 'No such thing.', remedy: 'Try another.' }],
      lines: ['Error USAGE: No such thing.', '  Remedy: Try another.'],
    });
    expect(failureOf(new SluiceError('WAL_LEVEL', { wal_level: 'replica' }), false).exit_code).toBe(1);
  });

  test('that nobody thought of says how to see its stack, which it shows only then', () => {
    const fault = new TypeError('x is not a function');
    expect(failureOf(fault, false).lines.at(-1)).toBe('  Set SLUICE_DEBUG=1 and run it again to see where it arose.');
    expect(failureOf(fault, false).lines.join('\n')).not.toContain('cli-terminal.test');
    expect(failureOf(fault, true).lines.join('\n')).toContain('cli-terminal.test');
  });

  test('that came as data is told alike, and one that has been told is not told again', () => {
    const told = toldOf({ check: 'c', severity: 'error', subject: 's', code: 'WAL_LEVEL', problem: 'p', remedy: 'r' });
    expect(failureOf(new Ended(1, [told]), false).lines).toEqual(['Error WAL_LEVEL: p', '  Remedy: r']);
    const unknown = { code: 'UNEXPECTED', message: 'm', remedy: 'r' };
    expect(failureOf(new Ended(1, [unknown]), false).lines.at(-1)).toMatch(/SLUICE_DEBUG=1/);
    expect(failureOf(new Ended(1), false)).toEqual({ exit_code: 1, errors: [], lines: [] });
    expect(failureOf(new CommanderError(0, 'commander.help', ''), false).exit_code).toBe(0);
    expect(failureOf(new CommanderError(1, 'commander.unknownOption', ''), false)).toEqual({
      exit_code: 2,
      errors: [],
      lines: [],
    });
  });
});
