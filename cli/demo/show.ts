/**
 * The course of the demo: servers, shop, first copy beside live writes, the end of the writes, the comparison. It runs on what `sluice run` runs on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine, LogLine } from '../../infra/local/engine.ts';
import { asSluiceError, SluiceError } from '../../lib/errors.ts';
import type { ReportStatus } from '../../lib/operate.ts';
import { closeClient } from '../../lib/postgres/connection.ts';
import { serverVersion } from '../../lib/postgres/session.ts';
import { Ended, type Told } from '../failure.ts';
import { readPipelineFile } from '../pipeline-file.ts';
import type { Connections } from '../place/connect.ts';
import { type Doors, openDoors } from '../place/embedded.ts';
import { catchUp } from '../run/catch-up.ts';
import { haltsOf } from '../run/caught-up.ts';
import { BellFaults, isTransient, WINDOW_TRIES_MAX, windowWait } from '../run/patience.ts';
import { type Remark, remarkOf } from '../run/remarks.ts';
import { openSession, type Session } from '../run/session.ts';
import { Watch } from '../run/watch.ts';
import { type Comparison, compareTables } from './compare.ts';
import { Gauges } from './gauges.ts';
import { countRows, makeShop, SHOP_TABLES, shopSize } from './shop.ts';
import type { Stages } from './view.ts';
import { startWriting } from './writers.ts';

export interface ShowOptions {
  /** The pipeline file, which is there. */
  readonly path: string;
  readonly state: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Rows of the shop, about. */
  readonly rows: number;
  /** How long it is written to; null: until `signal`. */
  readonly seconds: number | null;
  /** The writes are to end now. */
  readonly signal: AbortSignal;
  readonly audience: Audience;
}

/** Whoever looks on. */
export interface Audience {
  opened(facts: { readonly version: number; readonly doors: Doors | null }): void;
  filled(rows: number): void;
  writing(seconds: number | null): void;
  copied(): void;
  stages(stages: Stages): void;
  remark(remark: Remark): void;
  stopped(): void;
  comparing(): void;
}

export interface Shown {
  readonly comparisons: readonly Comparison[];
  /** Streams that wait for a person. */
  readonly halts: readonly Told[];
  readonly stages: Stages;
  /** How long the shop was written to. */
  readonly seconds: number;
}

/** Throws what keeps it from its end. The comparison is the result, whatever it says. */
export async function show(options: ShowOptions): Promise<Shown> {
  return await new Show(options).run();
}

class Show {
  readonly #options: ShowOptions;
  readonly #gauges = new Gauges();
  readonly #faults = new BellFaults();
  readonly #fatal = Promise.withResolvers<never>();
  #watch: Watch | null = null;

  constructor(options: ShowOptions) {
    this.#options = options;
    this.#fatal.promise.catch(() => undefined); // It is waited for below, together with the work.
  }

  async run(): Promise<Shown> {
    const { path, state, environment } = this.#options;
    const session = await openSession({
      file: await readPipelineFile(path),
      path,
      state,
      environment,
      lasting: false,
      onLog: (line) => this.#log(line),
      onReport: () => this.#gauges.window(),
      onFault: (what, error) => this.#fault(what, error),
      onFatal: (error) => this.#fatal.reject(error),
      onEngine: (engine, connections) => this.#prepare(engine, connections),
    });
    try {
      return await Promise.race([this.#replicate(session), this.#fatal.promise]);
    } finally {
      await this.#watch?.stop();
      await session.engine.stop();
    }
  }

  /** The servers run: the shop is made before anybody looks for its tables. */
  async #prepare({ backend }: Engine, connections: Connections): Promise<void> {
    const { audience, state, rows } = this.#options;
    const doors = await openDoors(backend.databases, state);
    const client = await connections.source();
    try {
      audience.opened({ version: await serverVersion(client), doors });
      await makeShop(client, shopSize(rows));
      audience.filled(await countRows(client));
    } finally {
      await closeClient(client);
    }
  }

  async #replicate(session: Session): Promise<Shown> {
    const { audience, rows, seconds, signal } = this.#options;
    const { engine, ports, pipeline, connections, selected } = session;
    const gauges = this.#gauges;
    const watch = new Watch({
      ports,
      pipeline: pipeline.pipeline,
      selected,
      onSight: (sight) => {
        if (gauges.sight(sight)) audience.copied();
        audience.stages(gauges.stages(sight.progress));
      },
      onCuts: (cuts) => gauges.cuts(cuts),
    });
    this.#watch = watch;
    await watch.look();
    const arrivals = gauges.startArrivals(engine, connections.target);
    const writing = startWriting({
      connect: connections.source,
      size: shopSize(rows),
      isCopied: () => gauges.isCopied,
      onCommitted: (committed) => gauges.committed(committed),
    });
    const began_ms = performance.now();
    try {
      audience.writing(seconds);
      watch.start((thrown) => audience.remark(troubleOf(asSluiceError(thrown))));
      using writes = endAfter(seconds, signal);
      await Promise.race([this.#windows(engine, writes.ended), writing.failed]);
    } finally {
      await writing.stop();
    }
    const written_s = (performance.now() - began_ms) / 1000;
    audience.stopped();
    const { sight, left } = await this.#catchUp(session, watch);
    await watch.stop();
    await arrivals.stop();
    audience.comparing();
    const comparisons = await compareTables(connections, SHOP_TABLES);
    return { comparisons, halts: haltsOf(left), stages: gauges.stages(sight.progress), seconds: written_s };
  }

  /** Windows back to back. */
  async #windows(engine: Engine, ended: AbortSignal): Promise<void> {
    for (let failures = 0; !ended.aborted; ) {
      const report = (await engine.window()) as Pick<ReportStatus, 'error'>; // What `drain` answers (functions/drain.ts).
      const hopeless = this.#faults.hopeless(Date.now());
      if (hopeless) throw new Ended(1, [hopeless]);
      if (report.error === null) {
        failures = 0;
        continue;
      }
      failures += 1;
      if (!isTransient(report.error.code) || failures === WINDOW_TRIES_MAX) throw new Ended(1, [report.error]);
      this.#options.audience.remark(troubleOf(report.error));
      await sleep(windowWait(failures), undefined, { signal: ended }).catch(() => undefined); // Cut short at the end.
    }
  }

  async #catchUp({ engine, selected, connections }: Session, watch: Watch) {
    const { audience } = this.#options;
    const client = await connections.source();
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    await closeClient(client);
    const result = await catchUp({
      engine,
      watch,
      selected,
      lsn: rows[0]?.lsn ?? 'its position',
      faults: this.#faults,
      signal: new AbortController().signal, // Who is asked to end has only this left to do.
      onTrouble: (error) => audience.remark(troubleOf(error)),
    });
    if (result.outcome === 'interrupted') throw new SluiceError('UNEXPECTED', { reason: 'interrupted by nobody' });
    return result;
  }

  #log({ sandbox, text, record }: LogLine): void {
    const { audience, environment } = this.#options;
    if (environment.SLUICE_DEBUG) audience.remark({ level: 'info', lines: [`${sandbox}: ${text}`] });
    if (record === null) return;
    if (record.event === 'loaded' || record.event === 'extracted') this.#faults.succeeded();
    if (record.event === 'bell_retried' || record.event === 'bell_failed') {
      this.#faults.failed(record.error as Told, Date.now());
    }
    // What is taken in and copied shows anyway.
    if (record.event === 'captured' || record.event === 'epoch_done') return;
    const remark = remarkOf(record, (stream) => this.#watch?.tableOf(stream) ?? stream);
    if (remark) audience.remark(remark);
  }

  #fault(what: string, error: SluiceError): void {
    if (what === 'load' || what === 'extract') this.#faults.failed(error, Date.now());
    this.#options.audience.remark(troubleOf(error));
  }
}

/**
 * `ended` is aborted when the time is up, or earlier when `signal` is. With a timer of its own: a signal of AbortSignal.timeout that only
 * AbortSignal.any refers to is collected before its time, and then never ends anything.
 */
function endAfter(seconds: number | null, signal: AbortSignal): Disposable & { readonly ended: AbortSignal } {
  const controller = new AbortController();
  const end = (): void => controller.abort();
  const timer = seconds === null ? undefined : setTimeout(end, seconds * 1000);
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  return {
    ended: controller.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
    },
  };
}

function troubleOf({ code, message }: Told): Remark {
  return { level: 'warning', lines: [`${code}: ${message}`, '  It is tried again.'] };
}
