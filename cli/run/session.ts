/**
 * What `run` and `demo` stand on: a look at the ground of both databases, and the engine. Whatever is wrong is told before anything is changed on either
 * side. Where databases are embedded, they come with the engine, and are looked at then.
 */
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { type Engine, type EngineOptions, startEngine } from '../../infra/local/engine.ts';
import { findEngine } from '../../infra/local/state.ts';
import { loadersAtOnce, type Pipeline, type ScheduleConfig } from '../../lib/config/schema.ts';
import { findingsOf, surveyed } from '../../lib/doctor/doctor.ts';
import type { Finding, Survey } from '../../lib/doctor/finding.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { OperatePorts } from '../../lib/operate.ts';
import { Ended, toldOf } from '../failure.ts';
import { type PipelineFile, readPipelineFile } from '../pipeline-file.ts';
import { type Connections, connectionsTo, type Reachable } from '../place/connect.ts';
import { operatePorts } from '../place/ledger.ts';
import { whatStops } from './ground.ts';

export interface SessionOptions extends Required<Pick<EngineOptions, 'onLog' | 'onReport' | 'onFault' | 'onFatal'>> {
  readonly file: PipelineFile;
  /** Where `file` was read. */
  readonly path: string;
  readonly state: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Windows run on and on, until somebody ends them. */
  readonly lasting: boolean;
  /** Instead of the file's. */
  readonly schedule?: ScheduleConfig;
  /** Called when the engine is there and the databases can be reached, before anything is asked of them. */
  readonly onEngine?: (engine: Engine, connections: Connections) => Promise<void>;
}

export interface Session {
  /** With every host in it. */
  readonly pipeline: Pipeline;
  readonly engine: Engine;
  readonly connections: Connections;
  readonly ports: OperatePorts;
  readonly survey: Survey;
  /** Ids of the streams that the file selects. */
  readonly selected: ReadonlySet<string>;
  /** What was found and does not stop the run. */
  readonly findings: readonly Finding[];
}

/** Readers of chunks and loaders share the machine with both databases: more than these only wait for each other. */
const LOADERS_PER_CORE = 4;
const EXTRACTS_MAX = 4;
/** For the taking and giving back of a dead window's lease. */
const LEASE_MS = 1_000;

/** Throws STATE_IN_USE, what starting a server throws, and what is wrong with the ground as Ended. The engine is the caller's to stop. */
export async function openSession(options: SessionOptions): Promise<Session> {
  const { file, path, environment, lasting } = options;
  const directory = resolve(options.state);
  const holder = await findEngine(directory);
  if (holder) throw new SluiceError('STATE_IN_USE', { pid: holder.pid, directory });
  const { pipeline: given } = file;
  const isNamed = given.source.host !== null && given.target.host !== null;
  const before = isNamed ? await examined({ pipeline: given, config_path: path, environment }, lasting) : null;
  const streams = before ? streamsOf(before).length : Number.POSITIVE_INFINITY;

  const engine = await startEngine({
    pipeline: given,
    configPath: path,
    stateDirectory: options.state,
    environment,
    ...(options.schedule && { schedule: options.schedule }),
    concurrency: concurrencyFor(given, streams, availableParallelism()),
    onLog: options.onLog,
    onReport: options.onReport,
    onFault: options.onFault,
    onFatal: options.onFatal,
  });
  try {
    return await onEngine(options, engine, before);
  } catch (thrown) {
    await engine.stop();
    throw thrown;
  }
}

async function onEngine(options: SessionOptions, engine: Engine, before: Survey | null): Promise<Session> {
  const { lasting } = options;
  const { backend } = engine;
  const { pipeline } = await readPipelineFile(backend.configPath);
  const reachable = { pipeline, config_path: backend.configPath, environment: backend.environment };
  const connections = connectionsTo(reachable);
  await options.onEngine?.(engine, connections);
  const survey = before ?? (await examined(reachable, lasting));

  const ports = operatePorts(backend, pipeline.pipeline);
  const captured = (await ports.ledger.bookmarks()).length > 0;
  const findings = findingsOf({ ...survey, chain: await ports.ledger.head() });
  const stops = whatStops(findings, { captured, lasting });
  // An embedded source is empty until somebody fills it, and for that it has to run.
  const isAwaited = ({ check }: Finding): boolean =>
    lasting && check === 'tables_selected' && backend.databases.source !== null;
  stopFor(stops.filter((finding) => !isAwaited(finding)));
  if (isOwn(options)) await freeLease(ports, pipeline);
  const selected = new Set(streamsOf(survey).map(({ id }) => id));
  return { pipeline, engine, connections, ports, survey, selected, findings };
}

async function examined(reachable: Reachable, lasting: boolean): Promise<Survey> {
  const survey = await surveyed({ pipeline: reachable.pipeline, connect: connectionsTo(reachable) });
  stopFor(whatStops(findingsOf(survey), { captured: null, lasting }));
  return survey;
}

function stopFor(findings: readonly Finding[]): void {
  if (findings.length > 0) throw new Ended(1, findings.map(toldOf));
}

function streamsOf({ source }: Survey) {
  return source instanceof SluiceError ? [] : source.selection.streams;
}

/** Invocations at once on a machine with `cores`. Pure. */
export function concurrencyFor(pipeline: Pipeline, streams: number, cores: number): { load: number; extract: number } {
  return {
    load: Math.min(loadersAtOnce(pipeline.target, streams, cores), LOADERS_PER_CORE * cores),
    extract: Math.min(EXTRACTS_MAX, Math.max(2, cores)),
  };
}

/** Stage and ledger are the state directory's own, so that whoever holds its lock is alone with them. */
function isOwn({ environment }: SessionOptions): boolean {
  return (environment.AWS_ENDPOINT_URL ?? '') === '';
}

/**
 * A window that was killed with its process leaves its lease behind. Its holder cannot be alive, since the engine is ours: the lease is taken in its name
 * and given back, so that nobody waits for it to run out.
 */
async function freeLease({ ledger }: OperatePorts, { source }: Pipeline): Promise<void> {
  const name = source.replication_slot;
  const taken = await ledger.takeLease(name, 'sluice run', LEASE_MS);
  const lease = 'held_by' in taken ? await ledger.takeLease(name, taken.held_by, LEASE_MS) : taken;
  if (!('held_by' in lease)) await ledger.releaseLease(lease);
}
