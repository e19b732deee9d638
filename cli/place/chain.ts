/**
 * A pipeline whose chain moves while a command waits for it: by the engine that runs on its state, or by one of the command's own, as `sluice run` has
 * it, which ends with the command.
 */
import type { Engine } from '../../infra/local/engine.ts';
import { scheduleOf } from '../../lib/config/schedule.ts';
import type { Pipeline, ScheduleConfig } from '../../lib/config/schema.ts';
import { asSluiceError } from '../../lib/errors.ts';
import type { OperatePorts, ReportStatus } from '../../lib/operate.ts';
import { ringAgain } from '../../lib/window/announce.ts';
import { Ended, type Told } from '../failure.ts';
import { readPipelineFile } from '../pipeline-file.ts';
import { BellFaults, isTransient, WINDOW_TRIES_MAX, windowWait } from '../run/patience.ts';
import { openSession } from '../run/session.ts';
import { beside, type Place } from './beside.ts';
import { type Connections, connectionsTo } from './connect.ts';

export interface Moving {
  /** With every host in it. */
  readonly pipeline: Pipeline;
  readonly ports: OperatePorts;
  readonly connections: Connections;
  /** The process whose engine is at work; null: the command's own. */
  readonly running_pid: number | null;
  /** Has a window run now; null where another engine's schedule decides. Throws Ended for a fault that does not pass. */
  readonly advance: (() => Promise<void>) | null;
  /** How long nothing may move until it is clear that nothing will, ms. */
  readonly idle_ms_max: number;
}

/** Of an engine of our own; on top of what the schedule takes to come round, of another. A large table's key is built in one step. */
const IDLE_MS_MAX = 600_000;
/** A cron expression may mean any time; who waits so long is told what for. */
const IDLE_CRON_MS_MAX = 25 * 3_600_000;
/** Windows with nothing in between would only burden the source. */
const WINDOW_GAP_MS = 500;
/** After so many windows, whoever was rung for is rung for again: he may be gone. */
const RING_ALL_EVERY = 10;

/** Throws what `work` throws, USAGE where nothing has run yet, and Ended for a ground that nothing can run on. */
export async function onMovingChain<T>(
  place: Place,
  onTrouble: (error: Told) => void,
  work: (moving: Moving) => Promise<T>,
): Promise<T> {
  const result = await beside(place, async ({ backend, ports, running_pid }) => {
    if (running_pid === null) return null;
    const { pipeline } = await readPipelineFile(backend.configPath);
    const reachable = { pipeline, config_path: backend.configPath, environment: backend.environment };
    const idle_ms_max = idleMsMax(pipeline);
    return {
      value: await work({
        pipeline,
        ports,
        connections: connectionsTo(reachable),
        running_pid,
        advance: null,
        idle_ms_max,
      }),
    };
  });
  return result === null ? await onOwn(place, onTrouble, work) : result.value;
}

async function onOwn<T>(
  { file, path, state, environment }: Place,
  onTrouble: (error: Told) => void,
  work: (moving: Moving) => Promise<T>,
): Promise<T> {
  const faults = new BellFaults();
  const { promise: fatal, reject } = Promise.withResolvers<never>();
  fatal.catch(() => undefined); // It is waited for below, together with the work.
  const session = await openSession({
    file,
    path,
    state,
    environment,
    lasting: false,
    onLog: ({ record }) => {
      if (record?.event === 'loaded' || record?.event === 'extracted') faults.succeeded();
      if (record?.event === 'bell_retried' || record?.event === 'bell_failed') {
        faults.failed(record.error as Told, Date.now());
      }
    },
    onReport: () => undefined,
    onFault: (what, error) => {
      if (what === 'load' || what === 'extract') faults.failed(error, Date.now());
    },
    onFatal: reject,
  });
  const { engine, ports, connections, pipeline } = session;
  try {
    // The engine has emptied the queues: what they said is said again.
    const head = await ports.ledger.head();
    if (head) await ringAgain(ports, await ports.ledger.bookmarks(), head, true, false, true);
    const advance = windows(engine, faults, onTrouble);
    const moving = { pipeline, ports, connections, running_pid: null, advance, idle_ms_max: IDLE_MS_MAX };
    return await Promise.race([work(moving), fatal]);
  } finally {
    await engine.stop();
  }
}

/** A window a call, tried again as `sluice run --until-caught-up` does. */
function windows(
  engine: Pick<Engine, 'window'>,
  faults: BellFaults,
  onTrouble: (error: Told) => void,
): () => Promise<void> {
  let ran = 0;
  return async () => {
    for (let failures = 1; ; failures++) {
      const hopeless = faults.hopeless(Date.now());
      if (hopeless) throw new Ended(1, [hopeless]);
      ran += 1;
      const error = await windowFault(engine, ran % RING_ALL_EVERY === 0);
      if (error === null) return await pause(WINDOW_GAP_MS);
      if (!isTransient(error.code) || failures === WINDOW_TRIES_MAX) throw new Ended(1, [error]);
      onTrouble(error);
      await pause(windowWait(failures));
    }
  };
}

async function windowFault(engine: Pick<Engine, 'window'>, ring_all: boolean): Promise<Told | null> {
  try {
    // What `drain` answers (functions/drain.ts).
    return ((await engine.window({ break_at_end_lsn: true, ring_all, ignore_schedules: true })) as ReportStatus).error;
  } catch (thrown) {
    const { code, message, remedy } = asSluiceError(thrown);
    return { code, message, remedy };
  }
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** What the slowest of the schedules takes, of the pipeline or of a table, and what is idle on top of it. Pure. */
function idleMsMax({ schedule, tables }: Pick<Pipeline, 'schedule' | 'tables'>): number {
  const own = tables.flatMap(({ schedule: given }) => (given === null ? [] : [scheduleOf(given)]));
  return Math.max(...[schedule, ...own].map(idleOf));
}

function idleOf(schedule: ScheduleConfig): number {
  if (schedule.kind === 'cron') return IDLE_CRON_MS_MAX;
  return IDLE_MS_MAX + (schedule.kind === 'every' ? 2 * schedule.every_seconds * 1000 : 0);
}
