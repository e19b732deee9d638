/**
 * A command's access to the state of a pipeline, beside an engine that may be running on it: through that engine's services, or for a moment through
 * services of its own.
 */
import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Backend, shareBackend } from '../../infra/local/backend.ts';
import { findEngine } from '../../infra/local/state.ts';
import { SluiceError } from '../../lib/errors.ts';
import type { OperatePorts } from '../../lib/operate.ts';
import type { PipelineFile } from '../pipeline-file.ts';
import { operatePorts } from './ledger.ts';

export interface Place {
  readonly file: PipelineFile;
  /** Where `file` was read. */
  readonly path: string;
  readonly state: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export interface Beside {
  readonly backend: Backend;
  readonly ports: OperatePorts;
  /** The process whose engine runs on the state; null: none does. */
  readonly running_pid: number | null;
}

/** Something has run here before. Where it has not, nothing is made by looking. */
export async function hasState({ state, environment }: Pick<Place, 'state' | 'environment'>): Promise<boolean> {
  if (environment.AWS_ENDPOINT_URL) return true;
  return await access(resolve(state, 'dynamodb')).then(
    () => true,
    () => false,
  );
}

/** Throws USAGE where nothing has run yet, and what `work` throws. */
export async function beside<T>(place: Place, work: (beside: Beside) => Promise<T>): Promise<T> {
  if (!(await hasState(place))) {
    throw new SluiceError('USAGE', {
      problem: `There is no state of a pipeline in ${place.state}.`,
      remedy: 'Name the directory with --state DIR; `sluice run` makes it.',
    });
  }
  const { pipeline } = place.file;
  const engine = await findEngine(resolve(place.state));
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => undefined); // It is waited for below, together with the work.
  const backend = await shareBackend({
    pipeline,
    configPath: place.path,
    stateDirectory: place.state,
    environment: place.environment,
    onFatal: (error) => failed.reject(error),
  });
  try {
    const ports = operatePorts(backend, pipeline.pipeline);
    return await Promise.race([work({ backend, ports, running_pid: engine?.pid ?? null }), failed.promise]);
  } finally {
    await backend.stop();
  }
}
