/**
 * The contracts between the straight line (`pipeline.ts`) and the world. Each is the least that the line needs; adapters are thin and hold no
 * decisions. Every method may throw a SluiceError whose disposition says whether trying again can help; a port never retries without limit
 * and never swallows.
 *
 * "Durable" means: survives the death of this process and of the machine it runs on.
 */
export type * from './ports/comparer.ts';
export type * from './ports/doorbell.ts';
export * from './ports/ledger.ts';
export * from './ports/report.ts';
export type * from './ports/slot.ts';
export type * from './ports/source.ts';
export type * from './ports/stage.ts';
export type * from './ports/target.ts';

export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  sleep(ms: number): Promise<void>;
}

/** Structured log: an event's name (`snake_case`), and facts that hold no secret and no row value. */
export interface Log {
  info(event: string, facts?: Record<string, unknown>): void;
  warn(event: string, facts?: Record<string, unknown>): void;
  error(event: string, facts?: Record<string, unknown>): void;
}
