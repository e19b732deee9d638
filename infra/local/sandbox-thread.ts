/**
 * Inside a sandbox: receives events, calls the handlers that Lambda would call, with a context like Lambda's, and answers. Several invocations may
 * run at once. Events and results pass as JSON, as they do on AWS, so that nothing slips through here that would not there.
 *
 * https://docs.aws.amazon.com/lambda/latest/dg/nodejs-context.html
 */
import { flushCompileCache } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';
import type { Context } from 'aws-lambda';
import { SluiceError } from '../../lib/errors.ts';
import { collectWhatIsLeft } from './garbage.ts';
import type { Invocation, InvocationResult, SandboxData } from './sandbox.ts';

type Handler = (event: unknown, context: Context) => Promise<unknown>;

const port = parentPort;
if (port === null) throw new TypeError('sandbox-thread.ts runs in a worker thread');
const { handlers, stopAt } = workerData as SandboxData;
const stop_at_ms = new Float64Array(stopAt);

port.on('message', (invocation: Invocation) => {
  invoke(invocation)
    .then(
      (result) => port.postMessage(result),
      (thrown: unknown) => port.postMessage({ id: invocation.id, error: describe(thrown) } satisfies InvocationResult),
    )
    .finally(collectWhatIsLeft);
});

async function invoke({ id, function_name, request_id, deadline_ms, event }: Invocation): Promise<InvocationResult> {
  const path = handlers[function_name];
  if (path === undefined) throw new RangeError(`this sandbox has no function ${function_name}`);
  const { handler } = await loadModule(path);
  if (typeof handler !== 'function') throw new TypeError(`${path} exports no handler`);
  const result = await handler(JSON.parse(event), contextOf(function_name, request_id, deadline_ms));
  return { id, result: JSON.stringify(result ?? null) };
}

const loaded = new Map<string, Promise<{ handler?: Handler }>>();

/** The module, read once; what was compiled for it is kept at once, because a thread that is ended writes nothing. */
async function loadModule(path: string): Promise<{ handler?: Handler }> {
  const before = loaded.get(path);
  if (before !== undefined) return await before;
  const loading = import(path) as Promise<{ handler?: Handler }>;
  loaded.set(path, loading);
  const module = await loading;
  flushCompileCache();
  return module;
}

/** What remains falls to 0 at once when the engine is asked to stop: a function that ends cleanly at its deadline ends cleanly on Ctrl-C. */
function contextOf(function_name: string, request_id: string, deadline_ms: number): Context {
  const unsupported = (): never => {
    throw new Error('context.done, fail and succeed ended with Node.js 20; return or throw instead');
  };
  return {
    functionName: function_name,
    functionVersion: '$LATEST',
    invokedFunctionArn: `arn:aws:lambda:${process.env.AWS_REGION}:000000000000:function:${function_name}`,
    memoryLimitInMB: '0',
    awsRequestId: request_id,
    logGroupName: `/aws/lambda/${function_name}`,
    logStreamName: 'local',
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, Math.min(deadline_ms, stop_at_ms[0] ?? deadline_ms) - Date.now()),
    done: unsupported,
    fail: unsupported,
    succeed: unsupported,
  };
}

function describe(thrown: unknown): NonNullable<InvocationResult['error']> {
  if (thrown instanceof SluiceError) {
    return { name: thrown.name, message: thrown.message, code: thrown.code, facts: thrown.facts };
  }
  if (thrown instanceof Error) return { name: thrown.name, message: thrown.message, stack: thrown.stack ?? '' };
  return { name: 'Error', message: String(thrown) };
}
