/**
 * How a command ends when it does not end well: what is printed, and with which exit code the process ends (design §6).
 */
import { CommanderError } from 'commander';
import type { Finding } from '../lib/doctor/finding.ts';
import { asSluiceError, type SluiceError } from '../lib/errors.ts';
import { toldError } from '../lib/postgres/server-error.ts';

/** 0: done. 1: findings, or a failure. 2: the command line or the pipeline file is wrong, and nothing was done. */
export type ExitCode = 0 | 1 | 2;

/** An error as a person or a program reads it. */
export interface Told {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
}

/** Errors that came as data (of a window's report, of a finding, of a halt), or nothing more to say: the command ends with `exit_code`. */
export class Ended extends Error {
  override readonly name = 'Ended';
  readonly exit_code: ExitCode;
  readonly errors: readonly Told[];

  constructor(exit_code: ExitCode, errors: readonly Told[] = []) {
    super(errors.map(({ message }) => message).join(' '));
    this.exit_code = exit_code;
    this.errors = errors;
  }
}

export interface Failure {
  readonly exit_code: ExitCode;
  readonly errors: readonly Told[];
  /** For standard error. */
  readonly lines: readonly string[];
}

/** What to print for `thrown`, and the exit code. `debug` adds the stack of what nobody thought of. Pure. */
export function failureOf(thrown: unknown, debug: boolean): Failure {
  if (thrown instanceof Ended) {
    const { exit_code, errors } = thrown;
    return { exit_code, errors, lines: [...errors.flatMap(errorLines), ...hint(errors, debug)] };
  }
  // Help and version are no failures; what commander refuses it has printed already.
  if (thrown instanceof CommanderError) return { exit_code: thrown.exitCode === 0 ? 0 : 2, errors: [], lines: [] };
  const error = asSluiceError(thrown);
  const { code, message, remedy } = error;
  const isShown = debug && code === 'UNEXPECTED';
  return {
    exit_code: error.disposition === 'usage' ? 2 : 1,
    errors: [{ code, message, remedy }],
    lines: [...errorLines(error), ...(isShown ? stackOf(error) : hint([error], debug))],
  };
}

export function errorLines({ code, message, remedy }: Told): string[] {
  return [`Error ${code}: ${inside(message)}`, `  Remedy: ${inside(remedy)}`];
}

/** A name or a server's message may hold line breaks: none of its lines begins where one of ours does. */
function inside(text: string): string {
  return text.replaceAll(/\r?\n(?! )/g, '\n  ');
}

export function toldOf({ code, problem, remedy }: Finding): Told {
  return { code: code ?? 'UNEXPECTED', message: problem, remedy: remedy ?? 'See `sluice doctor`.' };
}

/** What nobody thought of can only be found by its stack; functions write theirs to their log, which a run shows with SLUICE_DEBUG. */
function hint(errors: readonly Told[], debug: boolean): string[] {
  const isKnown = errors.every(({ code }) => code !== 'UNEXPECTED');
  return isKnown || debug ? [] : ['  Set SLUICE_DEBUG=1 and run it again to see where it arose.'];
}

function stackOf(error: SluiceError): string[] {
  const { cause } = error;
  const { stack } = toldError(cause instanceof Error ? cause : error);
  return stack.split('\n').map((line) => `  ${line}`);
}
