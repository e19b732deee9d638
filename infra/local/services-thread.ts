/** The thread that serves S3, SQS and DynamoDB to the engine in the same process; see services.ts. */
import { flushCompileCache } from 'node:module';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { buildApp } from 'fauxqs';
import { startDynamoDb } from './dynamodb.ts';
import type { LocalServer } from './loopback.ts';
import { startS3 } from './s3/server.ts';
import type { ServiceEndpoints, ServicesMessage } from './services.ts';

const port = parentPort;
if (port === null) throw new TypeError('services-thread.ts runs in a worker thread');
const { directory } = workerData as { directory: string };
const post = (message: ServicesMessage): void => port.postMessage(message);
const onError = (thrown: unknown): void =>
  post({ kind: 'error', reason: thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown) });

/**
 * SQS by fauxqs, in memory. Queues hold doorbells, which are not state (I9): every window rings again for what is staged and not applied. A
 * queue that survived its process would only bring back messages in flight, with their groups locked until they show again.
 */
async function startSqs(): Promise<LocalServer> {
  const app = buildApp({ logger: false });
  const endpoint = await app.listen({ port: 0, host: '127.0.0.1' });
  return { endpoint, stop: () => app.close() };
}

const servers: Record<keyof ServiceEndpoints, LocalServer> = {
  s3: await startS3(join(directory, 's3'), onError),
  sqs: await startSqs(),
  dynamodb: await startDynamoDb(join(directory, 'dynamodb'), onError),
};

port.once('message', () => {
  Promise.all(Object.values(servers).map((server) => server.stop())).then(() => port.close(), onError);
});
post({
  kind: 'ready',
  endpoints: { s3: servers.s3.endpoint, sqs: servers.sqs.endpoint, dynamodb: servers.dynamodb.endpoint },
});
flushCompileCache();
