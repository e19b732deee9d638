/**
 * Stage, ledger and doorbells of one pipeline on this machine: the services (ours, or those at AWS_ENDPOINT_URL), the resources in them, and the
 * environment through which functions and commands find them.
 */
import { resolve } from 'node:path';
import type { SluiceError } from '../../lib/errors.ts';
import { awsEnvironment, type Environment, functionEnvironment } from './environment.ts';
import { type Clients, clientsFor, makeResources, purgeDoorbells, type Resources } from './resources.ts';
import { type ServiceEndpoints, startServices } from './services.ts';
import { findEngine, takeState } from './state.ts';

export interface BackendOptions {
  readonly pipeline: string;
  /** The pipeline file. */
  readonly configPath: string;
  /** `.sluice` or what --state says. */
  readonly stateDirectory: string;
  /** The caller's process.env: passwords, and AWS_ENDPOINT_URL. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** A service failed at a request; its client has an error and tries again. */
  readonly onError: (reason: string) => void;
  /** The services are gone: nothing can go on. */
  readonly onFatal: (error: SluiceError) => void;
}

export interface Backend {
  readonly endpoints: ServiceEndpoints;
  readonly resources: Resources;
  readonly clients: Clients;
  /** What a function's process.env holds. */
  readonly environment: Environment;
  stop(): Promise<void>;
}

/** For an engine: takes the state directory for itself, STATE_IN_USE where another engine has it. Doorbells are empty afterwards (I9). */
export async function openBackend(options: BackendOptions): Promise<Backend> {
  await using opened = new AsyncDisposableStack();
  const lock = await takeState(resolve(options.stateDirectory));
  opened.defer(() => lock.release());
  const external = options.environment.AWS_ENDPOINT_URL ?? '';
  let endpoints: ServiceEndpoints = { s3: external, sqs: external, dynamodb: external };
  if (external === '') {
    const services = await startServices({
      directory: lock.directory,
      onError: options.onError,
      onEnd: options.onFatal,
    });
    opened.defer(() => services.stop());
    endpoints = services.endpoints;
  }
  const backend = await connect(endpoints, options);
  opened.defer(() => backend.stop());
  await purgeDoorbells(backend.clients.sqs, backend.resources);
  await lock.publish({ pid: process.pid, started_at_ms: Date.now(), pipeline: options.pipeline, endpoints });
  const kept = opened.move();
  return { ...backend, stop: () => kept.disposeAsync() };
}

/** For a command beside an engine: uses the services of the engine that runs on the directory, or, where none does, its own for so long. */
export async function shareBackend(options: BackendOptions): Promise<Backend> {
  const engine = await findEngine(resolve(options.stateDirectory));
  return engine === null ? await openBackend(options) : await connect(engine.endpoints, options);
}

async function connect(endpoints: ServiceEndpoints, options: BackendOptions): Promise<Backend> {
  const base = awsEnvironment(options.environment);
  const clients = clientsFor(endpoints, base);
  const stop = async (): Promise<void> => {
    for (const client of Object.values(clients)) client.destroy();
  };
  try {
    const resources = await makeResources(clients, endpoints, options.pipeline);
    const environment = functionEnvironment(base, endpoints, resources, resolve(options.configPath));
    return { endpoints, resources, clients, environment, stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}
