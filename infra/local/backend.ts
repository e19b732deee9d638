/**
 * Stage, ledger and doorbells of one pipeline on this machine: the services (ours, or those at AWS_ENDPOINT_URL), the resources in them, the
 * embedded servers where the pipeline names none, and the environment through which functions and commands find all of it.
 */
import { resolve } from 'node:path';
import type { Pipeline } from '../../lib/config/schema.ts';
import { SluiceError } from '../../lib/errors.ts';
import { type Addresses, localFilePath, passwordsOf, startDatabases, writeLocalFile } from './databases.ts';
import { awsEnvironment, type Environment, functionEnvironment } from './environment.ts';
import { type Clients, clientsFor, makeResources, purgeDoorbells, type Resources } from './resources.ts';
import { type ServiceEndpoints, startServices } from './services.ts';
import { findEngine, takeState } from './state.ts';

export interface BackendOptions {
  readonly pipeline: Pipeline;
  /** The file that `pipeline` was read from. */
  readonly configPath: string;
  /** `.sluice` or what --state says. */
  readonly stateDirectory: string;
  /** The caller's process.env: passwords, and AWS_ENDPOINT_URL. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** A service failed at a request; its client has an error and tries again. */
  readonly onError?: (error: SluiceError) => void;
  /** Services or an embedded server are gone: nothing can go on. */
  readonly onFatal: (error: SluiceError) => void;
}

export interface Backend {
  readonly endpoints: ServiceEndpoints;
  readonly resources: Resources;
  readonly clients: Clients;
  /** Embedded servers; null: the pipeline names its own. */
  readonly databases: Addresses;
  /** The pipeline file as JSON, with every host in it: what the functions read. */
  readonly configPath: string;
  /** What a function's process.env holds. */
  readonly environment: Environment;
  stop(): Promise<void>;
}

/** For an engine: takes the state directory for itself, STATE_IN_USE where another engine has it. Doorbells are empty afterwards (I9). */
export async function openBackend(options: BackendOptions): Promise<Backend> {
  const { pipeline, onFatal } = options;
  await using opened = new AsyncDisposableStack();
  const state = await takeState(resolve(options.stateDirectory));
  opened.defer(() => state.release());

  const databases = await startDatabases(pipeline, state.directory);
  opened.defer(() => databases.stop());
  databases.onEnd((side, how) => onFatal(gone(`run the embedded ${side}`, `it ended with ${how}`)));
  const configPath = localFilePath(pipeline, state.directory);
  await writeLocalFile(pipeline, options.configPath, configPath, databases.addresses);

  const external = options.environment.AWS_ENDPOINT_URL ?? '';
  let endpoints: ServiceEndpoints = { s3: external, sqs: external, dynamodb: external };
  if (external === '') {
    const onError = (reason: string): void => options.onError?.(gone('answer a request', reason));
    const services = await startServices({ directory: state.directory, onError, onEnd: onFatal });
    opened.defer(() => services.stop());
    endpoints = services.endpoints;
  }
  const backend = await connect(options, endpoints, databases.addresses, configPath);
  opened.defer(() => backend.stop());
  await purgeDoorbells(backend.clients.sqs, backend.resources);
  await state.publish({
    pid: process.pid,
    started_at_ms: Date.now(),
    pipeline: pipeline.pipeline,
    endpoints,
    databases: databases.addresses,
  });
  const kept = opened.move();
  return { ...backend, stop: () => kept.disposeAsync() };
}

/** For a command beside an engine: uses what belongs to the engine that runs on the directory, or, where none does, its own for so long. */
export async function shareBackend(options: BackendOptions): Promise<Backend> {
  const directory = resolve(options.stateDirectory);
  const engine = await findEngine(directory);
  if (engine === null) return await openBackend(options);
  const configPath = localFilePath(options.pipeline, directory);
  return await connect(options, engine.endpoints, engine.databases, configPath);
}

async function connect(
  options: BackendOptions,
  endpoints: ServiceEndpoints,
  databases: Addresses,
  configPath: string,
): Promise<Backend> {
  const base = { ...awsEnvironment(options.environment), ...passwordsOf(databases) };
  const clients = clientsFor(endpoints, base);
  const stop = async (): Promise<void> => {
    for (const client of Object.values(clients)) client.destroy();
  };
  try {
    const resources = await makeResources(clients, endpoints, options.pipeline.pipeline);
    const environment = functionEnvironment(base, endpoints, resources, configPath);
    return { endpoints, resources, clients, databases, configPath, environment, stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

function gone(action: string, reason: string): SluiceError {
  return new SluiceError('LOCAL_ENGINE_FAILED', { action, reason });
}
