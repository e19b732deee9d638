/**
 * Ctrl-C, and what `kill` sends: the first asks to end cleanly, the second ends at once. What is lost then is done again; that is what the state is for.
 */

/** A terminal sends to every process of a group, and npm and the launcher pass on what they get: copies of one signal come within this. */
const COPIES_MS = 300;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** As a shell has it for a process that SIGINT has ended. */
const EXIT_AT_ONCE = 130;

export interface Interrupt {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** Signals do again what they always do. */
  [Symbol.dispose](): void;
}

export interface Signals {
  on(signal: NodeJS.Signals, listener: () => void): unknown;
  off(signal: NodeJS.Signals, listener: () => void): unknown;
}

/** `onFirst` is called before the signal is aborted. */
export function onInterrupt(
  onFirst: () => void,
  signals: Signals = process,
  endAtOnce: () => void = () => process.exit(EXIT_AT_ONCE),
): Interrupt {
  const asked = new AbortController();
  let first_ms: number | null = null;
  const listener = (): void => {
    const now_ms = performance.now();
    if (first_ms === null) {
      first_ms = now_ms;
      onFirst();
      asked.abort();
    } else if (now_ms - first_ms > COPIES_MS) endAtOnce();
  };
  for (const signal of SIGNALS) signals.on(signal, listener);
  return {
    signal: asked.signal,
    [Symbol.dispose]: () => {
      for (const signal of SIGNALS) signals.off(signal, listener);
    },
  };
}
