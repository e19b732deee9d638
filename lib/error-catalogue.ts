/**
 * The closed catalogue of what can go wrong: code → meaning → what is done → remedy.
 *
 * The table alone decides between retry and halt. What is not in it is `UNEXPECTED`, and that halts: a fault nobody thought of must not be
 * tried for ever, nor skipped. A message never carries a secret or a row's values; `facts` hold names, positions and numbers only. One exception: RECORD_INVALID tells the values
 * of the row's key, for without them nobody finds the row; as they would be staged, so that what is masked in them stays masked.
 *
 * `retry` is transient: tried again with backoff, and by the next doorbell or window. `halt` waits for a person: a stream's error halts the
 * stream, a window's error ends the window. `recopy`: the log does not hold what is needed, and the stream is copied anew by itself. `usage`: the
 * command or the file is wrong, and nothing was done; exit code 2.
 */
import { COMMAND_ERRORS } from './error-catalogue/command.ts';
import type { Entry } from './error-catalogue/entry.ts';
import { RECORD_ERRORS } from './error-catalogue/record.ts';
import { SOURCE_ERRORS } from './error-catalogue/source.ts';
import { SSH_ERRORS } from './error-catalogue/ssh.ts';
import { TARGET_ERRORS } from './error-catalogue/target.ts';

export type { Disposition, Facts } from './error-catalogue/entry.ts';

export const CATALOGUE = {
  ...COMMAND_ERRORS,
  ...SSH_ERRORS,
  ...SOURCE_ERRORS,
  ...RECORD_ERRORS,
  ...TARGET_ERRORS,
  UNEXPECTED: {
    disposition: 'halt',
    meaning: (f) => `Unexpected: ${f.reason}`,
    remedy: () => 'This is a fault of Sluice. Please report it with this text and the run report.',
  },
} as const satisfies Record<string, Entry>;
