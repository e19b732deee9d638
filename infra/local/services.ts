/**
 * S3, SQS and DynamoDB on this machine: servers that speak the real protocols to the real SDK clients, on loopback, with their state in the state
 * directory (`s3/`, `dynamodb/`). What they have answered survives SIGKILL.
 *
 * They run in a thread of their own: a fault in one of them ends the engine with a clear error, not the process with a stack trace; and what they
 * compute (checksums, mostly) does not hold up the pollers.
 */
import { SluiceError } from '../../lib/errors.ts';
import { startThread } from './thread.ts';

export interface ServiceEndpoints {
  readonly s3: string;
  readonly sqs: string;
  readonly dynamodb: string;
}

export interface Services {
  readonly endpoints: ServiceEndpoints;
  stop(): Promise<void>;
}

export type ServicesMessage =
  | { readonly kind: 'ready'; readonly endpoints: ServiceEndpoints }
  | { readonly kind: 'error'; readonly reason: string };

export interface ServicesOptions {
  readonly directory: string;
  /** A request failed by the server's own fault; the client got an error and may try again. */
  readonly onError: (reason: string) => void;
  /** The servers are gone, unasked. */
  readonly onEnd: (error: SluiceError) => void;
}

const HEAP_MB_MAX = 128;
const YOUNG_HEAP_MB_MAX = 16;
const STOP_WAIT_MS = 5_000;

/** Resolves when all three listen. */
export async function startServices({ directory, onError, onEnd }: ServicesOptions): Promise<Services> {
  const thread = startThread('./services-thread.ts', {
    name: 'services',
    workerData: { directory },
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX, maxYoungGenerationSizeMb: YOUNG_HEAP_MB_MAX },
  });
  let stopping = false;
  let fault: unknown;
  const exited = new Promise<void>((done) => thread.once('exit', () => done()));
  thread.on('error', (error) => {
    fault = error;
  });
  const ready = new Promise<ServiceEndpoints>((done, fail) => {
    thread.on('message', (message: ServicesMessage) => {
      if (message.kind === 'ready') done(message.endpoints);
      else onError(message.reason);
    });
    thread.once('exit', () => {
      const reason = fault instanceof Error ? fault.message : 'they ended by themselves';
      const error = new SluiceError(
        'LOCAL_ENGINE_FAILED',
        { action: 'serve S3, SQS and DynamoDB', reason },
        { cause: fault },
      );
      fail(error);
      if (!stopping) onEnd(error);
    });
  });
  const endpoints = await ready;
  return {
    endpoints,
    stop: async () => {
      stopping = true;
      thread.postMessage('stop');
      const patience = setTimeout(() => void thread.terminate(), STOP_WAIT_MS);
      await exited;
      clearTimeout(patience);
    },
  };
}
