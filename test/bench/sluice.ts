/**
 * Sluice on the servers of a run: each function in a process of its own, on the services of the local engine (test/support/own-functions.ts).
 */
import { type OwnFunctions, type OwnFunctionsOptions, ownFunctions } from '../support/own-functions.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { timed } from './peers.ts';

export interface Measured extends AsyncDisposable {
  readonly own: OwnFunctions;
  /** All tables copied, in seconds, from the first window on. */
  firstSync(): Promise<number>;
  /** One window up to where the log stands: until it is durable and confirmed, in seconds. Its doorbells are not answered if nobody answers any. */
  drain(): Promise<number>;
  /** Until all that the source has is on the target, in seconds. */
  visible(): Promise<number>;
}

interface Servers {
  readonly source: TestPostgres;
  readonly target: TestPostgres;
}

export interface Pipeline {
  /** Of the pipeline, its slot and its publication. */
  readonly name: string;
  readonly tables: string;
  /** Lines of the pipeline file. */
  readonly source?: string;
  readonly target?: string;
  readonly schedule?: string;
}

export async function sluice(
  servers: Servers,
  { name, tables, source = '', target = '', schedule }: Pipeline,
  options: OwnFunctionsOptions = {},
): Promise<Measured> {
  const own = await ownFunctions(
    servers,
    {
      pipeline: name,
      tables,
      source: `  replication_slot: bench_${name}\n  publication_name: bench_${name}\n${source}`,
      target: `  hard_delete: true\n${target}`,
      ...(schedule === undefined ? {} : { schedule }),
    },
    options,
  );
  return {
    own,
    firstSync: () => timed(() => own.settle()),
    drain: async () => {
      const { started_at, ended_at } = (await own.window()) as {
        readonly started_at: string;
        readonly ended_at: string;
      };
      return (Date.parse(ended_at) - Date.parse(started_at)) / 1000;
    },
    visible: () => timed(() => own.settle()),
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}
