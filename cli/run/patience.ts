/**
 * How long a run that is to end waits for what may pass by itself, and when it gives up. Pure: what happened comes in, and when.
 */
import { ERROR_CODES, type ErrorCode, SluiceError } from '../../lib/errors.ts';
import type { Told } from '../failure.ts';

/** Windows in a row that failed by something transient, and the wait after the first; it doubles. About a minute in all. */
export const WINDOW_TRIES_MAX = 7;
const WINDOW_WAIT_MS = 1_000;
const WINDOW_WAIT_MS_MAX = 20_000;
/** Transient faults of loads and extracts in a row, over at least so long: SQS brings each back after 5 s, 20 s, 80 s, 320 s. */
const BELL_FAULTS_MAX = 6;
const BELL_FAULTS_MS_MIN = 120_000;
/** What a person must mend is seen twice before it is believed: a target that fails over is read-only for a moment. */
const GROUND_FAULTS_MAX = 2;

/** May the same thing succeed later with nobody doing anything? */
export function isTransient(code: string): boolean {
  return ERROR_CODES.includes(code as ErrorCode) && new SluiceError(code as ErrorCode).disposition === 'retry';
}

/** Milliseconds until the window after `failures` failed ones. */
export function windowWait(failures: number): number {
  return Math.min(WINDOW_WAIT_MS * 2 ** (failures - 1), WINDOW_WAIT_MS_MAX);
}

/** Faults of loads and extracts since one of them last succeeded. */
export class BellFaults {
  #transient = 0;
  #ground = 0;
  #since_ms = 0;
  #last: Told | null = null;

  succeeded(): void {
    this.#transient = 0;
    this.#ground = 0;
    this.#last = null;
  }

  failed(fault: Told, now_ms: number): void {
    if (this.#last === null) this.#since_ms = now_ms;
    this.#last = fault;
    if (isTransient(fault.code)) this.#transient += 1;
    else this.#ground += 1;
  }

  /** The fault that is not worth waiting out any longer; null: go on. */
  hopeless(now_ms: number): Told | null {
    const isTooMuch =
      this.#ground >= GROUND_FAULTS_MAX ||
      (this.#transient >= BELL_FAULTS_MAX && now_ms - this.#since_ms >= BELL_FAULTS_MS_MIN);
    return isTooMuch ? this.#last : null;
  }

  get last(): Told | null {
    return this.#last;
  }
}
