/**
 * What the doctor finds: a thing to mend or to know, with the SQL or setting that mends it. A detected problem is a Finding and never an exception;
 * how it is shown is the command's.
 */
import type { Pipeline } from '../config/schema.ts';
import type { ErrorCode, SluiceError } from '../errors.ts';
import type { Cut } from '../ports.ts';
import type { SecondarySurvey } from './secondary.ts';
import type { SourceSurvey } from './survey-source.ts';
import type { TargetSurvey } from './survey-target.ts';

/**
 * - error:   the pipeline will not run, or not wholly, until it is mended.
 * - warning: it runs, and something about it can hurt later.
 * - info:    good to know; nothing to do.
 */
export const SEVERITIES = ['error', 'warning', 'info'] as const;
export type Severity = (typeof SEVERITIES)[number];

export interface Finding {
  /** Name of the check, `snake_case`. */
  readonly check: string;
  readonly severity: Severity;
  /** What it is about: `source`, `target`, `slot sluice_shop`, `table public.orders`. */
  readonly subject: string;
  /** Of the error catalogue, where it is one of its errors. */
  readonly code?: ErrorCode;
  readonly problem: string;
  /** What to do, with the SQL or the setting; null where there is nothing to do. */
  readonly remedy: string | null;
}

/** The chain, as far as somebody looked: `undefined` where no state was looked at, null where there is none. */
export type ChainSeen =
  | Pick<Cut, 'kind' | 'end_lsn' | 'system_identifier' | 'timeline' | 'incarnation'>
  | null
  | undefined;

/** All that the checks go by: gathered first, so that they are pure. A side that could not be asked is the error that says why. */
export interface Survey {
  readonly pipeline: Pipeline;
  readonly chain: ChainSeen;
  readonly source: SourceSurvey | SluiceError;
  /** What opening a replication connection said; null: it opened. */
  readonly replication: SluiceError | null;
  readonly target: TargetSurvey | SluiceError;
  /** The source's replica; null or left out: none is used. */
  readonly secondary?: SecondarySurvey | SluiceError | null;
}

/** One check. `run` is pure and gives what it finds, nothing where all is well. */
export interface Check {
  readonly name: string;
  readonly run: (survey: Survey) => readonly Omit<Finding, 'check'>[];
}

/** One of our errors, as what the doctor says. */
export function findingOf(subject: string, error: SluiceError, severity: Severity = 'error'): Omit<Finding, 'check'> {
  return { severity, subject, code: error.code, problem: error.message, remedy: error.remedy };
}
