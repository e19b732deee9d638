/**
 * How a command ends when it does not end well: what is printed, and with which exit code the process ends (design §6).
 */
import { CommanderError } from 'commander';
import { asSluiceError, SluiceError } from '../lib/errors.ts';

/** 0: done. 1: findings, or a failure. 2: the command line or the pipeline file is wrong, and nothing was done. */
export type ExitCode = 0 | 1 | 2;

/** Thrown by a command that has said all there is to say. */
export class Ended extends Error {
  override readonly name = 'Ended';
  readonly exit_code: ExitCode;

  constructor(exit_code: ExitCode) {
    super(`ended with exit code ${exit_code}`);
    this.exit_code = exit_code;
  }
}

export interface Failure {
  readonly exit_code: ExitCode;
  /** For standard error. */
  readonly lines: readonly string[];
  /** For programs; null where there is no more to say. */
  readonly error: { readonly code: string; readonly message: string; readonly remedy: string } | null;
}

/** What to print for `thrown`, and the exit code. `debug` adds the stack of what nobody thought of. Pure. */
export function failureOf(thrown: unknown, debug: boolean): Failure {
  if (thrown instanceof Ended) return { exit_code: thrown.exit_code, lines: [], error: null };
  // Help and version are no failures; what commander refuses it has printed already.
  if (thrown instanceof CommanderError) return { exit_code: thrown.exitCode === 0 ? 0 : 2, lines: [], error: null };
  const error = asSluiceError(thrown);
  const { code, message, remedy } = error;
  return {
    exit_code: error.disposition === 'usage' ? 2 : 1,
    lines: [...errorLines(error), ...hint(error, debug)],
    error: { code, message, remedy },
  };
}

/** One error as a person reads it: code, meaning, remedy. */
export function errorLines({ code, message, remedy }: { code: string; message: string; remedy: string }): string[] {
  return [`Error ${code}: ${message}`, `  Remedy: ${remedy}`];
}

function hint(error: SluiceError, debug: boolean): string[] {
  if (error.code !== 'UNEXPECTED') return [];
  if (!debug) return ['  Set SLUICE_DEBUG=1 and run it again to see where it arose.'];
  const { cause } = error;
  const stack = cause instanceof Error ? cause.stack : error.stack;
  return (stack ?? '').split('\n').map((line) => `  ${line}`);
}
